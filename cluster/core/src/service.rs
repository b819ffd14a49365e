//! Services and their instances: the part of the roll that clients are.

use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Refusal;
use crate::limits;
use crate::node::Owner;

/// A named thing that answers. It exists from its first registration until it is removed, also while no
/// instance of it is connected.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Service {
    /// Unique in the cluster.
    #[prost(string, tag = "1")]
    pub id: String,
    /// For people. A registration that says none leaves it as it is; at first it is the id.
    #[prost(string, tag = "2")]
    pub name: String,
    /// What its newest registration said.
    #[prost(string, tag = "3")]
    pub version: String,
    /// What kind of program it is; any word. A registration that says none leaves it as it is.
    #[prost(string, tag = "4")]
    pub kind: String,
    /// A JSON object that belongs to the operator; empty when there is none.
    #[prost(string, tag = "5")]
    pub metadata: String,
    /// When it was registered first, milliseconds since 1970.
    #[prost(uint64, tag = "6")]
    pub registered_at: u64,
    /// Counts the changes of this record.
    #[prost(uint64, tag = "7")]
    pub revision: u64,
    /// The cluster was told that it is online, and not yet that it is offline.
    #[prost(bool, tag = "8")]
    pub online: bool,
    /// Its last instance is gone, and the cluster is told at this time unless one comes back; 0 otherwise.
    #[prost(uint64, tag = "9")]
    pub offline_at: u64,
    /// The instance that left last while the service is on its way to offline.
    #[prost(message, optional, tag = "10")]
    pub leaving: Option<InstanceRef>,
}

/// One connected copy of a service.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Instance {
    /// Unique within its service.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its service.
    #[prost(string, tag = "2")]
    pub service: String,
    /// The connection that it is.
    #[prost(message, required, tag = "3")]
    pub connection: Connection,
    /// The door it came through.
    #[prost(string, tag = "4")]
    pub door: String,
    /// Port that it says it listens on; 0 when it says none.
    #[prost(uint32, tag = "5")]
    pub port: u32,
    /// Version of this copy.
    #[prost(string, tag = "6")]
    pub version: String,
    /// What it can be asked for.
    #[prost(message, repeated, tag = "7")]
    pub capabilities: Vec<Capability>,
    /// When it came, milliseconds since 1970. Set by the rules.
    #[prost(uint64, tag = "8")]
    pub connected_at: u64,
    /// It finishes what it has and gets nothing new.
    #[prost(bool, tag = "9")]
    pub draining: bool,
    /// Its heartbeats are missing.
    #[prost(bool, tag = "10")]
    pub unhealthy: bool,
    /// How long after it left its service stays online when it was the last, in milliseconds.
    #[prost(uint64, tag = "11")]
    pub grace_ms: u64,
    /// A JSON object that it says of itself; empty when it says none.
    #[prost(string, tag = "12")]
    pub metadata: String,
}

/// One connection of a client, told apart from all others there ever were.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Message)]
pub struct Connection {
    /// The life of the node that holds it.
    #[prost(message, required, tag = "1")]
    pub owner: Owner,
    /// Its number among the connections of that life.
    #[prost(uint64, tag = "2")]
    pub serial: u64,
}

/// A named ability that callers address.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Capability {
    /// What callers name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// For people.
    #[prost(string, tag = "2")]
    pub description: String,
    /// What can be done with it; empty when anything can.
    #[prost(string, repeated, tag = "3")]
    pub actions: Vec<String>,
}

/// Which instance, where it is or was, and what it offers: it is told of when nothing else of it is left.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct InstanceRef {
    /// Unique within its service.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its node.
    #[prost(uint64, tag = "2")]
    pub node: u64,
    /// Its door.
    #[prost(string, tag = "3")]
    pub door: String,
    /// Its version.
    #[prost(string, tag = "4")]
    pub version: String,
    /// What it can or could be asked for, without descriptions.
    #[prost(message, repeated, tag = "5")]
    pub capabilities: Vec<Capability>,
}

/// An instance of a service comes, comes back, or says something new about itself.
/// See [`crate::command::Command::InstanceRegister`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct InstanceRegister {
    /// What it says of its service: id, name, version and kind count.
    #[prost(message, required, tag = "1")]
    pub service: Service,
    /// What it says of itself.
    #[prost(message, required, tag = "2")]
    pub instance: Instance,
}

/// Instances are gone. See [`crate::command::Command::InstanceLeave`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct InstanceLeave {
    /// The connections that ended; those that others have replaced are passed by.
    #[prost(message, repeated, tag = "1")]
    pub leaving: Vec<Leaving>,
}

/// One instance that is gone.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Leaving {
    /// Its service.
    #[prost(string, tag = "1")]
    pub service: String,
    /// Its id.
    #[prost(string, tag = "2")]
    pub instance: String,
    /// The connection that it was.
    #[prost(message, required, tag = "3")]
    pub connection: Connection,
}

