//! What is done with a dead letter: its event is published again, or the letter is put away.
//!
//! A retry publishes the event first and stores the disposition of the letter then. A node that dies between the two
//! leaves the letter open, and the next try publishes the event with the same dedupe key: within the window of the
//! namespace the rules refuse the second one, and the disposition names the first. So an event comes twice at worst,
//! and is never lost.

use std::borrow::Cow;

use rollbook_core::error::Refusal;
use rollbook_core::event::EventId;
use rollbook_core::event::headers::HeaderList;
use rollbook_core::level::FeatureLevel;
use rollbook_core::subjects::subject::Namespace;

use super::disposition::{Disposition, Outcome, Stored};
use super::letter::{Letter, LetterEvent};
use super::read::{WholeLetter, disposition_of, fresh};
use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::handle::Bus;
use crate::bus::security::identity::Identity;
use crate::bus::write::draft::{self, Draft};

/// The header of an event that was published again: the id of the dead letter.
pub const HEADER: &str = "rollbook-dead-letter";

/// What a request did to a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// The letter is done now.
    Now(Disposition),
    /// The letter was done before, and nothing happened.
    Before(Disposition),
}

/// The event that a retry stored.
struct Published {
    id: String,
    index: u64,
    /// Whether this try stored the event, rather than one before.
    is_new: bool,
}

/// Publishes the event of a letter again, to its own subject or another one, in the name of `identity`.
///
/// # Errors
/// The identity may not publish there, the event does not fit there, or the cluster does not take it now.
pub async fn retry(bus: &Bus, identity: &Identity, of: &WholeLetter, to: Option<&str>) -> Result<Done, Fault> {
    if let Some(disposition) = &of.disposition {
        return Ok(Done::Before(disposition.clone()));
    }
    let to = to.unwrap_or(&of.letter.subject);
    let published = publish(bus, identity, of, to).await?;
    let Published { id, index, is_new } = published;
    let outcome = Outcome::Retried { to: to.to_owned(), event_id: id.clone(), event_index: index };
    match put(bus, Disposition::new(&of.letter, outcome, identity.name())).await? {
        Done::Before(disposition) if is_new && !disposition.is_of_event(&id) => {
            let text = format!("event {id} was published, and meanwhile {}", disposition.text());
            Err(Fault::new(FaultKind::Conflict, text))
        }
        done => Ok(done),
    }
}

/// Puts a letter away: it is not open any more, and its event is not published.
///
/// # Errors
/// The cluster does not take it now.
pub async fn discard(bus: &Bus, identity: &Identity, of: &WholeLetter) -> Result<Done, Fault> {
    if let Some(disposition) = &of.disposition {
        return Ok(Done::Before(disposition.clone()));
    }
    put(bus, Disposition::new(&of.letter, Outcome::Discarded, identity.name())).await
}

/// Stores a disposition, or finds the one that was faster.
async fn put(bus: &Bus, disposition: Disposition) -> Result<Done, Fault> {
    if disposition.store(bus).await? == Stored::Now {
        return Ok(Done::Now(disposition));
    }
    // Another node may have stored it a moment ago.
    fresh(bus).await?;
    let known = disposition_of(bus, disposition.index).await?;
    known.map(Done::Before).ok_or_else(|| Fault::unavailable("the disposition of the letter is not here yet"))
}

/// The dedupe key of the retries of a letter.
fn key_of(letter: &Letter) -> String {
    format!("{HEADER}/{}", letter.id)
}

/// The headers of the event, and the one that names the letter instead of an earlier one. An event whose headers have
/// no room for it goes without.
fn headers_of(event: &HeaderList, letter: &Letter) -> HeaderList {
    let mut headers = HeaderList::default();
    let others = event.headers();
    let others = others.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(HEADER));
    for (name, value) in others {
        // They were the headers of one event before.
        drop(headers.push(name, value));
    }
    drop(headers.push(HEADER, &letter.id));
    headers
}

