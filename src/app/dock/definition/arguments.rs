//! The command line of a service, which is run without a shell.
//!
//! The rules are those of shell-quote, which stock docks use: quotes, backslashes and `$NAME` are understood. What only a
//! shell can do is an error, because stock docks would start something else than what the text says.

/// Why a command line cannot be run without a shell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgumentsError {
    /// The text needs a shell.
    #[error("start runs without a shell: {0} is not supported; use sh -c '...'")]
    NeedsShell(String),
    /// A quote is never closed.
    #[error("start has a quote {0} that is never closed")]
    OpenQuote(char),
    /// A variable is written wrongly.
    #[error("start has a ${{ that is never closed")]
    OpenBrace,
}

/// Splits `text` into a program and its arguments. `lookup` gives the values of variables; an unknown one is empty.
///
/// # Errors
///
/// The text needs a shell, or its quotes are not closed.
pub(crate) fn parse_arguments<'v>(
    text: &str,
    lookup: impl Fn(&str) -> Option<&'v str>,
) -> Result<Vec<String>, ArgumentsError> {
    Parser { rest: text, lookup, arguments: Vec::new(), word: None }.run()
}

struct Parser<'t, F> {
    rest: &'t str,
    lookup: F,
    arguments: Vec<String>,
    /// The argument that is being read. An empty one exists too: `''`.
    word: Option<String>,
}

impl<'v, F: Fn(&str) -> Option<&'v str>> Parser<'_, F> {
    fn run(mut self) -> Result<Vec<String>, ArgumentsError> {
        while let Some(letter) = self.next() {
            match letter {
                ' ' | '\t' | '\r' | '\n' => self.end_word(),
                '\'' => self.single_quoted()?,
                '"' => self.double_quoted()?,
                '\\' => {
                    if let Some(escaped) = self.next() {
                        self.push(escaped);
                    }
                }
                '$' => self.variable()?,
                '|' | '&' | ';' | '<' | '>' | '(' | ')' | '`' | '*' | '?' => return Err(self.needs_shell(letter)),
                '#' if self.word.is_none() => return Err(self.needs_shell(letter)),
                '=' if self.begins_with_assignment() => {
                    let name = self.word.unwrap_or_default();
                    return Err(ArgumentsError::NeedsShell(format!("the assignment {name}=")));
                }
                letter => self.push(letter),
            }
        }
        self.end_word();
        Ok(self.arguments)
    }

    fn next(&mut self) -> Option<char> {
        let mut letters = self.rest.chars();
        let letter = letters.next()?;
        self.rest = letters.as_str();
        Some(letter)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn push(&mut self, letter: char) {
        self.word.get_or_insert_default().push(letter);
    }

    fn end_word(&mut self) {
        self.arguments.extend(self.word.take());
    }

    /// Names an operator with its second letter, `&&` for example.
    fn needs_shell(&self, letter: char) -> ArgumentsError {
        let doubled = matches!(letter, '|' | '&' | '<' | '>' | ';') && self.peek() == Some(letter);
        let operator = if doubled { format!("{letter}{letter}") } else { letter.to_string() };
        ArgumentsError::NeedsShell(operator)
    }

    /// True in `NAME=value program`, which only a shell understands.
    fn begins_with_assignment(&self) -> bool {
        let name = self.word.as_deref().unwrap_or_default();
        self.arguments.is_empty()
            && name.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
            && name.chars().all(is_name_letter)
    }

    fn single_quoted(&mut self) -> Result<(), ArgumentsError> {
        self.word.get_or_insert_default();
        while let Some(letter) = self.next() {
            match letter {
                '\'' => return Ok(()),
                letter => self.push(letter),
            }
        }
        Err(ArgumentsError::OpenQuote('\''))
    }

    fn double_quoted(&mut self) -> Result<(), ArgumentsError> {
        self.word.get_or_insert_default();
        while let Some(letter) = self.next() {
            match letter {
                '"' => return Ok(()),
                '\\' => match self.peek() {
                    Some('"' | '\\' | '$' | '`') => {
                        if let Some(escaped) = self.next() {
                            self.push(escaped);
                        }
                    }
                    _ => self.push('\\'),
                },
                '$' => self.variable()?,
                '`' => return Err(self.needs_shell('`')),
                letter => self.push(letter),
            }
        }
        Err(ArgumentsError::OpenQuote('"'))
    }

    fn variable(&mut self) -> Result<(), ArgumentsError> {
        let name = match self.peek() {
            Some('(') => return Err(ArgumentsError::NeedsShell("$(".into())),
            Some('{') => self.braced_name()?,
            Some(letter) if is_name_letter(letter) && !letter.is_ascii_digit() => {
                let end = self.rest.find(|letter| !is_name_letter(letter)).unwrap_or(self.rest.len());
                let (name, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
                self.rest = rest;
                name.to_owned()
            }
            _ => {
                self.push('$');
                return Ok(());
            }
        };
        let value = (self.lookup)(&name).unwrap_or_default();
        self.word.get_or_insert_default().push_str(value);
        Ok(())
    }

    fn braced_name(&mut self) -> Result<String, ArgumentsError> {
        let (name, rest) =
            self.rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).ok_or(ArgumentsError::OpenBrace)?;
        if name.is_empty() || !name.chars().all(is_name_letter) {
            return Err(ArgumentsError::NeedsShell(format!("${{{name}}}")));
        }
        self.rest = rest;
        Ok(name.to_owned())
    }
}

