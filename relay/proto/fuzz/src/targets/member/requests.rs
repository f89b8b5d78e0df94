//! Signed requests, and what their answers give.

use std::net::SocketAddr;

use relay_proto::algorithm::{Integrity, PASSWORD_ALGORITHMS};
use relay_proto::request::Refresh;
use relay_proto::stun::{Class, Message, Method, Writer};
use relay_proto::{DropReason, PortFailure, Transport, Verdict, attribute as attr};

use super::super::super::world::{Ports, REALM, Reply, peer};
use super::super::input::Input;
use super::super::rights::Rights;
use super::{Member, School, USERS};

impl School {
    pub(super) fn allocate(&mut self, who: usize, input: &mut Input<'_>) {
        let flags = input.byte();
        let lifetime = u32::from(input.word()).to_be_bytes();
        let token = self.token.clone();
        let given = |bit: u8| flags & bit != 0;
        self.ask(who, Method::Allocate, |w| {
            let mut w = w.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            if given(1) {
                w = w.attribute(attr::LIFETIME, &lifetime);
            }
            if given(2) {
                w = w.attribute(attr::EVEN_PORT, &[flags & 0x80]);
            }
            if given(4) {
                w = w.attribute(attr::RESERVATION_TOKEN, &token);
            }
            if given(8) {
                w = w.attribute(attr::REQUESTED_ADDRESS_FAMILY, &[1 + (flags >> 7), 0, 0, 0]);
            }
            if given(16) {
                w = w.attribute(attr::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
            }
            w
        });
    }

    /// A valid user asks for something on the 5-tuple of another (AUT-09, AUT-10).
    pub(super) fn intrude(&mut self, who: usize, input: &mut Input<'_>) {
        let other = input.below(self.clients.len());
        if self.clients[other].user == self.clients[who].user {
            return;
        }
        self.renew_nonce(who);
        let method = input.pick(&[Method::Refresh, Method::CreatePermission, Method::ChannelBind]);
        let bytes = self.signed(other, who, method, |w| {
            w.attribute(attr::LIFETIME, &[0; 4])
                .attribute(attr::CHANNEL_NUMBER, &[0x40, 0, 0, 0])
                .xor_address(attr::XOR_PEER_ADDRESS, peer(1, 1))
        });
        self.world.relay.from_client(self.world.now, self.clients[who].client.addr, &bytes);
        for reply in self.replies() {
            assert!(matches!(reply.code(), 401 | 437 | 441), "{}", reply.code());
        }
    }

    /// A signed request, once more as a retransmission, and what it gives the client.
    pub(super) fn ask(
        &mut self,
        who: usize,
        method: Method,
        fill: impl FnOnce(Writer<'_>) -> Writer<'_>,
    ) {
        self.renew_nonce(who);
        let member = &self.clients[who];
        let client = member.client.clone();
        let bytes = self.signed(who, who, method, fill);
        // The client gives it back, or a silent one gives way to a new one of its user.
        let is_full = [Ports::Fail(PortFailure::Quota), Ports::FailOnce(PortFailure::Quota)];
        let asked = Message::parse(&bytes).expect("ours are whole");
        let gives_back =
            method == Method::Refresh && asked.attribute(attr::LIFETIME) == Some(&[0; 4]);
        if gives_back || is_full.contains(&self.world.ports) {
            self.may_close = &USERS[who..=who];
        }
        let verdict = self.world.relay.from_client(self.world.now, client.addr, &bytes);
        // Binding is shed when the budget is spent.
        let is_shed = verdict == Verdict::Drop(DropReason::RateLimited);
        assert!(verdict == Verdict::Control || is_shed, "{verdict:?}");
        let replies = self.replies();
        self.may_close = &[];
        assert!(replies.len() <= 1, "{replies:?}");
        let Some(reply) = replies.first() else { return };
        assert_eq!(reply.to, client.addr);
        let is_success = self.judge(who, method, &bytes, reply);
        // Binding has no key. Over a stream nothing comes twice, and what is gone is gone.
        let is_stream = client.addr.transport != Transport::Udp;
        if is_success && !(is_stream && method == Method::Refresh) {
            self.world.relay.from_client(self.world.now, client.addr, &bytes);
            assert_eq!(self.replies().as_slice(), replies, "I-12");
        }
    }

    /// A request with the credentials of one and the nonce of another, or of the same.
    fn signed(
        &mut self,
        user: usize,
        at: usize,
        method: Method,
        fill: impl FnOnce(Writer<'_>) -> Writer<'_>,
    ) -> Vec<u8> {
        let nonce = &self.clients[at].client.nonce;
        let Member { client, seal, .. } = &self.clients[user];
        self.world.message(method, Class::Request, |w| {
            let w = fill(w)
                .attribute(attr::USERNAME, client.username.as_bytes())
                .attribute(attr::REALM, REALM.as_bytes())
                .attribute(attr::NONCE, nonce);
            let w = match seal.by {
                Integrity::Sha1 => w,
                Integrity::Sha256 => w
                    .attribute(attr::PASSWORD_ALGORITHMS, &PASSWORD_ALGORITHMS)
                    .attribute(attr::PASSWORD_ALGORITHM, &[0, 2, 0, 0]),
            };
            w.seal(seal)
        })
    }

    /// Whether it is success; the rights that it gives are written down.
    fn judge(&mut self, who: usize, method: Method, asked: &[u8], reply: &Reply) -> bool {
        let code = reply.code();
        let now_ms = self.world.now.mono_ms;
        let rules = self.rules;
        let Member { seal, rights, .. } = &mut self.clients[who];
        let message = reply.message();
        let is_signed =
            message.protection() == Some(seal.by) && message.verify(seal.key.as_bytes());
        match (method, code) {
            (Method::Binding, 0 | 420) => return false,
            (_, 400 | 401 | 438) if !is_signed => return false,
            _ => assert!(is_signed, "{method:?} {code} without integrity"),
        }
        if let Some(token) = reply.attribute(attr::RESERVATION_TOKEN) {
            self.token = token;
        }
        if code != 0 {
            return false;
        }
        let request = Message::parse(asked).expect("what was answered is whole");
        if let (Method::Allocate | Method::Refresh, lifetime_s) = (method, reply.lifetime_s()) {
            let lifetime_s = lifetime_s.expect("a success says how long");
            // The end of a session may come sooner.
            assert!(lifetime_s <= 3600, "I-5: {lifetime_s}");
            if method == Method::Refresh {
                let asked = Refresh::parse(&request).expect("granted");
                rights.refresh(now_ms, lifetime_s, asked.family);
            } else {
                *rights = Rights::open(now_ms, lifetime_s, &relayed(reply));
            }
        }
        rights.granted(now_ms, rules, method, &request);
        true
    }

    pub(super) fn renew_nonce(&mut self, who: usize) {
        let now_ms = self.world.now.mono_ms;
        if self.clients[who].nonce_ms + 500_000 > now_ms && self.clients[who].nonce_ms > 0 {
            return;
        }
        let addr = self.clients[who].client.addr;
        let ask = self.world.message(Method::Refresh, Class::Request, |w| {
            w.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
        });
        self.world.relay.from_client(self.world.now, addr, &ask);
        let replies = self.replies();
        let [challenge] = &replies[..] else { panic!("a challenge, not {replies:?}") };
        assert_eq!(challenge.code(), 401);
        self.clients[who].client.nonce = challenge.attribute(attr::NONCE).expect("I-15");
        self.clients[who].nonce_ms = now_ms;
    }
}

/// The addresses that a success tells, one or two.
pub fn relayed(reply: &Reply) -> Vec<SocketAddr> {
    let message = reply.message();
    let told = message.attributes().filter(|(kind, _)| *kind == attr::XOR_RELAYED_ADDRESS);
    told.map(|(_, value)| message.unxor(value).expect("an address")).collect()
}
