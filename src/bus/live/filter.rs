//! Subjects of live messages, and what live subscriptions want of them.
//!
//! Live subjects are wider than those of the book: any tokens without blanks, and wildcards in any place.

use std::fmt;

use bytestring::ByteString;

/// Most tokens of a subject or filter. The depth of the interest trie, and so of its recursion, is bounded by that.
pub const TOKENS_MAX: usize = 64;

/// Stands for any token.
pub const WILDCARD: &str = "*";

/// About the bytes of a subscription, and of a token of its filter, beside their texts.
const SUBSCRIPTION_BYTES: usize = 300;
const TOKEN_BYTES: usize = 200;

/// A text that is no live subject, or no filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a subject has 1 to {TOKENS_MAX} tokens between dots, none of them empty or with blanks; `*` and a final `>` stand for tokens in a subscription alone"
)]
pub struct SubjectError;

/// Whether a token may stand in a subject: it is not empty and has neither blanks nor control characters.
fn is_token(token: &str) -> bool {
    !token.is_empty() && !token.bytes().any(|byte| byte <= b' ' || byte == 0x7f)
}

/// The subject of a live message: tokens between dots, none of which is a wildcard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LiveSubject(ByteString);

impl LiveSubject {
    /// Checks a text.
    ///
    /// # Errors
    /// The text is no subject.
    pub fn parse(text: ByteString) -> Result<Self, SubjectError> {
        let mut count = 0_usize;
        let legal = text.split('.').all(|token| {
            count = count.saturating_add(1);
            is_token(token) && !matches!(token, "*" | ">")
        });
        if legal && count <= TOKENS_MAX { Ok(Self(text)) } else { Err(SubjectError) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, which shares its bytes with the subject.
    #[must_use]
    pub const fn text(&self) -> &ByteString {
        &self.0
    }

    /// The first token, which is a namespace where there is one of that name.
    #[must_use]
    pub fn first_token(&self) -> &str {
        self.0.split('.').next().unwrap_or_default()
    }
}

impl fmt::Display for LiveSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a live subscription wants: a subject in which `*` stands for one token, and a final `>` for one or more.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LiveFilter(ByteString);

impl LiveFilter {
    /// Checks a text.
    ///
    /// # Errors
    /// The text is no filter.
    pub fn parse(text: ByteString) -> Result<Self, SubjectError> {
        let (mut count, mut ended) = (0_usize, false);
        let legal = text.split('.').all(|token| {
            count = count.saturating_add(1);
            !std::mem::replace(&mut ended, token == ">") && is_token(token)
        });
        if legal && count <= TOKENS_MAX { Ok(Self(text)) } else { Err(SubjectError) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// About the bytes that a subscription to the filter takes, which has other texts of so many bytes.
    #[must_use]
    pub fn weight(&self, texts: usize) -> usize {
        let tokens = self.0.split('.').count().saturating_mul(TOKEN_BYTES);
        let texts = self.0.len().saturating_add(texts).saturating_mul(2);
        texts.saturating_add(tokens).saturating_add(SUBSCRIPTION_BYTES)
    }

    /// Whether the filter ends with `>`.
    #[must_use]
    pub fn has_tail(&self) -> bool {
        self.0.strip_suffix('>').is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// The tokens as the interest trie has them. In the trie a tail stands for no token too, so a `>`, which stands for
    /// at least one, is a `*` and a tail.
    pub fn trie_tokens(&self) -> impl Iterator<Item = &str> {
        let tail = self.has_tail();
        let last = self.0.split('.').count().saturating_sub(1);
        self.0.split('.').enumerate().map(move |(at, token)| if tail && at == last { "*" } else { token })
    }

    /// Whether the filter matches a subject.
    #[must_use]
    pub fn matches(&self, subject: &str) -> bool {
        let (mut own, mut tokens) = (self.0.split('.'), subject.split('.'));
        loop {
            match (own.next(), tokens.next()) {
                (Some(">"), Some(_)) | (None, None) => return true,
                (Some(token), Some(found)) if token == WILDCARD || token == found => {}
                _ => return false,
            }
        }
    }

    /// The first token, and so the namespace of the events that the filter can match; [`WILDCARD`] for either wildcard.
    #[must_use]
    pub fn first_token(&self) -> &str {
        self.0.split('.').next().filter(|token| *token != ">").unwrap_or(WILDCARD)
    }

    /// Whether the first token is a wildcard.
    #[must_use]
    pub fn begins_with_wildcard(&self) -> bool {
        self.first_token() == WILDCARD
    }
}

impl fmt::Display for LiveFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Result<LiveFilter, SubjectError> {
        LiveFilter::parse(text.into())
    }

    #[test]
    fn subjects_have_tokens_and_no_wildcards() {
        let subject = |text: &str| LiveSubject::parse(text.into());
        for good in ["a", "a.b", "foo*.b", "a.>b", "é.€", "_INBOX.x.1", "$SRV.PING", "a.b-c/d:e"] {
            assert!(subject(good).is_ok(), "{good}");
        }
        let long = vec!["a"; TOKENS_MAX + 1].join(".");
        for wrong in ["", ".", "a.", ".a", "a..b", "a b", "a\tb", "a.*", "*", "a.>", ">", "a.*.b", "a\r", &long] {
            assert_eq!(subject(wrong), Err(SubjectError), "{wrong}");
        }
        assert_eq!(subject("orders.eu.1").map(|subject| subject.first_token().to_owned()), Ok("orders".to_owned()));
    }

    #[test]
    fn filters_have_wildcards_as_whole_tokens_and_a_tail_at_the_end_alone() {
        for good in ["a", "*", ">", "a.*", "*.*", "a.>", "*.>", "foo*", "a>.b", "a.*b.>"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for wrong in ["", "a..b", ">.a", "a.>.b", "a.> ", "a b"] {
            assert_eq!(filter(wrong), Err(SubjectError), "{wrong}");
        }
    }

    #[test]
    fn a_tail_is_a_token_and_more_in_the_trie() {
        let tokens = |text: &str| {
            let filter = filter(text).unwrap();
            (filter.trie_tokens().map(str::to_owned).collect::<Vec<_>>(), filter.has_tail())
        };
        assert_eq!(tokens("a.>"), (vec!["a".to_owned(), "*".to_owned()], true));
        assert_eq!(tokens(">"), (vec!["*".to_owned()], true));
        assert_eq!(tokens("a.b>"), (vec!["a".to_owned(), "b>".to_owned()], false));
    }

    #[test]
    fn a_filter_matches_as_nats_says() {
        let matches = |text: &str, subject: &str| filter(text).unwrap().matches(subject);
        for (text, subject) in
            [("a", "a"), ("a.*", "a.b"), ("a.>", "a.b"), ("a.>", "a.b.c"), (">", "a"), ("*.b", "a.b")]
        {
            assert!(matches(text, subject), "{text} {subject}");
        }
        for (text, subject) in [("a.>", "a"), ("a.*", "a"), ("a.*", "a.b.c"), ("a", "a.b"), ("a.b", "a"), ("*", "a.b")]
        {
            assert!(!matches(text, subject), "{text} {subject}");
        }
    }

    #[test]
    fn a_filter_says_which_namespaces_it_may_concern() {
        let first = |text: &str| filter(text).unwrap().first_token().to_owned();
        assert_eq!([first("app.>"), first("app"), first("*.x"), first(">")], ["app", "app", "*", "*"]);
        assert!(filter(">").unwrap().begins_with_wildcard() && !filter("a.>").unwrap().begins_with_wildcard());
    }
}
