//! The settings of protection: how often something may be done, how many may come, which proxies are believed.

use std::time::Duration;

use super::{ConfigError, Values};
use crate::{
    net::forwarded::{Proxies, ProxyHeader},
    session::{
        guests::Caps,
        rates::{Options, Rate, Rates, Scope},
    },
};

/// The setting that says which defaults hold.
const PROFILE: &str = "limits.profile";
/// How many seconds' worth a bucket holds where nothing is said.
const BURST_SECONDS: u64 = 10;
/// The most of anything in a second, and at once.
const RATE_MAX: u64 = 1_000_000_000_000;

/// What a broker has that strangers reach, where nothing else is given: an honest client is far below, whoever shares an
/// address with a few hundred others too.
const PUBLIC: [(&str, &str); 8] = [
    (
        "limits.per_ip",
        "connects=50/500,failed_auth=1/20,requests=1000/10000,publishes=2000/20000,bytes=20000000/200000000,subscribes=500/5000,acks=10000/100000,replay_bytes=50000000/500000000",
    ),
    (
        "limits.per_subject",
        "connects=10/100,requests=500/5000,publishes=1000/10000,bytes=10000000/100000000,subscribes=200/2000,acks=5000/50000,replay_bytes=20000000/200000000",
    ),
    (
        "limits.per_session",
        "requests=200/2000,publishes=500/5000,bytes=5000000/50000000,subscribes=100/1000,acks=2000/20000,replay_bytes=20000000/200000000,controls=10/100",
    ),
    ("limits.connections_per_ip", "500"),
    ("limits.unauthenticated_per_ip", "100"),
    ("limits.long_polls_per_subject", "100"),
    ("limits.subscriptions_max", "200"),
    ("limits.durables_per_subject", "10000"),
];

impl Values {
    /// Adds what the profile has where nothing is given.
    pub(super) fn add_profile(&mut self) {
        if self.text(PROFILE).trim() != "public" {
            return;
        }
        for (key, value) in PUBLIC {
            let of_profile = || (value.to_owned(), format!("{PROFILE}=public"));
            self.0.entry(key).or_insert_with(of_profile);
        }
    }

    pub(super) fn check_profile(&self) -> Result<(), ConfigError> {
        match self.text(PROFILE).trim() {
            "private" | "public" => Ok(()),
            _ => Err(self.wrong(PROFILE)),
        }
    }

    /// How long a stream lasts at most.
    pub(super) fn stream_max(&self) -> Result<Option<Duration>, ConfigError> {
        const KEY: &str = "limits.stream_max";
        match humantime::parse_duration(&self.text(KEY)) {
            Ok(Duration::ZERO) => Ok(None),
            _ => self.duration(KEY, 100, 86_400_000).map(Some),
        }
    }

    pub(super) fn rates(&self, message_bytes_max: u64) -> Result<Options, ConfigError> {
        self.check_profile()?;
        let rates = |key, scope| self.rates_of(key, scope, message_bytes_max);
        Ok(Options {
            ip: rates("limits.per_ip", Scope::Ip)?,
            subject: rates("limits.per_subject", Scope::Subject)?,
            session: rates("limits.per_session", Scope::Session)?,
        })
    }

    fn rates_of(
        &self,
        key: &'static str,
        scope: Scope,
        message_bytes_max: u64,
    ) -> Result<Rates, ConfigError> {
        let mut rates = Rates::default();
        for entry in self.list(key) {
            let parsed = rate(&entry).ok_or_else(|| self.wrong(key))?;
            let (name, rate) = parsed;
            let kind = scope.kinds().iter().find(|kind| kind.as_str() == name);
            let kind = *kind.ok_or_else(|| self.wrong(key))?;
            // A message that may come must be able to.
            let least = if kind.is_bytes() { message_bytes_max } else { 1 };
            let rate = rate.map(|rate| Rate { burst: rate.burst.max(least), ..rate });
            rates.set(kind, rate);
        }
        Ok(rates)
    }

    pub(super) fn caps(&self) -> Result<Caps, ConfigError> {
        Ok(Caps {
            per_ip: self.size("limits.connections_per_ip", 0, 1_000_000)?,
            strangers: self.size("limits.unauthenticated_max", 0, 1_000_000)?,
            strangers_per_ip: self.size("limits.unauthenticated_per_ip", 0, 1_000_000)?,
        })
    }

    pub(super) fn proxies(&self) -> Result<Proxies, ConfigError> {
        let key = "server.trusted_proxies";
        let networks =
            self.list(key).into_iter().map(|text| text.parse().map_err(|()| self.wrong(key)));
        let networks = networks.collect::<Result<_, _>>()?;
        let key = "server.proxy_header";
        let header = match self.text(key).as_str() {
            "x-forwarded-for" => ProxyHeader::XForwardedFor,
            "forwarded" => ProxyHeader::Forwarded,
            _ => return Err(self.wrong(key)),
        };
        Ok(Proxies { networks, header })
    }
}

/// `KIND=RATE` or `KIND=RATE/BURST`; a rate of 0 is none.
fn rate(entry: &str) -> Option<(&str, Option<Rate>)> {
    let (name, value) = entry.split_once('=')?;
    let (rate, burst) = match value.split_once('/') {
        Some((rate, burst)) => (rate, Some(burst.trim().parse::<u64>().ok()?)),
        None => (value, None),
    };
    let per_second: u64 = rate.trim().parse().ok()?;
    let burst = burst.unwrap_or(per_second.saturating_mul(BURST_SECONDS));
    if per_second > RATE_MAX || burst > RATE_MAX {
        return None;
    }
    let rate = (per_second > 0).then_some(Rate { per_second, burst: burst.max(1) });
    Some((name.trim(), rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_a_second_brings_and_what_there_is_at_once() {
        for (entry, expected) in [
            ("acks=5", Some(("acks", Some((5, 50))))),
            ("acks = 5 / 7", Some(("acks", Some((5, 7))))),
            ("acks=0", Some(("acks", None))),
            ("acks=5/0", Some(("acks", Some((5, 1))))),
            ("acks", None),
            ("acks=", None),
            ("acks=-1", None),
            ("acks=5/", None),
            ("acks=1e3", None),
            ("acks=99999999999999", None),
        ] {
            let expected = expected.map(|(name, rate)| {
                (name, rate.map(|(per_second, burst)| Rate { per_second, burst }))
            });
            assert_eq!(rate(entry), expected, "{entry}");
        }
    }
}
