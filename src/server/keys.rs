//! Keeps the keys of tokens fresh: those of files on SIGHUP, and the key set, which it reads again and again from its
//! file or the server that has it.
//!
//! - What cannot be read or is no good changes nothing: the last good keys stay, and a warning and a metric say so.
//! - A token that names an unknown key has the set read at once, but not before [`WANTED_MIN`] since it was read last:
//!   whoever makes up names costs no more than that.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::fetch::fetch;
use crate::{
    auth,
    config::{ConfigError, KeyFiles, KeySet, KeySource, read_regular},
    metrics,
    session::House,
};

/// How long after a reading a token may ask for the next.
const WANTED_MIN: Duration = Duration::from_secs(60);
/// How long after a reading that failed comes the next at the latest.
const RETRY: Duration = Duration::from_secs(60);

/// The keys that are read anew when somebody says so.
pub(super) struct Kept {
    house: Arc<House>,
    options: auth::Options,
    files: KeyFiles,
    /// The set is to be read now.
    asked: Arc<Notify>,
}

impl Kept {
    pub(super) fn new(house: Arc<House>, options: auth::Options, files: KeyFiles) -> Kept {
        Kept { house, options, files, asked: Arc::default() }
    }

    /// Announces every [`Kept::reload`].
    pub(super) fn asked(&self) -> Arc<Notify> {
        self.asked.clone()
    }

    /// Reads the files anew; where that fails the keys before stay. Has the set read too.
    pub(super) fn reload(&self) {
        self.asked.notify_one();
        if self.files.is_empty() {
            return;
        }
        let replaced = self.replace();
        metrics::keys_read(replaced.is_ok());
        match replaced {
            Ok(()) => tracing::info!("tokens are held against the keys as they are now"),
            Err(error) => tracing::warn!(%error, "the keys of tokens stay as they were"),
        }
    }

    fn replace(&self) -> Result<(), ConfigError> {
        let options = self.files.read(&self.options)?;
        Ok(self.house.authenticator.replace_keys(&options)?)
    }
}

/// Reads the set again and again, as the settings say and when it is `asked` for, until `stop`; it was read just now,
/// and `is_good`.
pub(super) async fn keep(
    house: Arc<House>,
    set: KeySet,
    mut is_good: bool,
    asked: Arc<Notify>,
    stop: CancellationToken,
) {
    loop {
        let read_at = Instant::now();
        let wait = if is_good { set.refresh } else { set.refresh.min(RETRY) };
        tokio::select! {
            () = stop.cancelled() => return,
            () = asked.notified() => {}
            () = tokio::time::sleep_until(read_at + wait) => {}
            () = wanted(&house, read_at) => {}
        }
        is_good = refresh(&house, &set.source).await;
    }
}

/// Reads the set once; says whether it is good.
pub(super) async fn refresh(house: &House, source: &KeySource) -> bool {
    let text = match source {
        KeySource::File(path) => {
            let path = path.clone();
            let read = tokio::task::spawn_blocking(move || read_regular(&path)).await;
            read.map_err(anyhow::Error::from).and_then(|text| Ok(text?))
        }
        KeySource::Server(server) => fetch(server).await,
    };
    let replaced = text.and_then(|text| Ok(house.authenticator.replace_set(&text)?));
    metrics::keys_refreshed(replaced.is_ok());
    match replaced {
        Ok(keys) => {
            tracing::debug!(keys, "the key set of tokens was read");
            true
        }
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(error, "the key set of tokens was not read; the last good one stays");
            false
        }
    }
}

/// Waits until a token asks for the next reading, and it may.
async fn wanted(house: &House, read_at: Instant) {
    house.authenticator.key_wanted().await;
    tokio::time::sleep_until(read_at + WANTED_MIN).await;
}
