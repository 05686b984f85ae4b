//! Many durables with a lag that nobody is attached to: listing them, attaching to one, and what they cost in memory.

use std::time::Duration;

use anyhow::{Context, bail};
use hyper::Method;
use serde::Deserialize;

use super::{
    Amount, at_least_one, data_bytes,
    http::{Http, Metrics},
    idle::resident_bytes,
    made::Made,
    progress::Progress,
    report::{Latencies, Report, latencies, note},
    resume,
    socket::Socket,
    speech::Speech,
};
use crate::{cli::Globals, clock};

/// The topics of this load.
const TOPICS: &str = "bench.lag.";

/// What `tidings bench durables` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How many durables, each with one filter.
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub durables: u64,
    /// How many events each has not acknowledged.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u64).range(..=100_000))]
    pub lag: u64,
    /// How many topics the durables are spread over.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = at_least_one())]
    pub topics: u64,
    /// Bytes of data of an event.
    #[arg(long, default_value_t = 200, value_name = "BYTES", value_parser = data_bytes())]
    pub size: usize,
    /// How many durables a page has.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub page: u64,
    /// How many of them are attached to, one after the other.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = at_least_one())]
    pub attach: u64,
    /// Leave them there: for a broker whose data is thrown away.
    #[arg(long)]
    pub keep: bool,
    /// Stop after so many seconds whatever is left.
    #[arg(long, default_value_t = 120, value_name = "N", value_parser = at_least_one())]
    pub seconds: u64,
    /// How the messages of who attaches are written.
    #[arg(long, default_value = "json", value_name = "ENCODING")]
    pub encoding: Speech,
    /// The broker's admin listener: says its resident memory.
    #[arg(long, value_name = "URL")]
    pub admin: Option<String>,
    /// The broker's process, on this machine: says the same without the admin listener.
    #[arg(long, value_name = "PID", conflicts_with = "admin")]
    pub pid: Option<u32>,
}

const EXAMPLES: &str = "\
Examples:
  tidings bench durables --durables 10000 --lag 100 --admin http://127.0.0.1:9090
  tidings bench durables --durables 1000 --lag 0 --pid $(pidof tidings) --json

It makes them with PUT, publishes what they lag, pages through GET /v1/subscriptions, and attaches to some of them over
a socket each. Memory is looked at before they are made and right after, before anything is published. It fails when
one is not listed, or with another lag. They are forgotten at the end unless --keep is given, also after Ctrl-C; what is
killed leaves those whose names begin with bench-durables.";

/// Not all are listed as they are.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{listed} of {durables} durables are listed, {wrong} of them with another lag than {lag}")]
struct Unlisted {
    listed: u64,
    durables: u64,
    wrong: u64,
    lag: u64,
}

