//! Who is to be woken for which topic.
//!
//! - A trie of tokens, one kind of node for `*` and one for `>`; a subscription's entry stays in it as long
//!   as the subscription lives.
//! - An entry is *armed* while its subscription is caught up; a wake disarms it. A subscription that lags is
//!   not armed and costs nothing per event.
//! - The pump ([`Interest::announce`]) first raises `until`, then looks at the entries. A subscription arms
//!   first and looks at `until` then. So one of the two always sees the other: no wake-up is lost.
//! - An entry that is armed *quietly* waits for more: matches are counted down and wake it when there are
//!   enough, or when one is urgent. Such a wake says nothing of what came before it.
//! - A wake says at which offset the first match is: everything before it does not match. That holds only
//!   for a wake out of the armed state: one that crosses an arm that fails may have missed earlier matches.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;
use tidings_proto::{Cursor, Filters, Offset, Priority};
use tokio::sync::Notify;

use crate::log::Stored;

/// The subscriptions of one session that have something to do. Bounded by their number: one is in it once.
#[derive(Debug, Default)]
pub struct Ready {
    queue: Mutex<Queue>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<u32>,
    /// What is in `order`, where that is too many to look through.
    #[expect(clippy::box_collection, reason = "most have none, and a set takes 48 bytes of each")]
    members: Option<Box<HashSet<u32>>>,
}

/// How many are looked through: as quick as a set, and an idle socket keeps none.
const FEW: usize = 32;

impl Queue {
    /// Puts it in where it is not.
    fn push(&mut self, subscription: u32) {
        let is_new = match &mut self.members {
            Some(members) => members.insert(subscription),
            None => !self.order.contains(&subscription),
        };
        if is_new {
            self.order.push_back(subscription);
            if self.members.is_none() && self.order.len() > FEW {
                self.members = Some(Box::new(self.order.iter().copied().collect()));
            }
        }
    }

    fn pop(&mut self) -> Option<u32> {
        let subscription = self.order.pop_front()?;
        self.members.as_mut().map(|members| members.remove(&subscription));
        if self.order.is_empty() {
            self.members = None;
        }
        Some(subscription)
    }
}

impl Ready {
    /// Nothing to do yet.
    pub fn new() -> Arc<Ready> {
        Arc::new(Ready::default())
    }

    /// Says that the subscription with this number has something to do.
    pub fn push(&self, subscription: u32) {
        self.queue.lock().push(subscription);
        // Also for one that is in it: who waits does not always pop.
        self.notify.notify_one();
    }

    /// The next subscription that has something to do. From here on a push puts it in again: what happens
    /// while it is looked at is not lost.
    pub fn pop(&self) -> Option<u32> {
        self.queue.lock().pop()
    }

    /// Waits until there may be one.
    pub async fn wait(&self) {
        self.notify.notified().await;
    }

    /// Wakes whoever waits, for a reason of its own.
    pub fn notify(&self) {
        self.notify.notify_one();
    }
}

/// One subscription's place in the trie.
#[derive(Debug)]
pub struct Entry {
    armed: AtomicBool,
    first_match: AtomicU64,
    /// How much more it waits for; no events: the first match wakes.
    events_left: AtomicU32,
    bytes_left: AtomicU32,
    ready: Arc<Ready>,
    subscription: u32,
}

/// How much more a subscription waits for before it is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Enough {
    /// So many matches.
    pub(super) events: u32,
    /// Or so many bytes of them.
    pub(super) bytes: u32,
}

/// An event as far as it matters who is woken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announced {
    /// Its place.
    pub(super) offset: Offset,
    /// Whether nobody should wait for more.
    pub(super) is_urgent: bool,
    /// What it adds to a batch.
    pub(super) bytes: u32,
}

impl Announced {
    /// What matters of this event.
    pub(super) fn of(event: &Stored) -> Announced {
        Announced {
            offset: event.offset(),
            is_urgent: event.priority() == Priority::Urgent,
            bytes: u32::try_from(event.batch_bytes()).unwrap_or(u32::MAX),
        }
    }
}

impl Entry {
    /// Says so to the session: something other than an event has happened.
    pub fn wake(&self) {
        self.ready.push(self.subscription);
    }

