//! Tickets: what a browser shows in an address in the place of a token, since neither a WebSocket nor an EventSource
//! of a page can send one.
//!
//! - A ticket is `tkt_` and 256 random bits. It holds once, and for [`TICKET_LIFE`].
//! - It is somebody as they were when they asked for it: their grants, their end, their token's marks.
//! - They are in memory alone, by their hash: a restart forgets them, and a look into memory shows none.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::{
    Identity,
    api_key::{hash, hex},
};
use crate::clock;

/// How long a ticket holds.
pub const TICKET_LIFE: Duration = Duration::from_secs(30);
/// The most tickets there may be.
const TICKETS_MAX: usize = 10_000;
/// The most that one subject may have.
const OF_SUBJECT_MAX: usize = 32;

/// How often tickets that hold no more make room.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

const BEGIN: &str = "tkt_";

/// There are as many tickets as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{OF_SUBJECT_MAX} tickets of one subject, {TICKETS_MAX} together: use those you have, or wait"
)]
pub struct TooManyTickets;

/// The tickets that hold.
#[derive(Default)]
pub struct Tickets(Mutex<Given>);

#[derive(Default)]
struct Given {
    /// By their hash.
    of: HashMap<String, Ticket>,
    /// How many each subject has.
    by_subject: HashMap<String, usize>,
    /// When those that hold no more are taken out next.
    sweep_at: Duration,
}

struct Ticket {
    identity: Arc<Identity>,
    /// On the monotonic clock.
    until: Duration,
}

impl Tickets {
    /// Makes one for somebody.
    ///
    /// # Errors
    /// [`TooManyTickets`].
    pub fn issue(&self, identity: Arc<Identity>) -> Result<Zeroizing<String>, TooManyTickets> {
        let now = clock::monotonic();
        let mut given = self.0.lock();
        given.sweep(now);
        let theirs = given.by_subject.get(&identity.subject).copied().unwrap_or(0);
        if given.of.len() >= TICKETS_MAX || theirs >= OF_SUBJECT_MAX {
            return Err(TooManyTickets);
        }
        let secret = Zeroizing::new(clock::secret_bytes());
        let text = Zeroizing::new(format!("{BEGIN}{}", &*Zeroizing::new(hex(&*secret))));
        given.by_subject.insert(identity.subject.clone(), theirs + 1);
        given.of.insert(hash(&text), Ticket { identity, until: now + TICKET_LIFE });
        Ok(text)
    }

    /// Who comes with this ticket, which holds no more from here on.
    pub fn redeem(&self, text: &str) -> Option<Arc<Identity>> {
        // Looked up by a hash: how long that takes says nothing of those there are.
        let ticket = self.0.lock().take(&hash(text))?;
        (ticket.until > clock::monotonic()).then_some(ticket.identity)
    }
}

impl Given {
    fn take(&mut self, hash: &str) -> Option<Ticket> {
        let ticket = self.of.remove(hash)?;
        let subject = &ticket.identity.subject;
        if let Some(theirs) = self.by_subject.get_mut(subject) {
            *theirs -= 1;
            if *theirs == 0 {
                self.by_subject.remove(subject);
            }
        }
        Some(ticket)
    }

    /// Once a second, whoever asks: all of them are gone through.
    fn sweep(&mut self, now: Duration) {
        if now < self.sweep_at {
            return;
        }
        self.sweep_at = now + SWEEP_EVERY;
        let ended = self.of.iter().filter(|(_, ticket)| ticket.until <= now);
        let ended: Vec<String> = ended.map(|(hash, _)| hash.clone()).collect();
        for hash in ended {
            self.take(&hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Grants, *};
    use crate::clock::held;

    fn somebody(subject: &str) -> Arc<Identity> {
        Arc::new(Identity { subject: subject.to_owned(), ..Identity::anonymous(Grants::default()) })
    }

    #[test]
    fn a_ticket_holds_once_and_not_for_long() {
        held::set(Some(0));
        let tickets = Tickets::default();
        let [first, second] = [(); 2].map(|()| tickets.issue(somebody("alice")).unwrap());
        assert_ne!(*first, *second);
        assert!(tickets.redeem("tkt_").is_none() && tickets.redeem("").is_none());
        assert_eq!(tickets.redeem(&first).unwrap().subject, "alice");
        assert!(tickets.redeem(&first).is_none(), "once");
        held::set(Some(29_999));
        let third = tickets.issue(somebody("alice")).unwrap();
        held::set(Some(30_000));
        assert!(tickets.redeem(&second).is_none(), "not for long");
        assert!(tickets.redeem(&third).is_some());
        let given = tickets.0.lock();
        assert!(given.of.is_empty() && given.by_subject.is_empty());
    }

    #[test]
    fn nobody_takes_the_place_of_all() {
        held::set(Some(0));
        let tickets = Tickets::default();
        for _ in 0..OF_SUBJECT_MAX {
            tickets.issue(somebody("alice")).unwrap();
        }
        assert_eq!(tickets.issue(somebody("alice")).unwrap_err(), TooManyTickets);
        for n in 0..TICKETS_MAX - OF_SUBJECT_MAX {
            tickets.issue(somebody(&n.to_string())).unwrap();
        }
        assert_eq!(tickets.issue(somebody("bob")).unwrap_err(), TooManyTickets);
        held::set(Some(30_000));
        assert!(tickets.issue(somebody("bob")).is_ok(), "what holds no more makes room");
        let given = tickets.0.lock();
        assert_eq!((given.of.len(), given.by_subject.len()), (1, 1));
    }
}
