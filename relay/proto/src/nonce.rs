//! Nonces that need no memory: a MAC over the client's address and the time.
//!
//! ```text
//! UDP        |slot| MAC, 8 bytes |   in Base64, 12 characters
//! streams    |obMatJos2|features|slot| MAC, 8 bytes |
//! ```
//!
//! The 13 characters before a stream's nonce say what else this server can do (RFC 8489 §9.2),
//! so that nobody on the way can hide it. A datagram's nonce does without, as the reply to an
//! unverified source would be more than twice as long as its request.
#![deny(clippy::indexing_slicing)]

use std::net::IpAddr;

use base64ct::{Base64, Base64UrlUnpadded, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::Now;
use crate::address::{ClientAddr, Transport};

/// How long a nonce is good for.
pub const NONCE_LIFETIME_MS: u64 = 600_000;
/// How long nonces are made with one key. It verifies them for as long as they are good.
pub const NONCE_KEY_MS: u64 = 86_400_000;
/// Nonces made within one slot are equal.
pub const NONCE_SLOT_MS: u64 = 5_000;

/// Length of a nonce behind its cookie, in characters.
const OPAQUE_LEN: usize = 12;
/// What these characters encode: one byte of slot number and eight of a MAC.
const OPAQUE_RAW_LEN: usize = 9;
/// Length of a cookie in characters.
const COOKIE_LEN: usize = 13;
/// How a cookie begins; four characters of features follow.
const COOKIE_PREFIX: &[u8] = b"obMatJos2";
/// The cookie with bit 0 set, password algorithms (RFC 8489 §18.1).
const ALGORITHMS: [u8; COOKIE_LEN] = *b"obMatJos2gAAA";
/// The same with bit 1, username anonymity.
const ALGORITHMS_AND_ANONYMITY: [u8; COOKIE_LEN] = *b"obMatJos2wAAA";

/// A nonce as it stands in a message: 12 characters over UDP, 25 over streams.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Nonce {
    bytes: [u8; COOKIE_LEN + OPAQUE_LEN],
    length: usize,
}

impl Nonce {
    /// The characters.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Makes and checks nonces without keeping any. Equal boot keys and clocks make equal nonces, so
/// all workers of a server agree without a word.
#[derive(Clone)]
pub struct Nonces {
    boot: Hmac<Sha256>,
    /// The keys of even and odd periods: this one, and the one before or after it.
    even: PeriodKey,
    odd: PeriodKey,
}

/// The key of one period of [`NONCE_KEY_MS`].
#[derive(Clone)]
struct PeriodKey {
    period: u64,
    keyed: Hmac<Sha256>,
}

impl Nonces {
    /// Nonces that only this boot key verifies.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        let boot = Hmac::new_from_slice(key).expect("HMAC takes keys of any length");
        let (even, odd) = (PeriodKey::derive(&boot, 0), PeriodKey::derive(&boot, 1));
        Self { boot, even, odd }
    }

    /// The nonce of this moment for this client; `anonymity` as in [`Nonces::verify`].
    #[must_use]
    pub fn make(&mut self, now: Now, client: ClientAddr, anonymity: bool) -> Nonce {
        self.of_slot(now.mono_ms / NONCE_SLOT_MS, client, anonymity)
    }

    /// Whether the nonce was made for this client within [`NONCE_LIFETIME_MS`], by a server
    /// whose users' names could be hidden, or not, as now.
    #[must_use]
    pub fn verify(&mut self, now: Now, client: ClientAddr, anonymity: bool, nonce: &[u8]) -> bool {
        let opaque = nonce.strip_prefix(cookie(client.transport, anonymity));
        let mut raw = [0; OPAQUE_RAW_LEN];
        let decoded = opaque.map(|opaque| Base64UrlUnpadded::decode(opaque, &mut raw));
        let Some(Ok(&[slot_byte, ..])) = decoded else { return false };
        let slot = now.mono_ms / NONCE_SLOT_MS;
        let [newest, ..] = slot.to_le_bytes();
        // The slot meant is the last one that ends in this byte.
        let age = u64::from(newest.wrapping_sub(slot_byte));
        let Some(made) = slot.checked_sub(age) else { return false };
        age <= NONCE_LIFETIME_MS / NONCE_SLOT_MS
            && self.of_slot(made, client, anonymity).as_bytes().ct_eq(nonce).into()
    }

