//! What a client behind a NAT learns from the two STUN ports (RFC 5780 §4.3).

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use e2e::lab::{Lab, Network, SERVER};
use e2e::report::skip;
use relay_proto::attribute as attr;
use relay_proto::stun::{Class, Message, Method, Writer};

use crate::laboratory_turn;
use crate::relay::{Relay, Subject, TURN};

/// The second STUN port, as by default.
const SECOND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(SERVER), 3479);

/// NAT-01, NAT-02: equal mappings behind a home router, different ones behind a mobile network's.
#[test]
fn two_stun_ports_tell_a_cone_from_a_symmetric_nat() {
    let Some(_turn) = laboratory_turn("two STUN ports") else { return };
    let subject = Subject::Castling;
    let program = match subject.program() {
        Ok(program) => program,
        Err(reason) => return skip("two STUN ports", &reason),
    };
    let networks = [Network::Public, Network::Cone, Network::Symmetric];
    let lab = Lab::build(&networks).expect("laboratory");
    let _relay = Relay::start(&lab, subject, &program).expect("relay");
    for (index, network) in networks.into_iter().enumerate() {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let socket = lab.client(index).udp(any).expect("client socket");
        let [first, second] = [TURN, SECOND].map(|server| mapped(&socket, server));
        for seen in [first, second] {
            assert_eq!(seen.ip(), Lab::public_address(index), "{network:?}");
        }
        let is_symmetric = network == Network::Symmetric;
        assert_eq!(first.port() != second.port(), is_symmetric, "{network:?}");
        if network == Network::Public {
            assert_eq!(first.port(), socket.local_addr().expect("bound").port());
        }
    }
}

/// Which address a STUN server sees; the answer must come from where it was asked.
fn mapped(socket: &UdpSocket, server: SocketAddr) -> SocketAddr {
    let mut request = Vec::new();
    let id = *b"mapping test";
    Writer::new(&mut request, Method::Binding, Class::Request, id).finish();
    socket.send_to(&request, server).expect("sent");
    let mut buffer = [0; 1500];
    let (length, from) = socket.recv_from(&mut buffer).expect("answered");
    assert_eq!(from, server);
    let answer = Message::parse(&buffer[..length]).expect("STUN");
    assert_eq!((answer.class, answer.transaction_id()), (Class::Success, id));
    let value = answer.attribute(attr::XOR_MAPPED_ADDRESS).expect("address");
    answer.unxor(value).expect("address")
}
