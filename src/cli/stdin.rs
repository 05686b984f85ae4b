//! Lines of stdin, read on a thread of their own so that nothing else waits for them.
//!
//! - A line is its bytes without the newline; a carriage return before it stays.
//! - What follows the last newline is a line if it is not empty.
//! - At most [`LINES_MAX`] lines wait, and a line has a bound.

use std::io::{self, BufRead, Read};

use tokio::sync::mpsc;

/// How many lines may wait.
const LINES_MAX: usize = 64;
/// The most bytes of a line: the largest message a broker can be set to take.
pub(super) const LINE_BYTES_MAX: u64 = 64 << 20;

/// Reads stdin to its end.
///
/// # Errors
/// When the thread does not start.
pub(super) fn lines() -> io::Result<mpsc::Receiver<io::Result<Vec<u8>>>> {
    let (lines, receiver) = mpsc::channel(LINES_MAX);
    // The thread may be stuck in a read when the command is done: the process ends all the same.
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut input = io::stdin().lock();
        while let Some(line) = next_line(&mut input, LINE_BYTES_MAX) {
            let failed = line.is_err();
            if lines.blocking_send(line).is_err() || failed {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// All of stdin, up to the bound of a line.
///
/// # Errors
/// When it cannot be read or is larger.
pub(super) fn all() -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    let mut input = io::stdin().lock().take(LINE_BYTES_MAX + 1);
    input.read_to_end(&mut data)?;
    if u64::try_from(data.len()).unwrap_or(u64::MAX) > LINE_BYTES_MAX {
        return Err(too_long(LINE_BYTES_MAX));
    }
    Ok(data)
}

fn next_line(input: &mut impl BufRead, bytes_max: u64) -> Option<io::Result<Vec<u8>>> {
    let mut line = Vec::new();
    match input.take(bytes_max + 1).read_until(b'\n', &mut line) {
        Ok(0) => None,
        Ok(_) if line.last() == Some(&b'\n') => {
            line.pop();
            Some(Ok(line))
        }
        Ok(n) if u64::try_from(n).unwrap_or(u64::MAX) > bytes_max => Some(Err(too_long(bytes_max))),
        Ok(_) => Some(Ok(line)),
        Err(error) => Some(Err(error)),
    }
}

fn too_long(bytes_max: u64) -> io::Error {
    let text = format!("stdin has more than {bytes_max} bytes at a time: cut it into events");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(mut input: &[u8]) -> Vec<Option<Vec<u8>>> {
        std::iter::from_fn(|| next_line(&mut input, 5)).take(9).map(Result::ok).collect()
    }

    #[test]
    fn lines_are_bytes_without_the_newline() {
        let some = |text: &[u8]| Some(text.to_vec());
        assert_eq!(
            lines_of(b"a\r\n\n\xff\nend"),
            [some(b"a\r"), some(b""), some(b"\xff"), some(b"end")]
        );
        assert_eq!(lines_of(b"a\n"), [some(b"a")]);
        assert_eq!(lines_of(b""), Vec::<Option<Vec<u8>>>::new());
    }

    #[test]
    fn a_line_has_a_bound() {
        assert_eq!(lines_of(b"12345\n12345"), [Some(b"12345".to_vec()), Some(b"12345".to_vec())]);
        assert_eq!(lines_of(b"123456\n")[0], None);
    }
}
