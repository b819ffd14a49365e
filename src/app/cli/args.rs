//! The command line: the list of all commands.

use clap::{Parser, Subcommand};

use super::commands::book::{dead_letters, delayed, events, schedules};
use super::commands::processes::{control, deploy};
use super::commands::security::{
    audit, certificates, context, credentials, explain, issuers, login, nkeys, passwords, principals, roles, tokens,
};
use super::commands::serve::ServeArgs;
use super::commands::xbus::{account, actor, emit, envelope, logs, pipeline, ps, schema};
use super::commands::{
    ack, call, cert, cluster, config, consumers, dump, health, namespaces, publish, restore, subscribe,
};
use super::shared::global::Global;
use crate::app::bench::BenchArgs;
use crate::app::dock::command::DockArgs;

const EXAMPLES: &str = "\
Examples:
  rollbook serve
  rollbook publish app.orders.created '{\"order\":17}'
  rollbook subscribe 'app.>' --start oldest
  rollbook health --wait 10s

Exit codes: 0 done, 1 failed, 2 bad usage or configuration.";

/// A clustered service bus: it takes the roll and keeps the book.
#[derive(Debug, Parser)]
#[command(name = "rollbook", version, after_help = EXAMPLES)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `rollbook` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node
    Serve(ServeArgs),
    /// Run processes on this machine
    Dock(DockArgs),
    /// A command that talks to a running node, or to none.
    #[command(flatten)]
    Client(ClientCommand),
    /// Measure a node
    Bench(BenchArgs),
}

