//! The frame layer against every violation, every cut, random sequences and a scripted stream.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use proptest::{collection::vec, prelude::*};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

use super::*;

const LIMITS: Limits = Limits { message_bytes_max: 1000, fragments_max: 4 };
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const FIN: u8 = 0x80;

/// A frame by the book, written without the code under test. `first` is the whole first byte.
fn raw(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let bit = if mask.is_some() { 0x80 } else { 0 };
    let mut out = vec![first];
    match payload.len() {
        n @ 0..=125 => out.push(bit | n as u8),
        n @ 126..=0xffff => {
            out.push(bit | 126);
            out.extend((n as u16).to_be_bytes());
        }
        n => {
            out.push(bit | 127);
            out.extend((n as u64).to_be_bytes());
        }
    }
    out.extend(mask.unwrap_or_default().iter().filter(|_| mask.is_some()));
    let mask = mask.unwrap_or_default();
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    out
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    raw(first, payload, Some(MASK))
}

/// All messages in these chunks, and the violation that ended them.
fn decode_all<'a>(
    decoder: &mut Decoder,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Message>, Option<FrameError>) {
    let mut messages = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        loop {
            match decoder.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => {
                    decoder.push(b"more");
                    assert_eq!(decoder.next(), Err(error), "a violation is for good");
                    assert_eq!(decoder.held_bytes(), 0);
                    return (messages, Some(error));
                }
            }
        }
    }
    (messages, None)
}

/// Decodes `bytes` in one piece, one byte at a time and at every cut into two: always the same.
fn decode_every_way(
    role: Role,
    limits: Limits,
    bytes: &[u8],
) -> (Vec<Message>, Option<FrameError>) {
    let decode = |chunks: Vec<&[u8]>| decode_all(&mut Decoder::new(role, limits), chunks);
    let whole = decode(vec![bytes]);
    assert_eq!(decode(bytes.chunks(1).collect()), whole, "one byte at a time");
    for cut in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(cut);
        assert_eq!(decode(vec![head, tail]), whole, "cut at {cut}");
    }
    whole
}

fn text(text: &str) -> Message {
    Message::Text(text.to_owned())
}

fn ping(bytes: &[u8]) -> Message {
    Message::Ping(Payload::new(bytes).unwrap())
}

