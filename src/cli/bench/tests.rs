//! Which option a measurement takes; what it does not take it refuses.

use clap::Parser;

use crate::cli::Cli;

fn parses(words: &[&str]) -> bool {
    Cli::try_parse_from(["tidings", "bench"].iter().chain(words)).is_ok()
}

#[test]
fn an_option_is_taken_or_refused() {
    const OPTIONS: [&str; 17] = [
        "--events",
        "--size",
        "--connections",
        "--in-flight",
        "--subscribers",
        "--topics",
        "--seconds",
        "--durables",
        "--deliveries",
        "--agents",
        "--dashboards",
        "--rate",
        "--lag",
        "--page",
        "--attach",
        "--rounds",
        "--linger-ms",
    ];
    for (command, taken) in [
        (&["pub"][..], "--events --size --topics --seconds --connections --in-flight --rate"),
        (&["fanout"], "--events --size --topics --seconds --subscribers --in-flight --rate"),
        (&["resume"], "--events --size --topics --seconds"),
        (&["resume", "--no-publish"], "--seconds"),
        (
            &["acks"],
            "--durables --connections --topics --deliveries --size --in-flight --seconds --rounds --linger-ms",
        ),
        (&["agents"], "--agents --rate --dashboards --seconds"),
        (&["durables"], "--durables --lag --topics --size --page --attach --seconds"),
        (&["idle", "--pid", "1"], "--connections"),
        (&["floor"], "--size --connections --subscribers --seconds --rate"),
    ] {
        assert!(parses(command), "{command:?}");
        assert!(parses(&[command, &["--json"]].concat()), "{command:?} --json");
        for option in OPTIONS {
            let is_taken = taken.split(' ').any(|word| word == option);
            let words = [command, &[option, "50"]].concat();
            assert_eq!(parses(&words), is_taken, "{words:?}");
        }
    }
}

#[test]
fn nothing_is_no_load() {
    for words in [
        "pub --connections 0",
        "pub --in-flight 0",
        "pub --topics 0",
        "pub --seconds 0",
        "fanout --subscribers 0",
        "fanout --in-flight 0",
        "resume --runs 0",
        "acks --durables 0",
        "acks --durables 100001",
        "acks --connections 0",
        "acks --topics 0",
        "acks --in-flight 0",
        "acks --seconds 1",
        "acks --rounds 0",
        "acks --rounds 101",
        "acks --ack twice",
        "agents --agents 0",
        "agents --agents 100000",
        "agents --rate 0",
        "agents --dashboards 0",
        "agents --seconds 0",
        "durables --durables 0",
        "durables --lag 100001",
        "durables --page 1001",
        "durables --attach 0",
        "durables --admin http://127.0.0.1:9090 --pid 1",
        "idle --pid 1 --connections 0",
        "floor --clients 0x1",
        "floor --clients 64",
        "floor --batch 0",
        "floor --wire 7",
        "floor --wire 100000000",
        "floor --only nothing",
        "floor --size 18446744073709551615",
        "pub --size 18446744073709551615",
        "pub --encoding xml",
    ] {
        assert!(!parses(&words.split(' ').collect::<Vec<_>>()), "{words}");
    }
}
