//! Services and their instances: the part of the roll that describes clients.
//!
//! A service is a name that callers address. An instance is one connected client that answers under that name. Requests
//! go to instances; a service without instances stays on the roll until it is removed.

use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Refusal;
use crate::limits;
use crate::node::Owner;

/// The replicated state of a service. The row exists from the first registration until the removal, also while no
/// instance is connected.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Service {
    /// Id of the service, unique in the cluster.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Name for people. A registration without a name keeps the present name; the first name is the id.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Version that the newest registration gave.
    #[prost(string, tag = "3")]
    pub version: String,
    /// Kind of program, any word. A registration without a kind keeps the present kind.
    #[prost(string, tag = "4")]
    pub kind: String,
    /// A JSON object that the operator sets; empty when there is none. Registrations never change it.
    #[prost(string, tag = "5")]
    pub metadata: String,
    /// Time of the first registration, milliseconds since 1970.
    #[prost(uint64, tag = "6")]
    pub registered_at: u64,
    /// Counts the changes of name, version, kind and metadata, so that an operator can update the metadata only if
    /// nothing changed meanwhile.
    #[prost(uint64, tag = "7")]
    pub revision: u64,
    /// Whether the newest of the events `online` and `offline` of the service was `online`. While the grace time runs,
    /// the service is online without instances.
    #[prost(bool, tag = "8")]
    pub online: bool,
    /// When the service goes offline unless an instance connects before, milliseconds since 1970; 0 while the service
    /// has instances or is offline.
    #[prost(uint64, tag = "9")]
    pub offline_at: u64,
    /// The last instance that left, kept while the grace time runs, because the event `offline` names this instance.
    #[prost(message, optional, tag = "10")]
    pub leaving: Option<InstanceRef>,
}

/// The replicated state of an instance: one connected client of a service.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Instance {
    /// Id of the instance, unique within its service.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Id of its service.
    #[prost(string, tag = "2")]
    pub service: String,
    /// The connection of the client. A newer connection of the same instance replaces the older one, and this field
    /// tells them apart.
    #[prost(message, required, tag = "3")]
    pub connection: Connection,
    /// The door (protocol) through which the client is connected.
    #[prost(string, tag = "4")]
    pub door: String,
    /// Port on which the client says that it listens; 0 when the client says none.
    #[prost(uint32, tag = "5")]
    pub port: u32,
    /// Version of the program of this instance.
    #[prost(string, tag = "6")]
    pub version: String,
    /// The capabilities that callers can request of the instance.
    #[prost(message, repeated, tag = "7")]
    pub capabilities: Vec<Capability>,
    /// When the instance connected first, milliseconds since 1970. The rules set the time of the log; a replacement
    /// keeps the time.
    #[prost(uint64, tag = "8")]
    pub connected_at: u64,
    /// Whether the instance is draining: it finishes its requests and gets no new ones.
    #[prost(bool, tag = "9")]
    pub draining: bool,
    /// Whether heartbeats of the instance are missing: it gets no new requests.
    #[prost(bool, tag = "10")]
    pub unhealthy: bool,
    /// Grace time in milliseconds: when this is the last instance that leaves, the service stays online for this time.
    /// The value is replicated with the instance, so that the rules need no setting of a node.
    #[prost(uint64, tag = "11")]
    pub grace_ms: u64,
    /// A JSON object of the client's own; empty when the client gives none.
    #[prost(string, tag = "12")]
    pub metadata: String,
}

/// Identifies one connection of a client among all connections that ever were: an end of an old connection that arrives
/// late cannot remove the instance of a newer one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Message)]
pub struct Connection {
    /// The life of the node that holds the connection.
    #[prost(message, required, tag = "1")]
    pub owner: Owner,
    /// Number of the connection among the connections of that life.
    #[prost(uint64, tag = "2")]
    pub serial: u64,
}

/// A named ability of an instance that callers address.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Capability {
    /// The name by which callers request the capability.
    #[prost(string, tag = "1")]
    pub name: String,
    /// A description for people.
    #[prost(string, tag = "2")]
    pub description: String,
    /// The actions that callers may request; empty when every action is allowed.
    #[prost(string, repeated, tag = "3")]
    pub actions: Vec<String>,
}

