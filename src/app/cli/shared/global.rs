//! Options of every command that talks to a node.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::app::cli::access::environment::Environment;

/// Options of every command that talks to a node. Where an option is not given, the environment, the context and the
/// default are asked in this order.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// Event log of the node to talk to [default: that of the context, else http://127.0.0.1:2021]
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        hide_env_values = true,
        env = "ROLLBOOK_LOG_URL",
        value_name = "URL"
    )]
    pub log_url: Option<String>,
    /// REST and health of the node to talk to [default: that of the context, else http://127.0.0.1:7440]
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        hide_env_values = true,
        env = "ROLLBOOK_WEB_URL",
        value_name = "URL"
    )]
    pub web_url: Option<String>,
    /// Use this saved context instead of the current one
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        hide_env_values = true,
        env = "ROLLBOOK_CONTEXT",
        value_name = "NAME"
    )]
    pub context: Option<String>,
    /// Read the token from this file [default: ROLLBOOK_TOKEN, else the token of the context]
    #[arg(long, global = true, help_heading = "Global options", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Trust the CAs in this PEM file instead of those of the system
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        hide_env_values = true,
        env = "ROLLBOOK_CA",
        value_name = "FILE"
    )]
    pub ca: Option<PathBuf>,
    /// Present the client certificate in this PEM file
    #[arg(long, global = true, help_heading = "Global options", value_name = "FILE")]
    pub certificate: Option<PathBuf>,
    /// Key of that certificate [default: the key in the same file]
    #[arg(long, global = true, help_heading = "Global options", value_name = "FILE")]
    pub certificate_key: Option<PathBuf>,
    /// How results are written: for people, or as one JSON value
    #[arg(
        short,
        long,
        global = true,
        help_heading = "Global options",
        value_name = "table|json",
        // Told by the name of the value, so that a help text has one line for each option.
        hide_possible_values = true,
        value_enum,
        default_value_t = Output::Table
    )]
    pub output: Output,
    /// What comes from the environment without a flag.
    #[arg(skip = Environment::of_process())]
    pub(crate) environment: Environment,
}

/// How results are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Table,
    /// For programs: one JSON value
    Json,
}
