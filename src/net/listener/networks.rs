//! A list of networks, as a setting.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::base::comma_list::words;

/// IP addresses and networks: `10.0.0.7, 192.168.0.0/16, fd00::/8`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether none is listed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address belongs to one of them. An IPv4 address that came over an IPv6 socket is the IPv4 address.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl TryFrom<String> for Networks {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parse = |word: &str| {
            let address = || word.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
            word.parse::<IpNet>().or_else(|_| address()).map_err(|_| {
                format!("`{word}` is neither an IP address nor a network; write 10.0.0.7, 10.0.0.0/8 or fd00::/8")
            })
        };
        words(&text).map(parse).collect::<Result<_, _>>().map(Self)
    }
}

impl From<Networks> for String {
    fn from(networks: Networks) -> Self {
        networks.0.iter().map(IpNet::to_string).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(text: &str) -> Networks {
        Networks::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn addresses_and_networks_are_listed() {
        let listed = networks("10.0.0.7, 192.168.0.0/16,fd00::/8");
        for inside in ["10.0.0.7", "192.168.3.4", "fd00::1", "::ffff:10.0.0.7"] {
            assert!(listed.contain(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["10.0.0.8", "192.169.0.1", "fe80::1", "::1"] {
            assert!(!listed.contain(outside.parse().unwrap()), "{outside}");
        }
        assert_eq!(String::from(listed), "10.0.0.7/32,192.168.0.0/16,fd00::/8");
        assert!(networks("").is_empty() && !networks("0.0.0.0/0,::/0").is_empty());
        assert!(Networks::try_from("10.0.0.0/99".to_owned()).unwrap_err().starts_with("`10.0.0.0/99` is neither"));
    }
}
