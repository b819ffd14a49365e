//! Rights as options of a command, and lists of rights and roles that are changed.

use anyhow::bail;
use clap::Args;
use rollbook_core::security::right::Right;

/// Rights that a command gives or takes.
#[derive(Debug, Default, Args)]
pub(super) struct RightsArgs {
    /// A right: a verb and a pattern, as in 'publish orders.>'; can be repeated
    #[arg(long, value_name = "RIGHT", value_parser = allow)]
    allow: Vec<Right>,
    /// A right that is denied, whatever else allows it, as in 'subscribe orders.secret.>'; can be repeated
    #[arg(long, value_name = "RIGHT", value_parser = deny)]
    deny: Vec<Right>,
}

impl RightsArgs {
    /// Whether no right is given.
    pub(super) fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// The rights as REST takes them.
    pub(super) fn texts(&self) -> Vec<String> {
        self.allow.iter().chain(&self.deny).map(ToString::to_string).collect()
    }
}

fn allow(text: &str) -> Result<Right, String> {
    let right = text.parse::<Right>().map_err(|error| error.to_string())?;
    if right.deny { Err("this denies: write --deny".to_owned()) } else { Ok(right) }
}

fn deny(text: &str) -> Result<Right, String> {
    let right = text.parse::<Right>().map_err(|error| error.to_string())?;
    Right::new(true, right.verb, right.pattern()).map_err(|error| error.to_string())
}

/// Adds what is not in the list yet.
pub(super) fn add(list: &mut Vec<String>, more: &[String]) {
    for one in more {
        if !list.contains(one) {
            list.push(one.clone());
        }
    }
}

/// Takes each of `fewer` out of the list. `owner` and `noun` are for the error.
///
/// # Errors
/// The list has not all of them. A misspelled right would otherwise stay in force, and the user would think that it is
/// gone.
pub(super) fn remove(list: &mut Vec<String>, fewer: &[String], owner: &str, noun: &str) -> anyhow::Result<()> {
    for one in fewer {
        let before = list.len();
        list.retain(|there| there != one);
        if list.len() == before {
            let there = if list.is_empty() { "none".to_owned() } else { list.join(", ") };
            bail!("{owner} has no {noun} `{one}` of its own; there is: {there}; nothing was changed");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_checked_before_they_are_sent() {
        assert_eq!(allow("publish  orders.>").unwrap().to_string(), "publish orders.>");
        for text in ["subscribe x.>", "deny subscribe x.>"] {
            assert_eq!(deny(text).unwrap().to_string(), "deny subscribe x.>");
        }
        for (bad, part) in [
            ("write x", "the verbs are publish"),
            ("publish", "VERB PATTERN"),
            ("publish a.>.b", ""),
            ("deny publish x", "--deny"),
        ] {
            let error = allow(bad).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert!(deny("publish").is_err());
    }

    #[test]
    fn what_is_not_there_cannot_be_taken() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let mut list = texts(&["a", "b"]);
        add(&mut list, &texts(&["b", "c"]));
        assert_eq!(list, ["a", "b", "c"]);
        remove(&mut list, &texts(&["a"]), "user:ann", "role").unwrap();
        let error = remove(&mut list, &texts(&["a"]), "user:ann", "role").unwrap_err().to_string();
        assert!(error.contains("user:ann has no role `a`") && error.contains("b, c"), "{error}");
    }
}
