//! Encodes events of the book and notifications for clients of this door. Each announcement is encoded once, and all
//! clients share the frame.

use rollbook_core::event::Event;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::outbound::node_name;
use crate::base::slot::Slot;
use crate::bus::client::announcement::{ANNOUNCEMENT_SLOTS, Announcement, AnnouncementEncoder};
use crate::bus::write::notification::{Notification, UNHANDLED, notification};

/// The name of the notification that a broadcast of this door becomes.
pub(super) const BROADCAST: &str = "broadcast";

/// The encoder of announcements.
#[derive(Debug)]
pub(super) struct AnnouncementFrames;

/// The only value of [`AnnouncementFrames`].
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

/// A capability, as the roll and this door write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CapabilityJson {
    pub(super) name: String,
    pub(super) actions: Vec<String>,
}

/// A service as this door shows it. The methods are the actions of the capability with the name of the service; other
/// capabilities are listed beside them.
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

fn lifecycle(kind: &str, index: i64, payload: &[u8]) -> Option<String> {
    let LifecycleJson { service, instance, at } = serde_json::from_slice(payload).ok()?;
    let (id, node, version, offered) = match instance {
        Some(InstanceJson { id, node, version, capabilities }) => {
            (Some(id), Some(node_name(node)), version, capabilities)
        }
        // The service went offline, and its last instance is not known.
        None => (None, None, service.version, Vec::new()),
    };
    let frame = json!({
        "type": "event", "event": format!("service-{kind}"), "service": ServiceJson::new(service.id, version, offered),
        "instance_id": id, "node": node, "index": index, "at": at,
    });
    Some(frame.to_string())
}

fn frame(index: i64, event: &Event<'_>) -> Option<String> {
    if let Some(kind) = event.subject.strip_prefix("roll.service.") {
        let known = ["connect", "online", "disconnect", "offline"].contains(&kind);
        return if known { lifecycle(kind, index, event.payload?) } else { None };
    }
    let Notification { event: name, id, data, from } = notification(event)?;
    let data = data.map_or("null", RawValue::get);
    // An event without an index comes from a node and can be of the bus. In the book anybody may publish that name.
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

/// The slot of the encoded frames.
static SLOT: Slot = Slot::of(&ANNOUNCEMENT_SLOTS);

impl AnnouncementEncoder for AnnouncementFrames {
    fn slot(&self) -> usize {
        SLOT.number()
    }

    fn announce(&self, announcement: &Announcement, out: &mut Vec<u8>) {
        let item = &announcement.item;
        if let Some(frame) = frame(item.index(), &item.event()) {
            out.extend_from_slice(frame.as_bytes());
        }
    }
}
