//! A schedule as JSON: what of it is set, and what is shown.

use std::collections::BTreeMap;
use std::time::Duration;

use rollbook_core::schedule::definition::{Missed, ScheduleDefinition, ScheduleHeader};
use rollbook_core::schedule::row::ScheduleRow;
use rollbook_core::time::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::admin::problem::Problem;
use crate::base::duration;
use crate::bus::schedules::client::ScheduleClient;
use crate::bus::schedules::ticks::NEVER;
use crate::bus::write::headers::HeadersJson;

/// What becomes of ticks whose time passed while nobody could publish them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::admin) enum MissedWord {
    /// One event stands for all of them.
    #[default]
    Once,
    /// They are left out.
    Skip,
}

impl From<Missed> for MissedWord {
    fn from(missed: Missed) -> Self {
        match missed {
            Missed::Once => Self::Once,
            Missed::Skip => Self::Skip,
        }
    }
}

/// Headers as JSON: an object of names, each with a string or an array of strings.
#[derive(Debug, Default)]
pub(super) struct Headers(Vec<ScheduleHeader>);

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut names = BTreeMap::<&str, Vec<&str>>::new();
        for header in &self.0 {
            names.entry(&header.name).or_default().push(&header.value);
        }
        serializer.collect_map(names)
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Option::<HeadersJson>::deserialize(deserializer)?.unwrap_or_default();
        let header = |(name, value): (&str, &str)| ScheduleHeader { name: name.to_owned(), value: value.to_owned() };
        Ok(Self(read.0.headers().iter().map(header).collect()))
    }
}

/// What of a schedule can be set.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ScheduleJson {
    /// Subject of the events.
    #[schema(example = "app.reports.due")]
    subject: String,
    /// Payload of the events: any JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    payload: Option<Box<RawValue>>,
    /// Headers of the events: an object of names, each with a string or an array of strings.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    headers: Headers,
    /// When, as a cron expression: minute, hour, day of month, month, day of week; or six fields, the second in front; or
    /// `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. Either this or `every`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "0 3 * * *")]
    cron: Option<String>,
    /// When, as an interval: a duration such as `30s`. The ticks are its multiples since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(null))]
    every: Option<String>,
    /// Time zone of `cron`, a name of the IANA such as `Europe/Berlin`; UTC by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "Europe/Berlin")]
    time_zone: Option<String>,
    /// Each event leaves up to so much later than its tick: a duration, `0s` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "30s")]
    jitter: Option<String>,
    /// What becomes of missed ticks: `once` for one event that stands for all of them, or `skip`.
    #[serde(default)]
    missed: MissedWord,
    /// Whether nothing is published for now.
    #[serde(default)]
    paused: bool,
}

fn millis(name: &str, text: Option<&str>) -> Result<u64, Problem> {
    let Some(text) = text else { return Ok(0) };
    let duration = duration::parse(text).map_err(|error| Problem::bad(format!("{name}: {error}")))?;
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    // Less than a millisecond is no interval, and would count as none.
    if millis == 0 && !duration.is_zero() { Err(Problem::bad(format!("{name}: at least 1ms"))) } else { Ok(millis) }
}

fn duration_text(millis: u64) -> Option<String> {
    (millis != 0).then(|| duration::format(Duration::from_millis(millis)))
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn payload_of(definition: &ScheduleDefinition) -> serde_json::Result<Option<Box<RawValue>>> {
    definition.payload.as_ref().map(|payload| serde_json::from_slice(payload)).transpose()
}

impl ScheduleJson {
    /// The definition as somebody could set it.
    ///
    /// # Errors
    /// The stored payload is no JSON.
    pub(super) fn of(definition: &ScheduleDefinition) -> serde_json::Result<Self> {
        Ok(Self {
            subject: definition.subject.clone(),
            payload: payload_of(definition)?,
            headers: Headers(definition.headers.clone()),
            cron: some(&definition.cron),
            every: duration_text(definition.every_ms),
            time_zone: some(&definition.time_zone),
            jitter: duration_text(definition.jitter_ms),
            missed: Missed::try_from(definition.missed).unwrap_or(Missed::Once).into(),
            paused: definition.paused,
        })
    }

    /// The definition for the rules.
    ///
    /// # Errors
    /// What is no duration.
    pub(super) fn into_definition(self) -> Result<ScheduleDefinition, Problem> {
        let every_ms = millis("every", self.every.as_deref())?;
        if self.every.is_some() && every_ms == 0 {
            return Err(Problem::bad("every: at least 1s"));
        }
        if self.every.is_some() && self.time_zone.is_some() {
            return Err(Problem::bad("time_zone: only with cron"));
        }
        Ok(ScheduleDefinition {
            subject: self.subject,
            payload: self.payload.map(|payload| payload.get().as_bytes().to_vec()),
            headers: self.headers.0,
            cron: self.cron.unwrap_or_default(),
            every_ms,
            time_zone: self.time_zone.unwrap_or_default(),
            jitter_ms: millis("jitter", self.jitter.as_deref())?,
            missed: match self.missed {
                MissedWord::Once => Missed::Once,
                MissedWord::Skip => Missed::Skip,
            }
            .into(),
            paused: self.paused,
        })
    }
}

/// A schedule.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct ScheduleView {
    name: String,
    subject: String,
    /// Payload of the events. Left out in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    payload: Option<Box<RawValue>>,
    /// Headers of the events, each with its values. Left out in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    headers: Option<Headers>,
    /// The expression; `null` for a schedule with an interval.
    cron: Option<String>,
    /// The interval; `null` for a schedule with an expression.
    every: Option<String>,
    /// Time zone of the expression.
    time_zone: String,
    /// Each event leaves up to so much later than its tick.
    jitter: String,
    missed: MissedWord,
    paused: bool,
    /// The tick that comes next; `null` while the schedule is paused.
    next_tick: Option<String>,
    /// The next ticks. Left out in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_ticks: Option<Vec<String>>,
    /// The newest tick that was published, or tried and refused.
    last_tick: Option<String>,
    /// Number of published events.
    fired: u64,
    /// Number of ticks that have no event of their own, because their time had passed.
    missed_ticks: u64,
    /// Number of ticks whose event was refused.
    failed: u64,
    /// Why the newest of these was refused.
    last_failure: Option<String>,
    created_at: String,
    /// When the schedule was set last.
    changed_at: String,
    /// Number of the last change.
    revision: u64,
}

