//! How often something may be done: by an address, a subject, a session.
//!
//! - A [`Rate`] is a token bucket: in any time t at most `per_second` × t + `burst` is allowed.
//! - Over it the answer is `rate_limited` and says when to come again. Who goes on all the same, [`BEYOND_REASON`]
//!   times in a row, is to be cut off.
//! - A rate that is not set costs nothing. What is kept of addresses and subjects has a fixed size, see [`table`].
//! - The subject `anonymous` is no one's and has no limits of its own: its addresses and sessions do.

mod bucket;
pub mod table;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use tidings_proto::{Code, WireError};

use self::table::{Key, Table};
use crate::{auth::Identity, clock, metrics};

/// How many refusals in a row are beyond reason: more than a client has under way before it can have read the first.
pub const BEYOND_REASON: u32 = 10_000;
/// How many kinds there are.
const KINDS: usize = 10;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connections, and sessions of a subject.
    Connects,
    /// Tokens that do not hold.
    FailedAuth,
    /// HTTP requests, and messages of a socket that are no publishes.
    Requests,
    /// Events published.
    Publishes,
    /// Bytes of their data.
    Bytes,
    /// Subscribes.
    Subscribes,
    /// Acks and nacks.
    Acks,
    /// Bytes of events that are sent again, or to who was not there.
    ReplayBytes,
    /// Pings and pongs of a socket.
    Controls,
    /// Events published, as the token of a subject bounds them.
    Granted,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; KINDS] = [
        Kind::Connects,
        Kind::FailedAuth,
        Kind::Requests,
        Kind::Publishes,
        Kind::Bytes,
        Kind::Subscribes,
        Kind::Acks,
        Kind::ReplayBytes,
        Kind::Controls,
        Kind::Granted,
    ];

    /// Its name in settings and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Connects => "connects",
            Kind::FailedAuth => "failed_auth",
            Kind::Requests => "requests",
            Kind::Publishes | Kind::Granted => "publishes",
            Kind::Bytes => "bytes",
            Kind::Subscribes => "subscribes",
            Kind::Acks => "acks",
            Kind::ReplayBytes => "replay_bytes",
            Kind::Controls => "controls",
        }
    }

    /// Whether it counts bytes.
    pub const fn is_bytes(self) -> bool {
        matches!(self, Kind::Bytes | Kind::ReplayBytes)
    }
}

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// An address; of IPv6 the first 64 bits.
    Ip,
    /// A subject.
    Subject,
    /// A session.
    Session,
}

impl Scope {
    /// Its name in settings and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Ip => "ip",
            Scope::Subject => "subject",
            Scope::Session => "session",
        }
    }

    /// What can be counted of it.
    pub const fn kinds(self) -> &'static [Kind] {
        match self {
            Scope::Ip => &[
                Kind::Connects,
                Kind::FailedAuth,
                Kind::Requests,
                Kind::Publishes,
                Kind::Bytes,
                Kind::Subscribes,
                Kind::Acks,
                Kind::ReplayBytes,
            ],
            Scope::Subject => &[
                Kind::Connects,
                Kind::Requests,
                Kind::Publishes,
                Kind::Bytes,
                Kind::Subscribes,
                Kind::Acks,
                Kind::ReplayBytes,
            ],
            Scope::Session => &[
                Kind::Requests,
                Kind::Publishes,
                Kind::Bytes,
                Kind::Subscribes,
                Kind::Acks,
                Kind::ReplayBytes,
                Kind::Controls,
            ],
        }
    }
}

/// A token bucket's size and what flows into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What flows in each second.
    pub per_second: u64,
    /// What it holds.
    pub burst: u64,
}

/// A rate for each kind that has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates([Option<Rate>; KINDS]);

impl Rates {
    /// The rate of a kind.
    pub fn get(&self, kind: Kind) -> Option<Rate> {
        self.0.get(kind as usize).copied().flatten()
    }

    /// Sets the rate of a kind.
    pub fn set(&mut self, kind: Kind, rate: Option<Rate>) {
        if let Some(place) = self.0.get_mut(kind as usize) {
            *place = rate;
        }
    }

    /// Whether no kind has one.
    pub fn is_off(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

/// The rates of every scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Of one address.
    pub ip: Rates,
    /// Of one subject.
    pub subject: Rates,
    /// Of one session.
    pub session: Rates,
}

/// How long until there is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// In nanoseconds.
    pub(super) ns: u64,
}

impl Wait {
    /// In milliseconds, rounded up.
    pub fn ms(self) -> u64 {
        self.ns.div_ceil(1_000_000)
    }
}

