//! The text of `/metrics`.

use std::fmt::{Display, Write as _};

/// An OpenMetrics page while it is written.
pub(super) struct Page {
    pub(super) text: String,
}

impl Page {
    /// Begins a family. Its samples must follow at once.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        write!(self.text, "# HELP {name} {help}.\n# TYPE {name} {kind}\n").unwrap_or_default();
    }

    /// Writes a family of one sample.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        writeln!(self.text, "{name} {value}").unwrap_or_default();
    }
}
