//! Limits of a whole relay, on real sockets.

use std::net::UdpSocket;

use relay_proto::attribute as attr;
use relay_proto::credential;
use relay_proto::stun::Method;
use tempfile::TempDir;

use super::equipment::{dropped, metric, peer, state};
use super::turn_client::{TurnClient, USER, channel_data, is_success};
use crate::Running;

const CHANNEL: u16 = 0x4000;
/// Long after any test.
const EXPIRES: u64 = 4_000_000_000;
const SECRET: &str = "the secret of these tests";

/// A relay whose peers are on 127.0.0.2, which is not its own address.
fn relay(state: &TempDir, more: &[&str]) -> Running {
    let secret = state.path().join("secret");
    std::fs::write(&secret, SECRET).expect("written");
    let secret = secret.to_str().expect("text");
    let flags = ["--allow-peer", "127.0.0.2/32", "--secret-file", secret, "--user", USER];
    Running::start(state.path(), &[&flags, more].concat())
}

fn with_credential(client: TurnClient, user: &str) -> TurnClient {
    let made = credential::mint(SECRET.as_bytes(), user, EXPIRES);
    client.with(&made.username, &made.password)
}

fn binding_is_answered(client: &mut TurnClient) {
    let request = client.binding();
    client.send(&request);
    assert!(is_success(&client.next().expect("answered")));
}

/// What was sent is with the relay when a Binding that came after it is answered.
#[test]
fn credential_carries_its_bytes_and_no_more() {
    for over in [TurnClient::over_udp, TurnClient::over_tcp] {
        let state = state();
        let relay = relay(&state, &["--max-bytes-per-credential", "2500", "--workers", "1"]);
        let (socket, at) = peer();
        let mut client = with_credential(over(relay.turn), "maths.ana");
        client.allocate();
        client.bind(CHANNEL, at);
        for _ in 0..4 {
            client.send(&channel_data(CHANNEL, &[7; 1_000]));
        }
        binding_is_answered(&mut client);
        for _ in 0..3 {
            assert_eq!(socket.recv_from(&mut [0; 2_000]).expect("received").0, 1_000);
        }
        assert_eq!(dropped(&relay, "quota"), 1);
        let mut again = with_credential(over(relay.turn), "maths.ana");
        assert_eq!(again.try_allocate(), Err(486));
        let mut other = with_credential(over(relay.turn), "maths.ben");
        assert!(other.try_allocate().is_ok());
        assert!(over(relay.turn).try_allocate().is_ok(), "a static user has no cap");
        assert_eq!(metric(&relay, "relay_conservation_errors_total"), 0);
    }
}

/// I-24.
#[test]
fn rate_of_the_whole_relay_refuses_newcomers_first() {
    let state = state();
    // 1,000 bytes take 100 seconds.
    let relay = relay(&state, &["--max-bps", "80"]);
    let (socket, at) = peer();
    let mut client = TurnClient::over_udp(relay.turn);
    client.allocate();
    client.bind(CHANNEL, at);
    let data = channel_data(CHANNEL, &[7; 1_000]);
    client.send(&data);
    assert_eq!(socket.recv_from(&mut [0; 2_000]).expect("received").0, 1_000);
    assert_eq!(TurnClient::over_udp(relay.turn).try_allocate(), Err(508));
    client.send(&data);
    binding_is_answered(&mut client);
    assert_eq!(dropped(&relay, "shaped"), 1);
    let request = client.request(Method::Refresh, |w| w.attribute(attr::LIFETIME, &[0, 0, 2, 88]));
    client.send(&request);
    assert!(is_success(&client.next().expect("answered")), "who is there stays");
}

#[test]
fn rate_of_an_allocation_is_its_own() {
    let state = state();
    let relay = relay(&state, &["--max-bps-per-allocation", "80"]);
    let (socket, at) = peer();
    let data = channel_data(CHANNEL, &[7; 1_000]);
    for dropped_by_now in 1..=2 {
        let mut client = TurnClient::over_udp(relay.turn);
        client.allocate();
        client.bind(CHANNEL, at);
        client.send(&data);
        client.send(&data);
        binding_is_answered(&mut client);
        assert_eq!(socket.recv_from(&mut [0; 2_000]).expect("received").0, 1_000);
        assert_eq!(dropped(&relay, "shaped"), dropped_by_now);
    }
}

/// ALC-22, I-6, F5.
#[test]
fn twenty_ports_serve_twenty_clients_again_and_again() {
    let state = state();
    // Outside the range from which the kernel draws ports for others.
    let ports = ["--min-port", "21000", "--max-port", "21019"];
    let relay = relay(&state, &[&ports[..], &["--max-allocations", "0"]].concat());
    for _ in 0..40 {
        let mut clients: Vec<_> = (0..25)
            .map(|at| with_credential(TurnClient::over_udp(relay.turn), &user(at)))
            .collect();
        let granted: Vec<_> = clients.iter_mut().map(TurnClient::try_allocate).collect();
        let refused = granted.iter().filter(|it| **it == Err(508)).count();
        assert_eq!((refused, granted.len() - refused), (5, 20), "{granted:?}");
        for (client, granted) in clients.iter_mut().zip(&granted) {
            if granted.is_ok() {
                let request =
                    client.request(Method::Refresh, |w| w.attribute(attr::LIFETIME, &[0; 4]));
                client.send(&request);
                assert!(is_success(&client.next().expect("answered")));
            }
        }
    }
    assert_eq!(metric(&relay, "relay_allocations"), 0);
    assert_eq!(metric(&relay, "relay_ports_free"), 20);
}

/// REF-05, REF-06: once the answer is there, the port is nobody's.
#[test]
fn relayed_socket_is_closed_before_its_release_is_confirmed() {
    let state = state();
    let relay = relay(&state, &[]);
    for over in [TurnClient::over_udp, TurnClient::over_tcp] {
        let mut client = over(relay.turn);
        let relayed = client.allocate();
        assert!(UdpSocket::bind(relayed).is_err());
        let request = client.request(Method::Refresh, |w| w.attribute(attr::LIFETIME, &[0; 4]));
        client.send(&request);
        assert!(is_success(&client.next().expect("answered")));
        UdpSocket::bind(relayed).expect("free again");
    }
}

fn user(at: usize) -> String {
    format!("maths.{at}")
}
