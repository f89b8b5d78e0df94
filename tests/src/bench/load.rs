//! Sends at one rate over all flows in turns, and counts what comes back.

use std::time::{Duration, Instant};

use super::flows::Flows;
use super::kernel::Receiver;
use crate::Outcome;

/// Slices of send time in which loss is counted.
const WINDOW: Duration = Duration::from_millis(20);
/// Windows at the start that do not count: caches and queues are cold.
const WARM_UP_WINDOWS: usize = 2;
/// Longest time between two looks at all sockets.
const LOOK: Duration = Duration::from_micros(200);
/// Most packets sent before the kernel's receiving thread gets a turn.
const SENDS_MAX: u64 = 64;
/// A generator that is further behind than this gives up what it missed instead of flooding.
const LAG_MAX: Duration = Duration::from_millis(2);
/// Windows after which a packet comes too late, so that buffers of streams hide no loss: nobody
/// waits a tenth of a second for a word.
const LATE_WINDOWS: usize = 5;
/// How long packets may still arrive after the last was sent.
const DRAIN: Duration = Duration::from_millis(30);

/// Most loss at the 80th percentile of all windows, as a share.
///
/// The kernel takes a twentieth of each second from real-time threads, so some windows always
/// lose; a percentile sees past them.
const LOSS_P80_MAX: f64 = 0.001;
/// Most loss at the median.
const LOSS_MEDIAN_MAX: f64 = 0.000_5;
/// Least part of the wanted packets that the generator must have sent.
const SENT_SHARE_MIN: f64 = 0.9;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Packets per second, all flows together.
    pub rate: f64,
    /// Packets that leave one socket together, as the flows were opened for.
    pub burst: usize,
    /// Packets per second of the intruder, if the flows have one.
    pub intruder_rate: f64,
    /// How long.
    pub duration: Duration,
}

/// What became of it.
#[derive(Clone, Debug, Default)]
pub struct Echo {
    windows: Vec<Window>,
    wanted: u64,
    /// Packets that the intruder sent meanwhile.
    pub intruded: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    sent: u32,
    received: u32,
}

impl Echo {
    /// Packets sent in all windows.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.windows.iter().map(|window| u64::from(window.sent)).sum()
    }

    /// Packets that came back, in all windows.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.windows.iter().map(|window| u64::from(window.received)).sum()
    }

    /// Part of the packets sent that came back, of those windows that count.
    #[must_use]
    pub fn share(&self) -> f64 {
        let add = |(sent, received), window: Window| {
            (sent + u64::from(window.sent), received + u64::from(window.received))
        };
        let (sent, received) = self.counted().fold((0, 0), add);
        received as f64 / sent.max(1) as f64
    }

    /// Whether the relay kept up.
    #[must_use]
    pub fn holds(&self) -> bool {
        let mut losses: Vec<f64> = self.counted().map(Window::loss).collect();
        losses.sort_by(f64::total_cmp);
        let at = |percent: usize| losses.get((losses.len() * percent).div_ceil(100).max(1) - 1);
        at(80).is_some_and(|loss| *loss < LOSS_P80_MAX)
            && at(50).is_some_and(|loss| *loss < LOSS_MEDIAN_MAX)
    }

    /// Whether the generator kept up.
    #[must_use]
    pub fn generator_kept_up(&self) -> bool {
        self.sent() as f64 >= SENT_SHARE_MIN * self.wanted as f64
    }

    fn counted(&self) -> impl Iterator<Item = Window> {
        self.windows.iter().skip(WARM_UP_WINDOWS).filter(|window| window.sent > 0).copied()
    }
}

impl Window {
    fn loss(self) -> f64 {
        1.0 - f64::from(self.received) / f64::from(self.sent)
    }
}

/// Sends `load` over `flows` and receives meanwhile. `run` marks the packets of this call.
///
/// # Errors
/// A socket's: an unreachable port means that the relay or an allocation is gone.
pub fn run(flows: &mut Flows, load: Load, run: u16) -> Outcome<Echo> {
    let windows = load.duration.as_nanos().div_ceil(WINDOW.as_nanos());
    let windows = usize::try_from(windows).expect("runs are short");
    let mut echo = Echo { windows: vec![Window::default(); windows], ..Echo::default() };
    let mut receiver = Receiver::new();
    let burst = u64::try_from(load.burst).expect("bursts are small");
    let mut pacer = Pacer::new(load.rate, burst);
    let crowd = flows.intruder.as_ref().map_or(1, |intruder| intruder.count as u64);
    let mut intruder_pacer = Pacer::new(load.intruder_rate, crowd);
    let mut next = 0;
    let mut looked = Duration::ZERO;
    let start = Instant::now();
    loop {
        let elapsed = start.elapsed();
        let at = window_at(elapsed);
        if at >= windows {
            break;
        }
        let window = u32::try_from(at).expect("runs are short");
        for _ in 0..pacer.bursts(elapsed) {
            flows.list[next].send(run, window)?;
            next = (next + 1) % flows.list.len();
            echo.windows[at].sent += u32::try_from(burst).expect("bursts are small");
        }
        if let Some(intruder) = &flows.intruder {
            for _ in 0..intruder_pacer.bursts(elapsed) {
                intruder.socket.send(&intruder.bytes)?;
                echo.intruded += crowd;
            }
        }
        if elapsed >= looked + LOOK {
            looked = elapsed;
            receive(flows, &mut receiver, run, &mut echo, start)?;
        }
        // The kernel's receiving thread has the same priority on the same core.
        std::thread::yield_now();
    }
    echo.wanted = packets(load.rate, load.duration);
    let end = Instant::now();
    while echo.received() < echo.sent() && end.elapsed() < DRAIN {
        receive(flows, &mut receiver, run, &mut echo, start)?;
        std::thread::yield_now();
    }
    Ok(echo)
}