#[test]
fn every_violation_has_its_error_and_its_close_code_however_it_is_cut() {
    use FrameError::*;
    let fragments = |n: usize| {
        let mut bytes = masked(0x01, b"a");
        (1..n).for_each(|_| bytes.extend(masked(0x00, b"")));
        bytes
    };
    let join = |frames: &[Vec<u8>]| frames.concat();
    let close = |code: u16, reason: &[u8]| masked(FIN | 8, &[&code.to_be_bytes(), reason].concat());
    let length = |bytes: [u8; 8]| [&[FIN | 2, 0x80 | 127][..], &bytes].concat();
    let mut table: Vec<(&str, Vec<u8>, FrameError, u16)> = vec![
        ("rsv1", masked(FIN | 0x40 | 1, b"a"), ReservedBits, 1002),
        ("rsv2", masked(FIN | 0x20 | 1, b"a"), ReservedBits, 1002),
        ("rsv3", masked(FIN | 0x10 | 9, b"a"), ReservedBits, 1002),
        ("ping in parts", masked(9, b"a"), ControlFragmented, 1002),
        ("pong in parts", masked(10, b"a"), ControlFragmented, 1002),
        ("close in parts", masked(8, b""), ControlFragmented, 1002),
        ("ping of 126", masked(FIN | 9, &[0; 126]), ControlTooLong, 1002),
        ("pong of 126", masked(FIN | 10, &[0; 126]), ControlTooLong, 1002),
        ("close of 126", close(1000, &[b'a'; 124]), ControlTooLong, 1002),
        ("ping claiming 64 bit", vec![FIN | 9, 0xff], ControlTooLong, 1002),
        ("continuation first", masked(FIN, b"a"), NothingToContinue, 1002),
        ("double start", join(&[masked(1, b"a"), masked(1, b"b")]), StartInsideMessage, 1002),
        ("whole inside", join(&[masked(2, b"a"), masked(FIN | 1, b"b")]), StartInsideMessage, 1002),
        ("not masked", raw(FIN | 1, b"a", None), NotMasked, 1002),
        ("ping not masked", raw(FIN | 9, b"", None), NotMasked, 1002),
        ("top bit", length([0x80, 0, 0, 0, 0, 0, 0, 1]), LengthTopBit, 1002),
        ("all bits", length([0xff; 8]), LengthTopBit, 1002),
        ("125 in 16 bit", vec![FIN | 2, 0xfe, 0, 125], LengthNotMinimal, 1002),
        ("65535 in 64 bit", length([0, 0, 0, 0, 0, 0, 0xff, 0xff]), LengthNotMinimal, 1002),
        ("close of 1", masked(FIN | 8, b"\x03"), CloseTooShort, 1002),
        ("close reason", close(1000, b"\xff"), NotUtf8, 1007),
        ("close reason cut", close(1000, "é".as_bytes().split_last().unwrap().1), NotUtf8, 1007),
        ("text", masked(FIN | 1, b"ab\xffcd"), NotUtf8, 1007),
        ("text ends early", masked(FIN | 1, b"ab\xe2\x82"), NotUtf8, 1007),
        ("overlong", masked(FIN | 1, b"\xc0\xaf"), NotUtf8, 1007),
        ("surrogate", masked(FIN | 1, b"\xed\xa0\x80"), NotUtf8, 1007),
        (
            "text ends early over fragments",
            join(&[masked(1, b"ab\xe2"), masked(0, b"\x82"), masked(FIN, b"")]),
            NotUtf8,
            1007,
        ),
        (
            "character broken by a fragment",
            join(&[masked(1, b"\xe2"), masked(FIN, b"a\x82\xac")]),
            NotUtf8,
            1007,
        ),
        ("1001 bytes", masked(FIN | 2, &[0; 1001]), TooBig(1000), 1009),
        ("60 MiB", length([0, 0, 0, 0, 0x03, 0xc0, 0, 0]), TooBig(1000), 1009),
        ("2^63 - 1", length([0x7f, 255, 255, 255, 255, 255, 255, 255]), TooBig(1000), 1009),
        (
            "1001 bytes over fragments",
            join(&[masked(2, &[0; 400]), masked(0, &[0; 400]), masked(FIN, &[0; 201])]),
            TooBig(1000),
            1009,
        ),
        ("5 fragments", fragments(5), TooManyFragments(4), 1008),
    ];
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        table.push(("close code", close(code, b""), CloseCode(code), 1002));
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        table.push(("opcode", masked(FIN | opcode, b""), UnknownOpcode(opcode), 1002));
    }
    for (name, bytes, error, code) in table {
        // First of all and after a message; behind it a ping that must not be seen.
        for before in [vec![], vec![text("before")]] {
            let lead = if before.is_empty() { vec![] } else { masked(FIN | 1, b"before") };
            let bytes = [&lead[..], &bytes, &masked(FIN | 9, b"after")].concat();
            let got = decode_every_way(Role::Server, LIMITS, &bytes);
            assert_eq!(got, (before, Some(error)), "{name}");
        }
        assert_eq!(error.close_code(), code, "{name}");
    }
    let bytes = masked(FIN | 1, b"a");
    assert_eq!(decode_every_way(Role::Client, LIMITS, &bytes), (vec![], Some(Masked)));
    assert_eq!(Masked.close_code(), 1002);
}

