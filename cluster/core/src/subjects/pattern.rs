//! Subscription patterns: parsed once, then matched against many subjects without allocation.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::ops::Range;
use core::str::FromStr;

use super::subject::{self, Namespace, SubjectError};

/// A subscription pattern: a subject in which `*` stands for exactly one segment, and a final `>` or `**` for zero or
/// more remaining segments. The namespace is always literal.
///
/// Two patterns are equal when they match the same subjects, so `app.>` equals `app.**`.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// The text as the subscriber wrote it. Shared, since many subscriptions have the same pattern.
    text: Arc<str>,
    /// Length of the part before `.>` or `.**`; the length of the text when the pattern has no such tail.
    head: usize,
    /// Length of the part before the first wildcard, without its dot: this part is compared at once.
    prefix: usize,
    /// The steps of matching after the prefix.
    pieces: Arc<[Piece]>,
}

/// One step of matching after the prefix.
#[derive(Debug, Clone)]
enum Piece {
    /// `*`
    Any,
    /// Literal segments with the dots between them, as a range of the text.
    Literal(Range<usize>),
}

impl Pattern {
    /// Checks `text` and prepares it for matching.
    ///
    /// # Errors
    /// The first rule that `text` breaks: the characters, then the namespace, then the inbox rule.
    pub fn parse(text: &str) -> Result<Self, SubjectError> {
        if !subject::is_plain(text) {
            subject::check_characters(text)?;
            let (namespace, _) = text.split_once('.').ok_or(SubjectError::MissingNamespace)?;
            let wildcards = text.contains(['*', '>']);
            // The character rules leave no such namespace; interest and filter rely on that.
            if namespace.contains(['*', '>']) {
                return Err(SubjectError::NamespaceWildcard);
            }
            if namespace == Namespace::INBOX && wildcards {
                return Err(SubjectError::InboxWildcard);
            }
        }
        Ok(Self::prepare(text))
    }

    /// Splits a valid text into prefix, pieces and tail.
    fn prepare(text: &str) -> Self {
        let head = text.strip_suffix(".>").or_else(|| text.strip_suffix(".**")).unwrap_or(text).len();
        let mut pieces: Vec<Piece> = Vec::new();
        let mut prefix = 0;
        let mut end = 0;
        for segment in text.get(..head).unwrap_or(text).split('.') {
            // The first segment has no dot before it.
            let start = if end == 0 { 0 } else { end + 1 };
            end = start + segment.len();
            match pieces.last_mut() {
                _ if segment == "*" => pieces.push(Piece::Any),
                None => prefix = end,
                Some(Piece::Literal(run)) => run.end = end,
                Some(Piece::Any) => pieces.push(Piece::Literal(start..end)),
            }
        }
        Self { text: Arc::from(text), head, prefix, pieces: Arc::from(pieces) }
    }

    /// The pattern as the subscriber wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first segment.
    #[must_use]
    pub fn namespace(&self) -> &str {
        subject::namespace_of(&self.text)
    }

    /// Whether the pattern has no wildcard and so matches exactly one subject.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.prefix == self.text.len()
    }

    /// Whether the pattern names an inbox, whose messages are routed and never stored.
    #[must_use]
    pub fn is_inbox(&self) -> bool {
        self.namespace() == Namespace::INBOX
    }

    /// Whether the pattern ends with `>` or `**`.
    #[must_use]
    pub fn has_tail(&self) -> bool {
        self.head != self.text.len()
    }

    /// The segments before the tail, `*` included.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.head().split('.')
    }

    /// The literal segments with their positions; the namespace has position 0.
    pub fn literals(&self) -> impl Iterator<Item = (usize, &str)> {
        self.segments().enumerate().filter(|(_, segment)| *segment != "*")
    }

    /// Whether the pattern matches `subject`. Allocates nothing.
    #[must_use]
    pub fn matches(&self, subject: &str) -> bool {
        if self.is_literal() {
            return *self.text == *subject;
        }
        let text = self.text.as_bytes();
        // Invariant of the loop: the rest of the subject is empty or begins with a dot.
        let Some(mut left) = text.get(..self.prefix).and_then(|prefix| strip_segments(subject.as_bytes(), prefix))
        else {
            return false;
        };
        for piece in self.pieces.iter() {
            let Some(next) = left.strip_prefix(b".") else {
                return false;
            };
            let stripped = match piece {
                Piece::Any => Some(skip_segment(next)),
                Piece::Literal(run) => text.get(run.clone()).and_then(|run| strip_segments(next, run)),
            };
            match stripped {
                Some(rest) => left = rest,
                None => return false,
            }
        }
        left.is_empty() || self.has_tail()
    }

    /// The text without the tail `.>` or `.**`.
    fn head(&self) -> &str {
        self.text.get(..self.head).unwrap_or(&self.text)
    }
}

/// The subject without these segments at its front; `None` when it does not begin with them.
fn strip_segments<'a>(subject: &'a [u8], segments: &[u8]) -> Option<&'a [u8]> {
    let rest = subject.strip_prefix(segments)?;
    matches!(rest.first(), None | Some(b'.')).then_some(rest)
}

