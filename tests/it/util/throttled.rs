//! A TCP proxy that is a slow line: of what the broker sends only as many bytes pass as it is told, and next to nothing waits
//! on the way. Told with every publish, it has a speed relative to that, on a fast machine and on a slow one.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Semaphore,
};

/// What the kernel is asked to hold of what the broker has sent and the line has not taken.
const RECEIVE_BYTES: u32 = 4096;

/// The line is closed to what the broker sends until [`Throttled::allow`].
pub struct Throttled {
    pub address: String,
    /// A permit a byte.
    allowed: Arc<Semaphore>,
}

impl Throttled {
    /// A slow line to the broker at this address, for one connection.
    pub async fn before(broker: &str) -> Throttled {
        let broker: SocketAddr = broker.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let allowed = Arc::new(Semaphore::new(0));
        let line = allowed.clone();
        tokio::spawn(async move {
            let (client, _) = listener.accept().await.unwrap();
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(RECEIVE_BYTES).unwrap();
            let broker = socket.connect(broker).await.unwrap();
            carry(client, broker, line).await;
        });
        Throttled { address, allowed }
    }

    /// So many bytes more may pass.
    pub fn allow(&self, bytes: usize) {
        self.allowed.add_permits(bytes);
    }

    /// From here on it is as fast as any.
    pub fn open(&self) {
        self.allowed.close();
    }
}

async fn carry(client: TcpStream, broker: TcpStream, allowed: Arc<Semaphore>) {
    for stream in [&client, &broker] {
        stream.set_nodelay(true).unwrap();
    }
    let (mut client_read, client_write) = client.into_split();
    let (broker_read, mut broker_write) = broker.into_split();
    let to = async move {
        let _ = tokio::io::copy(&mut client_read, &mut broker_write).await;
        let _ = broker_write.shutdown().await;
    };
    tokio::join!(to, of(broker_read, client_write, &allowed));
}

/// Carries what the broker sends.
async fn of(mut broker: OwnedReadHalf, mut client: OwnedWriteHalf, allowed: &Semaphore) {
    let mut buffer = [0; 4096];
    loop {
        // An error: the line is open.
        let bytes = match allowed.acquire().await {
            Ok(first) => {
                first.forget();
                1 + allowed.forget_permits(buffer.len() - 1)
            }
            Err(_) => buffer.len(),
        };
        let Ok(read @ 1..) = broker.read(&mut buffer[..bytes]).await else { break };
        if client.write_all(&buffer[..read]).await.is_err() {
            break;
        }
        // What was allowed and is not there may pass later.
        allowed.add_permits(bytes - read);
    }
    let _ = client.shutdown().await;
}
