//! What a right is about: the pattern of a right, and how it compares with a target.
//!
//! A target of `publish` or `subscribe` is a subject, whose segments are separated by dots. Targets of other verbs may
//! also have `:` (capability:action) and `/` (dock/process) between their segments.

use alloc::string::String;
use alloc::vec::Vec;

use super::principal::Principal;

/// Longest pattern of a right, in bytes.
pub const PATTERN_BYTES_MAX: usize = 512;

/// The text is no pattern of a right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing, or more than [`PATTERN_BYTES_MAX`] bytes.
    #[error("a pattern has 1 to 512 bytes")]
    Length,
    /// An empty segment, or a character that no target has.
    #[error("a pattern has letters, digits and punctuation without blanks, in segments that are not empty")]
    Segment,
    /// `*` or `>` beside other characters, or `>` before the end.
    #[error("`*` stands for one whole segment, `>` for all that follow, at the end")]
    Wildcard,
    /// `{` or `}` that does not belong to `{name}` or `{kind}`.
    #[error("only {{name}} and {{kind}} may stand in braces")]
    Variable,
}

/// The separators between segments of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separators {
    /// Dots: subjects.
    Dot,
    /// Dots, colons and slashes.
    All,
}

impl Separators {
    /// Splits a text into segments, each with the separator behind it.
    fn segments(self, text: &str) -> impl Iterator<Item = (&str, Option<char>)> {
        let is = move |c: char| c == '.' || self == Self::All && matches!(c, ':' | '/');
        let mut rest = Some(text);
        core::iter::from_fn(move || {
            let text = rest?;
            let Some((at, separator)) = text.char_indices().find(|(_, c)| is(*c)) else {
                rest = None;
                return Some((text, None));
            };
            // A separator is one byte.
            rest = text.get(at.saturating_add(1)..);
            Some((text.get(..at).unwrap_or_default(), Some(separator)))
        })
    }
}

/// One segment of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// This text.
    Literal(String),
    /// `*`: any text.
    Any,
}

/// The pattern of a right: segments, `*` for one of them, `>` at the end for all that follow, as in a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetPattern {
    separators: Separators,
    /// The segments with the separator behind each of them.
    segments: Vec<(Segment, Option<char>)>,
    /// Whether the pattern ends with `>`.
    tail: bool,
}

impl TargetPattern {
    /// Checks the text of a pattern, whose variables are not filled in.
    ///
    /// # Errors
    /// Why it is no pattern.
    pub fn validate(separators: Separators, text: &str) -> Result<(), PatternError> {
        let filled = text.replace("{name}", "x").replace("{kind}", "x");
        if filled.contains(['{', '}']) {
            return Err(PatternError::Variable);
        }
        Self::parse(separators, &filled).map(drop)
    }

    /// The pattern for one principal: `{name}` and `{kind}` are filled in. A name with a dot is more than one segment
    /// of a subject, so it never stands for one: `None` in an allowing right (`widen` is false), any segment in a
    /// denying one.
    #[must_use]
    pub fn of(separators: Separators, text: &str, principal: &Principal, widen: bool) -> Option<Self> {
        let variable = text.contains("{name}");
        let splits = principal.name().is_empty() || principal.name().contains('.');
        let name = match (variable && splits, widen) {
            (true, false) => return None,
            (true, true) => "*",
            (false, _) => principal.name(),
        };
        let filled = text.replace("{name}", name).replace("{kind}", principal.kind().as_str());
        // A name that is only a part of its segment cannot be widened, so the whole segment is.
        Self::parse(separators, &filled).ok().or_else(|| widen.then(|| Self::everything(separators)))
    }

    /// `>`
    #[must_use]
    pub const fn everything(separators: Separators) -> Self {
        Self { separators, segments: Vec::new(), tail: true }
    }

    /// Parses the text of a pattern without variables.
    ///
    /// # Errors
    /// Why it is no pattern.
    pub fn parse(separators: Separators, text: &str) -> Result<Self, PatternError> {
        if !(1..=PATTERN_BYTES_MAX).contains(&text.len()) {
            return Err(PatternError::Length);
        }
        let mut pattern = Self { separators, segments: Vec::new(), tail: false };
        for (segment, separator) in separators.segments(text) {
            if pattern.tail {
                return Err(PatternError::Wildcard);
            }
            match segment {
                _ if is_tail(segment) => pattern.tail = true,
                "*" => pattern.segments.push((Segment::Any, separator)),
                _ if segment.contains(['*', '>']) => return Err(PatternError::Wildcard),
                _ if segment.is_empty() || segment.contains(|c: char| c.is_whitespace() || c.is_control()) => {
                    return Err(PatternError::Segment);
                }
                _ => pattern.segments.push((Segment::Literal(segment.into()), separator)),
            }
            if pattern.tail && separator.is_some() {
                return Err(PatternError::Wildcard);
            }
        }
        if !pattern.tail && pattern.segments.last().is_some_and(|(_, separator)| separator.is_some()) {
            return Err(PatternError::Segment);
        }
        Ok(pattern)
    }

