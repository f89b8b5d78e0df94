//! Security headers of every answer.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Response, header};
use axum::middleware::Next;

use crate::visitor;

const PERMISSIONS: HeaderValue = HeaderValue::from_static(
    "camera=(self), microphone=(self), display-capture=(self), geolocation=(), payment=()",
);

/// The headers that are the same everywhere.
const FIXED: [(HeaderName, HeaderValue); 5] = [
    (HeaderName::from_static("permissions-policy"), PERMISSIONS),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Puts the security headers on the answer to any request.
pub async fn secure(request: Request, next: Next) -> Response<Body> {
    let policy = content_policy(visitor::host(request.headers()));
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    for (name, value) in FIXED {
        headers.insert(name, value);
    }
    response
}

/// Own files only. Browsers differ in whether `'self'` covers WebSockets, so the host is named,
/// unless it has a form that a policy cannot name (CSP Level 3 §2.3.1 knows no IPv6 address).
fn content_policy(host: Option<&str>) -> HeaderValue {
    let named = host.filter(|host| !host.contains(['[', '_']));
    let sockets = named.map(|host| format!(" ws://{host} wss://{host}")).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         media-src 'self' blob:; connect-src 'self'{sockets}; font-src 'self'; \
         worker-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; \
         require-trusted-types-for 'script'"
    );
    policy.parse().expect("a checked host has only characters of a header value")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_the_own_host_for_websockets() {
        let policy = content_policy(Some("class.example:8080"));
        let policy = policy.to_str().expect("text");
        let wanted = "connect-src 'self' ws://class.example:8080 wss://class.example:8080;";
        assert!(policy.contains(wanted), "{policy}");
        for unnamed in [None, Some("[::1]:8080")] {
            let policy = content_policy(unnamed);
            assert!(policy.to_str().expect("text").contains("connect-src 'self';"), "{unnamed:?}");
        }
    }
}
