//! Agents that say how they are and what they write, and dashboards that follow all of them.

mod dashboard;

use std::time::Duration;

use tidings_proto::{
    NewEvent, Topic,
    message::{Publish, Request},
};
use tokio::{io::AsyncWriteExt, sync::watch, task::JoinSet};

use self::dashboard::{Got, Said};
use super::{
    at_least_one,
    paced::due,
    progress::Progress,
    report::{Report, latencies},
    socket::Socket,
    speech::Speech,
    stamp::stamp,
};
use crate::{cli::Globals, clock};

/// How many publishes of an agent may be unanswered.
const IN_FLIGHT: u64 = 1000;
/// Of so many messages in turn one is a status, some are progress, and the rest terminal output.
const ROUND: u64 = 10;
const PROGRESS_OF_ROUND: u64 = 3;

/// What `tidings bench agents` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How many agents publish, each over a socket of its own.
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=99_999))]
    pub agents: u64,
    /// How many messages each publishes a second.
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub rate: u64,
    /// How many dashboards follow all of them.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = at_least_one())]
    pub dashboards: u64,
    /// How long is published.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = at_least_one())]
    pub seconds: u64,
    /// How the messages are written, of the agents and of the dashboards.
    #[arg(long, default_value = "json", value_name = "ENCODING")]
    pub encoding: Speech,
}

const EXAMPLES: &str = "\
Examples:
  tidings bench agents --agents 50 --rate 200 --dashboards 10
  tidings bench agents --agents 5 --rate 20 --seconds 60 --encoding msgpack --json

Of ten messages of an agent one is its status (JSON, with a key, on agents.N.status), three are progress (JSON, with a
key, on agents.N.progress) and six terminal output (text, on agents.N.terminal). Dashboards subscribe to agents.> and
must get every message, in the order of its agent: it fails when one is missing. Nobody else should publish there
meanwhile.";

/// Dashboards did not get what was published.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{lost} of {wanted} deliveries are lost: {behind} of {dashboards} dashboards did not get everything{}",
    .why.as_deref().map_or_else(String::new, |why| format!(" ({why})"))
)]
struct Lost {
    lost: u64,
    wanted: u64,
    behind: u64,
    dashboards: u64,
    /// Why the first dashboard was cut off, where one was.
    why: Option<String>,
}

/// Measures.
pub(super) async fn run(
    args: &Args,
    globals: &Globals,
    progress: &Progress,
) -> anyhow::Result<Report> {
    progress.begin("agents", "deliveries");
    let (said, published) = watch::channel(None);
    let mut dashboards = Vec::new();
    for _ in 0..args.dashboards {
        let mut socket = Socket::open(globals, args.encoding).await?;
        socket.subscribe("agents.>").await?;
        dashboards.push(socket);
    }
    let mut sockets = Vec::new();
    for _ in 0..args.agents {
        sockets.push(Socket::open(globals, args.encoding).await?);
    }
    let begun = clock::monotonic();
    let deadline = begun.saturating_add(Duration::from_secs(args.seconds));
    let mut readers = JoinSet::new();
    for socket in dashboards {
        let counter = progress.counter();
        readers.spawn(dashboard::read(socket, published.clone(), args.agents, deadline, counter));
    }
    let mut agents = JoinSet::new();
    for (number, socket) in (0..).zip(sockets) {
        // They do not all speak at once.
        let shift = Duration::from_micros(1_000_000 * number / (args.rate * args.agents));
        let agent = Agent { number, rate: args.rate, begun: begun + shift, deadline };
        agents.spawn(super::answered_by(deadline, agent.speak(socket)));
    }
    let mut events = vec![0; usize::try_from(args.agents)?];
    while let Some(spoken) = agents.join_next().await {
        let (number, count) = spoken??;
        if let Some(events) = events.get_mut(usize::try_from(number)?) {
            *events = count;
        }
    }
    let ended = clock::monotonic();
    let published: u64 = events.iter().sum();
    said.send_replace(Some(Said { events: events.into(), at: ended }));
    let mut all = Vec::new();
    while let Some(got) = readers.join_next().await {
        all.push(got??);
    }
    report(args, published, ended.saturating_sub(begun), begun, &all)
}

fn report(
    args: &Args,
    published: u64,
    took: Duration,
    begun: Duration,
    all: &[Got],
) -> anyhow::Result<Report> {
    let (mut delivered, mut again, mut bytes, mut ended, mut latency) =
        (0, 0, 0, begun, latencies()?);
    for got in all {
        delivered += got.events;
        again += got.again;
        bytes += got.bytes;
        ended = ended.max(got.last);
        latency.add(&got.took)?;
    }
    let lost = verdict(published, all);
    let mut report = Report::default();
    report.begin("agents");
    report.set("encoding", args.encoding.name());
    report.set("agents", args.agents);
    report.set("dashboards", args.dashboards);
    report.set("asked_events_per_second", args.agents * args.rate);
    report.set("events", published);
    let seconds = took.as_secs_f64().max(0.001);
    report.set("events_per_second", (published as f64 / seconds).round());
    report.rate("deliveries", delivered, ended.saturating_sub(begun));
    report.set("lost", lost.as_ref().map_or(0, |lost| lost.lost));
    report.set("again", again);
    report.wire(bytes, delivered);
    report.latencies(&latency);
    if let Some(lost) = lost {
        report.fail(lost);
    }
    Ok(report)
}

/// What is lost, where something is.
fn verdict(published: u64, all: &[Got]) -> Option<Lost> {
    let lost = all.iter().map(|got| got.lost).sum();
    (lost > 0).then(|| Lost {
        lost,
        wanted: published * all.len() as u64,
        behind: all.iter().filter(|got| got.lost > 0).count() as u64,
        dashboards: all.len() as u64,
        why: all.iter().find_map(|got| got.cut_off.clone()),
    })
}

