//! A conversation with somebody, the same on every transport. No I/O.
//!
//! - A connection begins as a [`Greeting`]; the only way on is [`Greeting::connect`], which gives the
//!   [`Session`]: so nothing is published, read or acknowledged before authentication.
//! - Rights are checked here, at every call, against the identity's grants.
//! - Errors leave as [`WireError`]s: what happened, the value, what to do.

mod access;
pub mod answers;
pub mod audit;
pub mod compressor;
pub mod conversation;
mod dead;
pub mod encoding;
mod error;
pub mod guests;
pub mod house;
mod metering;
mod numbered;
mod operate;
pub mod outbox;
pub mod outputs;
mod publishing;
pub mod rates;
mod retention;
mod scheduled;
pub mod standing;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

pub use crate::auth::shown;
pub(crate) use crate::broker::replayed_bytes;
pub use crate::broker::{
    Delivery, DurableInfo, DurablesMax, Erased, FetchReader, Fetched, From as ReadFrom,
    PlacedLetter, PresenceOptions, PutOutcome, Read, Ready, RuleInfo, Subscription, Wanted,
};
pub use crate::log::{ReadError, ReadLimit, Stored, TopicInfo, retention::parse_age};
pub use access::{KeyWish, RevocationWish, TicketGiven};
pub(crate) use error::{
    internal, no_room, of_ack, of_append, of_cancel, of_publish, of_read, of_subscribe,
};
pub use house::{Greeting, House, Limits, Redeemed, Transport};
pub use publishing::{Publishing, PublishingRun, Run};
pub use scheduled::check_batch;
use tidings_proto::{
    Code, Cursor, Filter, Filters, LogId, Offset, SubscribeOptions, Topic, WireError,
    message::{Ack, Connected, Gap, GapReason, Nack, Presence, Receipt},
    wire::compressed::DEFLATE_RAW,
};
use uuid::Uuid;

use self::{
    guests::{Guest, Stay},
    rates::{Granted, Kind, Meter},
};
use crate::{
    auth::Identity,
    broker::{self, Broker, Target, is_never_delivered},
};

/// The most offsets one ack or nack may name.
pub const ACK_OFFSETS_MAX: usize = 4096;

/// Somebody who has been let in.
pub struct Session {
    house: Arc<House>,
    identity: Arc<Identity>,
    id: Uuid,
    /// When the token ends, on the monotonic clock.
    ends_ms: Option<u64>,
    /// How often it was announced that something was revoked, when this was last found to hold.
    looked_at: AtomicU64,
    guest: Arc<Guest>,
    meter: Arc<Meter>,
    /// What its token lets the subject publish.
    granted: Option<Granted>,
    /// Its place among those of its subject, where its token bounds them.
    stay: Option<Stay>,
    counted: house::Counted,
}

impl Session {
    /// Names it in logs.
    pub fn id(&self) -> uuid::fmt::Simple {
        self.id.simple()
    }

    /// Who it is and what they may do.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// It ends with this close code.
    pub fn closes_with(&mut self, code: u16) {
        self.counted.code = Some(code);
    }

    /// What everybody shares.
    pub fn house(&self) -> &Arc<House> {
        &self.house
    }

    fn broker(&self) -> &Broker {
        &self.house.broker
    }

