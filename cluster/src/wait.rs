//! Waits for a value of a watch channel.

use tokio::sync::watch::Receiver;
use tokio::sync::watch::error::RecvError;

/// Waits until the value of a channel meets a condition.
///
/// [`Receiver::wait_for`] returns a guard that holds the lock of the channel for reading. A task that keeps the guard
/// over its next await blocks the sender, and then all readers; for the channel `applied` that is the whole node. This
/// function returns no guard.
///
/// # Errors
/// The sender was dropped, and the last value does not meet the condition.
pub async fn wait_until<T>(channel: &mut Receiver<T>, condition: impl FnMut(&T) -> bool) -> Result<(), RecvError> {
    #[expect(clippy::disallowed_methods, reason = "the one place that drops the guard at once")]
    channel.wait_for(condition).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::watch;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_has_waited_keeps_nobody_from_sending() {
        let (sender, mut receiver) = watch::channel(1);
        let late = Duration::from_secs(1);
        let reached = tokio::time::timeout(late, wait_until(&mut receiver, |value| *value > 0)).await;
        let sent = tokio::task::spawn_blocking(move || {
            sender.send_replace(2);
            sender
        });
        let sender = tokio::time::timeout(late, sent).await.expect("no lock is kept").expect("no panic");
        assert!(matches!(reached, Ok(Ok(()))), "{reached:?}");
        assert_eq!(*receiver.borrow(), 2);
        drop(sender);
        assert!(wait_until(&mut receiver, |value| *value > 2).await.is_err(), "nobody sends any more");
    }
}
