//! Subjects and namespaces: which texts a client may publish under, and the exact error text for each broken rule.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use core::borrow::Borrow;
use core::fmt;
use core::str::FromStr;

use super::marks::is_mark;

/// The longest subject or pattern, in bytes. The prefix `_dead_.` of a dead letter is not counted.
pub const SUBJECT_BYTES_MAX: usize = 255;

/// The most segments of a subject or pattern. The prefix `_dead_.` of a dead letter is not counted.
pub const SUBJECT_SEGMENTS_MAX: usize = 32;

/// The longest namespace name, in characters.
pub const NAMESPACE_CHARS_MAX: usize = 64;

/// Why a subject or a pattern is refused. `Display` gives the text that a client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SubjectError {
    /// A wildcard in the subject of a publish.
    #[error("subject should not have * or >")]
    Wildcard,
    /// A wildcard in the response subject of a publish.
    #[error("response subject should not have * or >")]
    ResponseWildcard,
    /// The subject has no dot, or begins with a dot.
    #[error("invalid subject: missing namespace")]
    MissingNamespace,
    /// No character at all.
    #[error("subject is empty")]
    Empty,
    /// The first character is a dot.
    #[error("subject should not start with a dot")]
    StartsWithDot,
    /// The first character is `*`.
    #[error("subject should not start with *")]
    StartsWithStar,
    /// The first character is `>`.
    #[error("subject should not start with >")]
    StartsWithTail,
    /// The last character is a dot.
    #[error("subject should not end with a dot")]
    EndsWithDot,
    /// A space.
    #[error("subject should not have spaces")]
    Space,
    /// An empty segment.
    #[error("subject should not have two dots in a row")]
    EmptySegment,
    /// `>` before the end.
    #[error("subject should not have anything after >")]
    AfterTail,
    /// `**` before the end.
    #[error("subject should not have anything after **")]
    AfterDoubleStar,
    /// `>` that is not a whole segment.
    #[error("subject should have a dot before >")]
    NoDotBeforeTail,
    /// `*` at the end of a segment with other characters.
    #[error("subject should have a dot before *")]
    NoDotBeforeStar,
    /// `*` at the start of a segment with other characters.
    #[error("subject should have a dot after *")]
    NoDotAfterStar,
    /// A character that no subject may have.
    #[error("subject should have only letters, digits, dots, _, -, and in a pattern * and >")]
    IllegalCharacter,
    /// More than [`SUBJECT_BYTES_MAX`] bytes.
    #[error("subject is longer than 255 bytes")]
    TooLong,
    /// More than [`SUBJECT_SEGMENTS_MAX`] segments.
    #[error("subject has more than 32 segments")]
    TooManySegments,
    /// A wildcard in the first segment of a pattern.
    #[error("subject namespace cannot contain wildcards")]
    NamespaceWildcard,
    /// A wildcard in a pattern of the inbox namespace.
    #[error("inbox subjects cannot contain wildcards")]
    InboxWildcard,
}

/// A subject under which a client may publish: at least two segments, no wildcards. A value of this type is always
/// valid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(Arc<str>);

impl Subject {
    /// Checks `text` as [`Subject::validate`] does, and copies it.
    ///
    /// # Errors
    /// The first rule that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, SubjectError> {
        Self::validate(text)?;
        Ok(Self(Arc::from(text)))
    }

    /// Checks a subject to publish under. Allocates nothing.
    ///
    /// # Errors
    /// The first rule that `text` breaks: wildcards, then the namespace, then the characters.
    pub fn validate(text: &str) -> Result<(), SubjectError> {
        check_publish(text, SubjectError::Wildcard)
    }

    /// The subject as the client wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first segment.
    #[must_use]
    pub fn namespace(&self) -> &str {
        namespace_of(&self.0)
    }

    /// Whether the subject names an inbox, whose messages are routed and never stored.
    #[must_use]
    pub fn is_inbox(&self) -> bool {
        self.namespace() == Namespace::INBOX
    }

    /// The subject under which an event of this subject is stored as a dead letter.
    #[must_use]
    pub fn dead_letter(&self) -> Self {
        Self(Arc::from(format!("{}.{}", Namespace::DEAD, self.0)))
    }
}

