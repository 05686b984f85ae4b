//! A durable subscription that is in use: its state, and the sessions that are attached to it.
//!
//! - It is in memory while a session is attached, a lease runs or an ack waits for its commit; the ledger
//!   has it otherwise.
//! - `exclusive`: one holder, a session or the HTTP fetchers together; a newer one takes over.
//! - `mirror`: every session reads for itself from the floor; nothing is leased.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tidings_proto::{
    Cursor, Mode, Offset,
    control::{AckState, DurableSpec},
};

use super::{
    acks::{AckBox, AckTicket},
    durable::{DurableState, Redelivery},
    error::AckError,
    interest::Entry,
};

/// A durable subscription in use.
#[derive(Debug)]
pub struct Durable {
    /// How it was made.
    pub spec: Arc<DurableSpec>,
    /// When events come again.
    pub redelivery: Redelivery,
    held: Mutex<Held>,
}

/// What changes about it.
#[derive(Debug)]
pub struct Held {
    /// What is delivered and acknowledged.
    pub state: DurableState,
    holder: Holder,
    sessions: Vec<(Token, Arc<Entry>)>,
    last_token: Token,
    deleted: bool,
}

/// Names one attachment of a session to a durable.
pub type Token = u64;

/// Who gets the events of an exclusive durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// A session.
    Session(Token),
    /// Those who fetch over HTTP.
    Fetch,
}

/// What is acknowledged.
#[derive(Clone, Debug)]
pub enum Target {
    /// All up to and including this.
    UpTo(Offset),
    /// Just these.
    These(Vec<Offset>),
}

impl Durable {
    /// Takes it into use, as the ledger has it.
    pub fn new(spec: Arc<DurableSpec>, acks: &AckState) -> Durable {
        let redelivery = Redelivery {
            ack_wait_ms: spec.options.ack_wait_ms,
            backoff_ms: spec.options.backoff_ms.clone(),
        };
        let held = Held {
            state: DurableState::restore(acks),
            holder: Holder::Nobody,
            sessions: Vec::new(),
            last_token: 0,
            deleted: false,
        };
        Durable { spec, redelivery, held: Mutex::new(held) }
    }

    /// Whether every session sees every event.
    pub fn is_mirror(&self) -> bool {
        self.spec.options.mode == Mode::Mirror
    }

    /// Its state, locked. Never hold it across an await.
    pub fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock()
    }

    /// A session attaches; of an exclusive durable it takes over what others had.
    pub fn attach(&self, entry: Arc<Entry>) -> (Token, Cursor) {
        let mut held = self.lock();
        held.last_token += 1;
        let token = held.last_token;
        if !self.is_mirror() {
            // What a fetcher has leased keeps running; what a socket had comes again at once.
            if held.holder != Holder::Fetch {
                held.state.release();
            }
            held.holder = Holder::Session(token);
            held.wake_all();
        }
        held.sessions.push((token, entry));
        (token, held.state.floor())
    }

    /// A session goes: what it had comes again at once.
    pub fn detach(&self, token: Token) {
        let mut held = self.lock();
        held.sessions.retain(|(other, _)| *other != token);
        if held.holder == Holder::Session(token) {
            held.holder = Holder::Nobody;
            held.state.release();
        }
    }

    /// Somebody fetches over HTTP: a socket that held it is superseded, other fetchers are not.
    pub fn attach_fetch(&self, entry: Arc<Entry>) -> Token {
        let mut held = self.lock();
        if held.holder != Holder::Fetch && !self.is_mirror() {
            held.state.release();
            held.holder = Holder::Fetch;
            held.wake_all();
        }
        held.last_token += 1;
        let token = held.last_token;
        held.sessions.push((token, entry));
        token
    }

    /// It was deleted: every session on it is told.
    pub fn delete(&self) {
        let mut held = self.lock();
        held.deleted = true;
        held.wake_all();
    }

    /// Takes acks and puts the new state into the box. `from` is the session's token, or `None` over HTTP.
    ///
    /// # Errors
    /// [`AckError::TooManyRanges`], with nothing taken beyond the bound.
    pub fn ack(
        &self,
        target: &Target,
        from: Option<Token>,
        acks: &AckBox,
    ) -> Result<(AckTicket, Cursor), AckError> {
        let mut held = self.lock();
        if held.may_ack(from) {
            match target {
                Target::UpTo(offset) => held.state.ack_up_to(offset.get()),
                Target::These(offsets) => {
                    for offset in offsets {
                        if !held.state.ack(offset.get()) {
                            return Err(AckError::TooManyRanges {
                                max: super::durable::RANGES_MAX,
                            });
                        }
                    }
                }
            }
        }
        let floor = held.state.floor();
        let ticket = acks.submit(held.state.to_ack_state(&self.spec.name, self.spec.number));
        // There may be room for more in flight now; other sessions of a mirror are told of the floor.
        held.wake_all();
        Ok((ticket, floor))
    }

    /// Lets events come again.
    pub fn nack(
        &self,
        offsets: &[Offset],
        delay_ms: Option<u64>,
        from: Option<Token>,
        now_ms: u64,
        acks: &AckBox,
    ) -> AckTicket {
        let mut held = self.lock();
        if held.may_ack(from) {
            for offset in offsets {
                held.state.nack(offset.get(), delay_ms, now_ms, &self.redelivery);
            }
        }
        let ticket = acks.submit(held.state.to_ack_state(&self.spec.name, self.spec.number));
        held.wake_all();
        ticket
    }
}

impl Held {
    /// How many sessions are attached.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Whether nobody uses it.
    pub fn is_idle(&self) -> bool {
        self.sessions.is_empty() && self.state.in_flight() == 0
    }

    /// Whether this session still gets its events.
    pub fn is_held_by(&self, token: Token, mirror: bool) -> bool {
        !self.deleted && (mirror || self.holder == Holder::Session(token))
    }

    /// Who gets the events.
    pub fn holder(&self) -> Holder {
        self.holder
    }

    fn may_ack(&self, from: Option<Token>) -> bool {
        match (from, self.holder) {
            (Some(token), Holder::Session(holder)) => token == holder,
            (Some(_), Holder::Fetch) => false,
            _ => true,
        }
    }

    fn wake_all(&self) {
        for (_, entry) in &self.sessions {
            entry.wake();
        }
    }
}
