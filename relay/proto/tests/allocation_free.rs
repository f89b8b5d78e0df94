//! Media costs no heap allocation, once its allocation, permission and channel are there.
//!
//! A binary of its own, as it counts every allocation of the process.
#![allow(unsafe_code)] // `GlobalAlloc` is an unsafe trait; counting is all that is added to it

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::net::SocketAddr;

use relay_proto::stun::{Class, Method};
use relay_proto::{ClientAddr, DropReason, PeerAddr, Verdict, attribute as attr};

#[allow(dead_code)] // this binary needs a small part of it
#[path = "relay/world.rs"]
mod world;

#[allow(dead_code)] // as above
#[path = "relay/wire.rs"]
mod wire;

use world::{Client, Relayed, World, channel_data, peer};

struct Counting;

thread_local! {
    /// Allocations of this thread: the test harness has threads of its own.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends may free and allocate when its locals are gone already.
    let _ = ALLOCATIONS.try_with(|it| it.set(it.get() + 1));
}

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations while `work` runs 1,000 times, after one run to warm up.
fn allocations(mut work: impl FnMut()) -> u64 {
    work();
    let before = ALLOCATIONS.get();
    for _ in 0..1_000 {
        work();
    }
    ALLOCATIONS.get() - before
}

const BOUND: (u8, u16) = (1, 1);
const PERMITTED: (u8, u16) = (2, 2);
const STRANGER: (u8, u16) = (3, 3);

fn at((last, port): (u8, u16)) -> SocketAddr {
    peer(last, port)
}

fn member(world: &mut World, port: u16) -> (Client, Relayed) {
    let client = world.client(port, "ana");
    let relayed = world.allocate(&client);
    assert_eq!(world.bind(&client, 0x4000, at(BOUND)), 0);
    assert_eq!(world.permit(&client, &[at(PERMITTED)]), 0);
    (client, relayed)
}

#[test]
fn counter_sees_allocations() {
    assert!(allocations(|| drop(black_box(Box::new(1)))) >= 1_000);
}

#[test]
fn media_of_a_client_needs_no_heap() {
    let mut world = World::new();
    let (client, _) = member(&mut world, 1);
    let packets = [channel_data(0x4000, &[7; 1200]), world.indication(at(PERMITTED), &[7; 1200])];
    let counted = allocations(|| {
        for packet in &packets {
            let verdict = world.relay.from_client(world.now, client.addr, packet);
            assert!(matches!(black_box(verdict), Verdict::ToPeer { .. }));
        }
    });
    assert_eq!(counted, 0);
}

#[test]
fn media_of_a_peer_needs_no_heap() {
    let mut world = World::new();
    let (_, relayed) = member(&mut world, 1);
    let payload = [7; 1201];
    let counted = allocations(|| {
        for from in [BOUND, PERMITTED] {
            let verdict =
                world.relay.from_peer(world.now, relayed.id, PeerAddr(at(from)), &payload);
            assert!(matches!(black_box(verdict), Verdict::ToClient { .. }));
        }
    });
    assert_eq!(counted, 0);
}

#[test]
fn media_between_two_allocations_needs_no_heap() {
    let mut world = World::new();
    let ((ana, ana_at), (ben, ben_at)) = (member(&mut world, 1), member(&mut world, 2));
    assert_eq!(world.bind(&ana, 0x4001, ben_at.addr.0), 0);
    assert_eq!(world.permit(&ben, &[ana_at.addr.0]), 0);
    let packets = [channel_data(0x4001, &[7; 1200]), world.indication(ben_at.addr.0, &[7; 1200])];
    let counted = allocations(|| {
        for packet in &packets {
            let verdict = world.relay.from_client(world.now, ana.addr, packet);
            let Verdict::Hairpin { from, to, payload, .. } = verdict else { panic!("{verdict:?}") };
            let verdict = world.relay.from_relay(world.now, from, to, payload);
            assert!(matches!(black_box(verdict), Verdict::ToClient { .. }));
        }
    });
    assert_eq!(counted, 0);
}

/// I-4: what strangers send leaves nothing behind, and refusing it is as cheap.
#[test]
fn refused_media_needs_no_heap() {
    let mut world = World::new();
    let (client, relayed) = member(&mut world, 1);
    let packets = [
        channel_data(0x4FFF, &[7; 1200]),
        world.indication(at(STRANGER), &[7; 1200]),
        vec![0xFF; 1200],
    ];
    let counted = allocations(|| {
        for packet in &packets {
            let verdict = world.relay.from_client(world.now, client.addr, packet);
            assert!(matches!(black_box(verdict), Verdict::Drop(_)));
        }
        let verdict = world.relay.from_peer(world.now, relayed.id, PeerAddr(at(STRANGER)), &[7]);
        assert!(matches!(black_box(verdict), Verdict::Drop(_)));
    });
    assert_eq!(counted, 0);
}

/// Reply buffers are used again, and the budget's table never grows: a flood of requests without
/// credentials costs no heap, whether they are answered or not.
#[test]
fn replies_to_strangers_need_no_heap() {
    let mut world = World::new();
    let binding = world.message(Method::Binding, Class::Request, |w| w);
    let allocate = world.message(Method::Allocate, Class::Request, |w| {
        w.attribute(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])
    });
    for (pause_ms, wanted) in
        [(1_000, Verdict::Control), (0, Verdict::Drop(DropReason::RateLimited))]
    {
        for bytes in [&binding, &allocate] {
            let mut port = 0u8;
            // Empties the budget where no time passes.
            for _ in 0..200 {
                world.relay.from_client(world.now, world::client_addr(1), bytes);
                while world.relay.next_effect().is_some() {}
            }
            let counted = allocations(|| {
                world.now.mono_ms += pause_ms;
                port = port.wrapping_add(1);
                let from = world::client_addr(1 + u16::from(port));
                assert_eq!(world.relay.from_client(world.now, from, bytes), wanted);
                while world.relay.next_effect().is_some() {}
            });
            assert_eq!(counted, 0);
        }
    }
}

/// I-4: sources without number are no more memory than one.
#[test]
fn sources_without_number_need_no_heap() {
    let mut world = World::new();
    let binding = world.message(Method::Binding, Class::Request, |w| w);
    let mut source = 0x0A00_0000u32;
    let counted = allocations(|| {
        for _ in 0..60 {
            source += 256;
            let remote = SocketAddr::new(std::net::Ipv4Addr::from_bits(source).into(), 5);
            let from = ClientAddr { remote, ..world::client_addr(1) };
            world.relay.from_client(world.now, from, &binding);
            while world.relay.next_effect().is_some() {}
        }
    });
    assert_eq!(counted, 0);
}
