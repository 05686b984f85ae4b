//! The rules of the house as a test: which room may import which, how long files and functions may be.
//!
//! It reads the sources as text, so that a `use` in a doc comment or a string does not count, and says for
//! every breach: file, line, and what to do instead.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads the sources"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The most lines of production code in a file.
const FILE_LINES_MAX: usize = 600;
/// The most lines of a function.
const FUNCTION_LINES_MAX: usize = 70;

/// A room and the rooms it may import. `proto` is the words; `wire` the encodings.
const FLOORS: [(&str, &[&str]); 12] = [
    ("clock", &["proto"]),
    ("metrics", &["proto", "clock"]),
    ("log", &["proto", "wire", "storage", "clock", "metrics"]),
    ("broker", &["proto", "log", "clock", "metrics"]),
    ("auth", &["proto", "clock"]),
    ("session", &["proto", "wire", "broker", "auth", "log", "clock", "metrics"]),
    ("net", &["proto", "wire", "session", "clock", "metrics"]),
    ("client", &["proto", "wire", "clock", "net"]),
    ("config", &["proto", "auth", "log", "net", "session"]),
    ("server", &["proto", "auth", "broker", "config", "metrics", "net", "session", "log", "clock"]),
    ("cli", &["proto", "wire", "client", "config", "server", "storage", "clock", "log"]),
    ("main", &["cli"]),
];

/// Files that may import what their room may not, with the reason.
const EXCEPTIONS: [(&str, &str, &str); 4] = [
    ("src/log/codec.rs", "wire", "the one place that knows how a record's body is encoded"),
    ("src/session/outbox.rs", "log", "events travel encoded from the log to the socket"),
    ("src/session/mod.rs", "log", "events and topics are the log's words, handed on unread"),
    ("src/client", "net", "the frame codec is pure and serves both ends"),
];

/// Crates that a room must not name.
const BANNED: [(&str, &[&str]); 4] = [
    ("src/session", &["hyper", "axum", "fastwebsockets", "tokio::net", "tidings_storage"]),
    (
        "src/broker",
        &[
            "hyper",
            "sled",
            "tidings_storage",
            "tidings_proto::wire",
            "tokio::net",
            "crate::session",
            "crate::net",
            "crate::auth",
        ],
    ),
    ("storage/src", &["tokio", "hyper", "metrics", "tidings_proto::wire"]),
    ("proto/src", &["tokio", "hyper", "tidings_storage", "std::fs", "std::net"]),
];

fn sources(dir: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string()
}

/// The production part of a file: what comes before its inline tests, comments and all.
fn production(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).unwrap();
    if path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests") {
        return Vec::new();
    }
    text.lines()
        .enumerate()
        .map(|(n, line)| (n + 1, line.to_owned()))
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .collect()
}

fn code(lines: Vec<(usize, String)>) -> impl Iterator<Item = (usize, String)> {
    lines.into_iter().filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn room_of(file: &str) -> Option<&str> {
    let rest = file.strip_prefix("src/")?;
    Some(rest.split('/').next()?.trim_end_matches(".rs"))
}

/// The rooms that one line of code names: `crate::room`, or a room within `use crate::{…}` blocks.
fn rooms_named(lines: &[(usize, String)]) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    let mut block_depth = 0_i32;
    for (n, line) in lines {
        for part in line.split("crate::").skip(1) {
            let word: String =
                part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            named.push((*n, word));
        }
        // A block that ends on its line: what stands outermost in it.
        let inner =
            line.trim_start().strip_prefix("use crate::{").and_then(|it| it.strip_suffix("};"));
        for part in inner.into_iter().flat_map(outermost) {
            named.push((*n, part));
        }
        if block_depth == 1 {
            let word: String =
                line.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            named.push((*n, word));
        }
        if line.trim_start().starts_with("use crate::{") || block_depth > 0 {
            let opened = i32::try_from(line.matches('{').count()).unwrap();
            let closed = i32::try_from(line.matches('}').count()).unwrap();
            block_depth += opened - closed;
        }
        let words = [
            ("tidings_proto::wire", "wire"),
            ("tidings_proto", "proto"),
            ("tidings_storage", "storage"),
        ];
        for (path, room) in words {
            if line.contains(&format!("{path}::")) {
                named.push((*n, room.to_owned()));
            }
        }
    }
    named
}

/// The first words of a list, without those in inner lists: `a, b::{c, d}` names `a` and `b`.
fn outermost(list: &str) -> Vec<String> {
    let mut depth = 0_i32;
    let flat: String = list
        .chars()
        .filter(|c| {
            depth += i32::from(*c == '{') - i32::from(*c == '}');
            depth == 0
        })
        .collect();
    let words = flat.split(',').map(|path| path.split("::").next().unwrap_or("").trim().to_owned());
    words.filter(|word| !word.is_empty()).collect()
}

#[test]
fn imports_go_down_only() {
    let mut breaches = Vec::new();
    for path in sources("src") {
        let file = name(&path);
        let Some((_, allowed)) =
            room_of(&file).and_then(|room| FLOORS.iter().find(|(name, _)| *name == room))
        else {
            assert!(
                file == "src/lib.rs",
                "{file}: a room that is not in the table of floors; add it"
            );
            continue;
        };
        let room = room_of(&file).unwrap();
        let lines: Vec<_> = code(production(&path)).collect();
        for (n, named) in rooms_named(&lines) {
            let is_room = FLOORS.iter().any(|(name, _)| *name == named)
                || ["proto", "wire", "storage"].contains(&&*named);
            let excepted =
                EXCEPTIONS.iter().any(|(place, what, _)| file.starts_with(place) && *what == named);
            if is_room && named != room && !allowed.contains(&&*named) && !excepted {
                breaches.push(format!(
                    "{file}:{n}: {room} must not import {named}; it may import {allowed:?}"
                ));
            }
        }
    }
    assert!(breaches.is_empty(), "imports that go up or sideways:\n{}", breaches.join("\n"));
}

