//! Strangers cannot fill the relay's memory, use it to hit others, or disturb its calls.
//!
//! Forged datagrams of each kind, then open TCP connections, while a few calls go on. With
//! `RELAY_SUBJECT=coturn` the same figures are printed of coturn and nothing is demanded.

use std::net::{SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use e2e::bench::cpu;
use e2e::bench::cpu::raise_descriptor_limit;
use e2e::flood::{self, Kind, Replies, Sources};
use e2e::lab::{Lab, Network, SERVER};
use e2e::report::{Table, say, skip};

use crate::calls::{self, Calls, Media};
use crate::laboratory_turn;
use crate::relay::{Relay, Subject};

/// Datagrams of each kind, and the sources that they pretend to have.
const DATAGRAMS: u32 = 60_000;
/// TCP connections that say nothing.
const CONNECTIONS: usize = 2_000;
/// Most resident memory that all floods together may add, in bytes.
const GROWTH_MAX: u64 = 8 << 20;
/// Most bytes of a reply for each byte of its request.
const RATIO_MAX: usize = 2;
/// Most of the calls' packets that may be lost, as a share.
const LOSS_MAX: f64 = 0.005;
/// Replies that one /24 may get at once, and per second after that.
const VICTIM_BURST: u64 = 100;
const VICTIM_RATE: u64 = 10;
const TARGET: SocketAddrV4 = SocketAddrV4::new(SERVER, 3478);
const CALLS: usize = 0;
const PEERS: usize = 1;
const ATTACKER: usize = 2;
/// How long a call goes on before its memory is the measure.
const WARM_UP: Duration = Duration::from_millis(500);
const CONNECT_WAIT: Duration = Duration::from_secs(5);

#[test]
fn floods_cost_no_memory_hit_nobody_and_disturb_no_call() {
    let Some(_turn) = laboratory_turn("flood") else { return };
    let subject = Subject::chosen();
    let program = match subject.program() {
        Ok(program) => program,
        Err(reason) => return skip("flood", &reason),
    };
    raise_descriptor_limit().expect("descriptors");
    let lab = Lab::build(&[Network::Public; 3]).expect("laboratory");
    let relay = Relay::start(&lab, subject, &program).expect("relay");
    // What else runs on this machine is no part of the floods, and must not take the relay's time.
    if cpu::realtime_allowed() {
        cpu::prefer(relay.id()).expect("priority");
    }
    flood::watch(lab.server()).expect("counters");
    let mut ground = Ground::new(&lab, &relay);
    for kind in Kind::ALL {
        ground.flood(kind, Sources::Everywhere);
    }
    ground.flood(Kind::Allocate, Sources::OneVictim);
    ground.connect();
    let mut table = Table::new(&HEADINGS);
    ground.seen.iter().for_each(|seen| table.row(seen.row()));
    say(&format!("floods of {subject:?}\n{table}"));
    if subject == Subject::Castling {
        ground.judge();
    }
}

/// The laboratory with its relay and calls, and what was seen so far.
struct Ground<'a> {
    lab: &'a Lab,
    relay: &'a Relay,
    calls: Calls,
    /// Resident memory before the first flood, in bytes.
    idle: u64,
    log_lines: usize,
    seen: Vec<Seen>,
}

/// One flood.
struct Seen {
    what: String,
    asked_len: usize,
    sent: u64,
    seconds: f64,
    replies: Replies,
    /// Resident memory at its most, in bytes above what it was before all floods.
    growth: u64,
    media: Media,
}

impl<'a> Ground<'a> {
    fn new(lab: &'a Lab, relay: &'a Relay) -> Self {
        let mut calls = Calls::open(lab, CALLS, PEERS).expect("calls");
        // The first packets of each way meet cold caches and buffers that are yet to be made.
        calls.during(|| std::thread::sleep(WARM_UP));
        let idle = cpu::resident(relay.id()).expect("memory");
        Self { lab, relay, calls, idle, log_lines: relay.log_lines(), seen: Vec::new() }
    }

