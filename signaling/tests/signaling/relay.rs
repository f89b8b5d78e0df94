//! The embedded relay, and the credentials that open it.

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use castling_signaling::protocol::Ice;
use castling_signaling::socket::Timing;
use relay_proto::attribute as attr;
use relay_proto::credential::long_term_key;
use relay_proto::stun::{Class, Message, Method, Writer};

use crate::school::School;

/// A server with a relay of its own, all on loopback and on free ports.
async fn with_relay(state: &Path) -> School {
    with_relay_and(state, &[]).await
}

async fn with_relay_and(state: &Path, more: &[String]) -> School {
    let args = [
        "--relay.listen=127.0.0.1:0",
        "--relay.relay-ip=127.0.0.1",
        "--relay.admin=127.0.0.1:0",
        "--relay.stun-alt-port=0",
        "--relay.workers=1",
    ];
    let mut args: Vec<_> = args.into_iter().map(str::to_owned).collect();
    args.push(format!("--state-dir={}", state.display()));
    args.extend_from_slice(more);
    School::with(tempfile::tempdir().expect("folder"), &args, Timing::default()).await
}

fn address(ice: &Ice, scheme: &str) -> SocketAddr {
    let mut urls = ice.servers.iter().flat_map(|server| &server.urls);
    let place = urls.find_map(|url| url.strip_prefix(scheme)).expect("a URL");
    place.split('?').next().and_then(|place| place.parse().ok()).expect("an address")
}

/// One request with its reply.
fn ask(socket: &UdpSocket, request: &[u8]) -> Vec<u8> {
    let mut reply = [0; 1500];
    socket.send(request).expect("sent");
    let length = socket.recv(&mut reply).expect("a reply");
    reply[..length].to_vec()
}

fn allocate(realm: Option<(&str, &[u8], &str, &str)>) -> Vec<u8> {
    let mut out = Vec::new();
    let writer = Writer::new(&mut out, Method::Allocate, Class::Request, [7; 12]);
    let writer = writer.attribute(attr::REQUESTED_TRANSPORT, &[attr::TRANSPORT_UDP, 0, 0, 0]);
    match realm {
        None => writer.finish(),
        Some((realm, nonce, username, password)) => writer
            .attribute(attr::USERNAME, username.as_bytes())
            .attribute(attr::REALM, realm.as_bytes())
            .attribute(attr::NONCE, nonce)
            .integrity(&long_term_key(username, realm, password))
            .finish(),
    }
    out
}

#[tokio::test]
async fn a_member_can_use_the_embedded_relay_and_a_stranger_cannot() {
    let state = tempfile::tempdir().expect("folder");
    let school = with_relay(state.path()).await;
    let (_ana, welcome) = school.enter("7b", "Ana").await;
    let at = address(&welcome.ice, "turn:");
    assert_eq!(at, address(&welcome.ice, "stun:"));
    let turn = welcome.ice.servers.iter().find(|server| server.username.is_some()).expect("turn");
    let (username, password) =
        (turn.username.clone().expect("name"), turn.credential.clone().expect("password"));
    let talk = move || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
        socket.connect(at).expect("connected");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        let challenge = ask(&socket, &allocate(None));
        let challenge = Message::parse(&challenge).expect("STUN");
        assert_eq!(challenge.class, Class::Error);
        let realm = challenge.attribute(attr::REALM).expect("realm");
        let realm = std::str::from_utf8(realm).expect("text");
        let nonce = challenge.attribute(attr::NONCE).expect("nonce");
        let wrong = ask(&socket, &allocate(Some((realm, nonce, &username, "guessed"))));
        assert_eq!(Message::parse(&wrong).expect("STUN").class, Class::Error);
        let right = ask(&socket, &allocate(Some((realm, nonce, &username, &password))));
        let right = Message::parse(&right).expect("STUN");
        assert_eq!(right.class, Class::Success);
        assert!(right.attribute(attr::XOR_RELAYED_ADDRESS).is_some());
    };
    tokio::task::spawn_blocking(talk).await.expect("allocated");
    school.server.stop().await;
    UdpSocket::bind(at).expect("the relay's port is free again");
}

#[tokio::test]
async fn a_member_is_told_of_tls_where_the_certificate_covers_the_page() {
    let state = tempfile::tempdir().expect("folder");
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("made");
    let file = |name: &str, text: String| {
        let path = state.path().join(name);
        std::fs::write(&path, text).expect("written");
        format!("--relay.tls-{name}={}", path.display())
    };
    let flags = [
        file("cert", made.cert.pem()),
        file("key", made.signing_key.serialize_pem()),
        "--relay.listen-tls=127.0.0.1:0".to_owned(),
    ];
    let school = with_relay_and(state.path(), &flags).await;
    let (_ana, welcome) = school.enter("7b", "Ana").await;
    let at = address(&welcome.ice, "turns:");
    assert_ne!(at, address(&welcome.ice, "turn:"));
    std::net::TcpStream::connect(at).expect("somebody listens there");
    school.server.stop().await;
}

#[tokio::test]
async fn the_secret_is_made_once_and_is_private() {
    let state = tempfile::tempdir().expect("folder");
    let path = state.path().join("turn-secret");
    with_relay(state.path()).await.server.stop().await;
    let first = std::fs::read(&path).expect("a secret");
    let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    with_relay(state.path()).await.server.stop().await;
    assert_eq!(std::fs::read(&path).expect("a secret"), first);
}