    fn of_slot(&mut self, slot: u64, client: ClientAddr, anonymity: bool) -> Nonce {
        let cookie = cookie(client.transport, anonymity);
        let mut mac = self.key_of(slot).clone();
        match client.remote.ip() {
            IpAddr::V4(ip) => mac.update(&ip.octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()),
        }
        mac.update(&client.remote.port().to_be_bytes());
        mac.update(&client.listener.to_be_bytes());
        mac.update(client.transport.label().as_bytes());
        mac.update(cookie);
        mac.update(&slot.to_be_bytes());
        let mut raw = [0; OPAQUE_RAW_LEN];
        let [newest, ..] = slot.to_le_bytes();
        let bytes = std::iter::once(newest).chain(mac.finalize().into_bytes());
        raw.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        let mut opaque = [0; OPAQUE_LEN];
        Base64UrlUnpadded::encode(&raw, &mut opaque).expect("9 bytes are 12 characters");
        let mut bytes = [0; COOKIE_LEN + OPAQUE_LEN];
        bytes.iter_mut().zip(cookie.iter().chain(&opaque)).for_each(|(to, from)| *to = *from);
        Nonce { bytes, length: cookie.len() + OPAQUE_LEN }
    }

    /// The key of the slot's period, which is made anew when the period before last is over.
    fn key_of(&mut self, slot: u64) -> &Hmac<Sha256> {
        let period = slot / (NONCE_KEY_MS / NONCE_SLOT_MS);
        let kept = if period.is_multiple_of(2) { &mut self.even } else { &mut self.odd };
        if kept.period != period {
            *kept = PeriodKey::derive(&self.boot, period);
        }
        &kept.keyed
    }
}

impl PeriodKey {
    fn derive(boot: &Hmac<Sha256>, period: u64) -> Self {
        let mut mac = boot.clone();
        mac.update(&period.to_be_bytes());
        let key = mac.finalize().into_bytes();
        let keyed = Hmac::new_from_slice(&key).expect("HMAC takes keys of any length");
        Self { period, keyed }
    }
}

/// Whether a nonce says that password algorithms were offered with it (RFC 8489 §9.2.4).
#[must_use]
pub fn offers_algorithms(nonce: &[u8]) -> bool {
    let mut features = [0; 3];
    let text = nonce.strip_prefix(COOKIE_PREFIX).and_then(|rest| rest.get(..4));
    let decoded = text.and_then(|text| Base64::decode(text, &mut features).ok());
    decoded.is_some_and(|features| matches!(features, [first, _, _] if first & 0x80 != 0))
}