/// The limits of a house, and what has been taken of them.
pub struct Limiter {
    options: Options,
    is_off: bool,
    ips: Table,
    subjects: Table,
}

impl Limiter {
    /// With these rates; nothing has been taken.
    pub fn new(options: Options) -> Arc<Limiter> {
        let rates = [options.ip, options.subject, options.session];
        Arc::new(Limiter {
            is_off: rates.iter().all(Rates::is_off),
            options,
            ips: Table::new(),
            subjects: Table::new(),
        })
    }

    /// Takes one of an address.
    ///
    /// # Errors
    /// How long to wait.
    pub fn take_of_ip(&self, ip: IpAddr, kind: Kind) -> Result<(), Wait> {
        let Some(rate) = self.options.ip.get(kind) else { return Ok(()) };
        let taken = self.ips.take(self.ips.key(network(ip)), kind, rate, now_ns(), 1);
        taken.inspect_err(|_| metrics::rate_limited(Scope::Ip.as_str(), kind.as_str()))
    }

    /// Takes a request of an address when it comes, before it is known whose it is.
    ///
    /// # Errors
    /// `rate_limited`, with when to come again.
    pub fn take_request_of_ip(&self, ip: IpAddr) -> Result<(), WireError> {
        let kind = Kind::Requests;
        let Some(rate) = self.options.ip.get(kind) else { return Ok(()) };
        self.take_of_ip(ip, kind).map_err(|wait| too_fast(Scope::Ip, kind, rate, wait))
    }
}

/// What one session has taken.
pub struct Meter {
    limiter: Arc<Limiter>,
    ip: Option<Key>,
    subject: Option<Key>,
    /// When each of its buckets will be full; made when one is needed.
    own: Option<Box<[AtomicU64; KINDS]>>,
    refused_in_a_row: AtomicU32,
    /// The kind of the last refusal.
    last_refused: AtomicU32,
}

/// What a token lets its subject publish.
#[derive(Clone, Copy, Debug)]
pub struct Granted(Key, Rate);

impl Granted {
    /// As the token of this identity says: a second's worth at once.
    pub fn of(limiter: &Limiter, identity: &Identity) -> Option<Granted> {
        let per_second = u64::from(identity.limits.publish_per_second?.get());
        let rate = Rate { per_second, burst: per_second };
        Some(Granted(limiter.subjects.key(&identity.subject), rate))
    }
}

/// One bucket of those that something is taken of.
#[derive(Clone, Copy)]
struct Bucket<'a> {
    scope: Scope,
    kind: Kind,
    rate: Rate,
    of: Of<'a>,
    /// It was taken of before, when the request came.
    is_taken: bool,
}

/// Where a bucket is.
#[derive(Clone, Copy)]
enum Of<'a> {
    /// With the session. One task speaks for it at a time.
    Session(&'a AtomicU64),
    /// In a table.
    Table(&'a Table, Key),
}

impl Bucket<'_> {
    fn take(&self, now_ns: u64, cost: u64) -> Result<(), Wait> {
        match self.of {
            _ if self.is_taken => Ok(()),
            Of::Session(full) => {
                let taken = bucket::take(self.rate, full.load(Ordering::Relaxed), now_ns, cost)?;
                full.store(taken, Ordering::Relaxed);
                Ok(())
            }
            Of::Table(table, key) => table.take(key, self.kind, self.rate, now_ns, cost),
        }
    }

    fn charge(&self, now_ns: u64, cost: u64) {
        match self.of {
            Of::Session(full) => {
                let charged = bucket::charge(self.rate, full.load(Ordering::Relaxed), now_ns, cost);
                full.store(charged, Ordering::Relaxed);
            }
            Of::Table(table, key) => table.charge(key, self.kind, self.rate, now_ns, cost),
        }
    }

    fn give_back(&self, cost: u64) {
        match self.of {
            Of::Session(full) => {
                let left = bucket::give_back(self.rate, full.load(Ordering::Relaxed), cost);
                full.store(left, Ordering::Relaxed);
            }
            Of::Table(table, key) => table.give_back(key, self.kind, self.rate, cost),
        }
    }
}

impl Meter {
    /// Of a session from this address.
    pub fn new(limiter: &Arc<Limiter>, ip: IpAddr, identity: &Identity) -> Meter {
        let Options { ip: of_ip, subject: of_subject, session } = &limiter.options;
        let subject = identity.name().filter(|_| !of_subject.is_off());
        Meter {
            ip: (!of_ip.is_off()).then(|| limiter.ips.key(network(ip))),
            subject: subject.map(|subject| limiter.subjects.key(subject)),
            own: (!session.is_off()).then(Box::default),
            refused_in_a_row: AtomicU32::new(0),
            last_refused: AtomicU32::new(0),
            limiter: limiter.clone(),
        }
    }

