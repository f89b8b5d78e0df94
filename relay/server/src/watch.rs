//! A thread that follows the secret file, the certificate and the host's addresses.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::control::Control;

/// Time between two looks. A change of addresses acts after one, a change of a file after two,
/// so that nobody's half-written file is read.
const LOOK: Duration = Duration::from_millis(500);

/// The thread. Dropping this ends it.
pub struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to look.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start(control: Arc<Control>) -> io::Result<Self> {
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::Builder::new().name("relay-watch".into()).spawn(move || {
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                control.look();
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only looks; if it panicked, nothing else is lost.
            let _ = thread.join();
        }
    }
}
