//! The layers of the configuration. Each layer is read into leaves, each leaf is checked, and the layer is laid over
//! the one below.
//!
//! A value comes from the highest layer that names it: default < TOML file < environment (`ROLLBOOK_SECTION__KEY`) <
//! command line flag. Invariants: an unknown key is an error in every layer, and each value remembers its layer.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::settings::Config;

/// The names of environment variables that are settings begin with this.
const ENV_PREFIX: &str = "ROLLBOOK_";

/// Settings with a flag of `rollbook serve`, so that messages can name the flag.
const FLAGS: [(&str, &str); 14] = [
    ("node.id", "--node"),
    ("node.data", "--data"),
    ("node.insecure", "--insecure"),
    ("web.listen", "--web"),
    ("sse.listen", "--log"),
    ("nats.listen", "--nats"),
    ("hms.listen", "--hms"),
    ("peer.listen", "--peer"),
    ("peer.advertise", "--advertise"),
    ("cluster.founders", "--cluster"),
    ("book.namespaces", "--namespaces"),
    ("tls.certificate", "--tls-certificate"),
    ("tls.key", "--tls-key"),
    ("tls.client_ca", "--tls-client-ca"),
];

/// The layer that a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The default.
    Default,
    /// A line of the TOML file, counted from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Env(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "file {}:{line}", path.display()),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// An error in the configuration, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `file:line:column`, the variable, or the flag.
    pub place: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError {
    /// All errors; never empty.
    pub problems: Vec<Problem>,
}

/// A configuration that passed every check.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The layer of each value, by dotted key.
    pub origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// Every setting as dotted key, value and layer, in the order of the keys.
    #[must_use]
    pub fn settings(&self) -> Vec<(String, Value, Origin)> {
        let mut settings = Vec::new();
        for (section, table) in schema_of(&self.config) {
            let Value::Table(table) = table else { continue };
            for (key, value) in table {
                let dotted = format!("{section}.{key}");
                let origin = self.origins.get(&dotted).cloned().unwrap_or(Origin::Default);
                settings.push((dotted, value, origin));
            }
        }
        settings
    }

    /// The whole configuration as TOML, which `--config` can read. With `origins` each line names its layer.
    #[must_use]
    pub fn dump(&self, origins: bool) -> String {
        let mut text = String::new();
        let mut open = String::new();
        for (dotted, value, origin) in self.settings() {
            let (section, key) = dotted.split_once('.').unwrap_or(("", &dotted));
            if section != open {
                text.push_str(if open.is_empty() { "[" } else { "\n[" });
                text.push_str(section);
                text.push_str("]\n");
                section.clone_into(&mut open);
            }
            let line = format!("{key} = {value}");
            text.push_str(&if origins { format!("{line:<40} # {origin}\n") } else { format!("{line}\n") });
        }
        text
    }
}

/// One value of one layer.
struct Leaf {
    section: String,
    key: String,
    value: Value,
    origin: Origin,
    /// Places of the key and of the value, for messages.
    key_place: String,
    value_place: String,
}

impl Config {
    /// Puts the layers together: defaults, then `file`, then `env`, then `flags` (dotted key and value).
    ///
    /// # Errors
    ///
    /// Every error of every layer, each with its place: file with line and column, variable, or flag.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        flags: &[(&str, Value)],
    ) -> Result<Loaded, ConfigError> {
        let text = match file {
            Some(path) => Some((path, read(path)?)),
            None => None,
        };
        lay(text.as_ref().map(|(path, text)| (*path, text.as_str())), env, flags)
    }
}

