//! The accept loop of a door, and what watches over each connection.
//!
//! - Connections over a cap are answered 503 and closed, those that come too fast 429; a socket keeps its
//!   place after its upgrade.
//! - A head that does not come, or comes too slowly, ends the connection, as does idling too long.
//! - An answer may be read as slowly as its reader likes, as long as some of it moves within the
//!   write timeout.
//! - On `stop` no connection is taken any more; what is under way is answered, within [`DRAIN`].

use std::{
    convert::Infallible, future::poll_fn, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};

use hyper::{Response, body::Body as _, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tidings_proto::{Code, WireError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Body, Caller, Door, DoorKind,
    http::seal,
    problem::Refusal,
    progress::{Phase, Progress, Pulse},
    voice::Voice,
    wire::Wire,
};
use crate::{
    clock, metrics,
    session::{
        guests::{Guest, Turned},
        no_room,
    },
};

/// How long requests under way may take once the door closes.
pub const DRAIN: Duration = Duration::from_secs(5);
/// What hyper may buffer of a head and of a response, in bytes.
const BUFFER_BYTES: usize = 16 * 1024;
/// Answers up to this many bytes need no room: the kernel takes them at once.
const SMALL_BYTES: u64 = 32 * 1024;
/// How long to wait after a failed accept: mostly there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often failed accepts are logged, in milliseconds.
const COMPLAIN_EVERY_MS: u64 = 1000;
/// How many connections over the cap are answered at a time; the rest are closed without a word.
const REFUSALS_MAX: usize = 64;
/// How long a refused connection may take to read that it was.
const REFUSAL_WAIT: Duration = Duration::from_secs(1);

/// Serves a door until `stop`; its connections run on `tracker`.
pub async fn serve(
    listener: TcpListener,
    door: Arc<Door>,
    stop: CancellationToken,
    tracker: TaskTracker,
) {
    let cap = door.options.connections_max.clamp(1, Semaphore::MAX_PERMITS);
    let places = Arc::new(Semaphore::new(cap));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let mut complained_ms = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match admit(&door, &places, peer) {
                Ok((place, guest)) => {
                    let place = Arc::new(place);
                    let caller = Caller { peer, guest, tracker: tracker.clone(), place };
                    tracker.spawn(connection(stream, caller, door.clone(), stop.clone()));
                }
                Err(turned) => {
                    metrics::handshake_rejected("limit");
                    // Under TLS nothing is said: that would cost a handshake.
                    if door.tls.is_none() {
                        refuse(stream, peer, turned, &refusals, &tracker);
                    }
                }
            },
            Err(error) => {
                let now_ms = clock::monotonic_ms();
                if complained_ms.is_none_or(|then| now_ms >= then + COMPLAIN_EVERY_MS) {
                    tracing::warn!(%error, "a connection could not be accepted");
                    complained_ms = Some(now_ms);
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A place for a connection.
fn admit(
    door: &Door,
    places: &Arc<Semaphore>,
    peer: SocketAddr,
) -> Result<(OwnedSemaphorePermit, Arc<Guest>), Turned> {
    let place = places.clone().try_acquire_owned().map_err(|_| Turned::Full)?;
    let (guests, ip) = (&door.house.guests, peer.ip());
    let guest = match door.kind {
        DoorKind::Public => guests.admit(ip, door.options.proxies.has(ip))?,
        DoorKind::Admin => guests.operator(ip),
    };
    Ok((place, guest))
}

async fn connection(stream: TcpStream, caller: Caller, door: Arc<Door>, stop: CancellationToken) {
    // Without these answers are late, or cut where they are read very slowly, but not wrong: the kernel says that there
    // is room again only once a third is free, and with megabytes in it a slow reader would look like one that takes
    // nothing. A socket keeps them.
    let limits = &door.house.limits;
    tune(&stream, limits.send_buffer_bytes, limits.write_timeout);
    let peer = caller.peer;
    let pulse = Pulse::new();
    let stream = Progress::new(stream, door.house.limits.write_timeout, pulse.clone());
    let stream = tokio::select! {
        biased;
        stream = secure(&door, stream) => stream,
        () = stop.cancelled() => return,
    };
    let stream = match stream {
        Ok(stream) => stream,
        Err(error) => {
            metrics::handshake_rejected("tls");
            tracing::debug!(%peer, %error, "no TLS handshake");
            return;
        }
    };
    pulse.begins();
    answer(stream, &pulse, caller, door, stop).await;
}

/// For so long at least nothing is thought of a peer that acknowledges nothing: readers may be very slow.
const VANISHED_MIN: Duration = Duration::from_secs(60);

/// What the kernel is to do for a connection.
fn tune(stream: &TcpStream, send_buffer_bytes: usize, write_timeout: Duration) {
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(stream).set_send_buffer_size(send_buffer_bytes);
    // A peer that has vanished acknowledges nothing: what fits into the buffer is no write that fails. Twice as long as a
    // write may take, so that what is known here comes first: to the kernel a window that stays shut looks the same.
    let vanished_ms = write_timeout.saturating_mul(2).max(VANISHED_MIN).as_millis();
    let vanished_ms = u32::try_from(vanished_ms).unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, vanished_ms);
}

/// Answers the requests of a connection.
async fn answer(
    stream: Wire<Progress>,
    pulse: &Arc<Pulse>,
    caller: Caller,
    door: Arc<Door>,
    stop: CancellationToken,
) {
    let peer = caller.peer;
    let (service_door, service_pulse) = (door.clone(), pulse.clone());
    let service = service_fn(move |request| {
        let (door, caller, busy) = (service_door.clone(), caller.clone(), service_pulse.busy());
        let pulse = service_pulse.clone();
        async move {
            let mut response = within_room(&door, &pulse, door.answer(caller, request).await);
            if response.headers().get(header::CONNECTION).is_some_and(|it| it == "close") {
                pulse.closes();
            }
            response.body_mut().hold(busy);
            if let Some(over) = response.body_mut().take_over() {
                pulse.lasts(over);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let voice = Voice::new(stream, pulse.clone());
    let mut builder = http1::Builder::new();
    // The pulse is finer than hyper's header timeout, which cannot tell a slow head from an idle
    // connection.
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    // Who closes the writing side is gone: answered still, a long poll of somebody who went would lease events to nobody.
    builder.max_buf_size(BUFFER_BYTES).keep_alive(true).half_close(false);
    let mut connection =
        pin!(builder.serve_connection(TokioIo::new(voice), service).with_upgrades());
    let header_timeout = door.options.header_timeout;
    loop {
        let (phase, since) = pulse.phase();
        let left = allowed(phase, &door).saturating_sub(since);
        if left.is_zero() {
            let reason = match phase {
                Phase::Head => "the head of a request did not come in time",
                Phase::Sending => "the peer has taken no byte of its answer in time",
                // Nobody is cut off here: a request may be on its way.
                Phase::Idle | Phase::Busy => break,
            };
            tracing::debug!(%peer, "connection cut: {reason}");
            return;
        }
        tokio::select! {
            biased;
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "connection failed");
                }
                return;
            }
            () = stop.cancelled() => break,
            () = poll_fn(|cx| pulse.poll_over(cx)) => {
                tracing::debug!(%peer, "connection cut: its token holds no more, and the peer does not read");
                return;
            }
            // Looked at anew at least this often: the phase changes without a word.
            () = tokio::time::sleep(left.min(header_timeout)) => {}
        }
    }
    connection.as_mut().graceful_shutdown();
    if tokio::time::timeout(DRAIN, connection).await.is_err() {
        tracing::debug!(%peer, "connection cut: its request took too long to end");
    }
}

/// An answer that is large needs room until it is taken: who reads slowly holds no more memory than there is for that.
fn within_room(door: &Door, pulse: &Pulse, response: Response<Body>) -> Response<Body> {
    let bytes = response.body().size_hint().exact().unwrap_or(0);
    if bytes <= SMALL_BYTES {
        return response;
    }
    let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
    match door.answers.clone().try_acquire_many_owned(permits) {
        Ok(room) => {
            pulse.takes(room);
            response
        }
        Err(_) => {
            let mut refused = Refusal::from(no_room()).into_response();
            seal(refused.headers_mut());
            refused
        }
    }
}

/// The handshake, where the door is one of TLS.
async fn secure(door: &Door, stream: Progress) -> io::Result<Wire<Progress>> {
    match &door.tls {
        Some(tls) => Box::pin(tls.accept(stream)).await,
        None => Ok(Wire::Plain(stream)),
    }
}

/// How long a connection may be in a phase.
fn allowed(phase: Phase, door: &Door) -> Duration {
    match phase {
        Phase::Head => door.options.header_timeout,
        Phase::Idle => door.options.idle_timeout,
        Phase::Sending => door.house.limits.write_timeout,
        // A stream lasts; its writes are bounded by `Progress`.
        Phase::Busy => Duration::MAX,
    }
}

/// Says that there is no place, or none now, and closes.
fn refuse(
    mut stream: TcpStream,
    peer: SocketAddr,
    turned: Turned,
    refusals: &Arc<Semaphore>,
    tracker: &TaskTracker,
) {
    let Ok(permit) = refusals.clone().try_acquire_owned() else { return };
    tracing::debug!(%peer, ?turned, "connection refused");
    tracker.spawn(async move {
        let _permit: OwnedSemaphorePermit = permit;
        let answer = turned_away(turned).whole();
        let said = async {
            let mut rest = [0; 1024];
            // Who is answered before it has asked takes the connection for broken, not for refused.
            if stream.read(&mut rest).await? == 0 {
                return Ok(());
            }
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await?;
            // Closing with bytes unread would reset the connection and take the answer with it.
            while stream.read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        let _ = tokio::time::timeout(REFUSAL_WAIT, said).await;
    });
}

/// What somebody is told for whom there is no place now.
pub(super) fn turned_away(turned: Turned) -> Refusal {
    let error = match turned {
        Turned::Full => {
            let text = "the broker has as many connections as it may have, or of your address";
            let wait_ms = 1000 * clock::random_between(1, 5);
            WireError::new(Code::Unavailable, text).retry_after_ms(wait_ms)
        }
        Turned::Fast(wait) => {
            let text = "connects: too many a second came from your address";
            WireError::new(Code::RateLimited, text).retry_after_ms(wait.ms())
        }
    };
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_vanishes_is_given_up_after_twice_the_write_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tune(&stream, 65_536, Duration::from_secs(60));
        assert_eq!(rustix::net::sockopt::tcp_user_timeout(&stream).unwrap(), 120_000);
    }

    #[test]
    fn a_refusal_is_a_whole_answer() {
        let answer = turned_away(Turned::Full).whole();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())));
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        let wait_ms = problem["retry_after_ms"].as_u64().unwrap();
        assert!(head.contains(&format!("\r\nretry-after: {}\r\n", wait_ms / 1000)), "{answer}");
        assert_eq!(problem["code"], "unavailable");
    }
}
