//! Who is asking: the client's address, the host it asked for, the page it comes from.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::{HeaderMap, HeaderName, header};
use relay_proto::policy::Cidr;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Most hops of `X-Forwarded-For` that are looked at.
const HOPS_MAX: usize = 16;
/// Longest host name (RFC 1035 §2.3.4) with a port.
const HOST_CHARS_MAX: usize = 253 + ":65535".len();

/// The client's address: the last hop that is not one of the `trusted` proxies.
#[must_use]
pub fn address(socket: IpAddr, headers: &HeaderMap, trusted: &[Cidr]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|block| block.contains(address));
    let mut nearest = socket.to_canonical();
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let hops = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.rsplit(','));
    for hop in hops.take(HOPS_MAX) {
        if !is_trusted(nearest) {
            break;
        }
        let Ok(next) = hop.trim().parse::<IpAddr>() else { break };
        nearest = next.to_canonical();
    }
    nearest
}

/// What one household or school shares: an IPv4 address, or the /64 of an IPv6 address.
#[must_use]
pub fn neighbourhood(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => Ipv6Addr::from(u128::from(six) & (u128::MAX << 64)).into(),
    }
}

/// The `Host` that the client asked for, with its port, if it has the form of one.
#[must_use]
pub fn host(headers: &HeaderMap) -> Option<&str> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let allowed =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    let fits = !host.is_empty() && host.len() <= HOST_CHARS_MAX && host.bytes().all(allowed);
    fits.then_some(host)
}

/// A host without its port; an IPv6 address keeps its brackets.
#[must_use]
pub fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

/// Whether a page may open a WebSocket here.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// Hosts that are allowed besides the server's own, each with or without a port.
    pub allowed: Vec<String>,
    /// Clients that are no browsers send no `Origin`.
    pub allow_none: bool,
}

impl Origins {
    /// Judges the `Origin` of a request (RFC 6454 §7, RFC 6455 §10.2).
    #[must_use]
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else { return self.allow_none };
        let Some((_, from)) = origin.to_str().ok().and_then(|origin| origin.split_once("://"))
        else {
            return false;
        };
        let own = host(headers).is_some_and(|own| own.eq_ignore_ascii_case(from));
        own || self.allowed.iter().any(|allowed| {
            let allowed = allowed.split_once("://").map_or(allowed.as_str(), |(_, host)| host);
            allowed.eq_ignore_ascii_case(from) || allowed.eq_ignore_ascii_case(without_port(from))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(HeaderName, &str)]) -> HeaderMap {
        let pair = |(name, value): &(HeaderName, &str)| {
            (name.clone(), value.parse().expect("header value"))
        };
        list.iter().map(pair).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn a_forwarded_address_counts_only_behind_a_trusted_proxy() {
        let trusted = ["127.0.0.1".parse().expect("block"), "10.0.0.0/8".parse().expect("block")];
        let of = |socket: &str, line: &str| {
            address(ip(socket), &headers(&[(FORWARDED_FOR, line)]), &trusted)
        };
        assert_eq!(of("198.51.100.1", "203.0.113.7"), ip("198.51.100.1"));
        assert_eq!(of("127.0.0.1", "203.0.113.7"), ip("203.0.113.7"));
        assert_eq!(of("127.0.0.1", "192.0.2.1, 203.0.113.7, 10.1.1.1"), ip("203.0.113.7"));
        assert_eq!(of("127.0.0.1", "nonsense"), ip("127.0.0.1"));
    }

    #[test]
    fn neighbours_share_an_ipv6_network() {
        assert_eq!(neighbourhood(ip("2001:db8:1:2:3::4")), ip("2001:db8:1:2::"));
        assert_eq!(neighbourhood(ip("192.0.2.7")), ip("192.0.2.7"));
    }

    #[test]
    fn a_host_that_could_say_more_than_a_host_is_none() {
        for (given, wanted) in [
            ("class.example:8080", Some("class.example")),
            ("[::1]:8080", Some("[::1]")),
            ("[::1]", Some("[::1]")),
            ("class.example", Some("class.example")),
            ("a; script-src *", None),
            ("a b", None),
            ("", None),
        ] {
            let headers = headers(&[(header::HOST, given)]);
            assert_eq!(host(&headers).map(without_port), wanted, "{given:?}");
        }
    }

    #[test]
    fn only_pages_of_allowed_hosts_are_admitted() {
        let origins = Origins {
            allowed: vec!["lms.example".into(), "https://b.example:1".into()],
            allow_none: false,
        };
        let admits = |origin: &str| {
            origins.admits(&headers(&[(header::HOST, "c.example:8080"), (header::ORIGIN, origin)]))
        };
        for good in ["http://c.example:8080", "https://lms.example:99", "https://b.example:1"] {
            assert!(admits(good), "{good}");
        }
        for bad in ["http://c.example", "https://b.example", "null", "", "https://evil.example"] {
            assert!(!admits(bad), "{bad}");
        }
        assert!(!origins.admits(&headers(&[(header::HOST, "c.example")])));
        let open = Origins { allow_none: true, ..Origins::default() };
        assert!(open.admits(&headers(&[(header::HOST, "c.example")])));
    }
}