/// The part of an instance that lifecycle events show. A copy, because events also describe an instance whose row is
/// deleted.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct InstanceRef {
    /// Id of the instance, unique within its service.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Number of the node that holds or held the connection.
    #[prost(uint64, tag = "2")]
    pub node: u64,
    /// The door through which the client is or was connected.
    #[prost(string, tag = "3")]
    pub door: String,
    /// Version of the program of the instance.
    #[prost(string, tag = "4")]
    pub version: String,
    /// The capabilities of the instance, without descriptions.
    #[prost(message, repeated, tag = "5")]
    pub capabilities: Vec<Capability>,
}

/// Registers an instance of a service, or updates its registration: the body of
/// [`crate::command::Command::InstanceRegister`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct InstanceRegister {
    /// The service as the client describes it. The rules read id, name, version and kind, and ignore the other fields.
    #[prost(message, required, tag = "1")]
    pub service: Service,
    /// The instance as the client describes it.
    #[prost(message, required, tag = "2")]
    pub instance: Instance,
}

/// Removes instances whose connections have ended: the body of [`crate::command::Command::InstanceLeave`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct InstanceLeave {
    /// The connections that ended. An instance that has a newer connection by now is left out.
    #[prost(message, repeated, tag = "1")]
    pub leaving: Vec<Leaving>,
}

/// One instance whose connection has ended.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Leaving {
    /// Id of the service.
    #[prost(string, tag = "1")]
    pub service: String,
    /// Id of the instance.
    #[prost(string, tag = "2")]
    pub instance: String,
    /// The connection that ended.
    #[prost(message, required, tag = "3")]
    pub connection: Connection,
}

/// Changes the state of instances: the body of [`crate::command::Command::InstanceMark`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct InstanceMark {
    /// Id of the service.
    #[prost(string, tag = "1")]
    pub service: String,
    /// Id of the instance; empty for all instances of the service.
    #[prost(string, tag = "2")]
    pub instance: String,
    /// When set, the instances begin (`true`) or end (`false`) to drain.
    #[prost(bool, optional, tag = "3")]
    pub draining: Option<bool>,
    /// When set, heartbeats of the instances are missing (`true`) or have returned (`false`).
    #[prost(bool, optional, tag = "4")]
    pub unhealthy: Option<bool>,
    /// When set, only an instance with this connection is changed.
    #[prost(message, optional, tag = "5")]
    pub connection: Option<Connection>,
}

/// Replaces the operator's metadata of a service: the body of [`crate::command::Command::ServiceUpdate`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ServiceUpdate {
    /// Id of the service.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The new metadata, a JSON object.
    #[prost(string, tag = "2")]
    pub metadata: String,
    /// When set, the command applies only if this is the present [`Service::revision`].
    #[prost(uint64, optional, tag = "3")]
    pub if_revision: Option<u64>,
}

/// Removes a service and all its instances: the body of [`crate::command::Command::ServiceRemove`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ServiceRemove {
    /// Id of the service.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// Declares services offline whose grace time has ended: the body of [`crate::command::Command::ServiceExpire`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ServiceExpire {
    /// Ids of the services that are due. A service that is not due by the time of the log is left out.
    #[prost(string, repeated, tag = "1")]
    pub ids: Vec<String>,
}

/// The result of a registration.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Registered {
    /// The instance after the registration.
    #[prost(message, required, tag = "1")]
    pub instance: Instance,
    /// The connection that the registration replaced. The node that holds it closes it.
    #[prost(message, optional, tag = "2")]
    pub replaced: Option<Connection>,
}

/// The result of [`ServiceRemove`]: removed instances, whose connections their nodes now close.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Removed {
    /// The removed instances in the order of their ids.
    #[prost(message, repeated, tag = "1")]
    pub instances: Vec<Instance>,
    /// Whether instances are left: the proposer proposes the same command again.
    #[prost(bool, tag = "2")]
    pub more: bool,
}

impl Capability {
    /// Whether callers may request this action.
    #[must_use]
    pub fn offers(&self, action: &str) -> bool {
        self.actions.is_empty() || self.actions.iter().any(|one| one == action)
    }
}