    fn flood(&mut self, kind: Kind, sources: Sources) {
        let attacker = self.lab.client(ATTACKER);
        let send = || flood::send(attacker, TARGET, kind, sources, DATAGRAMS).expect("flood");
        let (sent, media) = self.calls.during(send);
        let what = match sources {
            Sources::Everywhere => kind.name().to_owned(),
            Sources::OneVictim => format!("{}, one /24", kind.name()),
        };
        let asked_len = kind.datagram(0).len();
        self.note(what, asked_len, sent.datagrams, sent.time, media);
    }

    /// Opens connections that say nothing.
    fn connect(&mut self) {
        let attacker = self.lab.client(ATTACKER);
        let open = || {
            attacker.within(|| {
                let start = Instant::now();
                let connect = |_| TcpStream::connect_timeout(&TARGET.into(), CONNECT_WAIT);
                let open: Vec<_> = (0..CONNECTIONS).filter_map(|nth| connect(nth).ok()).collect();
                Ok((open.len() as u64, start.elapsed()))
            })
        };
        let (opened, media) = self.calls.during(|| open().expect("connections"));
        self.note("TCP connections, silent".to_owned(), 0, opened.0, opened.1, media);
    }

    fn note(&mut self, what: String, asked_len: usize, sent: u64, time: Duration, media: Media) {
        let replies = flood::replies(self.lab.server()).expect("counters");
        let peak = cpu::resident_peak(self.relay.id()).expect("memory");
        let (seconds, growth) = (time.as_secs_f64(), peak.saturating_sub(self.idle));
        self.seen.push(Seen { what, asked_len, sent, seconds, replies, growth, media });
    }

    fn judge(&self) {
        for seen in &self.seen {
            let what = &seen.what;
            assert!(seen.sent > 0 && seen.media.sent > 0, "{what}: nothing was tried");
            assert!(seen.growth <= GROWTH_MAX, "{what}: {} bytes more", seen.growth);
            let longest = seen.longest();
            assert!(
                longest <= RATIO_MAX * seen.asked_len,
                "{what}: {longest} for {}",
                seen.asked_len
            );
            assert!(seen.media.loss() <= LOSS_MAX, "{what}: calls lost {:?}", seen.media);
        }
        let victim = self.seen.iter().find(|seen| seen.what.ends_with("/24")).expect("flooded");
        let bound = VICTIM_BURST + VICTIM_RATE * (1 + victim.seconds.ceil() as u64);
        assert!(victim.replied() <= bound, "{} replies to one prefix", victim.replied());
        assert!(victim.replied() >= VICTIM_BURST / 2, "others there would never be challenged");
        assert_eq!(self.relay.log_lines(), self.log_lines, "no line for strangers");
        let metrics = self.relay.metrics().expect("ours");
        let left = metrics.count("relay_allocations", &[]).expect("a metric of the relay");
        assert_eq!(left, calls::CALLS as u64, "allocations are the calls'");
    }
}

impl Seen {
    fn replied(&self) -> u64 {
        self.replies.values().sum()
    }

    fn longest(&self) -> usize {
        self.replies.keys().last().map_or(0, |length| *length as usize)
    }

    fn row(&self) -> Vec<String> {
        let ratio = match self.asked_len {
            0 => "–".to_owned(),
            asked => format!("{:.2}", self.longest() as f64 / asked as f64),
        };
        vec![
            self.what.clone(),
            self.asked_len.to_string(),
            self.sent.to_string(),
            format!("{:.0}", self.sent as f64 / self.seconds),
            self.replied().to_string(),
            self.longest().to_string(),
            ratio,
            format!("{:.1}", self.growth as f64 / f64::from(1 << 20)),
            self.media.sent.to_string(),
            (self.media.sent - self.media.received).to_string(),
        ]
    }
}

const HEADINGS: [&str; 10] = [
    "flood",
    "bytes",
    "sent",
    "a second",
    "replies",
    "longest",
    "ratio",
    "MiB more",
    "calls' packets",
    "lost",
];
