//! Some events a second to every reader, as soon as they are due, and how long each takes to get there.

use std::time::Duration;

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{Args, server::runtimes};
use crate::{
    cli::bench::{
        progress::Counter,
        report::{Latencies, Report, latencies, note},
    },
    clock,
};

/// Measures.
pub(super) fn measure(args: &Args, report: &mut Report, counter: &Counter) -> anyhow::Result<()> {
    let (server, clients) = runtimes()?;
    let wire = usize::try_from(args.wire())?;
    let listener = server.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
    let address = listener.local_addr()?;
    let mut readers = JoinSet::new();
    let mut writers = Vec::new();
    for _ in 0..args.subscribers {
        let stream = clients.block_on(TcpStream::connect(address))?;
        readers.spawn_on(read(stream, wire, counter.clone()), clients.handle());
        let (writer, _) = server.block_on(listener.accept())?;
        writer.set_nodelay(true)?;
        writers.push(writer);
    }
    let events = u64::from(args.rate).saturating_mul(args.seconds);
    let begun = clock::monotonic();
    let written = server.spawn(write(writers, events, args.rate, wire));
    let mut all = latencies()?;
    clients.block_on(async {
        while let Some(took) = readers.join_next().await {
            all.add(took??)?;
        }
        anyhow::Ok(())
    })?;
    let elapsed = clock::monotonic().saturating_sub(begun);
    server.block_on(written)??;
    server.shutdown_background();
    clients.shutdown_background();
    report.begin("floor paced");
    report.set("subscribers", args.subscribers);
    report.set("rate", args.rate);
    report.set("events", events);
    report.set("wire_bytes", args.wire());
    report.rate("deliveries", all.len(), elapsed);
    report.latencies(&all);
    Ok(())
}

/// Writes events that begin with their moment, each to everybody.
async fn write(
    mut writers: Vec<TcpStream>,
    events: u64,
    rate: u32,
    wire: usize,
) -> anyhow::Result<()> {
    let mut event = vec![7; wire];
    let mut turn = tokio::time::interval(Duration::from_secs(1) / rate);
    for _ in 0..events {
        turn.tick().await;
        let micros = u64::try_from(clock::monotonic().as_micros())?;
        let stamp = event.first_chunk_mut().context("an event is shorter than its moment")?;
        *stamp = micros.to_le_bytes();
        for writer in &mut writers {
            writer.write_all(&event).await?;
        }
    }
    Ok(())
}

/// Reads events until there are no more.
async fn read(mut stream: TcpStream, wire: usize, counter: Counter) -> anyhow::Result<Latencies> {
    let mut took = latencies()?;
    let mut event = vec![0; wire];
    loop {
        match stream.read_exact(&mut event).await {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(took),
            Err(error) => return Err(error.into()),
        }
        let stamp = event.first_chunk().context("an event is shorter than its moment")?;
        let sent = Duration::from_micros(u64::from_le_bytes(*stamp));
        note(&mut took, clock::monotonic().saturating_sub(sent));
        counter.add(1);
    }
}
