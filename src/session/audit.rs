//! What is told on `$audit` of what happens at the doors.
//!
//! - What an admin does is told one by one, once it is done, with who did it and from where. Where everybody is the
//!   admin, on an open broker, nothing is told of it.
//! - What strangers do is summed up, so that nobody fills the log: one event of a kind in five seconds at most.
//! - No token and no secret is ever in it.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tidings_proto::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{
    Session,
    rates::{Kind, network},
};
use crate::{broker::Broker, clock};

/// How often what has been summed up is told.
const EVERY: Duration = Duration::from_secs(5);
/// How many addresses and subjects are named in one event.
const NAMED_MAX: usize = 16;

/// What is to be told.
#[derive(Default)]
pub struct Audit(Mutex<Sums>);

#[derive(Default)]
struct Sums {
    failed_auth: Sum,
    exceeded: BTreeMap<&'static str, Sum>,
}

/// How often something happened, and who did it.
#[derive(Default)]
struct Sum {
    count: u64,
    since: Option<Timestamp>,
    /// By network, so that one customer of IPv6 is named once.
    addresses: BTreeMap<[u8; 8], (IpAddr, u64)>,
    subjects: BTreeMap<String, u64>,
}

impl Audit {
    /// A token did not hold.
    pub fn failed_auth(&self, ip: IpAddr) {
        self.0.lock().failed_auth.add(ip, None);
    }

    /// Somebody was cut off who went on though they were refused.
    pub fn exceeded(&self, kind: Kind, ip: IpAddr, subject: Option<&str>) {
        self.0.lock().exceeded.entry(kind.as_str()).or_default().add(ip, subject);
    }

    /// What has been summed up since the last time: types and data of events.
    fn take(&self) -> Vec<(&'static str, Value)> {
        let Sums { failed_auth, exceeded } = std::mem::take(&mut *self.0.lock());
        let failed = (failed_auth.count > 0).then(|| ("auth.failed", failed_auth.into_json()));
        let exceeded = exceeded.into_iter().map(|(kind, sum)| {
            let mut data = sum.into_json();
            if let Some(data) = data.as_object_mut() {
                data.insert("limit".to_owned(), json!(kind));
            }
            ("limits.exceeded", data)
        });
        failed.into_iter().chain(exceeded).collect()
    }

    /// Tells it, again and again, until `stop`, and what is left then.
    pub async fn tell(&self, broker: &Broker, stop: CancellationToken) {
        loop {
            let stopped = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(EVERY) => false,
            };
            for (kind, data) in self.take() {
                if let Err(error) = broker.audit(kind, &data).await {
                    tracing::warn!(kind, %data, %error, "operators could not be told");
                }
            }
            if stopped {
                return;
            }
        }
    }
}

impl Sum {
    fn add(&mut self, ip: IpAddr, subject: Option<&str>) {
        self.count += 1;
        self.since.get_or_insert_with(clock::now);
        let has_room = self.addresses.len() < NAMED_MAX;
        match self.addresses.get_mut(&network(ip)) {
            Some((_, count)) => *count += 1,
            None if has_room => drop(self.addresses.insert(network(ip), (ip, 1))),
            None => {}
        }
        let Some(subject) = subject else { return };
        let has_room = self.subjects.len() < NAMED_MAX;
        match self.subjects.get_mut(subject) {
            Some(count) => *count += 1,
            None if has_room => drop(self.subjects.insert(subject.to_owned(), 1)),
            None => {}
        }
    }

    fn into_json(self) -> Value {
        let addresses = self.addresses.into_values();
        let addresses: BTreeMap<String, u64> =
            addresses.map(|(ip, count)| (ip.to_string(), count)).collect();
        let mut data = json!({"count": self.count, "addresses": addresses});
        if let Some(data) = data.as_object_mut() {
            if !self.subjects.is_empty() {
                data.insert("subjects".to_owned(), json!(self.subjects));
            }
            if let Some(since) = self.since {
                data.insert("since".to_owned(), json!(since));
            }
        }
        data
    }
}

impl Session {
    /// Operators are told what this admin has done.
    pub(super) async fn done_as_admin(&self, what: &'static str, name: &'static str, of: &str) {
        if self.house.authenticator.is_open() || !self.identity.grants.is_admin() {
            return;
        }
        let (by, address) = (&self.identity.subject, self.guest.ip().to_string());
        let data = json!({"by": by, "address": address, name: of});
        if let Err(error) = self.broker().audit(what, &data).await {
            tracing::warn!(what, %data, %error, "operators could not be told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s7_what_strangers_do_is_summed_up_and_bounded() {
        let audit = Audit::default();
        assert!(audit.take().is_empty());
        for n in 0..1000_u32 {
            audit.failed_auth(IpAddr::from(n.to_be_bytes()));
            audit.exceeded(Kind::Acks, IpAddr::from([10, 0, 0, 1]), Some(&format!("s{n}")));
        }
        let told = audit.take();
        let kinds: Vec<_> = told.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, ["auth.failed", "limits.exceeded"]);
        for (_, data) in &told {
            assert_eq!(data["count"], 1000);
            assert!(data["since"].is_string() && data.to_string().len() < 2000, "{data}");
        }
        assert_eq!(told[0].1["addresses"].as_object().unwrap().len(), NAMED_MAX);
        assert_eq!(told[1].1["addresses"]["10.0.0.1"], 1000);
        assert_eq!(told[1].1["limit"], "acks");
        assert_eq!(told[1].1["subjects"].as_object().unwrap().len(), NAMED_MAX);
        assert!(audit.take().is_empty());
    }
}
