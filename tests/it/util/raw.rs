//! A WebSocket by hand over TCP: for bytes that no client library would send.

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::PATIENCE;

pub struct Raw {
    pub stream: TcpStream,
}

/// The first byte of a whole text message.
pub const TEXT: u8 = 0x81;
/// The first byte of a whole binary message.
pub const BINARY: u8 = 0x82;
/// The first byte of a close.
pub const CLOSE: u8 = 0x88;
/// The first byte of a ping.
pub const PING: u8 = 0x89;
/// The first byte of a pong.
pub const PONG: u8 = 0x8a;

/// A frame as a client must send it; `first` has the final bit, the reserved bits and the opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0xab, 0x34, 0xcd];
    let mut frame = head(first, true, payload.len() as u64);
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// The first bytes of a frame, up to the mask; whether a payload follows is the caller's business.
pub fn head(first: u8, masked: bool, payload_bytes: u64) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let mut head = vec![first];
    match payload_bytes {
        0..=125 => head.push(bit | payload_bytes as u8),
        126..=0xffff => {
            head.push(bit | 126);
            head.extend_from_slice(&(payload_bytes as u16).to_be_bytes());
        }
        _ => {
            head.push(bit | 127);
            head.extend_from_slice(&payload_bytes.to_be_bytes());
        }
    }
    head
}

/// Sends the head of a request as it is given and reads the head of the answer.
pub async fn exchange(address: &str, request: &str) -> (TcpStream, u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("no answer");
        head.push(byte.expect("the connection ended in the head"));
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (stream, status, head)
}

/// The head of an upgrade request; `more` are further header lines, each with its end.
pub fn upgrade(address: &str, path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

impl Raw {
    pub async fn open(address: &str) -> Raw {
        let (stream, status, head) = exchange(address, &upgrade(address, "/v1/ws", "")).await;
        assert_eq!(status, 101, "{head}");
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        assert!(head.contains(accept), "not the key of RFC 6455 §1.3: {head}");
        Raw { stream }
    }

    /// Writes as much as the broker takes.
    pub async fn write(&mut self, bytes: &[u8]) {
        // The broker may have hung up in the middle: what it said before is what counts.
        let _ = tokio::time::timeout(PATIENCE, self.stream.write_all(bytes)).await.unwrap();
    }

    /// The next frame: its first byte and its payload; `None` at the end.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let next = tokio::time::timeout(PATIENCE, read_frame(&mut self.stream)).await;
        next.expect("nothing came in time").ok()
    }

    /// Reads to the end; the code of the close frame, where one came.
    pub async fn close_code(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some((first, payload)) = self.frame().await {
            if first == CLOSE {
                code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            }
        }
        code
    }
}

/// The next frame of the broker: its first byte and its payload.
pub async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(u8, Vec<u8>)> {
    let first = stream.read_u8().await?;
    let length = match stream.read_u8().await? {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => u64::from(short),
    };
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await?;
    Ok((first, payload))
}
