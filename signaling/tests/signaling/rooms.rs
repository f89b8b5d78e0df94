//! Rooms against a naive model: whatever people do, in any order.

use std::collections::{BTreeMap, BTreeSet};

use castling_signaling::name;
use castling_signaling::protocol::{
    ClientMessage, ErrorCode, LeftReason, LinkBody, Media, PeerId, ServerMessage,
};
use castling_signaling::room::{Letter, PEOPLE_MAX, ROOMS_MAX, Rooms};
use proptest::prelude::*;

use crate::school::{MEDIA, answer, link, offer};

/// What one person does next; indices count the people there are, modulo their number.
#[derive(Clone, Debug)]
enum Step {
    Enter { room: usize, name: usize },
    Say { from: usize, to: usize, what: usize },
    Switch { from: usize, media: Media },
    Leave { who: usize, reason: LeftReason },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize, 0..40_usize).prop_map(|(room, name)| Step::Enter { room, name }),
        5 => (any::<usize>(), any::<usize>(), 0..5_usize)
            .prop_map(|(from, to, what)| Step::Say { from, to, what }),
        1 => (any::<usize>(), any::<bool>(), any::<bool>())
            .prop_map(|(from, mic, cam)| Step::Switch { from, media: Media { mic, cam } }),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(who, left)| Step::Leave {
            who,
            reason: if left { LeftReason::Left } else { LeftReason::Lost },
        }),
    ]
}

/// What the model knows of a person.
#[derive(Clone, Debug)]
struct Known {
    room: String,
    name: String,
    arrival: usize,
}

#[derive(Default)]
struct World {
    rooms: Rooms,
    people: BTreeMap<PeerId, Known>,
    arrivals: usize,
    draws: u64,
}

impl World {
    fn nth(&self, index: usize) -> Option<PeerId> {
        let people: Vec<_> = self.people.keys().collect();
        people.get(index.checked_rem(people.len())?).map(|id| (*id).clone())
    }

    fn others(&self, id: &PeerId, room: &str) -> BTreeSet<PeerId> {
        let here = self.people.iter().filter(|(other, known)| known.room == room && *other != id);
        here.map(|(other, _)| other.clone()).collect()
    }

    fn enter(&mut self, room: usize, name: usize) {
        let (typed, name) = (format!("Room {room}"), format!("Name {name}"));
        let room = name::room(&typed).expect("a room");
        let here: Vec<_> = self.people.values().filter(|known| known.room == room).collect();
        let taken = here.iter().any(|known| name::same_person(&known.name, &name));
        let full = here.len() >= PEOPLE_MAX;
        // Every second draw repeats the one before it, which is an id in use.
        let draws = &mut self.draws;
        let entered = self.rooms.enter(&typed, &name.to_uppercase(), MEDIA, || {
            *draws += 1;
            *draws / 2
        });
        match entered {
            Ok(entered) => {
                assert!(!taken && !full);
                assert_eq!(entered.room, room);
                let me = entered.me;
                assert!(!self.people.contains_key(&me.id), "id {} is in use", me.id);
                let before: BTreeSet<_> = entered.peers.iter().map(|p| p.id.clone()).collect();
                assert_eq!(before, self.others(&me.id, &room));
                assert!(entered.peers.iter().all(|peer| peer.join_no < me.join_no));
                self.reaches(
                    &entered.letters,
                    &before,
                    &ServerMessage::Joined { peer: me.clone() },
                );
                self.arrivals += 1;
                self.people.insert(me.id, Known { room, name, arrival: self.arrivals });
            }
            Err(refusal) => {
                let wanted = if taken { ErrorCode::NameTaken } else { ErrorCode::RoomFull };
                assert_eq!(refusal.code, wanted);
                assert!(taken || full);
            }
        }
    }

    fn say(&mut self, from: &PeerId, to: &PeerId, what: usize) {
        let state = castling_signaling::protocol::LinkState { relayed: true, own_leg: false };
        let bodies = [
            offer(),
            answer(),
            LinkBody::Cand(vec![None]),
            LinkBody::Reset,
            LinkBody::State(state),
        ];
        let body = bodies[what].clone();
        let (mine, theirs) = (&self.people[from], &self.people[to]);
        let later = mine.arrival > theirs.arrival;
        let together = mine.room == theirs.room && from != to;
        let allowed = together
            && match body {
                LinkBody::Offer { .. } => later,
                LinkBody::Answer { .. } => !later,
                _ => true,
            };
        match self.rooms.tell(from, link(to, body.clone())) {
            Ok(letters) => {
                assert!(allowed, "{from} to {to}: {body:?}");
                let news = ServerMessage::Link { from: from.clone(), epoch: 1, body };
                self.reaches(&letters, &BTreeSet::from([to.clone()]), &news);
            }
            Err(refusal) => {
                assert!(!allowed);
                let stranger = mine.room != theirs.room;
                let wanted = if stranger { ErrorCode::NoSuchPeer } else { ErrorCode::NotAllowed };
                assert_eq!(refusal.code, wanted);
            }
        }
    }