/// Checks a response subject by the rules of [`Subject::validate`]; the error for a wildcard names the response
/// subject. Allocates nothing.
///
/// # Errors
/// The first rule that `text` breaks.
pub fn validate_response_subject(text: &str) -> Result<(), SubjectError> {
    check_publish(text, SubjectError::ResponseWildcard)
}

/// The name of a namespace: 1 to 64 characters of `[A-Za-z0-9_-]`, reserved names included. A value of this type is
/// always valid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

/// The error for a name that no namespace can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid namespace name: {0}")]
pub struct NamespaceError(pub Box<str>);

impl Namespace {
    /// The namespace of inboxes: messages go to the present subscribers and are never stored.
    pub const INBOX: &'static str = "_bus_";
    /// The namespace of dead letters: events that a durable consumer gave up after its last delivery.
    pub const DEAD: &'static str = "_dead_";
    /// The namespace of lifecycle events of services, nodes and the central configuration.
    pub const ROLL: &'static str = "roll";
    /// The namespace of the audit: who changed what, and what was refused to whom.
    pub const AUDIT: &'static str = "_audit";

    /// The namespace of the envelopes of Xbus and of what becomes of them.
    pub const XBUS: &'static str = "xbus";

    /// Checks `name` and copies it.
    ///
    /// # Errors
    /// [`NamespaceError`] when `name` is empty, too long, or has a character that is not allowed.
    pub fn parse(name: &str) -> Result<Self, NamespaceError> {
        let fits = (1..=NAMESPACE_CHARS_MAX).contains(&name.len());
        if fits && name.bytes().all(is_plain_byte) {
            Ok(Self(Arc::from(name)))
        } else {
            Err(NamespaceError(Box::from(name)))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether clients may neither create nor delete a namespace of this name.
    #[must_use]
    pub fn is_reserved(name: &str) -> bool {
        matches!(name, Self::INBOX | Self::DEAD | Self::ROLL | Self::AUDIT | Self::XBUS)
    }
}

/// The first segment: the text before the first dot.
pub(crate) fn namespace_of(text: &str) -> &str {
    text.split_once('.').map_or(text, |(namespace, _)| namespace)
}

/// Whether `text` is a legal subject of plain ASCII without wildcards. This common case is decided without branches, so
/// that the compiler can check many bytes at once. After `false` the slow checks decide, and find the broken rule.
pub(crate) fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() > SUBJECT_BYTES_MAX {
        return false;
    }
    let legal = bytes.iter().fold(true, |legal, &byte| legal & (is_plain_byte(byte) | (byte == b'.')));
    let pairs = bytes.iter().zip(bytes.iter().skip(1));
    let doubled = pairs.fold(false, |found, (&left, &right)| found | ((left == b'.') & (right == b'.')));
    let dots = bytes.iter().filter(|&&byte| byte == b'.').count();
    let open = !text.starts_with('.') && !text.ends_with('.');
    legal && !doubled && open && (1..SUBJECT_SEGMENTS_MAX).contains(&dots)
}

/// Checks the rules that subjects and patterns share, character by character; the first broken rule is the error.
/// Clients depend on which error they get, so the order of the checks must not change.
pub(crate) fn check_characters(text: &str) -> Result<(), SubjectError> {
    if text.is_empty() {
        return Err(SubjectError::Empty);
    }
    // The subject of a dead letter must be legal however long the original subject is.
    let counted = text.strip_prefix(Namespace::DEAD).and_then(|rest| rest.strip_prefix('.')).unwrap_or(text);
    if counted.len() > SUBJECT_BYTES_MAX {
        return Err(SubjectError::TooLong);
    }
    let mut rest = text.chars();
    let mut previous = None;
    while let Some(current) = rest.next() {
        check_character(previous, current, rest.as_str())?;
        previous = Some(current);
    }
    if counted.split('.').count() > SUBJECT_SEGMENTS_MAX {
        return Err(SubjectError::TooManySegments);
    }
    Ok(())
}

/// Checks one character between the one before and the rest of the text.
fn check_character(previous: Option<char>, current: char, rest: &str) -> Result<(), SubjectError> {
    match current {
        '.' => match previous {
            None => Err(SubjectError::StartsWithDot),
            Some(_) if rest.is_empty() => Err(SubjectError::EndsWithDot),
            Some('.') => Err(SubjectError::EmptySegment),
            Some(_) => Ok(()),
        },
        '>' => match previous {
            None => Err(SubjectError::StartsWithTail),
            Some(_) if !rest.is_empty() => Err(SubjectError::AfterTail),
            Some('.') => Ok(()),
            Some(_) => Err(SubjectError::NoDotBeforeTail),
        },
        '*' => match previous {
            None => Err(SubjectError::StartsWithStar),
            Some('.') => check_after_star(rest),
            // The check of the first star has checked this second star as well.
            Some('*') => Ok(()),
            Some(_) => Err(SubjectError::NoDotBeforeStar),
        },
        ' ' => Err(SubjectError::Space),
        '_' | '-' => Ok(()),
        _ if current.is_alphanumeric() => Ok(()),
        // A combining mark belongs to the letter before it.
        _ if is_mark(current) && previous.is_some_and(|c| c.is_alphanumeric() || is_mark(c)) => Ok(()),
        _ => Err(SubjectError::IllegalCharacter),
    }
}

/// Checks what follows a `*` at the start of a segment: the end, a dot, or one more `*` at the end of the text.
fn check_after_star(rest: &str) -> Result<(), SubjectError> {
    match rest {
        "" | "*" => Ok(()),
        _ if rest.starts_with('.') => Ok(()),
        _ if rest.starts_with("*.") => Err(SubjectError::AfterDoubleStar),
        _ => Err(SubjectError::NoDotAfterStar),
    }
}

/// Checks a subject without wildcards; `wildcard` is the error for a wildcard.
fn check_publish(text: &str, wildcard: SubjectError) -> Result<(), SubjectError> {
    if is_plain(text) {
        return Ok(());
    }
    if text.contains(['*', '>']) {
        return Err(wildcard);
    }
    match text.split_once('.') {
        None | Some(("", _)) => Err(SubjectError::MissingNamespace),
        Some(_) => check_characters(text),
    }
}

/// Whether a text has combining marks. The subject of a durable consumer may have marks from feature level `COUNTED`
/// on, see `open_consumer` of the machine.
pub(crate) fn has_marks(text: &str) -> bool {
    !text.is_ascii() && text.chars().any(is_mark)
}

fn is_plain_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() | (byte == b'_') | (byte == b'-')
}

