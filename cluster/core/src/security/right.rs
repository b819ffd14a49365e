//! A right: a verb, a pattern, and whether it allows or denies.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use super::target::{PatternError, Separators, TargetPattern};

/// What a right is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Store events under these subjects.
    Publish,
    /// Read events of these subjects, from the past and live, and acknowledge them.
    Subscribe,
    /// Register as a service of this id, and offer capabilities of these names.
    Offer,
    /// Ask services: `capability:action`.
    Call,
    /// Restart, shut down or drain these services. Closing a connection is a change of the administration.
    Command,
    /// Read the central configuration: `public`, and `secret` for the members under `$secret`.
    ConfigRead,
    /// Replace the central configuration.
    ConfigWrite,
    /// Start, stop, deploy and watch processes: `dock/process`.
    Process,
    /// Control pipelines of these names.
    Pipeline,
    /// Look at everything that the administration shows: `area`, as in `namespaces` or `cluster`.
    AdminRead,
    /// Change what the administration can change.
    AdminWrite,
    /// Change principals, roles and credentials.
    AdminSecurity,
    /// Change the cluster itself: members, the leader, its clock.
    AdminCluster,
}

impl Verb {
    /// All verbs.
    pub const ALL: [Self; 13] = [
        Self::Publish,
        Self::Subscribe,
        Self::Offer,
        Self::Call,
        Self::Command,
        Self::ConfigRead,
        Self::ConfigWrite,
        Self::Process,
        Self::Pipeline,
        Self::AdminRead,
        Self::AdminWrite,
        Self::AdminSecurity,
        Self::AdminCluster,
    ];

    /// The verb as text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Offer => "offer",
            Self::Call => "call",
            Self::Command => "command",
            Self::ConfigRead => "config:read",
            Self::ConfigWrite => "config:write",
            Self::Process => "process",
            Self::Pipeline => "pipeline",
            Self::AdminRead => "admin:read",
            Self::AdminWrite => "admin:write",
            Self::AdminSecurity => "admin:security",
            Self::AdminCluster => "admin:cluster",
        }
    }

    /// How targets of this verb are split into segments.
    #[must_use]
    pub const fn separators(self) -> Separators {
        match self {
            Self::Publish | Self::Subscribe => Separators::Dot,
            _ => Separators::All,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Verb {
    type Err = RightError;

    fn from_str(text: &str) -> Result<Self, RightError> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == text).ok_or_else(|| RightError::Verb(text.into()))
    }
}

/// The text is no right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RightError {
    /// Not two or three words.
    #[error("a right is VERB PATTERN, or deny VERB PATTERN, as in `publish orders.>`")]
    Form,
    /// The verb is not known.
    #[error(
        "no verb: `{0}`; the verbs are publish, subscribe, offer, call, command, config:read, config:write, process, pipeline, admin:read, admin:write, admin:security and admin:cluster"
    )]
    Verb(String),
    /// The pattern is not one.
    #[error("{0}")]
    Pattern(#[from] PatternError),
}

/// A right as it is written: `publish orders.>`, `deny subscribe orders.secret.>`. A value of this type is always
/// valid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Right {
    /// Whether the right takes away rather than gives.
    pub deny: bool,
    /// What the right is about.
    pub verb: Verb,
    /// The pattern, with variables.
    pattern: String,
}

impl Right {
    /// The right of these parts.
    ///
    /// # Errors
    /// The pattern is not one.
    pub fn new(deny: bool, verb: Verb, pattern: &str) -> Result<Self, PatternError> {
        TargetPattern::validate(verb.separators(), pattern)?;
        Ok(Self { deny, verb, pattern: pattern.into() })
    }

    /// The pattern, with variables.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.pattern
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deny = if self.deny { "deny " } else { "" };
        write!(f, "{deny}{} {}", self.verb, self.pattern)
    }
}

impl FromStr for Right {
    type Err = RightError;

    fn from_str(text: &str) -> Result<Self, RightError> {
        let mut words = text.split_whitespace();
        let (mut verb, mut deny) = (words.next().ok_or(RightError::Form)?, false);
        if verb == "deny" || verb == "allow" {
            deny = verb == "deny";
            verb = words.next().ok_or(RightError::Form)?;
        }
        let (verb, pattern) = (verb.parse()?, words.next().ok_or(RightError::Form)?);
        if words.next().is_some() {
            return Err(RightError::Form);
        }
        Ok(Self::new(deny, verb, pattern)?)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    #[test]
    fn a_right_reads_back_from_its_text() {
        for text in ["publish orders.>", "deny subscribe a.{name}.*", "call billing:charge", "admin:security >"] {
            assert_eq!(text.parse::<Right>().map(|right| right.to_string()), Ok(text.to_string()));
        }
        assert_eq!(
            "allow  publish   a.b".parse::<Right>().map(|right| right.to_string()),
            Ok("publish a.b".to_string())
        );
        for verb in Verb::ALL {
            assert_eq!(verb.as_str().parse(), Ok(verb));
        }
    }

    #[test]
    fn what_is_no_right_is_refused() {
        for text in ["", "publish", "deny", "deny publish", "publish a b"] {
            assert_eq!(text.parse::<Right>(), Err(RightError::Form), "{text}");
        }
        assert_eq!("write a".parse::<Right>(), Err(RightError::Verb("write".into())));
        assert!(matches!("publish a.>.b".parse::<Right>(), Err(RightError::Pattern(PatternError::Wildcard))));
    }
}
