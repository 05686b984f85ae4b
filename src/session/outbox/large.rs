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
    /// What came of it.
    pub(super) admitted: Option<Admitted>,
}

type Admitted = Result<(Vec<Arc<Stored>>, Held), ReadError>;

/// Whether something waits for a place.
pub(super) fn is_waiting(large: Option<&Large>) -> bool {
    large.is_some_and(|large| large.waiting.is_some())
}

/// When what waits has a place, or cannot be read any more, which it is told; never where nothing waits.
pub(super) async fn admission(large: &mut Option<Box<Large>>) {
    let parked = large.as_mut().and_then(|large| large.waiting.as_mut());
    match parked.filter(|parked| parked.admitted.is_none()) {
        Some(parked) => parked.admitted = Some(parked.admitting.as_mut().await),
        None => std::future::pending().await,
    }
}
