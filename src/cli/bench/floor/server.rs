//! A broker that is none: bytes in, one write and one fdatasync for all that waits, bytes out.
//!
//! It looks into nothing and keeps nothing, but a client waits for it as for a broker: over a socket, behind the
//! hand-over to one thread that owns the file. What it reaches is what the machine allows a broker that is not
//! allowed to answer before the sync.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use parking_lot::{Condvar, Mutex};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Runtime,
    sync::watch,
    task::JoinSet,
};

use super::{
    Args, CHUNK_BYTES, RECORD_OVERHEAD_BYTES,
    disk::{FILE_BYTES, Files, Scratch},
};
use crate::{
    cli::bench::{
        progress::Counter,
        report::{Latencies, latencies, note},
    },
    clock,
};

/// What a request takes on the wire beside its data, about: the frame's header and the words around the data.
const REQUEST_OVERHEAD_BYTES: usize = 56;
/// What an answer takes on the wire, about.
const ANSWER_BYTES: usize = 84;

/// How many requests wait for the next sync, and of whom.
#[derive(Default)]
struct Waiting {
    requests: Mutex<Vec<(usize, Arc<watch::Sender<usize>>)>>,
    changed: Condvar,
    over: AtomicBool,
}

/// What is measured.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) connections: usize,
    pub(super) in_flight: usize,
    pub(super) size: usize,
    pub(super) limit: Duration,
}

/// Requests from some connections, each with some unanswered, through such a server: how long each took.
pub(super) fn measure(
    args: &Args,
    load: Load,
    counter: &Counter,
) -> anyhow::Result<(Latencies, Duration)> {
    let scratch = Scratch::new(args)?;
    // The first file is there before anybody asks, and the next one is made meanwhile.
    let files = Files::new(&scratch, FILE_BYTES)?;
    let waiting = Arc::new(Waiting::default());
    let (alive, ended) = tokio::sync::oneshot::channel::<()>();
    let commits = {
        let waiting = waiting.clone();
        std::thread::Builder::new().spawn(move || {
            let committed = commit(files, &waiting, load.size);
            drop(alive);
            committed
        })?
    };
    let (server, clients) = runtimes()?;
    let listener = server.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
    let address = listener.local_addr()?;
    server.spawn(accept(listener, waiting.clone(), load.size));
    let measured = clients.block_on(async {
        tokio::select! {
            measured = ask(address, load, counter) => measured,
            // Nobody would be answered any more.
            _ = ended => Err(anyhow::anyhow!("the committing thread ended")),
        }
    });
    waiting.over.store(true, Ordering::SeqCst);
    waiting.changed.notify_one();
    server.shutdown_background();
    commits.join().map_err(|_| anyhow::anyhow!("the committing thread failed"))??;
    measured
}

/// Threads of its own for each side, as a broker has: else a request would be served by the thread that made it.
pub(super) fn runtimes() -> anyhow::Result<(Runtime, Runtime)> {
    let runtime = || Runtime::new().context("cannot start the runtime");
    Ok((runtime()?, runtime()?))
}

/// Writes and syncs what waits until it is over.
fn commit(mut files: Files, waiting: &Waiting, size: usize) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let requests = {
            let mut requests = waiting.requests.lock();
            while requests.is_empty() && !waiting.over.load(Ordering::SeqCst) {
                waiting.changed.wait_for(&mut requests, Duration::from_millis(100));
            }
            std::mem::take(&mut *requests)
        };
        if requests.is_empty() {
            return Ok(());
        }
        let count: usize = requests.iter().map(|(count, _)| count).sum();
        bytes.resize(count * (size + RECORD_OVERHEAD_BYTES), 7);
        files.append(&bytes)?;
        for (count, of) in requests {
            of.send_modify(|answered| *answered += count);
        }
    }
}

async fn accept(listener: TcpListener, waiting: Arc<Waiting>, size: usize) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (input, output) = stream.into_split();
        let (answered, answers) = watch::channel(0);
        tokio::spawn(take(input, Arc::new(answered), waiting.clone(), size));
        tokio::spawn(answer(output, answers));
    }
}

/// Counts requests and has them wait for the next sync.
async fn take(
    mut input: OwnedReadHalf,
    answered: Arc<watch::Sender<usize>>,
    waiting: Arc<Waiting>,
    size: usize,
) {
    let (mut buffer, mut rest) = (vec![0; CHUNK_BYTES], 0);
    while let Ok(n @ 1..) = input.read(&mut buffer).await {
        rest += n;
        let count = rest / (size + REQUEST_OVERHEAD_BYTES);
        rest %= size + REQUEST_OVERHEAD_BYTES;
        if count > 0 {
            waiting.requests.lock().push((count, answered.clone()));
            waiting.changed.notify_one();
        }
    }
}

/// An answer for every request that is durable.
async fn answer(mut output: OwnedWriteHalf, mut answers: watch::Receiver<usize>) {
    let (mut done, mut bytes) = (0, Vec::new());
    while answers.changed().await.is_ok() {
        let answered = *answers.borrow_and_update();
        bytes.resize((answered - done) * ANSWER_BYTES, 7);
        done = answered;
        if output.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn ask(
    address: std::net::SocketAddr,
    load: Load,
    counter: &Counter,
) -> anyhow::Result<(Latencies, Duration)> {
    let mut clients = JoinSet::new();
    let begun = clock::monotonic();
    for _ in 0..load.connections {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let deadline = begun.saturating_add(load.limit);
        clients.spawn(client(stream, load, deadline, counter.clone()));
    }
    let mut all = latencies()?;
    while let Some(took) = clients.join_next().await {
        all.add(took??)?;
    }
    Ok((all, clock::monotonic().saturating_sub(begun)))
}

async fn client(
    mut stream: TcpStream,
    load: Load,
    deadline: Duration,
    counter: Counter,
) -> anyhow::Result<Latencies> {
    let (mut input, mut output) = stream.split();
    let request = vec![7; (load.size + REQUEST_OVERHEAD_BYTES) * load.in_flight];
    let mut took = latencies()?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut open = std::collections::VecDeque::with_capacity(load.in_flight);
    let (mut unsent, mut rest) = (0, 0);
    loop {
        let now = clock::monotonic();
        let new = if now < deadline { load.in_flight - open.len() } else { 0 };
        open.extend(std::iter::repeat_n(now, new));
        unsent += new * (load.size + REQUEST_OVERHEAD_BYTES);
        if open.is_empty() {
            return Ok(took);
        }
        let piece = request.get(..unsent.min(request.len())).unwrap_or_default();
        tokio::select! {
            n = output.write(piece), if unsent > 0 => unsent -= n?,
            n = input.read(&mut buffer) => {
                let n = n?;
                anyhow::ensure!(n > 0, "the server ended");
                rest += n;
                let at = clock::monotonic();
                let answered = (rest / ANSWER_BYTES).min(open.len());
                for sent in open.drain(..answered) {
                    note(&mut took, at.saturating_sub(sent));
                }
                counter.add(answered as u64);
                rest %= ANSWER_BYTES;
            }
        }
    }
}
