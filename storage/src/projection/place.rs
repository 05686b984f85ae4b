//! Where the stores of one projection lie, and how one is put aside.
//!
//! - A store's directory is `NAME-vSCHEMA-sled-VERSION.GENERATION`. Only the highest generation of
//!   our own versions is used. A new store takes a new generation: a thread that still hangs in
//!   the old one knows its files by path, and must not find the new one there.
//! - What is put aside becomes `NAME.old`; there is one of these at most.
//! - `NAME.opening` is there while a store is being opened: found at a start, it says that opening
//!   ended the process the last time.
//! - `seal` in a store's directory is there after a clean stop: the CRC-64 of all its files. It is
//!   checked, so that files damaged while at rest never reach sled, which may spin on them for
//!   ever, and taken away before the store is opened.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::ProjectionError;

/// The version of sled whose files these are; `Cargo.toml` asks for exactly this one.
pub(super) const SLED_VERSION: &str = "1.0.0-alpha.124";

const SEAL: &str = "seal";

/// The directory of the projections and one name in it.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    name: String,
    /// Our directory's name up to the generation.
    stem: String,
    generation: u64,
}

/// What a look around found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// There is a store of our own versions; its generation is the place's now.
    pub(super) current: bool,
    /// The name of one of other versions.
    pub(super) stray: Option<String>,
}

impl Place {
    /// The place of `name` below `dir`, which is made.
    pub(super) fn new(dir: &Path, name: &str, schema: u32) -> Result<Place, ProjectionError> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if name.is_empty() || name.len() > 32 || !name.bytes().all(good) {
            return Err(ProjectionError::Name(name.chars().take(64).collect()));
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))?;
        let stem = format!("{name}-v{schema}-sled-{SLED_VERSION}.");
        Ok(Place { dir: dir.to_owned(), name: name.to_owned(), stem, generation: 0 })
    }

    /// Looks for stores; those that are not ours to use are put aside.
    pub(super) fn look_around(&mut self) -> Result<Found, ProjectionError> {
        let family = format!("{}-v", self.name);
        let mut found = Found::default();
        let mut others = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(at(&self.dir))? {
            let Ok(name) = entry.map_err(at(&self.dir))?.file_name().into_string() else {
                continue;
            };
            if !name.starts_with(&family) {
                continue;
            }
            match name.strip_prefix(&self.stem).map(str::parse::<u64>) {
                Some(Ok(generation)) if !found.current || generation > self.generation => {
                    if found.current {
                        others.push(self.path());
                    }
                    found.current = true;
                    self.generation = generation;
                }
                Some(Ok(_)) => others.push(self.dir.join(name)),
                _ => {
                    others.push(self.dir.join(&name));
                    found.stray = Some(name);
                }
            }
        }
        for path in others {
            self.put_aside(&path);
        }
        Ok(found)
    }

    /// The directory of the store in use.
    pub(super) fn path(&self) -> PathBuf {
        self.dir.join(format!("{}{}", self.stem, self.generation))
    }

    /// Puts the store aside and goes on to the next generation. With `hollow` its slabs are cut to
    /// nothing: that ends a thread which still reads them in circles, and gives back the space.
    pub(super) fn retire(&mut self, hollow: bool) {
        let path = self.path();
        if hollow {
            hollow_out(&path.join("slabs"));
        }
        self.put_aside(&path);
        self.generation += 1;
    }

    /// Makes the directory of the store in use.
    pub(super) fn make(&self) -> Result<(), ProjectionError> {
        let path = self.path();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(at(&path))
    }

    fn put_aside(&self, path: &Path) {
        let old = self.dir.join(format!("{}.old", self.name));
        // Whatever fails here costs only space: this generation is not looked at again.
        for step in [remove(&old), rename(path, &old)] {
            match step {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "cannot put a store aside");
                }
                _ => {}
            }
        }
    }

    /// Whether opening ended the process the last time.
    pub(super) fn died_opening(&self) -> bool {
        self.marker().exists()
    }

    /// Leaves the mark that opening begins.
    pub(super) fn mark_opening(&self) -> Result<(), ProjectionError> {
        let marker = self.marker();
        let file = write_new(&marker).map_err(at(&marker))?;
        drop(file);
        Ok(())
    }

    /// Takes the mark away: whatever came of it, the process lives.
    #[expect(clippy::disallowed_methods, reason = "a projection's own files, below its directory")]
    pub(super) fn unmark_opening(&self) {
        let marker = self.marker();
        if let Err(error) = fs::remove_file(&marker) {
            // The next start then replays for nothing.
            tracing::warn!(path = %marker.display(), %error, "cannot remove the mark of opening");
        }
    }

    fn marker(&self) -> PathBuf {
        self.dir.join(format!("{}.opening", self.name))
    }

    /// Seals the files of the closed store.
    pub(super) fn seal(&self) -> Result<(), ProjectionError> {
        let path = self.path().join(SEAL);
        let sum = sum_of(&self.path()).map_err(at(&path))?;
        let sealed = write_new(&path).and_then(|mut file| {
            file.write_all(&sum.to_le_bytes())?;
            file.sync_all()
        });
        sealed.map_err(at(&path))
    }

    /// Breaks the seal, if there is one; whether the files are as they were sealed.
    #[expect(clippy::disallowed_methods, reason = "a projection's own files, below its directory")]
    pub(super) fn unseal(&self) -> Result<bool, ProjectionError> {
        let path = self.path().join(SEAL);
        let sealed = match fs::read(&path) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(at(&path)(error)),
        };
        let sum = sum_of(&self.path()).map_err(at(&path))?;
        fs::remove_file(&path).map_err(at(&path))?;
        Ok(sealed == sum.to_le_bytes())
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> ProjectionError {
    move |source| ProjectionError::Io { path: path.to_owned(), source }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => remove_file(path),
        Err(error) => Err(error),
    }
}

