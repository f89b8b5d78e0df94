//! The operator, who changes rules and ends allocations while calls go on.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use relay_proto::shape::Rate;
use relay_proto::{Alternates, Who};

use super::super::super::world;
use super::super::input::Input;
use super::{CHANNELS_MAX, PERMISSIONS_MAX, School, USERS};

/// Rules of the moment, as far as they change who may send.
#[derive(Clone, Copy, Default)]
pub struct Rules {
    /// A channel needs a permission too.
    pub strict: bool,
    /// The network of most peers is closed.
    pub denies: bool,
    /// Payload above a rate is dropped.
    pub shapes: bool,
}

/// The network that comes and goes: most peers' own.
pub const DENIED: &str = "198.51.100.0/24";

impl School {
    pub(super) fn operate(&mut self, input: &mut Input<'_>) {
        let kind = input.byte();
        match kind % 8 {
            0 => self.kick(&Who::User(input.pick(&USERS).to_owned()), input),
            1 => self.kick(&Who::Room("room".to_owned()), input),
            2 => self.world.relay.drain(Alternates::default()),
            3 => {
                let v4 = Some(SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 7), 3478));
                self.world.relay.drain(Alternates { v4, v6: None });
            }
            _ => self.configure(input.byte()),
        }
        assert_eq!(self.replies(), [], "nobody asked");
    }

    /// I-22: who was kicked has nothing left.
    fn kick(&mut self, who: &Who, input: &mut Input<'_>) {
        let until = self.world.now.unix_s + u64::from(input.byte());
        self.may_close = &USERS;
        let kicked = self.world.relay.kick(self.world.now, who, until);
        assert_eq!(self.replies(), [], "nobody asked");
        self.may_close = &[];
        let unique: BTreeSet<_> = kicked.clients.iter().map(|client| client.remote).collect();
        assert_eq!(unique.len(), kicked.clients.len());
        for client in kicked.clients {
            let member = self.clients.iter_mut().find(|it| it.client.addr == client);
            let member = member.expect("one of ours");
            assert!(who.means(member.user), "{who:?}");
            assert!(!member.rights.lives(self.world.now.mono_ms), "I-22");
        }
    }

    fn configure(&mut self, flags: u8) {
        let mut settings = world::settings();
        let given = |bit: u8| flags & bit != 0;
        self.rules = Rules { strict: given(1), denies: given(2), shapes: given(4) };
        settings.permissions_max = if given(8) { 1 } else { PERMISSIONS_MAX };
        settings.channels_max = CHANNELS_MAX;
        settings.strict_channels = self.rules.strict;
        settings.rfc5766_channels = given(16);
        settings.session_s_max = given(32).then_some(700);
        if self.rules.denies {
            settings.policy.deny.push(DENIED.parse().expect("a network"));
        }
        if self.rules.shapes {
            settings.rate_max = Rate::from_bps(8_000);
        }
        self.world.relay.configure(settings);
    }
}
