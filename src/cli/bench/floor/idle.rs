//! What accepted sockets cost with a task each that waits for them, in resident memory of this process.
//!
//! The other ends are in this process too, but as nothing but a number each: what they cost is in the kernel.

use std::{io::ErrorKind, net::TcpStream};

use anyhow::Context;
use tokio::net::{TcpListener, TcpStream as Accepted};

use super::Args;
use crate::cli::bench::{
    idle::{each, resident_bytes},
    progress::Counter,
    report::Report,
};

/// How many sockets are accepted before it is looked: what the first one needs is not what each of them needs.
const FIRST: u32 = 16;

/// Measures.
pub(super) fn measure(args: &Args, report: &mut Report, counter: &Counter) -> anyhow::Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let server = builder.enable_all().build().context("cannot start the runtime")?;
    let listener = server.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
    let address = listener.local_addr()?;
    let count = usize::try_from(args.connections)?;
    let mut sockets = Vec::with_capacity(count + FIRST as usize);
    let mut accept = |counter: &Counter| -> anyhow::Result<()> {
        sockets.push(TcpStream::connect(address)?);
        server.block_on(async {
            let (stream, _) = listener.accept().await?;
            server.spawn(wait(stream));
            counter.add(1);
            Ok(())
        })
    };
    for _ in 0..FIRST {
        accept(&Counter::default())?;
    }
    let before = resident_bytes(std::process::id())?;
    for _ in 0..args.connections {
        accept(counter)?;
    }
    let after = resident_bytes(std::process::id())?;
    let alive = server.metrics().num_alive_tasks();
    anyhow::ensure!(alive == sockets.len(), "{alive} tasks wait for {} sockets", sockets.len());
    server.shutdown_background();
    report.begin("floor idle");
    each(report, args.connections.into(), before, after);
    Ok(())
}

/// Waits until the other end goes: nothing comes.
async fn wait(stream: Accepted) {
    let mut byte = [0];
    // That it is readable may be a mistake, the first time it always is.
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut byte) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => return,
        }
    }
}