    fn matched(&self, event: Announced) {
        // Loaded first: a swap takes the cache line from every other thread, for entries that lag too. An arm
        // that this load does not see comes after it, and so after `until` was raised: the arm sees that.
        if !self.armed.load(Ordering::SeqCst) || self.waits_on(event) {
            return;
        }
        if self.armed.swap(false, Ordering::SeqCst) {
            self.first_match.store(event.offset.get(), Ordering::SeqCst);
            crate::metrics::woken();
            self.ready.push(self.subscription);
        }
    }

    /// Whether it is armed quietly and this is not enough yet. The pump alone counts down; a count that
    /// crosses an arm wakes too early at worst, and the subscription looks for itself.
    fn waits_on(&self, event: Announced) -> bool {
        if event.is_urgent || self.events_left.load(Ordering::SeqCst) == 0 {
            return false;
        }
        // Never below zero: an arm that is not quiet may have come meanwhile.
        let less = |left: &AtomicU32, n: u32| {
            let order = Ordering::SeqCst;
            let before = left.fetch_update(order, order, |left| Some(left.saturating_sub(n)));
            before.unwrap_or(0) > n
        };
        let (events, bytes) = (less(&self.events_left, 1), less(&self.bytes_left, event.bytes));
        events && bytes
    }
}

/// Everybody's interest.
#[derive(Debug, Default)]
pub(super) struct Interest {
    root: RwLock<Node>,
    /// Entries have been looked at, or are being looked at, for all events up to here.
    until: AtomicU64,
    /// Entries have been looked at for all events up to here.
    done: AtomicU64,
}

/// Small where nothing but one entry ends: with a topic for each user there are as many nodes as users.
#[derive(Debug, Default)]
struct Node {
    here: SmallVec<[Arc<Entry>; 1]>,
    more: Option<Box<Branches>>,
}

/// What goes on behind a node.
#[derive(Debug, Default)]
struct Branches {
    children: HashMap<Box<str>, Node>,
    star: Node,
    rest: Vec<Arc<Entry>>,
}

/// A subscription's registration; dropping it takes the entry out of the trie.
#[derive(Debug)]
pub(super) struct Registration {
    interest: Arc<Interest>,
    filters: Filters,
    entry: Arc<Entry>,
    /// The last arm succeeded, and its wake has not been asked for.
    was_armed: AtomicBool,
}

impl Interest {
    /// Nobody's interest; events up to `committed` are nobody's business any more.
    pub(super) fn new(committed: Cursor) -> Arc<Interest> {
        let interest = Interest::default();
        interest.until.store(committed.get(), Ordering::SeqCst);
        interest.done.store(committed.get(), Ordering::SeqCst);
        Arc::new(interest)
    }

    /// Registers a subscription, not armed.
    pub(super) fn register(
        self: &Arc<Self>,
        filters: &Filters,
        ready: Arc<Ready>,
        subscription: u32,
    ) -> Registration {
        let entry = Arc::new(Entry {
            armed: AtomicBool::new(false),
            first_match: AtomicU64::new(0),
            events_left: AtomicU32::new(0),
            bytes_left: AtomicU32::new(0),
            ready,
            subscription,
        });
        let mut root = self.root.write();
        for filter in filters {
            root.insert(filter.as_str().split('.'), &entry);
        }
        drop(root);
        let was_armed = AtomicBool::new(false);
        Registration { interest: self.clone(), filters: filters.clone(), entry, was_armed }
    }

    /// Begins to announce the events up to `until`; call [`Announcement::event`] for each and then drop it.
    pub(super) fn announce(&self, until: Cursor) -> Announcement<'_> {
        self.until.fetch_max(until.get(), Ordering::SeqCst);
        Announcement { interest: self, until }
    }

    /// Everything up to here has been announced.
    pub(super) fn done(&self) -> Cursor {
        Cursor::new(self.done.load(Ordering::SeqCst))
    }
}

/// The pump's turn.
#[derive(Debug)]
pub(super) struct Announcement<'a> {
    interest: &'a Interest,
    until: Cursor,
}

impl Announcement<'_> {
    /// Wakes the armed subscriptions that match.
    pub(super) fn event(&self, topic: &str, event: Announced) {
        self.interest.root.read().visit(topic.split('.'), true, &mut |entry| entry.matched(event));
    }

    /// Wakes everybody: the events are no longer in memory, let each read for itself.
    pub(super) fn everybody(&self, from: Offset) {
        // Nobody has counted: who waits for more has to look.
        let event = Announced { offset: from, is_urgent: true, bytes: 0 };
        self.interest.root.read().visit_all(&mut |entry| entry.matched(event));
    }
}

