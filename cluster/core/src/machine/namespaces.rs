//! Namespaces: created, deleted and trimmed.

use super::effects::Effects;
use super::events::ids;
use super::{META_NEXT_NAMESPACE, Machine, save_head, tidy};
use crate::command::{Done, Reply, Trim, TrimMany};
use crate::error::Refusal;
use crate::level::FeatureLevel;
use crate::limits::{AUDIT_AGE_MS_MIN, NAMESPACES_DELETED_MAX, TRIM_ROWS_MAX, TRIMS_MAX};
use crate::namespace::{Head, Retention, bus_retention};
use crate::rows::{self, Family, Rows, RowsError, Writes};
use crate::subjects::subject::Namespace;

/// Most deleted namespaces that one deletion forgets. More than one, so that a surplus from an earlier release shrinks.
const FORGOTTEN_PER_DELETE_MAX: usize = 16;

impl Machine {
    /// Whether clients may neither create nor delete a namespace of this name. Before feature level `SECURED` the audit
    /// was a name like others, and before `XBUS` that of Xbus.
    pub(super) fn is_reserved(&self, name: &str) -> bool {
        Namespace::is_reserved(name)
            && match name {
                Namespace::AUDIT => self.level >= FeatureLevel::SECURED,
                Namespace::XBUS => self.level >= FeatureLevel::XBUS,
                _ => true,
            }
    }

    /// Whether the rules alone append to the namespace.
    pub(super) fn is_rules_own(&self, name: &str) -> bool {
        name == Namespace::ROLL || name == Namespace::AUDIT && self.is_reserved(name)
    }

    /// The namespace of this name, unless it is deleted. A read copies nothing, unlike [`Machine::head_mut`], which may
    /// copy a path of the map.
    pub(super) fn require_head(&self, name: &str) -> Result<&Head, Refusal> {
        self.head(name).ok_or_else(|| Refusal::NamespaceNotFound(name.into()))
    }

    /// The namespace of this name, unless it is deleted, for a change.
    pub(super) fn head_mut(&mut self, name: &str) -> Result<&mut Head, Refusal> {
        match self.heads.get_mut(name) {
            Some(head) if !head.deleted => Ok(head),
            _ => Err(Refusal::NamespaceNotFound(name.into())),
        }
    }

    /// Creates a namespace. `internal` permits reserved names and ignores the maximum, because the bus must always be
    /// able to append to its own namespaces. A deleted namespace keeps its number and continues its sequence numbers.
    pub(super) fn create_namespace(
        &mut self,
        name: &str,
        retention: Retention,
        internal: bool,
        writes: &mut Writes,
    ) -> Result<&mut Head, Refusal> {
        if Namespace::parse(name).is_err() {
            return Err(Refusal::NamespaceNotFound(name.into()));
        }
        if self.is_reserved(name) && !internal {
            return Err(Refusal::NamespaceReserved(name.into()));
        }
        let bounded = self.level >= FeatureLevel::BOUNDED;
        let count = if bounded { self.heads.size().saturating_sub(self.deleted.size()) } else { self.heads.size() };
        let known = self.heads.get(name).filter(|head| !bounded || !head.deleted).is_some();
        if !internal && count >= self.limits().namespaces && !known {
            return Err(Refusal::NamespacesExhausted);
        }
        let mut retention = self.supported_retention(retention);
        if bounded
            && retention.is_unlimited()
            && (!matches!(name, Namespace::AUDIT | Namespace::XBUS) || self.is_reserved(name))
        {
            let bus = bus_retention(name);
            (retention.age_ms_max, retention.bytes_max, retention.events_max) =
                (bus.age_ms_max, bus.bytes_max, bus.events_max);
        }
        let mut head = self.heads.get(name).cloned().unwrap_or_else(|| {
            self.next_namespace = self.next_namespace.saturating_add(1);
            let next = u64::from(self.next_namespace).to_be_bytes();
            writes.put(Family::Meta, META_NEXT_NAMESPACE.into(), next.into());
            Head { id: self.next_namespace, name: name.into(), next: 1, first: 1, ..Head::default() }
        });
        if head.deleted {
            self.deleted.remove_mut(&(head.deleted_by, head.name.clone()));
        }
        (head.deleted, head.deleted_by) = (false, 0);
        head.retention = retention;
        save_head(&head, writes);
        self.heads.insert_mut(name.into(), head);
        self.head_mut(name)
    }

    /// Replaces the retention of a namespace.
    pub(super) fn retain_namespace(&mut self, name: &str, retention: Retention, writes: &mut Writes) -> Reply {
        let retention = self.supported_retention(retention);
        let (age, bytes, events) = (retention.age_ms_max, retention.bytes_max, retention.events_max);
        let secured = self.level >= FeatureLevel::SECURED && name == Namespace::AUDIT;
        if secured && (age != 0 && age < AUDIT_AGE_MS_MIN || bytes != 0 || events != 0) {
            return Err(Refusal::Security("the audit is kept by age alone, and for 30 days at least".into()));
        }
        let head = self.head_mut(name)?;
        let before = tidy::due(head);
        head.retention = retention;
        let done = save_head(head, writes);
        self.reschedule_tidy(name, before);
        Ok(Done::Namespace(done))
    }

