//! Rooms, the web app and TURN credentials.

pub mod protocol;
