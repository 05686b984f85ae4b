//! What a service manager hears, on the socket it names (sd_notify(3)).

use std::os::unix::net::UnixDatagram;

use crate::util::{Broker, PATIENCE, http};

/// The next thing that is said and is not that the broker is alive.
fn heard(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 256];
    loop {
        let length = manager.recv(&mut bytes).expect("nothing was said in time");
        let said = String::from_utf8(bytes[..length].to_vec()).unwrap();
        if said != "WATCHDOG=1" {
            return said;
        }
    }
}

#[tokio::test]
async fn a_service_manager_is_told_when_it_is_ready_and_when_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut broker = Broker::stopped(dir.path(), &[]);
    let mut command = broker.command();
    command.env("NOTIFY_SOCKET", &path);
    broker.run(command);
    assert_eq!(heard(&manager), "READY=1");
    let answer = http::get(&broker.admin, "/readyz").await;
    assert_eq!(answer.status, 200, "said before it was so");
    let (code, _) = broker.terminate();
    assert_eq!(code, Some(0));
    assert_eq!(heard(&manager), "STOPPING=1");
}

#[tokio::test]
async fn a_service_manager_that_wants_to_know_hears_that_it_is_alive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut broker = Broker::stopped(dir.path(), &[]);
    let mut command = broker.command();
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "20000");
    broker.run(command);
    let mut bytes = [0; 256];
    let mut alive = 0;
    while alive < 3 {
        let length = manager.recv(&mut bytes).expect("nothing was said in time");
        alive += usize::from(&bytes[..length] == b"WATCHDOG=1");
    }
}
