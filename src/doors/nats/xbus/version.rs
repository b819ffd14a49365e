//! The version of the protocol of Xbus that a client says in its name: `<client>@<major>.<minor>`.

/// The major number that this server speaks.
const MAJOR: u32 = 3;

/// Whether the server can talk to a client of this name. A name without a version is that of any client of NATS, which
/// `strict` refuses.
#[must_use]
pub fn is_compatible(name: Option<&str>, strict: bool) -> bool {
    let version = name.and_then(|name| name.rsplit_once('@')).map(|(_, version)| version);
    match version.and_then(|version| version.split('.').next()?.parse::<u32>().ok()) {
        Some(major) => major == MAJOR,
        None => !strict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_major_version_is_refused() {
        for name in ["@3.0", "xbusctl@3.9", "a@b@3", "@3"] {
            assert!(is_compatible(Some(name), true), "{name}");
        }
        for name in ["@2.0", "@4.0", "x@30.1", "@0"] {
            assert!(!is_compatible(Some(name), false), "{name}");
        }
    }

    #[test]
    fn who_says_no_version_is_refused_in_strict_mode_alone() {
        for name in [None, Some(""), Some("orders"), Some("ann@example.com"), Some("x@"), Some("x@v3")] {
            assert!(is_compatible(name, false) && !is_compatible(name, true), "{name:?}");
        }
    }
}