impl Instance {
    /// The part of the instance that lifecycle events show.
    #[must_use]
    pub fn reference(&self) -> InstanceRef {
        let offered = |one: &Capability| Capability { description: String::new(), ..one.clone() };
        InstanceRef {
            id: self.id.clone(),
            node: self.connection.owner.node,
            door: self.door.clone(),
            version: self.version.clone(),
            capabilities: self.capabilities.iter().map(offered).collect(),
        }
    }

    /// Whether new requests may go to the instance.
    #[must_use]
    pub const fn is_available(&self) -> bool {
        !self.draining && !self.unhealthy
    }

    /// The state of the instance as one word: `available`, `draining` or `unhealthy`.
    #[must_use]
    pub const fn state(&self) -> &'static str {
        match (self.unhealthy, self.draining) {
            (true, _) => "unhealthy",
            (false, true) => "draining",
            (false, false) => "available",
        }
    }

    /// The capability of that name.
    #[must_use]
    pub fn capability(&self, name: &str) -> Option<&Capability> {
        self.capabilities.iter().find(|one| one.name == name)
    }

    /// Checks that the texts and numbers of the client are within their limits.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] names the field.
    pub fn check(&self) -> Result<(), Refusal> {
        check_name("instance id", &self.id)?;
        check_text("version", &self.version, limits::VERSION_BYTES_MAX)?;
        check_name("door", &self.door)?;
        check_metadata(&self.metadata)?;
        if self.port > u32::from(u16::MAX) {
            return Err(malformed("port: 0 to 65535"));
        }
        if self.capabilities.len() > limits::CAPABILITIES_MAX {
            return Err(malformed("too many capabilities"));
        }
        let mut names = alloc::collections::BTreeSet::new();
        for capability in &self.capabilities {
            check_name("capability", &capability.name)?;
            check_text("description of a capability", &capability.description, limits::TEXT_BYTES_MAX)?;
            if !names.insert(capability.name.as_str()) {
                return Err(malformed("a capability is named twice"));
            }
            if capability.actions.len() > limits::ACTIONS_MAX {
                return Err(malformed("too many actions"));
            }
            capability.actions.iter().try_for_each(|action| check_name("action", action))?;
        }
        Ok(())
    }
}

impl Service {
    /// Checks that the texts of the client are within their limits.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] names the field.
    pub fn check(&self) -> Result<(), Refusal> {
        check_name("service id", &self.id)?;
        check_text("name", &self.name, limits::TEXT_BYTES_MAX)?;
        check_text("version", &self.version, limits::VERSION_BYTES_MAX)?;
        check_text("type", &self.kind, limits::VERSION_BYTES_MAX)?;
        check_metadata(&self.metadata)
    }
}

/// Checks the metadata of a service or instance: a JSON object, or empty.
pub(crate) fn check_metadata(metadata: &str) -> Result<(), Refusal> {
    if metadata.len() > limits::METADATA_BYTES_MAX {
        return Err(Refusal::Malformed(alloc::format!("metadata: at most {} bytes", limits::METADATA_BYTES_MAX)));
    }
    let object = serde_json::from_str::<&serde_json::value::RawValue>(metadata);
    if metadata.is_empty() || object.is_ok_and(|object| object.get().starts_with('{')) {
        return Ok(());
    }
    Err(malformed("metadata: expected a JSON object"))
}

fn malformed(detail: &str) -> Refusal {
    Refusal::Malformed(detail.into())
}

/// Checks a name that callers use: 1 to [`limits::NAME_BYTES_MAX`] bytes, no control characters, no blanks at the ends.
fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    if !(1..=limits::NAME_BYTES_MAX).contains(&name.len()) {
        return Err(Refusal::Malformed(alloc::format!("{what}: 1 to {} bytes", limits::NAME_BYTES_MAX)));
    }
    if name.chars().any(char::is_control) || name.trim() != name {
        return Err(Refusal::Malformed(alloc::format!("{what}: no control characters, no blanks at its ends")));
    }
    Ok(())
}

/// Checks a text for people: at most `bytes_max` bytes, no control characters except line feeds and tabs.
fn check_text(what: &str, text: &str, bytes_max: usize) -> Result<(), Refusal> {
    if text.len() > bytes_max {
        return Err(Refusal::Malformed(alloc::format!("{what}: at most {bytes_max} bytes")));
    }
    if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Err(Refusal::Malformed(alloc::format!("{what}: no control characters")));
    }
    Ok(())
}
