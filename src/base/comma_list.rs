//! A list of words in one setting, separated by commas.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// The words of a text such as `a, b`, without the blanks around each and without empty words.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

/// The words of a text such as `a, b`. Blanks around a word and empty words are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct CommaList(Vec<String>);

impl From<String> for CommaList {
    fn from(text: String) -> Self {
        Self(words(&text).map(str::to_owned).collect())
    }
}

impl From<&str> for CommaList {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<CommaList> for String {
    fn from(list: CommaList) -> Self {
        list.0.join(",")
    }
}

impl Deref for CommaList {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_and_empty_words_do_not_count() {
        let list = CommaList::from(" a, b ,,c d,");
        assert_eq!(*list, ["a".to_owned(), "b".to_owned(), "c d".to_owned()]);
        assert_eq!(String::from(list), "a,b,c d");
        assert!(CommaList::from(" , ").is_empty());
    }
}
