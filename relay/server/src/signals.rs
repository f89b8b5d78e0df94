//! Signals of a stand-alone relay: HUP reloads, TERM drains, INT ends.

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Handle;

/// The signals that a relay obeys, caught from the moment this exists: one that comes before the
/// relay runs is obeyed as soon as it does.
pub struct Signals {
    runtime: Runtime,
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches them; until now each of them would have ended the process.
    #[must_use]
    pub fn catch() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime needs one descriptor");
        let entered = runtime.enter();
        let on = |kind, name| signal(kind).unwrap_or_else(|_| panic!("{name} can be handled"));
        let hangup = on(SignalKind::hangup(), "HUP");
        let terminate = on(SignalKind::terminate(), "TERM");
        let interrupt = on(SignalKind::interrupt(), "INT");
        drop(entered);
        Self { runtime, hangup, terminate, interrupt }
    }

    /// Serves until the process is told to end: at once by INT or a second TERM, and when the relay
    /// has drained after the first TERM or an order of the admin address. HUP reloads.
    pub fn serve(self, relay: &Handle) {
        let Self { runtime, mut hangup, mut terminate, mut interrupt } = self;
        runtime.block_on(async {
            let mut is_told = false;
            loop {
                tokio::select! {
                    // What went wrong is in the log, which is where whoever sends a signal looks.
                    _ = hangup.recv() => drop(relay.reload()),
                    _ = terminate.recv() => {
                        if is_told {
                            return;
                        }
                        is_told = true;
                        relay.drain();
                    }
                    _ = interrupt.recv() => return,
                    () = relay.drained() => return,
                }
            }
        });
    }
}