/// The subject without its first segment.
fn skip_segment(subject: &[u8]) -> &[u8] {
    let end = subject.iter().position(|&byte| byte == b'.').unwrap_or(subject.len());
    subject.get(end..).unwrap_or_default()
}

/// The definition of matching, for any pattern text, also for one that no subscriber may use. Slower than
/// [`Pattern::matches`]; tests compare the faster implementations with this function.
#[must_use]
pub fn matches(pattern: &str, subject: &str) -> bool {
    let mut wanted = pattern.split('.');
    let mut given = subject.split('.');
    loop {
        match (wanted.next(), given.next()) {
            (Some(">" | "**"), _) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(wanted), Some(given)) if wanted == given => {}
            _ => return false,
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.has_tail() == other.has_tail() && self.head() == other.head()
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.has_tail().hash(state);
        self.head().hash(state);
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl AsRef<str> for Pattern {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl FromStr for Pattern {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        Self::parse(text)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use alloc::format;
    use alloc::string::{String, ToString};
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    /// Patterns of few names, so that random subjects often match them.
    pub(crate) fn any_pattern() -> impl Strategy<Value = Pattern> {
        ("[ab](\\.([ab]|[ab]b|\\*)){0,5}(\\.>|\\.\\*\\*)?")
            .prop_filter_map("has a namespace", |text| Pattern::parse(&text).ok())
    }

    /// Subjects over the same names.
    pub(crate) fn any_subject() -> impl Strategy<Value = String> {
        "[ab](\\.([ab]|[ab]b)){1,6}"
    }

    /// The text a subscriber sees, or "" when the pattern is accepted.
    fn refusal(pattern: &str) -> String {
        Pattern::parse(pattern).err().map(|error| error.to_string()).unwrap_or_default()
    }

    /// (subject, pattern) pairs of the reference.
    const MATCH: [(&str, &str); 18] = [
        ("a.b.c", "a.b.c"),
        ("a.b", "a.b"),
        ("a.b.c", "a.*.c"),
        ("a.b.d", "a.*.d"),
        ("a.x.y", "a.*.*"),
        ("a.b", "a.*"),
        ("ab.c", "ab.*"),
        ("a.b.c", "a.*.*"),
        ("a.b.c", "a.>"),
        ("a.b.c.d", "a.>"),
        ("a.b.c.d.e", "a.>"),
        ("a.b", "a.>"),
        ("a", "a.>"),
        ("a.b", "a.b.>"),
        ("a.b.c", "a.*.>"),
        ("a.b.c.d", "a.*.>"),
        ("a.b", "a.*.>"),
        ("a.b.c", ">"),
    ];

    const NO_MATCH: [(&str, &str); 13] = [
        ("a.b.c", "a.b.d"),
        ("a.b.c", "a.b"),
        ("a.b.c", "a.c.>"),
        ("a.b.c", "a.*.d"),
        ("a.b.c.d", "a.b.c"),
        ("a.b.c", ""),
        ("", "a.b.c"),
        ("a.b.c", "a.b.c.d"),
        ("a.b.c", "*"),
        ("a.b.c", "*.*"),
        ("a", "a.*.>"),
        ("a.b", "a.b.c.>"),
        ("a.B", "a.b"),
    ];

    /// Holds for the rule as written, for `**` in the place of `>`, and for the prepared pattern.
    fn assert_matching(subject: &str, pattern: &str, expected: bool) {
        for pattern in [pattern.to_string(), pattern.replace('>', "**")] {
            assert_eq!(matches(&pattern, subject), expected, "{subject:?} ~ {pattern:?}");
            if let Ok(prepared) = Pattern::parse(&pattern) {
                assert_eq!(prepared.matches(subject), expected, "{subject:?} ~ prepared {pattern:?}");
            }
        }
    }

    #[test]
    fn subjects_that_match() {
        for (subject, pattern) in MATCH {
            assert_matching(subject, pattern, true);
        }
        assert_matching("a.b.c", "*.*.*", true);
        assert_matching("", "", true);
    }

    #[test]
    fn subjects_that_do_not_match() {
        for (subject, pattern) in NO_MATCH {
            assert_matching(subject, pattern, false);
        }
        // A segment matches as a whole or not at all.
        for (subject, pattern) in [("ab.c", "a.>"), ("a.bc", "a.b.>"), ("a.x.bc", "a.*.b"), ("a.x.b", "a.*.bc")] {
            assert_matching(subject, pattern, false);
        }
    }

    #[test]
    fn what_a_subscriber_of_each_pattern_is_sent() {
        let (one, two, three) = ("app.a", "app.a.b", "app.a.b.c");
        for (pattern, delivered) in [
            ("app.*", vec![one]),
            ("app.>", vec![one, two, three]),
            ("app.a.*", vec![two]),
            ("app.a.>", vec![one, two, three]),
            ("app.*.b", vec![two]),
            ("app.*.>", vec![one, two, three]),
            ("app.*.*.c", vec![three]),
            ("app.a.b.c.>", vec![three]),
        ] {
            for subject in [one, two, three] {
                assert_eq!(refusal(pattern), "");
                assert_matching(subject, pattern, delivered.contains(&subject));
            }
        }
    }

    #[test]
    fn patterns_that_may_be_subscribed() {
        let patterns = "a.b.c|a.b.*|a.b.>|a.**|a.b.**|a.*.b|a.*.*|a.*.>|a.*.**|a_b.c|a.b-c|my-app.x|my-app.>|\
            a.ü|a.日本|a.日本.>|ü.*|_bus_.x|_dead_.app.**|nope.x";
        for pattern in patterns.split('|') {
            assert_eq!(refusal(pattern), "", "{pattern}");
            assert_eq!(Pattern::parse(pattern).as_ref().map(Pattern::as_str), Ok(pattern));
        }
    }

    #[test]
    fn patterns_that_may_not_be_subscribed_and_the_text_for_each() {
        let character = "subject should have only letters, digits, dots, _, -, and in a pattern * and >";
        for (patterns, text) in [
            ("", "subject is empty"),
            (".a.b|.|.*", "subject should not start with a dot"),
            ("*|*.a|**|**.a", "subject should not start with *"),
            (">|>.a", "subject should not start with >"),
            ("a.b.|a.*.|a.|a..", "subject should not end with a dot"),
            ("a. b.c| |a b", "subject should not have spaces"),
            ("a..b.c|a..>|a..*", "subject should not have two dots in a row"),
            ("a.b>.c|a.>.c|a.>.|a.>>", "subject should not have anything after >"),
            ("a.b>|a>", "subject should have a dot before >"),
            ("a.b*|a.b**|a*.b|a*", "subject should have a dot before *"),
            ("a.*b|a.***|a.**b|a.*>|a.*>.b|a.** ", "subject should have a dot after *"),
            ("a.**.b|a.**.|a.**.**", "subject should not have anything after **"),
            ("a.b.c$|a.b/c|a.b:c|a.b\n|a.b\r|a.\0|a.\u{7f}|$|a.😀", character),
            ("a|_bus_|ü|-", "invalid subject: missing namespace"),
            ("_bus_.*|_bus_.>|_bus_.**|_bus_.x.*", "inbox subjects cannot contain wildcards"),
        ] {
            for pattern in patterns.split('|') {
                assert_eq!(refusal(pattern), text, "{pattern:?}");
            }
        }
        assert_eq!(SubjectError::NamespaceWildcard.to_string(), "subject namespace cannot contain wildcards");
    }

    #[test]
    fn a_pattern_has_the_limits_of_a_subject() {
        assert_eq!(refusal(&format!("a.{}.>", "b".repeat(251))), "");
        assert_eq!(refusal(&format!("a.{}.>", "b".repeat(252))), "subject is longer than 255 bytes");
        assert_eq!(refusal(&format!("a{}.>", ".*".repeat(30))), "");
        assert_eq!(refusal(&format!("a{}.>", ".*".repeat(31))), "subject has more than 32 segments");
    }

    #[test]
    fn a_pattern_knows_its_parts() {
        let parts = |text: &str| {
            Pattern::parse(text).map(|pattern| {
                let literals = pattern.literals().map(|(at, name)| format!("{at}={name}")).collect::<Vec<_>>();
                (pattern.namespace().to_string(), pattern.is_literal(), pattern.has_tail(), literals.join(" "))
            })
        };
        assert_eq!(parts("app.a.b"), Ok(("app".into(), true, false, "0=app 1=a 2=b".into())));
        assert_eq!(parts("app.*.b.*"), Ok(("app".into(), false, false, "0=app 2=b".into())));
        assert_eq!(parts("app.a.>"), Ok(("app".into(), false, true, "0=app 1=a".into())));
        assert_eq!(parts("app.**"), Ok(("app".into(), false, true, "0=app".into())));
        assert_eq!(Pattern::parse("_bus_.x").map(|pattern| pattern.is_inbox()), Ok(true));
        assert_eq!(Pattern::parse("app.x").map(|pattern| pattern.is_inbox()), Ok(false));
    }

    #[test]
    fn patterns_are_equal_when_they_match_the_same_subjects() {
        assert_eq!(Pattern::parse("app.a.>"), Pattern::parse("app.a.**"));
        assert_ne!(Pattern::parse("app.a.>"), Pattern::parse("app.a"));
        assert_ne!(Pattern::parse("app.a.>"), Pattern::parse("app.a.*"));
    }

    proptest! {
        #[test]
        fn the_prepared_pattern_agrees_with_the_rule(pattern in any_pattern(), subject in any_subject()) {
            prop_assert_eq!(pattern.matches(&subject), matches(pattern.as_str(), &subject));
        }

        #[test]
        fn any_text_is_accepted_or_refused_without_a_crash(text in "\\PC{0,60}|[.*>aü]{0,10}", subject in "[.aü]{0,8}") {
            if let Ok(pattern) = Pattern::parse(&text) {
                prop_assert!(!pattern.matches(&subject) || subject.starts_with(pattern.namespace()));
                prop_assert_eq!(pattern.is_literal(), !text.contains(['*', '>']));
            }
        }
    }
}
