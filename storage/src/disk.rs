//! The disk as the log sees it: a trait, and the real one. The only file that names `std::fs`.
//!
//! - Paths are relative to the data directory and made by this crate: no user's text is in them.
//! - The directory has mode 0700, files 0600; symbolic links are refused.
//! - [`File`]s are read and written at positions; nothing has a cursor.

use std::{
    fmt::Debug,
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{FallocateFlags, FlockOperation, OFlags, fallocate, flock},
    io::{ReadWriteFlags, preadv2},
};

use crate::Error;

/// Where the log lives.
pub trait Disk: Send + Sync + Debug {
    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// The system's.
    fn open(&self, path: &str) -> io::Result<Arc<dyn File>>;
    /// Makes a file, or empties it when it is there. Its name is durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// The system's.
    fn create(&self, path: &str) -> io::Result<Arc<dyn File>>;
    /// Gives a file another name, replacing what had it. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// The names of the files in a directory, in any order.
    ///
    /// # Errors
    /// The system's.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// The system's.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Sixteen random bytes.
    ///
    /// # Errors
    /// The system's.
    fn random_id(&self) -> io::Result<[u8; 16]>;
    /// Takes the disk for this process, until the guard is dropped.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it.
    fn lock(&self) -> Result<Box<dyn Send + Sync>, Error>;
}

/// One file.
pub trait File: Send + Sync + Debug {
    /// Reads up to `buffer.len()` bytes; 0 at the end.
    ///
    /// # Errors
    /// The system's.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// The same without waiting for a device: what is in memory already.
    ///
    /// # Errors
    /// `WouldBlock` when nothing of it is, or where the system cannot tell; the system's.
    fn read_cached_at(&self, _buffer: &mut [u8], _position: u64) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    /// Writes all bytes.
    ///
    /// # Errors
    /// The system's; then any part of it may be written.
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;
    /// Makes what was written, and the size that reading it needs, durable.
    ///
    /// # Errors
    /// The system's. Never try again: the pages may be marked clean.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes everything about the file durable.
    ///
    /// # Errors
    /// The system's.
    fn sync_all(&self) -> io::Result<()>;
    /// Reserves space up to `len` bytes and sets the size; what was not written reads as zeros.
    ///
    /// # Errors
    /// The system's; "no space" before anything is written.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Cuts or extends the file.
    ///
    /// # Errors
    /// The system's.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// How long it is.
    ///
    /// # Errors
    /// The system's.
    fn size(&self) -> io::Result<u64>;

    /// Forgets what is in memory of it and on the disk too: the next read asks the disk.
    ///
    /// # Errors
    /// The system's.
    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a read may wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It may.
    Wait,
    /// It fails with `WouldBlock` instead.
    Now,
}

impl Patience {
    pub(crate) fn read_at(
        self,
        file: &dyn File,
        buffer: &mut [u8],
        position: u64,
    ) -> io::Result<usize> {
        match self {
            Patience::Wait => file.read_at(buffer, position),
            Patience::Now => file.read_cached_at(buffer, position),
        }
    }
}

/// A directory of the real file system.
#[derive(Debug)]
pub struct OsDisk {
    root: PathBuf,
}

/// Taking it twice within one process is refused by the system too: the lock belongs to the open file.
struct LockGuard {
    _file: fs::File,
}

impl OsDisk {
    /// The disk in this directory; made when it is not there.
    ///
    /// # Errors
    /// [`Error::Unsafe`] when others may write to it, or the system's.
    pub fn open(root: &Path) -> Result<OsDisk, Error> {
        let shown = root.display().to_string();
        let wrong = |problem| Error::Unsafe { path: shown.clone(), problem };
        match fs::symlink_metadata(root) {
            Ok(found) if found.is_symlink() => return Err(wrong("is a symbolic link")),
            Ok(found) if !found.is_dir() => return Err(wrong("is not a directory")),
            Ok(found) if found.mode() & 0o022 != 0 => {
                return Err(wrong("may be written by others"));
            }
            Ok(_) => {}
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => make_dir(root, &shown)?,
            Err(cause) => return Err(Error::io("look at", &shown, cause)),
        }
        for below in ["log", "projections"] {
            let dir = root.join(below);
            if !dir.is_dir() {
                make_dir(&dir, &shown)?;
            }
        }
        Ok(OsDisk { root: root.to_owned() })
    }