/// The environment for [`Config::load`]. A variable that is not UTF-8 cannot be a setting.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Reads the file.
fn read(path: &Path) -> Result<String, ConfigError> {
    let problem =
        |message: String| ConfigError { problems: vec![Problem { place: path.display().to_string(), message }] };
    let bytes = std::fs::read(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
    String::from_utf8(bytes)
        .map_err(|error| problem(format!("is not UTF-8 after byte {}", error.utf8_error().valid_up_to())))
}

/// Lays the layers over the defaults.
pub(super) fn lay(
    file: Option<(&Path, &str)>,
    env: impl Iterator<Item = (String, String)>,
    flags: &[(&str, Value)],
) -> Result<Loaded, ConfigError> {
    let schema = schema_of(&Config::default());
    let mut problems = Vec::new();
    let mut leaves = Vec::new();
    if let Some((path, text)) = file {
        file_leaves(&schema, path, text, &mut leaves, &mut problems);
    }
    env_leaves(&schema, env, &mut leaves, &mut problems);
    flag_leaves(flags, &mut leaves);

    let mut merged = schema.clone();
    let mut origins = BTreeMap::new();
    for leaf in leaves {
        match check(&schema, &leaf) {
            Ok(()) => {
                origins.insert(format!("{}.{}", leaf.section, leaf.key), leaf.origin);
                if let Some(Value::Table(section)) = merged.get_mut(&leaf.section) {
                    section.insert(leaf.key, leaf.value);
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    let config = Config::deserialize(Value::Table(merged)).map_err(|error| ConfigError {
        problems: vec![Problem { place: "configuration".to_owned(), message: error.message().to_owned() }],
    })?;
    let problems: Vec<Problem> = config
        .contradictions()
        .into_iter()
        .map(|(key, message)| Problem { place: place_of(key, &origins), message })
        .collect();
    if problems.is_empty() { Ok(Loaded { config, origins }) } else { Err(ConfigError { problems }) }
}

fn place_of(key: &str, origins: &BTreeMap<String, Origin>) -> String {
    match origins.get(key) {
        Some(origin) => format!("{key} ({origin})"),
        None => key.to_owned(),
    }
}

/// The defaults as a table. The table names every section and key, and shows the type of each.
fn schema_of(config: &Config) -> Table {
    Table::try_from(config).unwrap_or_default()
}

/// Checks that the key exists and that its value alone is valid.
fn check(schema: &Table, leaf: &Leaf) -> Result<(), Problem> {
    let Leaf { section, key, .. } = leaf;
    let Some(Value::Table(keys)) = schema.get(section) else {
        return Err(unknown_section(schema, section, leaf.key_place.clone()));
    };
    if !keys.contains_key(key) {
        let message = format!("unknown key `{key}` in [{section}]; keys are {}", names(keys));
        return Err(Problem { place: leaf.key_place.clone(), message });
    }
    let alone = Table::from_iter([(key.clone(), leaf.value.clone())]);
    let alone = Table::from_iter([(section.clone(), Value::Table(alone))]);
    match Config::deserialize(Value::Table(alone)) {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(Problem { place: leaf.value_place.clone(), message: format!("{section}.{key}: {}", error.message()) })
        }
    }
}

fn unknown_section(schema: &Table, name: &str, place: String) -> Problem {
    Problem { place, message: format!("unknown section [{name}]; sections are {}", names(schema)) }
}

fn names(table: &Table) -> String {
    table.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Reads the leaves of the TOML text, with their positions.
fn file_leaves(schema: &Table, path: &Path, text: &str, leaves: &mut Vec<Leaf>, problems: &mut Vec<Problem>) {
    let place = |offset: usize| {
        let (line, column) = position(text, offset);
        format!("{}:{line}:{column}", path.display())
    };
    let syntax = |error: &toml::de::Error| Problem {
        place: place(error.span().map_or(0, |span| span.start)),
        message: error.message().replace('\n', "; "),
    };
    let (spans, errors) = toml::de::DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        problems.extend(errors.iter().map(syntax));
        return;
    }
    // The spanned tree has the positions, the plain tree has the values.
    let values: Table = match toml::from_str(text) {
        Ok(values) => values,
        Err(error) => return problems.push(syntax(&error)),
    };
    for (section, keys) in spans.get_ref() {
        let (name, at) = (section.get_ref().as_ref(), place(section.span().start));
        let (Some(keys), Some(Value::Table(values))) = (keys.get_ref().as_table(), values.get(name)) else {
            problems.push(Problem {
                place: at,
                message: format!("`{name}` stands outside a section; write it as a key under [section]"),
            });
            continue;
        };
        if keys.is_empty() && !schema.contains_key(name) {
            problems.push(unknown_section(schema, name, at));
        }
        for (key, value) in keys {
            let Some(plain) = values.get(key.get_ref().as_ref()) else { continue };
            leaves.push(Leaf {
                section: name.to_owned(),
                key: key.get_ref().to_string(),
                value: plain.clone(),
                origin: Origin::File(path.to_owned(), position(text, key.span().start).0),
                key_place: place(key.span().start),
                value_place: place(value.span().start),
            });
        }
    }
}

/// Line and column of a byte. Both count from 1; the column counts characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.matches('\n').count() + 1;
    (line, before.get(line_start..).unwrap_or_default().chars().count() + 1)
}

/// Reads `ROLLBOOK_SECTION__KEY`. Other variables with the prefix are ignored, because a container platform sets some
/// for every service, except a setting with one underscore too few, which is an error.
fn env_leaves(
    schema: &Table,
    env: impl Iterator<Item = (String, String)>,
    leaves: &mut Vec<Leaf>,
    problems: &mut Vec<Problem>,
) {
    let mut variables: Vec<(String, String)> = env.filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
    variables.sort();
    for (name, text) in variables {
        let lower = name.get(ENV_PREFIX.len()..).unwrap_or_default().to_ascii_lowercase();
        let Some((section, key)) = lower.split_once("__") else {
            if let Some(meant) = single_underscore(schema, &lower) {
                problems.push(Problem { place: name, message: format!("is not a setting; write {meant}") });
            }
            continue;
        };
        match env_value(schema, section, key, text) {
            Ok(value) => leaves.push(Leaf {
                section: section.to_owned(),
                key: key.to_owned(),
                value,
                origin: Origin::Env(name.clone()),
                key_place: name.clone(),
                value_place: name,
            }),
            Err(message) => problems.push(Problem { place: name, message }),
        }
    }
}

/// The right spelling of a variable that separates section and key with one underscore instead of two.
fn single_underscore(schema: &Table, lower: &str) -> Option<String> {
    let (section, key) = lower.split_once('_')?;
    let known = schema.get(section)?.as_table()?.contains_key(key);
    known.then(|| format!("{ENV_PREFIX}{}__{}", section.to_ascii_uppercase(), key.to_ascii_uppercase()))
}

/// Reads the text of a variable. The default shows the type.
fn env_value(schema: &Table, section: &str, key: &str, text: String) -> Result<Value, String> {
    match schema.get(section).and_then(|keys| keys.get(key)) {
        // A number of bytes may have a unit. Every other number refuses a unit later.
        Some(Value::Integer(_)) if has_unit(&text) => Ok(Value::String(text)),
        Some(Value::Integer(_)) => text
            .trim()
            .parse()
            .map(Value::Integer)
            .map_err(|_| format!("{section}.{key}: `{text}` is not a whole number")),
        Some(Value::Boolean(_)) => text
            .trim()
            .parse()
            .map(Value::Boolean)
            .map_err(|_| format!("{section}.{key}: `{text}` is neither true nor false")),
        _ => Ok(Value::String(text)),
    }
}

/// Whether a text begins with a number and continues with something else.
fn has_unit(text: &str) -> bool {
    let text = text.trim();
    text.starts_with(|c: char| c.is_ascii_digit()) && text.ends_with(|c: char| c.is_ascii_alphabetic())
}

fn flag_leaves(flags: &[(&str, Value)], leaves: &mut Vec<Leaf>) {
    for (dotted, value) in flags {
        let (section, key) = dotted.split_once('.').unwrap_or((dotted, ""));
        let known = FLAGS.iter().find(|(key, _)| key == dotted);
        let name = known.map_or_else(|| format!("--{dotted}"), |(_, flag)| (*flag).to_owned());
        leaves.push(Leaf {
            section: section.to_owned(),
            key: key.to_owned(),
            value: value.clone(),
            origin: Origin::Flag(name.clone()),
            key_place: name.clone(),
            value_place: name,
        });
    }
}
