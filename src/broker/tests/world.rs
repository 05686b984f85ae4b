//! The real broker over the real log, on a simulated disk: nothing happens at a time that a test did not choose.
//!
//! - The clock is held; a commit is a step; a kill drops everything and opens what was on the disk.
//! - The tasks of the broker are the pump, which runs when it has news, and the writer of letters, which is
//!   called after each step of a test.

use std::{
    cell::RefCell,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tidings_proto::{
    Filter, Filters, NewEvent, Offset, Priority, SubscribeOptions, Topic, event::EventId,
    message::Publish,
};
use tokio_util::sync::CancellationToken;

use super::super::{
    Broker, Ready, Subscription, acks::AckBox, assemble, controls::BrokerControls,
    error::SubscribeError, interest::before_arming, presence::Presence, publish::PublishTicket,
    snapshot::States,
};
use crate::{
    clock::held,
    log::{self, SimDisk, Stepped, projection::MemoryStore},
};

/// A broker, and what it runs on.
pub(super) struct World {
    pub(super) broker: Arc<Broker>,
    disk: SimDisk,
    options: log::Options,
    committer: Rc<RefCell<Stepped>>,
    stop: CancellationToken,
}

impl World {
    /// An empty log. The clock begins again.
    pub(super) fn new(seed: u64, tail_bytes: usize) -> World {
        held::set(Some(1_000));
        let options = log::Options {
            dir: "simulated".into(),
            segment_bytes: 64 << 10,
            reserve_bytes: 0,
            fill_segments: false,
            tail_bytes,
            queue_bytes: 1 << 20,
            disk_reads: 1,
            retention: log::retention::Options::nothing(),
        };
        World::open(SimDisk::new(seed), options)
    }

    fn open(disk: SimDisk, options: log::Options) -> World {
        let opener = log::open_on(Arc::new(disk.clone()), &options).unwrap();
        let handle = opener.handle.clone();
        let acks = AckBox::new();
        let grace = Duration::from_secs(10);
        let presence = super::super::PresenceOptions {
            grace,
            restart_grace: grace,
            topic_members_max: 10,
            members_max: 10,
        };
        let presence = Presence::new(presence, handle.clone());
        let schedule = super::super::scheduled::Schedule::new(100);
        let store = (Box::new(MemoryStore::forgetful()) as _, true);
        let controls = BrokerControls::open_from(
            &handle,
            acks.clone(),
            presence.clone(),
            schedule.clone(),
            store,
        )
        .unwrap();
        let committer = opener.stepped(controls.clone());
        let (broker, stop) = assemble(
            (handle, controls, acks, presence, schedule, States::new(1000)),
            super::super::DurablesMax { all: 100, of_subject: 100 },
            Vec::new(),
            &options.retention,
        );
        World { broker, disk, options, committer: Rc::new(RefCell::new(committer)), stop }
    }

    /// Everything in memory is gone, and what was not synced, in pieces.
    pub(super) fn kill(self, seed: u64) -> World {
        self.stop.cancel();
        let disk = self.disk.crash(seed);
        let options = self.options.clone();
        drop(self);
        World::open(disk, options)
    }

    /// The power goes at one of the next operations on the disk; the next steps find out.
    pub(super) fn fail_after(&self, operations: u64) {
        self.disk.crash_at(self.disk.operations() + operations.max(1));
    }

    /// How many operations on the disk there have been.
    pub(super) fn operations(&self) -> u64 {
        self.disk.operations()
    }

    /// Commits what waits.
    pub(super) fn step(&mut self) {
        self.committer.borrow_mut().step();
    }

    /// From here on nothing is announced but by [`World::commit_before_arming`].
    pub(super) async fn stop_pump(&self) {
        self.stop.cancel();
        tokio::task::yield_now().await;
    }

    /// When somebody who found nothing is next about to wait, what is queued is committed and announced just before.
    pub(super) fn commit_before_arming(&self) {
        let (committer, broker) = (self.committer.clone(), self.broker.clone());
        before_arming::set(move || {
            committer.borrow_mut().step();
            drop(broker.interest.announce(broker.log().committed()));
        });
    }

    /// Lets the pump and the writer of letters run.
    pub(super) async fn settle(&self) {
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        self.broker.write_letters().await;
    }

    /// Waits for something that waits for a commit.
    pub(super) async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            let polled = std::future::poll_fn(|context| Poll::Ready(work.as_mut().poll(context)));
            if let Poll::Ready(done) = polled.await {
                return done;
            }
            self.step();
            tokio::task::yield_now().await;
        }
    }

    /// Queues an event; the ticket is for after a step.
    pub(super) async fn publish(&self, publish: Publish) -> PublishTicket {
        self.broker.publish("alice", vec![publish]).await.unwrap()
    }

    /// Subscribes, where nothing is to be committed for it.
    pub(super) async fn subscribe(
        &self,
        options: &SubscribeOptions,
        ready: &Arc<Ready>,
        number: u32,
    ) -> Result<Subscription, SubscribeError> {
        self.broker.subscribe(options, "alice", ready.clone(), number).await
    }
}

/// What a ticket says; `None` where it is not known yet.
pub(super) fn outcome<F: Future + Unpin>(ticket: &mut F) -> Option<F::Output> {
    match pin!(ticket).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

/// Runs on a runtime of its own, on this thread.
pub(super) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let done = runtime.block_on(work);
    held::set(None);
    done
}

pub(super) fn offset(at: u64) -> Offset {
    Offset::new(at).unwrap()
}

/// Filters for the topics of the tests: `t.0`, `t.1`, …
pub(super) fn filters(texts: &[&str]) -> Filters {
    Filters::new(texts.iter().map(|text| Filter::parse(text).unwrap()).collect()).unwrap()
}

/// An event on topic `t.<topic>`; key 0 is none.
pub(super) fn event(topic: u8, key: u8, priority: Priority, id: Option<&str>) -> Publish {
    Publish::of(NewEvent {
        topic: Topic::parse(&format!("t.{topic}")).unwrap(),
        id: id.map(|id| EventId::parse(id).unwrap()),
        kind: "message".to_owned(),
        source: None,
        datacontenttype: None,
        data: None,
        key: (key > 0).then(|| format!("k{key}")),
        priority,
        expires: None,
        correlation: None,
        headers: std::collections::BTreeMap::new(),
    })
}

/// How many cases a full run has, of `usual` in all: `name` in the environment says so.
pub(super) fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}
