//! What fuzzing found worth keeping, given again to the functions that it calls: `fuzz/corpus/TARGET/*`, on any compiler.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "tests fail by panicking, and read the corpus"
)]

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::{collections::BTreeSet, fs, path::PathBuf};

use targets::{Handshakes, TARGETS};

fn dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// The inputs of a target by path, and one that is empty.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir().join(target)).unwrap().map(|entry| entry.unwrap().path());
    let mut inputs: Vec<_> =
        entries.map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{target}: no input");
    inputs.push(("nothing".to_owned(), Vec::new()));
    inputs
}

/// The inputs of a target with which something does not hold.
fn broken(target: &str, check: impl Fn(&[u8])) -> Vec<String> {
    let holds = |input: &[u8]| {
        let check = std::panic::AssertUnwindSafe(|| check(input));
        std::panic::catch_unwind(check).is_ok()
    };
    let inputs = corpus(target).into_iter().filter(|(_, input)| !holds(input));
    inputs.map(|(path, _)| path).collect()
}

#[test]
fn whatever_was_found_by_fuzzing_holds() {
    let broken: Vec<_> = TARGETS.iter().flat_map(|(name, check)| broken(name, check)).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn whatever_was_found_by_fuzzing_handshakes_holds() {
    let broker = Handshakes::start();
    let broken = broken("handshake", |input| broker.check(input));
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_target_has_its_file_and_a_small_corpus() {
    let names = TARGETS.iter().map(|(name, _)| (*name).to_owned()).chain(["handshake".to_owned()]);
    let names: BTreeSet<String> = names.collect();
    let listed = |path: PathBuf| -> BTreeSet<String> {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(listed(dir()), names);
    assert_eq!(listed(dir().with_file_name("fuzz_targets")), names);
    let bytes: usize = names.iter().flat_map(|name| corpus(name)).map(|(_, it)| it.len()).sum();
    assert!(bytes < 1 << 20, "{bytes} bytes of corpus");
}