    /// The disk in this directory as it is; nothing is made.
    ///
    /// # Errors
    /// [`Error::Unsafe`] when it is no directory.
    pub fn look(root: &Path) -> Result<OsDisk, Error> {
        match root.join("log").is_dir() {
            true => Ok(OsDisk { root: root.to_owned() }),
            false => {
                Err(Error::Unsafe { path: root.display().to_string(), problem: "holds no log" })
            }
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

/// How many bytes others than the superuser may still write to the disk of `path`; `None` where the system
/// does not say.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

/// How many bytes the disk of `path` has; `None` where the system does not say.
pub fn total_bytes(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    // Some file systems say 0 for "not known".
    found.f_blocks.checked_mul(found.f_frsize).filter(|bytes| *bytes > 0)
}

/// Makes a directory and those above it, durable with their names.
#[expect(clippy::disallowed_methods, reason = "the one place")]
fn make_dir(path: &Path, shown: &str) -> Result<(), Error> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.exists()).collect();
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path).and_then(|()| {
        missing.iter().filter_map(|dir| dir.parent()).try_for_each(|parent| {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            fs::File::open(parent)?.sync_all()
        })
    });
    made.map_err(|cause| Error::io("make the directory", shown, cause))
}

impl Disk for OsDisk {
    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).custom_flags(no_follow());
        Ok(Arc::new(OsFile(options.open(self.path(path))?)))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        options.custom_flags(no_follow());
        Ok(Arc::new(OsFile(options.open(self.path(path))?)))
    }

    #[expect(clippy::disallowed_methods, reason = "the one place")]
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    #[expect(clippy::disallowed_methods, reason = "the one place")]
    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.path(path))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path(dir))? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    #[expect(clippy::disallowed_methods, reason = "the one place")]
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        fs::File::open(self.path(dir))?.sync_all()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place")]
    fn random_id(&self) -> io::Result<[u8; 16]> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(io::Error::other)?;
        Ok(id)
    }

    fn lock(&self) -> Result<Box<dyn Send + Sync>, Error> {
        let shown = self.root.display().to_string();
        let failed = |cause| Error::io("lock", &shown, cause);
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(no_follow());
        let mut file = options.open(self.path("LOCK")).map_err(failed)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            // Whoever holds it may be writing it: then it is just not known.
            let _ = file.read_to_string(&mut holder);
            let holder = if holder.is_empty() { "another process".to_owned() } else { holder };
            return Err(Error::Locked { path: shown, holder });
        }
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy();
        // For people only: a full disk keeps nobody from starting.
        let _ =
            file.set_len(0).and_then(|()| write!(file, "process {} on {host}", std::process::id()));
        Ok(Box::new(LockGuard { _file: file }))
    }
}

fn no_follow() -> i32 {
    i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0)
}

#[derive(Debug)]
struct OsFile(fs::File);

impl File for OsFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        loop {
            match FileExt::read_at(&self.0, buffer, position) {
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut buffers = [io::IoSliceMut::new(buffer)];
        match preadv2(&self.0, &mut buffers, position, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(read),
            // A kernel or a file system that cannot tell, and whatever else there is: the patient read says it.
            Err(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        FileExt::write_all_at(&self.0, bytes, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            // A file system without it: the size is set and "no space" shows at the write.
            Err(rustix::io::Errno::OPNOTSUPP) => self.set_len(len),
            Err(cause) => Err(cause.into()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed)?)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// Reads exactly `buffer.len()` bytes.
pub(crate) fn read_exact(
    file: &dyn File,
    mut buffer: &mut [u8],
    mut position: u64,
) -> io::Result<()> {
    while !buffer.is_empty() {
        let n = file.read_at(buffer, position)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = buffer.get_mut(n..).unwrap_or_default();
        position += n as u64;
    }
    Ok(())
}