/// One agent.
struct Agent {
    number: u64,
    rate: u64,
    /// When its first message is due.
    begun: Duration,
    deadline: Duration,
}

impl Agent {
    /// Publishes until the time is over; gives its number and how many messages were answered.
    async fn speak(self, socket: Socket) -> anyhow::Result<(u64, u64)> {
        let Socket { mut input, mut output, speech } = socket;
        let (mut out, mut written, mut sent, mut answered) = (Vec::new(), 0, 0_u64, 0_u64);
        loop {
            if written == out.len() {
                out.clear();
                written = 0;
            }
            let now = clock::monotonic();
            let is_over = now >= self.deadline;
            if is_over && answered >= sent {
                return Ok((self.number, answered));
            }
            let due = match now.checked_sub(self.begun) {
                Some(elapsed) if !is_over => due(elapsed, self.rate),
                _ => sent,
            };
            let room = IN_FLIGHT.saturating_sub(sent - answered);
            for _ in 0..room.min(due.saturating_sub(sent)) {
                let publish = Publish::of(self.message(sent, now)?);
                let id = u32::try_from(sent % u64::from(u32::MAX)).unwrap_or(0) + 1;
                speech.write_request(id, &Request::Publish(Box::new(publish)), &mut out);
                sent += 1;
            }
            let wait = if is_over { Duration::MAX } else { self.next(sent, now) };
            tokio::select! {
                more = input.more() => more?,
                n = output.write(out.get(written..).unwrap_or_default()), if written < out.len() => {
                    written += n?;
                }
                () = tokio::time::sleep(wait), if wait < Duration::MAX => {}
            }
            while let Some(answer) = input.frame()? {
                answered += u64::from(speech.is_published(answer)?);
            }
            input.pong_into(&mut out);
        }
    }

    /// How long until the next message is due, or the time is over.
    fn next(&self, sent: u64, now: Duration) -> Duration {
        let due =
            self.begun + Duration::from_micros(sent.saturating_mul(1_000_000).div_ceil(self.rate));
        // Behind what is due there is no room for it: an answer makes some.
        let due = if due > now { due } else { self.deadline };
        due.min(self.deadline).saturating_sub(now)
    }

    /// What it says in its message of this number.
    fn message(&self, message: u64, now: Duration) -> anyhow::Result<NewEvent> {
        let said = format!("{} {:05} {message:012}", stamp(now), self.number);
        let turn = message % ROUND;
        let (what, key, data, content_type) = match turn {
            0 => ("status", Some("status"), status(&said), None),
            _ if turn <= PROGRESS_OF_ROUND => {
                ("progress", Some("task"), progress_of(&said, message), None)
            }
            _ => ("terminal", None, terminal(&said), Some("text/plain")),
        };
        let mut event = NewEvent::on(Topic::parse(&format!("agents.{}.{what}", self.number))?);
        event.kind = format!("agent.{what}");
        event.key = key.map(str::to_owned);
        event.datacontenttype = content_type.map(str::to_owned);
        event.data = Some(data.into());
        Ok(event)
    }
}

fn status(said: &str) -> String {
    format!("{{\"said\":\"{said}\",\"state\":\"working\",\"task\":\"build\",\"since_ms\":184502}}")
}

fn progress_of(said: &str, message: u64) -> String {
    format!("{{\"said\":\"{said}\",\"task\":\"build\",\"done\":{},\"of\":1000}}", message % 1000)
}

fn terminal(said: &str) -> String {
    format!(
        "\u{1b}[32m   Compiling\u{1b}[0m a crate of some length v1.2.3 (/src/some/where) {said}\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> Agent {
        let begun = Duration::from_secs(1);
        Agent { number: 7, rate: 200, begun, deadline: Duration::from_secs(2) }
    }

    #[test]
    fn an_agent_says_its_status_its_progress_and_what_it_writes() {
        let mut said = [0; 3];
        for number in 0..ROUND {
            let event = agent().message(number, Duration::from_secs(1)).unwrap();
            let data = event.data.clone().unwrap();
            assert!(memchr::memmem::find(&data, b"sent:0000000001000000 00007 0000").is_some());
            let is_json = serde_json::from_slice::<serde_json::Value>(&data).is_ok();
            let what = match (event.topic.as_str(), event.key.as_deref()) {
                ("agents.7.status", Some(_)) if is_json => 0,
                ("agents.7.progress", Some(_)) if is_json => 1,
                ("agents.7.terminal", None) if event.datacontenttype.is_some() => 2,
                _ => panic!("{event:?}"),
            };
            said[what] += 1;
        }
        assert_eq!(said, [1, 3, 6]);
    }

    #[test]
    fn the_next_message_is_waited_for_and_not_behind_the_end() {
        let millis = Duration::from_millis;
        assert_eq!(agent().next(1, millis(1001)), millis(4));
        assert_eq!(agent().next(300, millis(1990)), millis(10));
        // It is late: only an answer lets it go on.
        assert_eq!(agent().next(1, millis(1500)), millis(500));
    }

    #[test]
    fn one_lost_message_is_a_failure() {
        let got = |lost| Got {
            events: 10 - lost,
            lost,
            again: 0,
            bytes: 0,
            took: latencies().unwrap(),
            last: Duration::ZERO,
            cut_off: (lost > 0).then(|| "hung up".to_owned()),
        };
        assert_eq!(verdict(10, &[got(0), got(0)]), None);
        let said = verdict(10, &[got(0), got(3)]).unwrap().to_string();
        assert!(said.starts_with("3 of 20 deliveries are lost: 1 of 2"), "{said}");
    }
}