#[test]
fn what_is_just_allowed_is_allowed() {
    let frames = [
        masked(FIN | 2, &[7; 1000]),
        masked(FIN | 2, &[7; 125]),
        masked(FIN | 2, &[7; 126]),
        masked(1, "€".as_bytes().split_at(1).0),
        masked(FIN | 9, &[1; 125]),
        masked(0, b""),
        masked(0, "€".as_bytes().split_at(1).1),
        masked(FIN, &[b'a'; 997]),
        masked(FIN | 1, b""),
        masked(FIN | 2, b""),
        masked(FIN | 9, b""),
        masked(FIN | 10, b"x"),
    ];
    let expected = vec![
        Message::Binary(vec![7; 1000]),
        Message::Binary(vec![7; 125]),
        Message::Binary(vec![7; 126]),
        ping(&[1; 125]),
        text(&format!("€{}", "a".repeat(997))),
        text(""),
        Message::Binary(vec![]),
        ping(b""),
        Message::Pong(Payload::new(b"x").unwrap()),
    ];
    assert_eq!(decode_every_way(Role::Server, LIMITS, &frames.concat()), (expected, None));
    for code in [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4999] {
        let payload = [&u16::to_be_bytes(code)[..], "é".repeat(61).as_bytes()].concat();
        let bytes = [masked(FIN | 8, &payload), masked(FIN | 1, b"late"), vec![0xff]].concat();
        let expected = vec![Message::Close(Some((code, "é".repeat(61))))];
        assert_eq!(decode_every_way(Role::Server, LIMITS, &bytes), (expected, None));
    }
    let (messages, _) = decode_every_way(Role::Server, LIMITS, &masked(FIN | 8, b""));
    assert_eq!(messages, [Message::Close(None)]);
}

#[test]
fn the_default_bound_on_fragments_is_1024_frames() {
    let limits = Limits::of_bytes(10);
    for (frames, error) in [(1024, None), (1025, Some(FrameError::TooManyFragments(1024)))] {
        let mut bytes = masked(2, b"");
        (2..frames).for_each(|_| bytes.extend(masked(0, b"")));
        bytes.extend(masked(FIN, b""));
        let (messages, end) = decode_all(&mut Decoder::new(Role::Server, limits), [&bytes[..]]);
        assert_eq!((messages.len(), end), (usize::from(error.is_none()), error));
    }
}

#[test]
fn violations_are_found_before_the_payload_or_its_rest_arrive() {
    let limits = Limits::of_bytes(1 << 20);
    let header = [&[FIN | 2, 0xff][..], &(60u64 << 20).to_be_bytes(), &MASK].concat();
    assert_eq!(header.len(), 14);
    let (_, error) = decode_all(&mut Decoder::new(Role::Server, limits), [&header[..]]);
    assert_eq!(error, Some(FrameError::TooBig(1 << 20)));
    for start in
        [[0xc1, 0x80], [0x83, 0x80], [0x09, 0x80], [0x80, 0x80], [0x81, 0x01], [0x88, 0xfe]]
    {
        let (_, error) = decode_all(&mut Decoder::new(Role::Server, limits), [&start[..]]);
        assert_eq!(error.map(FrameError::close_code), Some(1002), "{start:x?}");
    }
    // Promises 1000 bytes of text; the fault is in the third.
    let wrong = masked(FIN | 1, &[b"ab\xff".to_vec(), vec![b'a'; 997]].concat());
    let (_, error) = decode_all(&mut Decoder::new(Role::Server, limits), [&wrong[..8 + 3]]);
    assert_eq!(error, Some(FrameError::NotUtf8));
    // The second byte of an impossible character, in a second fragment.
    let wrong = [masked(1, b"\xf4"), masked(0, b"\x90aaaaaaaa")[..7].to_vec()].concat();
    let (_, error) = decode_all(&mut Decoder::new(Role::Server, limits), [&wrong[..]]);
    assert_eq!(error, Some(FrameError::NotUtf8));
}

#[test]
fn control_frames_between_fragments_are_delivered_at_once() {
    let mut decoder = Decoder::new(Role::Server, LIMITS);
    decoder.push(&[masked(1, b"one "), masked(FIN | 9, b"p"), masked(0, b"tw")].concat());
    assert_eq!(decoder.next(), Ok(Some(ping(b"p"))));
    assert_eq!(decoder.next(), Ok(None));
    assert!(!decoder.is_idle(), "a message is open");
    decoder.push(&[masked(FIN | 10, b""), masked(FIN, b"o")].concat());
    assert_eq!(decoder.next(), Ok(Some(Message::Pong(Payload::default()))));
    assert!(!decoder.is_idle(), "input waits");
    assert_eq!(decoder.next(), Ok(Some(text("one two"))));
    assert!(decoder.is_idle());
}

