//! `ETag`, `If-Match` and `If-None-Match` (RFC 9110, 8.8.3 and 13.1) over a revision.
//!
//! The tag of a resource is its revision, `"7"`. A representation that shows more than its revision counts adds a
//! hash, `"7-0123456789abcdef"`, so that the tag changes with the representation. A change compares the revision
//! alone, because a change touches nothing else.

use std::hash::{DefaultHasher, Hasher as _};

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use rollbook_cluster::node::consensus::Consistency;
use rollbook_core::error::Refusal;

use super::Admin;
use super::problem::Problem;

/// The tag of a revision.
pub(super) fn etag(revision: u64) -> String {
    format!("\"{revision}\"")
}

/// The tag of a representation that shows more than its revision counts.
pub(super) fn etag_of(revision: u64, representation: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(representation);
    format!("\"{revision}-{:016x}\"", hasher.finish())
}

/// An entity tag of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tag {
    weak: bool,
    /// The text between the quotes.
    opaque: Vec<u8>,
}

/// The tags of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    /// `*`: any tag.
    Any,
    List(Vec<Tag>),
}

impl Tag {
    /// Compares weakly with a tag of this node.
    fn matches(&self, own: &str) -> bool {
        self.opaque == own.trim_matches('"').as_bytes()
    }

    /// The revision in a tag of this node. A weak tag has none, because `If-Match` compares strongly.
    fn revision(&self) -> Option<u64> {
        let text = std::str::from_utf8(&self.opaque).ok().filter(|_| !self.weak)?;
        let digits = match text.split_once('-') {
            Some((digits, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => digits,
            Some(_) => return None,
            None => text,
        };
        digits.parse().ok().filter(|revision: &u64| revision.to_string() == digits)
    }
}

/// Reads `*` or a list of entity tags. `None` means that the text is neither.
fn parse(text: &[u8]) -> Option<Tags> {
    if text.trim_ascii() == b"*" {
        return Some(Tags::Any);
    }
    let mut tags = Vec::new();
    let mut rest = text.trim_ascii();
    while !rest.is_empty() {
        // An empty element of a list is skipped.
        if let Some(behind) = rest.strip_prefix(b",") {
            rest = behind.trim_ascii_start();
            continue;
        }
        let (weak, quoted) = rest.strip_prefix(b"W/").map_or((false, rest), |quoted| (true, quoted));
        let quoted = quoted.strip_prefix(b"\"")?;
        let end = quoted.iter().position(|byte| *byte == b'"')?;
        let (opaque, behind) = quoted.split_at_checked(end)?;
        if !opaque.iter().all(|byte| *byte == 0x21 || (0x23..=0x7e).contains(byte) || *byte >= 0x80) {
            return None;
        }
        tags.push(Tag { weak, opaque: opaque.to_vec() });
        rest = behind.get(1..)?.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b",") {
            return None;
        }
    }
    (!tags.is_empty()).then_some(Tags::List(tags))
}

/// Reads the condition of that name from all lines of the header. `None` means that there is none.
///
/// # Errors
/// The condition is not an entity tag.
fn condition(request: &HttpRequest, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let mut lines = request.headers().get_all(name).map(|line| line.as_bytes()).peekable();
    if lines.peek().is_none() {
        return Ok(None);
    }
    let joined = lines.collect::<Vec<_>>().join(b", ".as_slice());
    let invalid = || Problem::bad(format!("{name}: entity tags like \"7\", separated by commas, or *"));
    parse(&joined).map(Some).ok_or_else(invalid)
}

/// Whether the client of a GET already has the representation with this tag.
pub(super) fn is_known(request: &HttpRequest, own: &str) -> bool {
    // An invalid tag matches nothing, so the client gets the representation.
    match condition(request, &IF_NONE_MATCH) {
        Ok(Some(Tags::Any)) => true,
        Ok(Some(Tags::List(tags))) => tags.iter().any(|tag| tag.matches(own)),
        Ok(None) | Err(_) => false,
    }
}

fn failed(detail: impl Into<String>) -> Problem {
    Refusal::RevisionMismatch(detail.into()).into()
}

/// The `If-Match` and `If-None-Match` of a change.
#[derive(Debug)]
pub(super) struct Conditions {
    matching: Option<Tags>,
    unlike: Option<Tags>,
}

impl Conditions {
    /// Reads the conditions from the headers.
    ///
    /// # Errors
    /// A condition is not an entity tag.
    pub(super) fn of(request: &HttpRequest) -> Result<Self, Problem> {
        Ok(Self { matching: condition(request, &IF_MATCH)?, unlike: condition(request, &IF_NONE_MATCH)? })
    }

