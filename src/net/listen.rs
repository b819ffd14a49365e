//! The listen address of a door, as a setting.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A listen address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Listen {
    /// The door is closed.
    Off,
    /// Address and port; port 0 picks a free one.
    Addr(SocketAddr),
}

impl Listen {
    /// A port that only this machine can reach.
    #[must_use]
    pub fn loopback(port: u16) -> Self {
        Self::Addr((Ipv4Addr::LOCALHOST, port).into())
    }

    /// The address, unless the door is closed.
    #[must_use]
    pub fn addr(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::Addr(addr) => Some(addr),
        }
    }

    /// Whether other machines can reach the address.
    #[must_use]
    pub fn is_exposed(self) -> bool {
        self.addr().is_some_and(|addr| !addr.ip().to_canonical().is_loopback())
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        // The one host name that needs no look-up.
        let port = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        if let Some(port) = port {
            return Ok(Self::loopback(port));
        }
        text.parse().map(Self::Addr).map_err(|_| {
            format!(
                "`{text}` is not a listen address; write IP:PORT (127.0.0.1:2021, [::1]:2021), localhost:PORT or off"
            )
        })
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Addr(addr) => addr.fmt(f),
        }
    }
}