impl Drop for Announcement<'_> {
    fn drop(&mut self) {
        self.interest.done.fetch_max(self.until.get(), Ordering::SeqCst);
    }
}

impl Registration {
    /// Arms the entry for everything after `cursor`; false when there may be more already: read again.
    pub(super) fn arm(&self, cursor: Cursor) -> bool {
        let is_armed = self.arm_for(cursor, Enough { events: 0, bytes: 0 });
        self.was_armed.store(is_armed, Ordering::Relaxed);
        is_armed
    }

    /// The same, but what matches does not wake before there is `enough` of it or one is urgent.
    pub(super) fn arm_quietly(&self, cursor: Cursor, enough: Enough) -> bool {
        // What matches meanwhile is passed over: no wake says where the first match is.
        self.was_armed.store(false, Ordering::Relaxed);
        self.arm_for(cursor, enough)
    }

    fn arm_for(&self, cursor: Cursor, enough: Enough) -> bool {
        #[cfg(test)]
        before_arming::run();
        // Counts first: an arm that is seen has them.
        self.entry.bytes_left.store(enough.bytes, Ordering::SeqCst);
        self.entry.events_left.store(enough.events, Ordering::SeqCst);
        self.entry.armed.store(true, Ordering::SeqCst);
        let is_armed = self.interest.until.load(Ordering::SeqCst) <= cursor.get();
        if !is_armed {
            self.entry.armed.store(false, Ordering::SeqCst);
        }
        is_armed
    }

    /// After a wake: everything before the first match may be passed over. `None` when there was no
    /// match, or one that came before the entry was really armed.
    pub(super) fn take_first_match(&self) -> Option<Offset> {
        let first = Offset::new(self.entry.first_match.swap(0, Ordering::SeqCst));
        if self.entry.armed.load(Ordering::SeqCst) {
            // Not woken by a match: what was found is older than the arm.
            return None;
        }
        first.filter(|_| self.was_armed.swap(false, Ordering::Relaxed))
    }

    /// While armed, and not quietly: everything up to here does not match.
    pub(super) fn passed(&self) -> Option<Cursor> {
        let done = self.interest.done();
        let is_armed = self.entry.armed.load(Ordering::SeqCst);
        (is_armed && self.was_armed.load(Ordering::Relaxed)).then_some(done)
    }

    /// What is subscribed to.
    pub(super) fn filters(&self) -> &Filters {
        &self.filters
    }

    /// The entry, for waking this subscription for another reason than an event.
    pub(super) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut root = self.interest.root.write();
        for filter in &self.filters {
            root.remove(filter.as_str().split('.'), &self.entry);
        }
    }
}

impl Node {
    fn insert<'a>(&mut self, mut tokens: impl Iterator<Item = &'a str>, entry: &Arc<Entry>) {
        let Some(token) = tokens.next() else { return self.here.push(entry.clone()) };
        let Branches { children, star, rest } = &mut **self.more.get_or_insert_default();
        match token {
            ">" => rest.push(entry.clone()),
            "*" => star.insert(tokens, entry),
            token => match children.get_mut(token) {
                Some(child) => child.insert(tokens, entry),
                None => children.entry(token.into()).or_default().insert(tokens, entry),
            },
        }
    }

    fn remove<'a>(&mut self, mut tokens: impl Iterator<Item = &'a str>, entry: &Arc<Entry>) {
        let Some(token) = tokens.next() else {
            return self.here.retain(|other| !Arc::ptr_eq(other, entry));
        };
        let Some(more) = &mut self.more else { return };
        match token {
            ">" => more.rest.retain(|other| !Arc::ptr_eq(other, entry)),
            "*" => more.star.remove(tokens, entry),
            token => {
                if let Some(child) = more.children.get_mut(token) {
                    child.remove(tokens, entry);
                    if child.is_empty() {
                        more.children.remove(token);
                    }
                }
            }
        }
        if more.is_empty() {
            self.more = None;
        }
    }

    fn is_empty(&self) -> bool {
        self.here.is_empty() && self.more.is_none()
    }

    fn visit<'a>(
        &self,
        mut tokens: impl Iterator<Item = &'a str> + Clone,
        first: bool,
        visit: &mut impl FnMut(&Entry),
    ) {
        let Some(token) = tokens.next() else {
            self.here.iter().for_each(|entry| visit(entry));
            return;
        };
        let Some(more) = &self.more else { return };
        // A wildcard never matches a first token of the broker's own.
        if !(first && token.starts_with('$')) {
            more.rest.iter().for_each(|entry| visit(entry));
            more.star.visit(tokens.clone(), false, visit);
        }
        if let Some(child) = more.children.get(token) {
            child.visit(tokens, false, visit);
        }
    }

    fn visit_all(&self, visit: &mut impl FnMut(&Entry)) {
        self.here.iter().for_each(|entry| visit(entry));
        let Some(more) = &self.more else { return };
        more.rest.iter().for_each(|entry| visit(entry));
        more.star.visit_all(visit);
        more.children.values().for_each(|child| child.visit_all(visit));
    }
}

