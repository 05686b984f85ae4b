//! What the machine allows: the disk by writes with a sync each, the loopback by plain TCP, and both together by
//! a server that does nothing else ([`server`]).

mod server;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use tidings_storage::{Disk, File, OsDisk};

use super::report::{Report, latencies, note};
use crate::clock;

/// What a record takes in the log beside its data, about.
const RECORD_OVERHEAD_BYTES: usize = 150;
/// How much is written to a socket at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// The file that is written.
const FILE_BYTES: u64 = 128 << 20;

/// What `tidings bench floor` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Bytes of data of an event.
    #[arg(long, default_value_t = 200, value_name = "BYTES")]
    pub size: usize,
    /// How many events one sync covers; more than one by commas. 0 leaves the disk out.
    #[arg(long, default_value = "1,64,1000", value_delimiter = ',', value_name = "N")]
    pub batch: Vec<usize>,
    /// Publishes through a server that does nothing but the sync: connections x in flight, more than one by commas.
    #[arg(long, default_value = "1x1,64x1,1x1000", value_delimiter = ',', value_name = "NxN", value_parser = clients)]
    pub clients: Vec<(usize, usize)>,
    /// A directory on the disk to measure; a directory of its own is made in it and removed.
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub dir: PathBuf,
    /// How many readers the loopback has; 0 leaves it out.
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub subscribers: usize,
    /// Bytes that one event takes on the wire.
    #[arg(long, default_value_t = 330, value_name = "BYTES")]
    pub wire: usize,
    /// How long each measurement takes, in seconds.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub seconds: u64,
}

const EXAMPLES: &str = "\
Examples:
  tidings bench floor --dir /var/lib
  tidings bench floor --batch 0 --clients 0x0 --subscribers 1000";

fn clients(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once('x').and_then(|(n, m)| Some((n.parse().ok()?, m.parse().ok()?)));
    match parsed {
        Some((n, m)) if n <= 10_000 && m <= 1_000_000 => Ok((n, m)),
        _ => Err("connections x in flight is wanted, as in 64x1".to_owned()),
    }
}

/// Measures.
pub(super) fn run(args: &Args) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let limit = Duration::from_secs(args.seconds);
    for &batch in args.batch.iter().filter(|batch| **batch > 0) {
        disk(args, batch, limit, &mut report)?;
    }
    for &(connections, in_flight) in args.clients.iter().filter(|(n, m)| n * m > 0) {
        let load = server::Load { connections, in_flight, size: args.size, limit };
        let (took, elapsed) = server::measure(dir(args), load)?;
        report.begin("floor publish");
        report.set("connections", connections);
        report.set("in_flight", in_flight);
        report.set("size", args.size);
        report.rate("events", took.len(), elapsed);
        report.latencies(&took);
    }
    if args.subscribers > 0 {
        loopback(args, limit, &mut report)?;
    }
    Ok(report)
}

/// One write and one fdatasync for each batch, on a file as the log makes it.
fn disk(args: &Args, batch: usize, limit: Duration, report: &mut Report) -> anyhow::Result<()> {
    let dir = dir(args);
    let disk = OsDisk::open(&dir).with_context(|| format!("cannot write to {}", dir.display()))?;
    let mut file = new_file(&disk)?;
    let bytes = vec![7; batch * (args.size + RECORD_OVERHEAD_BYTES)];
    let mut took = latencies()?;
    let (mut begun, mut position, mut events) = (clock::monotonic(), 0, 0);
    while clock::monotonic().saturating_sub(begun) < limit {
        let before = clock::monotonic();
        file.write_all_at(&bytes, position)?;
        file.sync_data()?;
        note(&mut took, clock::monotonic().saturating_sub(before));
        position += bytes.len() as u64;
        if position + bytes.len() as u64 > FILE_BYTES {
            let before = clock::monotonic();
            (file, position) = (new_file(&disk)?, 0);
            // The log has the next one made beforehand.
            begun += clock::monotonic().saturating_sub(before);
        }
        events += batch as u64;
    }
    let elapsed = clock::monotonic().saturating_sub(begun);
    drop((file, disk));
    remove(&dir)?;
    report.begin("floor disk");
    report.set("batch", batch);
    report.set("size", args.size);
    report.rate("events", events, elapsed);
    report.latencies(&took);
    Ok(())
}

/// A file as the log has it: allocated, and no block of it written yet. A block that was written before is
/// written faster.
fn new_file(disk: &OsDisk) -> anyhow::Result<Arc<dyn File>> {
    let file = disk.create("floor")?;
    file.allocate(FILE_BYTES)?;
    file.sync_all()?;
    Ok(file)
}

fn dir(args: &Args) -> PathBuf {
    args.dir.join(format!("tidings-floor-{}", std::process::id()))
}

fn remove(dir: &std::path::Path) -> anyhow::Result<()> {
    std::fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))
}

/// The same bytes to every reader, in writes of 64 KiB, one after the other.
fn loopback(args: &Args, limit: Duration, report: &mut Report) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let mut writers = Vec::with_capacity(args.subscribers);
    let mut readers = Vec::with_capacity(args.subscribers);
    for _ in 0..args.subscribers {
        readers.push(TcpStream::connect(address)?);
        let (writer, _) = listener.accept()?;
        writer.set_nonblocking(true)?;
        writers.push(writer);
    }
    // One thread reads them all, as the subscribers of a fan-out share a runtime.
    let reading = std::thread::Builder::new().spawn(move || read_all(readers))?;
    let begun = clock::monotonic();
    let chunk = vec![7; CHUNK_BYTES];
    let mut written = 0_u64;
    while clock::monotonic().saturating_sub(begun) < limit {
        for writer in &mut writers {
            match writer.write(&chunk) {
                Ok(n) => written += n as u64,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    drop(writers);
    let read = reading.join().map_err(|_| anyhow::anyhow!("the readers failed"))??;
    let elapsed = clock::monotonic().saturating_sub(begun);
    report.begin("floor loopback");
    report.set("subscribers", args.subscribers);
    report.set("wire_bytes", args.wire);
    report.set("bytes_written", written);
    report.rate("deliveries", read / args.wire.max(1) as u64, elapsed);
    Ok(())
}

/// Reads until every writer has gone.
fn read_all(mut readers: Vec<TcpStream>) -> std::io::Result<u64> {
    let mut buffer = vec![0; 4 * CHUNK_BYTES];
    let mut read = 0;
    for reader in &readers {
        reader.set_nonblocking(true)?;
    }
    while !readers.is_empty() {
        let mut failed = None;
        readers.retain_mut(|reader| match reader.read(&mut buffer) {
            Ok(0) => false,
            Ok(n) => {
                read += n as u64;
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => true,
            Err(error) => {
                failed = Some(error);
                false
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(read)
}
