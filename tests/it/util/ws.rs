//! A WebSocket by tokio-tungstenite: a client that is not ours.

use std::collections::VecDeque;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest, protocol::CloseFrame},
};

use super::PATIENCE;

pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next_id: u32,
    /// What came while something else was waited for.
    aside: VecDeque<Value>,
    pub closed: Option<CloseFrame>,
}

impl Socket {
    pub async fn open(address: &str) -> Socket {
        Socket::try_open(address, "/v1/ws", &[]).await.unwrap()
    }

    pub async fn try_open(
        address: &str,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Socket, String> {
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let connected = tokio_tungstenite::connect_async(request).await;
        let (stream, _) = connected.map_err(|error| error.to_string())?;
        Ok(Socket { stream, next_id: 0, aside: VecDeque::new(), closed: None })
    }

    pub async fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.unwrap();
    }

    /// Several messages in one write.
    pub async fn send_together(&mut self, messages: &[Value]) {
        for message in messages {
            self.stream.feed(Message::text(message.to_string())).await.unwrap();
        }
        self.stream.flush().await.unwrap();
    }

    pub async fn send_raw(&mut self, message: Message) {
        self.stream.send(message).await.unwrap();
    }

    /// Sends a request without waiting for its answer; gives its id.
    pub async fn start(&mut self, name: &str, body: Value) -> u32 {
        self.next_id += 1;
        self.send(&json!({"id": self.next_id, name: body})).await;
        self.next_id
    }

    /// The answer to this request; what comes before is kept for [`Socket::push`].
    pub async fn answer(&mut self, id: u32) -> Value {
        self.try_answer(id).await.expect("the socket ended before the answer")
    }

    async fn try_answer(&mut self, id: u32) -> Option<Value> {
        let mut kept = VecDeque::new();
        loop {
            let message = self.next().await?;
            if message["reply"] == id {
                kept.append(&mut self.aside);
                self.aside = kept;
                return Some(message);
            }
            kept.push_back(message);
        }
    }

    /// A request and its answer.
    pub async fn call(&mut self, name: &str, body: Value) -> Value {
        let id = self.start(name, body).await;
        self.answer(id).await
    }

    /// The same; `None` when the connection ends before the answer.
    pub async fn try_call(&mut self, name: &str, body: Value) -> Option<Value> {
        let id = self.try_start(name, body).await?;
        self.try_answer(id).await
    }

    /// Sends a request without waiting for its answer; `None` when nothing can be sent any more.
    pub async fn try_start(&mut self, name: &str, body: Value) -> Option<u32> {
        self.next_id += 1;
        let request = json!({"id": self.next_id, name: body}).to_string();
        self.stream.send(Message::text(request)).await.ok()?;
        Some(self.next_id)
    }

    /// The next message that answers nothing, in order.
    pub async fn push(&mut self) -> Value {
        self.next().await.expect("the socket ended")
    }

    /// The next events of any subscription, empty batches passed over.
    pub async fn events(&mut self) -> Value {
        loop {
            let message = self.push().await;
            if message["events"]["events"].as_array().is_some_and(|events| !events.is_empty()) {
                return message["events"].clone();
            }
        }
    }

    /// The next `count` events, whatever else comes between.
    pub async fn take(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        while events.len() < count {
            let batch = self.events().await;
            events.extend(batch["events"].as_array().unwrap().iter().cloned());
        }
        events
    }

    /// The next message, or `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        if let Some(message) = self.aside.pop_front() {
            return Some(message);
        }
        loop {
            let message = tokio::time::timeout(PATIENCE, self.stream.next())
                .await
                .expect("nothing came in time");
            match message {
                Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => self.closed = frame,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// Reads to the end and gives the close code.
    pub async fn close_code(&mut self) -> Option<u16> {
        // The broker's pings would keep it waiting for ever.
        let end = async { while self.next().await.is_some() {} };
        tokio::time::timeout(PATIENCE, end).await.expect("the broker closes it in time");
        self.closed.as_ref().map(|frame| u16::from(frame.code))
    }
}

pub fn offsets(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["offset"].as_u64().unwrap()).collect()
}

impl Socket {
    /// The next message as its text, byte for byte. What was set aside is not looked at.
    pub async fn next_text(&mut self) -> String {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.stream.next()).await;
            match message.expect("nothing came in time") {
                Some(Ok(Message::Text(text))) => return text.as_str().to_owned(),
                Some(Ok(_)) => {}
                other => panic!("the socket ended: {other:?}"),
            }
        }
    }

    /// Publishes an event and gives its offset.
    pub async fn publish(&mut self, event: Value) -> u64 {
        let answer = self.call("publish", event).await;
        answer["published"]["offset"].as_u64().unwrap_or_else(|| panic!("refused: {answer}"))
    }

    /// Subscribes and gives what `subscribed` says.
    pub async fn subscribe(&mut self, options: Value) -> Value {
        let answer = self.call("subscribe", options).await;
        assert!(answer["subscribed"].is_object(), "refused: {answer}");
        answer["subscribed"].clone()
    }

    /// The next message that answers nothing, which must be of this kind.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let message = self.push().await;
        assert!(message[kind].is_object(), "no {kind}: {message}");
        message[kind].clone()
    }

    /// The error that a request is answered with.
    pub async fn refused(&mut self, name: &str, body: Value) -> Value {
        let answer = self.call(name, body.clone()).await;
        assert!(answer["error"].is_object(), "{name} {body} was not refused: {answer}");
        answer["error"].clone()
    }

    /// What has been set aside, and what came before the answer to a ping.
    pub async fn so_far(&mut self) -> Vec<Value> {
        let answer = self.call("ping", json!({})).await;
        assert!(answer["pong"].is_object(), "{answer}");
        self.aside.drain(..).collect()
    }

    /// The events among them.
    pub async fn events_so_far(&mut self) -> Vec<Value> {
        let messages = self.so_far().await;
        let batches = messages.iter().filter_map(|message| message["events"]["events"].as_array());
        batches.flatten().cloned().collect()
    }

    /// The events up to the first of this topic, which is left out.
    pub async fn events_until(&mut self, topic: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let batch = self.events().await;
            for event in batch["events"].as_array().unwrap() {
                if event["topic"] == topic {
                    return events;
                }
                events.push(event.clone());
            }
        }
    }
}

/// Sockets with `each` subscriptions, each of those on a topic `user.N.inbox` of its own; all are caught up.
pub async fn inboxes(address: &str, sockets: usize, each: usize) -> Vec<Socket> {
    let mut opened = Vec::new();
    for n in 0..sockets {
        let mut socket = Socket::open(address).await;
        for m in 0..each {
            let topic = format!("user.{}.inbox", n * each + m);
            socket.start("subscribe", json!({ "filters": [topic] })).await;
        }
        let mut waiting = each;
        while waiting > 0 {
            let message = socket.next().await.unwrap();
            waiting -= usize::from(message["caught_up"].is_object());
        }
        opened.push(socket);
    }
    opened
}
