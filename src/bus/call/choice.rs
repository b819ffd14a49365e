//! The choice of a provider among several: pure.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::comma_list::words;

/// How a provider is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The one with the fewest requests in flight; among equals one of this node, then the one that was asked longest
    /// ago.
    #[default]
    LeastInFlight,
    /// One after the other.
    RoundRobin,
    /// A random one.
    Random,
    /// The same one for the same key, while that one is connected; without a key as `least_in_flight`.
    Sticky,
}

/// A provider that may be asked.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Id of the instance: unique among the candidates, and constant while the instance is connected.
    pub instance: &'a str,
    /// Whether the instance is connected to this node.
    pub local: bool,
    /// Requests in flight to the instance, as far as this node knows.
    pub in_flight: u32,
    /// Number of the newest request to the instance. The lowest one was asked longest ago.
    pub asked: u64,
}

/// The inputs of a choice beside the candidates.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// How often the capability was asked for before.
    pub turn: u64,
    /// The key of the request.
    pub key: &'a str,
}

impl Strategy {
    /// The provider to ask. Iterates over the candidates once or twice and collects none of them, because there may be
    /// thousands.
    #[must_use]
    pub fn choose<'a, T, I: Iterator<Item = (T, Candidate<'a>)>>(
        self,
        candidates: impl Fn() -> I,
        turn: Turn<'_>,
        random: &RandomState,
    ) -> Option<T> {
        let chosen = match self {
            Self::RoundRobin | Self::Random => {
                let count = u64::try_from(candidates().count()).ok()?;
                let number = if self == Self::Random { random.hash_one(turn.turn) } else { turn.turn };
                candidates().nth(usize::try_from(number.checked_rem(count)?).ok()?)
            }
            Self::Sticky if !turn.key.is_empty() => {
                candidates().max_by_key(|(_, candidate)| rendezvous(turn.key, candidate.instance))
            }
            Self::LeastInFlight | Self::Sticky => {
                candidates().min_by_key(|(_, candidate)| (candidate.in_flight, !candidate.local, candidate.asked))
            }
        };
        chosen.map(|(it, _)| it)
    }
}

/// Rendezvous hashing: a provider that comes or goes moves only its own keys. The hash (FNV-1a) is fixed, so that all
/// nodes choose alike.
fn rendezvous(key: &str, instance: &str) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in key.bytes().chain([0]).chain(instance.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // FNV mixes its last bytes badly.
    hash ^= hash >> 32;
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Strategies by capability; `*` is for all others.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Strategies(BTreeMap<String, Strategy>);

impl Strategies {
    /// The strategy of a capability.
    #[must_use]
    pub fn of(&self, capability: &str) -> Strategy {
        self.0.get(capability).or_else(|| self.0.get("*")).copied().unwrap_or_default()
    }
}

impl FromStr for Strategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "least_in_flight" => Ok(Self::LeastInFlight),
            "round_robin" => Ok(Self::RoundRobin),
            "random" => Ok(Self::Random),
            "sticky" => Ok(Self::Sticky),
            other => Err(format!("`{other}` is no strategy; write least_in_flight, round_robin, random or sticky")),
        }
    }
}

impl Strategy {
    /// The name in the configuration.
    const fn name(self) -> &'static str {
        match self {
            Self::LeastInFlight => "least_in_flight",
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::Sticky => "sticky",
        }
    }
}

impl TryFrom<String> for Strategies {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut strategies = BTreeMap::new();
        for part in words(&text) {
            let wrong = || format!("`{part}` is not CAPABILITY=STRATEGY, as in users=round_robin,*=least_in_flight");
            let (capability, strategy) = part.split_once('=').ok_or_else(wrong)?;
            if strategies.insert(capability.trim().to_owned(), strategy.trim().parse()?).is_some() {
                return Err(format!("{} is there twice", capability.trim()));
            }
        }
        Ok(Self(strategies))
    }
}

impl From<Strategies> for String {
    fn from(strategies: Strategies) -> Self {
        let part = |(capability, strategy): (&Self, &Strategy)| format!("{capability}={}", strategy.name());
        strategies.0.iter().map(part).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(instance: &str, local: bool, in_flight: u32, asked: u64) -> Candidate<'_> {
        Candidate { instance, local, in_flight, asked }
    }

    fn turn(turn: u64, key: &str) -> Turn<'_> {
        Turn { turn, key }
    }

    #[test]
    fn least_in_flight_prefers_this_node_then_the_one_that_rested_longest() {
        let random = RandomState::new();
        let choose = |candidates: &[Candidate<'_>]| {
            let named = || candidates.iter().map(|one| (one.instance, *one));
            Strategy::LeastInFlight.choose(named, turn(0, ""), &random).map(ToOwned::to_owned)
        };
        assert_eq!(choose(&[]), None);
        let [near, far] = [candidate("near", true, 1, 9), candidate("far", false, 0, 1)];
        assert_eq!(choose(&[near, far]).as_deref(), Some("far"));
        let [near, far] = [candidate("near", true, 1, 9), candidate("far", false, 1, 1)];
        assert_eq!(choose(&[far, near]).as_deref(), Some("near"));
        let [one, two] = [candidate("one", true, 0, 5), candidate("two", true, 0, 4)];
        assert_eq!(choose(&[one, two]).as_deref(), Some("two"));
    }

    #[test]
    fn round_robin_visits_all_and_sticky_moves_only_the_keys_of_the_one_that_leaves() {
        let random = RandomState::new();
        let names: Vec<String> = (0..5).map(|n| format!("i{n}")).collect();
        let all: Vec<Candidate<'_>> = names.iter().map(|name| candidate(name, false, 0, 0)).collect();
        let visited: Vec<usize> = (0..5)
            .filter_map(|n| Strategy::RoundRobin.choose(|| all.iter().copied().enumerate(), turn(n, ""), &random))
            .collect();
        assert_eq!(visited, [0, 1, 2, 3, 4]);
        let mut counts = [0; 5];
        for key in 0..1000 {
            let key = key.to_string();
            let before =
                Strategy::Sticky.choose(|| all.iter().copied().enumerate(), turn(0, &key), &random).unwrap_or(9);
            counts[before] += 1;
            let after = Strategy::Sticky
                .choose(|| all.iter().copied().enumerate().take(4), turn(7, &key), &random)
                .unwrap_or(9);
            assert!(before == 4 || after == before, "key {key} moved from {before} to {after}");
        }
        assert!(counts.iter().all(|count| (100..300).contains(count)), "{counts:?}");
    }

    #[test]
    fn strategies_read_back() {
        let text = "*=random,users=round_robin".to_owned();
        let strategies = Strategies::try_from(text.clone()).unwrap_or_default();
        assert_eq!((strategies.of("users"), strategies.of("mail")), (Strategy::RoundRobin, Strategy::Random));
        assert_eq!(String::from(strategies), text);
        for wrong in ["users", "users=best", "a=random,a=random"] {
            assert!(Strategies::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
