//! The same bytes to every reader, in writes of 64 KiB, one after the other.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
};

use super::{Args, CHUNK_BYTES};
use crate::{
    cli::bench::{progress::Counter, report::Report},
    clock,
};

/// Measures.
pub(super) fn measure(args: &Args, report: &mut Report, counter: &Counter) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let (mut writers, mut readers) = (Vec::new(), Vec::new());
    for _ in 0..args.subscribers {
        readers.push(TcpStream::connect(address)?);
        let (writer, _) = listener.accept()?;
        writer.set_nonblocking(true)?;
        writers.push(writer);
    }
    // One thread reads them all, as the subscribers of a fan-out share a runtime.
    let theirs = counter.clone();
    let reading = std::thread::Builder::new().spawn(move || read_all(readers, &theirs))?;
    let begun = clock::monotonic();
    let chunk = vec![7; CHUNK_BYTES];
    while clock::monotonic().saturating_sub(begun) < args.limit() {
        for writer in &mut writers {
            match writer.write(&chunk) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    drop(writers);
    let read = reading.join().map_err(|_| anyhow::anyhow!("the readers failed"))??;
    let elapsed = clock::monotonic().saturating_sub(begun);
    report.begin("floor fanout");
    report.set("subscribers", args.subscribers);
    report.set("bytes", read);
    report.set("wire_bytes", args.wire());
    report.rate("deliveries", read / args.wire(), elapsed);
    Ok(())
}

/// Reads until every writer has gone.
fn read_all(mut readers: Vec<TcpStream>, counter: &Counter) -> std::io::Result<u64> {
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
                counter.add(n as u64);
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
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
