//! How this door tells events of the book and notifications: encoded once, shared by all its clients.

use rollbook_core::event::Event;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::outbound::node_name;
use crate::base::slot::Slot;
use crate::bus::client::announcement::{ANNOUNCEMENT_SLOTS, Announcement, AnnouncementEncoder};
use crate::bus::write::notification::{Notification, UNHANDLED, notification};

/// The name of a notification that clients of this door broadcast.
pub(super) const BROADCAST: &str = "broadcast";

/// How this door tells events.
#[derive(Debug)]
pub(super) struct AnnouncementFrames;

/// The only one there is.
pub(super) static ANNOUNCEMENTS: AnnouncementFrames = AnnouncementFrames;

#[derive(Deserialize)]
struct LifecycleJson {
    service: ServiceNameJson,
    instance: Option<InstanceJson>,
    at: String,
}

#[derive(Deserialize)]
struct ServiceNameJson {
    id: String,
    version: String,
}

#[derive(Deserialize)]
struct InstanceJson {
    id: String,
    node: u64,
    version: String,
    capabilities: Vec<CapabilityJson>,
}

/// A capability as the roll tells of it, and as this door does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CapabilityJson {
    pub(super) name: String,
    pub(super) actions: Vec<String>,
}

/// A service as this door shows it: its methods are the actions of the capability of its own name; what it offers
/// under other names is named beside them.
#[derive(Debug, Serialize)]
pub(super) struct ServiceJson {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) methods: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) capabilities: Vec<CapabilityJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) instances: Option<usize>,
}

impl ServiceJson {
    pub(super) fn new(name: String, version: String, offered: Vec<CapabilityJson>) -> Self {
        let (own, capabilities): (Vec<_>, Vec<_>) = offered.into_iter().partition(|one| one.name == name);
        let methods = own.into_iter().flat_map(|one| one.actions).collect();
        Self { name, version, methods, capabilities, instances: None }
    }
}

fn lifecycle(word: &str, index: i64, payload: &[u8]) -> Option<String> {
    let LifecycleJson { service, instance, at } = serde_json::from_slice(payload).ok()?;
    let (id, node, version, offered) = match instance {
        Some(InstanceJson { id, node, version, capabilities }) => {
            (Some(id), Some(node_name(node)), version, capabilities)
        }
        // A service that goes without a last instance that anybody knows of.
        None => (None, None, service.version, Vec::new()),
    };
    let frame = json!({
        "type": "event", "event": format!("service-{word}"), "service": ServiceJson::new(service.id, version, offered),
        "instance_id": id, "node": node, "index": index, "at": at,
    });
    Some(frame.to_string())
}

fn told(index: i64, event: &Event<'_>) -> Option<String> {
    if let Some(word) = event.subject.strip_prefix("roll.service.") {
        let known = ["connect", "online", "disconnect", "offline"].contains(&word);
        return if known { lifecycle(word, index, event.payload?) } else { None };
    }
    let Notification { event: name, id, data, from } = notification(event)?;
    let data = data.map_or("null", RawValue::get);
    // What is in no log is from a node and can be our own; in the book anybody may write that name.
    if name == UNHANDLED {
        let members = data.strip_prefix('{').filter(|_| index < 0)?;
        return Some(format!("{{\"type\":\"event\",\"event\":\"unhandled\",{members}"));
    }
    let mut head = json!({ "type": "broadcast", "consumer": from.map(|from| from.service).unwrap_or_default() });
    if let Some(head) = head.as_object_mut() {
        head.extend(id.map(|id| ("id".to_owned(), id.into())));
        head.extend((name != BROADCAST).then(|| ("event".to_owned(), name.into())));
        head.insert("at".to_owned(), event.created_at.to_string().into());
    }
    let mut frame = head.to_string();
    frame.pop();
    Some(format!("{frame},\"payload\":{data}}}"))
}

/// The place of its frames.
static SLOT: Slot = Slot::of(&ANNOUNCEMENT_SLOTS);

impl AnnouncementEncoder for AnnouncementFrames {
    fn slot(&self) -> usize {
        SLOT.number()
    }

    fn announce(&self, announcement: &Announcement, out: &mut Vec<u8>) {
        let item = &announcement.item;
        if let Some(frame) = told(item.index(), &item.event()) {
            out.extend_from_slice(frame.as_bytes());
        }
    }
}
