//! The audit: each administrative change with who had it done, in the same entry, and what was refused to whom.

use alloc::format;
use alloc::string::{String, ToString};
use serde::Serialize;

use crate::command::{Command, Reply};
use crate::dock::change as dock;
use crate::limits;
use crate::machine::Machine;
use crate::machine::effects::Effects;
use crate::schedule::change as schedule;
use crate::security::actor::{ACTOR_TEXT_BYTES_MAX, Actor};
use crate::security::change::{AuditLine, Audited, Change};
use crate::security::model::Credential;
use crate::subjects::subject::Namespace;
use crate::xbus::change as xbus;
use crate::xbus::id::Id;
use crate::xbus::process::event::Event;

/// A command that goes into the audit.
pub(in crate::machine) struct Noted {
    actor: Actor,
    /// The subject behind the namespace: area and change.
    what: &'static str,
    target: String,
    /// The revision before the change, where there are revisions.
    before: Option<u64>,
}

/// Payload of an event of the audit.
#[derive(Serialize)]
struct Line<'a> {
    principal: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    credential: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    address: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    door: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    request: &'a str,
    target: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision_after: Option<u64>,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    at: String,
}

/// At most [`ACTOR_TEXT_BYTES_MAX`] bytes of a text.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(ACTOR_TEXT_BYTES_MAX)).unwrap_or_default()
}

/// What a command is called in the audit, and what it is about. `None`: it is not an administrative change.
fn describe(machine: &Machine, command: &Command) -> Option<(&'static str, String)> {
    let of = |of: &str, name: &str| format!("{of}/{name}");
    Some(match command {
        Command::NamespaceCreate(create) => ("namespace.create", create.name.clone()),
        Command::NamespaceRetain(retain) => ("namespace.retention", retain.name.clone()),
        Command::NamespaceDelete(delete) => ("namespace.delete", delete.name.clone()),
        Command::Trim(trim) => ("namespace.trim", trim.name.clone()),
        Command::ConsumerOpen(open) => ("consumer.create", of(&open.namespace, &open.consumer.name)),
        Command::ConsumerSet(set) => ("consumer.set", of(&set.namespace, &set.name)),
        Command::ConsumerDelete(delete) => ("consumer.delete", of(&delete.namespace, &delete.name)),
        Command::NodeAllocate(allocate) => ("cluster.add", allocate.address.clone()),
        Command::NodeRemove(remove) => ("cluster.remove", remove.id.to_string()),
        Command::ClockSet(set) => ("cluster.clock", set.millis.to_string()),
        Command::ConfigSet(_) => ("config.set", "config".into()),
        Command::InstanceMark(mark) => ("service.mark", of(&mark.service, &mark.instance)),
        Command::ServiceUpdate(update) => ("service.update", update.id.clone()),
        Command::ServiceRemove(remove) => ("service.remove", remove.id.clone()),
        Command::Security(change) => describe_security(change.change.as_ref()?)?,
        Command::Xbus(change) => describe_xbus(change.change.as_ref()?)?,
        Command::DelayedCancel(cancel) => ("delayed.cancel", of(&cancel.name, &cancel.id().to_string())),
        Command::Dock(change) => describe_dock(machine, change.change.as_ref()?)?,
        Command::Schedule(change) => match change.change.as_ref()? {
            schedule::Change::Set(set) => ("schedule.set", cut(&set.name).into()),
            schedule::Change::Delete(name) => ("schedule.delete", cut(name).into()),
            schedule::Change::Skip(_) => return None,
        },
        _ => return None,
    })
}

fn describe_security(change: &Change) -> Option<(&'static str, String)> {
    Some(match change {
        Change::PrincipalSet(row) => ("security.principal_set", row.principal.clone()),
        Change::PrincipalDelete(name) => ("security.principal_delete", name.clone()),
        Change::RoleSet(role) => ("security.role_set", role.name.clone()),
        Change::RoleDelete(name) => ("security.role_delete", name.clone()),
        Change::CredentialAdd(credential) => ("security.credential_add", of_credential(credential)),
        Change::CredentialDelete(id) => ("security.credential_delete", id.clone()),
        Change::IssuerSet(issuer) => ("security.issuer_set", issuer.name.clone()),
        Change::IssuerDelete(name) => ("security.issuer_delete", name.clone()),
        Change::Bootstrap(bootstrap) => ("security.bootstrap", bootstrap.id.clone()),
        Change::CredentialsUsed(_) | Change::Audited(_) => return None,
    })
}

