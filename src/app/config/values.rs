//! Values of the configuration with a syntax of their own: founders, namespaces, log format, log filter.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::comma_list::words;

/// What a node without a majority does with its streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnIsolation {
    /// The node ends its streams, so that clients move to another node.
    Close,
    /// The node keeps its streams and waits for the majority.
    Hold,
}

/// Most founding nodes.
const FOUNDERS_MAX: usize = 9;

/// The nodes that found a cluster, with their peer addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Founders(BTreeMap<u64, String>);

impl Founders {
    /// Whether there are no founders.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The addresses by number.
    #[must_use]
    pub fn addresses(&self) -> &BTreeMap<u64, String> {
        &self.0
    }
}

/// Whether a text is a `HOST:PORT` that other nodes can dial.
#[must_use]
pub fn is_host_port(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let any = matches!(host, "0.0.0.0" | "[::]");
    !host.is_empty() && !any && text.bytes().all(plain) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

impl TryFrom<String> for Founders {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut founders = BTreeMap::new();
        for part in words(&text) {
            let wrong = || format!("`{part}` is not NUMBER=HOST:PORT, as in 1=10.0.0.1:7441,2=10.0.0.2:7441");
            let (id, address) = part.split_once('=').ok_or_else(wrong)?;
            let id: u64 = id.trim().parse().ok().filter(|id| *id > 0).ok_or_else(wrong)?;
            if !is_host_port(address.trim()) {
                return Err(wrong());
            }
            if founders.insert(id, address.trim().to_owned()).is_some() {
                return Err(format!("node {id} is there twice"));
            }
        }
        let mut addresses: Vec<&String> = founders.values().collect();
        addresses.sort();
        addresses.dedup();
        if addresses.len() != founders.len() {
            return Err("two nodes have the same address".to_owned());
        }
        if founders.len() > FOUNDERS_MAX {
            return Err(format!("at most {FOUNDERS_MAX} founding nodes; more can join later"));
        }
        Ok(Self(founders))
    }
}

impl From<Founders> for String {
    fn from(founders: Founders) -> Self {
        let part = |(id, address): (u64, String)| format!("{id}={address}");
        founders.0.into_iter().map(part).collect::<Vec<_>>().join(",")
    }
}

/// Namespaces that belong to the node.
pub const RESERVED_NAMESPACES: [&str; 5] = ["_bus_", "_dead_", "_audit", "roll", "xbus"];

/// Longest name of a namespace.
const NAMESPACE_LEN_MAX: usize = 64;

/// The namespaces that clients may use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "NamespacesText")]
pub enum Namespaces {
    /// `*`: any namespace. The first publish creates it.
    Any,
    /// These namespaces, and those that the administration creates; never empty.
    Listed(Vec<String>),
}

/// The written form: one text (`*` or a comma list), or a list.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected \"*\", a comma list or a list of namespaces")]
enum NamespacesText {
    Text(String),
    List(Vec<String>),
}

impl Namespaces {
    fn listed<'a>(names: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut listed: Vec<String> = Vec::new();
        for name in names {
            check_namespace(name)?;
            if listed.iter().any(|other| other == name) {
                return Err(format!("namespace {name} is listed twice"));
            }
            listed.push(name.to_owned());
        }
        if listed.is_empty() {
            return Err("no namespaces provided".to_owned());
        }
        Ok(Self::Listed(listed))
    }
}

fn check_namespace(name: &str) -> Result<(), String> {
    if RESERVED_NAMESPACES.contains(&name) {
        return Err(format!("namespace {name} is reserved"));
    }
    if name == "*" {
        return Err("`*` means any namespace and stands alone, not in a list".to_owned());
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || name.len() > NAMESPACE_LEN_MAX || !name.bytes().all(legal) {
        return Err(format!(
            "`{name}` is not a namespace; a name has 1 to {NAMESPACE_LEN_MAX} letters, digits, `_` or `-`"
        ));
    }
    Ok(())
}

impl FromStr for Namespaces {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "*" => Ok(Self::Any),
            "" => Self::listed(std::iter::empty()),
            list => Self::listed(list.split(',').map(str::trim)),
        }
    }
}

impl TryFrom<NamespacesText> for Namespaces {
    type Error = String;

    fn try_from(text: NamespacesText) -> Result<Self, String> {
        match text {
            NamespacesText::Text(text) => text.parse(),
            NamespacesText::List(names) => match names.as_slice() {
                [any] if any == "*" => Ok(Self::Any),
                names => Self::listed(names.iter().map(String::as_str)),
            },
        }
    }
}

impl Serialize for Namespaces {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str("*"),
            Self::Listed(names) => names.serialize(serializer),
        }
    }
}

/// The format of log lines on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Reads the filter of log lines: levels, and `target=level` pairs, separated by commas.
///
/// # Errors
/// A part is neither. The logger alone would take a misspelled level for the name of a target and write nothing else.
pub fn log_filter(text: &str) -> Result<String, String> {
    const HELP: &str = "write a level (off, error, warn, info, debug, trace) or pairs (info,rollbook=debug)";
    let directives: Vec<&str> = words(text).collect();
    if directives.is_empty() {
        return Err(format!("an empty filter writes nothing; {HELP}"));
    }
    for directive in &directives {
        let is_pair = directive.contains(['=', '[']);
        if !is_pair && directive.parse::<tracing::level_filters::LevelFilter>().is_err() {
            return Err(format!("`{directive}` is not a level; {HELP}"));
        }
    }
    let filter = directives.join(",");
    match tracing_subscriber::EnvFilter::builder().parse(&filter) {
        Ok(_) => Ok(filter),
        Err(error) => Err(format!("{error}; {HELP}")),
    }
}
