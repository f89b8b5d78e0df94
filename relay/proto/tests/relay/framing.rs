//! Binding, framing faults, the second port, and how long replies may be.

use relay_proto::attribute as attr;
use relay_proto::stun::{Class, Method};
use relay_proto::{ClientAddr, DropReason, Verdict};

use super::world::{
    EXTERNAL_IP, LISTENER_PORT, LOCAL_IP, Random, Reply, World, addr, channel_data, client_addr,
    client_addr_v6, ip, peer,
};

const CHANGE_REQUEST: u16 = 0x0003;
const PADDING: u16 = 0x0026;
const RESPONSE_PORT: u16 = 0x0027;

fn binding(world: &mut World) -> Vec<u8> {
    world.message(Method::Binding, Class::Request, |w| w)
}

fn is_silent(world: &mut World, bytes: &[u8]) -> bool {
    world.replies(client_addr(1), bytes).is_empty()
}

/// FRM-01, NAT-05: the mandatory attribute and no other.
#[test]
fn binding_tells_the_mapped_address_and_nothing_else() {
    let mut world = World::new();
    for (from, length) in [(client_addr(40_000), 32), (client_addr_v6(40_000), 44)] {
        let bytes = binding(&mut world);
        let reply = world.reply(from, &bytes);
        assert_eq!(reply.code(), 0);
        assert_eq!(reply.address(attr::XOR_MAPPED_ADDRESS), Some(from.remote));
        assert_eq!(reply.message().attributes().count(), 1);
        assert_eq!(reply.bytes.len(), length);
    }
}

/// FRM-02, NAT-04: NAT behaviour discovery is not offered, so its requests are refused by name.
#[test]
fn required_attributes_that_are_unknown_are_listed() {
    let mut world = World::new();
    let unknown = [0x7F01, CHANGE_REQUEST, RESPONSE_PORT, PADDING];
    for kind in unknown {
        let bytes = world.message(Method::Binding, Class::Request, |w| w.attribute(kind, &[0; 4]));
        let reply = world.reply(client_addr(1), &bytes);
        assert_eq!(reply.code(), 420);
        assert_eq!(reply.attribute(attr::UNKNOWN_ATTRIBUTES), Some(kind.to_be_bytes().to_vec()));
    }
    let bytes = world.message(Method::Binding, Class::Request, |w| {
        unknown.into_iter().fold(w, |w, kind| w.attribute(kind, &[]))
    });
    let listed = unknown.into_iter().flat_map(u16::to_be_bytes).collect();
    let reply = world.reply(client_addr(1), &bytes);
    assert_eq!(reply.attribute(attr::UNKNOWN_ATTRIBUTES), Some(listed));
}

#[test]
fn optional_attributes_that_are_unknown_are_ignored() {
    let mut world = World::new();
    let bytes = world.message(Method::Binding, Class::Request, |w| {
        w.attribute(0x8022, b"some client").attribute(0xC057, &[0; 4])
    });
    assert_eq!(world.reply(client_addr(1), &bytes).code(), 0);
}

/// FRM-03, -04, -05, -06, -11, -14.
#[test]
fn datagrams_that_are_not_whole_meet_silence() {
    let mut world = World::new();
    let good = binding(&mut world);
    let changed = |at: usize, to: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    };
    let with_attribute = |header: [u8; 4]| {
        let mut bytes = [&good[..], &header, &[0; 8]].concat();
        bytes[3] = 12;
        bytes
    };
    let cases = [
        ("another cookie", changed(4, &[0x21, 0x12, 0xA4, 0x43])),
        ("RFC 3489, without a cookie", changed(4, &[7, 7, 7, 7])),
        ("a length that is no multiple of 4", [&changed(2, &[0, 3])[..], &[0; 3]].concat()),
        ("longer than its header says", [&good[..], &[0; 4]].concat()),
        ("shorter than its header says", changed(2, &[0, 4])),
        ("an attribute that overruns", with_attribute([0x80, 0x22, 0, 9])),
        ("an attribute of 65535 bytes", with_attribute([0x80, 0x22, 0xFF, 0xFF])),
        ("top bits 10", changed(0, &[0x80])),
        ("top bits 11", changed(0, &[0xC0])),
        ("a header cut short", good[..19].to_vec()),
        ("nothing", Vec::new()),
        ("one byte", vec![0]),
    ];
    for (what, bytes) in cases {
        assert!(is_silent(&mut world, &bytes), "{what}");
        let verdict = world.relay.from_client(world.now, client_addr(1), &bytes);
        assert_eq!(verdict, Verdict::Drop(DropReason::Malformed), "{what}");
    }
    assert!(!is_silent(&mut world, &good));
}

