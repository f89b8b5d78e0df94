//! Signals of a stand-alone relay: HUP reloads, TERM drains, INT ends.

use std::io;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Handle;
use crate::settings::SettingError;

/// The signals that a relay obeys. From when this exists none of them ends the process by itself.
pub struct Signals {
    runtime: Runtime,
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to listen; call before anybody can know that the relay runs.
    ///
    /// # Errors
    /// Descriptors have run out.
    pub fn listen() -> Result<Self, SettingError> {
        let listen = || -> io::Result<Self> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let [hangup, terminate, interrupt] = {
                let _inside = runtime.enter();
                [
                    signal(SignalKind::hangup())?,
                    signal(SignalKind::terminate())?,
                    signal(SignalKind::interrupt())?,
                ]
            };
            Ok(Self { runtime, hangup, terminate, interrupt })
        };
        listen().map_err(|error| SettingError::new("signals", error))
    }

    /// Obeys until the process is told to end: at once by INT or a second TERM, and when the relay
    /// has drained after the first TERM or an order of the admin address. HUP reloads.
    pub fn obey(mut self, relay: &Handle) {
        self.runtime.block_on(async {
            let mut is_told = false;
            loop {
                tokio::select! {
                    // What went wrong is in the log, where whoever sends a signal looks.
                    _ = self.hangup.recv() => drop(relay.reload()),
                    _ = self.terminate.recv() => {
                        if is_told {
                            return;
                        }
                        is_told = true;
                        relay.drain();
                    }
                    _ = self.interrupt.recv() => return,
                    () = relay.drained() => return,
                }
            }
        });
    }
}
