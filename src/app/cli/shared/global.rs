//! Options of every command that talks to a node.

use clap::{Args, ValueEnum};

/// Options of every command that talks to a node.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Event log of the node to talk to
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        hide_env_values = true,
        env = "ROLLBOOK_LOG_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:2021"
    )]
    pub log_url: String,
    /// REST and health of the node to talk to
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        hide_env_values = true,
        env = "ROLLBOOK_WEB_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:7440"
    )]
    pub web_url: String,
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
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs: one JSON value
    Json,
}
