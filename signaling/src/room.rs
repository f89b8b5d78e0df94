//! Rooms as a value: who is in which one, and who may say what to whom.
//!
//! Nothing here waits, reads a clock or draws random numbers; letters go out in the order in
//! which they stand.

use std::collections::BTreeMap;

use crate::name;
use crate::protocol::{
    ClientMessage, ErrorCode, LeftReason, LinkBody, Media, Peer, PeerId, ServerMessage,
};

/// Most people in one room.
pub const PEOPLE_MAX: usize = 12;
/// Most rooms at once.
pub const ROOMS_MAX: usize = 1000;
/// Draws of an id before [`Rooms::enter`] gives up. Two of 64 bits that meet are a broken source.
const ID_DRAWS_MAX: usize = 8;

/// All rooms with somebody in them.
#[derive(Debug, Default)]
pub struct Rooms {
    rooms: BTreeMap<String, Room>,
    /// Where each member is.
    homes: BTreeMap<PeerId, String>,
}

/// A message on its way to a member.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// The member it is for.
    pub to: PeerId,
    /// What it says.
    pub message: ServerMessage,
}

/// A newcomer's place.
#[derive(Clone, Debug, PartialEq)]
pub struct Entered {
    /// The newcomer as the others see it.
    pub me: Peer,
    /// The room's canonical name.
    pub room: String,
    /// Who was there before.
    pub peers: Vec<Peer>,
    /// What the others are told.
    pub letters: Vec<Letter>,
}

/// Why a request was not granted: always the client's doing, or a limit that it met.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// For programs.
    pub code: ErrorCode,
    /// One sentence for the person.
    pub text: String,
}

impl Refusal {
    /// A refusal with its sentence.
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// The message that tells it.
    #[must_use]
    pub fn message(&self) -> ServerMessage {
        ServerMessage::Error { code: self.code, text: self.text.clone() }
    }
}

impl Rooms {
    /// Takes somebody in under the name as typed. `draw` gives 64 random bits for the id.
    ///
    /// # Errors
    /// A room or name that cannot be, a name that is taken, a full room, a full server.
    pub fn enter(
        &mut self,
        room: &str,
        person: &str,
        media: Media,
        mut draw: impl FnMut() -> u64,
    ) -> Result<Entered, Refusal> {
        let room = name::room(room).ok_or_else(bad_room)?;
        let name = name::person(person).ok_or_else(bad_name)?;
        if !self.rooms.contains_key(&room) && self.rooms.len() >= ROOMS_MAX {
            return Err(overloaded());
        }
        let mut ids = (0..ID_DRAWS_MAX).map(|_| format!("{:016x}", draw()));
        let id = ids.find(|id| !self.homes.contains_key(id)).ok_or_else(overloaded)?;
        if let Some(here) = self.rooms.get(&room) {
            here.admits(&name)?;
        }
        let here = self.rooms.entry(room.clone()).or_default();
        let peers = here.members.clone();
        let me = here.add(id, name, media);
        let news = ServerMessage::Joined { peer: me.clone() };
        let letters = here.to_others(&me.id, &news);
        self.homes.insert(me.id.clone(), room.clone());
        Ok(Entered { me, room, peers, letters })
    }

    /// What follows when member `from` says `message`.
    ///
    /// # Errors
    /// A message that is not this member's to send; nothing has changed then.
    pub fn tell(&mut self, from: &PeerId, message: ClientMessage) -> Result<Vec<Letter>, Refusal> {
        let room = self.homes.get(from).and_then(|home| self.rooms.get_mut(home));
        let Some(room) = room else {
            return Err(Refusal::new(ErrorCode::NotAllowed, "Enter a room first."));
        };
        match message {
            ClientMessage::Hello { .. } => Err(Refusal::new(
                ErrorCode::BadMessage,
                "This connection is in a room already; open another one.",
            )),
            ClientMessage::Ping => {
                Ok(vec![Letter { to: from.clone(), message: ServerMessage::Pong }])
            }
            ClientMessage::Media { media } => {
                room.member_mut(from).media = media;
                let news = ServerMessage::Media { from: from.clone(), media };
                Ok(room.to_others(from, &news))
            }
            ClientMessage::Link { to, epoch, body } => {
                room.may_send(from, &to, &body)?;
                let message = ServerMessage::Link { from: from.clone(), epoch, body };
                Ok(vec![Letter { to, message }])
            }
        }
    }