/// The publish of an event once more, checked as that of a client.
fn draft<'e>(letter: &'e Letter, event: LetterEvent<'e>, to: &'e str) -> Result<Draft<'e>, Fault> {
    let draft = Draft {
        trace_id: event.trace_id,
        key: Cow::Owned(key_of(letter)),
        subject: Cow::Borrowed(to),
        response_subject: event.response_subject,
        headers: headers_of(&event.headers, letter),
        payload: event.payload.map(Cow::Borrowed),
        ..Draft::default()
    };
    draft.check_subjects()?;
    if to.split('.').next() == Some(Namespace::INBOX) {
        return Err(Fault::bad(format!("{to}: messages to inboxes are not kept; retry to a subject of a namespace")));
    }
    if to != letter.subject {
        // Under its own subject the event was there before.
        draft.check_fields()?;
    }
    Ok(draft)
}

async fn publish(bus: &Bus, identity: &Identity, of: &WholeLetter, to: &str) -> Result<Published, Fault> {
    let letter = &of.letter;
    let event: LetterEvent<'_> = serde_json::from_str(of.event.get())
        .map_err(|error| Fault::internal(format!("the event of dead letter {} cannot be read: {error}", letter.id)))?;
    let draft = draft(letter, event, to)?;
    identity.check_publish(to)?;
    let namespace = draft::namespace(to, &|name| bus.node().state().has_namespace(name))?;
    bus.level().check(FeatureLevel::HEADERS)?;
    let created_at = clock::timestamp();
    let frame = draft::frame(namespace, &[draft.event(created_at)], None)?;
    let bytes = u64::try_from(frame.len()).unwrap_or(u64::MAX);
    let stored = || bus.node().state().namespace(namespace).map_or(0, |head| head.bytes());
    identity.usage().publish((1, bytes), stored, clock::now)?;
    match bus.proposer().publish(frame.into()).await {
        Ok((index, _)) => Ok(Published { id: EventId::new(created_at, index).to_string(), index, is_new: true }),
        Err(Refusal::KeyProcessed(Some(first))) => Ok(Published { id: first.id, index: first.sequence, is_new: false }),
        Err(refusal) => Err(refusal.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::letter::tests::letter;
    use super::*;

    fn event(json: &str) -> LetterEvent<'_> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_event_keeps_its_content_and_gets_a_key_and_a_header_of_the_retry() {
        let json = r#"{"id":"job-1","key":"mine","trace_id":"t","response_subject":"a.r","headers":{"x":["1","2"],"Rollbook-Dead-Letter":"old"},"payload":{"n": 1}}"#;
        let letter = letter(5, "work.a", "bad");
        let draft = draft(&letter, event(json), "work.a").unwrap();
        let stored = draft.event(rollbook_core::time::Timestamp::default());
        assert_eq!((stored.id, stored.trace_id, stored.response_subject), ("", "t", "a.r"));
        assert_eq!(stored.key, format!("rollbook-dead-letter/{}", letter.id));
        assert_eq!(stored.payload, Some(br#"{"n": 1}"#.as_slice()));
        let headers: Vec<_> = stored.headers.iter().collect();
        assert_eq!(headers, [("x", "1"), ("x", "2"), (HEADER, letter.id.as_str())]);
    }

    #[test]
    fn an_event_full_of_headers_is_retried_without_one_more() {
        let mut full = HeaderList::default();
        while full.push("x", "1").is_ok() {}
        let count = full.headers().iter().count();
        let kept = headers_of(&full, &letter(5, "work.a", "bad"));
        assert_eq!(kept.headers().iter().count(), count);
        assert_eq!(kept.headers().get(HEADER), None);
    }

    #[test]
    fn a_subject_that_keeps_no_events_is_refused_and_so_is_a_sender_that_somebody_claims() {
        let of = letter(5, "work.a", "bad");
        for (to, json) in [
            ("", "{}"),
            ("a", "{}"),
            ("a.*", "{}"),
            ("_bus_.x", "{}"),
            ("notify.x", r#"{"payload":{"event":"x","from":{"service":"a","instance":"b"}}}"#),
        ] {
            let refused = draft(&of, event(json), to).map(|_| ()).unwrap_err();
            assert_eq!(refused.kind, FaultKind::BadRequest, "{to}");
        }
        // The bus itself has said so.
        let own = letter(5, "notify.x", "bad");
        let json = r#"{"payload":{"event":"x","from":{"service":"a","instance":"b"}}}"#;
        assert!(draft(&own, event(json), "notify.x").is_ok());
    }
}