/// What goes before the nonce.
fn cookie(transport: Transport, anonymity: bool) -> &'static [u8] {
    match (transport, anonymity) {
        (Transport::Udp, _) => &[],
        (_, false) => &ALGORITHMS,
        (_, true) => &ALGORITHMS_AND_ANONYMITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(port: u16) -> ClientAddr {
        ClientAddr {
            remote: ([192, 0, 2, 1], port).into(),
            local: None,
            listener: 0,
            transport: Transport::Udp,
        }
    }

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_s: 0 }
    }

    /// I-16. The starts include both ends of a period.
    #[test]
    fn nonce_is_good_for_its_client_and_ten_minutes() {
        let mut nonces = Nonces::new(&[1; 32]);
        let stream = ClientAddr { transport: Transport::Tcp, ..client(1) };
        let starts =
            [0, 4_999, 1_279_999, NONCE_KEY_MS - 1, NONCE_KEY_MS, 3 * NONCE_KEY_MS - 600_000];
        for (start, client_1) in starts.into_iter().flat_map(|it| [(it, client(1)), (it, stream)]) {
            let nonce = nonces.make(at(start), client_1, false);
            let nonce = nonce.as_bytes();
            let mut verify = |mono_ms, client| nonces.verify(at(mono_ms), client, false, nonce);
            assert!(verify(start, client_1));
            assert!(verify(start + NONCE_LIFETIME_MS, client_1));
            assert!(!verify(start + NONCE_LIFETIME_MS + NONCE_SLOT_MS, client_1));
            // 256 slots later the slot byte is the same again.
            assert!(!verify(start + 256 * NONCE_SLOT_MS, client_1));
            assert!(!verify(start, client(2)));
            assert!(!Nonces::new(&[2; 32]).verify(at(start), client_1, false, nonce));
        }
    }

    #[test]
    fn nonce_from_the_future_or_of_another_form_is_refused() {
        let mut nonces = Nonces::new(&[1; 32]);
        let future = nonces.make(at(NONCE_SLOT_MS * 2), client(1), false);
        assert!(!nonces.verify(at(0), client(1), false, future.as_bytes()));
        for bad in [&b""[..], b"short", b"not base64!!", b"AAAAAAAAAAAA", b"AAAAAAAAAAAAAAAA"] {
            assert!(!nonces.verify(at(0), client(1), false, bad), "{bad:?}");
        }
    }

    /// Whatever a worker was asked before, it has the keys of the others.
    #[test]
    fn every_period_has_its_key_and_all_workers_the_same() {
        let mut busy = Nonces::new(&[1; 32]);
        let mut seen = Vec::new();
        for period in 0..5u64 {
            let start = at(period * NONCE_KEY_MS);
            let mut fresh = Nonces::new(&[1; 32]);
            assert_eq!(busy.make(start, client(1), false), fresh.make(start, client(1), false));
            let slot = start.mono_ms / NONCE_SLOT_MS;
            let mac = busy.key_of(slot).clone().finalize().into_bytes();
            assert!(!seen.contains(&mac), "period {period} has an earlier one's key");
            seen.push(mac);
        }
    }

    /// AUT-15. Bit 0 is the most significant of the 24.
    #[test]
    fn cookies_name_their_features() {
        for (cookie, first) in [(ALGORITHMS, 0x80), (ALGORITHMS_AND_ANONYMITY, 0xC0)] {
            let features = cookie.strip_prefix(COOKIE_PREFIX).expect("the RFC's prefix");
            let mut decoded = [0; 3];
            assert_eq!(Base64::decode(features, &mut decoded), Ok(&[first, 0, 0][..]));
            assert!(offers_algorithms(&cookie));
        }
        for other in [&b""[..], b"obMatJos2", b"obMatJos2gAA", b"obMatJos2AAAC", b"gAAA"] {
            assert!(!offers_algorithms(other), "{other:?}");
        }
    }

    #[test]
    fn altered_cookie_makes_a_nonce_invalid() {
        let mut nonces = Nonces::new(&[1; 32]);
        let stream = ClientAddr { transport: Transport::Tcp, ..client(1) };
        let nonce = nonces.make(at(0), stream, true);
        let text = nonce.as_bytes();
        assert!(nonces.verify(at(0), stream, true, text));
        assert!(!nonces.verify(at(0), stream, false, text), "the server's features have changed");
        let bare = text.strip_prefix(&ALGORITHMS_AND_ANONYMITY).expect("the cookie");
        assert!(!nonces.verify(at(0), stream, true, bare));
        assert!(!nonces.verify(at(0), stream, false, &[&ALGORITHMS, bare].concat()));
        assert!(!nonces.verify(at(0), client(1), true, bare), "nor is it good over UDP");
    }
}