/// FRM-07.
#[test]
fn fingerprint_is_checked_where_it_stands_last() {
    let mut world = World::new();
    let good = world.message(Method::Binding, Class::Request, |w| w.fingerprint());
    assert_eq!(world.reply(client_addr(1), &good).code(), 0);
    for at in 8..20 {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(is_silent(&mut world, &bad), "byte {at}");
    }
}

/// FRM-08, -09, -10, -12: no reply means no loop.
#[test]
fn only_requests_are_answered() {
    let mut world = World::new();
    let cases = [
        (Method::Binding, Class::Indication),
        (Method::Binding, Class::Success),
        (Method::Binding, Class::Error),
        (Method::Allocate, Class::Indication),
        (Method::Allocate, Class::Success),
        (Method::Refresh, Class::Error),
        (Method::Send, Class::Request),
        (Method::Data, Class::Request),
        (Method::Data, Class::Indication),
    ];
    for (method, class) in cases {
        let bytes = world.message(method, class, |w| w.error_code(400));
        assert!(is_silent(&mut world, &bytes), "{method:?} {class:?}");
    }
    for kind in [0x0002u16, 0x0005, 0x000A, 0x000B, 0x3EEF] {
        let mut bytes = binding(&mut world);
        bytes[..2].copy_from_slice(&kind.to_be_bytes());
        assert!(is_silent(&mut world, &bytes), "method {kind:#06x}");
    }
}

/// FRM-16: an answer would be a loop, or go to everyone.
#[test]
fn sources_that_no_client_has_are_not_answered() {
    let mut world = World::new();
    let from = |ip_text, port| ClientAddr { remote: (ip(ip_text), port).into(), ..client_addr(1) };
    let cases = [
        from("192.0.2.1", 0),
        from(LOCAL_IP, LISTENER_PORT),
        from(EXTERNAL_IP, LISTENER_PORT + 1),
        from("255.255.255.255", 40_000),
        from("224.0.0.251", 5353),
        from("0.0.0.0", 40_000),
        from("ff02::1", 40_000),
    ];
    for source in cases {
        for method in [Method::Binding, Method::Allocate] {
            let bytes = world.message(method, Class::Request, |w| w.attribute(0x8022, b"anyone"));
            assert_eq!(world.replies(source, &bytes), [], "{source:?}");
            assert!(matches!(
                world.relay.from_stun_client(world.now, source, &bytes),
                Verdict::Drop(_)
            ));
        }
    }
    let bytes = binding(&mut world);
    assert_eq!(world.reply(from(LOCAL_IP, 40_000), &bytes).code(), 0, "a client on our own host");
}

/// FRM-17: four valid seeds, 1 to 6 bytes flipped, 30 % cut short.
#[test]
fn mutated_packets_leave_the_relay_alive() {
    let mut world = World::new();
    let client = world.client(1, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.bind(&client, 0x4000, peer(1, 1)), 0);
    let seeds = [
        binding(&mut world),
        world.request(&client, Method::Refresh, |w| w.attribute(attr::LIFETIME, &[0, 0, 2, 88])),
        world.indication(peer(1, 1), b"some payload"),
        channel_data(0x4000, b"some payload"),
    ];
    let mut random = Random(17);
    for _ in 0..8_000 {
        let mut bytes = random.pick(&seeds).clone();
        for _ in 0..=random.below(6) {
            let at = random.below(bytes.len());
            bytes[at] ^= random.byte();
        }
        if random.below(10) < 3 {
            bytes.truncate(random.below(bytes.len()));
        }
        world.relay.from_client(world.now, client.addr, &bytes);
        assert!(world.drain().len() <= 1, "{bytes:02x?}");
        let _ = world.peer_sends(relayed, peer(1, 1), &bytes);
    }
    // The flood has used up what unsigned requests may ask for.
    world.pass_ms(1_000);
    let bytes = binding(&mut world);
    assert_eq!(world.reply(client.addr, &bytes).code(), 0);
}

