//! The host names of this node, against DNS rebinding.
//!
//! A page of any site may let its own name point to this machine. For the browser that page and this node then have one
//! origin; only the host name in the request shows the difference. An IP address, `localhost` and a name without a dot
//! are safe, because nobody can register them.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The names that requests may use.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    /// Every name is allowed.
    any: bool,
    /// Allowed names.
    names: Vec<String>,
    /// Allowed domains, with their dot: `*.example.com` is `.example.com`.
    domains: Vec<String>,
}

impl Hosts {
    /// These names, beside those that are always safe. `*.example.com` stands for every name below it, `*` for any
    /// name.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let mut hosts = Self::default();
        for name in names {
            let name = name.trim().trim_end_matches('.').to_ascii_lowercase();
            match name.strip_prefix('*') {
                Some("") => hosts.any = true,
                Some(domain) => hosts.domains.push(domain.to_owned()),
                None if name.is_empty() => {}
                None => hosts.names.push(name),
            }
        }
        hosts
    }

    /// Whether a request may use this `host` or `host:port`.
    #[must_use]
    pub fn allow(&self, authority: &str) -> bool {
        let Some(host) = host(authority) else { return self.any };
        self.any || is_safe(host) || {
            let host = host.to_ascii_lowercase();
            self.names.contains(&host) || self.domains.iter().any(|domain| host.ends_with(domain.as_str()))
        }
    }
}

/// The host of `host:port`, without the dot of the root; `None` when the text is invalid.
fn host(authority: &str) -> Option<&str> {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map(|(host, _)| host).filter(|host| host.parse::<Ipv6Addr>().is_ok());
    }
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    host.bytes().all(plain).then(|| host.strip_suffix('.').unwrap_or(host))
}

/// Whether nobody can register this name.
fn is_safe(host: &str) -> bool {
    let below_localhost =
        || host.len() > 10 && host.get(host.len() - 10..).is_some_and(|end| end.eq_ignore_ascii_case(".localhost"));
    !host.contains('.') || host.parse::<Ipv4Addr>().is_ok() || below_localhost()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_somebody_could_register_must_be_configured() {
        let hosts = Hosts::new(["bus.example.com".to_owned(), " *.Svc.Local ".to_owned(), String::new()]);
        for mine in [
            "localhost",
            "localhost:7440",
            "LOCALHOST",
            "a.localhost:1",
            "127.0.0.1",
            "127.0.0.1:2021",
            "[::1]:7440",
            "[::1]",
            "10.1.2.3:1",
            "192.168.0.7",
            "node1",
            "node1:7440",
            "my_node",
            "bus.example.com",
            "Bus.Example.Com:7440",
            "bus.example.com.",
            "a.svc.local",
            "a.b.svc.local:80",
            "",
        ] {
            assert!(hosts.allow(mine), "{mine}");
        }
        for other in [
            "evil.example",
            "evil.example:7440",
            "example.com",
            "a.bus.example.com",
            "svc.local",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "127.1",
            "evil.example@localhost",
            "localhost@evil.example",
            "[::1",
            "[evil.example]",
            "evil localhost",
            ".localhost",
            "1.2.3.4.5",
        ] {
            assert!(!hosts.allow(other), "{other}");
        }
        assert!(Hosts::new(["*".to_owned()]).allow("evil.example") && Hosts::new(["*".to_owned()]).allow("a@b"));
    }
}
