//! The header by which a proxy says whom a connection is from: PROXY protocol, version 2.
//!
//! ```text
//!  0                            12          13          14       16
//! +-----------------------------+-----------+-----------+--------+-----------------------+
//! | 0D 0A 0D 0A 00 0D 0A 51 ... | version 2 | family    | length | addresses, ports,     |
//! | the signature               | command   | transport |        | extensions, if any    |
//! +-----------------------------+-----------+-----------+--------+-----------------------+
//! ```
//!
//! From haproxy's `doc/proxy-protocol.txt`, §2.2. The text form of version 1 is refused, because
//! nothing says where it ends before it does. Extensions are passed over: none changes whom a
//! connection is from.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::indexing_slicing))]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header in bytes. Addresses need 52; the rest is for extensions, of which the longest in
/// use name a client's certificate.
pub const HEADER_LEN_MAX: usize = 2_048;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version, command, family, transport and length.
const FIXED_LEN: usize = 16;

/// Whom a connection is from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// Somebody whose connection the proxy passes on.
    Client {
        /// Their address.
        remote: SocketAddr,
        /// The address of the proxy that they connected to.
        local: IpAddr,
    },
    /// The proxy itself, which looks whether we are there, or will not say.
    Proxy,
}

/// These bytes are no header that we take: the proxy's mistake, or somebody else speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refused;

/// How long the header is whose beginning `bytes` are, as far as they say: whoever has read
/// fewer may read up to this without touching what follows.
///
/// # Errors
/// [`Refused`]: no header begins like this, or it is longer than [`HEADER_LEN_MAX`].
pub fn length(bytes: &[u8]) -> Result<usize, Refused> {
    if bytes.iter().zip(SIGNATURE).any(|(is, wanted)| *is != wanted) {
        return Err(Refused);
    }
    // Version 2 in the upper half; 0 is LOCAL, 1 is PROXY.
    if bytes.get(12).is_some_and(|command| !matches!(command, 0x20 | 0x21)) {
        return Err(Refused);
    }
    let Some((&[.., high, low], _)) = bytes.split_first_chunk::<FIXED_LEN>() else {
        return Ok(FIXED_LEN);
    };
    let total = FIXED_LEN.saturating_add(usize::from(u16::from_be_bytes([high, low])));
    if total > HEADER_LEN_MAX { Err(Refused) } else { Ok(total) }
}

/// Whom a whole header says that the connection is from.
///
/// # Errors
/// [`Refused`]: it is not whole, or not about a stream over IP.
pub fn source(header: &[u8]) -> Result<Source, Refused> {
    if length(header)? != header.len() {
        return Err(Refused);
    }
    let (fixed, rest) = header.split_first_chunk::<FIXED_LEN>().ok_or(Refused)?;
    let [.., command, family, _, _] = *fixed;
    match (command, family) {
        // Whatever a LOCAL header says of addresses is to be ignored.
        (0x20, _) | (_, 0x00) => Ok(Source::Proxy),
        (_, 0x11) => {
            let (from, rest) = rest.split_first_chunk::<4>().ok_or(Refused)?;
            let (to, rest) = rest.split_first_chunk::<4>().ok_or(Refused)?;
            client(Ipv4Addr::from(*from).into(), Ipv4Addr::from(*to).into(), rest)
        }
        (_, 0x21) => {
            let (from, rest) = rest.split_first_chunk::<16>().ok_or(Refused)?;
            let (to, rest) = rest.split_first_chunk::<16>().ok_or(Refused)?;
            client(Ipv6Addr::from(*from).into(), Ipv6Addr::from(*to).into(), rest)
        }
        _ => Err(Refused),
    }
}

