//! Bad input: what clients of the relay get, and what operators of the programs are told.

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use e2e::lab::{Lab, Network};
use e2e::process::ours;
use e2e::report::skip;
use e2e::turn_client::{Allocation, Credential};

use crate::laboratory_turn;
use crate::relay::{Relay, Subject, TURN, mint};

/// Exit status for settings that cannot be used.
const BAD_SETTINGS: i32 = 2;
/// How long a program that must refuse to start may take.
const REFUSAL_SECS: &str = "10";
/// How long silence is listened to.
const SILENCE: Duration = Duration::from_millis(200);

#[test]
fn wrong_expired_and_forged_credentials_get_401_and_garbage_gets_silence() {
    let Some(_turn) = laboratory_turn("refusals") else { return };
    let program = match Subject::Castling.program() {
        Ok(program) => program,
        Err(reason) => return skip("refusals", &reason),
    };
    let lab = Lab::build(&[Network::Public]).expect("laboratory");
    let relay = Relay::start(&lab, Subject::Castling, &program).expect("relay");
    let at = (Lab::public_address(0), 0).into();
    let socket = || lab.client(0).udp(at).expect("socket");

    let good = mint("room.ana");
    let longer = format!("9{}", good.username);
    let credentials = [
        ("wrong password", Credential { password: "guess".to_owned(), ..good.clone() }),
        ("expired", expired()),
        ("lifetime stretched by hand", Credential { username: longer, ..good.clone() }),
        ("no time in it", Credential { username: "ana".to_owned(), ..good.clone() }),
    ];
    for (what, credential) in credentials {
        let refused = Allocation::open(socket(), TURN, credential).expect_err(what).to_string();
        assert!(refused.ends_with("refused: 401"), "{what}: {refused}");
    }

    let stranger = socket();
    stranger.set_read_timeout(Some(SILENCE)).expect("a time that is not zero");
    for garbage in garbage() {
        stranger.send_to(&garbage, TURN).expect("sent");
        assert!(nothing_comes(&stranger), "answer to {garbage:02x?}");
    }

    let metrics = relay.metrics().expect("our relay");
    assert_eq!(metrics.count("relay_allocations", &[]).expect("gauge"), 0, "state is left");
    Allocation::open(socket(), TURN, good).expect("the relay lives and takes a good credential");
}

#[test]
fn programs_name_the_setting_that_they_cannot_use() {
    let programs = [ours("castling-relay"), ours("castling-signaling")];
    let [Some(relay), Some(signaling)] = programs else {
        return skip("programs", "castling-relay or castling-signaling is not built");
    };
    let state = tempfile::tempdir().expect("temporary folder");
    let busy = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let busy = busy.local_addr().expect("bound").to_string();
    let web = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let web = web.local_addr().expect("bound").to_string();

    for (program, args, named) in [
        (&relay, vec!["--listen", &busy, "--admin", "127.0.0.1:0"], vec!["listen", &busy]),
        (&relay, vec!["--allow-peer", "10.0.0.0/33"], vec!["allow-peer", "10.0.0.0/33"]),
        (&relay, vec!["--secret-file", "/nowhere/secret"], vec!["secret-file", "/nowhere/secret"]),
        (&relay, vec!["--config", "/nowhere.toml"], vec!["/nowhere.toml"]),
        (&relay, vec!["--lisen", "1"], vec!["--lisen"]),
        (&signaling, vec!["--listen", &web], vec!["listen", &web]),
        (&signaling, vec!["--relay.min-port", "none"], vec!["min-port", "none"]),
        (&signaling, vec!["--lisen", "1"], vec!["--lisen"]),
    ] {
        let output = start(program, &args, state.path());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(BAD_SETTINGS), "{program:?} {args:?}: {error}");
        for word in named {
            assert!(error.contains(word), "{program:?} {args:?}: {error:?} names no {word}");
        }
        assert_eq!(error.trim_end().lines().count(), 1, "{program:?} {args:?}: {error:?}");
    }
}

/// Runs a program that must end by itself.
fn start(program: &Path, args: &[&str], state: &Path) -> Output {
    let mut command = Command::new("timeout");
    command.arg(REFUSAL_SECS).arg(program).args(args).arg("--state-dir").arg(state);
    command.output().expect("timeout of coreutils")
}

/// A credential that was good until a second after 1970 began.
fn expired() -> Credential {
    let made = relay_proto::credential::mint(crate::relay::SECRET.as_bytes(), "room.ana", 1);
    Credential { username: made.username, password: made.password }
}

/// Datagrams that are nothing to the relay: it must not answer, and must not keep anything.
fn garbage() -> Vec<Vec<u8>> {
    let mut binding = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    binding.extend([7; 12]);
    let change = |at: usize, to: u8| {
        let mut changed = binding.clone();
        changed[at] = to;
        changed
    };
    vec![
        Vec::new(),
        vec![0],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        binding[..19].to_vec(),
        // A length that is no multiple of 4, or more than there is; no cookie; a response.
        change(3, 3),
        change(3, 8),
        change(4, 0),
        change(0, 1),
        // ChannelData for a channel that nobody bound; the two bits of neither.
        vec![0x40, 0x01, 0, 4, 1, 2, 3, 4],
        vec![0x80; 64],
        vec![0xff; 1400],
    ]
}

fn nothing_comes(socket: &UdpSocket) -> bool {
    socket.recv_from(&mut [0; 2048]).is_err()
}