fn is_name_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<String>, ArgumentsError> {
        parse_arguments(text, |name| match name {
            "SERVICE_NAME" => Some("app"),
            "TWO" => Some("a b"),
            _ => None,
        })
    }

    #[track_caller]
    fn words(text: &str, expected: &[&str]) {
        assert_eq!(parse(text).unwrap(), expected, "{text}");
    }

    #[test]
    fn quotes_and_backslashes_join_words() {
        words("node server.js", &["node", "server.js"]);
        words("  a\t'b c'  \"d e\"f  ", &["a", "b c", "d ef"]);
        words(r#"a\ b "c\"d" 'e\f' "g\h""#, &["a b", "c\"d", "e\\f", "g\\h"]);
        words("a '' \"\"", &["a", "", ""]);
        words("", &[]);
        words("é 'ü ö'", &["é", "ü ö"]);
    }

    #[test]
    fn variables_are_values_and_never_split() {
        words("$SERVICE_NAME ${SERVICE_NAME}x \"$TWO\" $TWO", &["app", "appx", "a b", "a b"]);
        words("'$TWO' \\$TWO $ $1 a$NONE", &["$TWO", "$TWO", "$", "$1", "a"]);
    }

    #[test]
    fn what_needs_a_shell_is_refused_with_advice() {
        for (text, operator) in [
            ("a | b", "|"),
            ("a && b", "&&"),
            ("a > b", ">"),
            ("a; b", ";"),
            ("ls *.js", "*"),
            ("echo `x`", "`"),
            ("echo \"`x`\"", "`"),
            ("echo $(x)", "$("),
            ("a # b", "#"),
            ("A=1 b", "the assignment A="),
            ("echo ${A:-1}", "${A:-1}"),
        ] {
            let expected = format!("start runs without a shell: {operator} is not supported; use sh -c '...'");
            assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text}");
        }
        words("sh -c 'a | b && c > d'", &["sh", "-c", "a | b && c > d"]);
        words("env A=1 b#c --x=1", &["env", "A=1", "b#c", "--x=1"]);
    }

    #[test]
    fn an_open_quote_or_brace_is_an_error() {
        assert_eq!(parse("a 'b"), Err(ArgumentsError::OpenQuote('\'')));
        assert_eq!(parse("a \"b"), Err(ArgumentsError::OpenQuote('"')));
        assert_eq!(parse("a ${b"), Err(ArgumentsError::OpenBrace));
    }
}