#[test]
fn memory_follows_what_was_received_and_is_given_back() {
    const MIB: usize = 1 << 20;
    for frames in [1, 7, 1000] {
        let mut decoder = Decoder::new(Role::Server, Limits::of_bytes(4 * MIB));
        let body = "é".repeat(MIB / 2);
        let pieces: Vec<&[u8]> = body.as_bytes().chunks(MIB.div_ceil(frames)).collect();
        let mut bytes = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            let fin = if at + 1 == pieces.len() { FIN } else { 0 };
            bytes.extend(masked(fin | u8::from(at == 0), piece));
        }
        let mut got = None;
        for (count, chunk) in bytes.chunks(1000).enumerate() {
            assert_eq!(got, None);
            decoder.push(chunk);
            got = decoder.next().unwrap();
            let (held, received) = (decoder.held_bytes(), 1000 * (count + 1));
            assert!(held <= 2 * received, "{held} held of {received} received");
        }
        let Some(Message::Text(got)) = got else { panic!("no text") };
        assert!(got == body);
        assert!(frames > 1 || got.capacity() == MIB, "one frame takes just its size");
        assert!(decoder.is_idle());
        assert_eq!(decoder.held_bytes(), 0);
    }
    // A part of a frame is held, then lost memory would show after the close that ends it all.
    let mut decoder = Decoder::new(Role::Server, LIMITS);
    decoder.push(&[masked(2, &[0; 500]), masked(FIN | 8, b""), masked(0, b"late")].concat());
    assert_eq!(decoder.next(), Ok(Some(Message::Close(None))));
    assert!(decoder.is_idle() && decoder.held_bytes() == 0);
    assert!(size_of::<Decoder>() <= 256, "an idle connection pays {}", size_of::<Decoder>());
}

#[test]
fn a_part_of_any_frame_is_not_idle() {
    for (first, size) in [(FIN | 2, 200), (FIN | 9, 100)] {
        let bytes = masked(first, &vec![1; size]);
        for cut in 1..bytes.len() {
            let mut decoder = Decoder::new(Role::Server, LIMITS);
            decoder.push(&bytes[..cut]);
            assert_eq!(decoder.next(), Ok(None));
            assert!(!decoder.is_idle(), "cut at {cut}");
            assert!(decoder.held_bytes() <= 2 * cut, "cut at {cut}");
        }
    }
}

#[test]
fn bytes_may_be_pushed_while_messages_wait() {
    let mut decoder = Decoder::new(Role::Server, LIMITS);
    decoder.push(&[masked(FIN | 1, b"a"), masked(FIN | 1, b"b")].concat());
    assert_eq!(decoder.next(), Ok(Some(text("a"))));
    assert!(!decoder.is_idle(), "a message waits");
    let third = masked(FIN | 1, b"c");
    decoder.push(&third[..3]);
    assert_eq!(decoder.next(), Ok(Some(text("b"))));
    decoder.push(&third[3..]);
    assert_eq!(decoder.next(), Ok(Some(text("c"))));
    assert_eq!(decoder.next(), Ok(None));
    assert!(decoder.is_idle() && decoder.held_bytes() == 0);
}

