//! A reader of `text/event-stream` by the letter of the HTML standard (§9.2), comments kept.

use std::collections::VecDeque;

use http_body_util::BodyExt;
use hyper::{HeaderMap, Method, StatusCode, body::Incoming};
use serde_json::Value;

use super::{PATIENCE, http};

pub struct Sse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    text: Vec<u8>,
    blocks: VecDeque<Block>,
}

/// What stands between two empty lines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    pub id: Option<String>,
    pub event: Option<String>,
    pub data: Option<String>,
    pub retry: Option<String>,
    pub comments: Vec<String>,
}

impl Block {
    pub fn json(&self) -> Value {
        serde_json::from_str(self.data.as_deref().expect("a block without data")).unwrap()
    }

    /// The offset in the id.
    pub fn cursor(&self) -> u64 {
        self.id.as_deref().unwrap().split('@').next().unwrap().parse().unwrap()
    }

    /// Whether it is an event of the log and not the broker's word about them.
    pub fn is_event(&self) -> bool {
        self.data.is_some()
            && !self.event.as_deref().is_some_and(|name| name.starts_with("tidings."))
    }
}

impl Sse {
    pub async fn open(address: &str, path: &str, headers: &[(&str, &str)]) -> Sse {
        Sse::try_open(address, path, headers).await.unwrap()
    }

    pub async fn try_open(
        address: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Sse, String> {
        let mut all = vec![("accept", "text/event-stream")];
        all.extend_from_slice(headers);
        let response = http::open(address, Method::GET, path, &all, b"").await?;
        let (parts, body) = response.into_parts();
        let (status, headers) = (parts.status, parts.headers);
        Ok(Sse { status, headers, body, text: Vec::new(), blocks: VecDeque::new() })
    }

    /// The next block, or `None` when the stream has ended or was cut.
    pub async fn next(&mut self) -> Option<Block> {
        loop {
            if let Some(block) = self.blocks.pop_front() {
                return Some(block);
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame())
                .await
                .expect("nothing came in time")?
                .ok()?;
            if let Some(bytes) = frame.data_ref() {
                self.text.extend_from_slice(bytes);
                self.parse();
            }
        }
    }

    /// The next event of the log.
    pub async fn event(&mut self) -> Option<Block> {
        loop {
            let block = self.next().await?;
            if block.is_event() {
                return Some(block);
            }
        }
    }

    /// The next block of this name.
    pub async fn named(&mut self, name: &str) -> Block {
        loop {
            let block = self.next().await.expect("the stream ended");
            if block.event.as_deref() == Some(name) {
                return block;
            }
        }
    }

    fn parse(&mut self) {
        while let Some(end) = self.text.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.text.drain(..end + 2).collect();
            let block = String::from_utf8(block).expect("SSE is UTF-8");
            self.blocks.push_back(block_of(&block));
        }
    }
}

fn block_of(text: &str) -> Block {
    let mut block = Block::default();
    for line in text.lines() {
        assert!(!line.contains('\r'), "a line break within a line: {line:?}");
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match name {
            "id" => block.id = Some(value),
            "event" => block.event = Some(value),
            "retry" => block.retry = Some(value),
            "data" => match &mut block.data {
                Some(data) => *data = format!("{data}\n{value}"),
                None => block.data = Some(value),
            },
            "" if line.is_empty() => {}
            "" => block.comments.push(value),
            other => panic!("no field of SSE: {other:?} in {text:?}"),
        }
    }
    block
}
