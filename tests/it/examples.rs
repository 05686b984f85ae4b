//! The examples do what they say, against a real broker: each checks its own outcome.

use std::path::Path;

use crate::util::{Broker, binary};

async fn holds(name: &str) {
    let broker = Broker::start();
    let beside = Path::new(binary()).parent().unwrap().join("examples").join(name);
    assert!(beside.exists(), "{name} is not built: run cargo build --examples");
    let url = broker.url();
    // Twice: an example can be run again against the same broker.
    for _ in 0..2 {
        let (beside, url) = (beside.clone(), url.clone());
        let run = move || std::process::Command::new(beside).arg(url).output().unwrap();
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {said}");
    }
}

#[tokio::test]
async fn an_inbox_with_its_unread_count_on_two_devices() {
    holds("inbox").await;
}

#[tokio::test]
async fn an_operation_with_progress_retry_deadline_and_cancel() {
    holds("operation").await;
}

#[tokio::test]
async fn a_structure_with_snapshots_and_patches_of_two_editors() {
    holds("structure").await;
}

#[tokio::test]
async fn a_structure_of_independent_parts() {
    holds("structure_parts").await;
}

#[tokio::test]
async fn a_streamed_message_that_is_interrupted_and_joined_late() {
    holds("streamed_message").await;
}

#[tokio::test]
async fn commands_to_an_agent_with_an_interrupt() {
    holds("agent_queue").await;
}

#[tokio::test]
async fn terminal_output_byte_for_byte() {
    holds("terminal").await;
}

#[tokio::test]
async fn dashboards_in_step() {
    holds("dashboards").await;
}

#[test]
fn every_example_is_run_here_and_listed() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let listed = std::fs::read_to_string(dir.join("README.md")).unwrap();
    let files = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name());
    let names = files.filter_map(|file| Some(file.to_str()?.strip_suffix(".rs")?.to_owned()));
    let names: Vec<_> = names.collect();
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        let runs = format!("holds(\"{name}\")");
        assert!(include_str!("examples.rs").contains(&runs), "{name} is not run");
        assert!(listed.contains(&format!("({name}.rs)")), "{name} is not in examples/README.md");
    }
}
