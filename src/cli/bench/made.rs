//! Durables that a load makes and forgets again, also when it fails or is interrupted.

use std::time::Duration;

use anyhow::{Context, bail};
use hyper::{Method, StatusCode};
use tidings_proto::{Filter, Filters, SubscribeOptions};

use super::{http::Http, progress::Progress};
use crate::{cli::Globals, clock};

/// How many connections make and forget them.
const CONNECTIONS: u64 = 16;
/// How long forgetting them may take: so long,
const FORGET_WAIT: Duration = Duration::from_secs(60);
/// and a second more for so many of them. Each is a commit of its own.
const FORGOTTEN_A_SECOND: u64 = 1000;

/// Somebody pressed Ctrl-C.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; what was made is forgotten again")]
struct Interrupted;

/// Durables of one load, spread over topics.
#[derive(Clone, Debug)]
pub(super) struct Made {
    prefix: String,
    /// What stands before a topic's number.
    pub(super) topics: &'static str,
    /// Over how many topics they are spread.
    pub(super) groups: u64,
    /// How many.
    pub(super) count: u64,
}

impl Made {
    /// Names for so many, none of which another load has.
    pub(super) fn named(load: &str, topics: &'static str, groups: u64, count: u64) -> Made {
        let id = clock::session_id().simple().to_string();
        let id = id.get(..8).unwrap_or_default();
        Made {
            prefix: format!("bench-{load}-{id}-"),
            topics,
            groups: groups.clamp(1, count),
            count,
        }
    }

    /// The name of one.
    pub(super) fn name(&self, number: u64) -> String {
        format!("{}{number}", self.prefix)
    }

    /// Whether this is the name of one of them.
    pub(super) fn is_one(&self, name: &str) -> bool {
        name.starts_with(&self.prefix)
    }

    /// On which topic one is.
    pub(super) fn group(&self, number: u64) -> u64 {
        number % self.groups
    }

    /// Its filter, and nothing else but defaults.
    pub(super) fn options(&self, number: u64) -> anyhow::Result<SubscribeOptions> {
        let filter = Filter::parse(&format!("{}{}", self.topics, self.group(number)))?;
        Ok(SubscribeOptions::to(Filters::one(filter)))
    }

    /// How many of them an event gets to, of this topic.
    pub(super) fn reach(&self, group: u64) -> u64 {
        self.count / self.groups + u64::from(group < self.count % self.groups)
    }

    /// Makes all of them over HTTP.
    pub(super) async fn make(&self, globals: &Globals, progress: &Progress) -> anyhow::Result<()> {
        let counter = progress.counter();
        let bodies = async |http: &mut Http, number| {
            let body = serde_json::to_vec(&self.options(number)?)?;
            self.ask(http, Method::PUT, number, body, &[StatusCode::CREATED]).await?;
            counter.add(1);
            anyhow::Ok(())
        };
        self.each(globals, bodies).await
    }

    /// Runs a load and forgets them then, however it ends; Ctrl-C ends it.
    pub(super) async fn forgotten_after<T>(
        &self,
        globals: &Globals,
        load: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let done = tokio::select! {
            done = load => done,
            pressed = tokio::signal::ctrl_c() => Err(match pressed {
                Ok(()) => Interrupted.into(),
                Err(error) => error.into(),
            }),
        };
        let wait = FORGET_WAIT + Duration::from_secs(self.count / FORGOTTEN_A_SECOND);
        let forgetting = tokio::time::timeout(wait, self.forget(globals)).await;
        let too_long = |_| anyhow::anyhow!("it takes more than {} s", wait.as_secs());
        let forgotten = forgetting.map_err(too_long).flatten();
        let left = || format!("the durables {}… are left: delete them", self.prefix);
        // What went wrong first is what is told.
        let done = done?;
        forgotten.with_context(left)?;
        Ok(done)
    }

    async fn forget(&self, globals: &Globals) -> anyhow::Result<()> {
        // A load that failed has not made all of them.
        let good = [StatusCode::NO_CONTENT, StatusCode::NOT_FOUND];
        let each = async |http: &mut Http, number| {
            self.ask(http, Method::DELETE, number, Vec::new(), &good).await
        };
        self.each(globals, each).await
    }

    async fn ask(
        &self,
        http: &mut Http,
        method: Method,
        number: u64,
        body: Vec<u8>,
        good: &[StatusCode],
    ) -> anyhow::Result<()> {
        let path = format!("/v1/subscriptions/{}", self.name(number));
        let (status, said) = http.ask(method, &path, body).await?;
        if !good.contains(&status) {
            let said: String = String::from_utf8_lossy(&said).chars().take(500).collect();
            bail!("{path}: the broker answers {status}: {said}");
        }
        Ok(())
    }

    /// Does something with each of them, over some connections at a time.
    async fn each(
        &self,
        globals: &Globals,
        act: impl AsyncFn(&mut Http, u64) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let lines = (0..CONNECTIONS.min(self.count))
            .map(|first| async move { anyhow::Ok((first, Http::open(globals).await?)) });
        let lines = futures_util::future::try_join_all(lines).await?;
        let step = usize::try_from(CONNECTIONS).unwrap_or(1);
        let work = lines.into_iter().map(async |(first, mut http)| {
            for number in (first..self.count).step_by(step) {
                act(&mut http, number).await?;
            }
            anyhow::Ok(())
        });
        futures_util::future::try_join_all(work).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_durable_has_a_topic_and_every_event_its_reach() {
        for (groups, count) in [(10, 1000), (3, 7), (5, 2), (1, 1)] {
            let made = Made::named("test", "bench.test.", groups, count);
            let reach: Vec<u64> = (0..made.groups).map(|group| made.reach(group)).collect();
            assert_eq!(reach.iter().sum::<u64>(), count);
            for (group, reach) in (0..).zip(reach) {
                let there = (0..count).filter(|number| made.group(*number) == group).count() as u64;
                assert_eq!(there, reach);
            }
            assert!(made.is_one(&made.name(0)) && !made.is_one("bench-test"));
            let filters = made.options(count - 1).unwrap().filters;
            let topic = format!("bench.test.{}", (count - 1) % made.groups);
            assert_eq!(serde_json::to_value(filters).unwrap(), serde_json::json!([topic]));
        }
    }

    #[test]
    fn two_loads_have_other_names() {
        let [one, other] = [(); 2].map(|()| Made::named("test", "bench.test.", 1, 1));
        assert!(!one.is_one(&other.name(0)));
    }
}
