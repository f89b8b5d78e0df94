//! What a relay without any address on its command line serves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use e2e::Outcome;
use e2e::lab::Lab;
use e2e::process::Program;
use e2e::report::skip;
use e2e::scrape;
use relay_proto::attribute as attr;
use relay_proto::stun::{Class, Message, Method, Writer};

use crate::laboratory_turn;
use crate::relay::{ADMIN, Subject};

const START_WAIT: Duration = Duration::from_secs(10);

/// Both families on the usual ports; on a host without IPv6 the other one alone.
#[test]
fn defaults_serve_whatever_families_the_host_has() {
    let Some(_turn) = laboratory_turn("default addresses") else { return };
    let program = match Subject::Castling.program() {
        Ok(program) => program,
        Err(reason) => return skip("default addresses", &reason),
    };
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    for has_v6 in [true, false] {
        let lab = Lab::build(&[]).expect("laboratory");
        let server = lab.server();
        if has_v6 {
            server.sysctl(&["net.ipv6.conf.lo.disable_ipv6=0"]).expect("IPv6 on loopback");
        }
        let state = tempfile::tempdir().expect("directory");
        let arguments = ["--state-dir", state.path().to_str().expect("text")].map(str::to_owned);
        let mut running =
            Program::start(server, "relay", &program, &arguments, state.path()).expect("relay");
        let health = || scrape::get(server, ADMIN, "/healthz").ok().map(drop);
        running.until(START_WAIT, "ready to answer", health).expect("started");
        for ip in loopback {
            for port in [3478, 3479] {
                let seen = server.within(|| mapped(SocketAddr::new(ip, port)));
                assert_eq!(seen.is_ok(), ip.is_ipv4() || has_v6, "{ip} {port}: {seen:?}");
            }
        }
    }
}

/// Asks a STUN server for the address of a fresh socket.
fn mapped(server: SocketAddr) -> Outcome<()> {
    let socket = UdpSocket::bind(SocketAddr::new(server.ip(), 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut request = Vec::new();
    Writer::new(&mut request, Method::Binding, Class::Request, *b"which family").finish();
    socket.send_to(&request, server)?;
    let mut buffer = [0; 256];
    let (length, from) = socket.recv_from(&mut buffer)?;
    assert_eq!(from, server);
    let answer = Message::parse(&buffer[..length]).expect("STUN");
    let value = answer.attribute(attr::XOR_MAPPED_ADDRESS).expect("address");
    assert_eq!(answer.unxor(value), Some(socket.local_addr()?));
    Ok(())
}
