//! The relays that members are told of: the embedded one, or stand-alone ones.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use castling_relay::Handle;
use castling_relay::settings::SettingError;
use castling_relay::tls::Certificates;

use crate::config::RELAY_PREFIX;

/// Most URLs of one kind in an answer: a browser asks every server of its list.
const URLS_MAX: usize = 4;

/// Which relays the operator chose.
#[derive(Debug)]
pub enum Choice {
    /// Relays that run on their own.
    StandAlone(Relays),
    /// One in this process.
    Embedded(Box<castling_relay::Config>),
}

impl Choice {
    /// Starts the embedded relay, if that was the choice. `service_ports` are those of this
    /// process that no peer may be.
    ///
    /// # Errors
    /// The relay cannot start, for example because its port is taken: the operator's mistake.
    pub fn start(self, service_ports: Vec<u16>) -> Result<(Relays, Option<Handle>), SettingError> {
        let mut config = match self {
            Self::StandAlone(relays) => return Ok((relays, None)),
            Self::Embedded(config) => *config,
        };
        config.service_ports = service_ports;
        let secret = config.secrets.first().cloned().unwrap_or_default();
        let behind_nat = config.relay_ips.iter().filter(|ip| ip.external != ip.local);
        let external: Vec<_> = behind_nat.map(|ip| ip.external).collect();
        let relay = castling_relay::start(config).map_err(|error| below_prefix(&error))?;
        let mut relays = Relays::embedded(relay.listening(), &external, secret);
        let listener = relay.listening_tls().first();
        relays.over_tls = listener.zip(relay.certificates()).map(|(at, certificates)| OverTls {
            ip: Some(at.ip()).filter(|ip| !ip.is_unspecified()),
            port: at.port(),
            certificates: certificates.clone(),
        });
        Ok((relays, Some(relay)))
    }
}

/// The relay's own words about a setting, under the name that the setting has here.
#[must_use]
pub fn below_prefix(error: &SettingError) -> SettingError {
    let line = error.to_string();
    let (key, text) = line.split_once(": ").unwrap_or(("", &line));
    SettingError::new(format!("{RELAY_PREFIX}{key}"), text)
}

/// Where the relays are, and the secret that they share with us. Its debug form hides the secret.
pub struct Relays {
    places: Vec<Place>,
    /// Where the embedded relay serves TLS.
    over_tls: Option<OverTls>,
    /// Signs credentials.
    pub secret: Vec<u8>,
}

impl fmt::Debug for Relays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relays").field("places", &self.places).finish_non_exhaustive()
    }
}

/// URLs for one member (RFC 7064, RFC 7065).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Urls {
    /// `stun:` URLs.
    pub stun: Vec<String>,
    /// `turn:` and `turns:` URLs.
    pub turn: Vec<String>,
}

#[derive(Debug)]
enum Place {
    /// A relay of its own, as the operator wrote it.
    StandAlone { turn: String, stun: Option<String> },
    /// The embedded relay. Without an address of its own it is where the page came from.
    Embedded { ip: Option<IpAddr>, six: bool, port: u16 },
}

/// Where TLS is served, and for which hosts. Its certificate may change at any time.
#[derive(Debug)]
struct OverTls {
    ip: Option<IpAddr>,
    port: u16,
    certificates: Arc<Certificates>,
}

impl OverTls {
    /// The URL by which a browser reaches it and accepts its certificate, if there is one: a page
    /// from an address has none with most certificates.
    fn url(&self, page: Option<&str>) -> Option<String> {
        let page = page.filter(|host| self.certificates.covers(host)).map(str::to_owned);
        let host = match self.ip.map(bracketed) {
            Some(ip) if self.certificates.covers(&ip) => Some(ip),
            // The page may have come from another address of this host.
            Some(_) => self.certificates.name().or(page),
            None => page.or_else(|| self.certificates.name()),
        };
        Some(format!("turns:{}:{}?transport=tcp", host?, self.port))
    }
}

impl Relays {
    /// Relays given as `turn:` or `turns:` URLs.
    ///
    /// # Errors
    /// A URL that is neither: the operator's mistake.
    pub fn stand_alone(urls: &[String], secret: Vec<u8>) -> Result<Self, SettingError> {
        let place = |url: &String| {
            let stun = stun_of(url).ok_or_else(|| {
                let wanted = "is not of the form turn:HOST:PORT?transport=udp or turns:HOST:PORT";
                SettingError::new("relay", format!("{url:?} {wanted}"))
            })?;
            Ok(Place::StandAlone { turn: url.clone(), stun })
        };
        let places: Result<_, SettingError> = urls.iter().map(place).collect();
        Ok(Self { places: places?, over_tls: None, secret })
    }

