//! Encodes events of the book for clients of this door. Each event is encoded once, and all clients share the frame.

use rollbook_core::event::Event;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::payloads::is_reserved_event;
use crate::base::slot::Slot;
use crate::bus::client::announcement::{ANNOUNCEMENT_SLOTS, AnnouncedUpTo, Announcement, AnnouncementEncoder};
use crate::bus::write::notification::{Notification, UNHANDLED, notification};
use crate::doors::socketio::codec;

/// Encodes without offsets.
pub(in crate::doors::socketio) static PLAIN: AnnouncementFrames = AnnouncementFrames { offsets: false };
/// Adds an offset to every event of the book, for clients whose state can be recovered.
pub(in crate::doors::socketio) static OFFSETS: AnnouncementFrames = AnnouncementFrames { offsets: true };

/// The encoder of announcements.
#[derive(Debug)]
pub(in crate::doors::socketio) struct AnnouncementFrames {
    offsets: bool,
}

#[derive(Deserialize)]
struct ServiceJson {
    service: ServiceNameJson,
}

#[derive(Deserialize)]
struct ServiceNameJson {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct ConfigJson<'a> {
    #[serde(borrow)]
    config: &'a RawValue,
}

/// Builds the packet for an event. `None` means that clients of this door do not get the event.
fn packet(index: i64, event: &Event<'_>, offset: Option<AnnouncedUpTo>) -> Option<bytestring::ByteString> {
    let payload = event.payload?;
    let offset = offset.map(|offset| format!("\"{offset}\""));
    let emit = |name: &str, args: &[&str]| {
        let args: Vec<&str> = args.iter().copied().chain(offset.as_deref()).collect();
        codec::event("/", None, name, &args, 0)
    };
    match event.subject {
        "roll.service.online" | "roll.service.offline" => {
            let ServiceJson { service: ServiceNameJson { id, name } } = serde_json::from_slice(payload).ok()?;
            let word = event.subject.strip_prefix("roll.service.")?;
            Some(emit(&format!("service:{word}"), &[&json!({ "id": id, "name": name }).to_string()]))
        }
        "roll.config.updated" => {
            let ConfigJson { config } = serde_json::from_slice(payload).ok()?;
            Some(emit("config:updated", &[config.get()]))
        }
        _ => {
            let Notification { event: name, data, from, .. } = notification(event)?;
            // An event without an index comes from a node and can be of the bus.
            if index < 0 && name == UNHANDLED {
                return Some(emit(UNHANDLED, &[data?.get()]));
            }
            // Any client may publish into this namespace, so a published event must not look like one of the bus.
            if is_reserved_event(&name) {
                return None;
            }
            let mut id = Vec::new();
            event.write_id(u64::try_from(index).unwrap_or_default(), &mut id);
            let about = json!({ "from": from, "id": String::from_utf8_lossy(&id), "index": index });
            Some(emit(&name, &[data.map_or("null", RawValue::get), &about.to_string()]))
        }
    }
}

/// The slots of the encoded frames, without offsets and with offsets.
static SLOT: Slot = Slot::of(&ANNOUNCEMENT_SLOTS);
static OFFSETS_SLOT: Slot = Slot::of(&ANNOUNCEMENT_SLOTS);

impl AnnouncementEncoder for AnnouncementFrames {
    fn slot(&self) -> usize {
        if self.offsets { OFFSETS_SLOT.number() } else { SLOT.number() }
    }

    fn announce(&self, announcement: &Announcement, out: &mut Vec<u8>) {
        let offset = announcement.at.map(|(_, position)| position).filter(|_| self.offsets);
        let item = &announcement.item;
        if let Some(packet) = packet(item.index(), &item.event(), offset) {
            out.extend_from_slice(packet.as_bytes());
        }
    }
}
