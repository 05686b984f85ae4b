//! `tidings status`: how the broker is.

use serde_json::Value;

use super::{
    Globals, block_on,
    output::{Output, print, shown},
};

/// What `tidings status` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

const EXAMPLES: &str = "\
Examples:
  tidings status
  tidings --url http://127.0.0.1:8080 status --json";

/// Writes what the broker says of itself.
///
/// # Errors
/// When the broker does not answer.
pub fn run(_: &Args, globals: &Globals) -> anyhow::Result<()> {
    block_on(async {
        let answer = globals.http()?.get("/v1/status").await?.ok()?;
        let status: Value = answer.json()?;
        if globals.json {
            return print(&serde_json::to_string(&status)?);
        }
        let mut rows = Vec::new();
        flatten("", &status, &mut rows);
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut output = Output::stdout();
        for (name, value) in rows {
            output.line(format!("{name:width$}  {value}").as_bytes())?;
        }
        output.flush()
    })
}

/// One row for each value, named by its path: so nothing a later broker says is left out.
fn flatten(path: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
                flatten(&path, value, rows);
            }
        }
        Value::String(text) => rows.push((path.replace('_', " "), shown(text))),
        other => rows.push((path.replace('_', " "), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_row() {
        let status = serde_json::json!({
            "version": "0.1.0\u{1b}[2J",
            "log": { "last": 57 },
            "uptime_seconds": 3,
        });
        let mut rows = Vec::new();
        flatten("", &status, &mut rows);
        rows.sort();
        let row = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            rows,
            [row("log last", "57"), row("uptime seconds", "3"), row("version", "0.1.0\\u{1b}[2J")]
        );
    }
}
