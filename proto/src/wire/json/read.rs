//! Reading JSON with errors that name the attribute.
//!
//! - Depth is counted before anything is parsed, so that no text makes the parser recurse far.
//! - serde_json says where in the text it stopped; the path of the attribute there is found by
//!   going through the text once more. That costs something only when there is an error.

use serde::Deserialize;
use serde_json::error::Category;

use crate::{
    WireError,
    event::json_depth,
    strict,
    wire::{
        invalid,
        objects::{is_missing, refusal},
        push_name,
    },
};

/// Reads a `T` that is written as an object. `path` is where it stands in the message; may be
/// empty.
pub(in crate::wire) fn object<'de, T: Deserialize<'de>>(
    text: &'de str,
    path: &str,
    levels_max: usize,
) -> Result<T, WireError> {
    value(text, path, levels_max).map(|strict::Object(value)| value)
}

/// Reads a `T`.
pub(in crate::wire) fn value<'de, T: Deserialize<'de>>(
    text: &'de str,
    path: &str,
    levels_max: usize,
) -> Result<T, WireError> {
    if json_depth(text.as_bytes()) > levels_max {
        let path = if path.is_empty() { "message" } else { path };
        return Err(invalid(path, &format!("is nested deeper than {levels_max} levels")));
    }
    serde_json::from_str(text).map_err(|error| describe(text, path, &error))
}

/// The error of the protocol for one of serde_json, which came from `text`.
fn describe(text: &str, path: &str, error: &serde_json::Error) -> WireError {
    let said = error.to_string();
    if error.classify() != Category::Data {
        let path = if path.is_empty() { "message" } else { path };
        return invalid(path, &format!("is not JSON: {said}"));
    }
    let place = format!(" at line {} column {}", error.line(), error.column());
    let said = said.strip_suffix(&place).unwrap_or(&said);
    let end = offset_of(text, error.line(), error.column());
    let end = match text.get(..end) {
        // Behind an object stands what the last attribute in it was refused for, too: serde_json
        // adds the place only after it has read the end of the object.
        Some(before) if before.ends_with('}') && !is_missing(said) => end - 1,
        // It stops before an array or an object that should be something else.
        _ if matches!(text.as_bytes().get(end), Some(b'[' | b'{')) => end + 1,
        _ => end,
    };
    let mut full = path.to_owned();
    push_path(text.get(..end).unwrap_or(text), &mut full);
    refusal(full, said, true)
}

/// The byte offset of a place as serde_json gives it: lines from 1, columns in bytes.
fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    (before + column).min(text.len())
}

enum Step<'a> {
    /// In an object: the attribute that was read last, as it is written.
    Object(Option<&'a str>),
    /// In an array: how many elements came before, and whether one has begun since.
    Array(usize, bool),
}

/// Appends the path of the value at the end of `text`, which is the beginning of a JSON text.
fn push_path(text: &str, path: &mut String) {
    let mut steps = Vec::new();
    let mut bytes = text.bytes().enumerate();
    let mut is_value = true;
    while let Some((at, byte)) = bytes.next() {
        if byte.is_ascii_whitespace() {
            continue;
        }
        if let (Some(Step::Array(_, begun)), false) =
            (steps.last_mut(), matches!(byte, b',' | b']'))
        {
            *begun = true;
        }
        match byte {
            b'{' => steps.push(Step::Object(None)),
            b'[' => steps.push(Step::Array(0, false)),
            b'}' | b']' => drop(steps.pop()),
            b':' => is_value = true,
            b',' => {
                if let Some(Step::Array(before, begun)) = steps.last_mut() {
                    (*before, *begun) = (*before + 1, false);
                }
            }
            b'"' => {
                let string = string(text.get(at + 1..).unwrap_or_default());
                if let (Some(Step::Object(name)), false) = (steps.last_mut(), is_value) {
                    *name = Some(string);
                }
                // The string itself and its closing quote.
                let _ = bytes.by_ref().take(string.len() + 1).count();
            }
            _ => {}
        }
        // A string right behind one of these names an attribute, if it stands in an object.
        if matches!(byte, b'{' | b',') {
            is_value = false;
        }
    }
    for step in steps {
        match step {
            Step::Object(Some(name)) => push_name(name, path),
            Step::Array(before, true) => path.push_str(&format!("[{before}]")),
            Step::Object(None) | Step::Array(_, false) => {}
        }
    }
}

/// The inside of the string that `text` begins with, as it is written; all of it when it does not
/// end.
fn string(text: &str) -> &str {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let is_end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        is_end
    });
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> String {
        let mut path = String::new();
        push_path(text, &mut path);
        path
    }

    #[test]
    fn a_path_leads_to_where_the_text_ends() {
        for (text, want) in [
            ("", ""),
            ("{", ""),
            (r#"{"a""#, "a"),
            (r#"{"a":1"#, "a"),
            (r#"{"a":1,"#, "a"),
            (r#"{"a":1,"b""#, "b"),
            (r#"{"a":{"b":[1 , {"c":"#, "a.b[1].c"),
            (r#"{"a":["#, "a"),
            (r#"{"a":[["x"],["y"#, "a[1][0]"),
            (r#"{"a":{"b":1},"c":"x,\"y{"#, "c"),
            (r#"{"a\"b":"#, r#"a\"b"#),
        ] {
            assert_eq!(path(text), want, "{text}");
        }
    }

    #[test]
    fn errors_name_the_attribute_on_any_line() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct One {
            #[expect(dead_code, reason = "only the error is looked at")]
            topic: crate::Topic,
        }
        for (text, want) in [
            (r#"{"topic":"a b"}"#, "topic: "),
            ("{\"topic\":\n\"a b\"\n}", "topic: "),
            (r#"{"topic":5}"#, "topic: invalid type: integer `5`"),
            (r#"{"topic":null}"#, "topic: invalid type: null"),
            (r#"{"topic":[]}"#, "topic: invalid type: sequence"),
            (r#"{"topic":"a","topic":"b"}"#, "topic: is given twice"),
            ("{\"topic\":\"a\",\n \"type\":\"b\"}", "type: unknown field"),
            ("{}", "topic: is missing"),
            (r#"["a"]"#, "message: invalid type: sequence, expected an object"),
            (r#"{"topic":"a""#, "message: is not JSON: EOF"),
        ] {
            let error = object::<One>(text, "", 3).unwrap_err();
            assert!(error.message.starts_with(want), "{text}: {}", error.message);
        }
        let error = object::<One>(r#"{"topic":[[[]]]}"#, "publish", 3).unwrap_err();
        assert_eq!(error.message, "publish: is nested deeper than 3 levels");
    }
}
