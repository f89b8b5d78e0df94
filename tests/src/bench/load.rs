//! Sends at one rate over all flows in turns, and counts what comes back.

use std::time::{Duration, Instant};

use super::flows::{Flow, Flows};
use super::kernel::{self, Receiver};
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
    /// How long.
    pub duration: Duration,
}

/// What became of it.
#[derive(Clone, Debug, Default)]
pub struct Echo {
    windows: Vec<Window>,
    wanted: u64,
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
    let mut echo = Echo { windows: vec![Window::default(); windows], wanted: 0 };
    let mut receiver = Receiver::new();
    let burst = u64::try_from(load.burst).expect("bursts are small");
    let lag_max = packets(load.rate, LAG_MAX) + burst;
    let (mut done, mut missed, mut next) = (0, 0, 0);
    let mut looked = Duration::ZERO;
    let start = Instant::now();
    loop {
        let elapsed = start.elapsed();
        let at = window_at(elapsed);
        if at >= windows {
            break;
        }
        let due = packets(load.rate, elapsed).saturating_sub(missed);
        if due > done + lag_max {
            missed += due - done - lag_max;
        }
        let mut budget = SENDS_MAX.min((due - done.min(due)) / burst * burst);
        while budget > 0 {
            send(&mut flows.list[next], run, at)?;
            next = (next + 1) % flows.list.len();
            done += burst;
            echo.windows[at].sent += u32::try_from(burst).expect("bursts are small");
            budget = budget.saturating_sub(burst);
        }
        if elapsed >= looked + LOOK {
            looked = elapsed;
            receive(flows, &mut receiver, run, &mut echo)?;
        }
        // The kernel's receiving thread has the same priority on the same core.
        std::thread::yield_now();
    }
    echo.wanted = packets(load.rate, load.duration);
    let end = Instant::now();
    while echo.received() < echo.sent() && end.elapsed() < DRAIN {
        receive(flows, &mut receiver, run, &mut echo)?;
        std::thread::yield_now();
    }
    Ok(echo)
}

fn send(flow: &mut Flow, run: u16, window: usize) -> Outcome<()> {
    let window = u32::try_from(window).expect("runs are short");
    // One call for a whole burst: the kernel cuts it up before the wire.
    flow.socket.send(flow.train.stamped(run, window))?;
    Ok(())
}

fn receive(flows: &Flows, receiver: &mut Receiver, run: u16, echo: &mut Echo) -> Outcome<()> {
    for flow in &flows.list {
        let mut count = kernel::BATCH;
        while count == kernel::BATCH {
            count = receiver.receive(&flow.socket, |datagram| {
                let window = super::packet::window(datagram, run);
                let window = window.and_then(|at| usize::try_from(at).ok());
                if let Some(window) = window.and_then(|at| echo.windows.get_mut(at)) {
                    window.received += 1;
                }
            })?;
        }
    }
    Ok(())
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
        Echo { windows: warm_up.into_iter().chain(windows).collect(), wanted: 100_000 }
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
    fn silent_windows_and_warm_up_do_not_count() {
        let mut stalled = echo([0; 10]);
        stalled.windows.extend([Window::default(); 20]);
        assert!(stalled.holds());
        assert!(stalled.generator_kept_up());
        stalled.wanted *= 2;
        assert!(!stalled.generator_kept_up());
    }
}
