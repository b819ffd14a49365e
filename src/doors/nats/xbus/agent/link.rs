//! What is said to the client of one connection, by its own subscriptions.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use rollbook_core::xbus::id::Id;

use crate::bus::live::filter::LiveSubject;
use crate::bus::live::message::{Delivered, LiveMessage, LiveSink};
use crate::bus::live::subjects::LiveSubjects;

/// Behind the account in the inboxes of requests that the server makes.
const SERVER: &str = ".srv.";
const INBOX: &str = "_INBOX.";

/// The inbox of a job.
pub(super) fn inbox(account: Id, token: &str) -> String {
    format!("{INBOX}{account}{SERVER}{token}")
}

/// The account and the token of the inbox of a job; `None` for other subjects.
#[must_use]
pub fn job_of(subject: &str) -> Option<(Id, &str)> {
    let (account, token) = subject.strip_prefix(INBOX)?.split_once(SERVER)?;
    (!token.is_empty() && !token.contains('.')).then_some(())?;
    Some((account.parse().ok()?, token))
}

/// Says things to the client of one connection.
#[derive(Debug, Clone)]
pub struct Link {
    subjects: LiveSubjects,
    sink: Arc<dyn LiveSink>,
}

impl Link {
    /// The link to the client with this queue.
    #[must_use]
    pub fn new(subjects: LiveSubjects, sink: Arc<dyn LiveSink>) -> Self {
        Self { subjects, sink }
    }

    /// The number of the connection.
    #[must_use]
    pub fn connection(&self) -> u64 {
        self.sink.client()
    }

    /// Gives the client a message by its own subscription that wants the subject. Returns `false` when the client has
    /// none, or takes no more.
    pub(super) fn deliver(&self, subject: &str, reply: &str, payload: Bytes) -> bool {
        let Ok(parsed) = LiveSubject::parse(ByteString::from(subject)) else { return false };
        let Some(number) = self.subjects.subscription_of(self.sink.client(), &parsed) else { return false };
        let (subject, reply) = (parsed.text().clone(), ByteString::from(reply));
        let message = LiveMessage { subject, reply, payload, ..LiveMessage::default() };
        match self.sink.deliver(number, &message) {
            Delivered::Refused => return false,
            Delivered::Queued => {}
            Delivered::Sleeping => self.sink.wake(),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inbox_of_a_job_is_within_that_of_its_account() {
        let account: Id = "53131466-4e2e-11e7-916e-af2b1e6d242d".parse().unwrap();
        let inbox = inbox(account, "abc");
        assert_eq!(inbox, "_INBOX.53131466-4e2e-11e7-916e-af2b1e6d242d.srv.abc");
        assert_eq!(job_of(&inbox), Some((account, "abc")));
        assert_eq!(job_of(&format!("{inbox}.heartbeat")), None);
        assert_eq!(job_of("_INBOX.53131466-4e2e-11e7-916e-af2b1e6d242d.in.abc"), None);
        assert_eq!(job_of("_INBOX.x.srv.abc"), None);
    }
}