    /// The revision that the change is bound to: 0 for a resource that has to be absent. `None` means that any revision
    /// will do. `present` gives the revision of the resource, `None` while there is none.
    ///
    /// # Errors
    /// The conditions are not met, or the present revision cannot be read.
    pub(super) async fn revision(
        &self,
        admin: &Admin,
        present: impl Fn() -> Result<Option<u64>, Problem>,
    ) -> Result<Option<u64>, Problem> {
        let named = self.named()?;
        // The rules compare one revision with the present one in the order of the log, so nothing has to be read
        // first.
        if let (Some([revision]), None) = (named.as_deref(), &self.unlike) {
            return Ok(Some(*revision));
        }
        if self.matching.is_none() && self.unlike.is_none() {
            return Ok(None);
        }
        admin.bus.node().consensus().read_barrier(Consistency::Linearizable).await?;
        let chosen = self.choose(named.as_deref(), present()?)?;
        // `If-Match: *` is met by whatever comes after this revision too.
        Ok((named.is_some() || self.unlike.is_some()).then_some(chosen))
    }

    /// The revisions that `If-Match` names. `None` means that any revision will do.
    fn named(&self) -> Result<Option<Vec<u64>>, Problem> {
        let Some(Tags::List(tags)) = &self.matching else { return Ok(None) };
        let revisions: Vec<u64> = tags.iter().filter_map(Tag::revision).collect();
        if revisions.is_empty() {
            return Err(failed("If-Match names no ETag of a GET; one that begins with W/ matches nothing"));
        }
        Ok(Some(revisions))
    }

