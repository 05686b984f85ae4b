//! A TCP proxy that cuts connections: at the byte that it is told, in the direction that it is told.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::random::Random;

/// Where a connection is cut: after so many bytes to the broker, or of it.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    To(u64),
    Of(u64),
}

impl Cut {
    /// Anywhere in the first bytes, up to so many; short ones as often as long ones.
    pub fn drawn(random: &mut Random, to_max: u64, of_max: u64) -> Cut {
        let mut below = |max: u64| {
            let bits = random.below(u64::from(max.ilog2()) + 1);
            random.below(1 << bits)
        };
        let (to, of) = (below(to_max), below(of_max));
        if random.below(4) == 0 { Cut::To(to) } else { Cut::Of(of) }
    }

    fn to(self) -> u64 {
        if let Cut::To(bytes) = self { bytes } else { u64::MAX }
    }

    fn of(self) -> u64 {
        if let Cut::Of(bytes) = self { bytes } else { u64::MAX }
    }
}

pub struct Cutting {
    pub address: String,
    next: Arc<Mutex<Option<Cut>>>,
    cuts: Arc<AtomicU64>,
}

impl Cutting {
    /// A proxy before the broker at this address.
    pub async fn before(broker: &str) -> Cutting {
        let broker: SocketAddr = broker.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (next, cuts) = (Arc::<Mutex<Option<Cut>>>::default(), Arc::<AtomicU64>::default());
        let (plan, done) = (next.clone(), cuts.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let cut = plan.lock().take();
                tokio::spawn(carry(client, broker, cut, done.clone()));
            }
        });
        Cutting { address, next, cuts }
    }

    /// The next connection is cut so; those after it are not, until this is called again.
    pub fn cut(&self, cut: Option<Cut>) {
        *self.next.lock() = cut;
    }

    /// How many connections were cut.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }
}

async fn carry(client: TcpStream, broker: SocketAddr, cut: Option<Cut>, cuts: Arc<AtomicU64>) {
    let Ok(server) = TcpStream::connect(broker).await else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let to = pipe(client_read, server_write, cut.map_or(u64::MAX, Cut::to));
    let of = pipe(server_read, client_write, cut.map_or(u64::MAX, Cut::of));
    tokio::pin!(to, of);
    // What ends by itself leaves the other direction open; a cut ends both, with all that is under way.
    let is_cut = tokio::select! {
        is_cut = &mut to => is_cut || of.await,
        is_cut = &mut of => is_cut || to.await,
    };
    cuts.fetch_add(u64::from(is_cut), Ordering::Relaxed);
}

/// Carries so many bytes; true when there were more to come.
async fn pipe(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut left: u64) -> bool {
    let mut buffer = [0; 8192];
    while left > 0 {
        let Ok(read @ 1..) = from.read(&mut buffer).await else {
            let _ = to.shutdown().await;
            return false;
        };
        let carried = read.min(usize::try_from(left).unwrap_or(read));
        if to.write_all(&buffer[..carried]).await.is_err() {
            return false;
        }
        left -= carried as u64;
    }
    true
}
