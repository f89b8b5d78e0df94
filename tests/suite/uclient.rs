//! An independent client of another project: coturn's `turnutils_uclient` through our relay.

use std::process::Command;
use std::time::Duration;

use e2e::lab::{Lab, Network, SERVER};
use e2e::process::installed;
use e2e::report::{Table, say, skip};

use crate::certificate::Certificate;
use crate::laboratory_turn;
use crate::relay::{Relay, SECRET, Subject};

/// Clients of one run, and what each of them sends.
const CLIENTS: u64 = 4;
const MESSAGES: u64 = 300;
/// Longest run: the program adds a tail of some seconds of its own.
const RUN_MAX: Duration = Duration::from_secs(60);

/// -y makes pairs of clients talk to each other through two allocations; without it the peer is an
/// echo elsewhere. -s sends indications instead of ChannelData. Every second session is the RTCP of
/// the one before, on the port that its EVEN-PORT reserved.
const WAYS: [(&str, &[&str]); 4] = [
    ("channels, client to client", &["-y"]),
    ("channels, client to peer", &[]),
    ("indications, client to client", &["-y", "-s"]),
    ("indications, client to peer", &["-s"]),
];

/// -t is TCP between client and relay, and with -S it is TLS. They run side by side, because each
/// run spends most of its time waiting for stragglers.
const TRANSPORTS: [(&str, &[&str]); 3] = [("UDP", &[]), ("TCP", &["-t"]), ("TLS", &["-t", "-S"])];

/// coturn 4.6.1 draws channel numbers from 0x4000 to 0x7FFF, as RFC 5766 had it.
const OLD_CHANNELS: &str = "--rfc5766-channels";

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
    // coturn is started without TLS.
    let transports = if subject == Subject::Coturn { &TRANSPORTS[..2] } else { &TRANSPORTS[..] };
    let mut table = Table::new(&["", "", "sent", "received", "lost"]);
    for (what, way) in WAYS {
        let lab = Lab::build(&[Network::Public; 2]).expect("laboratory");
        let certificate = Certificate::make().expect("certificate");
        let more = [OLD_CHANNELS, &certificate.flags()];
        let relay = Relay::start_with(&lab, subject, &program, &more).expect("relay");
        let peer = Lab::public_address(1).to_string();
        let _echo = (!way.contains(&"-y")).then(|| Echo::start(&lab, &peer));
        let scores = std::thread::scope(|scope| {
            let runs = transports.iter().map(|(name, transport)| {
                let flags = [*transport, way].concat();
                let (lab, peer) = (&lab, &peer);
                (*name, scope.spawn(move || run(lab, peer, &flags)))
            });
            // All are started before the first is awaited.
            let runs: Vec<_> = runs.collect();
            runs.into_iter().map(|(name, run)| (name, run.join())).collect::<Vec<_>>()
        });
        for (transport, score) in scores {
            let score = score.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let numbers = [score.sent, score.received, score.lost].map(|count| count.to_string());
            table.row([vec![what.to_owned(), transport.to_owned()], numbers.to_vec()].concat());
            let all = CLIENTS * MESSAGES;
            assert_eq!(
                score,
                Score { sent: all, received: all, lost: 0 },
                "{what} over {transport}"
            );
        }
        if let Some(metrics) = relay.metrics() {
            let refused = metrics.sum("relay_auth_failures_total", &[("reason", "bad_mac")]);
            assert_eq!(refused.unwrap_or_default(), 0.0, "{what}: integrity failures");
        }
    }
    say(&format!("turnutils_uclient through {subject:?}\n{table}"));
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

fn run(lab: &Lab, peer: &str, flags: &[&str]) -> Score {
    let (messages, clients) = (MESSAGES.to_string(), CLIENTS.to_string());
    let mut command = Command::new("timeout");
    let seconds = RUN_MAX.as_secs().to_string();
    let inside = lab.client(0).command("turnutils_uclient");
    command.arg(seconds).arg(inside.get_program()).args(inside.get_args());
    // -W is the REST secret, -z the pause between messages in milliseconds.
    command.args(["-u", "room.ana", "-W", SECRET, "-n", &messages, "-m", &clients, "-z", "5"]);
    command.args(["-l", "170", "-e", peer]).args(flags).arg(SERVER.to_string());
    let output = command.output().expect("turnutils_uclient");
    let text = [output.stdout, output.stderr]
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .concat();
    score(&text).unwrap_or_else(|| panic!("no figures at the end of:\n{text}"))
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