/// What operators do. What programs do all the time, registrations included, has no line.
fn describe_xbus(change: &xbus::Change) -> Option<(&'static str, String)> {
    use xbus::Change as Of;
    let id = |id: &[u8]| Id::from_slice(id).map_or_else(|_| String::new(), |id| id.to_string());
    Some(match change {
        Of::AccountAccept(accept) => ("xbus.account_accept", id(&accept.id)),
        Of::AccountEnable(enable) => ("xbus.account_enable", id(&enable.id)),
        Of::AccountDelete(of) => ("xbus.account_delete", id(of)),
        Of::AccountResetCertificate(of) => ("xbus.account_reset", id(of)),
        Of::AccountApiKey(key) => ("xbus.account_api_key", id(&key.id)),
        Of::ActorSet(set) => ("xbus.actor_set", set.actor.name.clone()),
        Of::ActorStatus(set) => ("xbus.actor_status", id(&set.id)),
        Of::ActorDelete(of) => ("xbus.actor_delete", id(of)),
        Of::PipelineSave(save) => ("xbus.pipeline_save", format!("{}/{}", save.name, save.version)),
        Of::PipelineStatus(set) => ("xbus.pipeline_status", id(&set.id)),
        Of::PipelineDelete(of) => ("xbus.pipeline_delete", id(of)),
        Of::EnvelopesPurge(_) => ("xbus.envelopes_purge", "envelopes".into()),
        Of::ProcessesPurge(ids) => ("xbus.processes_purge", ids.ids.len().to_string()),
        Of::LogsPurge(_) => ("xbus.logs_purge", "logs".into()),
        Of::Replay(replay) => ("xbus.process_replay", id(&replay.process)),
        Of::SchemaSet(set) => ("xbus.schema_set", set.event_type.clone()),
        Of::SchemaDelete(event_type) => ("xbus.schema_delete", event_type.clone()),
        Of::Attention(attention) => ("xbus.attention", id(&attention.process)),
        Of::Process(change) => match change.event.event.as_ref()? {
            Event::Pause(_) => ("xbus.process_pause", id(&change.id)),
            Event::Resume(_) => ("xbus.process_resume", id(&change.id)),
            Event::Cancel(_) => ("xbus.process_cancel", id(&change.id)),
            _ => return None,
        },
        _ => return None,
    })
}

/// What operators do to definitions. Each chunk of a build has no line, nor has what happens to processes.
fn describe_dock(machine: &Machine, change: &dock::Change) -> Option<(&'static str, String)> {
    use dock::Change as Of;
    Some(match change {
        Of::DefinitionSet(set) => ("dock.definition_set", cut(&set.id).into()),
        Of::DefinitionRemove(id) => ("dock.definition_remove", cut(id).into()),
        Of::BuildFinish(finish) => {
            let id = Id::from_slice(&finish.build).ok()?;
            let definition = machine.docks().build(&id).map_or("", |build| &build.definition);
            ("dock.build_finish", format!("{definition}/{id}"))
        }
        Of::BuildBegin(_) | Of::BuildChunk(_) | Of::BuildAbandon(_) | Of::Events(_) => return None,
    })
}

fn of_credential(credential: &Credential) -> String {
    format!("{} {}", credential.principal, credential.id)
}

impl Noted {
    /// Notes a command before it is applied.
    pub(in crate::machine) fn begin(machine: &Machine, command: &Command, actor: Actor) -> Option<Self> {
        let (what, target) = describe(machine, command)?;
        Some(Self { actor, what, target, before: machine.revision_of(what) })
    }
}

impl Machine {
    /// The revision of what an audited change is about, where there are revisions.
    fn revision_of(&self, what: &str) -> Option<u64> {
        match what.split_once('.')?.0 {
            "config" => Some(self.config().revision),
            "security" => Some(self.security().revision()),
            _ => None,
        }
    }

    /// Writes a command that was applied into the audit.
    pub(in crate::machine) fn append_audit(&mut self, noted: Noted, reply: &Reply, effects: &mut Effects<'_>) {
        let Noted { actor, what, target, before } = noted;
        let line = Line {
            target: &target,
            revision_before: before,
            revision_after: self.revision_of(what),
            outcome: if reply.is_ok() { "done" } else { "refused" },
            reason: reply.as_ref().err().map(ToString::to_string),
            ..Line::of(&actor, self.time_text())
        };
        self.append_made_event(Namespace::AUDIT, what, &line, effects);
    }

    /// Writes lines into the audit that belong to no other command.
    pub(super) fn append_lines(&mut self, audited: &Audited, effects: &mut Effects<'_>) {
        for AuditLine { actor, what, target, outcome, count } in audited.lines.iter().take(limits::AUDIT_LINES_MAX) {
            let actor = actor.clone().unwrap_or_default();
            let line = Line {
                target: cut(target),
                outcome: cut(outcome),
                count: Some(*count).filter(|count| *count > 1),
                ..Line::of(&actor, self.time_text())
            };
            // A verb has a colon, which no subject may have.
            let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' };
            let what = cut(what).chars().map(plain).collect::<String>();
            self.append_made_event(Namespace::AUDIT, &what, &line, effects);
        }
    }
}

impl<'a> Line<'a> {
    fn of(actor: &'a Actor, at: String) -> Self {
        Self {
            principal: cut(&actor.principal),
            credential: cut(&actor.credential),
            address: cut(&actor.address),
            door: cut(&actor.door),
            request: cut(&actor.request),
            target: "",
            revision_before: None,
            revision_after: None,
            outcome: "",
            reason: None,
            count: None,
            at,
        }
    }
}
