//! A stream of chunks that a future gives, one at a time.
//!
//! - The future goes on only when its chunk has been taken: nothing accumulates.
//! - It lives in the body of an answer: when the client goes, it is dropped, with all it holds.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use parking_lot::Mutex;

type Slot = Arc<Mutex<Option<Bytes>>>;

/// The chunks that a future gives, one at a time.
pub(in crate::net) struct Stream {
    /// `None` once it has ended.
    driver: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    slot: Slot,
}

/// Where a stream's future puts its chunks.
pub(super) struct Outlet(Slot);

impl Stream {
    /// The stream of the future that `driver` makes.
    pub(super) fn new<F>(driver: impl FnOnce(Outlet) -> F) -> Stream
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let slot = Slot::default();
        Stream { driver: Some(Box::pin(driver(Outlet(slot.clone())))), slot }
    }

    /// The next chunk; `None` at the end.
    pub(in crate::net) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(driver) = &mut self.driver else { return Poll::Ready(None) };
        if driver.as_mut().poll(cx).is_ready() {
            self.driver = None;
        }
        match self.slot.lock().take() {
            Some(chunk) => Poll::Ready(Some(chunk)),
            None if self.driver.is_none() => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

impl Outlet {
    /// Gives a chunk and waits until the next one is asked for.
    pub(super) async fn give(&self, chunk: impl Into<Bytes>) {
        *self.0.lock() = Some(chunk.into());
        // Polled anew when the connection wants more; the slot is empty then.
        poll_fn(|_| if self.0.lock().is_none() { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn next(stream: &mut Stream) -> Option<Bytes> {
        poll_fn(|cx| stream.poll_chunk(cx)).await
    }

    #[tokio::test]
    async fn a_stream_is_one_chunk_ahead_and_no_more() {
        let given = Arc::new(Mutex::new(0));
        let counter = given.clone();
        let mut stream = Stream::new(|outlet| async move {
            for n in 1..=3_u8 {
                *counter.lock() = n;
                outlet.give(vec![n]).await;
            }
        });
        for n in 1..=3_u8 {
            assert_eq!(next(&mut stream).await.unwrap(), vec![n]);
            assert_eq!(*given.lock(), n, "the next chunk is made when it is asked for");
        }
        assert_eq!(next(&mut stream).await, None);
        assert_eq!(next(&mut stream).await, None);
    }

    #[tokio::test]
    async fn a_stream_waits_for_its_future() {
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let mut stream = Stream::new(|outlet| async move {
            let _ = receiver.await;
            outlet.give("x").await;
        });
        let early = tokio::time::timeout(Duration::from_millis(20), next(&mut stream)).await;
        assert!(early.is_err());
        sender.send(()).unwrap();
        assert_eq!(next(&mut stream).await.unwrap(), "x");
    }
}