    /// The retention without the fields that the present level does not know: nodes of earlier releases ignore them.
    fn supported_retention(&self, retention: Retention) -> Retention {
        let bounded = self.level >= FeatureLevel::BOUNDED;
        if bounded { retention } else { Retention { dedupe_window_ms: 0, ..retention } }
    }

    /// Marks a namespace as deleted, and deletes its consumers and rows. The events of the present entry go as well.
    pub(super) fn delete_namespace(&mut self, name: &str, effects: &mut Effects<'_>) -> Reply {
        if self.is_reserved(name) {
            return Err(Refusal::NamespaceReserved(name.into()));
        }
        let bounded = self.level >= FeatureLevel::BOUNDED;
        let Effects { entry, writes, appends } = effects;
        self.require_head(name)?;
        self.drop_delayed(name, writes);
        let head = self.head_mut(name)?;
        let due = tidy::due(head);
        head.dedupe = None;
        (head.deleted, head.deleted_by) = (true, if bounded { *entry } else { 0 });
        head.first = head.next;
        head.bytes_first = head.bytes_end;
        head.retention = Retention::default();
        let id = head.id;
        let key = (head.deleted_by, head.name.clone());
        save_head(head, writes);
        self.deleted.insert_mut(key);
        appends.remove(&id);
        self.reschedule_tidy(name, due);
        self.consumers.remove_mut(&id);
        for family in [Family::Index, Family::Ids, Family::Keys, Family::KeyRing, Family::Consumers] {
            let (from, to) = rows::bounds(id);
            writes.delete_range(family, from, to);
        }
        if bounded {
            self.forget_deleted(writes);
        }
        Ok(Done::Nothing)
    }

    /// Forgets the namespaces that were deleted first, when there are too many. A later namespace of a forgotten name
    /// gets a new number and begins with sequence number 1.
    fn forget_deleted(&mut self, writes: &mut Writes) {
        for _ in 0..FORGOTTEN_PER_DELETE_MAX {
            if self.deleted.size() <= NAMESPACES_DELETED_MAX {
                return;
            }
            let Some(oldest) = self.deleted.first().cloned() else { return };
            self.deleted.remove_mut(&oldest);
            let Some(id) = self.heads.get(&oldest.1).map(|head| head.id) else { return };
            self.heads.remove_mut(&oldest.1);
            writes.delete(Family::Heads, rows::key(id, &[]));
        }
    }

    /// Moves the first visible event of a namespace forward, and removes the rows of chosen ids of at most `limit`
    /// events. Returns the number of rows that were read, and the reply.
    pub(super) fn trim(
        &mut self,
        trim: &Trim,
        limit: usize,
        rows: &impl Rows,
        writes: &mut Writes,
    ) -> Result<(usize, Reply), RowsError> {
        let pinned = self.xbus.pinned().filter(|_| trim.name == Namespace::XBUS);
        let head = match self.head_mut(&trim.name) {
            Ok(head) => head,
            Err(refusal) => return Ok((0, Err(refusal))),
        };
        let due = tidy::due(head);
        if pinned.is_some_and(|pinned| trim.first > pinned) {
            let text = "envelopes that are coming, or on their way, need these events".into();
            return Ok((0, Err(Refusal::Xbus(text))));
        }
        if trim.first > head.first {
            head.first = trim.first.min(head.next);
            head.bytes_first = trim.bytes_first.clamp(head.bytes_first, head.bytes_end);
        }
        let looked = if limit > 0 { ids::remove_trimmed(head, limit, rows, writes)? } else { 0 };
        let done = save_head(head, writes);
        self.reschedule_tidy(&trim.name, due);
        Ok((looked, Ok(Done::Namespace(done))))
    }

    /// Trims several namespaces, and ignores those that are deleted. All trims together read at most [`TRIM_ROWS_MAX`]
    /// rows of chosen ids; `Tidy` removes the rest.
    pub(super) fn trim_many(
        &mut self,
        many: &TrimMany,
        rows: &impl Rows,
        writes: &mut Writes,
    ) -> Result<Reply, RowsError> {
        let mut left = TRIM_ROWS_MAX;
        for trim in many.trims.iter().take(TRIMS_MAX) {
            let (looked, _) = self.trim(trim, left, rows, writes)?;
            left = left.saturating_sub(looked);
        }
        Ok(Ok(if many.trims.len() > TRIMS_MAX { Done::More } else { Done::Nothing }))
    }
}
