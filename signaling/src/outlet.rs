//! The bounded queue of text frames towards one client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::extract::ws::Utf8Bytes;
use tokio::sync::{Notify, mpsc};

/// Most that waits for one client, in bytes of text. A client that reads slower is let go.
pub const SEND_QUEUE_BYTES_MAX: usize = 256 * 1024;

/// The end that the rooms write to.
#[derive(Clone, Debug)]
pub struct Outlet {
    frames: mpsc::UnboundedSender<Utf8Bytes>,
    level: Arc<Level>,
}

/// The end that the client's socket reads from.
#[derive(Debug)]
pub struct Inlet {
    frames: mpsc::UnboundedReceiver<Utf8Bytes>,
    level: Arc<Level>,
}

/// The client reads too slowly.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Overflow;

#[derive(Debug, Default)]
struct Level {
    waiting_bytes: AtomicUsize,
    over: AtomicBool,
    overflowed: Notify,
}

/// Both ends of an empty queue.
#[must_use]
pub fn outlet() -> (Outlet, Inlet) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let level = Arc::new(Level::default());
    (Outlet { frames: sender, level: level.clone() }, Inlet { frames: receiver, level })
}

impl Outlet {
    /// Queues a frame. One too many, and the queue is over: nothing else goes in.
    pub fn push(&self, frame: Utf8Bytes) {
        let length = frame.len();
        let before = self.level.waiting_bytes.fetch_add(length, Ordering::Relaxed);
        if before + length > SEND_QUEUE_BYTES_MAX || self.level.over.load(Ordering::Relaxed) {
            self.level.waiting_bytes.fetch_sub(length, Ordering::Relaxed);
            self.level.over.store(true, Ordering::Relaxed);
            self.level.overflowed.notify_one();
            return;
        }
        // The reading end is gone when the socket is; its member is taken out right after.
        let _ = self.frames.send(frame);
    }
}

impl Inlet {
    /// The next frame, or `None` once all writing ends are gone.
    pub async fn next(&mut self) -> Option<Utf8Bytes> {
        let frame = self.frames.recv().await?;
        self.level.waiting_bytes.fetch_sub(frame.len(), Ordering::Relaxed);
        Some(frame)
    }

    /// Waits until the queue has overflowed.
    pub fn overflow(&self) -> impl Future<Output = Overflow> + Send + use<> {
        let level = self.level.clone();
        async move {
            level.overflowed.notified().await;
            Overflow
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_out_in_order() {
        let (outlet, mut inlet) = outlet();
        outlet.push("one".into());
        outlet.push("two".into());
        drop(outlet);
        assert_eq!(inlet.next().await.as_deref(), Some("one"));
        assert_eq!(inlet.next().await.as_deref(), Some("two"));
        assert_eq!(inlet.next().await, None);
    }

    #[tokio::test]
    async fn a_queue_over_its_limit_says_so_and_keeps_no_more() {
        let (outlet, mut inlet) = outlet();
        let half = "x".repeat(SEND_QUEUE_BYTES_MAX / 2);
        outlet.push(half.clone().into());
        outlet.push(half.into());
        outlet.push("one too many".into());
        assert_eq!(inlet.overflow().await, Overflow);
        inlet.next().await.expect("first half");
        outlet.push("after a gap nothing makes sense".into());
        inlet.next().await.expect("second half");
        drop(outlet);
        assert_eq!(inlet.next().await, None);
    }
}
