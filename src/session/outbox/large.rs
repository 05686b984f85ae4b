//! What is large and on its way to a socket: its places in the rooms that all sockets share, and the batch that waits for one.

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{
    broker::Delivery,
    log::{ReadError, Stored},
    session::{
        answers::Room,
        outputs::{Held, Taker},
    },
};

/// The places of what is written.
#[derive(Default)]
pub(super) struct Large {
    pub(super) taker: Arc<Taker>,
    pub(super) batches: Vec<Held>,
    pub(super) answers: Vec<Room>,
    pub(super) waiting: Option<Parked>,
}

/// A delivery that waits for a place, its events with it.
pub(super) struct Parked {
    pub(super) number: u32,
    pub(super) delivery: Delivery,
    pub(super) admitting: Pin<Box<dyn Future<Output = Admitted> + Send>>,
}

pub(super) type Admitted = Result<(Vec<Arc<Stored>>, Held), ReadError>;

/// What waits for a place.
pub(super) fn waiting(
    large: &mut Option<Box<Large>>,
) -> Option<&mut (dyn Future<Output = Admitted> + Send + Unpin)> {
    let waiting = large.as_mut()?.waiting.as_mut()?;
    Some(&mut waiting.admitting)
}

/// When what waits has a place, or cannot be read any more; never where nothing waits.
pub(super) async fn admission(large: &mut Option<Box<Large>>) -> Admitted {
    match waiting(large) {
        Some(waiting) => waiting.await,
        None => std::future::pending().await,
    }
}
