//! What the page tells a person when something is not as it should be.

use e2e::lab::{Lab, Network, SERVER};
use e2e::report::{say, skip};
use serde_json::json;

use crate::browser::{self, Spec};
use crate::class::{self, Class, WEB};
use crate::laboratory_turn;
use crate::relay::{Relay, Subject};

#[test]
fn a_second_person_of_the_same_name_is_told_and_can_mend_it() {
    check("sameName", false);
}

#[test]
fn a_full_room_says_that_it_is_full() {
    check("fullRoom", false);
}

#[test]
fn a_page_without_https_explains_the_missing_camera_and_lets_one_listen() {
    check("withoutHttps", false);
}

#[test]
fn a_refused_camera_is_explained_and_keeps_nobody_out() {
    check("refusedCamera", false);
}

#[test]
fn a_person_without_devices_joins_as_a_listener() {
    check("noDevices", false);
}

#[test]
fn a_relay_that_refuses_the_credential_is_named_in_words() {
    check("refusedByRelay", true);
}

/// Runs one check of `page.ts`. With `other_secret` the relay is a program of its own whose secret
/// is not the server's.
fn check(name: &str, other_secret: bool) {
    let Some(_turn) = laboratory_turn(name) else { return };
    if let Some(reason) = browser::missing().or_else(|| class::program().err()) {
        return skip(name, &reason);
    }
    let lab = Lab::build(&[Network::Firewall, Network::Cone]).expect("laboratory");
    let url = format!("turn:{SERVER}:3478?transport=udp");
    let relay = if other_secret {
        match Subject::Castling.program() {
            Ok(program) => Some(Relay::start(&lab, Subject::Castling, &program).expect("relay")),
            Err(reason) => return skip(name, &reason),
        }
    } else {
        None
    };
    let class = Class::start(&lab, relay.as_ref().map(|_| url.as_str())).expect("class");
    let argument = json!({
        "check": name,
        "namespaces": [lab.client(0).name(), lab.client(1).name()],
        "origin": format!("http://{WEB}"),
    });
    let mut spec = Spec::start("page.ts", &argument).expect("spec");
    let mut said = None;
    loop {
        match spec.next() {
            Ok(Some(event)) => said = event["text"].as_str().map(str::to_owned).or(said),
            Ok(None) => break,
            Err(error) => panic!("{name}: {error}\nthe server said:\n{}", class.log()),
        }
    }
    let said = said.expect("the spec tells what the page says");
    say(&format!("{name}: {said}"));
}
