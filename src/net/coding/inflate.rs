//! Bodies inflated, as readers: so much is inflated as is read, and a reader that stops has no more in memory.
//!
//! - The last read gives nothing only where the body is whole and nothing stands behind it.
//! - What a decoder keeps for itself is bounded by its window: 32 KiB for gzip, 8 MiB for zstd (RFC 9659 §3), 16 MiB for
//!   brotli (RFC 7932 §9.1; "large windows" are refused). It is filled only as far as something was inflated, by brotli
//!   up to the whole window before the first byte is given.
//! - Of zstd only today's format is read: the library may have been built with decoders of older ones.

use std::io::{self, Cursor, ErrorKind, Read};

use brotli::{BrotliDecompressStream, BrotliResult, BrotliState, enc::StandardAlloc};
use bytes::{Buf, Bytes};
use flate2::bufread::MultiGzDecoder;
use zstd::{
    stream::raw::{Decoder, Operation},
    zstd_safe::DParameter,
};

use super::Coding;

/// The largest window of zstd, as a power of two.
const ZSTD_WINDOW: u32 = 23;
/// What a frame of zstd begins with (RFC 8878 §3.1.1).
const ZSTD_MAGIC: u32 = 0xFD2F_B528;
/// What a frame that is to be skipped begins with, but for the last four bits (RFC 8878 §3.1.2).
const ZSTD_SKIPPED: u32 = 0x184D_2A50;

/// What these bytes are inflated.
///
/// # Errors
/// When the decoder cannot be made. What reading gives for bytes that are not whole, or of another coding, is an error too.
pub(in crate::net) fn reader(coding: Coding, coded: Bytes) -> io::Result<Box<dyn Read + Send>> {
    Ok(match coding {
        Coding::Gzip => Box::new(MultiGzDecoder::new(Cursor::new(coded))),
        Coding::Zstd => Box::new(Zstd::new(coded)?),
        Coding::Brotli => Box::new(Brotli::new(coded)),
    })
}

fn broken(text: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}

fn cut() -> io::Error {
    broken("it ends too early")
}

/// One or more frames of zstd.
struct Zstd {
    coded: Bytes,
    decoder: Decoder<'static>,
    /// Within a frame.
    is_begun: bool,
    /// A frame has come.
    has_come: bool,
}

impl Zstd {
    fn new(coded: Bytes) -> io::Result<Zstd> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW))?;
        Ok(Zstd { coded, decoder, is_begun: false, has_come: false })
    }

    /// Looks at what the next frame begins with.
    fn begin(&mut self) -> io::Result<()> {
        let magic = self.coded.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        match magic {
            Some(ZSTD_MAGIC) => {}
            Some(magic) if magic & !0xf == ZSTD_SKIPPED => {}
            Some(_) => return Err(broken("a frame does not begin as one of zstd does")),
            None => return Err(cut()),
        }
        self.decoder.reinit()?;
        (self.is_begun, self.has_come) = (true, true);
        Ok(())
    }
}

impl Read for Zstd {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.is_begun {
                if self.has_come && self.coded.is_empty() {
                    return Ok(0);
                }
                self.begin()?;
            }
            let done = self.decoder.run_on_buffers(&self.coded, out)?;
            self.coded.advance(done.bytes_read);
            // Nothing is wanted any more: the frame has ended, and all of it was given.
            self.is_begun = done.remaining > 0;
            if done.bytes_written > 0 || out.is_empty() {
                return Ok(done.bytes_written);
            }
            if self.is_begun && self.coded.is_empty() {
                return Err(cut());
            }
        }
    }
}

/// One stream of brotli. Its own reader takes windows of up to a gigabyte.
struct Brotli {
    coded: Bytes,
    state: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>,
    is_over: bool,
}

impl Brotli {
    fn new(coded: Bytes) -> Brotli {
        let alloc = StandardAlloc::default;
        let state = Box::new(BrotliState::new_strict(alloc(), alloc(), alloc()));
        Brotli { coded, state, is_over: false }
    }
}

