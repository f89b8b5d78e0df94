//! Accepts connections and speaks HTTP/1.1 on them, within limits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Most HTTP connections of one listener; WebSockets do not count from their upgrade on.
const CONNECTIONS_MAX: usize = 1024;
/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// A connection sends a whole head within this time, or is closed.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Pause when no connection can be accepted, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long answers under way may take when the server ends.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

/// The other end of the TCP connection of a request.
#[derive(Clone, Copy, Debug)]
pub struct Remote(pub SocketAddr);

/// Serves `router` on `listener` until the futures that `closed` makes answer.
pub async fn run<F>(listener: TcpListener, router: Router, closed: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let end = closed();
    tokio::pin!(end);
    loop {
        let accepted = tokio::select! {
            () = &mut end => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                // Without a permit the connection is dropped here, which closes it.
                if let Ok(permit) = free.clone().try_acquire_owned() {
                    let connection = serve(stream, remote, router.clone(), closed());
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
            }
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // What is not done by then is cut off.
    let _ =
        timeout(FINISH_WITHIN, async { while connections.join_next().await.is_some() {} }).await;
}

/// Serves one connection; once `closed`, only to the end of the answer under way.
async fn serve(
    stream: TcpStream,
    remote: SocketAddr,
    router: Router,
    closed: impl Future<Output = ()>,
) {
    // A message to a class is small and must not wait for the next one.
    let _ = stream.set_nodelay(true);
    let routes = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Remote(remote));
        routes.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = closed => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection broke");
    }
}
