//! What the program says of itself: the commit it was built from, and the compiler.
//!
//! - `BUILD_COMMIT` in the environment of the build wins: for packagers, who build from what is no checkout. (A name with
//!   `TIDINGS_` would be a setting to the broker.)
//! - Without it, and without git or a checkout of this repository, the commit is `unknown`; nothing fails.
//! - It runs again when the checkout moves to another commit, not when a source changes.

use std::{env, path::Path, process::Command};

const UNKNOWN: &str = "unknown";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=BUILD_COMMIT");
    let given = env::var("BUILD_COMMIT").ok().filter(|commit| is_word(commit));
    let commit = given.or_else(checked_out).unwrap_or_else(|| UNKNOWN.to_owned());
    println!("cargo::rustc-env=BUILD_COMMIT={commit}");
    // "rustc 1.89.0 (29483883e 2025-08-04)"
    let said = env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"]));
    let rustc = said.as_deref().and_then(|said| said.split(' ').nth(1));
    println!("cargo::rustc-env=BUILD_RUSTC={}", rustc.unwrap_or(UNKNOWN));
}

/// The commit of the checkout that this is; `None` also where it only lies within another repository's.
fn checked_out() -> Option<String> {
    let here = env::var("CARGO_MANIFEST_DIR").ok()?;
    let git = |arguments: &[&str]| output("git", &[&["-C", &here], arguments].concat());
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != Path::new(&here).canonicalize().ok()? {
        return None;
    }
    let branch = git(&["symbolic-ref", "-q", "HEAD"]);
    // The log of HEAD grows with every commit, also where the branch is in no file of its own.
    for name in ["HEAD", "logs/HEAD"].into_iter().chain(branch.as_deref()) {
        let path = git(&["rev-parse", "--git-path", name])?;
        let path = Path::new(&here).join(path);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"]).filter(|commit| is_word(commit))
}

/// Whether it can stand in a label and behind a `=` as it is.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
}

/// What a program writes, without the end of the line; `None` where it fails or is not there.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let done = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(done.stdout).ok()?;
    done.status.success().then(|| text.trim().to_owned())
}
