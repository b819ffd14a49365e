//! The doors: one folder per protocol. No door imports another. [`door`] defines what a door is.
//!
//! To add a door, add its folder, a line `pub mod` and a line in the list below. Invariant: this list is the only
//! place outside a door's folder that names the door.

pub mod door;
pub mod gateway;
pub mod hms;
pub mod nats;
pub mod socketio;
pub mod sse;
pub mod websocket;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use door::{Context, Door, DoorSettings};

/// Makes the list of doors, with their settings and the functions that build them.
macro_rules! doors {
    ($($door:ident),+ $(,)?) => {
        /// The sections of all doors in the configuration.
        #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(default)]
        #[expect(missing_docs, reason = "each field is the section of the door of that name")]
        pub struct Settings {
            $(pub $door: $door::settings::Settings,)+
        }

        impl Settings {
            /// The section of each door, by the name of the door.
            #[must_use]
            pub fn all(&self) -> Vec<(&'static str, &dyn DoorSettings)> {
                vec![$((stringify!($door), &self.$door),)+]
            }

            /// The same sections for a caller that changes them.
            pub fn all_mut(&mut self) -> Vec<(&'static str, &mut dyn DoorSettings)> {
                vec![$((stringify!($door), &mut self.$door),)+]
            }
        }

        /// Builds every door. The doors are opened and announced in this order.
        #[must_use]
        pub fn all(settings: &Settings, context: &Context) -> Vec<Arc<dyn Door>> {
            vec![$($door::open(&settings.$door, context),)+]
        }
    };
}

doors! {
    sse,
    socketio,
    websocket,
    nats,
    gateway,
    hms,
}
