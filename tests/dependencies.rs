//! What may be depended on, as `deny.toml` says it: every package of the lock file has a licence and a source that are let in.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads the manifests"
)]

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use spdx::{Expression, Licensee, ParseMode};

fn manifest(path: &str) -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(path).unwrap().parse().unwrap()
}

/// The texts of an array.
fn texts(array: &toml::Value) -> Vec<&str> {
    array.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect()
}

/// Every package that may be built for one of these, whatever the features.
fn packages(targets: &[&str]) -> Vec<Value> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--locked", "--all-features"]);
    cargo.args(targets.iter().flat_map(|target| ["--filter-platform", target]));
    let told = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let mut told: Value = serde_json::from_slice(&told.stdout).unwrap();
    told["packages"].as_array_mut().unwrap().drain(..).collect()
}

#[test]
fn s12_every_dependency_has_a_licence_and_a_source_that_are_let_in() {
    let rules = manifest("deny.toml");
    let allowed = texts(&rules["licenses"]["allow"]);
    let allowed = allowed.iter().map(|it| Licensee::parse(it).unwrap()).collect::<Vec<_>>();
    let denied = rules["bans"]["deny"].as_array().unwrap();
    let denied = denied.iter().map(|it| it["name"].as_str().unwrap()).collect::<Vec<_>>();
    let packages = packages(&texts(&rules["graph"]["targets"]));
    assert!(packages.len() > 200, "{} packages were looked at", packages.len());
    let mut breaches = Vec::new();
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        let ours = package["source"].is_null();
        // Ours are by path; all others from the registry, not from a repository.
        if !ours && !package["source"].as_str().unwrap().starts_with("registry+") {
            breaches.push(format!("{name} comes from {}", package["source"]));
        }
        if denied.contains(&name) {
            breaches.push(format!("{name} is denied"));
        }
        let licence = package["license"].as_str().unwrap_or("none");
        let is_allowed = Expression::parse_mode(licence, ParseMode::LAX).is_ok_and(|licence| {
            licence.evaluate(|asked| allowed.iter().any(|it| it.satisfies(asked)))
        });
        if !is_allowed {
            breaches.push(format!("{name} has the licence {licence}"));
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn s12_no_crate_of_ours_may_have_unsafe_code() {
    let root = manifest("Cargo.toml");
    assert_eq!(root["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
    for member in [vec!["."], texts(&root["workspace"]["members"])].concat() {
        let crate_of = manifest(&format!("{member}/Cargo.toml"));
        assert_eq!(crate_of["lints"]["workspace"].as_bool(), Some(true), "{member}");
    }
}
