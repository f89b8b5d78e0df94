//! The relayed ports of one worker: who has which, and what is sent from them.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};

use relay_proto::{AllocationId, DropReason, Family, Now, PeerAddr, Relay};

use super::{Queued, Run, Way, drop_reason};
use crate::caps::Usage;
use crate::quota::Holder;
use crate::shared::OpenPort;
use crate::socket::{self, Outgoing, Sender};

/// Most errors taken from one relayed port before others are looked at.
const ERRORS_MAX: usize = 16;
/// Set in the token of an IPv6 port; the positions of allocations stay far below.
const V6_TOKEN: u64 = 1 << 31;

/// Names one relayed port of an allocation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PortKey {
    /// The allocation.
    pub id: AllocationId,
    /// Which of its ports.
    pub family: Family,
}

impl PortKey {
    /// The key as one word for epoll.
    pub fn token(self) -> u64 {
        match self.family {
            Family::V4 => self.id.token(),
            Family::V6 => self.id.token() | V6_TOKEN,
        }
    }

    /// The key that [`PortKey::token`] made.
    pub fn from_token(token: u64) -> Self {
        let family = if token & V6_TOKEN == 0 { Family::V4 } else { Family::V6 };
        Self { id: AllocationId::from_token(token & !V6_TOKEN), family }
    }
}

/// Relayed ports by their allocation's position.
#[derive(Default)]
pub struct Ports(Vec<Option<Owned>>);

/// What one allocation has.
struct Owned {
    id: AllocationId,
    first: OpenPort,
    /// The port of the other family, which few allocations have.
    second: Option<Box<OpenPort>>,
    holder: Holder,
    /// Where its payload is counted, if its credential is capped.
    usage: Option<Usage>,
}

impl Owned {
    fn port(&self, family: Family) -> Option<&OpenPort> {
        let mut both = std::iter::once(&self.first).chain(self.second.as_deref());
        both.find(|port| port.family() == family)
    }
}

impl Ports {
    /// The socket of a port, if it is open.
    pub fn socket(&self, key: PortKey) -> Option<BorrowedFd<'_>> {
        let owned = self.0.get(key.id.index())?.as_ref().filter(|it| it.id == key.id)?;
        Some(owned.port(key.family)?.socket.as_fd())
    }

    /// Where the payload of an allocation is counted, if its credential is capped.
    pub fn usage(&self, id: AllocationId) -> Option<&Usage> {
        self.0.get(id.index())?.as_ref().filter(|owned| owned.id == id)?.usage.as_ref()
    }

    /// Keeps a port that was opened; holder and usage count with the first of an allocation.
    pub fn insert(
        &mut self,
        id: AllocationId,
        open: OpenPort,
        holder: Holder,
        usage: Option<Usage>,
    ) {
        let index = id.index();
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        match self.0[index].as_mut().filter(|owned| owned.id == id) {
            Some(owned) => owned.second = Some(Box::new(open)),
            None => self.0[index] = Some(Owned { id, first: open, second: None, holder, usage }),
        }
    }

    /// Gives a port out to be closed, with its holder if it was the allocation's last.
    pub fn remove(&mut self, key: PortKey) -> Option<(OpenPort, Option<Holder>)> {
        let slot = self.0.get_mut(key.id.index())?;
        let owned = slot.as_mut().filter(|it| it.id == key.id)?;
        match owned.second.take() {
            Some(second) if second.family() == key.family => Some((*second, None)),
            Some(second) => Some((std::mem::replace(&mut owned.first, *second), None)),
            None if owned.first.family() != key.family => None,
            None => slot.take().map(|owned| (owned.first, Some(owned.holder))),
        }
    }
}

/// Sends payloads from one relayed port; what cannot be sent is taken back.
pub fn send_to_peers(
    now: Now,
    ports: &Ports,
    relay: &mut Relay,
    sender: &mut Sender,
    run: Run<'_>,
) {
    let is_whole =
        |at: &u16| matches!(run.queue[usize::from(*at)].way, Way::ToPeer { whole: true, .. });
    for order in run.order.chunk_by(|a, b| is_whole(a) == is_whole(b)) {
        let whole = order.first().is_some_and(is_whole);
        send_alike(now, ports, relay, sender, Run { order, ..run }, whole);
    }
}

/// Sends payloads that may all be fragmented, or none of which may.
fn send_alike(
    now: Now,
    ports: &Ports,
    relay: &mut Relay,
    sender: &mut Sender,
    run: Run<'_>,
    whole: bool,
) {
    let queued = |at: &u16| &run.queue[usize::from(*at)];
    let key = run.order.first().and_then(|first| queued(first).way.port());
    let socket = key.and_then(|key| ports.socket(key));
    let mut refused = |at: usize, reason: DropReason| {
        let queued = queued(&run.order[at]);
        let Way::ToPeer { via, to, .. } = &queued.way else { return };
        relay.unsent_to_peer(*via, *to, queued.payload.length(), reason);
        if let Some(socket) = socket.filter(|_| whole && reason == DropReason::TooBig) {
            tell_errors(relay, now, socket, *via, Some(to.0));
        }
    };
    let Some(socket) = socket else {
        return (0..run.order.len()).for_each(|at| refused(at, DropReason::SendError));
    };
    let outgoing = |queued: &Queued| match queued.way {
        Way::ToPeer { to, .. } => {
            let parts = [run.arena.bytes(queued.payload), &[][..], &[][..]];
            Some(Outgoing { to: to.0, from: None, class: queued.class, parts })
        }
        Way::ToClient { .. } => None,
    };
    let packets = run.order.iter().map(queued).filter_map(outgoing);
    let refused = |at: usize, error: &std::io::Error| refused(at, drop_reason(error));
    if whole {
        sender.send_whole(socket, packets, refused);
    } else {
        sender.send(socket, packets, refused);
    }
}

/// Tells a client what the network, or the kernel itself, said about its datagrams; drain the
/// effects. `last` is where the latest was for, if the kernel has just refused it: it does not say
/// the port then.
pub fn tell_errors(
    relay: &mut Relay,
    now: Now,
    socket: BorrowedFd<'_>,
    id: AllocationId,
    last: Option<SocketAddr>,
) {
    for _ in 0..ERRORS_MAX {
        let Some(reported) = socket::next_error(socket) else { return };
        let peer = match reported.peer {
            Some(peer) if peer.port() == 0 => last,
            peer => peer,
        };
        if let (Some(peer), Some(error)) = (peer, reported.error) {
            relay.icmp(now, id, PeerAddr(peer), error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_their_tokens() {
        for family in Family::ALL {
            for token in [0, 7, 0xFFFF_FFFF_0000_FFFF] {
                let key = PortKey { id: AllocationId::from_token(token), family };
                assert_eq!(PortKey::from_token(key.token()), key);
            }
        }
    }
}
