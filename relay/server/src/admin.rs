//! HTTP for the operator: `/metrics`, `/healthz` and `/api/v1`, on loopback unless a token guards them.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use subtle::ConstantTimeEq as _;
use tokio::sync::{Semaphore, oneshot};

use crate::api;
use crate::control::Control;
use crate::metrics::Page;
use crate::settings::SettingError;

/// Most connections at a time.
const CONNECTIONS_MAX: usize = 32;
/// How long a client may take for its request's headers.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(5);

/// A running HTTP server. Dropping it stops it.
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Binds the admin address.
///
/// # Errors
/// The address is taken or foreign.
pub fn bind(address: SocketAddr) -> Result<TcpListener, SettingError> {
    let bind = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        io::Result::Ok(listener)
    };
    bind().map_err(|error| {
        SettingError::new("admin", format!("{address}: {}", crate::advice(&error)))
    })
}

/// Serves `page` on a thread of its own, so that no scrape ever meets a packet.
///
/// # Errors
/// The host gives no thread or runtime.
pub fn serve(
    listener: TcpListener,
    page: Page,
    control: Arc<Control>,
    token: Option<String>,
) -> Result<Server, SettingError> {
    let failed = |error: io::Error| SettingError::new("admin", error);
    let address = listener.local_addr().map_err(failed)?;
    let (stop, stopped) = oneshot::channel();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let site = Arc::new(Site { page, control, token, loopback: address.ip().is_loopback() });
    let thread = std::thread::Builder::new().name("relay-admin".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                result = accept(listener, site) => {
                    if let Err(error) = result {
                        tracing::error!(%error, "the admin address is gone");
                    }
                }
                _ = stopped => {}
            }
        });
    });
    let thread = thread.map_err(failed)?;
    Ok(Server { address, stop: Some(stop), thread: Some(thread) })
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Site {
    page: Page,
    control: Arc<Control>,
    token: Option<String>,
    loopback: bool,
}

async fn accept(listener: TcpListener, site: Arc<Site>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Descriptors have run out, most likely; others may give some back.
                tracing::warn!(%error, "admin connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let site = site.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = site.answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "admin request");
            }
            drop(place);
        });
    }
}

impl Site {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !self.is_for_us(request.headers()) {
            return text(StatusCode::FORBIDDEN, "This Host is not served here.\n");
        }
        if !self.is_authorised(request.headers()) {
            return text(StatusCode::UNAUTHORIZED, "A bearer token is needed.\n");
        }
        if !is_from_here(request.headers()) {
            return text(StatusCode::FORBIDDEN, "Pages of other sites are not served here.\n");
        }
        if let Some(path) = request.uri().path().strip_prefix(api::PREFIX) {
            let query = request.uri().query();
            let (status, answer) = api::answer(&self.control, request.method(), path, query);
            let mut answer = text(status, format!("{answer}\n"));
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            return answer;
        }
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "Only GET is served here.\n");
        }
        match request.uri().path() {
            "/metrics" => {
                let mut answer = text(StatusCode::OK, self.page.metrics());
                let kind = HeaderValue::from_static(prometheus::TEXT_FORMAT);
                answer.headers_mut().insert(CONTENT_TYPE, kind);
                answer
            }
            "/healthz" if self.page.is_healthy() => text(StatusCode::OK, "ok\n"),
            "/healthz" => text(StatusCode::SERVICE_UNAVAILABLE, "a packet thread is stuck\n"),
            _ => text(StatusCode::NOT_FOUND, "Here are /metrics, /healthz and /api/v1.\n"),
        }
    }

    /// A page of another site, whose name was made to lead here, must not read this one.
    fn is_for_us(&self, headers: &HeaderMap) -> bool {
        if !self.loopback {
            return true;
        }
        headers.get(HOST).and_then(|host| host.to_str().ok()).is_some_and(names_loopback)
    }

    fn is_authorised(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        given.as_bytes().ct_eq(token.as_bytes()).into()
    }
}

/// Whether no page of another site has made a browser send this: such a request carries the
/// site's `Origin`, unless it is a plain GET.
fn is_from_here(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    host.is_some_and(|host| origin.is_some_and(|(_, of)| of.eq_ignore_ascii_case(host)))
}

/// Whether a `Host`, with or without a port, is this machine's own name or a loopback address.
#[must_use]
pub fn names_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
    });
    let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "text/plain; charset=utf-8")
        .header(CACHE_CONTROL, "no-store")
        .body(Full::new(body.into()))
        .expect("constant headers are valid")
}
