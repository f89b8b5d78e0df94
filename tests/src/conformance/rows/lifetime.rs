//! Rows about time. They take up to eleven minutes on the wire, side by side.

use std::time::Duration;

use super::relayed::{arrived, came, dropped, homeward, outward};
use crate::Outcome;
use crate::conformance::client::{Client, Incoming, indication};
use crate::conformance::message::{Draft, REFRESH, channel_data};
use crate::conformance::probe::Probe;
use crate::conformance::trial::{Peer, Trial};
use crate::conformance::verdict::Verdict;

const PERMISSIONS: &str = "relay/proto/tests/relay/permission.rs";
const CHANNELS: &str = "relay/proto/tests/relay/channel.rs";
const LIMITS: &str = "relay/proto/tests/relay/limits.rs";
const CHANNEL: u16 = 0x4000;
/// Longer than any row, so that the allocation is not what ends.
const ALLOCATION_S: u32 = 3_600;
/// RFC 8656 §9 and §12, and how much before and after that a row looks: servers may look at their
/// clocks now and then.
const PERMISSION_S: u64 = 300;
const CHANNEL_S: u64 = 600;
const BEFORE_S: u64 = 5;
const AFTER_S: u64 = 10;

pub const PROBES: &[Probe] = &[
    Probe::slow(
        "PRM-11",
        "8656 §9",
        "traffic, Send and Refresh for 310 s",
        "the permission ends",
        |trial| {
            let field = Field::new(trial)?;
            field.client.permit(field.peer.address)?;
            let half = PERMISSION_S / 2;
            wait(half);
            let passes = field.outward()?;
            field.client.request(Draft::request(REFRESH).lifetime(ALLOCATION_S))?;
            wait(half + AFTER_S);
            Ok(passes.and(field.outward_dropped()?))
        },
        Some((PERMISSIONS, "traffic_and_refresh_do_not_keep_a_permission")),
    ),
    Probe::slow(
        "PRM-11",
        "8656 §9",
        "ChannelBind after 150 s, to another port of the peer",
        "the permission goes on at 310 s",
        |trial| {
            let field = Field::new(trial)?;
            field.client.permit(field.peer.address)?;
            let half = PERMISSION_S / 2;
            wait(half);
            field.client.bind(CHANNEL, trial.peer()?.address)?;
            wait(half + AFTER_S);
            field.outward()
        },
        Some((PERMISSIONS, "channel_bind_keeps_a_permission")),
    ),
    Probe::slow(
        "PRM-12",
        "8656 §9",
        "packets at 295 s and at 310 s",
        "pass; dropped, both directions",
        |trial| {
            let field = Field::new(trial)?;
            field.client.permit(field.peer.address)?;
            wait(PERMISSION_S - BEFORE_S);
            let before = field.outward()?.and(field.homeward()?);
            wait(BEFORE_S + AFTER_S);
            Ok(before.and(field.outward_dropped()?).and(field.homeward_dropped()?))
        },
        Some((PERMISSIONS, "permission_lasts_three_hundred_seconds_both_ways")),
    ),
    Probe::slow(
        "CHN-11",
        "8656 §12.6",
        "ChannelData 610 s after the last bind, the permission being refreshed",
        "dropped",
        |trial| {
            let field = Field::new(trial)?;
            field.client.bind(CHANNEL, field.peer.address)?;
            for _ in 0..3 {
                wait(CHANNEL_S / 3);
                field.client.permit(field.peer.address)?;
            }
            wait(AFTER_S);
            let data = channel_data(CHANNEL, b"late");
            Ok(dropped(&outward(&field.client, &data, &field.peer, &field.witness()?)?))
        },
        Some((CHANNELS, "channel_lasts_six_hundred_seconds")),
    ),
    Probe::slow(
        "CHN-12",
        "8656 §9, §12",
        "at 310 s, binding kept, permission not refreshed",
        "the bound transport address still passes both ways, other ports of its IP do not",
        |trial| {
            let field = Field::new(trial)?;
            field.client.bind(CHANNEL, field.peer.address)?;
            wait(PERMISSION_S + AFTER_S);
            let data = channel_data(CHANNEL, b"still");
            let witness = field.witness()?;
            let out = arrived(outward(&field.client, &data, &field.peer, &witness)?, b"still");
            let back = homeward(&field.client, &field.peer, b"back", &witness)?;
            let back = came(back, &Incoming::Channel(CHANNEL, b"back".to_vec()));
            let other = dropped(&homeward(&field.client, &trial.peer()?, b"no", &witness)?);
            Ok(out.and(back).and(other))
        },
        Some((CHANNELS, "channel_carries_its_peer_beyond_the_permission")),
    ),
    Probe::test(
        "CHN-12",
        "8656 §9, §12",
        "the same with --strict-channels",
        "all stops at 300 s",
        (LIMITS, "strict_channel_needs_a_live_permission_both_ways"),
    ),
    Probe::slow(
        "CHN-13",
        "8656 §12",
        "number bound to another peer 60 s after its expiry",
        "success",
        |trial| {
            let field = Field::new(trial)?;
            field.client.bind(CHANNEL, field.peer.address)?;
            wait(CHANNEL_S + 60);
            let draft = Draft::request(crate::conformance::message::CHANNEL_BIND);
            let draft = draft.channel(CHANNEL).peer(trial.peer()?.address);
            Ok(field.client.request_anew(draft)?.success())
        },
        Some((CHANNELS, "number_and_peer_are_free_after_their_end")),
    ),
    Probe::test(
        "CHN-13",
        "8656 §12",
        "the same with --strict-channels",
        "400 for 300 s",
        (LIMITS, "strict_number_and_peer_are_free_five_minutes_after_their_end"),
    ),
];

/// The rows name the times.
fn wait(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

/// A client whose allocation outlives the row, and its peer.
struct Field {
    client: Client,
    peer: Peer,
}

impl Field {
    fn new(trial: &Trial<'_>) -> Outcome<Self> {
        let mut client = trial.client()?;
        client.allocate_with(Draft::allocate().lifetime(ALLOCATION_S))?;
        Ok(Self { client, peer: trial.peer()? })
    }

    /// Another peer, permitted just now.
    fn witness(&self) -> Outcome<Peer> {
        let witness = Peer::at((std::net::Ipv4Addr::new(198, 51, 100, 2), 0).into())?;
        self.client.permit(witness.address)?;
        Ok(witness)
    }

    fn outward(&self) -> Outcome<Verdict> {
        Ok(arrived(self.sent()?, b"payload"))
    }

    fn outward_dropped(&self) -> Outcome<Verdict> {
        Ok(dropped(&self.sent()?))
    }

    fn homeward(&self) -> Outcome<Verdict> {
        let wanted = Incoming::Data(self.peer.address, b"payload".to_vec());
        Ok(came(self.received()?, &wanted))
    }

    fn homeward_dropped(&self) -> Outcome<Verdict> {
        Ok(dropped(&self.received()?))
    }

    fn sent(&self) -> Outcome<Option<Vec<u8>>> {
        let stimulus = indication(self.peer.address, b"payload");
        outward(&self.client, stimulus.bytes(), &self.peer, &self.witness()?)
    }

    fn received(&self) -> Outcome<Option<Incoming>> {
        homeward(&self.client, &self.peer, b"payload", &self.witness()?)
    }
}
