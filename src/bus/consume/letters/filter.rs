//! Which dead letters somebody wants. Pure.

use rollbook_core::subjects::pattern::Pattern;
use rollbook_core::subjects::subject::Namespace;

use super::disposition::{Disposition, Outcome};
use super::letter::Letter;
use crate::bus::error::Fault;

/// Longest text that a reason is searched for, in bytes.
pub const REASON_BYTES_MAX: usize = 256;

/// What has become of the wanted letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WantedState {
    /// Nothing yet.
    #[default]
    Open,
    /// Their events were published again.
    Retried,
    /// They were put away.
    Discarded,
    /// Anything.
    All,
}

/// Which letters fit.
#[derive(Debug, Clone)]
pub struct LetterFilter {
    /// The subjects of the letters, which begin with `_dead_`.
    pattern: Pattern,
    /// Of this durable consumer only.
    pub consumer: Option<String>,
    /// Of this group only.
    pub group: Option<String>,
    /// Only those with this text in their reason.
    reason: Option<String>,
    /// What has become of them.
    pub state: WantedState,
}

impl LetterFilter {
    /// The open letters of events of `subject`, which may have wildcards in any place. Without one all letters fit.
    ///
    /// # Errors
    /// It is no pattern.
    pub fn new(subject: Option<&str>) -> Result<Self, Fault> {
        let subject = subject.unwrap_or(">");
        let pattern = Pattern::parse(&format!("{}.{subject}", Namespace::DEAD));
        let pattern = pattern.map_err(|error| Fault::bad(format!("subject={subject}: {error}")))?;
        Ok(Self { pattern, consumer: None, group: None, reason: None, state: WantedState::Open })
    }

    /// The same, only of letters with this text in their reason.
    ///
    /// # Errors
    /// The text is longer than [`REASON_BYTES_MAX`].
    pub fn with_reason(self, reason: Option<String>) -> Result<Self, Fault> {
        if reason.as_ref().is_some_and(|reason| reason.len() > REASON_BYTES_MAX) {
            return Err(Fault::bad(format!("reason: at most {REASON_BYTES_MAX} bytes")));
        }
        Ok(Self { reason, ..self })
    }

    /// The subjects of the letters that fit: whoever reads the letters must be allowed to subscribe to these.
    #[must_use]
    pub const fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// Whether a letter of the pattern fits, whatever has become of it.
    #[must_use]
    pub fn fits(&self, letter: &Letter) -> bool {
        let is = |wanted: &Option<String>, name: &Option<String>| wanted.is_none() || wanted == name;
        is(&self.consumer, &letter.consumer)
            && is(&self.group, &letter.group)
            && self.reason.as_ref().is_none_or(|text| letter.reason.contains(text))
    }

    /// Whether letters with this disposition, or without one, are wanted.
    #[must_use]
    pub fn wants(&self, disposition: Option<&Disposition>) -> bool {
        match (self.state, disposition.map(|disposition| &disposition.outcome)) {
            (WantedState::All, _)
            | (WantedState::Open, None)
            | (WantedState::Retried, Some(Outcome::Retried { .. }))
            | (WantedState::Discarded, Some(Outcome::Discarded)) => true,
            (WantedState::Open | WantedState::Retried | WantedState::Discarded, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use rollbook_core::time::Timestamp;

    use super::super::letter::tests::letter;
    use super::*;

    #[test]
    fn the_subject_is_that_of_the_event_and_may_have_wildcards_in_any_place() {
        let pattern = |subject| LetterFilter::new(subject).map(|filter| filter.pattern().to_string());
        assert_eq!(pattern(None).unwrap(), "_dead_.>");
        assert_eq!(pattern(Some("work.jobs.*")).unwrap(), "_dead_.work.jobs.*");
        assert_eq!(pattern(Some("*.created")).unwrap(), "_dead_.*.created");
        for wrong in ["", ".", "a..b", "a.>.b", "a b"] {
            let text = pattern(Some(wrong)).unwrap_err().text.into_owned();
            assert!(text.starts_with(&format!("subject={wrong}: ")), "{text}");
        }
    }

    #[test]
    fn names_must_be_equal_and_a_reason_must_be_a_part() {
        let of = |consumer: Option<&str>, group: Option<&str>, reason: Option<&str>| {
            let filter = LetterFilter::new(None).unwrap().with_reason(reason.map(str::to_owned)).unwrap();
            let (consumer, group) = (consumer.map(str::to_owned), group.map(str::to_owned));
            LetterFilter { consumer, group, ..filter }.fits(&letter(1, "work.a", "this is no image"))
        };
        assert!(of(None, None, None) && of(None, Some("workers"), Some("no im")));
        assert!(!of(Some("workers"), None, None) && !of(None, Some("work"), None) && !of(None, None, Some("No")));
        let long = Some("x".repeat(REASON_BYTES_MAX + 1));
        assert!(LetterFilter::new(None).unwrap().with_reason(long).is_err());
    }

    #[test]
    fn a_state_is_what_the_mark_says() {
        let retried = Outcome::Retried { to: "a.b".into(), event_id: "e".into(), event_index: 1 };
        let disposition = |outcome| Disposition {
            letter: "e".into(),
            index: 1,
            outcome,
            by: String::new(),
            at: Timestamp::default(),
        };
        let dispositions = [None, Some(disposition(retried)), Some(disposition(Outcome::Discarded))];
        for (state, wanted) in [
            (WantedState::Open, [true, false, false]),
            (WantedState::Retried, [false, true, false]),
            (WantedState::Discarded, [false, false, true]),
            (WantedState::All, [true; 3]),
        ] {
            let filter = LetterFilter { state, ..LetterFilter::new(None).unwrap() };
            assert_eq!(
                dispositions.each_ref().map(|disposition| filter.wants(disposition.as_ref())),
                wanted,
                "{state:?}"
            );
        }
    }
}
