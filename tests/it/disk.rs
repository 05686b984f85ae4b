//! The data directory: one owner.

use crate::util::{Broker, Reaped};

#[test]
fn g13_a_second_broker_on_the_same_directory_exits_with_a_sentence() {
    let broker = Broker::start();
    let mut command = broker.command();
    command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut second = Reaped(command.spawn().unwrap());
    let status = second.0.wait().unwrap();
    assert_eq!(status.code(), Some(75));
    let output = broker.cli(&["status", "--json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
