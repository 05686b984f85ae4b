//! Who stands at the door: connections by address, those that nobody has been let in on, sessions by subject.
//!
//! - A connection counts as a stranger's from its accept until the first session begins on it. Strangers have a cap of
//!   their own, so that they cannot take all the places there are.
//! - A connection of a proxy that is trusted counts as a stranger too, but by no address: what comes through it does.
//! - Nothing is kept of who has gone, and by address only where an address has a cap.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tidings_proto::WireError;

use super::rates::{Kind, Limiter, Wait, network};

/// How many connections there may be; 0 is any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Of one address.
    pub per_ip: usize,
    /// Of strangers.
    pub strangers: usize,
    /// Of strangers of one address.
    pub strangers_per_ip: usize,
}

/// Why a connection is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// There are too many, of the address or of strangers.
    Full,
    /// They come too fast.
    Fast(Wait),
}

/// Everybody at the door.
pub struct Guests {
    caps: Caps,
    limiter: Arc<Limiter>,
    counts: Mutex<Counts>,
    /// How many sessions a subject has, of those whose tokens bound that.
    sessions: Mutex<HashMap<String, usize>>,
}

#[derive(Default)]
struct Counts {
    strangers: usize,
    by_ip: HashMap<[u8; 8], Count>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    all: usize,
    strangers: usize,
}

/// A connection, or what comes through one of a proxy. Gone when it is dropped.
pub struct Guest {
    guests: Arc<Guests>,
    ip: IpAddr,
    counts: What,
    is_inside: AtomicBool,
    /// The connection of the proxy.
    through: Option<Arc<Guest>>,
}

/// What a guest counts as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// A connection of an address.
    Connection,
    /// A connection of a proxy.
    Proxy,
    /// A socket of an address, through a proxy.
    Socket,
    /// A request of an address, through a proxy: it has a connection of that while it is under way.
    Request,
    /// An operator.
    Nothing,
}

impl Guests {
    /// Nobody yet.
    pub fn new(caps: Caps, limiter: Arc<Limiter>) -> Arc<Guests> {
        Arc::new(Guests { caps, limiter, counts: Mutex::default(), sessions: Mutex::default() })
    }

    /// A connection has come; `is_proxy` where what comes through it says itself from where.
    ///
    /// # Errors
    /// See [`Turned`].
    pub fn admit(self: &Arc<Self>, ip: IpAddr, is_proxy: bool) -> Result<Arc<Guest>, Turned> {
        let counts = if is_proxy { What::Proxy } else { What::Connection };
        self.guest(ip, counts, None)
    }

    /// An operator's connection, which counts as nothing.
    pub fn operator(self: &Arc<Self>, ip: IpAddr) -> Arc<Guest> {
        let is_inside = AtomicBool::new(true);
        Arc::new(Guest {
            guests: self.clone(),
            ip,
            counts: What::Nothing,
            is_inside,
            through: None,
        })
    }

    fn guest(
        self: &Arc<Self>,
        ip: IpAddr,
        counts: What,
        through: Option<Arc<Guest>>,
    ) -> Result<Arc<Guest>, Turned> {
        let comes = matches!(counts, What::Connection | What::Socket);
        if comes {
            self.limiter.take_of_ip(ip, Kind::Connects).map_err(Turned::Fast)?;
        }
        if !self.count(ip, counts) {
            return Err(Turned::Full);
        }
        let is_inside = AtomicBool::new(false);
        Ok(Arc::new(Guest { guests: self.clone(), ip, counts, is_inside, through }))
    }

    /// Counts somebody; false where there is no place.
    fn count(&self, ip: IpAddr, what: What) -> bool {
        let holds = |count: usize, cap: usize| cap == 0 || count < cap;
        let mut counts = self.counts.lock();
        let is_stranger = matches!(what, What::Connection | What::Proxy);
        if is_stranger && !holds(counts.strangers, self.caps.strangers) {
            return false;
        }
        if self.counts_by_ip(what) {
            let of_ip = counts.by_ip.get(&network(ip)).copied().unwrap_or_default();
            if !holds(of_ip.all, self.caps.per_ip)
                || !holds(of_ip.strangers, self.caps.strangers_per_ip)
            {
                return false;
            }
            let of_ip = counts.by_ip.entry(network(ip)).or_default();
            of_ip.all += 1;
            of_ip.strangers += 1;
        }
        counts.strangers += usize::from(is_stranger);
        true
    }

    fn counts_by_ip(&self, what: What) -> bool {
        let is_capped = self.caps.per_ip > 0 || self.caps.strangers_per_ip > 0;
        is_capped && matches!(what, What::Connection | What::Socket | What::Request)
    }

    /// A session of this subject begins, of which there may be `max`; `None` where there are as many.
    pub fn stay(self: &Arc<Self>, subject: &str, max: usize) -> Option<Stay> {
        let mut sessions = self.sessions.lock();
        let count = sessions.entry(subject.to_owned()).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Stay { guests: self.clone(), subject: subject.to_owned() })
    }
}

impl Guest {
    /// Where it comes from.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// A request has come, whoever it is of.
    ///
    /// # Errors
    /// `rate_limited`: too many a second come from there.
    pub fn asks(&self) -> Result<(), WireError> {
        self.guests.limiter.take_request_of_ip(self.ip)
    }

    /// A session has begun: it is no stranger's any more.
    pub fn let_in(&self) {
        if !self.is_inside.swap(true, Ordering::Relaxed) {
            self.leave_strangers();
        }
        if let Some(through) = &self.through {
            through.let_in();
        }
    }

