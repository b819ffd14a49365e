//! Raises the feature level, and makes the changes that take effect at once.

use alloc::format;

use super::{META_LEVEL, Machine, save_head};
use crate::command::{Done, LevelRaise};
use crate::level::FeatureLevel;
use crate::namespace::{BUS_NAMESPACES, Retention, bus_retention};
use crate::rows::{Family, RowsError, Writes};
use crate::subjects::subject::Namespace;

impl Machine {
    /// Takes the level of a stored state.
    pub(super) fn load_level(&mut self, number: u64) -> Result<(), RowsError> {
        let level = u32::try_from(number).ok().and_then(FeatureLevel::new).ok_or_else(|| RowsError::corrupt("meta"))?;
        if level > FeatureLevel::LATEST {
            let known = FeatureLevel::LATEST.get();
            return Err(RowsError(format!(
                "the state follows feature level {number} and this release knows {known}: upgrade this node"
            )));
        }
        self.level = level;
        Ok(())
    }

    /// Raises the level: the rules of the new level hold from the next frame on. A level that this release does not
    /// know stops the node, because the node would apply the frames that follow in another way than the other nodes.
    pub(super) fn level_raise(
        &mut self,
        entry: u64,
        raise: &LevelRaise,
        writes: &mut Writes,
    ) -> Result<Done, RowsError> {
        let known = FeatureLevel::LATEST;
        let Some(level) = FeatureLevel::new(raise.level).filter(|level| *level > self.level) else {
            return Ok(Done::Nothing);
        };
        if level > known {
            let what = format!("raises the feature level to {} and this release knows {}", level.get(), known.get());
            return Err(RowsError::newer(entry, &what));
        }
        let before = core::mem::replace(&mut self.level, level);
        writes.put(Family::Meta, META_LEVEL.into(), u64::from(level.get()).to_be_bytes().into());
        if before < FeatureLevel::XBUS && level >= FeatureLevel::XBUS && self.head(Namespace::XBUS).is_none() {
            // The name is a legal one, and the bus ignores the maximum of namespaces.
            drop(self.create_namespace(Namespace::XBUS, Retention::default(), true, writes));
        }
        if before >= FeatureLevel::BOUNDED || level < FeatureLevel::BOUNDED {
            return Ok(Done::Nothing);
        }
        for name in BUS_NAMESPACES {
            let head = self.heads.get_mut(name);
            if let Some(head) = head.filter(|head| !head.deleted && head.retention.is_unlimited()) {
                head.retention = bus_retention(name);
                save_head(head, writes);
            }
        }
        Ok(Done::Nothing)
    }
}
