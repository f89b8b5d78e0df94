//! Which request goes where.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri, header};
use axum::middleware::from_fn;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use castling_relay::admin::names_loopback;
use relay_proto::policy::Cidr;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::accept::Remote;
use crate::files::Files;
use crate::headers::secure;
use crate::hub::{Hub, IceRefusal};
use crate::plan::plan;
use crate::socket::{self, FRAME_BYTES_MAX};
use crate::visitor::{self, Origins};

/// Buffers of a WebSocket, in bytes. Larger ones would cost more memory than everything else.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024;
/// Seconds until a member that asked too often for credentials may ask again.
const ICE_RETRY_S: &str = "10";

/// What the public routes need.
#[derive(Debug)]
pub struct Site {
    /// Rooms and members.
    pub hub: Arc<Hub>,
    /// The web app.
    pub files: Files,
    /// Pages that may open a WebSocket.
    pub origins: Origins,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Cidr>,
}

/// Routes for everybody.
pub fn public(site: Arc<Site>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/r/{room}", get(index))
        .route("/c/{code}", get(index))
        .route("/ws", get(websocket))
        .route("/api/ice", get(ice))
        .route("/api/plan", get(plan))
        .route("/healthz", get(healthy))
        .fallback(file)
        .layer(from_fn(secure))
        .with_state(site)
}

/// Routes for the operator at address `at`; `token` guards the metrics if it is given.
pub fn admin(hub: Arc<Hub>, at: SocketAddr, token: Option<String>) -> Router {
    let token = token.map(Sha256::digest);
    let metrics = move |State(hub): State<Arc<Hub>>, headers: HeaderMap| async move {
        // A foreign page can make its own name mean loopback, but then `Host` tells the name.
        let is_ours = visitor::host(&headers).is_some_and(names_loopback);
        if at.ip().is_loopback() && !is_ours {
            return refuse(StatusCode::FORBIDDEN, "Only pages of this machine may look here.");
        }
        // Digests are compared, so the time tells nothing about the token.
        let given = bearer(&headers).map(Sha256::digest);
        if token.is_some() && given != token {
            return refuse(StatusCode::UNAUTHORIZED, "The admin token is needed.");
        }
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], hub.metrics.text()).into_response()
    };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthy))
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, "There is nothing here.") })
        .layer(from_fn(secure))
        .with_state(hub)
}

async fn index(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response<Body> {
    site.files.index(&headers).await
}

async fn file(
    State(site): State<Arc<Site>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    if method != Method::GET && method != Method::HEAD {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "This can only be read.");
    }
    let path = uri.path().trim_start_matches('/');
    let found = site.files.file(path, &headers).await;
    found.unwrap_or_else(|| refuse(StatusCode::NOT_FOUND, "There is no such page here."))
}

async fn websocket(
    State(site): State<Arc<Site>>,
    Extension(Remote(remote)): Extension<Remote>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response<Body> {
    if !site.origins.admits(&headers) {
        let text = "This page may not connect here; the operator can allow it with --origin.";
        return refuse(StatusCode::FORBIDDEN, text);
    }
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let address = visitor::address(remote.ip(), &headers, &site.trusted_proxies);
    let Some(place) = site.hub.sit(address) else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "The server is full. Try again later.");
    };
    let host = host_name(&headers);
    let hub = site.hub.clone();
    upgrade
        .max_message_size(FRAME_BYTES_MAX)
        .max_frame_size(FRAME_BYTES_MAX)
        .read_buffer_size(SOCKET_BUFFER_BYTES)
        .write_buffer_size(SOCKET_BUFFER_BYTES)
        .on_upgrade(move |socket| socket::serve(socket, hub, place, host))
}

async fn ice(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response<Body> {
    let host = host_name(&headers);
    let key = bearer(&headers).unwrap_or_default();
    match site.hub.ice(key, host.as_deref(), Instant::now()) {
        Ok(ice) => ([(header::CACHE_CONTROL, "no-store")], Json(ice)).into_response(),
        Err(IceRefusal::NotAMember) => {
            refuse(StatusCode::FORBIDDEN, "Only members of a room get credentials.")
        }
        Err(IceRefusal::TooOften) => {
            let text = "Credentials were asked for too often; they last half an hour.";
            let refused = refuse(StatusCode::TOO_MANY_REQUESTS, text);
            ([(header::RETRY_AFTER, ICE_RETRY_S)], refused).into_response()
        }
    }
}

async fn healthy() -> &'static str {
    "ok\n"
}

/// An answer with one sentence for whoever reads it.
pub(crate) fn refuse(status: StatusCode, text: &str) -> Response<Body> {
    (status, Json(json!({ "error": text }))).into_response()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}

fn host_name(headers: &HeaderMap) -> Option<String> {
    visitor::host(headers).map(|host| visitor::without_port(host).to_owned())
}
