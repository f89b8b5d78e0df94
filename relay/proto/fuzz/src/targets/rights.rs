//! What a client has been granted, kept naively: the most that it may do at any moment.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use relay_proto::Family;
use relay_proto::request;
use relay_proto::stun::{Message, Method};

use super::member::Rules;

const PERMISSION_MS: u64 = 300_000;
const CHANNEL_MS: u64 = 600_000;

/// An allocation as its client may count on it.
#[derive(Default)]
pub struct Rights {
    /// By [`Family::index`].
    legs: [Option<Leg>; 2],
    permissions: BTreeMap<IpAddr, u64>,
    channels: BTreeMap<u16, (SocketAddr, u64)>,
}

/// A relayed address, and when it ends.
#[derive(Clone, Copy)]
struct Leg {
    relayed: SocketAddr,
    ends_ms: u64,
}

impl Rights {
    /// What a new allocation gives: these addresses, for so long.
    pub fn open(now_ms: u64, lifetime_s: u32, relayed: &[SocketAddr]) -> Self {
        let mut made = Self::default();
        let ends_ms = now_ms + u64::from(lifetime_s) * 1000;
        for &relayed in relayed {
            let leg = &mut made.legs[Family::of(&relayed.ip()).index()];
            assert!(leg.is_none(), "two addresses of one family");
            *leg = Some(Leg { relayed, ends_ms });
        }
        made
    }

    /// A Refresh was granted, for one address or all that still live.
    pub fn refresh(&mut self, now_ms: u64, lifetime_s: u32, only: Option<Family>) {
        for family in Family::ALL {
            if self.lives_in(now_ms, family) && only.is_none_or(|only| only == family) {
                let ends_ms = now_ms + u64::from(lifetime_s) * 1000;
                self.legs[family.index()] =
                    self.legs[family.index()].map(|leg| Leg { ends_ms, ..leg });
            }
        }
    }

    /// The address of this family that was told to the client.
    pub fn relayed(&self, family: Family) -> Option<SocketAddr> {
        self.legs[family.index()].map(|leg| leg.relayed)
    }

    /// An address is no more, and its peers with it.
    pub fn close(&mut self, family: Family) {
        self.legs[family.index()] = None;
        self.permissions.retain(|ip, _| Family::of(ip) != family);
        self.channels.retain(|_, (peer, _)| Family::of(&peer.ip()) != family);
    }

    /// Whether the allocation lives.
    pub fn lives(&self, now_ms: u64) -> bool {
        Family::ALL.into_iter().any(|family| self.lives_in(now_ms, family))
    }

    /// Whether its address of this family lives.
    pub fn lives_in(&self, now_ms: u64, family: Family) -> bool {
        self.legs[family.index()].is_some_and(|leg| now_ms < leg.ends_ms)
    }

    /// The relay said yes to this.
    pub fn granted(&mut self, now_ms: u64, rules: Rules, method: Method, request: &Message<'_>) {
        let peers = match method {
            Method::CreatePermission => request::permission_peers(request).expect("granted"),
            Method::ChannelBind => {
                let (number, peer) = request::channel_bind(request, true).expect("granted");
                let peer = own_as_told(peer);
                let other = self.channel(now_ms, number.value());
                assert!(other.is_none_or(|other| other == peer), "I-10: {other:?}, {peer}");
                let mut bound = self.channels.iter().filter(|(_, (_, ends_ms))| now_ms < *ends_ms);
                let twin = bound.find(|(other, (to, _))| *to == peer && **other != number.value());
                assert_eq!(twin, None, "I-10");
                self.channels.insert(number.value(), (peer, now_ms + CHANNEL_MS));
                vec![peer]
            }
            _ => return,
        };
        for peer in peers {
            let any_port = SocketAddr::new(peer.ip(), 50_000);
            assert!(is_harmless(rules, own_as_told(any_port)), "granted: {peer}");
            self.permissions.insert(own_as_told(peer).ip(), now_ms + PERMISSION_MS);
        }
    }

    /// The peer of a channel.
    pub fn channel(&self, now_ms: u64, number: u16) -> Option<SocketAddr> {
        let (peer, ends_ms) = self.channels.get(&number)?;
        (now_ms < *ends_ms).then_some(*peer)
    }

    /// Whether payload may go to this address now by a Send indication.
    pub fn may_reach(&self, now_ms: u64, rules: Rules, to: SocketAddr) -> bool {
        self.lives_in(now_ms, Family::of(&to.ip()))
            && self.is_permitted(now_ms, to.ip())
            && self.is_peer(rules, to)
    }

    /// Whether payload may go through this channel now.
    pub fn may_send(&self, now_ms: u64, rules: Rules, number: u16) -> bool {
        let peer = self.channel(now_ms, number);
        peer.is_some_and(|peer| self.may_send_to(now_ms, rules, peer))
    }

    /// Whether payload may go to this address now, whichever way.
    pub fn may_send_to(&self, now_ms: u64, rules: Rules, to: SocketAddr) -> bool {
        self.may_hear(now_ms, rules, to) && self.is_peer(rules, to)
    }

    /// Whether payload may come from there now.
    pub fn may_hear(&self, now_ms: u64, rules: Rules, from: SocketAddr) -> bool {
        let mut channels = self.channels.values();
        let is_bound = channels.any(|(peer, ends_ms)| *peer == from && now_ms < *ends_ms);
        let is_permitted = self.is_permitted(now_ms, from.ip()) || is_bound && !rules.strict;
        self.lives_in(now_ms, Family::of(&from.ip()))
            && is_permitted
            && is_harmless(rules, SocketAddr::new(from.ip(), 50_000))
    }

    fn is_permitted(&self, now_ms: u64, ip: IpAddr) -> bool {
        self.permissions.get(&ip).is_some_and(|ends_ms| now_ms < *ends_ms)
    }

    fn is_peer(&self, rules: Rules, to: SocketAddr) -> bool {
        to.port() != 0 && self.relayed(Family::of(&to.ip())) != Some(to) && is_harmless(rules, to)
    }
}

/// The relay's address in the form that clients are told.
pub fn own_as_told(peer: SocketAddr) -> SocketAddr {
    let own: SocketAddr = ([10, 0, 0, 5], peer.port()).into();
    if peer == own { ([203, 0, 113, 1], peer.port()).into() } else { peer }
}

/// A coarse reading of the peer policy of the tests' world: public addresses, the documentation
/// networks that it opens, and ports of the relay itself.
fn is_harmless(rules: Rules, to: SocketAddr) -> bool {
    match to.ip() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            let is_own = [a, b, c] == [203, 0, 113] && to.port() >= 49_152;
            let is_opened = [a, b, c] == [198, 51, 100];
            if is_opened && rules.denies {
                return false;
            }
            let is_shared = a == 100 && (64..128).contains(&b);
            let is_special = ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_documentation()
                || is_shared
                || a == 0
                || a >= 224;
            is_own || is_opened || !is_special
        }
        IpAddr::V6(ip) => {
            let [a, b, c, ..] = ip.segments();
            let is_own = ip.segments() == [0x2001, 0xDB8, 0, 1, 0, 0, 0, 1] && to.port() >= 49_152;
            let is_opened = [a, b, c] == [0x2001, 0xDB8, 9];
            let is_public = a & 0xE000 == 0x2000 && a != 0x2002 && !(a == 0x2001 && b == 0xDB8);
            let is_translated = [a, b, c] == [0x64, 0xFF9B, 0];
            is_own || is_opened || is_public || is_translated
        }
    }
}
