//! The composition root: builds the rooms bottom-up and stops them top-down. The only file that knows every room.
//!
//! Stop order: no new connections → `goodbye` with a spread hint → sessions drain → the append queue closes →
//! last sync → the log closes. A deadline holds for all of it.

mod fetch;
mod keys;
mod manager;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{keys::Kept, manager::Manager};
pub use crate::broker::StartError;
use crate::{
    auth::Authenticator,
    broker::{self, Running},
    config::{Auth, Config, ConfigError, TlsFiles},
    metrics,
    net::{Door, DoorKind, listener, tls::Tls},
    session::House,
};

/// How often what histograms were told is put into their buckets: 8 bytes an observation wait meanwhile.
const METRICS_EVERY: Duration = Duration::from_secs(2);

/// How many connections the kernel may have ready for us: when all come back at once, one that finds no place there
/// tries again only after a second.
const BACKLOG: u32 = 4096;

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
    tls: Option<Secure>,
    keys: Kept,
}

/// The TLS of the public door.
struct Secure {
    files: TlsFiles,
    tls: Arc<Tls>,
}

impl Secure {
    fn open(files: TlsFiles) -> Result<Secure, ConfigError> {
        Ok(Secure { tls: Arc::new(files.open()?), files })
    }

    /// Reads the certificate anew; where that fails the one before stays.
    fn reload(&self) {
        let replaced = self.files.reopen(&self.tls);
        metrics::certificate_read(replaced.is_ok());
        match replaced {
            Ok(()) => tracing::info!("new connections are shown the certificate as it is now"),
            Err(error) => tracing::warn!(%error, "the certificate stays as it was"),
        }
    }
}

impl Server {
    /// Opens the log and the doors.
    ///
    /// # Errors
    /// When the log does not open or an address is taken.
    pub async fn start(config: Config) -> anyhow::Result<Server> {
        metrics::install();
        let Config { durables_max, durables_shown, presence, scheduled_max, slots_max, .. } =
            config;
        let started = broker::start(
            &config.log,
            durables_max,
            durables_shown,
            presence,
            scheduled_max,
            slots_max,
        );
        let (broker, running) = started
            .with_context(|| format!("the log in {} does not open", config.log.dir.display()))?;
        metrics::reserved(config.log.reserve_bytes);
        let Auth { options, files, key_set } = config.auth;
        let authenticator = Authenticator::new(&options)?;
        let tls = config.tls.map(Secure::open).transpose()?;
        let stop = CancellationToken::new();
        let house = House::new(broker, authenticator, config.limits, stop.clone());
        let (tasks, admin_tasks) = (TaskTracker::new(), TaskTracker::new());
        let stop_admin = CancellationToken::new();
        let keys = Kept::new(house.clone(), options, files);
        if let Some(set) = key_set {
            // Before the doors: whoever comes at once finds the keys.
            let is_good = keys::refresh(&house, &set.source).await;
            let (house, stop) = (house.clone(), stop_admin.clone());
            admin_tasks.spawn(keys::keep(house, set, is_good, keys.asked(), stop));
        }
        let public = bind(config.listen)?;
        let admin = bind(config.admin)?;
        let (public_addr, admin_addr) = (public.local_addr()?, admin.local_addr()?);
        let door = Door::new(house.clone(), config.net.clone(), DoorKind::Public)?
            .over(tls.as_ref().map(|secure| secure.tls.clone()));
        let told = house.clone();
        let admin_door = Door::new(house, config.net, DoorKind::Admin)?;
        tasks.spawn(listener::serve(public, Arc::new(door), stop.clone(), tasks.clone()));
        admin_tasks.spawn(listener::serve(
            admin,
            Arc::new(admin_door),
            stop_admin.clone(),
            admin_tasks.clone(),
        ));
        admin_tasks.spawn(keep_metrics(stop_admin.clone()));
        tasks.spawn(async move { told.audit.tell(&told.broker, told.stop.clone()).await });
        Ok(Server {
            public: public_addr,
            admin: admin_addr,
            running,
            stop,
            stop_admin,
            tasks,
            admin_tasks,
            stop_timeout: config.stop_timeout,
            tls,
            keys,
        })
    }

    /// Where the public listener is.
    pub fn public_addr(&self) -> SocketAddr {
        self.public
    }

    /// Where the public listener is, as clients are told.
    pub fn public_url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.public)
    }

    /// Reads anew what may change while it runs: the certificate, and the keys of tokens.
    pub fn reload(&self) {
        self.keys.reload();
        match &self.tls {
            Some(secure) => secure.reload(),
            None => tracing::info!("there is no certificate to read anew"),
        }
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

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().with_context(|| format!("cannot listen on {address}: is another broker running?"))
}

/// Runs a broker until it is told to stop by SIGTERM or SIGINT; a second one stops it at once.
///
/// # Errors
/// When it does not start.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let demo = config.demo;
    let server = Server::start(config).await?;
    announce(&server, demo);
    if !server.admin_addr().ip().is_loopback() {
        tracing::warn!(
            admin = %server.admin_addr(),
            "the operators' listener can be reached from elsewhere and asks for no token: let only operators reach it"
        );
    }
    let manager = Manager::of_environment();
    manager.tell("READY=1");
    let alive = tokio::spawn(manager.clone().keep_alive());
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            Some(()) = hangup.recv() => server.reload(),
        }
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
    let (public, admin) = (server.public_url(), server.admin_addr());
    let mut out = std::io::stdout().lock();
    // Nobody may be reading: the broker runs all the same.
    let _ = writeln!(out, "listening public={public} admin=http://{admin}");
    let _ = out.flush();
    if demo {
        let mut hints = std::io::stderr().lock();
        let _ = writeln!(hints, "try it in a browser: {public}/\nor in two other terminals:");
        let _ = writeln!(hints, "  tidings --url {public} sub 'greetings.>' --after 0");
        let _ = writeln!(
            hints,
            "  tidings --url {public} pub greetings.world '{{\"hello\":\"world\"}}'"
        );
    }
}