    /// What `connect` is answered, to whoever can read these compressions.
    pub fn connected(&self, compressions: &[String]) -> Connected {
        let log = self.broker().log();
        let is_read = compressions.iter().any(|name| name == DEFLATE_RAW);
        Connected {
            session: self.id().to_string(),
            subject: self.identity.subject.clone(),
            log: log.id(),
            first: log.first().get(),
            last: log.committed().get(),
            ping_interval_ms: millis(self.house.limits.ping_interval),
            max_message_bytes: u64::try_from(self.house.limits.message_bytes_max)
                .unwrap_or(u64::MAX),
            token_expires: self.identity.expires,
            compress: is_read.then(|| DEFLATE_RAW.to_owned()),
            server: concat!("tidings/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// Takes a newer token of the same subject.
    ///
    /// # Errors
    /// `unauthenticated` when it does not hold, `permission_denied` when it is somebody else's, `rate_limited` when it
    /// bounds the sessions of its subject and there are as many.
    pub fn refresh(&mut self, token: &str) -> Result<(), WireError> {
        let identified = self.house.identify(Some(token));
        let identity = identified.map_err(|error| self.house.refuse(&error, self.guest.ip()))?;
        if identity.subject != self.identity.subject {
            let text = format!(
                "token: it is {}'s, and this session is {}'s",
                identity.subject, self.identity.subject
            );
            return Err(WireError::new(Code::PermissionDenied, text));
        }
        if self.stay.is_none() && self.counted.transport != Transport::Http {
            self.stay = self.house.stay(&identity)?;
        }
        self.ends_ms = standing::ends_ms(&identity);
        self.granted = Granted::of(&self.house.limiter, &identity);
        self.identity = identity;
        Ok(())
    }

    /// Whether they may go on with a subscription that they have.
    ///
    /// # Errors
    /// `permission_denied` where their rights of today do not cover it.
    pub fn may_keep(&self, filters: &Filters, durable: Option<&str>) -> Result<(), WireError> {
        self.check_read(filters)?;
        durable.map_or(Ok(()), |name| self.check_durable(name))
    }

    /// Subscribes; `number` is this conversation's number for it.
    ///
    /// # Errors
    /// As the protocol says.
    pub async fn subscribe(
        &self,
        options: &SubscribeOptions,
        ready: Arc<Ready>,
        number: u32,
    ) -> Result<Subscription, WireError> {
        self.check_read(&options.filters)?;
        if let Some(name) = &options.durable {
            self.check_durable(name)?;
        }
        self.take(Kind::Subscribes, 1)?;
        self.take(Kind::ReplayBytes, 1)?;
        let room = self.house.room(options)?;
        let subject = &self.identity.subject;
        let subscribed = self.broker().subscribe_as(self.id, options, subject, ready, number).await;
        let subscribed = subscribed.map(|subscription| subscription.within(room));
        subscribed.map_err(|error| of_subscribe(&error, self.broker().log().id()))
    }

    /// Reads for one request.
    ///
    /// # Errors
    /// As the protocol says.
    pub async fn read(
        &self,
        options: &SubscribeOptions,
        from: &broker::From,
        limit: ReadLimit,
        wait: Duration,
    ) -> Result<Read, WireError> {
        self.check_read(&options.filters)?;
        self.take(Kind::ReplayBytes, 1)?;
        // One that waits is told of what comes, as a subscription is.
        let _room = if wait.is_zero() { None } else { self.house.room(options)? };
        let reading = async {
            let read = self.broker().read(options, from, limit, wait).await;
            read.map_err(|error| of_subscribe(&error, self.broker().log().id()))
        };
        let read = match wait.is_zero() {
            true => reading.await,
            false => self.unless_revoked(reading).await,
        }?;
        self.replayed(read.replayed_bytes);
        Ok(read)
    }

    /// One event.
    ///
    /// # Errors
    /// `not_found` also where reading its topic is not granted: nobody learns what is there.
    pub async fn event(&self, offset: Offset) -> Result<Arc<Stored>, WireError> {
        self.check_standing()?;
        self.take(Kind::ReplayBytes, 1)?;
        let found = self.get(offset).await?;
        let readable = |event: &Arc<Stored>| {
            Filter::parse(event.topic().as_str()).is_ok_and(|topic| {
                let filters = Filters::one(topic);
                !is_never_delivered(&filters) && self.identity.grants.refused(&filters).is_none()
            })
        };
        // As a read and `last` have it: what has expired is there no more for whoever asks.
        let now = crate::clock::now();
        let living = |event: &Arc<Stored>| {
            !event.expires().is_ok_and(|expires| expires.is_some_and(|expires| expires <= now))
        };
        let found = found.filter(readable).filter(living).ok_or_else(|| {
            WireError::new(Code::NotFound, format!("offset: there is no event {offset}"))
        })?;
        self.replayed(replayed_bytes(std::slice::from_ref(&found)));
        Ok(found)
    }

    /// The newest event on a topic, with this key where one is given.
    ///
    /// # Errors
    /// `not_found` where there is none, `permission_denied` where reading the topic is not granted.
    pub async fn last(&self, topic: &Topic, key: Option<&str>) -> Result<Arc<Stored>, WireError> {
        let filter = Filter::parse(topic.as_str())
            .map_err(|error| WireError::invalid(format!("topic: {error}")))?;
        self.check_read(&Filters::one(filter))?;
        self.take(Kind::ReplayBytes, 1)?;
        match self.broker().last_on(topic, key).await {
            Ok(Some(event)) => {
                self.replayed(replayed_bytes(std::slice::from_ref(&event)));
                Ok(event)
            }
            Ok(None) => {
                let with = if key.is_some() { " with this key" } else { "" };
                let text = format!("topic: there is no event on {topic}{with}");
                Err(WireError::new(Code::NotFound, text))
            }
            Err(ReadError::Damaged(offset)) => Err(self.damaged(offset)),
            Err(error) => Err(of_read(&error)),
        }
    }

    fn damaged(&self, offset: Offset) -> WireError {
        let gap = self.broker().log().damage_gap(offset.before(), offset.cursor());
        self.gone(&gap, "a read of its topic with on_gap=skip goes on behind them")
    }

    async fn get(&self, offset: Offset) -> Result<Option<Arc<Stored>>, WireError> {
        match self.broker().get(offset).await {
            Ok(event) => Ok(event),
            Err(ReadError::Damaged(offset)) => Err(self.damaged(offset)),
            Err(error) => Err(of_read(&error)),
        }
    }

    /// Who has acknowledged an event, up to `limit` durables by name behind the name `after`; and where to go on, if there
    /// are more: for its publisher and the admin.
    ///
    /// # Errors
    /// `not_found` for all others too.
    pub async fn receipts(
        &self,
        offset: Offset,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Receipt>, Option<String>), WireError> {
        self.check_standing()?;
        let none = || {
            WireError::new(Code::NotFound, format!("offset: there is no event {offset} of yours"))
        };
        let found = self.get(offset).await?.ok_or_else(none)?;
        let publisher = found.body().map(|body| body.subject.to_owned()).unwrap_or_default();
        if found.topic().is_own() || !self.identity.owns(&publisher) {
            return Err(none());
        }
        Ok(self.broker().receipts(&found, after, limit).await)
    }

    /// Who is listed on a topic, and up to where in the log that is so.
    ///
    /// # Errors
    /// `permission_denied` where subscribing to the topic is not granted, `invalid_argument` for a topic of the
    /// broker's own.
    pub fn presence(&self, topic: &Topic) -> Result<(Presence, Cursor), WireError> {
        if topic.is_own() {
            let text = format!("topic: {topic} is the broker's own, where nobody is listed");
            return Err(WireError::invalid(text));
        }
        let filter = Filter::parse(topic.as_str())
            .map_err(|error| WireError::invalid(format!("topic: {error}")))?;
        self.check_read(&Filters::one(filter))?;
        Ok(self.broker().presence(topic))
    }

    /// The topics under a filter, by name, after the name `after`.
    ///
    /// # Errors
    /// `permission_denied` where reading them is not granted.
    pub fn topics(
        &self,
        filter: &Filter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<TopicInfo>, WireError> {
        self.check_read(&Filters::one(filter.clone()))?;
        Ok(self.broker().log().topics(filter, after, limit))
    }

    /// Makes a durable subscription or changes it.
    ///
    /// # Errors
    /// As the protocol says.
    pub async fn put_durable(
        &self,
        name: &str,
        options: &SubscribeOptions,
    ) -> Result<PutOutcome, WireError> {
        self.check_durable(name)?;
        self.check_read(&options.filters)?;
        let of_sessions = [
            ("presence", options.presence.is_some()),
            ("lost_reader", options.lost_reader.is_some()),
            ("batch_max", options.batch_max != SubscribeOptions::BATCH_MAX),
        ];
        if let Some((name, _)) = of_sessions.into_iter().find(|(_, given)| *given) {
            let text =
                format!("{name}: it belongs to a socket or stream that reads, not to the durable");
            return Err(WireError::invalid(text));
        }
        if options.log.is_some() {
            let text = "log: say it in start, as in \"57@9f3c21d0\"";
            return Err(WireError::invalid(text));
        }
        let put = self.broker().put_durable(name, options, &self.identity.subject).await;
        put.map_err(|error| of_subscribe(&error, self.broker().log().id()))
    }

    /// What is known of a durable subscription, also where it is the answer to what was done.
    ///
    /// # Errors
    /// As the protocol says.
    pub async fn durable(&self, name: &str) -> Result<DurableInfo, WireError> {
        self.check_durable(name)?;
        let info = self.broker().durable_info(name).await.map_err(|error| of_read(&error))?;
        let info = info.ok_or_else(|| no_durable(name))?;
        self.replayed(info.replayed_bytes);
        Ok(info)
    }

    /// The options of a durable subscription.
    ///
    /// # Errors
    /// As the protocol says.
    pub fn durable_options(&self, name: &str) -> Result<SubscribeOptions, WireError> {
        self.check_durable(name)?;
        self.broker().durable_options(name).ok_or_else(|| no_durable(name))
    }

    /// Forgets a durable subscription.
    ///
    /// # Errors
    /// As the protocol says.
    pub async fn delete_durable(&self, name: &str) -> Result<(), WireError> {
        self.check_durable(name)?;
        match self.broker().delete_durable(name).await {
            Ok(true) => {
                self.done_as_admin("subscription.deleted", "durable", name).await;
                Ok(())
            }
            Ok(false) => Err(no_durable(name)),
            Err(error) => Err(of_append(&error)),
        }
    }

    /// Leases the next events of a durable subscription.
    ///
    /// # Errors
    /// As the protocol says.
    pub async fn fetch(&self, name: &str, wanted: &Wanted) -> Result<Fetched, WireError> {
        let filters = self.durable_options(name)?.filters;
        self.check_log(wanted.after.as_ref().and_then(|after| after.log.as_deref()))?;
        // Rights may have changed since it was made.
        self.check_read(&filters)?;
        self.take(Kind::ReplayBytes, 1)?;
        let wait = wanted.wait.min(self.left());
        let wanted = Wanted { wait, ..wanted.clone() };
        let fetching = async {
            let fetched = self.broker().fetch_by(name, &wanted).await;
            fetched.map_err(|error| of_subscribe(&error, self.broker().log().id()))
        };
        let fetched = match wait.is_zero() {
            true => fetching.await,
            false => self.unless_revoked(fetching).await,
        }?;
        self.replayed(fetched.replayed_bytes);
        Ok(fetched)
    }

    /// Acknowledges events of the durable subscription of this name; gives its floor once that is durable.
    ///
    /// # Errors
    /// As the protocol says.
    pub async fn ack_by_name(
        &self,
        name: &str,
        ack: &Ack,
    ) -> Result<tidings_proto::Cursor, WireError> {
        self.check_durable(name)?;
        self.take(Kind::Acks, 1)?;
        self.check_log(ack.log.as_deref())?;
        let target = target(ack)?;
        let durable = self.broker().durable_by_name(name).map_err(|error| of_ack(&error))?;
        let (ticket, floor) =
            self.broker().ack(&durable, &target, None).await.map_err(|error| of_ack(&error))?;
        ticket.await.map_err(|error| of_append(&error))?;
        Ok(floor)
    }

    /// Lets events of the durable subscription of this name come again.
    ///
    /// # Errors
    /// As the protocol says.
    pub async fn nack_by_name(&self, name: &str, nack: &Nack) -> Result<(), WireError> {
        self.check_durable(name)?;
        self.take(Kind::Acks, 1)?;
        self.check_log(nack.log.as_deref())?;
        check_count(nack.offsets.len())?;
        let durable = self.broker().durable_by_name(name).map_err(|error| of_ack(&error))?;
        let ticket = self
            .broker()
            .nack(&durable, &nack.offsets, nack.delay_ms, nack.reason.as_deref(), None)
            .map_err(|error| of_ack(&error))?;
        ticket.await.map_err(|error| of_append(&error))
    }

    /// What of a wish is gone, as an error. Who may go on behind it is told how, with `advice`: a whole clause.
    pub fn gone(&self, gap: &Gap, advice: &str) -> WireError {
        let (requested, first, last) = (gap.requested, gap.first, gap.last);
        let text = match gap.reason {
            GapReason::Corrupt => format!(
                "the events after {requested} and before {first} are damaged on the disk and cannot be read; {advice}"
            ),
            GapReason::LogChanged => format!(
                "after: {requested} is not of this log, {}, which begins at {first} and ends at {last}; {advice}",
                gap.log
            ),
            _ => format!(
                "the events after {requested} are gone: the log begins at {first} and ends at {last}; {advice}"
            ),
        };
        WireError {
            first: Some(gap.first),
            last: Some(gap.last),
            log: Some(gap.log),
            ..WireError::new(Code::OffsetGone, text)
        }
    }

    pub(crate) fn check_log(&self, log: Option<&str>) -> Result<(), WireError> {
        let ours = self.broker().log();
        match log {
            Some(named) if !LogId::is_name(named) => Err(WireError::invalid(format!(
                "log: \"{}\": it must be the id of a log, or its first eight hex digits",
                shown(named)
            ))),
            Some(named) if !named.to_ascii_lowercase().starts_with(&ours.id().short()) => {
                Err(WireError {
                    first: Some(ours.first().get()),
                    last: Some(ours.committed().get()),
                    log: Some(ours.id()),
                    ..WireError::new(
                        Code::OffsetGone,
                        format!("log: {named} is another log than this one, {}", ours.id()),
                    )
                })
            }
            _ => Ok(()),
        }
    }

    fn check_read(&self, filters: &Filters) -> Result<(), WireError> {
        self.check_standing()?;
        if is_never_delivered(filters) {
            let text = "filters: the events of $acks, $subscriptions and $scheduled are the broker's own and never delivered";
            return Err(WireError::new(Code::PermissionDenied, text));
        }
        match self.identity.grants.refused(filters) {
            None => Ok(()),
            Some(filter) => Err(self.denied("subscribe to", filter.as_str())),
        }
    }

    fn check_durable(&self, name: &str) -> Result<(), WireError> {
        self.check_standing()?;
        match self.identity.grants.may_use_durable(name) {
            true => Ok(()),
            false => Err(self.denied("use the durable subscription", name)),
        }
    }

    /// That this is the admin.
    ///
    /// # Errors
    /// `permission_denied`, which says what it was about.
    pub fn check_admin(&self, what: &str) -> Result<(), WireError> {
        self.check_standing()?;
        match self.identity.grants.is_admin() {
            true => Ok(()),
            false => Err(WireError::new(
                Code::PermissionDenied,
                format!("{what} is for the admin: use a token with \"admin\": true"),
            )),
        }
    }

    fn denied(&self, what: &str, whom: &str) -> WireError {
        WireError::new(
            Code::PermissionDenied,
            format!("{} may not {what} {whom}", self.identity.subject),
        )
    }
}

/// What an ack names: exactly one of the two.
pub(crate) fn target(ack: &Ack) -> Result<Target, WireError> {
    match (ack.offset, &ack.offsets) {
        (Some(offset), None) => Ok(Target::UpTo(offset)),
        (None, Some(offsets)) => {
            check_count(offsets.len())?;
            Ok(Target::These(offsets.clone()))
        }
        _ => Err(WireError::invalid(
            "ack: give offset (all up to it) or offsets (just these), one of the two",
        )),
    }
}

pub(crate) fn check_count(offsets: usize) -> Result<(), WireError> {
    match offsets {
        0 => Err(WireError::invalid("offsets: at least one is needed")),
        n if n > ACK_OFFSETS_MAX => Err(WireError::new(
            Code::TooLarge,
            format!("offsets: {n}, at most {ACK_OFFSETS_MAX} are allowed"),
        )),
        _ => Ok(()),
    }
}

fn no_durable(name: &str) -> WireError {
    WireError::new(Code::NotFound, format!("there is no durable subscription \"{name}\""))
}

/// A topic named in a path or a query.
///
/// # Errors
/// `invalid_argument`, naming the field.
pub fn parse_topic(field: &str, text: &str) -> Result<Topic, WireError> {
    Topic::parse(text)
        .map_err(|error| WireError::invalid(format!("{field}: \"{}\" {error}", shown(text))))
}

/// A filter named in a path or a query.
///
/// # Errors
/// `invalid_argument`, naming the field.
pub fn parse_filter(field: &str, text: &str) -> Result<Filter, WireError> {
    Filter::parse(text)
        .map_err(|error| WireError::invalid(format!("{field}: \"{}\" {error}", shown(text))))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
