use futures_util::FutureExt;
use tidings_proto::{Timestamp, control::LeaveReason};

use super::*;
use crate::log;

/// Presence on a log of its own, whose commit thread is this test.
fn presence() -> (Arc<Presence>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let opened = log::open(&log::Options {
        dir: dir.path().join("data"),
        segment_bytes: 65_536,
        reserve_bytes: 0,
        fill_segments: false,
        tail_bytes: 65_536,
        queue_bytes: 1 << 20,
        disk_reads: 1,
        retention: log::retention::Options::nothing(),
    });
    let options = Options {
        grace: Duration::from_secs(600),
        restart_grace: Duration::from_secs(600),
        topic_members_max: 10,
        members_max: 10,
    };
    (Presence::new(options, opened.unwrap().handle), dir)
}

fn enter(presence: &Arc<Presence>, session: u128) -> Result<Hold, SubscribeError> {
    let topics = BTreeSet::from([Topic::parse("rooms.1").unwrap()]);
    let guest = Guest {
        session: Uuid::from_u128(session),
        subject: "alice",
        data: "{\"n\":1}",
        now: Timestamp::from_millis(5),
    };
    presence.enter(&topics, &guest)
}

/// One that has joined.
fn joined(presence: &Arc<Presence>, session: u128) -> Hold {
    let hold = enter(presence, session).unwrap();
    let mut join = Box::pin(hold.join());
    assert!(join.as_mut().now_or_never().is_none(), "it is not in the log");
    assert_eq!(presence.drain().len(), 1);
    presence.committed();
    assert!(join.as_mut().now_or_never().is_none(), "nobody can read it yet");
    presence.readable();
    assert!(matches!(join.as_mut().now_or_never(), Some(Ok(()))));
    drop(join);
    hold
}

#[tokio::test]
async fn a_place_is_free_before_anybody_can_read_of_the_leave() {
    let (presence, _dir) = presence();
    let mut held: Vec<Hold> = (1..=10).map(|session| joined(&presence, session)).collect();
    assert!(enter(&presence, 11).is_err());
    held.pop().unwrap().leave();
    assert_eq!(presence.drain().len(), 1);
    presence.committed();
    assert!(enter(&presence, 11).is_ok());
}

#[tokio::test]
async fn a_step_is_an_event_whose_key_is_the_session() {
    let (presence, _dir) = presence();
    let hold = enter(&presence, 1).unwrap();
    assert!(hold.join().now_or_never().is_none());
    let draft = presence.drain().pop().unwrap();
    let session = Uuid::from_u128(1).simple().to_string();
    assert_eq!((draft.topic.as_str(), &*draft.key), ("$presence.rooms.1", session.as_bytes()));
    assert!(draft.flags.control());
    presence.committed();
    presence.readable();
    hold.leave();
    let step = presence.drain().pop().unwrap();
    let record = tidings_proto::wire::stored::decode(&step.body).unwrap();
    let left: PresenceChange = serde_json::from_slice(record.data.unwrap()).unwrap();
    assert_eq!((left.reason, left.since), (Some(LeaveReason::Left), Timestamp::from_millis(5)));
    assert_eq!(left.data.unwrap().get(), "{\"n\":1}");
}

#[tokio::test]
async fn a_full_disk_refuses_the_join_and_keeps_the_leave() {
    let (presence, _dir) = presence();
    joined(&presence, 1).leave();
    let hold = enter(&presence, 2).unwrap();
    let mut join = Box::pin(hold.join());
    assert!(join.as_mut().now_or_never().is_none());
    assert_eq!(presence.drain().len(), 2);
    presence.failed(&AppendError::Full);
    assert!(matches!(join.as_mut().now_or_never(), Some(Err(AppendError::Full))));
    assert_eq!(presence.drain().len(), 1, "the leave is tried again");
    presence.committed();
    assert!(presence.drain().is_empty());
}

#[tokio::test]
async fn a_log_that_takes_no_more_leaves_nobody_waiting() {
    let (presence, _dir) = presence();
    let (first, second) = (enter(&presence, 1).unwrap(), enter(&presence, 2).unwrap());
    let mut first = Box::pin(first.join());
    assert!(first.as_mut().now_or_never().is_none());
    assert_eq!(presence.drain().len(), 1);
    let mut second = Box::pin(second.join());
    assert!(second.as_mut().now_or_never().is_none());
    presence.failed(&AppendError::Indeterminate);
    for join in [first, second] {
        assert!(matches!(join.now_or_never(), Some(Err(AppendError::Indeterminate))));
    }
    assert!(enter(&presence, 3).is_err() && presence.drain().is_empty());
}

#[tokio::test]
async fn who_comes_back_needs_no_disk() {
    let (presence, _dir) = presence();
    drop(joined(&presence, 1));
    presence.inner.lock().halt(&AppendError::Full);
    let hold = enter(&presence, 2).unwrap();
    assert!(matches!(hold.join().now_or_never(), Some(Ok(()))));
    let error = enter(&presence, 3).unwrap_err();
    assert!(matches!(error, SubscribeError::Append(AppendError::Full)), "{error}");
}

#[tokio::test]
async fn a_subscribe_that_is_given_up_leaves_no_waiter_behind() {
    let (presence, _dir) = presence();
    let hold = enter(&presence, 1).unwrap();
    assert!(hold.join().now_or_never().is_none(), "given up while it waits");
    drop(hold);
    assert!(presence.inner.lock().waiting.is_empty());
    // It was on its way: it joins, and is away.
    assert_eq!(presence.drain().len(), 1);
    presence.committed();
    assert!(presence.inner.lock().members.next_due_ms().is_some());
    presence.stopping();
    assert_eq!(presence.expire(), None, "nobody leaves while the broker stops");
}