#[expect(clippy::disallowed_methods, reason = "a projection's own files, below its directory")]
fn remove_file(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

#[expect(clippy::disallowed_methods, reason = "the directory of a store that is put aside")]
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

fn write_new(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)
}

fn hollow_out(slabs: &Path) {
    let Ok(entries) = fs::read_dir(slabs) else { return };
    for entry in entries.flatten() {
        let cut = fs::OpenOptions::new().write(true).open(entry.path());
        if let Err(error) = cut.and_then(|file| file.set_len(0)) {
            tracing::warn!(path = %entry.path().display(), %error, "cannot cut a slab");
        }
    }
}

/// The CRC-64 over path, length and bytes of every file below `root` but the seal.
fn sum_of(root: &Path) -> io::Result<u64> {
    let mut files = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => dirs.push(entry.path()),
                false => files.push(entry.path()),
            }
        }
    }
    files.sort();
    let mut sum = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
    let mut chunk = vec![0; 64 << 10];
    for path in files {
        let name = path.strip_prefix(root).unwrap_or(&path);
        if name == Path::new(SEAL) {
            continue;
        }
        let mut file = fs::OpenOptions::new().read(true).open(&path)?;
        sum.update(name.as_os_str().as_encoded_bytes());
        sum.update(&[0]);
        sum.update(&file.metadata()?.len().to_le_bytes());
        loop {
            let read = match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            sum.update(chunk.get(..read).unwrap_or_default());
        }
    }
    Ok(sum.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_in_the_name_is_the_one_in_use() {
        let manifest = include_str!("../../Cargo.toml");
        assert!(manifest.contains(&format!("sled = \"={SLED_VERSION}\"")));
    }

    #[test]
    fn one_old_store_is_kept_and_the_highest_generation_used() {
        let dir = tempfile::tempdir().unwrap();
        let names = |dir: &Path| {
            let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
            let mut names: Vec<_> = names.map(|n| n.into_string().unwrap()).collect();
            names.sort();
            names
        };
        let ours = |n: u32| format!("a-v2-sled-{SLED_VERSION}.{n}");
        for name in
            [&ours(3), &ours(11), &ours(4), "a-v1-sled-1.0.0-alpha.124.9", "b-v1-x", "a.old"]
        {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let mut place = Place::new(dir.path(), "a", 2).unwrap();
        let found = place.look_around().unwrap();
        assert!(found.current);
        assert_eq!(found.stray.as_deref(), Some("a-v1-sled-1.0.0-alpha.124.9"));
        assert_eq!(place.path(), dir.path().join(ours(11)));
        assert_eq!(names(dir.path()), [&ours(11), "a.old", "b-v1-x"]);
        place.retire(false);
        place.make().unwrap();
        assert_eq!(names(dir.path()), [&ours(12), "a.old", "b-v1-x"]);
        for name in ["", "A", "a-b", "../a"] {
            assert!(Place::new(dir.path(), name, 1).is_err(), "{name}");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the files of a test")]
    fn a_seal_sees_every_change() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path(), "a", 1).unwrap();
        place.make().unwrap();
        let (one, sub) = (place.path().join("one"), place.path().join("sub"));
        assert!(place.unseal().unwrap(), "there is none");
        fs::write(&one, b"12").unwrap();
        fs::create_dir(&sub).unwrap();
        fs::write(sub.join("two"), b"3").unwrap();
        place.seal().unwrap();
        assert!(place.unseal().unwrap());
        let changes: [&dyn Fn(); 4] = [
            &|| fs::write(&one, b"13").unwrap(),
            &|| fs::write(sub.join("three"), b"").unwrap(),
            &|| fs::rename(sub.join("two"), sub.join("four")).unwrap(),
            &|| fs::write(place.path().join(SEAL), b"").unwrap(),
        ];
        for change in changes {
            place.seal().unwrap();
            change();
            assert!(!place.unseal().unwrap());
        }
    }
}
