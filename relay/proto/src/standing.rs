//! What the policy says of peers that were permitted, remembered until the policy changes.
//!
//! A permission or channel carries the verdict it was installed under. While the policy is the
//! same, a packet costs one comparison; after a change its first packet has it judged anew.

use std::net::{IpAddr, SocketAddr};

use crate::address::RelayAddr;
use crate::policy::{Judgement, PeerPolicy};
use crate::relay::Settings;
use crate::traffic::DropReason;

/// Counts the policies that a relay has had.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Generation(u32);

impl Generation {
    /// The policy has changed. After 2³² changes an old verdict might pass for a new one; no
    /// permission lives as long.
    pub fn advance(&mut self) {
        self.0 = self.0.wrapping_add(1);
    }
}

/// What peers are judged by at this moment.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'p> {
    pub policy: &'p PeerPolicy,
    pub generation: Generation,
    /// A channel needs a live permission.
    pub strict: bool,
}

impl<'p> Rules<'p> {
    /// Those of the relay's settings, whose policy is of this generation.
    pub fn of(settings: &'p Settings, generation: Generation) -> Self {
        Self { policy: &settings.policy, generation, strict: settings.strict_channels }
    }

    /// Whether a packet or a channel may be for `peer`, and for which allocation of ours if it is
    /// one; `own` is the relayed address of whoever asks, which is no peer of itself.
    pub fn way(
        &self,
        peer: SocketAddr,
        own: Option<RelayAddr>,
    ) -> Result<Option<RelayAddr>, DropReason> {
        match self.policy.judge(peer) {
            Judgement::OwnRelay(relay) if Some(relay) == own => Err(DropReason::PeerDenied),
            Judgement::OwnRelay(relay) => Ok(Some(relay)),
            Judgement::Peer => Ok(None),
            Judgement::Denied => Err(DropReason::PeerDenied),
        }
    }
}

/// How far a permission reaches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reach {
    /// The address is nobody's but the peer's: its port need not be judged.
    AnyPort,
    /// An address of our own, whose ports are judged one by one.
    EachPort,
    /// Nowhere: the policy has come to forbid the address.
    Nowhere,
}

/// The reach of a permission, and under which policy it has that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    reach: Reach,
    judged: Generation,
}

impl Standing {
    /// Judges an address.
    pub fn of(ip: IpAddr, rules: Rules<'_>) -> Self {
        let reach = if !rules.policy.permits(SocketAddr::new(ip, 0)) {
            Reach::Nowhere
        } else if rules.policy.any_port(ip) {
            Reach::AnyPort
        } else {
            Reach::EachPort
        };
        Self { reach, judged: rules.generation }
    }

    /// The reach under the rules of now; `ip` is the address it was judged for.
    pub fn reach(&mut self, ip: IpAddr, rules: Rules<'_>) -> Result<Reach, DropReason> {
        if self.judged != rules.generation {
            *self = Self::of(ip, rules);
        }
        match self.reach {
            Reach::Nowhere => Err(DropReason::PeerDenied),
            reach => Ok(reach),
        }
    }
}

/// The verdict on a channel's peer, and of which policy it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judged {
    is_denied: bool,
    judged: Generation,
}

impl Judged {
    /// A peer that was allowed just now.
    pub fn allowed(rules: Rules<'_>) -> Self {
        Self { is_denied: false, judged: rules.generation }
    }

    /// Whether `peer` may be reached under the rules of now. `relay` is who it is if it is an
    /// allocation of ours, and is found anew with the verdict.
    pub fn still_allows(
        &mut self,
        peer: SocketAddr,
        relay: &mut Option<RelayAddr>,
        rules: Rules<'_>,
    ) -> bool {
        if self.judged != rules.generation {
            // Its own port was refused when it was bound, and is still its own.
            let way = rules.way(peer, None);
            *self = Self { is_denied: way.is_err(), judged: rules.generation };
            *relay = way.unwrap_or(*relay);
        }
        !self.is_denied
    }
}
