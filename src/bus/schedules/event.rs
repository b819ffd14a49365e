//! The event of a tick.

use rollbook_core::entry::{FLAG_CREATE, FLAG_HEADERS, FLAG_KEYED, FLAG_TICK, begin_publish, finish_publish, put_tick};
use rollbook_core::error::Refusal;
use rollbook_core::event::Event;
use rollbook_core::event::headers::{HeaderError, HeaderList};
use rollbook_core::schedule::change::Tick;
use rollbook_core::schedule::definition::ScheduleDefinition;
use rollbook_core::time::Timestamp;

/// Beginning of the names of the headers that the bus adds. A definition has none of these.
pub(super) const OWN_HEADERS: &str = "rollbook-";
/// The header with the name of the schedule.
const SCHEDULE: &str = "rollbook-schedule";
/// The header with the time of the tick.
const TICK: &str = "rollbook-tick";
/// The header with the number of earlier ticks for which the event stands too.
const MISSED: &str = "rollbook-missed";

/// The headers of an event: those of the definition, and those that say of which schedule it is, and of which tick with
/// how many missed ones. An event without a tick is one that somebody asked for.
///
/// # Errors
/// A header cannot be one; none of a definition that was checked.
pub(super) fn headers(
    definition: &ScheduleDefinition,
    schedule: &str,
    tick: Option<(u64, u64)>,
) -> Result<HeaderList, HeaderError> {
    let mut list = HeaderList::default();
    for header in &definition.headers {
        list.push(&header.name, &header.value)?;
    }
    list.push(SCHEDULE, schedule)?;
    if let Some((tick, missed)) = tick {
        list.push(TICK, &Timestamp::from_millis(tick).to_string())?;
        if missed > 0 {
            list.push(MISSED, &missed.to_string())?;
        }
    }
    Ok(list)
}

/// The frame that publishes the event of a tick, created now. The dedupe key names schedule and tick.
///
/// # Errors
/// The event cannot be encoded; never that of a definition that was checked.
pub(super) fn frame(
    definition: &ScheduleDefinition,
    tick: &Tick,
    now: Timestamp,
    create: bool,
) -> Result<Vec<u8>, Refusal> {
    let malformed = |error: &dyn std::fmt::Display| Refusal::Malformed(error.to_string());
    let headers =
        headers(definition, &tick.schedule, Some((tick.tick, tick.missed))).map_err(|error| malformed(&error))?;
    let key = format!("{}@{}", tick.schedule, Timestamp::from_millis(tick.tick));
    let event = Event {
        subject: &definition.subject,
        key: &key,
        created_at: now,
        headers: headers.headers(),
        payload: definition.payload.as_deref(),
        ..Event::default()
    };
    let namespace = definition.subject.split('.').next().unwrap_or_default();
    let mut out = Vec::new();
    begin_publish(&mut out, namespace)?;
    put_tick(&mut out, &tick.to_bytes())?;
    event.encode(&mut out).map_err(|error| malformed(&error))?;
    let flags = FLAG_TICK | FLAG_KEYED | FLAG_HEADERS | if create { FLAG_CREATE } else { 0 };
    finish_publish(&mut out, 0, flags, 1)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use rollbook_core::entry::{Frame, frames};
    use rollbook_core::schedule::definition::ScheduleHeader;

    use super::*;

    #[test]
    fn an_event_says_which_tick_of_which_schedule_it_is() {
        let header = ScheduleHeader { name: "team".into(), value: "billing".into() };
        let definition = ScheduleDefinition {
            subject: "app.reports.due".into(),
            payload: Some(b"{\"n\":1.50}".to_vec()),
            headers: vec![header],
            ..ScheduleDefinition::default()
        };
        let tick = Tick { schedule: "nightly".into(), tick: 1_774_746_000_000, missed: 3, ..Tick::default() };
        let frame = frame(&definition, &tick, Timestamp { seconds: 5, nanos: 6 }, true).unwrap();
        let Some(Frame::Publish(publish)) = frames(&frame, 1).next() else { panic!("a publish") };
        assert_eq!((publish.namespace, publish.events, publish.tick), ("app", 1, Some(&tick.to_bytes()[..])));
        let (event, _) = Event::decode(publish.records).unwrap();
        assert_eq!((event.subject, event.payload), ("app.reports.due", Some(&b"{\"n\":1.50}"[..])));
        assert_eq!(event.key, "nightly@2026-03-29T01:00:00Z");
        let found: Vec<_> = event.headers.iter().collect();
        let expected = [
            ("team", "billing"),
            ("rollbook-schedule", "nightly"),
            ("rollbook-tick", "2026-03-29T01:00:00Z"),
            ("rollbook-missed", "3"),
        ];
        assert_eq!(found, expected);
    }
}
