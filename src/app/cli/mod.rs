//! The command line: parses the arguments, runs the commands that talk to a node, and turns failures into texts and
//! exit codes. `serve` and `bench` are only parsed here.

pub(crate) mod access;
pub mod args;
pub mod commands;
pub mod shared;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use args::ClientCommand;
use commands::processes::control::Verb;
use shared::error::{AlreadyReported, Usage};
use shared::global::Global;

use crate::app::config::layers::ConfigError;

/// Exit code of wrong usage and wrong configuration.
const EXIT_USAGE: u8 = 2;
/// How long an ending node waits until its last line is written.
const LAST_LINE: Duration = Duration::from_secs(1);

/// Runs a command on a runtime of its own.
///
/// # Errors
///
/// The command failed. The text says what to do; [`exit`] prints it.
pub fn run(global: &Global, command: ClientCommand) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let result = runtime.block_on(dispatch(global, command));
    // A thread may still wait for a line on standard input.
    runtime.shutdown_background();
    result
}

async fn dispatch(global: &Global, command: ClientCommand) -> anyhow::Result<()> {
    match command {
        ClientCommand::Publish(args) => commands::publish::run(global, args).await,
        ClientCommand::Subscribe(args) => commands::subscribe::run(global, args).await,
        ClientCommand::Ack(args) => commands::ack::run(global, args).await,
        ClientCommand::Dump(args) => commands::dump::run(global, args).await,
        ClientCommand::Restore(args) => commands::restore::run(global, args).await,
        ClientCommand::Call(args) => commands::call::run(global, args).await,
        ClientCommand::Namespaces(args) => commands::namespaces::run(global, args).await,
        ClientCommand::Events(args) => commands::book::events::run(global, args).await,
        ClientCommand::Consumers(args) => commands::consumers::run(global, args).await,
        ClientCommand::Schedules(args) => commands::book::schedules::run(global, args).await,
        ClientCommand::DeadLetters(args) => commands::book::dead_letters::run(global, args).await,
        ClientCommand::Delayed(args) => commands::book::delayed::run(global, args).await,
        ClientCommand::Cluster(args) => commands::cluster::run(global, args).await,
        ClientCommand::Account(args) => commands::xbus::account::run(global, args).await,
        ClientCommand::Actor(args) => commands::xbus::actor::run(global, args).await,
        ClientCommand::Pipeline(args) => commands::xbus::pipeline::run(global, args).await,
        ClientCommand::Ps(args) => commands::xbus::ps::run(global, args).await,
        ClientCommand::Start(args) => commands::processes::control::run(global, args, Verb::Start).await,
        ClientCommand::Stop(args) => commands::processes::control::run(global, args, Verb::Stop).await,
        ClientCommand::Restart(args) => commands::processes::control::run(global, args, Verb::Restart).await,
        ClientCommand::Deploy(args) => commands::processes::deploy::run(global, args).await,
        ClientCommand::Envelope(args) => commands::xbus::envelope::run(global, args).await,
        ClientCommand::Emit(args) => commands::xbus::emit::run(global, args).await,
        ClientCommand::Logs(args) => commands::xbus::logs::run(global, args).await,
        ClientCommand::Schema(args) => commands::xbus::schema::run(global, args).await,
        ClientCommand::Login(args) => commands::security::login::login(global, args).await,
        ClientCommand::Logout(args) => commands::security::login::logout(global, args),
        ClientCommand::Context(args) => commands::security::context::run(global, args),
        ClientCommand::Principals(args) => commands::security::principals::run(global, args).await,
        ClientCommand::Roles(args) => commands::security::roles::run(global, args).await,
        ClientCommand::Tokens(args) => commands::security::tokens::run(global, args).await,
        ClientCommand::Passwords(args) => commands::security::passwords::run(global, args).await,
        ClientCommand::Nkeys(args) => commands::security::nkeys::run(global, args).await,
        ClientCommand::Certificates(args) => commands::security::certificates::run(global, args).await,
        ClientCommand::Credentials(args) => commands::security::credentials::run(global, args).await,
        ClientCommand::Issuers(args) => commands::security::issuers::run(global, args).await,
        ClientCommand::Can(args) => commands::security::explain::can(global, args).await,
        ClientCommand::WhoCan(args) => commands::security::explain::who_can(global, args).await,
        ClientCommand::Audit(args) => commands::security::audit::run(global, args).await,
        ClientCommand::Cert(args) => commands::cert::run(global, args),
        ClientCommand::Config(args) => commands::config::run(global, args).await,
        ClientCommand::Health(args) => commands::health::run(global, args).await,
    }
}