#[derive(Deserialize)]
struct Page {
    subscriptions: Vec<State>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct State {
    name: String,
    lag: u64,
}

/// What was measured.
struct Measured {
    memory: Option<(u64, u64)>,
    made: Duration,
    pages: Pages,
    attach: Latencies,
    first_event: Latencies,
}

/// What the pages have said.
struct Pages {
    took: Latencies,
    listed: u64,
    wrong: u64,
}

/// Measures.
pub(super) async fn run(
    args: &Args,
    globals: &Globals,
    progress: &Progress,
) -> anyhow::Result<Report> {
    let made = Made::named("durables", TOPICS, args.topics, args.durables);
    let deadline = clock::monotonic().saturating_add(Duration::from_secs(args.seconds));
    let load = measure(args, globals, &made, deadline, progress);
    let load = super::answered_by(deadline, load);
    let measured = match args.keep {
        true => load.await?,
        false => made.forgotten_after(globals, load).await?,
    };
    Ok(report(args, &made, &measured))
}

async fn measure(
    args: &Args,
    globals: &Globals,
    made: &Made,
    deadline: Duration,
    progress: &Progress,
) -> anyhow::Result<Measured> {
    let before = memory(args, globals).await?;
    progress.begin("durables: making them", "durables");
    let begun = clock::monotonic();
    made.make(globals, progress).await?;
    let took = clock::monotonic().saturating_sub(begun);
    let after = memory(args, globals).await?;
    progress.begin("durables: publishing", "events");
    publish(args, globals, made, deadline, progress).await?;
    progress.begin("durables: listing", "durables");
    let pages = list(args, globals, made, progress).await?;
    progress.begin("durables: attaching", "durables");
    let (attach, first_event) = attach(args, globals, made, progress).await?;
    Ok(Measured { memory: before.zip(after), made: took, pages, attach, first_event })
}

/// The broker's resident memory, where somebody can say it.
async fn memory(args: &Args, globals: &Globals) -> anyhow::Result<Option<u64>> {
    if let Some(admin) = &args.admin {
        let bytes = Metrics::of(admin, globals).await?.value("process_resident_memory_bytes");
        anyhow::ensure!(bytes > 0, "--admin: {admin} does not say the broker's resident memory");
        return Ok(Some(bytes));
    }
    args.pid.map(resident_bytes).transpose()
}

/// Publishes so much on every topic.
async fn publish(
    args: &Args,
    globals: &Globals,
    made: &Made,
    deadline: Duration,
    progress: &Progress,
) -> anyhow::Result<()> {
    let events = args.lag * made.groups;
    let amount = Amount { events, size: args.size, topics: made.groups, seconds: args.seconds };
    let mut socket = Socket::open(globals, Speech::Json).await?;
    let sent = resume::fill(&mut socket, TOPICS, &amount, deadline, progress.counter()).await?;
    if sent < events {
        bail!("{sent} of {events} events were published within {} s: see --seconds", args.seconds);
    }
    Ok(())
}

/// Pages through all durables there are.
async fn list(
    args: &Args,
    globals: &Globals,
    made: &Made,
    progress: &Progress,
) -> anyhow::Result<Pages> {
    let counter = progress.counter();
    let mut http = Http::open(globals).await?;
    let mut pages = Pages { took: latencies()?, listed: 0, wrong: 0 };
    let mut path = format!("/v1/subscriptions?limit={}", args.page);
    loop {
        let begun = clock::monotonic();
        let (status, body) = http.ask(Method::GET, &path, Vec::new()).await?;
        note(&mut pages.took, clock::monotonic().saturating_sub(begun));
        if !status.is_success() {
            let said: String = String::from_utf8_lossy(&body).chars().take(500).collect();
            bail!("{path}: the broker answers {status}: {said}");
        }
        let page: Page = serde_json::from_slice(&body).context("no page of subscriptions")?;
        for state in page.subscriptions.iter().filter(|state| made.is_one(&state.name)) {
            pages.listed += 1;
            pages.wrong += u64::from(state.lag != args.lag);
            counter.add(1);
        }
        let Some(cursor) = page.cursor else { return Ok(pages) };
        path = format!("/v1/subscriptions?limit={}&cursor={cursor}", args.page);
    }
}

/// Attaches to some of them; gives how long each took, and until its first event was there.
async fn attach(
    args: &Args,
    globals: &Globals,
    made: &Made,
    progress: &Progress,
) -> anyhow::Result<(Latencies, Latencies)> {
    let counter = progress.counter();
    let (mut attached, mut first) = (latencies()?, latencies()?);
    let count = args.attach.min(made.count);
    for turn in 0..count {
        // Spread over all of them; the product is 10^12 at most.
        let number = turn * made.count / count;
        let mut options = made.options(number)?;
        options.durable = Some(made.name(number));
        let mut socket = Socket::open(globals, args.encoding).await?;
        let begun = clock::monotonic();
        socket.begin(options).await?;
        note(&mut attached, clock::monotonic().saturating_sub(begun));
        if args.lag > 0 {
            first_event(&mut socket).await?;
            note(&mut first, clock::monotonic().saturating_sub(begun));
        }
        counter.add(1);
    }
    Ok((attached, first))
}

/// Waits for a batch with an event in it.
async fn first_event(socket: &mut Socket) -> anyhow::Result<()> {
    loop {
        while let Some(payload) = socket.input.frame()? {
            if socket.speech.events_or_end(payload)?.unwrap_or(0) > 0 {
                return Ok(());
            }
        }
        socket.input.answer_ping(&mut socket.output).await?;
        socket.input.more().await?;
    }
}

fn report(args: &Args, made: &Made, measured: &Measured) -> Report {
    let mut report = Report::default();
    report.begin("durables");
    report.set("lag", args.lag);
    report.set("topics", made.groups);
    report.rate("durables", made.count, measured.made);
    let Pages { took, listed, wrong } = &measured.pages;
    report.set("listed", *listed);
    report.set("pages", took.len());
    report.set("page_p50_us", took.value_at_quantile(0.5));
    report.set("page_max_us", took.max());
    report.set("attached", measured.attach.len());
    for (name, took) in [("attach", &measured.attach), ("first_event", &measured.first_event)] {
        if !took.is_empty() {
            report.set(&format!("{name}_p50_us"), took.value_at_quantile(0.5));
            report.set(&format!("{name}_p99_us"), took.value_at_quantile(0.99));
            report.set(&format!("{name}_max_us"), took.max());
        }
    }
    if let Some((before, after)) = measured.memory {
        report.set("resident_bytes_before", before);
        report.set("resident_bytes_after", after);
        report.set("bytes_each", after.saturating_sub(before) / made.count);
    }
    let (durables, lag) = (made.count, args.lag);
    if *listed != durables || *wrong > 0 {
        report.fail(Unlisted { listed: *listed, durables, wrong: *wrong, lag });
    }
    report
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches};

    use super::*;

    fn measured(listed: u64, wrong: u64) -> Report {
        let command = Args::augment_args(clap::Command::new("durables"));
        let words = ["durables", "--durables", "10"];
        let args = Args::from_arg_matches(&command.get_matches_from(words)).unwrap();
        let measured = Measured {
            memory: Some((1000, 6000)),
            made: Duration::from_secs(2),
            pages: Pages { took: latencies().unwrap(), listed, wrong },
            attach: latencies().unwrap(),
            first_event: latencies().unwrap(),
        };
        report(&args, &Made::named("durables", TOPICS, 2, 10), &measured)
    }

    #[test]
    fn a_durable_that_is_not_listed_is_a_failure() {
        let good = measured(10, 0);
        assert_eq!(good.last("bytes_each"), Some(500.into()));
        assert_eq!(good.last("durables_per_second"), Some(5.0.into()));
        good.print(true).unwrap();
        for (listed, wrong) in [(9, 0), (11, 0), (10, 1)] {
            let said = measured(listed, wrong).print(true).unwrap_err().to_string();
            let expected = format!(
                "{listed} of 10 durables are listed, {wrong} of them with another lag than 100"
            );
            assert_eq!(said, expected);
        }
    }
}
