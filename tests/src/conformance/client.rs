//! A client on a UDP socket that can say anything, and knows silence when it hears it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attr;
use super::message::{
    BINDING, CHANNEL_BIND, CREATE_PERMISSION, Class, DATA_METHOD, Draft, HEADER_LEN, SEND, Session,
};
use super::record::Record;
use super::reply::Reply;
use super::trial::{ARRIVAL_WAIT, receive};
use super::verdict::Answer;
use crate::{Failure, Outcome};

/// An answer that has not come by then is asked after: see [`Client::ask`].
const ANSWER_WAIT: Duration = Duration::from_millis(100);

/// Payload from a peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Incoming {
    /// By ChannelData.
    Channel(u16, Vec<u8>),
    /// By a Data indication from this peer.
    Data(SocketAddr, Vec<u8>),
}

/// One 5-tuple.
#[derive(Debug)]
pub struct Client {
    socket: UdpSocket,
    server: SocketAddr,
    /// Its user, and what the last challenge said.
    pub session: Session,
    /// Its allocation's address, of the first family.
    pub relayed: Option<SocketAddr>,
    record: Arc<Record>,
    /// Transaction ids of what was asked: an answer that comes too late is nobody's.
    asked: RefCell<BTreeSet<Vec<u8>>>,
}

impl Client {
    /// A client at `at`, of no allocation yet.
    ///
    /// # Errors
    /// The address is taken.
    pub fn at(
        at: SocketAddr,
        server: SocketAddr,
        session: Session,
        record: Arc<Record>,
    ) -> Outcome<Self> {
        let socket = UdpSocket::bind(at).map_err(|error| Failure::new(format!("{at}: {error}")))?;
        let asked = RefCell::default();
        Ok(Self { socket, server, session, relayed: None, record, asked })
    }

    /// Its own address.
    ///
    /// # Errors
    /// The kernel's.
    pub fn address(&self) -> Outcome<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// The socket itself.
    #[must_use]
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&self, bytes: &[u8]) -> Outcome<()> {
        self.socket.send_to(bytes, self.server)?;
        Ok(())
    }

    /// Sends a message and finds out how it is answered.
    ///
    /// Without an answer a Binding request follows: when that is answered, the message was not.
    /// What comes later still is skipped.
    ///
    /// # Errors
    /// The server answers neither.
    pub fn ask(&self, draft: &Draft) -> Outcome<Answer> {
        self.send(draft.bytes())?;
        if let Some(answer) = self.answer(draft, ANSWER_WAIT, None)? {
            return Ok(answer);
        }
        let fence = Draft::request(BINDING);
        self.send(fence.bytes())?;
        let answer = self.answer(draft, ARRIVAL_WAIT, Some(&fence))?;
        self.asked
            .borrow_mut()
            .extend([draft, &fence].map(|it| it.bytes()[8..HEADER_LEN].to_vec()));
        answer.ok_or_else(|| Failure::new("no answer at all"))
    }

    /// Signs a request for this client's user and asks.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn request(&self, draft: Draft) -> Outcome<Answer> {
        self.ask(&draft.signed(&self.session))
    }

    /// As [`Client::request`], and once more if the nonce has grown old.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn request_anew(&self, draft: Draft) -> Outcome<Answer> {
        let answer = self.request(draft.clone())?;
        let Some(stale) = answer.reply().filter(|reply| reply.code() == Some(438)) else {
            return Ok(answer);
        };
        let mut session = self.session.clone();
        session.learn(stale);
        self.ask(&draft.signed(&session))
    }

    /// Asks for realm and nonce.
    ///
    /// # Errors
    /// There is no challenge.
    pub fn login(&mut self) -> Outcome<Reply> {
        let answer = self.ask(&Draft::allocate())?;
        self.session.challenged(&answer)
    }

    /// Opens an allocation for UDP and IPv4.
    ///
    /// # Errors
    /// The server refuses.
    pub fn allocate(&mut self) -> Outcome<Reply> {
        self.allocate_with(Draft::allocate())
    }

    /// Opens an allocation with whatever the request says.
    ///
    /// # Errors
    /// The server refuses.
    pub fn allocate_with(&mut self, draft: Draft) -> Outcome<Reply> {
        self.login()?;
        let granted = self.request(draft)?.succeeded("Allocate")?;
        self.relayed = granted.address(attr::XOR_RELAYED_ADDRESS);
        Ok(granted)
    }

    /// The relayed address.
    ///
    /// # Errors
    /// There is none.
    pub fn relayed(&self) -> Outcome<SocketAddr> {
        self.relayed.ok_or_else(|| Failure::new("no relayed address"))
    }

    /// Permits a peer.
    ///
    /// # Errors
    /// The server refuses.
    pub fn permit(&self, peer: SocketAddr) -> Outcome<()> {
        let draft = Draft::request(CREATE_PERMISSION).peer(peer);
        self.request_anew(draft)?.succeeded("CreatePermission").map(drop)
    }

    /// Binds a channel.
    ///
    /// # Errors
    /// The server refuses.
    pub fn bind(&self, number: u16, peer: SocketAddr) -> Outcome<()> {
        let draft = Draft::request(CHANNEL_BIND).channel(number).peer(peer);
        self.request_anew(draft)?.succeeded("ChannelBind").map(drop)
    }

    /// Sends payload in a Send indication.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send_to(&self, peer: SocketAddr, payload: &[u8]) -> Outcome<()> {
        self.send(indication(peer, payload).bytes())
    }

    /// The next payload from a peer; `None` after `wait`.
    ///
    /// # Errors
    /// Something else came.
    pub fn next(&self, wait: Duration) -> Outcome<Option<Incoming>> {
        let Some((bytes, _)) = receive(&self.socket, wait)? else { return Ok(None) };
        incoming(&bytes).map(Some)
    }

    /// The next payload from a peer, which must come.
    ///
    /// # Errors
    /// It does not come.
    pub fn hear(&self) -> Outcome<Incoming> {
        self.next(ARRIVAL_WAIT)?.ok_or_else(|| Failure::new("nothing reaches the client"))
    }

    /// Waits for the answer to `draft`, or for the fence's, which means that there is none.
    fn answer(
        &self,
        draft: &Draft,
        wait: Duration,
        fence: Option<&Draft>,
    ) -> Outcome<Option<Answer>> {
        let end = Instant::now() + wait;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let next = if left.is_zero() { None } else { receive(&self.socket, left)? };
            let Some((bytes, from)) = next else { return Ok(None) };
            let Some(mut reply) = Reply::read(&bytes) else {
                return Ok(Some(Answer::Strange(bytes)));
            };
            if fence.is_some_and(|fence| reply.id() == &fence.bytes()[8..HEADER_LEN]) {
                return Ok(Some(Answer::Silent));
            }
            if self.asked.borrow().contains(reply.id())
                && reply.id() != &draft.bytes()[8..HEADER_LEN]
            {
                continue;
            }
            judge(&mut reply, draft);
            if from != self.server {
                reply.faults.push(format!("answered from {from}"));
            }
            self.record.note(&reply);
            if draft.key().is_none_or(|key| reply.is_signed(key).is_none()) {
                let is_v6 = self.server.is_ipv6();
                self.record.note_unverified(draft.bytes().len(), bytes.len(), is_v6);
            }
            return Ok(Some(Answer::Reply(Box::new(reply))));
        }
    }
}

