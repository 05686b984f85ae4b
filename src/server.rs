//! The composition root: builds the rooms bottom-up and stops them top-down. The only file that knows every room.
//!
//! Stop order: no new connections → `goodbye` with a spread hint → sessions drain → the append queue closes →
//! last sync → the log closes. A deadline holds for all of it.

mod keys;
mod manager;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::manager::Manager;
use crate::{
    auth::Authenticator,
    broker::{self, Running},
    config::{Auth, Config},
    metrics,
    net::{Door, DoorKind, listener},
    session::House,
};

/// How often what histograms were told is put into their buckets: 8 bytes an observation wait meanwhile.
const METRICS_EVERY: Duration = Duration::from_secs(2);

/// A broker that runs.
pub struct Server {
    public: SocketAddr,
    admin: SocketAddr,
    running: Running,
    /// Says stop to the sessions and the public door.
    stop: CancellationToken,
    /// Says stop to the admin door, which goes last.
    stop_admin: CancellationToken,
    tasks: TaskTracker,
    admin_tasks: TaskTracker,
    stop_timeout: Duration,
}

impl Server {
    /// Opens the log and the doors.
    ///
    /// # Errors
    /// When the log does not open or an address is taken.
    pub async fn start(config: Config) -> anyhow::Result<Server> {
        metrics::install();
        let Config { durables_max, durables_shown, presence, scheduled_max, .. } = config;
        let started =
            broker::start(&config.log, durables_max, durables_shown, presence, scheduled_max);
        let (broker, running) = started
            .with_context(|| format!("the log in {} does not open", config.log.dir.display()))?;
        metrics::reserved(config.log.reserve_bytes);
        let Auth { options, key_set } = config.auth;
        let authenticator = Authenticator::new(&options)?;
        let stop = CancellationToken::new();
        let house = House::new(broker, authenticator, config.limits, stop.clone());
        let (tasks, admin_tasks) = (TaskTracker::new(), TaskTracker::new());
        let stop_admin = CancellationToken::new();
        if let Some(set) = key_set {
            // Before the doors: whoever comes at once finds the keys.
            let is_good = keys::refresh(&house, &set.source).await;
            admin_tasks.spawn(keys::keep(house.clone(), set, is_good, stop_admin.clone()));
        }
        let public = bind(config.listen).await?;
        let admin = bind(config.admin).await?;
        let (public_addr, admin_addr) = (public.local_addr()?, admin.local_addr()?);
        let door = Door::new(house.clone(), config.net.clone(), DoorKind::Public)?;
        let admin_door = Door::new(house, config.net, DoorKind::Admin)?;
        tasks.spawn(listener::serve(public, Arc::new(door), stop.clone(), tasks.clone()));
        admin_tasks.spawn(listener::serve(
            admin,
            Arc::new(admin_door),
            stop_admin.clone(),
            admin_tasks.clone(),
        ));
        admin_tasks.spawn(keep_metrics(stop_admin.clone()));
        Ok(Server {
            public: public_addr,
            admin: admin_addr,
            running,
            stop,
            stop_admin,
            tasks,
            admin_tasks,
            stop_timeout: config.stop_timeout,
        })
    }

    /// Where the public listener is.
    pub fn public_addr(&self) -> SocketAddr {
        self.public
    }

    /// Where the admin listener is.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// Stops it: everything that was accepted is answered, everything acknowledged stays.
    pub async fn stop(self) {
        self.running.stopping();
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(self.stop_timeout, self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "connections did not end in time and are cut");
        }
        self.running.stop().await;
        self.stop_admin.cancel();
        self.admin_tasks.close();
        let _ = tokio::time::timeout(Duration::from_secs(1), self.admin_tasks.wait()).await;
    }
}

/// Keeps what histograms were told small, also where nobody scrapes.
async fn keep_metrics(stop: CancellationToken) {
    let mut every = tokio::time::interval(METRICS_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => metrics::upkeep(),
        }
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: is another broker running?"))
}

/// Runs a broker until it is told to stop by SIGTERM or SIGINT; a second one stops it at once.
///
/// # Errors
/// When it does not start.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let demo = config.demo;
    let server = Server::start(config).await?;
    announce(&server, demo);
    let manager = Manager::of_environment();
    manager.tell("READY=1");
    let alive = tokio::spawn(manager.clone().keep_alive());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    manager.tell("STOPPING=1");
    tokio::select! {
        () = server.stop() => {}
        _ = terminate.recv() => tracing::warn!("told twice: stopping at once"),
        _ = interrupt.recv() => tracing::warn!("told twice: stopping at once"),
    }
    alive.abort();
    Ok(())
}

/// The one line that other programs wait for, on stdout.
fn announce(server: &Server, demo: bool) {
    use std::io::Write;
    let (public, admin) = (server.public_addr(), server.admin_addr());
    let mut out = std::io::stdout().lock();
    // Nobody may be reading: the broker runs all the same.
    let _ = writeln!(out, "listening public=http://{public} admin=http://{admin}");
    let _ = out.flush();
    if demo {
        eprintln!("try it in a browser: http://{public}/");
        eprintln!("or in two other terminals:");
        eprintln!("  tidings --url http://{public} sub 'greetings.>' --after 0");
        eprintln!("  tidings --url http://{public} pub greetings.world '{{\"hello\":\"world\"}}'");
    }
}
