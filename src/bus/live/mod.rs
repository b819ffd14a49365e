//! Live messages: subjects below `_bus_.`, which are delivered to the clients that listen now and are never stored.

pub mod reply_subjects;