fn receive(
    flows: &mut Flows,
    receiver: &mut Receiver,
    run: u16,
    echo: &mut Echo,
    start: Instant,
) -> Outcome<()> {
    let now = window_at(start.elapsed());
    flows.receive(receiver, |datagram| {
        let window = super::packet::window(datagram, run);
        let window = window.and_then(|at| usize::try_from(at).ok());
        let in_time = window.filter(|at| now <= at + LATE_WINDOWS);
        if let Some(window) = in_time.and_then(|at| echo.windows.get_mut(at)) {
            window.received += 1;
        }
    })
}

/// Says how much is to be sent by now.
struct Pacer {
    rate: f64,
    burst: u64,
    done: u64,
    /// What was given up, because the generator was too far behind.
    missed: u64,
}

impl Pacer {
    fn new(rate: f64, burst: u64) -> Self {
        Self { rate, burst, done: 0, missed: 0 }
    }

    /// Whole bursts that are due after `elapsed`, at most [`SENDS_MAX`] packets or one burst; they
    /// count as sent.
    fn bursts(&mut self, elapsed: Duration) -> u64 {
        let lag_max = packets(self.rate, LAG_MAX) + self.burst;
        let due = packets(self.rate, elapsed).saturating_sub(self.missed);
        let behind = due.saturating_sub(self.done);
        self.missed += behind.saturating_sub(lag_max);
        let bursts = behind.min(lag_max).min(SENDS_MAX.max(self.burst)) / self.burst;
        self.done += bursts * self.burst;
        bursts
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
fn packets(rate: f64, time: Duration) -> u64 {
    (rate * time.as_secs_f64()) as u64
}

fn window_at(time: Duration) -> usize {
    usize::try_from(time.as_nanos() / WINDOW.as_nanos()).expect("runs are short")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(losses: impl IntoIterator<Item = u32>) -> Echo {
        let warm_up = [Window { sent: 1, received: 0 }; WARM_UP_WINDOWS];
        let windows =
            losses.into_iter().map(|lost| Window { sent: 10_000, received: 10_000 - lost });
        Echo { windows: warm_up.into_iter().chain(windows).collect(), wanted: 100_000, intruded: 0 }
    }

    #[test]
    fn a_fifth_of_the_windows_may_lose() {
        assert!(echo([0, 0, 0, 0, 0, 0, 0, 0, 9_000, 9_000]).holds());
        assert!(!echo([0, 0, 0, 0, 0, 0, 0, 9_000, 9_000, 9_000]).holds());
    }

    #[test]
    fn steady_loss_is_seen() {
        assert!(echo([4; 20]).holds());
        assert!(!echo([6; 20]).holds(), "the median");
        assert!(!echo([0, 0, 0, 0, 0, 0, 0, 11, 11, 11]).holds(), "the 80th percentile");
        assert!(!echo([]).holds(), "nothing was measured");
    }

    #[test]
    fn a_share_is_of_what_counts() {
        assert!((echo([5_000, 0]).share() - 0.75).abs() < 1e-9);
        assert!(echo([]).share().abs() < 1e-9);
    }

    #[test]
    fn a_pacer_keeps_its_rate_and_gives_up_what_it_missed() {
        let mut pacer = Pacer::new(10_000.0, 8);
        let sent: u64 = (1..=1_000).map(|ms| 8 * pacer.bursts(Duration::from_millis(ms))).sum();
        assert_eq!(sent, 10_000);
        // Two milliseconds' worth and a burst are caught up, the other ten seconds are not.
        let late = Duration::from_secs(11);
        let caught_up: u64 = (0..100).map(|_| 8 * pacer.bursts(late)).sum();
        assert_eq!(caught_up, 24);
        assert_eq!(Pacer::new(0.0, 8).bursts(late), 0);
    }

    #[test]
    fn silent_windows_and_warm_up_do_not_count() {
        let mut stalled = echo([0; 10]);
        stalled.windows.extend([Window::default(); 20]);
        assert!(stalled.holds());
        assert!(stalled.generator_kept_up());
        stalled.wanted *= 2;
        assert!(!stalled.generator_kept_up());
    }
}