/// Builds the error of a wrong command line or configuration.
pub(crate) fn usage(text: String) -> anyhow::Error {
    Usage(text).into()
}

/// Prints a failure to standard error and returns the exit code: 0 done, 1 failed, 2 wrong usage or configuration.
#[must_use]
pub fn exit(result: anyhow::Result<()>) -> ExitCode {
    let ExitReport { code, lines } = ExitReport::of(&result);
    lines.iter().for_each(|line| shared::output::note(line));
    code
}

/// Does the same for a node. The node ends with its exit code even when nobody reads its standard error.
#[must_use]
pub fn exit_of_node(result: anyhow::Result<()>) -> ExitCode {
    let ExitReport { code, lines } = ExitReport::of(&result);
    let (written, writes) = std::sync::mpsc::channel();
    let write = move || {
        lines.iter().for_each(|line| shared::output::note(line));
        // The receiver may be gone, because the process is about to end.
        written.send(()).ok();
    };
    if std::thread::Builder::new().spawn(write).is_ok() {
        writes.recv_timeout(LAST_LINE).ok();
    }
    code
}

/// The exit code of a command, and the lines for standard error.
struct ExitReport {
    code: ExitCode,
    lines: Vec<String>,
}

impl ExitReport {
    fn of(result: &anyhow::Result<()>) -> Self {
        let Err(error) = result else { return Self { code: ExitCode::SUCCESS, lines: Vec::new() } };
        if error.is::<shared::output::Closed>() {
            return Self { code: ExitCode::SUCCESS, lines: Vec::new() };
        }
        if error.is::<AlreadyReported>() {
            return Self { code: ExitCode::FAILURE, lines: Vec::new() };
        }
        if let Some(error) = error.downcast_ref::<ConfigError>() {
            let lines = error.problems.iter().map(|problem| format!("error: {problem}")).collect();
            return Self { code: EXIT_USAGE.into(), lines };
        }
        let code = if error.is::<Usage>() { EXIT_USAGE.into() } else { ExitCode::FAILURE };
        Self { code, lines: vec![format!("error: {}", error_line(error))] }
    }
}

/// The error and its causes in one line. A cause that is part of the error's text is not repeated.
fn error_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !line.ends_with(&cause) {
            line.push_str(if line.is_empty() { "" } else { ": " });
            line.push_str(&cause);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::config::settings::Config;

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::anyhow!("denied").context("open x: denied").context("cannot start");
        assert_eq!(error_line(&error), "cannot start: open x: denied");
        assert_eq!(error_line(&anyhow::anyhow!("denied").context("open x")), "open x: denied");
    }

    #[test]
    fn exit_codes() {
        let code = |error: anyhow::Error| format!("{:?}", exit(Err(error)));
        let expected = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(format!("{:?}", exit(Ok(()))), expected(0));
        assert_eq!(code(shared::output::Closed.into()), expected(0));
        assert_eq!(code(AlreadyReported.into()), expected(1));
        assert_eq!(code(anyhow::anyhow!("no")), expected(1));
        assert_eq!(code(anyhow::Error::new(Usage("no".into())).context("more")), expected(2));
        let unknown = [("node.x", toml::Value::Integer(1))];
        assert_eq!(code(Config::load(None, std::iter::empty(), &unknown).unwrap_err().into()), expected(2));
    }
}