#[test]
fn the_examples_of_the_standard_are_encoded_to_the_byte() {
    // RFC 6455 §5.7.
    let encoded = |frame, mask| {
        let mut out = b"kept".to_vec();
        encode(frame, mask, &mut out);
        out.split_off(4)
    };
    let hello = Payload::new(b"Hello").unwrap();
    let unmasked = b"\x81\x05Hello";
    assert_eq!(encoded(Frame::Text("Hello"), None), unmasked);
    let with_mask = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    assert_eq!(encoded(Frame::Text("Hello"), Some(MASK)), with_mask);
    assert_eq!(encoded(Frame::Ping(&hello), None), b"\x89\x05Hello");
    let pong = b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    assert_eq!(encoded(Frame::Pong(&hello), Some(MASK)), pong);
    assert!(encoded(Frame::Binary(&[0; 256]), None).starts_with(b"\x82\x7e\x01\x00"));
    let big = encoded(Frame::Binary(&[0; 65536]), None);
    assert!(big.starts_with(b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"));
    assert_eq!(encoded(Frame::Close(None), None), b"\x88\x00");
    assert_eq!(encoded(Frame::Close(Some((1001, "bye"))), None), b"\x88\x05\x03\xe9bye");
    for never in [0, 1005, 1006, 1015, 5000] {
        assert_eq!(encoded(Frame::Close(Some((never, "x"))), None), b"\x88\x00");
    }
    // 124 bytes of reason: the last character does not fit and is left out whole.
    let reason = format!("{}é", "a".repeat(122));
    let close = encoded(Frame::Close(Some((4401, &reason))), None);
    assert_eq!(close, [b"\x88\x7c\x11\x31".to_vec(), vec![b'a'; 122]].concat());
    assert_eq!(Payload::new(&[0; 126]), None);
}

#[test]
fn a_frame_written_in_place_equals_one_encoded() {
    for mask in [None, Some(MASK)] {
        for bytes in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
            let body: String = ('a'..='z').cycle().take(bytes).collect();
            let (mut expected, mut out) = (b"before".to_vec(), b"before".to_vec());
            encode(Frame::Text(&body), mask, &mut expected);
            encode(Frame::Binary(body.as_bytes()), mask, &mut expected);
            let frame = OpenFrame::text(mask, &mut out);
            out.extend_from_slice(body.as_bytes());
            assert_eq!(frame.payload_bytes(&out), bytes);
            frame.finish(&mut out);
            let frame = OpenFrame::binary(mask, &mut out);
            out.extend_from_slice(b"will not be sent");
            frame.abandon(&mut out);
            let frame = OpenFrame::binary(mask, &mut out);
            out.extend_from_slice(body.as_bytes());
            frame.finish(&mut out);
            assert!(out == expected, "{bytes} bytes, mask {mask:?}");
            assert_eq!(
                out[6..],
                [raw(0x81, body.as_bytes(), mask), raw(0x82, body.as_bytes(), mask)].concat()
            );
        }
    }
}

/// A data message, and where its bytes are cut, with the control frames to send there.
type Fragmented = (Message, Vec<(usize, Vec<Message>)>);

fn sequence() -> impl Strategy<Value = Vec<Fragmented>> {
    let control = || {
        let payload = vec(any::<u8>(), 0..=125).prop_map(|bytes| Payload::new(&bytes).unwrap());
        (any::<bool>(), payload).prop_map(|(ping, payload)| {
            if ping { Message::Ping(payload) } else { Message::Pong(payload) }
        })
    };
    let data = prop_oneof![
        "[a-zé€𝄞]{0,300}".prop_map(Message::Text),
        vec(any::<u8>(), 0..600).prop_map(Message::Binary),
        vec(any::<u8>(), 65_530..65_540).prop_map(Message::Binary),
    ];
    vec((data, vec((0..70_000usize, vec(control(), 0..3)), 0..5)), 0..6)
}

proptest! {
    #[test]
    fn what_is_sent_arrives_however_it_is_cut(
        sequence in sequence(),
        server in any::<bool>(),
        mask in any::<[u8; 4]>(),
        sizes in vec(1..300usize, 1..20),
        close in proptest::option::of(("[a-zé]{0,40}", 3000..5000u16)),
    ) {
        let (role, mask) = if server { (Role::Server, Some(mask)) } else { (Role::Client, None) };
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (message, parts) in sequence {
            let (opcode, body) = match &message {
                Message::Text(text) => (1, text.as_bytes()),
                Message::Binary(body) => (2, &body[..]),
                _ => unreachable!("data only"),
            };
            let mut cuts: Vec<usize> = parts.iter().map(|(at, _)| at % (body.len() + 1)).collect();
            cuts.sort_unstable();
            let mut from = 0;
            for (number, (cut, (_, controls))) in cuts.iter().zip(&parts).enumerate() {
                bytes.extend(raw(if number == 0 { opcode } else { 0 }, &body[from..*cut], mask));
                from = *cut;
                for control in controls {
                    match control {
                        Message::Ping(payload) => encode(Frame::Ping(payload), mask, &mut bytes),
                        Message::Pong(payload) => encode(Frame::Pong(payload), mask, &mut bytes),
                        _ => unreachable!("control only"),
                    }
                    expected.push(control.clone());
                }
            }
            let first = if parts.is_empty() { opcode } else { 0 };
            bytes.extend(raw(FIN | first, &body[from..], mask));
            expected.push(message);
        }
        if let Some((reason, code)) = &close {
            encode(Frame::Close(Some((*code, reason))), mask, &mut bytes);
            expected.push(Message::Close(Some((*code, reason.clone()))));
        }
        let mut decoder = Decoder::new(role, Limits::of_bytes(70_000));
        let (mut rest, mut chunks) = (&bytes[..], Vec::new());
        for size in sizes.iter().cycle() {
            if rest.is_empty() { break }
            let (chunk, tail) = rest.split_at((*size).min(rest.len()));
            chunks.push(chunk);
            rest = tail;
        }
        let (messages, error) = decode_all(&mut decoder, chunks);
        prop_assert_eq!(error, None);
        prop_assert_eq!(messages, expected);
        prop_assert!(decoder.is_idle());
        prop_assert_eq!(decoder.held_bytes(), 0);
    }

    #[test]
    fn random_bytes_never_panic_and_end_alike_however_cut(
        // Mostly first and second bytes that mean something, so that it gets past the header.
        parts in vec(
            prop_oneof![
                vec(any::<u8>(), 0..40),
                (prop::sample::select(&[1u8, 2, 0, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8a][..]),
                 vec(any::<u8>(), 0..200))
                    .prop_map(|(first, payload)| masked(first, &payload)),
            ],
            0..12,
        ),
        size in 1..50usize,
        server in any::<bool>(),
    ) {
        let role = if server { Role::Server } else { Role::Client };
        let bytes = parts.concat();
        let whole = decode_all(&mut Decoder::new(role, LIMITS), [&bytes[..]]);
        let cut = decode_all(&mut Decoder::new(role, LIMITS), bytes.chunks(size));
        prop_assert_eq!(whole, cut);
    }
}

/// A stream that gives its steps one by one.
struct Script(VecDeque<Step>);

enum Step {
    Data(Vec<u8>),
    Pending,
    Fail,
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0.pop_front() {
            Some(Step::Data(mut data)) => {
                let rest = data.split_off(data.len().min(buffer.remaining()));
                if !rest.is_empty() {
                    self.0.push_front(Step::Data(rest));
                }
                buffer.put_slice(&data);
                Poll::Ready(Ok(()))
            }
            Some(Step::Pending) => Poll::Pending,
            Some(Step::Fail) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            None => Poll::Ready(Ok(())),
        }
    }
}

