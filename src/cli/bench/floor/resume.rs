//! Bytes of a file to one reader, who asks for them: read and written 64 KiB at a time.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
};

use tidings_storage::{Disk, File};

use super::{Args, CHUNK_BYTES, disk::Scratch};
use crate::{
    cli::bench::{
        progress::Counter,
        report::{Report, latencies, note},
    },
    clock,
};

/// Asks for the bytes again and again until the time is over, once at least.
pub(super) fn measure(args: &Args, report: &mut Report, counter: &Counter) -> anyhow::Result<()> {
    let scratch = Scratch::new(args)?;
    let file = filled(&scratch, args.bytes)?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let mut reader = TcpStream::connect(listener.local_addr()?)?;
    reader.set_nodelay(true)?;
    let (writer, _) = listener.accept()?;
    writer.set_nodelay(true)?;
    let bytes = args.bytes;
    let serving = std::thread::Builder::new().spawn(move || serve(writer, &*file, bytes))?;
    let (mut took, mut rounds) = (latencies()?, 0_u64);
    let mut buffer = vec![0; 4 * CHUNK_BYTES];
    let begun = clock::monotonic();
    let mut before = begun;
    while rounds == 0 || before.saturating_sub(begun) < args.limit() {
        reader.write_all(&[1])?;
        let mut left = bytes;
        while left > 0 {
            let n = reader.read(&mut buffer)? as u64;
            anyhow::ensure!(n > 0, "the server ended");
            left = left.saturating_sub(n);
            counter.add(n);
        }
        let now = clock::monotonic();
        note(&mut took, now.saturating_sub(before));
        (before, rounds) = (now, rounds + 1);
    }
    drop(reader);
    serving.join().map_err(|_| anyhow::anyhow!("the server failed"))??;
    report.begin("floor resume");
    report.set("bytes", bytes);
    report.set("wire_bytes", args.wire());
    report.set("rounds", rounds);
    let events = u128::from(rounds) * u128::from(bytes) / u128::from(args.wire());
    report.rate("events", u64::try_from(events)?, before.saturating_sub(begun));
    report.set("total_us", took.value_at_quantile(0.5));
    Ok(())
}

/// A file with so many bytes, which the page cache has as it has a log that was just written.
fn filled(scratch: &Scratch, bytes: u64) -> anyhow::Result<Arc<dyn File>> {
    let file = scratch.disk().create("floor-resume")?;
    let chunk = vec![7; CHUNK_BYTES];
    let mut position = 0;
    while position < bytes {
        let piece = usize::try_from(bytes - position).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        file.write_all_at(chunk.get(..piece).unwrap_or_default(), position)?;
        position += piece as u64;
    }
    file.sync_data()?;
    Ok(file)
}

/// Sends the file for every byte that comes.
fn serve(mut stream: TcpStream, file: &dyn File, bytes: u64) -> std::io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut asked = [0];
    while stream.read(&mut asked)? > 0 {
        let mut position = 0;
        while position < bytes {
            let n = file.read_at(&mut buffer, position)?;
            if n == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            stream.write_all(buffer.get(..n).unwrap_or_default())?;
            position += n as u64;
        }
    }
    Ok(())
}