    /// Takes `cost`, of every bucket there is for it or of none.
    ///
    /// # Errors
    /// `rate_limited`, with when to come again.
    pub fn take(&self, kind: Kind, cost: u64) -> Result<(), WireError> {
        self.take_granted(kind, cost, None)
    }

    /// The same with what the token of now says.
    ///
    /// # Errors
    /// As [`Meter::take`].
    pub fn take_granted(
        &self,
        kind: Kind,
        cost: u64,
        granted: Option<Granted>,
    ) -> Result<(), WireError> {
        if self.limiter.is_off && granted.is_none() {
            return Ok(());
        }
        self.take_of(&self.buckets(kind, granted), kind, cost)
    }

    /// Takes a request whose address has [given](Limiter::take_request_of_ip) its share when it came: it has that back where
    /// the request is refused.
    ///
    /// # Errors
    /// As [`Meter::take`].
    pub fn take_request(&self) -> Result<(), WireError> {
        let mut buckets = self.buckets(Kind::Requests, None);
        let of_ip = buckets.iter_mut().flatten().filter(|bucket| bucket.scope == Scope::Ip);
        of_ip.for_each(|bucket| bucket.is_taken = true);
        self.take_of(&buckets, Kind::Requests, 1)
    }

    fn take_of(
        &self,
        buckets: &[Option<Bucket<'_>>; 4],
        kind: Kind,
        cost: u64,
    ) -> Result<(), WireError> {
        let refused = match refused(buckets, cost) {
            Some(refused) => refused,
            None => {
                self.refused_in_a_row.store(0, Ordering::Relaxed);
                return Ok(());
            }
        };
        self.refused_in_a_row.fetch_add(1, Ordering::Relaxed);
        self.last_refused.store(kind as u32, Ordering::Relaxed);
        let (scope, rate, wait) = refused;
        metrics::rate_limited(scope.as_str(), kind.as_str());
        Err(too_fast(scope, kind, rate, wait))
    }

    /// Gives back what [`Meter::take_granted`] took, and for which nothing was done.
    pub fn give_back(&self, kind: Kind, cost: u64, granted: Option<Granted>) {
        self.buckets(kind, granted).iter().flatten().for_each(|bucket| bucket.give_back(cost));
    }

    /// Takes `cost` whether it is there or not.
    pub fn charge(&self, kind: Kind, cost: u64) {
        if self.limiter.is_off || cost == 0 {
            return;
        }
        let now_ns = now_ns();
        self.buckets(kind, None).iter().flatten().for_each(|bucket| bucket.charge(now_ns, cost));
    }

    /// What it goes on and on with though it is refused, where it does.
    pub fn beyond_reason(&self) -> Option<Kind> {
        let is_beyond = self.refused_in_a_row.load(Ordering::Relaxed) >= BEYOND_REASON;
        let kind = usize::try_from(self.last_refused.load(Ordering::Relaxed)).ok()?;
        Kind::ALL.get(kind).copied().filter(|_| is_beyond)
    }

    /// Those that something of this kind is taken of.
    fn buckets(&self, kind: Kind, granted: Option<Granted>) -> [Option<Bucket<'_>>; 4] {
        let Limiter { options, ips, subjects, .. } = &*self.limiter;
        let bucket = |scope, kind, rate: Option<Rate>, of: Option<_>| {
            rate.zip(of).map(|(rate, of)| Bucket { scope, kind, rate, of, is_taken: false })
        };
        let granted = granted.filter(|_| kind == Kind::Publishes);
        let of_token = granted.map(|Granted(key, _)| Of::Table(subjects, key));
        let own = self.own.as_ref().and_then(|own| own.get(kind as usize)).map(Of::Session);
        let of_subject = self.subject.map(|key| Of::Table(subjects, key));
        // A connection has taken its own when it came.
        let of_ip = self.ip.filter(|_| kind != Kind::Connects).map(|key| Of::Table(ips, key));
        [
            bucket(Scope::Subject, Kind::Granted, granted.map(|Granted(_, rate)| rate), of_token),
            bucket(Scope::Session, kind, options.session.get(kind), own),
            bucket(Scope::Subject, kind, options.subject.get(kind), of_subject),
            bucket(Scope::Ip, kind, options.ip.get(kind), of_ip),
        ]
    }
}

/// Takes of all, or of none: then whose limit it was.
fn refused(buckets: &[Option<Bucket<'_>>; 4], cost: u64) -> Option<(Scope, Rate, Wait)> {
    if buckets.iter().all(Option::is_none) {
        return None;
    }
    let now_ns = now_ns();
    for (at, bucket) in buckets.iter().flatten().enumerate() {
        if let Err(wait) = bucket.take(now_ns, cost) {
            // Who is refused has taken nothing of the others.
            let taken = buckets.iter().flatten().enumerate();
            let taken = taken.filter(|(n, bucket)| *n < at || bucket.is_taken);
            taken.for_each(|(_, bucket)| bucket.give_back(cost));
            return Some((bucket.scope, bucket.rate, wait));
        }
    }
    None
}

fn too_fast(scope: Scope, kind: Kind, rate: Rate, wait: Wait) -> WireError {
    let (scope, kind) = (scope.as_str(), kind.as_str());
    let text =
        format!("{kind}: more than {} a second, as much as this {scope} may", rate.per_second);
    WireError::new(Code::RateLimited, text).retry_after_ms(wait.ms())
}

/// What of an address is one: all of IPv4, of IPv6 what a customer is given at least.
pub fn network(ip: IpAddr) -> [u8; 8] {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            // No network of IPv6 begins so: 0::/64 is the loopback's, and that is at its end.
            [0, 0, 0, 0, a, b, c, d]
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, g, h, ..] = ip.octets();
            [a, b, c, d, e, f, g, h]
        }
    }
}