fn reader(leftover: &[u8], steps: impl IntoIterator<Item = Step>) -> Reader<Script> {
    Reader::new(Script(steps.into_iter().collect()), Role::Server, LIMITS, leftover)
}

/// One poll of a new future, which is dropped after it.
fn once(reader: &mut Reader<Script>) -> Poll<Result<Option<Message>, ReadError>> {
    pin!(reader.next()).as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_dropped_future_loses_nothing() {
    let bytes = [masked(1, b"one "), masked(FIN | 9, b"p"), masked(FIN, b"two")].concat();
    let steps =
        bytes.iter().flat_map(|byte| [Step::Pending, Step::Data(vec![*byte]), Step::Pending]);
    let mut reader = reader(&[], steps);
    let (mut got, mut dropped) = (Vec::new(), 0);
    loop {
        match once(&mut reader) {
            Poll::Pending => dropped += 1,
            Poll::Ready(Ok(Some(message))) => got.push(message),
            Poll::Ready(Ok(None)) => break,
            Poll::Ready(Err(error)) => panic!("{error}"),
        }
    }
    assert_eq!(got, [ping(b"p"), text("one two")]);
    assert_eq!(dropped, 2 * bytes.len());
}

#[test]
fn bytes_of_the_handshake_come_first_and_an_idle_reader_holds_nothing() {
    let bytes = masked(FIN | 2, &[5; 700]);
    let (head, tail) = bytes.split_at(300);
    let early = [masked(FIN | 1, b"early"), head.to_vec()].concat();
    let rest = [tail.to_vec(), masked(FIN | 1, b"a"), masked(FIN | 1, b"b")].concat();
    let mut reader = reader(&early, [Step::Pending, Step::Data(rest), Step::Pending]);
    assert!(
        matches!(once(&mut reader), Poll::Ready(Ok(Some(message))) if message == text("early"))
    );
    assert!(once(&mut reader).is_pending());
    assert!(!reader.is_idle() && reader.held_bytes() >= 292);
    for expected in [Message::Binary(vec![5; 700]), text("a"), text("b")] {
        assert!(matches!(once(&mut reader), Poll::Ready(Ok(Some(got))) if got == expected));
    }
    assert!(once(&mut reader).is_pending());
    assert!(reader.is_idle());
    assert_eq!(reader.held_bytes(), 0);
    assert!(size_of_val(&reader.next()) <= 64, "the read buffer must not be in the future");
}

#[test]
fn the_end_of_the_stream_is_clean_only_between_messages() {
    let whole = [masked(1, b"one "), masked(FIN, b"two")].concat();
    for cut in 0..=whole.len() {
        let mut reader = reader(&[], [Step::Data(whole[..cut].to_vec())]);
        if cut == 0 || cut == whole.len() {
            assert!(cut == 0 || matches!(once(&mut reader), Poll::Ready(Ok(Some(_)))));
            assert!(matches!(once(&mut reader), Poll::Ready(Ok(None))), "cut at {cut}");
        } else {
            let end = once(&mut reader);
            assert!(matches!(end, Poll::Ready(Err(ReadError::Cut))), "cut at {cut}: {end:?}");
        }
    }
    // After a close the rest is thrown away, whatever it is.
    let bytes = [masked(1, b"a"), masked(FIN | 8, b""), vec![0xff; 20_000]].concat();
    let mut reader = reader(&[], [Step::Data(bytes), Step::Data(vec![1])]);
    assert!(matches!(once(&mut reader), Poll::Ready(Ok(Some(Message::Close(None))))));
    assert!(matches!(once(&mut reader), Poll::Ready(Ok(None))));
}

#[test]
fn failures_are_told_apart() {
    let mut broken = reader(&[], [Step::Data(masked(3 | FIN, b"")), Step::Fail]);
    for _ in 0..2 {
        let Poll::Ready(Err(error)) = once(&mut broken) else { panic!("no error") };
        assert_eq!(error.close_code(), Some(1002));
        assert_eq!(error.to_string(), FrameError::UnknownOpcode(3).to_string());
    }
    let Poll::Ready(Err(error)) = once(&mut reader(&[], [Step::Fail])) else { panic!("no error") };
    assert_eq!(error.close_code(), None);
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn a_big_message_comes_through_a_small_pipe_while_other_branches_win() {
    let (mut near, far) = tokio::io::duplex(100);
    let body: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
    let sent = body.clone();
    let sender = tokio::spawn(async move {
        let mut out = Vec::new();
        encode(Frame::Binary(&sent), Some(MASK), &mut out);
        encode(Frame::Close(Some((1000, "done"))), Some(MASK), &mut out);
        near.write_all(&out).await.unwrap();
    });
    let mut reader = Reader::new(far, Role::Server, Limits::of_bytes(1 << 20), &[]);
    let (mut got, mut lost) = (Vec::new(), 0);
    loop {
        tokio::select! {
            biased;
            message = reader.next() => match message.unwrap() {
                Some(message) => got.push(message),
                None => break,
            },
            () = tokio::task::yield_now() => lost += 1,
        }
    }
    sender.await.unwrap();
    assert_eq!(got, [Message::Binary(body), Message::Close(Some((1000, "done".into())))]);
    assert!(lost > 100, "the reading future was dropped {lost} times");
}
