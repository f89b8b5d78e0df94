//! The relay's edge: sockets, threads and HTTP around `relay_proto`.

pub mod settings;