macro_rules! checked_text {
    ($type:ty, $error:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                Self::parse(text)
            }
        }
    };
}

checked_text!(Subject, SubjectError);
checked_text!(Namespace, NamespaceError);

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};

    use proptest::prelude::*;

    use super::*;

    /// The text a publisher sees, or "" when the subject is accepted.
    fn refusal(subject: &str) -> String {
        Subject::parse(subject).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn subjects_that_may_be_published() {
        let subjects = "a.b|a.b.c|a_b.c|a.b-c|my-app.x|a.ü|a.日本|_bus_.x|A.B|1.2|-._|ü.x|a.٣|a.हिन्दी|a.ไทยน้ำ|a.தமிழ்|\
            a.עִבְרִית|a.မြန်မာ|a.한국어|a.বাংলা.ক্ষ|a.عَرَبِيّ";
        for subject in subjects.split('|') {
            assert_eq!(Subject::validate(subject), Ok(()), "{subject}");
            assert_eq!(validate_response_subject(subject), Ok(()), "{subject}");
            assert_eq!(Subject::parse(subject).map(|s| s.as_str().to_string()), Ok(subject.to_string()));
        }
    }

    #[test]
    fn subjects_that_may_not_be_published_and_the_text_for_each() {
        let character = "subject should have only letters, digits, dots, _, -, and in a pattern * and >";
        let illegal = "a.\u{94d}|a.-\u{e49}|a.\u{94d}क|a.cafe\u{301}|a.か\u{3099}|a.क\u{200d}|a.b.c$|a.b/c|a.b:c|a.b\n|a.b\r\nid: x|a.\0|a.\t|a.b\u{2028}|a.\u{a0}|a.😀";
        for (subjects, text) in [
            ("*|a.*|a.>|a.**|a.b>|a b.*", "subject should not have * or >"),
            ("|a|a b|.|.a.b", "invalid subject: missing namespace"),
            ("a.|a.b.|a..", "subject should not end with a dot"),
            ("a. b.c|a b.c| .a", "subject should not have spaces"),
            ("a..b.c", "subject should not have two dots in a row"),
            (illegal, character),
        ] {
            for subject in subjects.split('|') {
                assert_eq!(refusal(subject), text, "{subject:?}");
            }
        }
    }

    #[test]
    fn a_response_subject_has_its_own_wildcard_text_and_else_the_same_rules() {
        for subject in ["_bus_.*", "_bus_.>", "*", "a.**"] {
            let text = validate_response_subject(subject).map_err(|error| error.to_string());
            assert_eq!(text, Err("response subject should not have * or >".to_string()));
        }
        for subject in ["", "a", ".a", "a..b", "a b.c", "a.b\n"] {
            assert_eq!(validate_response_subject(subject), Subject::validate(subject), "{subject:?}");
        }
    }

    #[test]
    fn a_subject_has_at_most_255_bytes_and_32_segments() {
        let bytes = |n: usize| format!("a.{}", "b".repeat(n - 2));
        assert_eq!(refusal(&bytes(255)), "");
        assert_eq!(refusal(&bytes(256)), "subject is longer than 255 bytes");
        assert_eq!(refusal(&format!("a.{}", "ü".repeat(127))), "subject is longer than 255 bytes");
        let segments = |n: usize| format!("a{}", ".b".repeat(n - 1));
        assert_eq!(refusal(&segments(32)), "");
        assert_eq!(refusal(&segments(33)), "subject has more than 32 segments");
    }

    #[test]
    fn a_dead_letter_keeps_the_original_subject_however_long_it_was() {
        for original in [format!("a.{}", "b".repeat(253)), format!("a{}", ".b".repeat(31))] {
            let dead = Subject::parse(&original).map(|subject| subject.dead_letter());
            assert_eq!(dead.as_ref().map(Subject::as_str), Ok(format!("_dead_.{original}").as_str()));
            assert_eq!(dead.as_ref().map(Subject::namespace), Ok("_dead_"));
            assert_eq!(refusal(&format!("_dead_.{original}")), "");
            assert_ne!(refusal(&format!("_dead_._dead_.{original}")), "");
        }
    }

    #[test]
    fn the_namespace_is_everything_before_the_first_dot() {
        assert_eq!(Subject::parse("app.a.b").as_ref().map(Subject::namespace), Ok("app"));
        assert_eq!(Subject::parse("_bus_.x").map(|subject| subject.is_inbox()), Ok(true));
        assert_eq!(Subject::parse("_bus.x").map(|subject| subject.is_inbox()), Ok(false));
    }

    #[test]
    fn a_namespace_name_is_1_to_64_letters_digits_underscores_and_dashes() {
        for name in ["a", "app", "my-app", "my_app", "A9", "_bus_", "_dead_", "roll", &"x".repeat(64)] {
            assert_eq!(Namespace::parse(name).as_ref().map(Namespace::as_str), Ok(name));
        }
        for name in ["", "a.b", "a b", "*", "ü", "a\n", "a/b", &"x".repeat(65)] {
            let text = Namespace::parse(name).map_err(|error| error.to_string());
            assert_eq!(text, Err(format!("invalid namespace name: {name}")));
        }
        assert!(["_bus_", "_dead_", "_audit", "roll", "xbus"].into_iter().all(Namespace::is_reserved));
        assert!(!["app", "Roll", "_bus", "rolls", ""].into_iter().any(Namespace::is_reserved));
    }

    proptest! {
        #[test]
        fn the_fast_check_never_accepts_what_the_slow_checks_refuse(text in "[a-cA-Z0-9._*> ü-]{0,40}") {
            if is_plain(&text) {
                prop_assert_eq!(check_characters(&text), Ok(()));
                prop_assert!(text.contains('.') && !text.contains(['*', '>']));
            }
        }

        #[test]
        fn any_text_is_accepted_or_refused_without_a_crash(text in "\\PC{0,80}|[.*>a]{0,12}") {
            prop_assert_eq!(validate_response_subject(&text).is_ok(), Subject::validate(&text).is_ok());
            if let Ok(subject) = Subject::parse(&text) {
                prop_assert!(!subject.as_str().chars().any(|c| c.is_control() || c.is_whitespace()));
                prop_assert!(subject.as_str().split('.').all(|segment| !segment.is_empty()));
            }
        }
    }
}