impl Read for Brotli {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.is_over || out.is_empty() {
            return Ok(0);
        }
        let (mut in_left, mut taken) = (self.coded.len(), 0);
        let (mut out_left, mut given, mut total) = (out.len(), 0, 0);
        let result = BrotliDecompressStream(
            &mut in_left,
            &mut taken,
            &self.coded,
            &mut out_left,
            &mut given,
            out,
            &mut total,
            &mut self.state,
        );
        self.coded.advance(taken);
        match result {
            BrotliResult::ResultSuccess if self.coded.is_empty() => self.is_over = true,
            BrotliResult::ResultSuccess => return Err(broken("something stands behind its end")),
            BrotliResult::NeedsMoreOutput => {}
            BrotliResult::NeedsMoreInput if given > 0 => {}
            BrotliResult::NeedsMoreInput => return Err(cut()),
            BrotliResult::ResultFailure => return Err(broken("it cannot be read")),
        }
        Ok(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inflate(coding: Coding, coded: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        reader(coding, Bytes::copy_from_slice(coded))?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn what_is_cut_off_changed_or_followed_by_anything_is_no_body() {
        let text: Vec<u8> = (0..2000_u32).flat_map(|n| (n * n).to_le_bytes()).collect();
        for coding in Coding::ALL {
            let coded = coding.compress(&text).unwrap();
            assert!(inflate(coding, &coded).unwrap() == text);
            for len in 0..coded.len() {
                // The last bits of brotli may be padding, and then nothing is missing.
                let cut = inflate(coding, &coded[..len]);
                assert!(cut.is_err(), "{coding:?}: {len} of {}", coded.len());
            }
            let followed = [&coded[..], b"x"].concat();
            assert!(inflate(coding, &followed).is_err(), "{coding:?}");
            assert!(inflate(coding, b"hello").is_err(), "{coding:?}");
            for other in Coding::ALL.into_iter().filter(|other| *other != coding) {
                assert!(inflate(other, &coded).is_err(), "{coding:?} is no {other:?}");
            }
        }
    }

    #[test]
    fn several_parts_are_one_body_where_the_coding_says_so() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            let parts = [b"one ".as_slice(), b"", b"two"];
            let coded: Vec<u8> =
                parts.iter().flat_map(|part| coding.compress(part).unwrap()).collect();
            assert_eq!(inflate(coding, &coded).unwrap(), b"one two", "{coding:?}");
        }
        let mut skipped = (ZSTD_SKIPPED + 7).to_le_bytes().to_vec();
        skipped.extend_from_slice(&[3, 0, 0, 0, 1, 2, 3]);
        skipped.extend(Coding::Zstd.compress(b"one").unwrap());
        assert_eq!(inflate(Coding::Zstd, &skipped).unwrap(), b"one");
    }

    #[test]
    fn a_window_that_is_too_large_is_refused() {
        // A frame of zstd with a window of 16 MiB and one empty last block.
        let frame = |window_log: u8| {
            let descriptor = (window_log - 10) << 3;
            [&ZSTD_MAGIC.to_le_bytes()[..], &[0, descriptor, 1, 0, 0]].concat()
        };
        assert_eq!(inflate(Coding::Zstd, &frame(23)).unwrap(), b"");
        assert!(inflate(Coding::Zstd, &frame(24)).is_err());
        let params = brotli::enc::BrotliEncoderParams {
            large_window: true,
            lgwin: 28,
            ..brotli::enc::BrotliEncoderParams::default()
        };
        let mut large = Vec::new();
        brotli::BrotliCompress(&mut &b"hello"[..], &mut large, &params).unwrap();
        let mut read = String::new();
        brotli::Decompressor::new(&large[..], 64).read_to_string(&mut read).unwrap();
        assert_eq!(read, "hello", "its own reader takes it");
        assert!(inflate(Coding::Brotli, &large).is_err());
        assert_eq!(inflate(Coding::Brotli, &[0x06]).unwrap(), b"");
    }

    #[test]
    fn older_formats_of_zstd_are_not_read() {
        for magic in 0xFD2F_B522_u32..=0xFD2F_B527 {
            let frame = [&magic.to_le_bytes()[..], &[0; 16]].concat();
            let error = inflate(Coding::Zstd, &frame).unwrap_err();
            assert!(error.to_string().contains("does not begin"), "{magic:x}: {error}");
            let behind = [Coding::Zstd.compress(b"one").unwrap(), frame].concat();
            assert!(inflate(Coding::Zstd, &behind).is_err());
        }
    }

    #[test]
    fn a_reader_that_stops_has_inflated_no_more_than_it_read() {
        let zeros = vec![0; 64 << 20];
        for coding in Coding::ALL {
            let coded = coding.compress(&zeros).unwrap();
            assert!(coded.len() * 900 < zeros.len(), "{coding:?}: {}", coded.len());
            let mut reader = reader(coding, coded.into()).unwrap();
            let mut out = [1; 1000];
            let mut read = 0;
            while read < 5000 {
                let n = reader.read(&mut out).unwrap();
                assert!(n > 0 && out[..n].iter().all(|byte| *byte == 0));
                read += n;
            }
        }
    }
}
