//! The program: its command line, and the process and what is around it.

/// The command line: publish, subscribe, dump, restore, namespaces, config, health.
mod cli;
/// Who the user is: login, contexts, tokens, TLS.
mod login;
/// Who may do what: principals, roles, credentials, issuers, the audit.
mod security;
/// Streams that are closed or full, signals, a limit of open files.
mod streams_and_signals;
