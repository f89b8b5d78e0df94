//! Signals of a stand-alone relay: HUP reloads, TERM drains, INT ends.

use tokio::signal::unix::{SignalKind, signal};

use crate::Handle;

/// Serves until the process is told to end: at once by INT or a second TERM, and when the relay
/// has drained after the first TERM or an order of the admin address. HUP reloads.
pub fn serve(relay: &Handle) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime needs one descriptor");
    runtime.block_on(async {
        let on = |kind, name| signal(kind).unwrap_or_else(|_| panic!("{name} can be handled"));
        let mut hangup = on(SignalKind::hangup(), "HUP");
        let mut terminate = on(SignalKind::terminate(), "TERM");
        let mut interrupt = on(SignalKind::interrupt(), "INT");
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
