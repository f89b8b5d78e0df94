//! A prober of STUN and TURN servers: the same checks on the wire against any of them.
//!
//! [`rows`] is the table: what is sent, what must come back, and how that is found out.
//! [`message`] makes messages byte by byte, [`reply`] reads answers strictly; neither shares code
//! with a server. [`site`] is the place, [`server`] starts who is probed, [`trial`] gives a check
//! its [`client`]s, [`stream`]s and peers, [`verdict`] is what it finds, [`record`] what the whole
//! run saw. [`probe`] runs everything, [`oracle`] asks Wireshark for its opinion, [`tables`] writes
//! the result down.

pub mod attr;
pub mod client;
pub mod message;
pub mod oracle;
pub mod probe;
pub mod record;
pub mod reply;
pub mod rows;
pub mod server;
pub mod site;
pub mod stream;
pub mod tables;
pub mod trial;
pub mod verdict;
