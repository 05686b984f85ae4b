//! Messages that have begun: each has its time to come whole, and all of them together have so much memory.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::AsyncRead,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};

use super::{CLOSE_LATE, CLOSE_NO_ROOM, Ending, Message, Read, Reader};
use crate::session::House;

/// A message that has begun and is not whole.
pub(super) struct Begun {
    late: Pin<Box<Sleep>>,
    /// Its share of the room.
    room: Option<OwnedSemaphorePermit>,
}

impl Begun {
    /// Takes room for so many bytes in all; false where there is none.
    fn has_room(&mut self, bytes: usize, messages: &Arc<Semaphore>) -> bool {
        let has = self.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(bytes.saturating_sub(has)).unwrap_or(u32::MAX);
        if more == 0 {
            return true;
        }
        let Ok(more) = messages.clone().try_acquire_many_owned(more) else { return false };
        match &mut self.room {
            Some(room) => room.merge(more),
            None => self.room = Some(more),
        }
        true
    }
}

/// The next message of the reader; the end of the socket where one that has begun does not come in time, or finds no room.
pub(super) fn poll_whole<R: AsyncRead + Unpin>(
    reader: &mut Reader<R>,
    begun: &mut Option<Box<Begun>>,
    house: &House,
    cx: &mut Context<'_>,
) -> Poll<Result<Read, Ending>> {
    if let Poll::Ready(read) = reader.poll_next(cx) {
        // They come between the frames of a message, which has no more time for that.
        if !matches!(read, Ok(Some(Message::Ping(_) | Message::Pong(_)))) {
            *begun = None;
        }
        return Poll::Ready(Ok(read));
    }
    if reader.is_idle() {
        *begun = None;
        return Poll::Pending;
    }
    let begun = begun.get_or_insert_with(|| {
        let late = Box::pin(tokio::time::sleep(house.limits.message_timeout));
        Box::new(Begun { late, room: None })
    });
    if !begun.has_room(reader.held_bytes(), &house.messages) {
        let reason = "too many messages have come in part: send it again later";
        return Poll::Ready(Err(Some((CLOSE_NO_ROOM, reason.to_owned()))));
    }
    ready!(begun.late.as_mut().poll(cx));
    let seconds = house.limits.message_timeout.as_secs_f64();
    let reason = format!("a message did not come whole within {seconds} seconds");
    Poll::Ready(Err(Some((CLOSE_LATE, reason))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_room_is_shared_and_given_back() {
        let messages = Arc::new(Semaphore::new(100));
        let begun =
            || Begun { late: Box::pin(tokio::time::sleep(std::time::Duration::MAX)), room: None };
        let (mut one, mut other) = (begun(), begun());
        assert!(one.has_room(10, &messages) && one.has_room(60, &messages));
        assert!(one.has_room(50, &messages), "what it has it keeps");
        assert!(other.has_room(40, &messages) && !other.has_room(41, &messages));
        drop(one);
        assert!(other.has_room(100, &messages) && !other.has_room(101, &messages));
        drop(other);
        assert_eq!(messages.available_permits(), 100);
    }
}
