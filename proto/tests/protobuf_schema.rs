//! The generated messages are what the schema makes of itself: run with `UPDATE_GENERATED=1` after a
//! change to `proto/tidings/v1/*.proto`.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "all of it is a test")]

use std::{fs, path::Path};

const HEAD: &str = "//! The messages of `proto/tidings/v1/*.proto`, made by prost-build from them; never edited \
by hand.\n//! `proto/tests/protobuf_schema.rs` makes them anew.\n\n";

#[test]
fn the_generated_messages_are_those_of_the_schema() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut schema = protox::compile(["tidings/v1/protocol.proto"], [home]).unwrap();
    // The comments are for those who read the schema; in the code they would be there twice.
    for file in &mut schema.file {
        file.source_code_info = None;
    }
    let out = tempdir();
    let mut config = prost_build::Config::new();
    config.out_dir(&out).btree_map(["."]).bytes(["."]);
    config.compile_fds(schema).unwrap();
    let made =
        HEAD.to_owned() + &without_names(&fs::read_to_string(out.join("tidings.v1.rs")).unwrap());
    fs::remove_dir_all(&out).unwrap();
    let path = home.join("src/wire/protobuf/generated.rs");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let checked_in = fs::read_to_string(&path).unwrap_or_default();
    assert!(made == checked_in, "generated.rs is not of this schema: run with UPDATE_GENERATED=1");
}

/// The code without the blocks that turn enums into names and back: nobody asks for them.
fn without_names(code: &str) -> String {
    let mut is_in = false;
    let kept = code.split_inclusive('\n').filter(|line| {
        is_in |= line.starts_with("impl ");
        let is_out = !is_in;
        is_in &= *line != "}\n";
        is_out
    });
    kept.collect()
}

/// A directory of this process within the target directory.
fn tempdir() -> std::path::PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("schema-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    dir
}
