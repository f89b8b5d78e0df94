//! A model client: asks, asks again, answers challenges, and refreshes what it has.

use std::net::SocketAddr;

use relay_proto::ClientAddr;
use relay_proto::attribute as attr;
use relay_proto::credential::{self, LongTermKey};
use relay_proto::stun::{Class, Method, Writer};

use super::message::{SUCCESS, Stun};
use super::scene::{REALM, SECRETS};

/// When a request is sent again, in milliseconds after the first time (RFC 8489 §6.2.1), and
/// when it is given up.
pub const AGAIN_MS: [u64; 7] = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 8_000];
/// Challenges that one wish may meet before the client gives up.
const CHALLENGES_MAX: u8 = 3;
/// Before its end an allocation is refreshed.
pub const MARGIN_S: u32 = 60;

/// What a client asks for.
#[derive(Clone, Debug)]
pub enum Wish {
    Binding {
        second: bool,
    },
    Allocate {
        lifetime_s: Option<u32>,
        /// REQUESTED-ADDRESS-FAMILY as on the wire; 0 leaves it out.
        family: u8,
        /// EVEN-PORT, with or without the next port.
        even: Option<bool>,
        /// Uses the token of an earlier reservation.
        token: bool,
        /// REQUESTED-TRANSPORT.
        transport: u8,
        /// Adds an attribute that nobody knows.
        strange: bool,
    },
    Refresh {
        lifetime_s: u32,
        family: u8,
    },
    Permit {
        peers: Vec<SocketAddr>,
    },
    Bind {
        number: u16,
        peer: SocketAddr,
    },
}

impl Wish {
    pub const ALLOCATE: Self = Self::Allocate {
        lifetime_s: None,
        family: 0,
        even: None,
        token: false,
        transport: 17,
        strange: false,
    };

    fn method(&self) -> Method {
        match self {
            Self::Binding { .. } => Method::Binding,
            Self::Allocate { .. } => Method::Allocate,
            Self::Refresh { .. } => Method::Refresh,
            Self::Permit { .. } => Method::CreatePermission,
            Self::Bind { .. } => Method::ChannelBind,
        }
    }
}

/// A request without an answer yet.
#[derive(Clone, Debug)]
pub struct Pending {
    pub id: [u8; 12],
    pub wish: Wish,
    pub bytes: Vec<u8>,
    /// How often it was sent.
    pub sent: usize,
    challenges: u8,
}

/// An answer, as far as it changes what the client knows.
#[derive(Debug)]
pub enum News {
    /// The wish must be asked once more, with another nonce.
    Challenged(Wish, u8),
    Allocated {
        id: [u8; 12],
        lifetime_s: u32,
    },
    Refreshed {
        lifetime_s: u32,
    },
    Other,
}

#[derive(Clone, Debug)]
pub struct Client {
    /// Where the relay sees it: its own address, or its NAT's.
    pub addr: ClientAddr,
    /// Where it was seen before.
    pub former: Vec<ClientAddr>,
    pub username: String,
    pub key: LongTermKey,
    pub nonce: Vec<u8>,
    pub pending: Vec<Pending>,
    /// What it was told; it may be wrong about it.
    pub relayed: Option<SocketAddr>,
    /// The Allocate that it holds.
    pub allocation: Option<[u8; 12]>,
    pub token: Option<Vec<u8>>,
    /// Refreshes before the end.
    pub keeps: bool,
    /// Signs with HMAC-SHA256.
    pub by_sha256: bool,
    /// Its NAT gives each destination another port.
    pub symmetric: bool,
    /// Codes of the answers that it got, for those who wait for them.
    pub codes: Vec<(Method, u16)>,
}

impl Client {
    pub fn new(addr: ClientAddr, username: &str) -> Self {
        let password = match username {
            "static" => "pass word".to_owned(),
            _ => credential::password(SECRETS[1], username),
        };
        Self {
            addr,
            former: Vec::new(),
            username: username.to_owned(),
            key: credential::long_term_key(username, REALM, &password),
            nonce: Vec::new(),
            pending: Vec::new(),
            relayed: None,
            allocation: None,
            token: None,
            keeps: false,
            by_sha256: false,
            symmetric: false,
            codes: Vec::new(),
        }
    }

    /// Where the second STUN port sees it.
    pub fn addr_at_second(&self) -> ClientAddr {
        let mut addr = ClientAddr { listener: 1, ..self.addr };
        if self.symmetric {
            addr.remote.set_port(addr.remote.port() ^ 0x1000);
        }
        addr
    }

    /// Begins to ask; the datagram is to be sent now.
    pub fn ask(&mut self, id: [u8; 12], wish: Wish, challenges: u8) -> Vec<u8> {
        let bytes = self.write(id, &wish);
        self.pending.push(Pending { id, wish, bytes: bytes.clone(), sent: 1, challenges });
        bytes
    }

