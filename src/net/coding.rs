//! The codings of HTTP bodies (RFC 9110 §8.4): which there are, and how a body is compressed.
//!
//! - Each compresses at the speed of answers that are made once and sent once, not at its best.
//! - What comes in is inflated by a reader, and no further than it is read.

mod inflate;

use std::io::Write;

use brotli::enc::BrotliEncoderParams;
use flate2::{Compression, write::GzEncoder};

pub(super) use self::inflate::reader;

/// How hard gzip tries: above it costs twice as much for a twentieth.
const GZIP_LEVEL: u32 = 5;
/// How hard zstd tries: its own default.
const ZSTD_LEVEL: i32 = 3;
/// How hard brotli tries: above it needs several times the time and megabytes of tables.
const BROTLI_QUALITY: i32 = 4;
/// How far back brotli looks, as a power of two; answers are rarely longer.
const BROTLI_WINDOW: i32 = 18;

/// One coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 8878; the fastest, and the smallest at its speed.
    Zstd,
    /// RFC 1952; everybody has it.
    Gzip,
    /// RFC 7932.
    Brotli,
}

impl Coding {
    /// All of them, the one we like best first.
    pub const ALL: [Coding; 3] = [Coding::Zstd, Coding::Gzip, Coding::Brotli];

    /// Its name in headers and settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Gzip => "gzip",
            Coding::Brotli => "br",
        }
    }

    /// The coding of this name, in any case; `x-gzip` is gzip (RFC 9110 §8.4.1.3).
    pub fn named(name: &str) -> Option<Coding> {
        if name.eq_ignore_ascii_case("x-gzip") {
            return Some(Coding::Gzip);
        }
        Coding::ALL.into_iter().find(|coding| coding.as_str().eq_ignore_ascii_case(name))
    }

    /// The bytes in this coding; `None` when the compressor fails.
    pub(super) fn compress(self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut out = match self {
            Coding::Zstd => zstd::bulk::compress(bytes, ZSTD_LEVEL).ok()?,
            Coding::Gzip => {
                let level = Compression::new(GZIP_LEVEL);
                let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), level);
                encoder.write_all(bytes).ok()?;
                encoder.finish().ok()?
            }
            Coding::Brotli => {
                let params = BrotliEncoderParams {
                    quality: BROTLI_QUALITY,
                    lgwin: BROTLI_WINDOW,
                    size_hint: bytes.len(),
                    ..BrotliEncoderParams::default()
                };
                let mut out = Vec::with_capacity(bytes.len() / 4);
                brotli::BrotliCompress(&mut &*bytes, &mut out, &params).ok()?;
                out
            }
        };
        out.shrink_to_fit();
        Some(out)
    }
}

/// The codings that are used, the one that is liked best first; there may be none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codings(Vec<Coding>);

impl Default for Codings {
    fn default() -> Codings {
        Codings(Coding::ALL.to_vec())
    }
}

impl Codings {
    /// Those of these names; `None` when a name is unknown or comes twice.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Codings> {
        let mut codings = Vec::new();
        for name in names {
            let coding = Coding::ALL.into_iter().find(|coding| coding.as_str() == name)?;
            if codings.contains(&coding) {
                return None;
            }
            codings.push(coding);
        }
        Some(Codings(codings))
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Coding> {
        self.0.iter().copied()
    }

    /// Whether this one is used.
    pub fn has(&self, coding: Coding) -> bool {
        self.0.contains(&coding)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_is_compressed_is_much_smaller_and_comes_back() {
        let text = r#"{"offset":57,"topic":"tasks.42","data":{"done":7,"of":10}},"#.repeat(2000);
        for coding in Coding::ALL {
            for bytes in [text.as_bytes(), b"", b"x"] {
                let coded = coding.compress(bytes).unwrap();
                let mut back = Vec::new();
                reader(coding, coded.clone().into()).unwrap().read_to_end(&mut back).unwrap();
                assert!(back == bytes, "{coding:?}");
                assert!(bytes.len() < 100 || coded.len() * 20 < bytes.len(), "{coding:?}");
            }
        }
    }

    #[test]
    fn names_are_those_of_headers() {
        assert_eq!(Coding::named("X-GZIP"), Some(Coding::Gzip));
        assert_eq!(Coding::named("Br"), Some(Coding::Brotli));
        assert_eq!(Coding::named("deflate"), None);
        let codings = Codings::parse(["br", "gzip"]).unwrap();
        assert_eq!(codings.iter().collect::<Vec<_>>(), [Coding::Brotli, Coding::Gzip]);
        assert!(!codings.has(Coding::Zstd));
        assert_eq!(Codings::parse([]), Some(Codings(Vec::new())));
        for wrong in [["br", "br"], ["br", "x-gzip"]] {
            assert_eq!(Codings::parse(wrong), None, "{wrong:?}");
        }
    }
}