/// NAT-01, NAT-03.
#[test]
fn second_port_answers_binding_and_nothing_else() {
    let mut world = World::new();
    let from = ClientAddr { listener: 1, ..client_addr(40_000) };
    let bytes = binding(&mut world);
    assert_eq!(world.relay.from_stun_client(world.now, from, &bytes), Verdict::Control);
    let replies = world.drain();
    let [reply] = &replies[..] else { panic!("one reply, not {replies:?}") };
    assert_eq!(reply.to, from, "from the port that was asked");
    assert_eq!(reply.address(attr::XOR_MAPPED_ADDRESS), Some(from.remote));

    let client = world.client(40_000, "ana");
    let others = [
        world.request(&client, Method::Allocate, |w| w),
        world.message(Method::Allocate, Class::Request, |w| w),
        world.message(Method::Binding, Class::Indication, |w| w),
        world.indication(peer(1, 1), b"x"),
        channel_data(0x4000, b"x"),
        Vec::new(),
    ];
    for bytes in others {
        let verdict = world.relay.from_stun_client(world.now, from, &bytes);
        assert_eq!(verdict, Verdict::Drop(DropReason::Malformed));
        assert_eq!(world.drain(), []);
    }
}

/// I-14: a forged source must not turn the relay into an amplifier.
#[test]
fn strangers_get_at_most_twice_what_they_send() {
    let mut world = World::new();
    let methods = [
        Method::Binding,
        Method::Allocate,
        Method::Refresh,
        Method::CreatePermission,
        Method::ChannelBind,
    ];
    let kinds = [
        attr::USERNAME,
        attr::REALM,
        attr::NONCE,
        attr::MESSAGE_INTEGRITY,
        attr::LIFETIME,
        0x7F01,
        0x8022,
    ];
    let mut random = Random(14);
    let mut worst = 0.0f64;
    for method in methods {
        for _ in 0..400 {
            let attributes: Vec<(u16, usize)> = (0..random.below(6))
                .map(|_| (*random.pick(&kinds), random.below(3) * random.below(13)))
                .collect();
            let bytes = world.message(method, Class::Request, |w| {
                attributes.iter().fold(w, |w, (kind, len)| w.attribute(*kind, &vec![b'a'; *len]))
            });
            let Reply { bytes: answer, .. } = world.reply(client_addr(1), &bytes);
            // Slowly enough for the budget of such replies.
            world.pass_ms(100);
            assert!(answer.len() <= 2 * bytes.len(), "{method:?} {attributes:?}");
            worst = worst.max(answer.len() as f64 / bytes.len() as f64);
        }
    }
    assert!((worst - 2.0).abs() < 1e-9, "a 401 to 28 bytes is exactly twice as long, not {worst}");
}

/// The one reply above twice its request: the mandatory attribute alone makes it so.
#[test]
fn binding_over_ipv6_is_the_only_exception() {
    let mut world = World::new();
    let from = client_addr_v6(1);
    let bytes = binding(&mut world);
    assert_eq!(world.reply(from, &bytes).bytes.len(), 44);
    let bare = world.message(Method::Allocate, Class::Request, |w| w);
    assert_eq!(world.reply(from, &bare).bytes.len(), 28);
    let unknown =
        world.message(Method::Binding, Class::Request, |w| w.attribute(CHANGE_REQUEST, &[]));
    assert!(world.reply(from, &unknown).bytes.len() <= 48);
    assert_eq!(addr("[2001:db8:2::1]:1"), from.remote);
}