impl Branches {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.star.is_empty() && self.rest.is_empty()
    }
}

#[cfg(test)]
pub(super) mod before_arming {
    //! What happens in the moment between a read that found nothing and the arm that follows it, on this thread.

    use std::cell::RefCell;

    thread_local! {
        static NEXT: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    }

    /// The next arm is preceded by this, once.
    pub(in crate::broker) fn set(what: impl FnOnce() + 'static) {
        NEXT.set(Some(Box::new(what)));
    }

    pub(super) fn run() {
        if let Some(what) = NEXT.take() {
            what();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidings_proto::Filter;

    use super::*;

    fn filters(texts: &[&str]) -> Filters {
        Filters::new(texts.iter().map(|text| Filter::parse(text).unwrap()).collect()).unwrap()
    }

    fn offset(n: u64) -> Offset {
        Offset::new(n).unwrap()
    }

    /// An event that is not urgent, of ten bytes.
    fn plain(n: u64) -> Announced {
        Announced { offset: offset(n), is_urgent: false, bytes: 10 }
    }

    #[test]
    fn many_that_are_ready_are_there_once_in_their_order() {
        let ready = Ready::new();
        for _ in 0..2 {
            (0..200).for_each(|number| ready.push(number));
        }
        assert_eq!(ready.pop(), Some(0));
        ready.push(0);
        let rest: Vec<u32> = std::iter::from_fn(|| ready.pop()).collect();
        assert_eq!(rest, (1..200).chain([0]).collect::<Vec<u32>>());
        assert!(ready.queue.lock().members.is_none());
    }

    #[test]
    fn only_armed_and_matching_entries_wake_and_only_once() {
        let interest = Interest::new(Cursor::START);
        let ready = Ready::new();
        let a = interest.register(&filters(&["a.*"]), ready.clone(), 1);
        let _unarmed = interest.register(&filters(&["a.>"]), ready.clone(), 2);
        let b = interest.register(&filters(&["b"]), ready.clone(), 3);
        assert!(a.arm(Cursor::START) && b.arm(Cursor::START));
        let announcement = interest.announce(Cursor::new(2));
        announcement.event("a.x", plain(1));
        announcement.event("a.y", plain(2));
        drop(announcement);
        assert_eq!((ready.pop(), ready.pop()), (Some(1), None));
        assert_eq!(a.take_first_match(), Some(offset(1)));
        assert_eq!(a.passed(), None);
        assert_eq!(b.passed(), Some(Cursor::new(2)));
    }

    #[test]
    fn a_subscription_is_ready_once_until_it_is_popped_and_in_order() {
        let ready = Ready::new();
        [3, 1, 3, 2, 1].into_iter().for_each(|number| ready.push(number));
        assert_eq!(ready.pop(), Some(3));
        // While it is being looked at: it has to be looked at again, behind the others.
        ready.push(3);
        ready.push(2);
        let rest: Vec<u32> = std::iter::from_fn(|| ready.pop()).collect();
        assert_eq!(rest, [1, 2, 3]);
        assert!(ready.queue.lock().members.is_none());
    }

    #[tokio::test]
    async fn a_push_of_what_is_queued_wakes_who_waits() {
        let ready = Ready::new();
        for _ in 0..2 {
            ready.push(1);
            ready.wait().await;
        }
        assert_eq!((ready.pop(), ready.pop()), (Some(1), None));
    }

    #[test]
    fn arming_behind_what_is_announced_says_read_again() {
        let interest = Interest::new(Cursor::START);
        let entry = interest.register(&filters(&["a"]), Ready::new(), 1);
        let announcement = interest.announce(Cursor::new(5));
        assert!(!entry.arm(Cursor::new(4)));
        assert!(entry.arm(Cursor::new(5)));
        drop(announcement);
    }

    #[test]
    fn a_match_that_crosses_an_arm_that_fails_says_nothing_of_what_is_before_it() {
        let interest = Interest::new(Cursor::START);
        let ready = Ready::new();
        let a = interest.register(&filters(&["a"]), ready.clone(), 1);
        let announcement = interest.announce(Cursor::new(10));
        // Half of an arm: the pump is at 5 by then, and has passed 2 to 4 while nobody was armed.
        a.entry.armed.store(true, Ordering::SeqCst);
        announcement.event("a", plain(5));
        assert!(!a.arm(Cursor::new(1)));
        assert_eq!(a.take_first_match(), None);
        // The same wake, stored late, behind an arm that succeeds.
        assert!(a.arm(Cursor::new(10)));
        a.entry.first_match.store(5, Ordering::SeqCst);
        assert_eq!(a.take_first_match(), None);
        drop(announcement);
        interest.announce(Cursor::new(12)).event("a", plain(12));
        assert_eq!(a.take_first_match(), Some(offset(12)));
    }

    #[test]
    fn one_armed_quietly_wakes_when_there_is_enough_or_one_is_urgent() {
        let urgent = |n| Announced { is_urgent: true, ..plain(n) };
        for (enough, events, woken_by) in [
            (Enough { events: 3, bytes: 1000 }, [plain(1), plain(2), plain(3)], 3),
            (Enough { events: 9, bytes: 20 }, [plain(1), plain(2), plain(3)], 2),
            (Enough { events: 9, bytes: 1000 }, [plain(1), plain(2), urgent(3)], 3),
            (Enough { events: 1, bytes: 1 }, [plain(1), plain(2), plain(3)], 1),
        ] {
            let interest = Interest::new(Cursor::START);
            let ready = Ready::new();
            let a = interest.register(&filters(&["a"]), ready.clone(), 1);
            assert!(a.arm_quietly(Cursor::START, enough));
            let announcement = interest.announce(Cursor::new(3));
            for event in events {
                assert_eq!(a.passed(), None, "what it waits with has not been looked at");
                announcement.event("a", event);
                let woken = ready.pop().is_some();
                assert_eq!(woken, event.offset.get() == woken_by, "{enough:?}: {event:?}");
                if woken {
                    break;
                }
            }
            drop(announcement);
            assert_eq!(a.take_first_match(), None, "there were matches before it");
            assert!(a.arm(Cursor::new(3)));
            interest.announce(Cursor::new(4)).event("a", plain(4));
            assert_eq!((ready.pop(), a.take_first_match()), (Some(1), Some(offset(4))));
        }
    }

    #[test]
    fn a_dropped_registration_leaves_nothing_behind() {
        let interest = Interest::new(Cursor::START);
        drop(interest.register(&filters(&["a.*.b", "a.>", "c"]), Ready::new(), 1));
        assert!(interest.root.read().is_empty());
    }

    proptest! {
        #[test]
        fn the_trie_wakes_exactly_whom_the_filters_match(
            subs in prop::collection::vec(prop::collection::vec(prop_oneof!["[ab]", Just("*".to_owned())], 1..4), 1..8),
            rest in prop::collection::vec(any::<bool>(), 8),
            topic in prop::collection::vec("[ab]", 1..4),
        ) {
            let interest = Interest::new(Cursor::START);
            let topic = topic.join(".");
            let mut wanted = Vec::new();
            let ready = Ready::new();
            let mut registrations = Vec::new();
            for (n, (mut tokens, rest)) in subs.into_iter().zip(rest).enumerate() {
                if rest { tokens.push(">".to_owned()); }
                let filter = Filter::parse(&tokens.join(".")).unwrap();
                let number = u32::try_from(n).unwrap();
                if filter.matches(&topic) { wanted.push(number); }
                let registration = interest.register(&Filters::one(filter), ready.clone(), number);
                registration.arm(Cursor::START);
                registrations.push(registration);
            }
            interest.announce(Cursor::new(1)).event(&topic, plain(1));
            let mut woken: Vec<u32> = std::iter::from_fn(|| ready.pop()).collect();
            woken.sort_unstable();
            prop_assert_eq!(woken, wanted);
        }
    }
}