    /// A request for this wish, signed if the client has a nonce already.
    pub fn write(&self, id: [u8; 12], wish: &Wish) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        let w = Writer::new(&mut out, wish.method(), Class::Request, id);
        let w = match wish {
            Wish::Binding { .. } => w,
            Wish::Allocate { lifetime_s, family, even, token, transport, strange } => {
                let w = w.attribute(attr::REQUESTED_TRANSPORT, &[*transport, 0, 0, 0]);
                let w = with(w, attr::LIFETIME, lifetime_s.map(u32::to_be_bytes));
                let w = with(w, attr::EVEN_PORT, even.map(|pair| [if pair { 0x80 } else { 0 }]));
                let w = match self.token.as_ref().filter(|_| *token) {
                    Some(token) => w.attribute(attr::RESERVATION_TOKEN, token),
                    None => w,
                };
                let w = with(w, 0x7ABC, strange.then_some([1, 2, 3]));
                with(w, attr::REQUESTED_ADDRESS_FAMILY, (*family > 0).then_some([*family, 0, 0, 0]))
            }
            Wish::Refresh { lifetime_s, family } => {
                let w = w.attribute(attr::LIFETIME, &lifetime_s.to_be_bytes());
                with(w, attr::REQUESTED_ADDRESS_FAMILY, (*family > 0).then_some([*family, 0, 0, 0]))
            }
            Wish::Permit { peers } => {
                peers.iter().fold(w, |w, peer| w.xor_address(attr::XOR_PEER_ADDRESS, *peer))
            }
            Wish::Bind { number, peer } => {
                let [high, low] = number.to_be_bytes();
                w.attribute(attr::CHANNEL_NUMBER, &[high, low, 0, 0])
                    .xor_address(attr::XOR_PEER_ADDRESS, *peer)
            }
        };
        let signs = !self.nonce.is_empty() && !matches!(wish, Wish::Binding { .. });
        let w = if signs { self.sign(w, &self.nonce) } else { w };
        w.finish();
        out
    }

    pub fn sign<'b>(&self, w: Writer<'b>, nonce: &[u8]) -> Writer<'b> {
        let w = w
            .attribute(attr::USERNAME, self.username.as_bytes())
            .attribute(attr::REALM, REALM.as_bytes())
            .attribute(attr::NONCE, nonce);
        if self.by_sha256 { w.integrity_sha256(&self.key) } else { w.integrity(&self.key) }
    }

    /// A response; `None` if it answers nothing that was asked, or is not to be believed.
    pub fn hear(&mut self, stun: &Stun<'_>) -> Option<News> {
        let at = self.pending.iter().position(|it| it.id == stun.id)?;
        let code = stun.code()?;
        let is_binding = stun.method == 1;
        if stun.class == SUCCESS && !is_binding && !stun.is_signed_by(&self.key) {
            return None;
        }
        let Pending { id, wish, challenges, .. } = self.pending.swap_remove(at);
        self.codes.push((wish.method(), code));
        let nonce = stun.value(attr::NONCE);
        if let (401 | 438, Some(nonce), true) = (code, nonce, challenges < CHALLENGES_MAX) {
            nonce.clone_into(&mut self.nonce);
            return Some(News::Challenged(wish, challenges + 1));
        }
        let lifetime_s = stun.number(attr::LIFETIME).unwrap_or(0);
        Some(match (wish, code) {
            (Wish::Allocate { .. }, 0) => {
                self.relayed = stun.address(attr::XOR_RELAYED_ADDRESS);
                let token = stun.value(attr::RESERVATION_TOKEN).map(<[u8]>::to_vec);
                self.token = token.or(self.token.take());
                self.allocation = Some(id);
                News::Allocated { id, lifetime_s }
            }
            (Wish::Refresh { .. }, 0) if lifetime_s > 0 => News::Refreshed { lifetime_s },
            (Wish::Refresh { .. }, 0 | 437) => {
                self.allocation = None;
                News::Other
            }
            _ => News::Other,
        })
    }

    /// Forgets everything, as after an ICE restart or the loss of its stream.
    pub fn restart(&mut self, addr: ClientAddr) {
        self.move_to(addr);
        self.pending.clear();
        self.nonce.clear();
        self.allocation = None;
        self.codes.clear();
    }

    /// The relay sees it elsewhere from now on.
    pub fn move_to(&mut self, addr: ClientAddr) {
        self.former.push(self.addr);
        self.addr = addr;
    }
}

fn with<const N: usize>(w: Writer<'_>, kind: u16, value: Option<[u8; N]>) -> Writer<'_> {
    match value {
        Some(value) => w.attribute(kind, &value),
        None => w,
    }
}
