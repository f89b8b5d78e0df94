//! An independent client of another project: coturn's `turnutils_uclient` through our relay.

use std::process::Command;
use std::time::Duration;

use e2e::lab::{Lab, Network, SERVER};
use e2e::process::installed;
use e2e::report::{Table, say, skip};

use crate::laboratory_turn;
use crate::relay::{Relay, SECRET, Subject};

/// Messages that the clients of one run send together, at least.
const MESSAGES_MIN: u64 = 1_000;
/// Longest run: the program adds a tail of some seconds of its own.
const RUN_MAX: Duration = Duration::from_secs(60);

/// Most runs until the program draws channel numbers that exist.
///
/// coturn 4.6.1 draws them from 0x4000 to 0x7FFF, as RFC 5766 had it. RFC 8656 §12 reserves those
/// from 0x5000, and a server must refuse them, which ends the program at once. Two numbers are
/// good in one of 16 runs: 300 bad ones in a row are less likely than one in a hundred million.
const DRAWS_MAX: u32 = 300;
/// How the program reports that refusal.
const BAD_CHANNEL: &str = "channel bind: error 400";

/// One way to use the program.
struct Way {
    name: &'static str,
    flags: &'static [&'static str],
    clients: u64,
    messages: u64,
}

/// -y makes two clients talk to each other through two allocations; without it the peer is an echo
/// elsewhere. -s sends indications instead of ChannelData. Without -c every second session is the
/// RTCP of the one before, on the port that its EVEN-PORT reserved.
const WAYS: [Way; 4] = [
    Way { name: "channels, client to client", flags: &["-y", "-c"], clients: 2, messages: 500 },
    Way { name: "channels, client to peer", flags: &["-c"], clients: 1, messages: 1_000 },
    Way { name: "indications, client to client", flags: &["-y", "-s"], clients: 4, messages: 300 },
    Way { name: "indications, client to peer", flags: &["-s"], clients: 4, messages: 300 },
];

/// What the program printed at its end. Its exit status is 0 even if everything was lost.
#[derive(Debug, Default, Eq, PartialEq)]
struct Score {
    sent: u64,
    received: u64,
    lost: u64,
}

#[test]
fn turnutils_uclient_loses_nothing_over_channels_and_indications() {
    let Some(_turn) = laboratory_turn("uclient") else { return };
    let subject = Subject::chosen();
    let program = match subject.program() {
        Ok(program) => program,
        Err(reason) => return skip("uclient", &reason),
    };
    if !installed("turnutils_uclient") {
        return skip("uclient", "needs turnutils_uclient (Debian package coturn)");
    }
    let mut table = Table::new(&["", "sent", "received", "lost"]);
    for way in &WAYS {
        let lab = Lab::build(&[Network::Public; 2]).expect("laboratory");
        let relay = Relay::start(&lab, subject, &program).expect("relay");
        let peer = Lab::public_address(1).to_string();
        let _echo = (!way.flags.contains(&"-y")).then(|| Echo::start(&lab, &peer));
        let score = run(&lab, &peer, way);
        table.row(vec![
            way.name.to_owned(),
            score.sent.to_string(),
            score.received.to_string(),
            score.lost.to_string(),
        ]);
        let all = way.clients * way.messages;
        assert!(all >= MESSAGES_MIN, "enough to mean something");
        assert_eq!(score, Score { sent: all, received: all, lost: 0 }, "{}", way.name);
        if let Some(metrics) = relay.metrics() {
            let refused = metrics.sum("relay_auth_failures_total", &[("reason", "bad_mac")]);
            assert_eq!(refused.unwrap_or_default(), 0.0, "{}: integrity failures", way.name);
        }
    }
    say(&format!("turnutils_uclient through {subject:?} over UDP\n{table}"));
}

/// `turnutils_peer`, the echo that belongs to the program.
struct Echo(std::process::Child);

impl Echo {
    fn start(lab: &Lab, at: &str) -> Self {
        let mut command = lab.client(1).command("turnutils_peer");
        Self(command.args(["-L", at]).spawn().expect("turnutils_peer"))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the program until its channel numbers are good ones, and reads its figures.
fn run(lab: &Lab, peer: &str, way: &Way) -> Score {
    for draw in 0..DRAWS_MAX {
        let text = run_once(lab, peer, way, &format!("e2e{draw}"));
        if !text.contains(BAD_CHANNEL) {
            return score(&text).unwrap_or_else(|| panic!("no figures at the end of:\n{text}"));
        }
    }
    panic!("{}: {BAD_CHANNEL} in {DRAWS_MAX} runs", way.name);
}

fn run_once(lab: &Lab, peer: &str, way: &Way, user: &str) -> String {
    let (messages, clients) = (way.messages.to_string(), way.clients.to_string());
    let mut command = Command::new("timeout");
    let seconds = RUN_MAX.as_secs().to_string();
    let inside = lab.client(0).command("turnutils_uclient");
    command.arg(seconds).arg(inside.get_program()).args(inside.get_args());
    // -W is the REST secret, -z the pause between messages in milliseconds.
    command.args(["-u", user, "-W", SECRET, "-n", &messages, "-m", &clients, "-z", "5"]);
    command.args(["-l", "170", "-e", peer]).args(way.flags).arg(SERVER.to_string());
    let output = command.output().expect("turnutils_uclient");
    [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
}

/// The last figures in the program's output.
fn score(text: &str) -> Option<Score> {
    let number = |line: &str, key: &str| {
        let rest = line.split_once(key)?.1.trim_start();
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    let totals = text.lines().rfind(|line| line.contains("tot_recv_msgs="))?;
    let lost = text.lines().rfind(|line| line.contains("Total lost packets"))?;
    Some(Score {
        sent: number(totals, "tot_send_msgs=")?,
        received: number(totals, "tot_recv_msgs=")?,
        lost: number(lost, "Total lost packets")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_figures_count() {
        let text = "0: : start_mclient: tot_send_msgs=5, tot_recv_msgs=0\n\
                    1: : start_mclient: msz=5, tot_send_msgs=10, tot_recv_msgs=9, tot_send_bytes\n\
                    1: : Total lost packets 1 (10.000000%), total send dropped 0 (0.0%)\n";
        assert_eq!(score(text), Some(Score { sent: 10, received: 9, lost: 1 }));
        assert_eq!(score("nothing"), None);
    }
}
