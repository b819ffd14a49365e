//! Headers of an event: names and values beside the payload. A name may have several values, whose order is kept.
//!
//! Names are compared without case; the first spelling of a name is kept. The values of one name stand together, so
//! that stored, delivered and restored headers have the same order. In a record each header is one line: `name:value`
//! and a line feed. Neither part can contain a line feed, and a name cannot contain a colon, so a line has one reading.

use alloc::borrow::ToOwned as _;
use alloc::string::String;

use crate::limits::{HEADER_BYTES_MAX, HEADERS_MAX};

/// Why a header is refused. `Display` gives the text that a client sees.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The name is not a token of RFC 9110.
    #[error("the name of a header is letters, digits and any of !#$%&'*+-.^_`|~")]
    Name,
    /// The value of the header with this name has a control character.
    #[error("the value of header {0} has a line break or another control character")]
    Value(String),
    /// The event has more than [`HEADERS_MAX`] headers.
    #[error("more than {HEADERS_MAX} headers")]
    TooMany,
    /// Names and values together have more than [`HEADER_BYTES_MAX`] bytes.
    #[error("names and values of headers are longer than {HEADER_BYTES_MAX} bytes together")]
    TooLong,
}

/// Whether a text can be the name of a header: a token of RFC 9110.
#[must_use]
pub fn is_header_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(legal)
}

/// Whether a text can be the value of a header: no control character, so no line feed.
fn is_value(value: &str) -> bool {
    !value.chars().any(char::is_control)
}

/// The headers of a stored event, borrowed from its record. A value of this type is always valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers<'a>(&'a str);

impl<'a> Headers<'a> {
    /// Checks the text of a record; `None` for a text that no release wrote.
    #[must_use]
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (mut count, mut bytes, mut rest) = (0_usize, 0_usize, text);
        while !rest.is_empty() {
            let (line, behind) = rest.split_once('\n')?;
            let (name, value) = line.split_once(':')?;
            count = count.saturating_add(1);
            bytes = bytes.saturating_add(name.len()).saturating_add(value.len());
            if count > HEADERS_MAX || bytes > HEADER_BYTES_MAX || !is_header_name(name) || !is_value(value) {
                return None;
            }
            rest = behind;
        }
        (count > 0).then_some(Self(text))
    }

    /// The text of a record.
    pub(crate) const fn text(self) -> &'a str {
        self.0
    }

    /// Whether the event has no headers.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Length of the text in a record, in bytes.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.len()
    }

    /// Names and values in their order; the values of one name are neighbours.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.split_terminator('\n').filter_map(|line| line.split_once(':'))
    }

    /// The first value of a name, compared without case.
    #[must_use]
    pub fn get(self, name: &str) -> Option<&'a str> {
        self.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// The headers of an event that is being published, checked one by one. An empty list allocates nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderList {
    /// The headers in the form of a record, so that encoding copies one text.
    text: String,
    /// Number of headers, so that the bounds need no count of lines.
    count: usize,
}