fn time(millis: u64) -> Option<String> {
    (millis != 0 && millis < NEVER).then(|| Timestamp::from_millis(millis).to_string())
}

impl ScheduleView {
    /// The schedule in a list.
    pub(super) fn short(row: &ScheduleRow) -> Self {
        let definition = &row.definition;
        Self {
            name: row.name.clone(),
            subject: definition.subject.clone(),
            payload: None,
            headers: None,
            cron: some(&definition.cron),
            every: duration_text(definition.every_ms),
            time_zone: some(&definition.time_zone).unwrap_or_else(|| "UTC".to_owned()),
            jitter: duration::format(Duration::from_millis(definition.jitter_ms)),
            missed: row.on_missed().into(),
            paused: definition.paused,
            next_tick: time(row.next).filter(|_| !definition.paused),
            next_ticks: None,
            last_tick: time(row.last),
            fired: row.fired,
            missed_ticks: row.missed,
            failed: row.failed,
            last_failure: some(&row.failure),
            created_at: Timestamp::from_millis(row.created).to_string(),
            changed_at: Timestamp::from_millis(row.changed).to_string(),
            revision: row.revision,
        }
    }

    /// The schedule with all that it has, and its next `ticks` ticks.
    ///
    /// # Errors
    /// The stored payload is no JSON.
    pub(super) fn whole(row: &ScheduleRow, ticks: usize) -> serde_json::Result<Self> {
        let ticks = if row.definition.paused { 0 } else { ticks };
        let next_ticks = ScheduleClient::next_ticks(row, ticks).into_iter().filter_map(time).collect();
        Ok(Self {
            payload: payload_of(&row.definition)?,
            headers: Some(Headers(row.definition.headers.clone())),
            next_ticks: Some(next_ticks),
            ..Self::short(row)
        })
    }

    /// By which a list is sorted.
    pub(super) fn key(&self) -> String {
        self.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(json: &str) -> Result<ScheduleDefinition, String> {
        let json: ScheduleJson = serde_json::from_str(json).map_err(|error| error.to_string())?;
        json.into_definition().map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_definition_that_is_read_is_written_as_it_was() {
        let text = r#"{"subject":"app.tick","payload":{"n":1.50,"b":12345678901234567890123},"headers":{"a":["1","2"],"b":["3"]},"cron":"0 3 * * *","time_zone":"Europe/Berlin","jitter":"1m30s","missed":"skip","paused":true}"#;
        let read = definition(text).unwrap();
        assert_eq!((read.jitter_ms, read.missed, read.headers.len()), (90_000, Missed::Skip.into(), 3));
        assert_eq!(serde_json::to_string(&ScheduleJson::of(&read).unwrap()).unwrap(), text);
        let short = r#"{"subject":"app.tick","every":"30s","payload":null,"headers":null,"time_zone":null}"#;
        let read = definition(short).unwrap();
        assert_eq!((read.every_ms, read.payload, read.cron.as_str()), (30_000, None, ""));
    }

    #[test]
    fn what_is_wrong_with_a_definition_is_named() {
        for (json, text) in [
            ("{}", "missing field `subject`"),
            (r#"{"subject":"a.b","every":"5"}"#, "every: `5` is not a duration"),
            (r#"{"subject":"a.b","every":"0s"}"#, "every: at least 1s"),
            (r#"{"subject":"a.b","every":"1us"}"#, "every: at least 1ms"),
            (r#"{"subject":"a.b","every":"1s","time_zone":"UTC"}"#, "time_zone: only with cron"),
            (r#"{"subject":"a.b","cron":"@daily","jitter":"-1s"}"#, "jitter: `-1s` is negative"),
            (r#"{"subject":"a.b","missed":"all"}"#, "unknown variant `all`"),
            (r#"{"subject":"a.b","headers":{"a b":"c"}}"#, "the name of a header is"),
            (r#"{"subject":"a.b","next_tick":"x"}"#, "unknown field `next_tick`"),
        ] {
            let error = definition(json).unwrap_err();
            assert!(error.contains(text), "{json}: {error}");
        }
    }

    #[test]
    fn a_schedule_that_is_paused_has_no_next_tick() {
        let definition = definition(r#"{"subject":"app.tick","every":"30s"}"#).unwrap();
        let mut row = ScheduleRow { name: "s".into(), definition, next: 60_000, ..ScheduleRow::default() };
        let shown = ScheduleView::whole(&row, 3).unwrap();
        let ticks = ["1970-01-01T00:01:00Z", "1970-01-01T00:01:30Z", "1970-01-01T00:02:00Z"];
        assert_eq!((shown.next_tick.as_deref(), shown.last_tick), (Some(ticks[0]), None));
        assert_eq!(shown.next_ticks.unwrap(), ticks);
        row.definition.paused = true;
        let shown = ScheduleView::whole(&row, 3).unwrap();
        assert_eq!((shown.next_tick, shown.next_ticks.unwrap().len()), (None, 0));
    }
}
