//! Behaviour of the crate from outside.

#[path = "signaling/http.rs"]
mod http;
#[path = "signaling/program.rs"]
mod program;
#[path = "signaling/relay.rs"]
mod relay;
#[path = "signaling/rooms.rs"]
mod rooms;
#[path = "signaling/school.rs"]
mod school;
#[path = "signaling/sockets.rs"]
mod sockets;
#[path = "signaling/wire.rs"]
mod wire;