fn now_ns() -> u64 {
    u64::try_from(clock::monotonic().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        auth::{Credential, Grants, TokenLimits},
        clock::held,
    };

    fn limiter(scope: Scope, kind: Kind, rate: Rate) -> Arc<Limiter> {
        let mut options = Options::default();
        let rates = match scope {
            Scope::Ip => &mut options.ip,
            Scope::Subject => &mut options.subject,
            Scope::Session => &mut options.session,
        };
        rates.set(kind, Some(rate));
        Limiter::new(options)
    }

    const RATE: Rate = Rate { per_second: 2, burst: 3 };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn identity(subject: &str) -> Identity {
        Identity {
            subject: subject.to_owned(),
            grants: Grants::everything(),
            limits: TokenLimits::default(),
            expires: None,
            credential: Credential::None,
        }
    }

    #[test]
    fn s7_each_scope_is_limited_by_itself_and_told_when_to_come_again() {
        held::set(Some(1000));
        for (scope, same, other) in [
            (Scope::Ip, ("10.0.0.1", "bob"), ("10.0.0.2", "alice")),
            (Scope::Subject, ("10.0.0.2", "alice"), ("10.0.0.1", "bob")),
        ] {
            let limiter = limiter(scope, Kind::Publishes, RATE);
            let alice = Meter::new(&limiter, ip("10.0.0.1"), &identity("alice"));
            for _ in 0..3 {
                alice.take(Kind::Publishes, 1).unwrap();
            }
            let error = alice.take(Kind::Publishes, 1).unwrap_err();
            assert_eq!((error.code, error.retry_after_ms), (Code::RateLimited, Some(500)));
            assert!(error.retryable && error.message.contains(scope.as_str()), "{error}");
            alice.take(Kind::Acks, 1_000_000).unwrap();
            let of = |who: (&str, &str)| Meter::new(&limiter, ip(who.0), &identity(who.1));
            assert!(of(same).take(Kind::Publishes, 1).is_err(), "{scope:?}");
            assert!(of(other).take(Kind::Publishes, 1).is_ok(), "{scope:?}");
            held::set(Some(1500));
            alice.take(Kind::Publishes, 1).unwrap();
            held::set(Some(1000));
        }
        let limiter = limiter(Scope::Session, Kind::Publishes, RATE);
        let [one, other] = [(); 2].map(|()| Meter::new(&limiter, ip("::1"), &identity("alice")));
        assert!((0..4).map(|_| one.take(Kind::Publishes, 1)).any(|taken| taken.is_err()));
        other.take(Kind::Publishes, 1).unwrap();
        held::set(None);
    }

    #[test]
    fn everybody_who_is_nobody_is_not_one() {
        let limiter = limiter(Scope::Subject, Kind::Publishes, RATE);
        let nobody = Meter::new(&limiter, ip("::1"), &identity(crate::auth::ANONYMOUS));
        assert!((0..100).all(|_| nobody.take(Kind::Publishes, 1).is_ok()));
    }

    #[test]
    fn who_goes_on_and_on_is_beyond_reason_and_who_waits_is_not() {
        held::set(Some(1000));
        let limiter = limiter(Scope::Session, Kind::Acks, RATE);
        let meter = Meter::new(&limiter, ip("::1"), &identity("alice"));
        let insist = |times: u32| (0..times).for_each(|_| drop(meter.take(Kind::Acks, 1)));
        insist(BEYOND_REASON);
        assert_eq!(meter.beyond_reason(), None, "the first three were allowed");
        insist(3);
        assert_eq!(meter.beyond_reason(), Some(Kind::Acks));
        held::set(Some(2000));
        meter.take(Kind::Acks, 1).unwrap();
        assert_eq!(meter.beyond_reason(), None);
        held::set(None);
    }

    #[test]
    fn s7_what_is_refused_to_a_subject_takes_nothing_of_its_address() {
        held::set(Some(1000));
        let mut options = Options::default();
        options.ip.set(Kind::Requests, Some(RATE));
        options.subject.set(Kind::Requests, Some(Rate { per_second: 1, burst: 1 }));
        let limiter = Limiter::new(options);
        let here = ip("10.0.0.1");
        let ask = |subject| {
            limiter.take_request_of_ip(here)?;
            Meter::new(&limiter, here, &identity(subject)).take_request()
        };
        ask("alice").unwrap();
        for _ in 0..10 {
            let error = ask("alice").unwrap_err();
            assert!(error.message.contains("subject"), "{error}");
        }
        ask("bob").unwrap();
        ask("carol").unwrap();
        let error = ask("dave").unwrap_err();
        assert!(error.message.contains("this ip"), "{error}");
        held::set(None);
    }

    #[test]
    fn what_is_charged_is_owed() {
        held::set(Some(1000));
        let limiter =
            limiter(Scope::Subject, Kind::ReplayBytes, Rate { per_second: 10, burst: 20 });
        let meter = Meter::new(&limiter, ip("::1"), &identity("alice"));
        meter.charge(Kind::ReplayBytes, 120);
        let error = meter.take(Kind::ReplayBytes, 1).unwrap_err();
        assert_eq!(error.retry_after_ms, Some(10_100));
        held::set(Some(11_100));
        meter.take(Kind::ReplayBytes, 1).unwrap();
        held::set(None);
    }

    #[test]
    fn s7_a_token_bounds_what_its_subject_publishes() {
        held::set(Some(1000));
        let limiter = Limiter::new(Options::default());
        let mut bounded = identity("alice");
        bounded.limits.publish_per_second = std::num::NonZeroU32::new(2);
        let [one, other] = [(); 2].map(|()| Meter::new(&limiter, ip("::1"), &bounded));
        let granted = Granted::of(&limiter, &bounded);
        let publish = |meter: &Meter, granted| meter.take_granted(Kind::Publishes, 1, granted);
        publish(&one, granted).unwrap();
        publish(&other, granted).unwrap();
        assert_eq!(publish(&one, granted).unwrap_err().retry_after_ms, Some(500));
        one.take_granted(Kind::Acks, 100, granted).unwrap();
        other.take_granted(Kind::Publishes, 100, None).unwrap();
        held::set(None);
    }

    #[test]
    fn who_is_refused_has_taken_nothing_of_what_there_was() {
        held::set(Some(1000));
        let mut options = Options::default();
        options.session.set(Kind::Acks, Some(RATE));
        options.subject.set(Kind::Acks, Some(RATE));
        options.ip.set(Kind::Acks, Some(Rate { per_second: 1, burst: 1 }));
        let limiter = Limiter::new(options);
        let here = Meter::new(&limiter, ip("10.0.0.1"), &identity("alice"));
        here.take(Kind::Acks, 1).unwrap();
        for _ in 0..100 {
            let error = here.take(Kind::Acks, 1).unwrap_err();
            assert!(error.message.contains("this ip"), "{}", error.message);
        }
        let there = Meter::new(&limiter, ip("10.0.0.2"), &identity("alice"));
        there.take(Kind::Acks, 1).expect("alice has two left");
        there.give_back(Kind::Acks, 1, None);
        there.take(Kind::Acks, 1).unwrap();
        held::set(None);
    }

    #[test]
    fn an_address_counts_by_its_network() {
        assert_eq!(network(ip("::ffff:10.0.0.1")), network(ip("10.0.0.1")));
        assert_eq!(network(ip("2001:db8::1")), network(ip("2001:db8::2:3:4:5")));
        assert_ne!(network(ip("2001:db8:0:1::1")), network(ip("2001:db8::1")));
        assert_ne!(network(ip("10.0.0.1")), network(ip("10.0.0.2")));
    }
}