#[test]
fn rooms_do_not_name_what_is_banned_in_them() {
    let mut breaches = Vec::new();
    for (place, banned) in BANNED {
        for path in sources(place) {
            for (n, line) in code(production(&path)) {
                for word in banned.iter().filter(|word| {
                    line.contains(&format!("{word}::")) || line.trim() == format!("use {word};")
                }) {
                    breaches.push(format!("{}:{n}: {word} has no place in {place}", name(&path)));
                }
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn only_the_disk_touches_files() {
    let mut breaches = Vec::new();
    for dir in ["src", "storage/src", "proto/src"] {
        for path in sources(dir) {
            let file = name(&path);
            let allowed =
                ["storage/src/disk.rs", "storage/src/projection", "src/cli", "src/config.rs"];
            if allowed.iter().any(|place| file.starts_with(place)) {
                continue;
            }
            for (n, line) in code(production(&path)) {
                if line.contains("std::fs") {
                    breaches.push(format!("{file}:{n}: std::fs; use storage's Disk"));
                }
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn files_and_functions_stay_short() {
    let mut breaches = Vec::new();
    for dir in ["src", "storage/src", "proto/src"] {
        for path in sources(dir) {
            let file = name(&path);
            let lines = production(&path);
            // What a program writes is as long as it is.
            let is_made = path.ends_with("generated.rs");
            if lines.len() > FILE_LINES_MAX && !is_made {
                breaches.push(format!(
                    "{file}: {} lines of production code; split it, {FILE_LINES_MAX} at most",
                    lines.len()
                ));
            }
            for (n, length) in long_functions(&lines) {
                breaches.push(format!("{file}:{n}: a function of {length} lines; split it, {FUNCTION_LINES_MAX} at most"));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

/// A function ends at the first closing brace that is indented as its head is: rustfmt sees to that.
fn long_functions(lines: &[(usize, String)]) -> Vec<(usize, usize)> {
    let mut long = Vec::new();
    for (at, (n, line)) in lines.iter().enumerate() {
        let head = line.trim_start();
        let is_function = [
            "fn ",
            "pub fn ",
            "pub(crate) fn ",
            "pub(super) fn ",
            "async fn ",
            "pub async fn ",
            "pub(super) async fn ",
            "pub(crate) async fn ",
            "const fn ",
            "pub const fn ",
        ]
        .iter()
        .any(|start| head.starts_with(start));
        if !is_function {
            continue;
        }
        // A declaration in a trait has no body.
        let ends = lines[at..].iter().map(|(_, line)| line.trim_end());
        if ends
            .clone()
            .find(|line| line.ends_with('{') || line.ends_with(';') || line.ends_with('}'))
            .is_some_and(|line| line.ends_with(';'))
        {
            continue;
        }
        let indent = line.len() - head.len();
        let end = format!("{}}}", " ".repeat(indent));
        let length =
            lines[at..].iter().position(|(_, line)| *line == end).map_or(1, |length| length + 1);
        if length > FUNCTION_LINES_MAX {
            long.push((*n, length));
        }
    }
    long
}

#[test]
fn every_file_says_first_what_it_is() {
    for dir in ["src", "storage/src", "proto/src"] {
        for path in sources(dir) {
            let text = fs::read_to_string(&path).unwrap();
            let is_tests = path.ends_with("tests.rs")
                || path.components().any(|part| part.as_os_str() == "tests");
            assert!(
                is_tests || text.starts_with("//! "),
                "{}: begins without a //! sentence",
                name(&path)
            );
        }
    }
}

#[test]
fn the_pages_name_tests_that_exist() {
    let files = ["tests", "storage/tests", "storage/src", "src", "proto/src"].map(sources);
    let code: String =
        files.iter().flatten().map(|path| fs::read_to_string(path).unwrap()).collect();
    // Options have underscores too, but fewer.
    for (page, underscores_min, named_min) in
        [("docs/guarantees.md", 3, 50), ("docs/protocol.md", 5, 20)]
    {
        let text = fs::read_to_string(page).unwrap();
        let names = text.split('`').skip(1).step_by(2);
        let names: Vec<_> =
            names.filter(|name| name.matches('_').count() >= underscores_min).collect();
        for name in &names {
            assert!(code.contains(&format!("fn {name}(")), "{page} names {name}, which is no test");
        }
        assert!(names.len() >= named_min, "{page}: only {} tests are named", names.len());
    }
}

#[test]
fn the_operators_page_lists_every_metric() {
    // That the page is the table is tested beside the table; here, that no name is anywhere else.
    let page = fs::read_to_string("docs/operations.md").unwrap();
    for path in sources("src") {
        let code = code(production(&path)).map(|(_, line)| line).collect::<Vec<_>>().join("\n");
        let names = code.split('"').filter(|text| text.starts_with("tidings_"));
        for name in names.filter(|name| !name.contains("::")) {
            let is_table = path.ends_with("src/metrics/table.rs");
            assert!(
                is_table,
                "{}: {name}: metrics are named in src/metrics/table.rs",
                path.display()
            );
            assert!(page.contains(&format!("`{name}`")), "docs/operations.md does not list {name}");
        }
    }
}