    /// Whether the pattern does not reach a name because of its first character. A wildcard in the first place does not
    /// stand for a subject with `_` in front: who shall read the audit or dead letters has to be told so by name.
    fn stays_out(&self, target: &str) -> bool {
        self.separators == Separators::Dot && self.is_open() && target.starts_with('_')
    }

    /// Whether a wildcard is the first segment.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self.segments.first(), Some((Segment::Literal(_), _)))
    }

    /// The segments as text, for the trie of rights.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().map(|(segment, _)| match segment {
            Segment::Literal(text) => text.as_str(),
            Segment::Any => "*",
        })
    }

    /// Whether the pattern ends with `>`.
    #[must_use]
    pub const fn has_tail(&self) -> bool {
        self.tail
    }

    /// Whether a target is one of the pattern's.
    #[must_use]
    pub fn matches(&self, target: &str) -> bool {
        if self.stays_out(target) {
            return false;
        }
        let mut parts = self.separators.segments(target);
        let mut own = self.segments.iter().peekable();
        while let Some((segment, separator)) = own.next() {
            let Some((part, behind)) = parts.next() else { return false };
            // Behind the last segment before a tail the target may end.
            let ends = self.tail && own.peek().is_none() && behind.is_none();
            if !segment.fits(part) || *separator != behind && !ends {
                return false;
            }
        }
        self.tail || parts.next().is_none()
    }

    /// Whether all targets that the pattern `wanted` matches are the pattern's: all subjects of a subscription.
    #[must_use]
    pub fn covers(&self, wanted: &str) -> bool {
        let (count, last) = self
            .separators
            .segments(wanted)
            .fold((0_usize, ""), |(count, _), (part, _)| (count.saturating_add(1), part));
        // A wildcard of `wanted` stands for more than any literal, and a tail for more than any segment.
        self.matches(wanted) && (!is_tail(last) || self.tail && self.segments.len() < count)
    }

    /// Whether the pattern `wanted` matches a target that is the pattern's too.
    #[must_use]
    pub fn overlaps(&self, wanted: &str) -> bool {
        if self.stays_out(wanted) {
            return false;
        }
        let mut parts = self.separators.segments(wanted).peekable();
        let mut own = self.segments.iter().peekable();
        while let Some((segment, separator)) = own.next() {
            let Some((part, behind)) = parts.next() else { return false };
            if is_tail(part) {
                return true;
            }
            if part != "*" && !segment.fits(part) {
                return false;
            }
            // A target may end before a tail.
            let ends = separator.is_none() || self.tail && own.peek().is_none();
            if ends && (behind.is_none() || parts.peek().is_some_and(|(next, _)| is_tail(next))) {
                return true;
            }
            if *separator != behind {
                return false;
            }
        }
        self.tail
    }
}

impl Segment {
    /// Whether the text of a target's segment is this one.
    fn fits(&self, part: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Literal(text) => text == part,
        }
    }
}