impl Session {
    /// Takes realm and nonce from an answer that must be a challenge.
    ///
    /// # Errors
    /// It is none.
    pub fn challenged(&mut self, answer: &Answer) -> Outcome<Reply> {
        let challenge = answer.reply().filter(|reply| reply.code() == Some(401));
        let challenge = challenge.ok_or_else(|| Failure::new(format!("no challenge: {answer}")))?;
        self.learn(challenge);
        Ok(challenge.clone())
    }

    /// Takes realm and nonce from a challenge.
    pub fn learn(&mut self, challenge: &Reply) {
        if let Some(realm) = challenge.attribute(attr::REALM) {
            self.realm = String::from_utf8_lossy(realm).into_owned();
        }
        if let Some(nonce) = challenge.attribute(attr::NONCE) {
            self.nonce = nonce.to_vec();
        }
    }
}

/// Adds what is wrong with `reply` as an answer to `draft`.
///
/// A success is signed, and no signature is another's (RFC 8489 §9.2.4).
pub fn judge(reply: &mut Reply, draft: &Draft) {
    let mut fault = |holds: bool, text: &str| {
        if !holds {
            reply.faults.push(text.to_owned());
        }
    };
    let asked = draft.bytes();
    let (same_id, answers) =
        (reply.bytes[8..20] == asked[8..20], matches!(reply.class, Class::Success | Class::Error));
    let kept_type = reply.bytes[..2].iter().zip(&asked[..2]).zip([0x01, 0x10]);
    let same_method =
        kept_type.into_iter().all(|((got, sent), class)| got & !class == sent & !class);
    fault(same_id, "another transaction id");
    fault(answers && same_method, "not an answer to this method");
    if let Some(key) = draft.key() {
        match (reply.is_signed(key), reply.class) {
            (Some(true), _) => {}
            (Some(false), _) => reply.faults.push("signed with another key".to_owned()),
            (None, Class::Success) => reply.faults.push("not signed".to_owned()),
            (None, _) => {}
        }
    }
}

/// A Send indication (RFC 8656 §11.1).
#[must_use]
pub fn indication(peer: SocketAddr, payload: &[u8]) -> Draft {
    Draft::new(SEND, Class::Indication).peer(peer).with(attr::DATA, payload)
}

/// ChannelData or a Data indication.
///
/// # Errors
/// It is neither.
pub fn incoming(bytes: &[u8]) -> Outcome<Incoming> {
    if let [number @ 0x40..=0x7F, low, l0, l1, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let payload = rest.get(..length).ok_or_else(|| Failure::new("ChannelData is cut short"))?;
        return Ok(Incoming::Channel(u16::from_be_bytes([*number, *low]), payload.to_vec()));
    }
    let reply = Reply::read(bytes).ok_or_else(|| Failure::new("neither STUN nor ChannelData"))?;
    let strange = || Failure::new(format!("not a Data indication: {reply}"));
    let is_data = reply.method == DATA_METHOD && reply.class == Class::Indication;
    if !is_data || !reply.faults.is_empty() {
        return Err(strange());
    }
    let peer = reply.address(attr::XOR_PEER_ADDRESS).ok_or_else(strange)?;
    let payload = reply.attribute(attr::DATA).ok_or_else(strange)?;
    Ok(Incoming::Data(peer, payload.to_vec()))
}
