//! What the simulated network and edge counted themselves: the relay's counters must agree.

use std::collections::BTreeMap;

use relay_proto::traffic::{Count, Traffic};
use relay_proto::{ClientAddr, DropReason, Family, PeerAddr, Snapshot, Verdict};

use super::message::{INDICATION, Stun};

#[derive(Debug, Default)]
pub struct Tally {
    pub traffic: Traffic,
    /// Replies by method and code.
    pub requests: BTreeMap<(u16, u16), u64>,
}

impl Tally {
    pub fn heard_client(&mut self, from: ClientAddr, bytes: usize) {
        let leg = &mut self.traffic.client[from.transport.index()];
        add(&mut leg.rx[Family::of(&from.remote.ip()).index()], bytes);
    }

    pub fn heard_peer(&mut self, from: PeerAddr, bytes: usize) {
        add(&mut self.traffic.peer.rx[Family::of(&from.0.ip()).index()], bytes);
    }

    pub fn hairpin(&mut self, bytes: usize) {
        add(&mut self.traffic.hairpin, bytes);
    }

    /// What a verdict sends or drops.
    pub fn verdict(&mut self, verdict: &Verdict<'_>) {
        match verdict {
            Verdict::ToPeer { to, payload, .. } => {
                add(&mut self.traffic.peer.tx[Family::of(&to.0.ip()).index()], payload.len());
            }
            Verdict::ToClient { to, head, payload, pad, .. } => {
                let bytes = head.as_bytes().len() + payload.len() + usize::from(*pad);
                add(self.client_tx(*to), bytes);
            }
            Verdict::Drop(reason) => self.dropped(*reason),
            Verdict::Hairpin { .. } | Verdict::Control => {}
        }
    }

    pub fn reply(&mut self, to: ClientAddr, bytes: usize, stun: &Stun<'_>) {
        add(self.client_tx(to), bytes);
        if stun.class == INDICATION {
            return;
        }
        *self.requests.entry((stun.method, stun.code().unwrap_or(0))).or_default() += 1;
    }

    pub fn dropped(&mut self, reason: DropReason) {
        self.traffic.dropped[reason.index()] += 1;
    }

    pub fn unsent_to_client(&mut self, to: ClientAddr, bytes: usize) {
        take_back(self.client_tx(to), bytes);
        self.dropped(DropReason::SocketBuffer);
    }

    pub fn unsent_to_peer(&mut self, to: PeerAddr, bytes: usize) {
        take_back(&mut self.traffic.peer.tx[Family::of(&to.0.ip()).index()], bytes);
        self.dropped(DropReason::SendError);
    }

    /// The relay's own count of replies, in the tally's form.
    pub fn requests_of(snapshot: &Snapshot) -> BTreeMap<(u16, u16), u64> {
        let counts = snapshot.requests.iter();
        counts.map(|((method, code), count)| ((*method as u16, *code), *count)).collect()
    }

    fn client_tx(&mut self, to: ClientAddr) -> &mut Count {
        let leg = &mut self.traffic.client[to.transport.index()];
        &mut leg.tx[Family::of(&to.remote.ip()).index()]
    }
}

fn add(count: &mut Count, bytes: usize) {
    count.packets += 1;
    count.bytes += bytes as u64;
}

fn take_back(count: &mut Count, bytes: usize) {
    count.packets -= 1;
    count.bytes -= bytes as u64;
}