    fn switch(&mut self, from: &PeerId, media: Media) {
        let letters = self.rooms.tell(from, ClientMessage::Media { media }).expect("a member");
        let others = self.others(from, &self.people[from].room);
        self.reaches(&letters, &others, &ServerMessage::Media { from: from.clone(), media });
    }

    fn leave(&mut self, who: &PeerId, reason: LeftReason) {
        let room = self.people.remove(who).expect("known").room;
        let letters = self.rooms.leave(who, reason);
        let others = self.others(who, &room);
        self.reaches(&letters, &others, &ServerMessage::Left { id: who.clone(), reason });
        assert_eq!(self.rooms.leave(who, reason), [], "nobody is told twice");
        assert!(self.rooms.tell(who, ClientMessage::Ping).is_err(), "who left says nothing");
    }

    /// Exactly these people get exactly this message, once each.
    fn reaches(&self, letters: &[Letter], people: &BTreeSet<PeerId>, message: &ServerMessage) {
        assert_eq!(letters.len(), people.len());
        let to: BTreeSet<_> = letters.iter().map(|letter| letter.to.clone()).collect();
        assert_eq!(to, *people);
        assert!(letters.iter().all(|letter| letter.message == *message));
    }

    fn check(&self) {
        let mut sizes = BTreeMap::<&str, usize>::new();
        for (id, known) in &self.people {
            assert_eq!(self.rooms.home(id), Some(known.room.as_str()));
            *sizes.entry(&known.room).or_default() += 1;
        }
        assert!(sizes.values().all(|size| *size <= PEOPLE_MAX));
        assert_eq!(self.rooms.rooms(), sizes.len(), "an empty room is gone");
        assert_eq!(self.rooms.people(), self.people.len());
    }
}

proptest! {
    #[test]
    fn no_message_crosses_rooms_and_every_sender_is_true(
        steps in proptest::collection::vec(step(), 1..150)
    ) {
        let mut world = World::default();
        for step in steps {
            match step {
                Step::Enter { room, name } => world.enter(room, name),
                Step::Say { from, to, what } => {
                    if let (Some(from), Some(to)) = (world.nth(from), world.nth(to)) {
                        world.say(&from, &to, what);
                    }
                }
                Step::Switch { from, media } => {
                    if let Some(from) = world.nth(from) {
                        world.switch(&from, media);
                    }
                }
                Step::Leave { who, reason } => {
                    if let Some(who) = world.nth(who) {
                        world.leave(&who, reason);
                    }
                }
            }
            world.check();
        }
    }
}

#[test]
fn a_newcomer_hears_what_the_others_send_now() {
    let mut rooms = Rooms::default();
    let ana = rooms.enter("1", "Ana", MEDIA, || 1).expect("entered").me;
    let media = Media { mic: false, cam: true };
    rooms.tell(&ana.id, ClientMessage::Media { media }).expect("told");
    let entered = rooms.enter("1", "Ben", MEDIA, || 2).expect("entered");
    assert_eq!(entered.peers[0].media, media);
}

#[test]
fn a_source_of_ids_that_repeats_itself_lets_nobody_in() {
    let mut rooms = Rooms::default();
    rooms.enter("1", "Ana", MEDIA, || 7).expect("entered");
    let refusal = rooms.enter("1", "Ben", MEDIA, || 7).expect_err("the same id");
    assert_eq!(refusal.code, ErrorCode::Overloaded);
    assert_eq!(rooms.people(), 1);
}

#[test]
fn one_room_more_than_the_server_holds_is_refused() {
    let mut rooms = Rooms::default();
    let mut id = 0;
    let mut enter = |rooms: &mut Rooms, room: usize, name: &str| {
        id += 1;
        rooms.enter(&room.to_string(), name, MEDIA, || id).map(|entered| entered.me.id)
    };
    let first = enter(&mut rooms, 0, "Ana").expect("entered");
    for room in 1..ROOMS_MAX {
        enter(&mut rooms, room, "Ana").expect("entered");
    }
    let refusal = enter(&mut rooms, ROOMS_MAX, "Ana").expect_err("no place");
    assert_eq!(refusal.code, ErrorCode::Overloaded);
    enter(&mut rooms, 1, "Ben").expect("a room that is there takes more people");
    rooms.leave(&first, LeftReason::Left);
    enter(&mut rooms, ROOMS_MAX, "Ana").expect("its place is free");
}
