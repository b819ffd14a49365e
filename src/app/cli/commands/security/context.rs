//! `rollbook context`: lists, chooses, shows and deletes the saved contexts. No token is shown.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::app::cli::access::contexts::{Contexts, SavedContext};
use crate::app::cli::access::secret::Token;
use crate::app::cli::shared::error::Usage;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::output::{print, table};

const EXAMPLES: &str = "\
Examples:
  rollbook context list
  rollbook context use prod
  rollbook context show
  rollbook context delete lab

`rollbook login` makes a context. A command takes the one of --context or ROLLBOOK_CONTEXT, else the current one, and \
none when --web-url or --log-url name a node.";

const LIST_EXAMPLES: &str = "\
Examples:
  rollbook context list
  rollbook context list --output json";

const USE_EXAMPLES: &str = "\
Examples:
  rollbook context use prod";

const SHOW_EXAMPLES: &str = "\
Examples:
  rollbook context show
  rollbook context show prod --output json";

const DELETE_EXAMPLES: &str = "\
Examples:
  rollbook context delete lab";

/// Arguments of `context`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ContextArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the contexts; a star marks the current one
    #[command(after_help = LIST_EXAMPLES)]
    List,
    /// Make a context the current one
    #[command(after_help = USE_EXAMPLES)]
    Use {
        /// Name of the context
        name: String,
    },
    /// Show a context, without its token
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Name of the context [default: that of --context, else the current one]
        name: Option<String>,
    },
    /// Delete a context with its token
    #[command(after_help = DELETE_EXAMPLES)]
    Delete {
        /// Name of the context
        name: String,
    },
}

pub(in crate::app::cli) fn run(global: &Global, args: ContextArgs) -> anyhow::Result<()> {
    print(&answer(global, args.action)?)
}

fn answer(global: &Global, action: Action) -> anyhow::Result<String> {
    let path = global.environment.contexts_file()?;
    let mut contexts = Contexts::load(path)?;
    let json = global.output == Output::Json;
    Ok(match action {
        Action::List if json => {
            let all = contexts.contexts.iter().map(|(name, context)| describe(&contexts, name, context));
            Value::Array(all.collect()).to_string()
        }
        Action::List => {
            let row = |(name, context): (&String, &SavedContext)| {
                let mark = if contexts.current.as_ref() == Some(name) { "*" } else { "" };
                let token = token(context).unwrap_or_default();
                vec![mark.to_owned(), name.clone(), context.web_url.clone(), context.log_url.clone(), token]
            };
            table(&["", "NAME", "WEB", "LOG", "TOKEN"], contexts.contexts.iter().map(row).collect())
        }
        Action::Use { name } => {
            contexts.get(&name)?;
            contexts.current = Some(name.clone());
            contexts.save(path)?;
            if json { json!({ "current": name }).to_string() } else { format!("commands use the context {name} now") }
        }
        Action::Show { name } => {
            let named = name.or_else(|| global.context.clone()).filter(|name| !name.is_empty());
            let name = named.or_else(|| contexts.current.clone());
            let none = || Usage("there is no current context: make one with `rollbook login`".to_owned());
            let name = name.ok_or_else(none)?;
            let shown = describe(&contexts, &name, contexts.get(&name)?);
            if json { shown.to_string() } else { lines(&shown) }
        }
        Action::Delete { name } => {
            let unknown = contexts.unknown(&name);
            contexts.contexts.remove(&name).ok_or(unknown)?;
            contexts.current.take_if(|current| *current == name);
            contexts.save(path)?;
            if json { json!({ "deleted": name }).to_string() } else { format!("deleted the context {name}") }
        }
    })
}

/// A context for programs.
fn describe(contexts: &Contexts, name: &str, context: &SavedContext) -> Value {
    json!({
        "name": name,
        "current": contexts.current.as_deref() == Some(name),
        "web_url": context.web_url,
        "log_url": context.log_url,
        "ca": context.ca,
        "certificate": context.certificate,
        "key": context.key,
        "token": token(context),
        "expires_at": context.expires_at,
    })
}

/// What may be shown of the token: its id, or that there is one.
fn token(context: &SavedContext) -> Option<String> {
    let token = Token::new(context.token.as_ref()?.reveal(), "the context").ok();
    Some(token.as_ref().and_then(Token::id).map_or_else(|| "yes".to_owned(), |id| format!("rb1_{id}")))
}

/// One line for each member that there is.
fn lines(shown: &Value) -> String {
    let members = shown.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let line = |(name, value): (&String, &Value)| {
        format!("{name:<12} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    members.map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::access::environment::Environment;
    use crate::app::cli::access::secret::Secret;

    fn home() -> (tempfile::TempDir, Global) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        let context = |token: &str| SavedContext {
            web_url: "https://h:7440/".to_owned(),
            log_url: "https://h:2021/".to_owned(),
            token: Some(Secret::new(token.to_owned())),
            ..SavedContext::default()
        };
        let contexts = [("lab".to_owned(), context("eyJh.s3cr3t.c2ln")), ("prod".to_owned(), context("rb1_k7_s3cr3t"))];
        Contexts { current: Some("prod".to_owned()), contexts: contexts.into() }.save(&file).unwrap();
        let environment = Environment { token: None, contexts: Some(file) };
        (dir, Global { environment, ..Global::default() })
    }

    fn current(global: &Global) -> Option<String> {
        global.environment.contexts().unwrap().current
    }

    #[test]
    fn tokens_are_named_and_never_shown() {
        let (_dir, global) = home();
        let json = Global { output: Output::Json, ..global.clone() };
        for global in [&global, &json] {
            let list = answer(global, Action::List).unwrap();
            let shown = answer(global, Action::Show { name: None }).unwrap();
            assert!(list.contains("rb1_k7") && list.contains("yes") && shown.contains("rb1_k7"), "{list}\n{shown}");
            assert!(!list.contains("s3cr3t") && !shown.contains("s3cr3t"), "{list}\n{shown}");
        }
    }

    #[test]
    fn the_current_context_changes_and_goes_with_its_deletion() {
        let (_dir, global) = home();
        let name = || "lab".to_owned();
        answer(&global, Action::Use { name: name() }).unwrap();
        assert_eq!(current(&global), Some(name()));
        answer(&global, Action::Delete { name: name() }).unwrap();
        assert_eq!(current(&global), None);
        for action in [Action::Use { name: name() }, Action::Delete { name: name() }, Action::Show { name: None }] {
            assert!(answer(&global, action).unwrap_err().is::<Usage>());
        }
        assert!(answer(&global, Action::Show { name: Some("prod".to_owned()) }).unwrap().contains("https://h:7440/"));
    }
}
