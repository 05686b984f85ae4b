//! Results on stdout: buffered, and quiet when nobody reads them any more.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use super::exit::HungUp;

/// The command's stdout.
pub(super) struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    /// Takes stdout for the rest of the command.
    pub(super) fn stdout() -> Output {
        Output(BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    /// Whether a person is looking.
    pub(super) fn is_terminal() -> bool {
        io::stdout().is_terminal()
    }

    /// Writes a line.
    pub(super) fn line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        self.0.write_all(line).and_then(|()| self.0.write_all(b"\n")).map_err(of_write)
    }

    /// Hands everything over to the reader.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        self.0.flush().map_err(of_write)
    }
}

fn of_write(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => anyhow::Error::new(HungUp),
        _ => anyhow::Error::new(error).context("cannot write to stdout"),
    }
}

/// One result and the end.
pub(super) fn print(line: &str) -> anyhow::Result<()> {
    let mut output = Output::stdout();
    output.line(line.as_bytes())?;
    output.flush()
}

/// JSON on one line: within a string a line break is escaped, so those there are lie between tokens.
pub(super) fn one_line(json: &mut [u8]) {
    for byte in json.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
        *byte = b' ';
    }
}

/// A text as it may be shown on a terminal: what would move the cursor or change colours is
/// escaped.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}