/// The commands that [`super::run`] carries out.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Publish an event, or many
    #[command(visible_alias = "pub")]
    Publish(publish::PublishArgs),
    /// Print events as they come
    #[command(visible_alias = "sub")]
    Subscribe(subscribe::SubscribeArgs),
    /// Say what has become of events of a consumer: processed, or not
    Ack(ack::AckArgs),
    /// Write all events of a namespace as lines of JSON
    Dump(dump::DumpArgs),
    /// Publish the events of a dump again, with their ids and times
    Restore(restore::RestoreArgs),
    /// Ask a service for something and print its answer
    Call(call::CallArgs),
    /// List, create and delete namespaces, set what they keep
    #[command(visible_alias = "ns")]
    Namespaces(namespaces::NamespacesArgs),
    /// Look up stored events, without following the log
    Events(events::EventsArgs),
    /// List and delete durable consumers
    Consumers(consumers::ConsumersArgs),
    /// Publish events at their times: show, set, hold and delete schedules
    Schedules(schedules::SchedulesArgs),
    /// Show dead letters, publish their events again, put them away
    DeadLetters(dead_letters::DeadLettersArgs),
    /// List and cancel events that wait for their time
    Delayed(delayed::DelayedArgs),
    /// Show the nodes of the cluster, add, promote and remove them
    Cluster(cluster::ClusterArgs),
    /// Show the accounts of Xbus, accept them and shut them out
    Account(account::AccountArgs),
    /// Show the actors of Xbus, accept them and set what they have
    Actor(actor::ActorArgs),
    /// Save pipelines of Xbus, make them active, show and delete them
    Pipeline(pipeline::PipelineArgs),
    /// Show processes on docks and of Xbus; hold, end, replay those of Xbus
    Ps(ps::PsArgs),
    /// Start a process on the docks that have it
    Start(control::ControlArgs),
    /// Stop a process on all docks
    Stop(control::ControlArgs),
    /// Restart a process on all docks
    Restart(control::ControlArgs),
    /// Deploy a folder as a process on docks
    Deploy(deploy::DeployArgs),
    /// Show an envelope of Xbus, remove old ones
    Envelope(envelope::EnvelopeArgs),
    /// Send an envelope in the name of an actor of Xbus
    Emit(emit::EmitArgs),
    /// Follow processes on docks; show what actors of Xbus said
    Logs(logs::LogsArgs),
    /// Set what items of events of Xbus have to look like
    Schema(schema::SchemaArgs),
    /// Check a token, or a user and password, and save it as a context
    Login(login::LoginArgs),
    /// Forget the token of a context
    Logout(login::LogoutArgs),
    /// List, choose, show and delete the saved contexts
    Context(context::ContextArgs),
    /// Show and change who there is, with their roles and rights
    Principals(principals::PrincipalsArgs),
    /// Show and change named lists of rights
    Roles(roles::RolesArgs),
    /// Make tokens for principals, and show which there are
    Tokens(tokens::TokensArgs),
    /// Set the password of a user
    Passwords(passwords::PasswordsArgs),
    /// Let clients with a certificate be a principal
    Certificates(certificates::CertificatesArgs),
    /// Let clients of NATS that sign with a key be a principal
    Nkeys(nkeys::NkeysArgs),
    /// Show the credentials of a principal, and revoke them
    Credentials(credentials::CredentialsArgs),
    /// Show and change whose JWTs are trusted
    Issuers(issuers::IssuersArgs),
    /// Ask whether a principal may do something, and which rule says so
    Can(explain::CanArgs),
    /// Show who may do something
    WhoCan(explain::WhoCanArgs),
    /// Show who changed what, and what was refused to whom
    Audit(audit::AuditArgs),
    /// Make certificates for the connections between nodes
    Cert(cert::CertArgs),
    /// Check a configuration file, or show what is in force
    Config(config::ConfigArgs),
    /// Ask whether the node is ready
    Health(health::HealthArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Each help text that is shown has an example of that very command.
    #[test]
    fn every_command_shows_an_example_of_itself() {
        fn visit(command: &clap::Command, path: &str) -> usize {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:\n  "), "{path} has no examples");
            assert!(help.lines().any(|line| line.starts_with("  ") && line.contains(path)), "{path}: not in {help}");
            let shown = command.get_subcommands().filter(|child| !child.is_hide_set());
            1 + shown.map(|child| visit(child, &format!("{path} {}", child.get_name()))).sum::<usize>()
        }
        assert!(visit(&Cli::command(), "rollbook") > 30);
    }

    /// Each example line of each help text is a command line that parses.
    #[test]
    fn examples_parse() {
        fn visit(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter_map(|line| line.strip_prefix("  ")) {
                let Some(at) = line.find("rollbook ") else { panic!("no command in: {line}") };
                let words = split_words(line.split_at(at).1);
                assert!(Cli::try_parse_from(&words).is_ok(), "{line}: {}", Cli::try_parse_from(&words).unwrap_err());
            }
            command.get_subcommands().for_each(visit);
        }
        visit(&Cli::command());
    }

    #[test]
    fn short_names_help_and_words_that_are_nearly_right_are_understood() {
        let refusal = |line: &str| Cli::try_parse_from(line.split(' ')).unwrap_err();
        for line in ["rollbook pub app.x 1", "rollbook sub app.>", "rollbook ns list", "rollbook ns remove app"] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for (line, part) in [
            ("rollbook help", "Usage: rollbook"),
            ("rollbook help publish", "Usage: rollbook publish"),
            ("rollbook help cluster join", "Usage: rollbook cluster join"),
            ("rollbook cluster help promote", "Usage: rollbook cluster promote"),
        ] {
            let shown = refusal(line);
            assert_eq!(shown.kind(), clap::error::ErrorKind::DisplayHelp, "{line}: {shown}");
            assert!(shown.to_string().contains(part), "{line}: {shown}");
        }
        for (line, near) in [
            ("rollbook publsh app.x 1", "'publish'"),
            ("rollbook subscibe app.x", "'subscribe'"),
            ("rollbook cluster stats", "'status'"),
            ("rollbook namespaces delte x", "'delete'"),
            ("rollbook subscribe app.x --redelivry 1s", "'--redelivery'"),
            ("rollbook serve --name-spaces app", "'--namespaces'"),
        ] {
            assert!(refusal(line).to_string().contains(near), "{line}: {}", refusal(line));
        }
    }

    /// Words of a shell line up to a pipe or a redirection; single quotes only.
    fn split_words(line: &str) -> Vec<String> {
        let (mut words, mut quoted) = (vec![String::new()], false);
        for c in line.chars() {
            match c {
                '\'' => quoted = !quoted,
                '|' | '<' | '>' if !quoted => break,
                ' ' if !quoted => words.push(String::new()),
                c => words.last_mut().unwrap().push(c),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }
}
