//! What the service manager is told (sd_notify(3)): that the broker is ready, alive, or stopping.

use std::{
    ffi::OsString,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

/// The service manager that has started us, if one has.
#[derive(Clone, Debug)]
pub(super) struct Manager {
    socket: Option<OsString>,
    /// How often it wants to hear from us.
    watchdog: Option<Duration>,
}

impl Manager {
    /// As the environment says.
    pub(super) fn of_environment() -> Manager {
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        // What is meant for another process of the service is not for us.
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|us| is_ours && *us > 0);
        Manager {
            socket: std::env::var_os("NOTIFY_SOCKET"),
            watchdog: watchdog.map(Duration::from_micros),
        }
    }

    /// Tells it something, `READY=1` or the like.
    pub(super) fn tell(&self, state: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send(socket.as_bytes(), state) {
            tracing::warn!(%error, state, "the service manager could not be told");
        }
    }

    /// Says that tasks still run, twice as often as it wants to hear it.
    pub(super) async fn keep_alive(self) {
        let Some(within) = self.watchdog else { return };
        let mut every = tokio::time::interval((within / 2).max(Duration::from_millis(1)));
        loop {
            every.tick().await;
            self.tell("WATCHDOG=1");
        }
    }
}

fn send(socket: &[u8], state: &str) -> io::Result<()> {
    let address = match socket.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(socket))?,
    };
    let from = UnixDatagram::unbound()?;
    // Tasks run on this thread: a manager that does not listen must not hold them.
    from.set_nonblocking(true)?;
    from.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_an_at_is_an_abstract_socket() {
        let name = format!("tidings-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        send(format!("@{name}").as_bytes(), "READY=1").unwrap();
        let mut bytes = [0; 64];
        let length = manager.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"READY=1");
    }

    #[tokio::test]
    async fn a_manager_that_is_gone_is_no_trouble() {
        let told = Manager { socket: Some("/nowhere/notify".into()), watchdog: None };
        told.tell("READY=1");
        told.keep_alive().await;
    }
}