    /// The present revision, or 0 when there is no resource, if the conditions are met.
    fn choose(&self, named: Option<&[u64]>, present: Option<u64>) -> Result<u64, Problem> {
        let Some(present) = present else {
            return match self.matching {
                None => Ok(0),
                Some(_) => Err(failed("there is nothing yet that If-Match could name")),
            };
        };
        if named.is_some_and(|named| !named.contains(&present)) {
            return Err(failed(format!("revision is {present}, which If-Match does not name")));
        }
        let is_unlike = match &self.unlike {
            None => true,
            Some(Tags::Any) => false,
            Some(Tags::List(tags)) => {
                let named = |tag: &Tag| Tag { weak: false, ..tag.clone() }.revision() == Some(present);
                !tags.iter().any(named)
            }
        };
        if is_unlike {
            Ok(present)
        } else {
            Err(failed(format!("revision is {present}, which If-None-Match excludes")))
        }
    }
}

/// Refuses `If-Match` on a resource without a tag, because no tag can match.
///
/// # Errors
/// The request has such a condition.
pub(super) fn none(request: &HttpRequest) -> Result<(), Problem> {
    match condition(request, &IF_MATCH)? {
        None | Some(Tags::Any) => Ok(()),
        Some(Tags::List(_)) => Err(failed(format!("{} has no ETag that If-Match could name", request.path()))),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use actix_web::test::TestRequest;

    use super::*;

    fn request(name: HeaderName, lines: &[&[u8]]) -> HttpRequest {
        let mut request = TestRequest::default();
        for line in lines {
            request = request.append_header((name.clone(), HeaderValue::from_bytes(line).unwrap()));
        }
        request.to_http_request()
    }

    fn knows(lines: &[&str]) -> bool {
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        is_known(&request(IF_NONE_MATCH, &lines), "\"7\"")
    }

    #[test]
    fn if_none_match_compares_weakly_and_takes_lists() {
        let known: [&[&str]; 6] =
            [&["\"7\""], &["W/\"7\""], &["*"], &["\"x\", W/\"7\""], &["\"a,b\" ,, \"7\""], &["\"x\"", "\"7\""]];
        for lines in known {
            assert!(knows(lines), "{lines:?}");
        }
        let others: [&[&str]; 8] =
            [&["\"8\""], &["7"], &["w/\"7\""], &["\"7"], &["\"7\" \"8\""], &["\"x\", *"], &[""], &[]];
        for lines in others {
            assert!(!knows(lines), "{lines:?}");
        }
    }

    fn expected(lines: &[&[u8]], present: u64) -> Result<Option<u64>, u16> {
        let status = |problem: Problem| actix_web::ResponseError::status_code(&problem).as_u16();
        let conditions = Conditions::of(&request(IF_MATCH, lines)).map_err(status)?;
        let Some(named) = conditions.named().map_err(status)? else { return Ok(None) };
        conditions.choose(Some(&named), Some(present)).map(Some).map_err(status)
    }

    #[test]
    fn if_match_compares_strongly_and_takes_lists() {
        assert_eq!(expected(&[], 7), Ok(None));
        assert_eq!(expected(&[b"*"], 7), Ok(None));
        for line in ["\"7\"", "\"999\", \"7\"", "W/\"7\", \"7\"", "\"7-0123456789abcdef\"", "\"\", \"7\""] {
            assert_eq!(expected(&[line.as_bytes()], 7), Ok(Some(7)), "{line}");
        }
        for line in ["W/\"7\"", "\"999\"", "\"abc\"", "\"07\"", "\"+7\"", "\"7-\"", "\"7-x\"", "\"\"", "\"\u{e9}\""] {
            assert_eq!(expected(&[line.as_bytes()], 7), Err(412), "{line}");
        }
        for line in ["7", "W/7", "\"7", "", ",", "\"a b\"", "\"7\";\"8\"", "*, \"7\""] {
            assert_eq!(expected(&[line.as_bytes()], 7), Err(400), "{line}");
        }
    }

    #[test]
    fn a_change_that_excludes_what_there_is_is_refused() {
        let met = |line: &str| {
            let conditions = Conditions::of(&request(IF_NONE_MATCH, &[line.as_bytes()])).unwrap();
            conditions.choose(None, Some(7)).is_ok()
        };
        assert!(met("\"6\", W/\"8\""));
        assert!(!met("*") && !met("W/\"7\"") && !met("\"7-0123456789abcdef\""));
    }

    #[test]
    fn what_is_absent_meets_no_if_match_and_every_if_none_match() {
        let absent = |name: HeaderName, line: &str| {
            let conditions = Conditions::of(&request(name, &[line.as_bytes()])).unwrap();
            conditions.choose(conditions.named().unwrap().as_deref(), None).ok()
        };
        assert_eq!((absent(IF_MATCH, "*"), absent(IF_MATCH, "\"0\", \"7\"")), (None, None));
        assert_eq!((absent(IF_NONE_MATCH, "*"), absent(IF_NONE_MATCH, "\"7\"")), (Some(0), Some(0)));
    }

    #[test]
    fn a_tag_changes_with_the_representation() {
        assert_ne!(etag_of(7, b"a"), etag_of(7, b"b"));
        assert_ne!(etag_of(7, b"a"), etag_of(8, b"a"));
        assert_eq!(etag_of(7, b"a"), etag_of(7, b"a"));
    }
}