    /// Takes a member out, and its room with the last one. Nobody is told twice.
    pub fn leave(&mut self, id: &PeerId, reason: LeftReason) -> Vec<Letter> {
        let Some(home) = self.homes.remove(id) else { return Vec::new() };
        let Some(room) = self.rooms.get_mut(&home) else { return Vec::new() };
        room.members.retain(|member| member.id != *id);
        if room.members.is_empty() {
            self.rooms.remove(&home);
            return Vec::new();
        }
        room.to_others(id, &ServerMessage::Left { id: id.clone(), reason })
    }

    /// The room a member is in.
    #[must_use]
    pub fn home(&self, id: &PeerId) -> Option<&str> {
        self.homes.get(id).map(String::as_str)
    }

    /// Rooms with somebody in them.
    #[must_use]
    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }

    /// People in all rooms.
    #[must_use]
    pub fn people(&self) -> usize {
        self.homes.len()
    }
}

/// One room: its members in the order of their arrival.
#[derive(Debug, Default)]
struct Room {
    members: Vec<Peer>,
    /// Arrivals so far; the room ends when it is empty, so a `u32` is far from its end.
    arrivals: u32,
}

impl Room {
    fn admits(&self, name: &str) -> Result<(), Refusal> {
        if self.members.iter().any(|member| name::same_person(&member.name, name)) {
            return Err(name_taken(name));
        }
        if self.members.len() >= PEOPLE_MAX {
            return Err(room_full());
        }
        Ok(())
    }

    fn add(&mut self, id: PeerId, name: String, media: Media) -> Peer {
        self.arrivals += 1;
        let peer = Peer { id, name, join_no: self.arrivals, media };
        self.members.push(peer.clone());
        peer
    }

    /// A member speaks to another one of its room, and each says only what its part is: the later
    /// one of a pair offers and the earlier one answers, so offers never cross.
    fn may_send(&self, from: &PeerId, to: &PeerId, body: &LinkBody) -> Result<(), Refusal> {
        let place = |id: &PeerId| self.members.iter().position(|member| member.id == *id);
        let (Some(mine), Some(theirs)) = (place(from), place(to)) else {
            return Err(Refusal::new(ErrorCode::NoSuchPeer, "This person is not in the room."));
        };
        let allowed = match body {
            LinkBody::Offer { .. } => mine > theirs,
            LinkBody::Answer { .. } => mine < theirs,
            LinkBody::Cand(_) | LinkBody::Reset | LinkBody::State(_) => mine != theirs,
        };
        if allowed {
            return Ok(());
        }
        let text = "Of two people the one who came later offers, and the other one answers.";
        Err(Refusal::new(ErrorCode::NotAllowed, text))
    }

    fn member_mut(&mut self, id: &PeerId) -> &mut Peer {
        let member = self.members.iter_mut().find(|member| member.id == *id);
        member.expect("homes names only members")
    }

    fn to_others(&self, id: &PeerId, message: &ServerMessage) -> Vec<Letter> {
        let others = self.members.iter().filter(|member| member.id != *id);
        others.map(|to| Letter { to: to.id.clone(), message: message.clone() }).collect()
    }
}

fn bad_room() -> Refusal {
    let text = "A room has a number or a short name of letters, digits, dashes and dots.";
    Refusal::new(ErrorCode::BadRoom, text)
}

fn bad_name() -> Refusal {
    let most = name::PERSON_CHARS_MAX;
    Refusal::new(ErrorCode::BadName, format!("Please enter a name of at most {most} characters."))
}

fn name_taken(name: &str) -> Refusal {
    let text = format!(
        "Somebody called {name} is already here. Add a letter, for example {name} B; \
         if it was you on a lost connection, try again in a minute."
    );
    Refusal::new(ErrorCode::NameTaken, text)
}

fn room_full() -> Refusal {
    let text = format!("This room is full: it holds {PEOPLE_MAX} people.");
    Refusal::new(ErrorCode::RoomFull, text)
}

fn overloaded() -> Refusal {
    let text = "The server holds as many rooms as it may. Try again in a few minutes.";
    Refusal::new(ErrorCode::Overloaded, text)
}