    /// The relay in this process, bound to `listening`. `external` are its addresses in the eyes
    /// of the clients, for families where these are not its own.
    #[must_use]
    pub fn embedded(listening: &[SocketAddr], external: &[IpAddr], secret: Vec<u8>) -> Self {
        let place = |at: &SocketAddr| {
            let own = Some(at.ip()).filter(|ip| !ip.is_unspecified());
            Place::Embedded {
                ip: external.iter().find(|ip| ip.is_ipv6() == at.is_ipv6()).copied().or(own),
                six: at.is_ipv6(),
                port: at.port(),
            }
        };
        Self { places: listening.iter().map(place).collect(), over_tls: None, secret }
    }

    /// The URLs for a member whose page came from `host`, a name or address without port.
    #[must_use]
    pub fn urls(&self, host: Option<&str>) -> Urls {
        let mut urls = Urls::default();
        let mut streams = Vec::new();
        for place in &self.places {
            let (stun, turn) = match place {
                Place::StandAlone { turn, stun } => (stun.clone(), turn.clone()),
                Place::Embedded { ip, six, port } => {
                    let Some(host) = name_of(*ip, *six, host) else { continue };
                    streams.push(format!("turn:{host}:{port}?transport=tcp"));
                    let turn = format!("turn:{host}:{port}?transport=udp");
                    (Some(format!("stun:{host}:{port}")), turn)
                }
            };
            add(&mut urls.stun, stun);
            add(&mut urls.turn, Some(turn));
        }
        // For networks that let no UDP out; after the others, which are better where they work.
        // TLS comes last and gets through most, so it has a place of its own.
        let over_tls = self.over_tls.as_ref().and_then(|tls| tls.url(host));
        let most = URLS_MAX - usize::from(over_tls.is_some());
        streams.into_iter().for_each(|turn| add(&mut urls.turn, Some(turn)));
        urls.turn.truncate(most);
        urls.turn.extend(over_tls);
        urls
    }
}

/// How a client reaches a listener: by its address, else by the page's host if that is a name or
/// an address of the same family.
fn name_of(ip: Option<IpAddr>, six: bool, host: Option<&str>) -> Option<String> {
    if let Some(ip) = ip {
        return Some(bracketed(ip));
    }
    let host = host?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(page) if page.is_ipv6() == six => Some(bracketed(page)),
        Ok(_) => None,
        Err(_) => Some(host.to_owned()),
    }
}

fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(four) => four.to_string(),
        IpAddr::V6(six) => format!("[{six}]"),
    }
}

fn add(list: &mut Vec<String>, url: Option<String>) {
    list.extend(url.filter(|url| list.len() < URLS_MAX && !list.contains(url)));
}

/// The STUN URL that goes with a TURN URL; `Some(None)` for one over TCP or TLS, where asking for
/// one's address makes no sense; `None` if it is no TURN URL (RFC 7065 §3.1).
fn stun_of(url: &str) -> Option<Option<String>> {
    let (scheme, rest) = url.split_once(':')?;
    let (place, query) = rest.split_once('?').map_or((rest, None), |(a, b)| (a, Some(b)));
    let over_udp = match (scheme, query) {
        ("turn", None | Some("transport=udp")) => true,
        ("turn", Some("transport=tcp")) | ("turns", None | Some("transport=tcp")) => false,
        _ => return None,
    };
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (place, None),
    };
    let is_host = match host.strip_prefix('[') {
        Some(six) => six.strip_suffix(']')?.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            !host.is_empty() && host.bytes().all(allowed)
        }
    };
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    (is_host && is_port).then(|| over_udp.then(|| format!("stun:{place}")))
}

#[cfg(test)]
mod tests {
    use castling_relay::tls::Files;

    use super::*;

    fn embedded(listening: &[&str], external: Option<&str>, host: Option<&str>) -> Vec<String> {
        let at: Vec<_> = listening.iter().map(|at| at.parse().expect("address")).collect();
        let external: Vec<_> = external.iter().map(|ip| ip.parse().expect("address")).collect();
        let urls = Relays::embedded(&at, &external, Vec::new()).urls(host);
        let stun: Vec<_> = urls.turn.iter().filter_map(|turn| stun_of(turn).flatten()).collect();
        assert_eq!(stun, urls.stun);
        // Every address is there twice, first for datagrams.
        let (datagrams, streams) = urls.turn.split_at(urls.turn.len() / 2);
        let same = |turn: &String| turn.replace("=udp", "=tcp");
        assert_eq!(datagrams.iter().map(same).collect::<Vec<_>>(), streams);
        datagrams.to_vec()
    }