/// Whether a segment of a pattern stands for all that follow.
fn is_tail(segment: &str) -> bool {
    matches!(segment, ">" | "**")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::security::principal::Kind;
    use crate::subjects::pattern;
    use crate::subjects::pattern::tests::{any_pattern, any_subject};

    fn subject(text: &str) -> TargetPattern {
        TargetPattern::parse(Separators::Dot, text).unwrap()
    }

    fn other(text: &str) -> TargetPattern {
        TargetPattern::parse(Separators::All, text).unwrap()
    }

    #[test]
    fn a_right_for_subjects_matches_as_a_subscription_does_and_may_begin_with_a_wildcard() {
        assert!(subject("orders.>").matches("orders.eu.created") && !subject("orders.*").matches("orders.eu.created"));
        assert!(subject(">").matches("orders.eu") && subject("*.created").matches("orders.created"));
        assert!(!subject("*.created").matches("orders.deleted"));
        assert!(subject("orders.a:b").matches("orders.a:b"), "a colon separates nothing here");
    }

    #[test]
    fn a_wildcard_in_the_first_place_reaches_no_name_with_an_underscore() {
        for open in [">", "*.>", "*.x"] {
            assert!(!subject(open).matches("_audit.x") && !subject(open).covers("_audit.x"), "{open}");
            assert!(!subject(open).overlaps("_dead_.x"), "{open}");
        }
        assert!(subject("_audit.>").matches("_audit.x") && subject("_audit.>").covers("_audit.>"));
        assert!(other(">").matches("_service:x"), "only subjects have such names");
    }

    #[test]
    fn capabilities_and_processes_have_separators_of_their_own() {
        assert!(other("billing:*").matches("billing:charge") && !other("billing:*").matches("billing.charge"));
        assert!(other("billing:>").matches("billing:a.b") && other("billing:>").matches("billing"));
        assert!(other("billing:*").matches("billing:"), "an action without a name");
        assert!(!other("bill:*").matches("billing:charge") && other("eu/*").matches("eu/web"));
        assert!(!other("billing").matches("billing:charge"));
    }

    #[test]
    fn a_pattern_of_capabilities_or_processes_is_covered_or_overlaps_with_its_separators() {
        for (right, wanted, covers, overlaps) in [
            ("billing:*", "billing:*", true, true),
            ("billing:>", "billing:*", true, true),
            ("billing:*", "billing:>", false, true),
            ("billing:charge", "billing:*", false, true),
            ("billing:*", "billing.*", false, false),
            ("billing:>", "billing.>", false, true),
            ("billing:a.b", "billing:a:b", false, false),
            ("eu/*", "us/*", false, false),
            ("eu/web", "eu/>", false, true),
            ("eu", "eu/*", false, false),
            ("*", ">", false, true),
            (">", ">", true, true),
        ] {
            let own = other(right);
            assert_eq!((own.covers(wanted), own.overlaps(wanted)), (covers, overlaps), "{right} and {wanted}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let parse = |text: &str| TargetPattern::validate(Separators::All, text);
        assert_eq!(parse(""), Err(PatternError::Length));
        assert_eq!(parse(&"x".repeat(513)), Err(PatternError::Length));
        for text in ["a..b", ".a", "a.", "a b", "a.\n", "a/", ":a"] {
            assert_eq!(parse(text), Err(PatternError::Segment), "{text:?}");
        }
        for text in ["a*", "*a.b", ">.a", "a.>.b", "a>", "a.>:", "***"] {
            assert_eq!(parse(text), Err(PatternError::Wildcard), "{text:?}");
        }
        for text in ["{", "a.{x}", "{name", "{Name}"] {
            assert_eq!(parse(text), Err(PatternError::Variable), "{text:?}");
        }
        assert_eq!((parse("{name}:*"), parse("app.{kind}.{name}.>")), (Ok(()), Ok(())));
    }

    #[test]
    fn a_name_with_dots_stands_for_no_segment_in_an_allow_and_for_any_in_a_deny() {
        let ann = Principal::new(Kind::User, "a.b").unwrap();
        let of = |text, widen| TargetPattern::of(Separators::Dot, text, &ann, widen);
        assert_eq!(of("in.{name}.>", false), None);
        assert_eq!(of("in.{name}.>", true), Some(subject("in.*.>")));
        assert_eq!(of("in.x{name}", true), Some(subject(">")), "the whole target, rather than a hole");
        assert_eq!(of("in.{kind}", false), Some(subject("in.user")));
        let billing = Principal::new(Kind::Service, "billing").unwrap();
        assert_eq!(TargetPattern::of(Separators::Dot, "{name}.>", &billing, false), Some(subject("billing.>")));
        assert_eq!(TargetPattern::of(Separators::Dot, "{name}.>", &Principal::ANONYMOUS, false), None);
    }

    proptest! {
        #[test]
        fn matching_is_that_of_subscriptions(wanted in any_pattern(), subject in any_subject()) {
            let own = TargetPattern::parse(Separators::Dot, wanted.as_str()).unwrap();
            prop_assert_eq!(own.matches(&subject), pattern::matches(wanted.as_str(), &subject), "{} {}", wanted.as_str(), subject);
        }

        #[test]
        fn a_covered_subscription_finds_only_subjects_of_the_right_and_without_overlap_none(
            right in any_pattern(), wanted in any_pattern(), subjects in prop::collection::vec(any_subject(), 1..20),
        ) {
            let own = TargetPattern::parse(Separators::Dot, right.as_str()).unwrap();
            let (covers, overlaps) = (own.covers(wanted.as_str()), own.overlaps(wanted.as_str()));
            prop_assert!(!covers || overlaps);
            for subject in subjects.iter().filter(|subject| pattern::matches(wanted.as_str(), subject)) {
                prop_assert!(!covers || own.matches(subject), "{:?} covers {} but not {}", own, wanted.as_str(), subject);
                prop_assert!(overlaps || !own.matches(subject), "{:?} overlaps {} in {}", own, wanted.as_str(), subject);
            }
        }

        #[test]
        fn hostile_texts_are_refused_or_match_without_a_crash(text in "\\PC{0,60}|[.:/*>{}a_]{0,12}", target in "\\PC{0,40}|[.:/a_]{0,12}") {
            for separators in [Separators::Dot, Separators::All] {
                if let Ok(own) = TargetPattern::parse(separators, &text) {
                    let _ = (own.matches(&target), own.covers(&target), own.overlaps(&target));
                }
            }
        }
    }
}
