//! Reading JSON with errors that name the attribute.
//!
//! - Depth is counted before anything is parsed, so that no text makes the parser recurse far.
//! - The path is kept only when there is an error: the text is read once more for it.

use serde::Deserialize;
use serde_json::error::Category;

use crate::{
    WireError,
    event::json_depth,
    strict,
    wire::{invalid, objects::refusal},
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
    let at = if path.is_empty() { "message" } else { path };
    if json_depth(text.as_bytes()) > levels_max {
        return Err(invalid(at, &format!("is nested deeper than {levels_max} levels")));
    }
    serde_json::from_str(text).or_else(|error| {
        if error.classify() != Category::Data {
            return Err(invalid(at, &format!("is not JSON: {error}")));
        }
        let mut again = serde_json::Deserializer::from_str(text);
        serde_path_to_error::deserialize(&mut again).map_err(|error| {
            let said = error.inner().to_string();
            let place =
                format!(" at line {} column {}", error.inner().line(), error.inner().column());
            refusal(path, error.path(), said.strip_suffix(&place).unwrap_or(&said))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (r#"{"topic":{"low":null}}"#, "topic: invalid type: map"),
            (r#"{"topic":"a","topic":"b"}"#, "topic: is given twice"),
            ("{\"topic\":\"a\",\n \"type\":\"b\"}", "type: unknown field"),
            ("{}", "topic: is missing"),
            (r#"["a"]"#, "message: invalid type: sequence, expected an object"),
            (r#"{"topic":"a""#, "message: is not JSON: EOF"),
        ] {
            let error = object::<One>(text, "", 3).unwrap_err();
            assert!(error.message.starts_with(want), "{text}: {}", error.message);
        }
        // What stands where a token belongs may be one.
        for base in ["connect", "refresh"] {
            let error = object::<One>(r#"{"topic":{"se\"cret":"se\"cret"}}"#, base, 3).unwrap_err();
            assert_eq!(
                error.message,
                format!("{base}.topic: invalid type: map, expected a string")
            );
            let error = value::<One>(r#""se\"cret""#, base, 3).unwrap_err();
            assert!(!error.message.contains("cret"), "{}", error.message);
            assert!(error.message.contains("invalid type: string, expected"), "{}", error.message);
        }
        let error = object::<One>(r#"{"topic":[[[]]]}"#, "publish", 3).unwrap_err();
        assert_eq!(error.message, "publish: is nested deeper than 3 levels");
    }
}