    #[test]
    fn the_embedded_relay_is_where_the_page_came_from() {
        let any = ["0.0.0.0:3478", "[::]:3478"];
        let at = |host| embedded(&any, None, Some(host));
        assert_eq!(at("class.example"), ["turn:class.example:3478?transport=udp"]);
        assert_eq!(at("127.0.0.1"), ["turn:127.0.0.1:3478?transport=udp"]);
        assert_eq!(at("[::1]"), ["turn:[::1]:3478?transport=udp"]);
        assert_eq!(embedded(&any, None, None), Vec::<String>::new());
    }

    #[test]
    fn an_address_of_its_own_goes_before_the_page() {
        let host = Some("class.example");
        assert_eq!(
            embedded(&["192.0.2.7:3478"], None, host),
            ["turn:192.0.2.7:3478?transport=udp"]
        );
        assert_eq!(
            embedded(&["10.0.0.2:3478"], Some("203.0.113.9"), host),
            ["turn:203.0.113.9:3478?transport=udp"]
        );
    }

    /// The TURN URLs with TLS at `tls` for a certificate of these names.
    fn with_tls(listening: &[&str], tls: &str, names: &[&str], host: Option<&str>) -> Vec<String> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let folder = tempfile::tempdir().expect("folder");
        let path = |name| folder.path().join(name);
        std::fs::write(path("cert"), made.cert.pem()).expect("written");
        std::fs::write(path("key"), made.signing_key.serialize_pem()).expect("written");
        let files = Files { certificate: path("cert"), key: path("key") };
        let at: SocketAddr = tls.parse().expect("address");
        let listening: Vec<_> = listening.iter().map(|at| at.parse().expect("address")).collect();
        let mut relays = Relays::embedded(&listening, &[], Vec::new());
        relays.over_tls = Some(OverTls {
            ip: Some(at.ip()).filter(|ip| !ip.is_unspecified()),
            port: at.port(),
            certificates: Arc::new(Certificates::load(files).expect("a pair")),
        });
        relays.urls(host).turn
    }

    #[test]
    fn tls_is_handed_out_under_a_name_that_the_certificate_covers() {
        let last = |tls, names: &[&str], page| with_tls(&["0.0.0.0:3478"], tls, names, page).pop();
        let turns = |host: &str| Some(format!("turns:{host}:5349?transport=tcp"));
        let any = "0.0.0.0:5349";
        let page = Some("class.example");
        assert_eq!(last(any, &["turn.example", "class.example"], page), turns("class.example"));
        assert_eq!(last(any, &["turn.example"], page), turns("turn.example"));
        assert_eq!(last(any, &["turn.example"], Some("192.0.2.7")), turns("turn.example"));
        assert_eq!(last(any, &["192.0.2.7"], Some("192.0.2.7")), turns("192.0.2.7"));
        // An address of its own need not be where the page came from.
        let own = "192.0.2.8:5349";
        assert_eq!(last(own, &["turn.example", "class.example"], page), turns("turn.example"));
        assert_eq!(last(own, &["192.0.2.8"], page), turns("192.0.2.8"));
        let page_of_school = Some("class.school.example");
        let pattern = ["*.school.example"];
        assert_eq!(last(own, &pattern, page_of_school), turns("class.school.example"));
        // Nobody would accept it.
        let none = last(any, &pattern, page).expect("the others");
        assert_eq!(none, "turn:class.example:3478?transport=tcp");
    }

    #[test]
    fn tls_has_a_place_among_many_addresses() {
        let both = ["192.0.2.7:3478", "[2001:db8::7]:3478"];
        let urls = with_tls(&both, "0.0.0.0:443", &["class.example"], Some("class.example"));
        let wanted = [
            "turn:192.0.2.7:3478?transport=udp",
            "turn:[2001:db8::7]:3478?transport=udp",
            "turn:192.0.2.7:3478?transport=tcp",
            "turns:class.example:443?transport=tcp",
        ];
        assert_eq!(urls, wanted);
    }

    #[test]
    fn stand_alone_relays_are_handed_out_as_given() {
        let given = ["turn:a.example:3478?transport=udp", "turns:a.example:5349", "turn:[::1]"];
        let relays = Relays::stand_alone(&given.map(str::to_owned), Vec::new()).expect("relays");
        let urls = relays.urls(None);
        assert_eq!(urls.turn, given);
        assert_eq!(urls.stun, ["stun:a.example:3478", "stun:[::1]"]);
    }

    #[test]
    fn what_is_no_relay_is_refused_by_name() {
        for bad in [
            "a.example:3478",
            "http://a.example",
            "turn:",
            "turn:a.example:0",
            "turn:a.example:x",
            "turn:a b",
            "turn:a?transport=sctp",
            "turns:a?transport=udp",
            "turn:[::1",
            "stun:a.example",
        ] {
            let error = Relays::stand_alone(&[bad.to_owned()], Vec::new()).expect_err(bad);
            assert!(error.to_string().starts_with("relay: "), "{error}");
        }
    }
}