    /// What comes through this connection of a proxy from there. It counts as a connection does, a request as long as it
    /// is under way: a stream, or a read that waits, has a place like any other.
    ///
    /// # Errors
    /// See [`Turned`].
    pub fn bring(self: &Arc<Self>, ip: IpAddr, is_socket: bool) -> Result<Arc<Guest>, Turned> {
        let counts = if is_socket { What::Socket } else { What::Request };
        self.guests.guest(ip, counts, Some(self.clone()))
    }

    fn leave_strangers(&self) {
        let mut counts = self.guests.counts.lock();
        if matches!(self.counts, What::Connection | What::Proxy) {
            counts.strangers = counts.strangers.saturating_sub(1);
        }
        if self.guests.counts_by_ip(self.counts)
            && let Some(of_ip) = counts.by_ip.get_mut(&network(self.ip))
        {
            of_ip.strangers = of_ip.strangers.saturating_sub(1);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if !self.is_inside.load(Ordering::Relaxed) {
            self.leave_strangers();
        }
        if !self.guests.counts_by_ip(self.counts) {
            return;
        }
        let mut counts = self.guests.counts.lock();
        let network = network(self.ip);
        if let Some(of_ip) = counts.by_ip.get_mut(&network) {
            of_ip.all = of_ip.all.saturating_sub(1);
            if of_ip.all == 0 {
                counts.by_ip.remove(&network);
            }
        }
    }
}

/// A session that is counted. Gone when it is dropped.
pub struct Stay {
    guests: Arc<Guests>,
    subject: String,
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut sessions = self.guests.sessions.lock();
        if let Some(count) = sessions.get_mut(&self.subject) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                sessions.remove(&self.subject);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::rates::{Options, Rate};

    fn guests(caps: Caps) -> Arc<Guests> {
        Guests::new(caps, Limiter::new(Options::default()))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn s5_strangers_have_a_cap_that_those_inside_do_not_count_for() {
        let guests = guests(Caps { strangers: 2, ..Caps::default() });
        let one = guests.admit(ip("10.0.0.1"), false).unwrap();
        let other = guests.admit(ip("10.0.0.2"), true).unwrap();
        assert_eq!(guests.admit(ip("10.0.0.3"), false).err(), Some(Turned::Full));
        one.let_in();
        one.let_in();
        let third = guests.admit(ip("10.0.0.3"), false).unwrap();
        assert!(guests.admit(ip("10.0.0.4"), false).is_err(), "let in once, however often");
        drop((one, other, third));
        assert_eq!(guests.counts.lock().strangers, 0);
        assert!(guests.counts.lock().by_ip.is_empty());
    }

    #[test]
    fn s5_an_address_has_caps_of_its_own() {
        let guests = guests(Caps { per_ip: 3, strangers_per_ip: 2, strangers: 0 });
        let admit = |text: &str| guests.admit(ip(text), false);
        let (one, two) = (admit("10.0.0.1").unwrap(), admit("10.0.0.1").unwrap());
        assert!(admit("10.0.0.1").is_err() && admit("10.0.0.2").is_ok());
        one.let_in();
        let three = admit("10.0.0.1").unwrap();
        two.let_in();
        three.let_in();
        assert!(admit("10.0.0.1").is_err(), "three, of whom none is a stranger");
        drop(two);
        assert!(admit("10.0.0.1").is_ok());
        drop((one, three));
        assert!(guests.counts.lock().by_ip.is_empty(), "nothing is kept of who has gone");
    }

    #[test]
    fn what_comes_through_a_proxy_counts_by_its_own_address() {
        let guests = guests(Caps { per_ip: 1, ..Caps::default() });
        let proxies = [(); 3].map(|()| guests.admit(ip("10.0.0.1"), true).unwrap());
        let socket = proxies[0].bring(ip("192.0.2.1"), true).unwrap();
        assert!(proxies[1].bring(ip("192.0.2.1"), true).is_err());
        assert!(proxies[1].bring(ip("192.0.2.1"), false).is_err(), "a stream would have a place");
        let request = proxies[1].bring(ip("192.0.2.2"), false).unwrap();
        assert!(proxies[1].bring(ip("192.0.2.2"), true).is_err());
        drop(request);
        assert!(proxies[1].bring(ip("192.0.2.2"), true).is_ok());
        socket.let_in();
        assert!(proxies[0].is_inside.load(Ordering::Relaxed));
        assert_eq!(guests.counts.lock().strangers, 2);
        drop(socket);
        assert!(proxies[1].bring(ip("192.0.2.1"), true).is_ok());
    }

    #[test]
    fn who_comes_too_fast_is_told_when_to_come() {
        crate::clock::held::set(Some(1000));
        let mut options = Options::default();
        options.ip.set(Kind::Connects, Some(Rate { per_second: 1, burst: 2 }));
        let guests = Guests::new(Caps::default(), Limiter::new(options));
        let come = || guests.admit(ip("10.0.0.1"), false);
        assert!(come().is_ok() && come().is_ok());
        let Err(Turned::Fast(wait)) = come() else { panic!("it is let in") };
        assert_eq!(wait.ms(), 1000);
        assert!(guests.admit(ip("10.0.0.1"), true).is_ok(), "a proxy comes for many");
        crate::clock::held::set(None);
    }

    #[test]
    fn a_subject_has_as_many_sessions_as_its_token_says() {
        let guests = guests(Caps::default());
        let one = guests.stay("alice", 2).unwrap();
        let _two = guests.stay("alice", 2).unwrap();
        assert!(guests.stay("alice", 2).is_none() && guests.stay("bob", 1).is_some());
        drop(one);
        assert!(guests.stay("alice", 2).is_some());
        assert!(!guests.sessions.lock().contains_key("bob"));
    }
}