/// What is known of an instance changes. See [`crate::command::Command::InstanceMark`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct InstanceMark {
    /// Its service.
    #[prost(string, tag = "1")]
    pub service: String,
    /// Its id; empty for all instances of the service.
    #[prost(string, tag = "2")]
    pub instance: String,
    /// It gets nothing new, or does again.
    #[prost(bool, optional, tag = "3")]
    pub draining: Option<bool>,
    /// Its heartbeats are missing, or there again.
    #[prost(bool, optional, tag = "4")]
    pub unhealthy: Option<bool>,
    /// Only while it is this connection.
    #[prost(message, optional, tag = "5")]
    pub connection: Option<Connection>,
}

/// The operator changes what is known of a service. See [`crate::command::Command::ServiceUpdate`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ServiceUpdate {
    /// The service.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its new metadata, a JSON object.
    #[prost(string, tag = "2")]
    pub metadata: String,
    /// Only when this is the present revision of the record.
    #[prost(uint64, optional, tag = "3")]
    pub if_revision: Option<u64>,
}

/// A service and all its instances go. See [`crate::command::Command::ServiceRemove`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ServiceRemove {
    /// The service.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// The grace of services whose last instance is gone has ended. See [`crate::command::Command::ServiceExpire`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ServiceExpire {
    /// Those that are due.
    #[prost(string, repeated, tag = "1")]
    pub ids: Vec<String>,
}

/// What a registration did.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Registered {
    /// The instance as it is now.
    #[prost(message, required, tag = "1")]
    pub instance: Instance,
    /// The connection that it was before: it has lost its place.
    #[prost(message, optional, tag = "2")]
    pub replaced: Option<Connection>,
}

/// Instances that are gone, with the connections they were.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Removed {
    /// In the order of their ids.
    #[prost(message, repeated, tag = "1")]
    pub instances: Vec<Instance>,
    /// There are more: the same command again takes the next ones.
    #[prost(bool, tag = "2")]
    pub more: bool,
}

impl Capability {
    /// Whether an action can be asked of it.
    #[must_use]
    pub fn offers(&self, action: &str) -> bool {
        self.actions.is_empty() || self.actions.iter().any(|one| one == action)
    }
}

impl Instance {
    /// Which instance this is.
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

    /// Whether new requests may go to it.
    #[must_use]
    pub const fn is_available(&self) -> bool {
        !self.draining && !self.unhealthy
    }

    /// The word for that: `available`, `draining` or `unhealthy`.
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

    /// Whether the words it came with are within their limits.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] names the field.
    pub fn check(&self) -> Result<(), Refusal> {
        check_name("instance id", &self.id)?;
        check_text("version", &self.version, limits::VERSION_BYTES_MAX)?;
        check_name("door", &self.door)?;
        check_metadata(&self.metadata)?;
        if self.port > u32::from(u16::MAX) {
            return Err(wrong("port: 0 to 65535"));
        }
        if self.capabilities.len() > limits::CAPABILITIES_MAX {
            return Err(wrong("too many capabilities"));
        }
        let mut names = alloc::collections::BTreeSet::new();
        for capability in &self.capabilities {
            check_name("capability", &capability.name)?;
            check_text("description of a capability", &capability.description, limits::TEXT_BYTES_MAX)?;
            if !names.insert(capability.name.as_str()) {
                return Err(wrong("a capability is named twice"));
            }
            if capability.actions.len() > limits::ACTIONS_MAX {
                return Err(wrong("too many actions"));
            }
            capability.actions.iter().try_for_each(|action| check_name("action", action))?;
        }
        Ok(())
    }
}

impl Service {
    /// Whether the words it came with are within their limits.
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

/// The metadata of a service: a JSON object, or nothing.
pub(crate) fn check_metadata(metadata: &str) -> Result<(), Refusal> {
    if metadata.len() > limits::METADATA_BYTES_MAX {
        return Err(Refusal::Malformed(alloc::format!("metadata: at most {} bytes", limits::METADATA_BYTES_MAX)));
    }
    let object = serde_json::from_str::<&serde_json::value::RawValue>(metadata);
    if metadata.is_empty() || object.is_ok_and(|object| object.get().starts_with('{')) {
        return Ok(());
    }
    Err(wrong("metadata: expected a JSON object"))
}

fn wrong(detail: &str) -> Refusal {
    Refusal::Malformed(detail.into())
}

/// A name that others use: not empty, not long, nothing that could not be printed, no blank at its ends.
fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    if !(1..=limits::NAME_BYTES_MAX).contains(&name.len()) {
        return Err(Refusal::Malformed(alloc::format!("{what}: 1 to {} bytes", limits::NAME_BYTES_MAX)));
    }
    if name.chars().any(char::is_control) || name.trim() != name {
        return Err(Refusal::Malformed(alloc::format!("{what}: no control characters, no blanks at its ends")));
    }
    Ok(())
}

fn check_text(what: &str, text: &str, bytes_max: usize) -> Result<(), Refusal> {
    if text.len() > bytes_max {
        return Err(Refusal::Malformed(alloc::format!("{what}: at most {bytes_max} bytes")));
    }
    if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Err(Refusal::Malformed(alloc::format!("{what}: no control characters")));
    }
    Ok(())
}