fn client(from: IpAddr, to: IpAddr, ports: &[u8]) -> Result<Source, Refused> {
    // The proxy's own port follows; it tells us nothing.
    let (&[high, low, _, _], _) = ports.split_first_chunk::<4>().ok_or(Refused)?;
    // A proxy that listens for both families on one socket sees IPv4 as IPv6.
    let remote = SocketAddr::new(from.to_canonical(), u16::from_be_bytes([high, low]));
    Ok(Source::Client { remote, local: to.to_canonical() })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short");
        let fixed = [&SIGNATURE[..], &[command, family], &length.to_be_bytes()].concat();
        [&fixed, rest].concat()
    }

    /// The header of a proxied stream.
    fn proxied(remote: SocketAddr, local: IpAddr, extensions: &[u8]) -> Vec<u8> {
        let ports = [&remote.port().to_be_bytes()[..], &443u16.to_be_bytes()].concat();
        let (family, addresses) = match (remote.ip(), local) {
            (IpAddr::V4(from), IpAddr::V4(to)) => (0x11, [from.octets(), to.octets()].concat()),
            (IpAddr::V6(from), IpAddr::V6(to)) => (0x21, [from.octets(), to.octets()].concat()),
            _ => panic!("both are of one family"),
        };
        header(0x21, family, &[&addresses, &ports, extensions].concat())
    }

    #[test]
    fn client_of_either_family_is_who_the_proxy_says() {
        for (remote, local) in
            [("192.0.2.1:1234", "198.51.100.7"), ("[2001:db8::1]:65535", "2001:db8::7")]
        {
            let (remote, local) = (remote.parse().expect("address"), local.parse().expect("IP"));
            let wanted = Ok(Source::Client { remote, local });
            assert_eq!(source(&proxied(remote, local, &[])), wanted);
            // An extension of an unknown kind, and one that is cut off.
            assert_eq!(source(&proxied(remote, local, b"\xE0\0\x03abc\x05\0\xFFunique")), wanted);
        }
        let mapped = proxied(
            "[::ffff:192.0.2.1]:9".parse().expect("address"),
            "::ffff:198.51.100.7".parse().expect("IP"),
            &[],
        );
        let (remote, local) = (([192, 0, 2, 1], 9).into(), [198, 51, 100, 7].into());
        assert_eq!(source(&mapped), Ok(Source::Client { remote, local }));
    }

    #[test]
    fn proxy_may_speak_for_itself() {
        assert_eq!(source(&header(0x20, 0x00, &[])), Ok(Source::Proxy));
        assert_eq!(
            source(&header(0x20, 0x11, &[7; 12])),
            Ok(Source::Proxy),
            "LOCAL with addresses"
        );
        assert_eq!(source(&header(0x21, 0x00, &[7; 3])), Ok(Source::Proxy), "unknown family");
    }

    #[test]
    fn what_is_no_stream_over_ip_is_refused() {
        let (remote, local) = (([192, 0, 2, 1], 9).into(), [198, 51, 100, 7].into());
        let good = proxied(remote, local, &[]);
        for (at, byte, what) in [
            (0, b'P', "another signature"),
            (11, 0, "another signature"),
            (12, 0x11, "version 1"),
            (12, 0x31, "version 3"),
            (12, 0x22, "an unknown command"),
            (13, 0x12, "datagrams"),
            (13, 0x31, "a local socket"),
            (13, 0x21, "addresses that are too short"),
            (15, 11, "a length that cuts the ports"),
        ] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(source(&bad), Err(Refused), "{what}");
        }
        assert_eq!(length(b"PROXY TCP4 192.0.2.1 198.51.100.7 9 443\r\n"), Err(Refused));
        assert_eq!(length(b"GET / HTTP/1.1\r\n"), Err(Refused));
    }

    #[test]
    fn length_is_bounded() {
        let with_rest = |length: usize| header(0x21, 0x11, &vec![0; length]);
        let most = HEADER_LEN_MAX - FIXED_LEN;
        assert_eq!(length(&with_rest(most)), Ok(HEADER_LEN_MAX));
        assert_eq!(length(&with_rest(most + 1)), Err(Refused));
    }

    proptest! {
        /// However few bytes are there, nobody is led to read past the header.
        #[test]
        fn length_never_shrinks_or_passes_the_end(
            remote in any::<(u32, u16)>(),
            extensions in vec(any::<u8>(), 0..300),
        ) {
            let (ip, port) = remote;
            let remote = (Ipv4Addr::from_bits(ip), port).into();
            let local = [198, 51, 100, 7].into();
            let header = proxied(remote, local, &extensions);
            let mut before = 0;
            for have in 0..=header.len() {
                let wanted = length(&header[..have]).expect("a good one");
                prop_assert!(wanted >= before && wanted <= header.len());
                prop_assert!(have < wanted || have == header.len());
                before = wanted;
            }
            prop_assert_eq!(source(&header), Ok(Source::Client { remote, local }));
            for short in 0..header.len() {
                prop_assert_eq!(source(&header[..short]), Err(Refused));
            }
        }

        #[test]
        fn any_bytes_have_an_answer(bytes in vec(any::<u8>(), 0..64), rest in vec(any::<u8>(), 0..64)) {
            let _ = (length(&bytes), source(&bytes));
            let signed = [&SIGNATURE[..], &bytes].concat();
            if let Ok(total) = length(&signed) {
                prop_assert!((FIXED_LEN..=HEADER_LEN_MAX).contains(&total));
            }
            let _ = source(&signed);
            let _ = source(&header(0x21, bytes.first().copied().unwrap_or(0x11), &rest));
        }
    }
}