impl HeaderList {
    /// Adds a header behind the headers of the same name, in their spelling.
    ///
    /// # Errors
    /// [`HeaderError`]; the list is then unchanged.
    pub fn push(&mut self, name: &str, value: &str) -> Result<(), HeaderError> {
        if !is_header_name(name) {
            return Err(HeaderError::Name);
        }
        if !is_value(value) {
            return Err(HeaderError::Value(name.into()));
        }
        if self.count >= HEADERS_MAX {
            return Err(HeaderError::TooMany);
        }
        // Each header has a colon and a line feed beside its name and value.
        let used = self.text.len().saturating_sub(self.count.saturating_mul(2));
        if used.saturating_add(name.len()).saturating_add(value.len()) > HEADER_BYTES_MAX {
            return Err(HeaderError::TooLong);
        }
        let (end, known) = self.insertion_point(name);
        let line = [known.unwrap_or_else(|| name.to_owned()).as_str(), ":", value, "\n"].concat();
        self.text.insert_str(end, &line);
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// The byte at which the next header of a name is inserted, and the present spelling of the name.
    fn insertion_point(&self, name: &str) -> (usize, Option<String>) {
        let (mut end, mut found) = (0_usize, None);
        for line in self.text.split_inclusive('\n') {
            end = end.saturating_add(line.len());
            if let Some((known, _)) = line.split_once(':')
                && known.eq_ignore_ascii_case(name)
            {
                found = Some((end, known));
            }
        }
        found.map_or((self.text.len(), None), |(end, known)| (end, Some(known.to_owned())))
    }

    /// Adds all headers whose names the list does not have.
    ///
    /// # Errors
    /// [`HeaderError`]; the list may then have some of the headers.
    pub fn push_missing(&mut self, more: Headers<'_>) -> Result<(), HeaderError> {
        if self.text.is_empty() {
            more.text().clone_into(&mut self.text);
            self.count = more.iter().count();
            return Ok(());
        }
        // Added headers go behind the present text, so only the present text decides which names are missing.
        let own = self.text.len();
        for (name, value) in more.iter() {
            let here = Headers(self.text.get(..own).unwrap_or_default());
            if here.get(name).is_none() {
                self.push(name, value)?;
            }
        }
        Ok(())
    }

    /// The headers in the form that [`crate::event::Event`] takes.
    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        Headers(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn list(headers: &[(&str, &str)]) -> HeaderList {
        let mut list = HeaderList::default();
        headers.iter().for_each(|(name, value)| list.push(name, value).unwrap());
        list
    }

    fn pairs(list: &HeaderList) -> Vec<(&str, &str)> {
        list.headers().iter().collect()
    }

    #[test]
    fn values_of_one_name_stand_together_under_its_first_spelling() {
        let list = list(&[("Tenant", "a"), ("x", ""), ("TENANT", " b: c "), ("y", "é😀"), ("tenant", "d")]);
        let wanted = [("Tenant", "a"), ("Tenant", " b: c "), ("Tenant", "d"), ("x", ""), ("y", "é😀")];
        assert_eq!(pairs(&list), wanted);
        assert_eq!((list.headers().get("teNant"), list.headers().get("z")), (Some("a"), None));
        assert_eq!(Headers::parse(list.headers().text()), Some(list.headers()));
    }

    #[test]
    fn what_no_header_can_be_is_refused_and_changes_nothing() {
        let mut list = list(&[("a", "1")]);
        for name in ["", "a b", "a:b", "a\n", "é", "(x)", "\"x\"", "a/b"] {
            assert_eq!(list.push(name, "1"), Err(HeaderError::Name), "{name:?}");
        }
        for value in ["a\nb", "\r", "\0", "\t", "\u{7f}", "\u{85}"] {
            assert_eq!(list.push("x", value), Err(HeaderError::Value("x".into())), "{value:?}");
        }
        assert_eq!(pairs(&list), [("a", "1")]);
    }

    #[test]
    fn number_and_bytes_are_bounded() {
        let mut many = HeaderList::default();
        (0..HEADERS_MAX).for_each(|_| many.push("n", "v").unwrap());
        assert_eq!(many.push("n", "v"), Err(HeaderError::TooMany));
        let mut long = HeaderList::default();
        long.push("name", &"v".repeat(HEADER_BYTES_MAX - 4)).unwrap();
        assert_eq!(long.push("n", ""), Err(HeaderError::TooLong));
        for list in [many, long] {
            assert_eq!(Headers::parse(list.headers().text()), Some(list.headers()));
            let more = alloc::format!("{}x:y\n", list.headers().text());
            assert_eq!(Headers::parse(&more), None);
        }
    }

    #[test]
    fn headers_that_are_missing_are_added_and_those_that_are_there_stay() {
        let common = list(&[("Trace", "t1"), ("Trace", "t2"), ("b", "2")]);
        let mut own = list(&[("TRACE", "own"), ("a", "1")]);
        own.push_missing(common.headers()).unwrap();
        assert_eq!(pairs(&own), [("TRACE", "own"), ("a", "1"), ("b", "2")]);
        let mut none = HeaderList::default();
        none.push_missing(common.headers()).unwrap();
        assert_eq!(none, common);
    }

    proptest! {
        #[test]
        fn headers_read_back_and_no_other_text_does(
            headers in proptest::collection::vec(("[!#$%&'*+.^_`|~a-zA-Z0-9-]{1,9}", "[^\\pC]{0,20}"), 1..30),
            hostile in "[a-z:\\n\\r é\\x00]{0,40}",
        ) {
            let mut list = HeaderList::default();
            for (name, value) in &headers { list.push(name, value).unwrap(); }
            let read = Headers::parse(list.headers().text());
            prop_assert_eq!(read, Some(list.headers()));
            prop_assert_eq!(pairs(&list).len(), headers.len());
            for (name, _) in &headers {
                let of = |from: &mut dyn Iterator<Item = (&str, &str)>| -> Vec<String> {
                    from.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.into()).collect()
                };
                let came = of(&mut headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
                prop_assert_eq!(of(&mut list.headers().iter()), came);
            }
            if let Some(read) = Headers::parse(&hostile) {
                let mut again = String::new();
                for (name, value) in read.iter() {
                    prop_assert!(is_header_name(name) && is_value(value));
                    again.push_str(&[name, ":", value, "\n"].concat());
                }
                prop_assert_eq!(again, hostile);
            }
        }
    }
}
