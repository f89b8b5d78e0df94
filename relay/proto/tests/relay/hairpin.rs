//! Two allocations of one server talk to each other in process (DAT-13).

use std::net::SocketAddr;

use relay_proto::stun::Message;
use relay_proto::{DropReason, RelayAddr, Verdict, attribute as attr};

use super::world::{
    Client, EXTERNAL_IP, LOCAL_IP, Relayed, World, channel_data, ip, peer, rendered,
};

struct Pair {
    world: World,
    ana: Client,
    ben: Client,
    ana_at: Relayed,
    ben_at: Relayed,
}

fn pair() -> Pair {
    let mut world = World::new();
    let [ana, ben] = [(1, "ana"), (2, "ben")].map(|(port, user)| world.client(port, user));
    let (ana_at, ben_at) = (world.allocate(&ana), world.allocate(&ben));
    Pair { world, ana, ben, ana_at, ben_at }
}

impl Pair {
    /// What Ben's client gets when Ana's sends `bytes`.
    fn carry(&mut self, bytes: &[u8]) -> Result<Vec<u8>, DropReason> {
        match self.world.client_sends(&self.ana, bytes) {
            Verdict::Hairpin { via, from, to, payload } => {
                assert_eq!((via, from), (self.ana_at.id, self.ana_at.addr));
                match self.world.relay.from_relay(self.world.now, from, to, payload) {
                    Verdict::Drop(reason) => Err(reason),
                    verdict => {
                        let Verdict::ToClient { to, via, .. } = &verdict else {
                            panic!("{verdict:?}")
                        };
                        assert_eq!((*to, *via), (self.ben.addr, self.ben_at.id));
                        Ok(rendered(&verdict))
                    }
                }
            }
            Verdict::Drop(reason) => Err(reason),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn channels_on_both_sides_carry_in_process() {
    let mut it = pair();
    assert_eq!(it.world.bind(&it.ana, 0x4000, it.ben_at.addr.0), 0);
    let data = channel_data(0x4000, b"hello");
    assert_eq!(it.carry(&data), Err(DropReason::NoPermission), "Ben must permit it too");
    assert_eq!(it.world.bind(&it.ben, 0x4FFF, it.ana_at.addr.0), 0);
    assert_eq!(it.carry(&data), Ok(channel_data(0x4FFF, b"hello")));
}

#[test]
fn indications_carry_in_process_and_name_the_relayed_address() {
    let mut it = pair();
    assert_eq!(it.world.permit(&it.ana, &[it.ben_at.addr.0]), 0);
    assert_eq!(it.world.permit(&it.ben, &[it.ana_at.addr.0]), 0);
    let bytes = it.world.indication(it.ben_at.addr.0, b"hello");
    let heard = it.carry(&bytes).expect("permitted both ways");
    let message = Message::parse(&heard).expect("whole");
    let from = message.attribute(attr::XOR_PEER_ADDRESS).and_then(|value| message.unxor(value));
    assert_eq!(from, Some(it.ana_at.addr.0));
    assert_eq!(message.attribute(attr::DATA), Some(&b"hello"[..]));
}

#[test]
fn permission_of_the_target_ends_after_its_time() {
    let mut it = pair();
    assert_eq!(it.world.permit(&it.ben, &[it.ana_at.addr.0]), 0);
    it.world.pass_ms(299_900);
    assert_eq!(it.world.permit(&it.ana, &[it.ben_at.addr.0]), 0);
    let bytes = it.world.indication(it.ben_at.addr.0, b"x");
    assert!(it.carry(&bytes).is_ok());
    it.world.pass_ms(200);
    assert_eq!(it.carry(&bytes), Err(DropReason::NoPermission));
}

/// What the socket is bound to means the same as what clients are told, in both directions.
#[test]
fn local_form_of_an_address_means_the_same_port() {
    let mut it = pair();
    let local = |at: Relayed| SocketAddr::new(ip(LOCAL_IP), at.addr.0.port());
    let (ana_local, ben_local) = (local(it.ana_at), local(it.ben_at));
    assert_eq!(it.world.permit(&it.ana, &[ben_local]), 0);
    assert_eq!(it.world.bind(&it.ben, 0x4000, ana_local), 0);
    for to in [ben_local, it.ben_at.addr.0] {
        let bytes = it.world.indication(to, b"x");
        assert_eq!(it.carry(&bytes), Ok(channel_data(0x4000, b"x")), "{to}");
    }
    assert_eq!(it.world.bind(&it.ana, 0x4000, ben_local), 0);
    assert_eq!(it.world.bind(&it.ana, 0x4001, it.ben_at.addr.0), 400, "the same peer");
    assert_eq!(it.carry(&channel_data(0x4000, b"x")), Ok(channel_data(0x4000, b"x")));
}

#[test]
fn own_relayed_address_is_no_peer() {
    let mut it = pair();
    let own = it.ana_at.addr.0;
    let own_local = SocketAddr::new(ip(LOCAL_IP), own.port());
    for address in [own, own_local] {
        assert_eq!(it.world.bind(&it.ana, 0x4000, address), 403, "{address}");
        assert_eq!(it.world.permit(&it.ana, &[address]), 0, "its address is other relays' too");
        let bytes = it.world.indication(address, b"x");
        assert_eq!(it.carry(&bytes), Err(DropReason::PeerDenied), "{address}");
    }
}

#[test]
fn closed_ports_take_nothing() {
    let mut it = pair();
    assert_eq!(it.world.bind(&it.ana, 0x4000, it.ben_at.addr.0), 0);
    assert_eq!(it.world.refresh(&it.ben, 0).code(), 0);
    let data = channel_data(0x4000, b"x");
    assert_eq!(it.carry(&data), Err(DropReason::RelayPortClosed));
    let nobody = RelayAddr(SocketAddr::new(ip(EXTERNAL_IP), 65_000));
    let verdict = it.world.relay.from_relay(it.world.now, it.ana_at.addr, nobody, b"x");
    assert_eq!(verdict, Verdict::Drop(DropReason::RelayPortClosed));
}

/// What we send to ourselves never takes the network, so what comes that way is forged.
#[test]
fn datagrams_that_claim_our_own_address_are_dropped() {
    let mut it = pair();
    assert_eq!(it.world.permit(&it.ben, &[it.ana_at.addr.0, peer(1, 1)]), 0);
    for own in [it.ana_at.addr.0, SocketAddr::new(ip(LOCAL_IP), it.ana_at.addr.0.port())] {
        let verdict = it.world.peer_sends(it.ben_at, own, b"x");
        assert_eq!(verdict, Verdict::Drop(DropReason::PeerDenied), "{own}");
    }
    assert!(it.world.hears(it.ben_at, peer(1, 1)));
}

/// One payload in, at most one out: two allocations cannot feed each other.
#[test]
fn payload_is_delivered_once_and_never_sent_on() {
    let mut it = pair();
    assert_eq!(it.world.bind(&it.ana, 0x4000, it.ben_at.addr.0), 0);
    assert_eq!(it.world.bind(&it.ben, 0x4000, it.ana_at.addr.0), 0);
    for _ in 0..3 {
        it.carry(&channel_data(0x4000, &channel_data(0x4000, b"nested"))).expect("delivered");
    }
    let after = it.world.relay.snapshot(it.world.now).traffic;
    assert_eq!(after.hairpin.packets, 3);
    assert_eq!(after.peer, relay_proto::traffic::Leg::default(), "no socket between them");
}
