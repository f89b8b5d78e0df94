//! STUN and TURN servers with short-lived credentials, for members only.
//!
//! The user name is `<unix expiry>:<room>.<peer>`, both hashed with a key that dies with the
//! process: a relay can account by room and by person, and nobody can tell which.

use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use relay_proto::credential;
use sha2::Sha256;

use crate::protocol::{Ice, IceServer, PeerId};
use crate::relays::Relays;

/// How long a credential opens new allocations.
pub const TTL: Duration = Duration::from_secs(30 * 60);

/// Length of a hash in a user name, in bytes; twice that in hexadecimal digits.
const HASH_LEN: usize = 4;

/// Makes credentials for the relays of this server.
pub struct Issuer {
    relays: Relays,
    key: [u8; 32],
}

impl Issuer {
    /// `key` is drawn at random when the process starts.
    #[must_use]
    pub fn new(relays: Relays, key: [u8; 32]) -> Self {
        Self { relays, key }
    }

    /// What a member needs to connect. `host` is the name, without port, that its page was loaded
    /// from; `unix_s` is now in Unix seconds.
    #[must_use]
    pub fn issue(&self, room: &str, peer: &PeerId, host: Option<&str>, unix_s: u64) -> Ice {
        let user = format!("{}.{}", self.hash("room", room), self.hash("peer", peer));
        let made = credential::mint(&self.relays.secret, &user, unix_s + TTL.as_secs());
        let urls = self.relays.urls(host);
        let stun = IceServer { urls: urls.stun, username: None, credential: None };
        let turn = IceServer {
            urls: urls.turn,
            username: Some(made.username),
            credential: Some(made.password),
        };
        let servers = [stun, turn].into_iter().filter(|server| !server.urls.is_empty()).collect();
        Ice { servers, ttl: u32::try_from(TTL.as_secs()).expect("half an hour fits") }
    }

    fn hash(&self, kind: &str, name: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes any key");
        mac.update(kind.as_bytes());
        mac.update(&[0]);
        mac.update(name.as_bytes());
        let whole = mac.finalize().into_bytes();
        whole.iter().take(HASH_LEN).map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef";
    const NOW: u64 = 1_700_000_000;

    fn issuer(key: u8) -> Issuer {
        let urls = ["turn:relay.example:3478?transport=udp".to_owned()];
        let relays = Relays::stand_alone(&urls, SECRET.to_vec()).expect("relays");
        Issuer::new(relays, [key; 32])
    }

    fn username(ice: &Ice) -> String {
        ice.servers.iter().find_map(|server| server.username.clone()).expect("user name")
    }

    #[test]
    fn a_credential_expires_after_half_an_hour_and_the_relay_can_check_it() {
        let ice = issuer(1).issue("klasse 7b", &"5f0c1d2e3a4b5c6d".to_owned(), None, NOW);
        let turn = ice.servers.last().expect("turn");
        let username = username(&ice);
        let (expires, _) = credential::split(&username).expect("form");
        assert_eq!(expires, NOW + 1800);
        assert_eq!(ice.ttl, 1800);
        assert_eq!(turn.credential, Some(credential::password(SECRET, &username)));
    }

    #[test]
    fn a_user_name_is_two_hashes_and_tells_nothing() {
        let of = |key: u8, room: &str, peer: &str| {
            let name = username(&issuer(key).issue(room, &peer.to_owned(), None, NOW));
            let (_, user) = name.split_once(':').expect("expiry");
            let (room, peer) = user.split_once('.').expect("room and peer");
            (room.to_owned(), peer.to_owned())
        };
        let (room, peer) = of(1, "a", "b");
        for hash in [&room, &peer] {
            assert!(hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
        }
        assert_eq!(of(1, "a", "b"), (room.clone(), peer.clone()));
        assert_eq!(of(1, "a", "c").0, room);
        assert_ne!(of(1, "a", "c").1, peer);
        assert_ne!(of(2, "a", "b"), (room, peer));
        let (same, other) = of(1, "x", "x");
        assert_ne!(same, other, "a room and a person of one name differ");
    }
}
