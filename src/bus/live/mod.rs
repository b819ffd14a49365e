//! Live messages: subjects below `_bus_.`, which are delivered to whoever listens now and are never stored.

pub mod reply_subjects;
