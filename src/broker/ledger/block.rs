//! A block: some durables in the order of their names, each as what tells it from the one before, see
//! [`Line`]. Bytes that were made here, or looked through by [`check`], are whole.

use super::line::{Line, Unreadable};

/// Goes through the lines of a block.
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    rest: &'a [u8],
    line: Line,
}

impl<'a> Walk<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Walk<'a> {
        Walk { bytes, rest: bytes, line: Line::default() }
    }

    /// Goes to the next line; `None` behind the last one.
    pub(super) fn step(&mut self) -> Option<&Line> {
        if self.rest.is_empty() || self.line.read(&mut self.rest).is_none() {
            self.rest = &[];
            return None;
        }
        Some(&self.line)
    }

    /// The bytes up to and including the line where it stands.
    fn passed(&self) -> usize {
        self.bytes.len() - self.rest.len()
    }

    /// Goes to the first line of which this holds.
    pub(super) fn find(mut self, is_it: impl Fn(&Line) -> bool) -> Option<Line> {
        while let Some(line) = self.step() {
            if is_it(line) {
                return Some(self.line);
            }
        }
        None
    }
}

/// The lines of a block that was stored, in order.
///
/// # Errors
/// [`Unreadable`] when it is none.
pub(super) fn check(bytes: &[u8], mut found: impl FnMut(&Line)) -> Result<(), Unreadable> {
    let (mut rest, mut line) = (bytes, Line::default());
    while !rest.is_empty() {
        let before = line.name().to_owned();
        line.read(&mut rest).ok_or(Unreadable::Form)?;
        if line.name() <= before.as_str() {
            return Err(Unreadable::Form);
        }
        line.spec()?;
        found(&line);
    }
    Ok(())
}

/// The block without the line of this name, and with this one in its place.
pub(super) fn splice(bytes: &[u8], name: &str, put: Option<&Line>) -> Vec<u8> {
    let mut ahead = Walk::new(bytes);
    // One line behind the other.
    let mut behind = Walk::new(bytes);
    let mut is_within = true;
    loop {
        is_within &= ahead.step().is_some();
        if !is_within || ahead.line.name() >= name {
            break;
        }
        behind.step();
    }
    if is_within && ahead.line.name() == name {
        is_within = ahead.step().is_some();
    }
    let mut out = Vec::with_capacity(bytes.len() + 128);
    out.extend_from_slice(bytes.get(..behind.passed()).unwrap_or_default());
    let mut before = &behind.line;
    if let Some(line) = put {
        line.write(before, &mut out);
        before = line;
    }
    if is_within {
        ahead.line.write(before, &mut out);
        out.extend_from_slice(ahead.rest);
    }
    out
}

/// Two blocks of about half the bytes each; `None` where there is but one line.
pub(super) fn split(bytes: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut walk = Walk::new(bytes);
    loop {
        let start = walk.passed();
        walk.step()?;
        if start > 0 && walk.passed() > bytes.len() / 2 {
            let mut right = Vec::with_capacity(bytes.len() - start + 64);
            walk.line.write(&Line::default(), &mut right);
            right.extend_from_slice(walk.rest);
            return Some((bytes.get(..start)?.to_vec(), right));
        }
    }
}

/// One block of two; all names of `right` are behind those of `left`.
pub(super) fn join(left: &[u8], right: &[u8]) -> Vec<u8> {
    let (mut last, mut first) = (Walk::new(left), Walk::new(right));
    while last.step().is_some() {}
    let mut out = Vec::with_capacity(left.len() + right.len());
    out.extend_from_slice(left);
    if first.step().is_some() {
        first.line.write(&last.line, &mut out);
        out.extend_from_slice(first.rest);
    }
    out
}
