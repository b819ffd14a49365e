//! Live subjects: messages to the subscriptions that there are now, at all nodes, with wildcards and queue groups.
//!
//! Every node has the interest of all nodes: its own subscriptions, and of other nodes each filter and group once. A
//! message goes from the node of its publisher to the nodes that want it, and each gives it to its clients. A queue
//! group has one member that gets a message, at the node of the publisher if there is one.
//!
//! Invariant: nothing is stored, and nothing is sent again: a client that is not there, or does not read, misses messages.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytestring::ByteString;
use rollbook_cluster::lock::lock;

use super::filter::{LiveFilter, LiveSubject, WILDCARD};
use super::generations::Generations;
use super::message::{LiveMessage, LiveSink};
use super::peers::Peers;
use super::route::{Route, Target, Wakes};
use super::table::{Entry, InterestChange, Table, Wanted};

/// Most routes that a node keeps, by subject.
const ROUTES_MAX: usize = 16_384;
/// Most subscriptions in the routes that a node keeps.
const ROUTES_WEIGHT_MAX: usize = 1 << 20;
/// Most routes that a publisher keeps.
const OWN_ROUTES_MAX: usize = 1024;
/// About the most bytes that the subscriptions of this node take.
const OWN_BYTES_MAX: usize = 1 << 30;
/// There are too many subscriptions at this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the live subscriptions of this node take as much memory as they may")]
pub struct Full;

/// The routes that a node keeps.
#[derive(Debug, Default)]
struct Routes {
    by_subject: HashMap<ByteString, Arc<Route>>,
    /// Subscriptions in all of them.
    weight: usize,
}

impl Routes {
    /// Keeps a route, unless there is a newer one.
    fn keep(&mut self, subject: &LiveSubject, route: &Arc<Route>) {
        let before = self.by_subject.get(subject.text());
        if before.is_some_and(|before| before.generation > route.generation) {
            return;
        }
        let weight = |route: &Route| route.weight().saturating_add(1);
        self.weight = self.weight.saturating_sub(before.map_or(0, |before| weight(before)));
        let all = self.weight.saturating_add(weight(route));
        if before.is_none() && self.by_subject.len() >= ROUTES_MAX || all > ROUTES_WEIGHT_MAX {
            *self = Self::default();
        }
        self.weight = self.weight.saturating_add(weight(route));
        // A copy: the text of a message may hold the whole buffer that the message came in.
        self.by_subject.insert(ByteString::from(subject.as_str()), Arc::clone(route));
    }
}

#[derive(Debug)]
struct Inner {
    table: RwLock<Table>,
    /// Counts the changes of the table.
    generations: Generations,
    routes: Mutex<Routes>,
    /// What waits for other nodes.
    peers: Peers,
}

/// The live subjects of a node. Clones share one state.
#[derive(Debug, Clone)]
pub struct LiveSubjects {
    inner: Arc<Inner>,
}

/// A subscription. It ends when this is dropped.
#[derive(Debug)]
pub struct LiveSubscription {
    subjects: LiveSubjects,
    number: u64,
}

impl Drop for LiveSubscription {
    fn drop(&mut self) {
        self.subjects.unsubscribe(self.number);
    }
}

/// The routes that one publisher has used, so that the next message of a subject takes no lock.
#[derive(Debug, Default)]
pub struct OwnRoutes {
    /// The subject of the last message, which most often is that of the next one too.
    last: Option<(ByteString, Arc<Route>)>,
    by_subject: HashMap<ByteString, Arc<Route>>,
}

impl LiveSubjects {
    /// The live subjects of the node in this life.
    #[must_use]
    pub fn new(incarnation: u64) -> Self {
        let (table, routes) = (RwLock::default(), Mutex::default());
        let inner = Inner { table, generations: Generations::default(), routes, peers: Peers::new(incarnation) };
        Self { inner: Arc::new(inner) }
    }

    /// What waits for other nodes.
    pub(in crate::bus) fn peers(&self) -> &Peers {
        &self.inner.peers
    }

    /// Nothing that could leave the table in two parts runs under the lock, so a poisoned table is whole.
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.inner.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.inner.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a route is still that of its subject.
    fn is_current(&self, route: &Route) -> bool {
        self.inner.generations.of(route.group) == route.generation
    }

    /// Messages of what the filter matches go to the sink from now on. With the name of a queue group, one member of
    /// the group gets each of them.
    ///
    /// # Errors
    /// There are too many subscriptions.
    pub fn subscribe(
        &self,
        filter: LiveFilter,
        group: &str,
        (sink, subscription): (Arc<dyn LiveSink>, u64),
        sees_reserved: bool,
    ) -> Result<LiveSubscription, Full> {
        let wanted = Wanted::new(filter, group, sees_reserved);
        let mut table = self.write();
        let bytes = table.own_bytes.saturating_add(wanted.weight());
        if bytes > OWN_BYTES_MAX {
            return Err(Full);
        }
        table.own_bytes = bytes;
        let target = Target { sink, subscription };
        let number = table.add(Entry::Local { wanted: wanted.clone(), target });
        if table.count(&wanted) {
            // Under the lock, so that other nodes hear of changes in their order.
            self.inner.peers.change(InterestChange::Add, &wanted);
        }
        self.inner.generations.changed(&wanted.filter);
        drop(table);
        Ok(LiveSubscription { subjects: self.clone(), number })
    }

    fn unsubscribe(&self, number: u64) {
        let mut table = self.write();
        let Some(entry) = table.remove(number) else { return };
        let wanted = entry.wanted().clone();
        table.own_bytes = table.own_bytes.saturating_sub(wanted.weight());
        if table.discount(&wanted) {
            self.inner.peers.change(InterestChange::Remove, &wanted);
        }
        self.inner.generations.changed(&wanted.filter);
    }

    /// The number of subscriptions of this node.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        let table = self.read();
        table.entries.len().saturating_sub(table.remote.values().map(HashMap::len).sum())
    }

    /// Whether a subscription of this node may want subjects with this first token.
    #[must_use]
    pub fn wants_first_token(&self, first: &str) -> bool {
        let table = self.read();
        table.own_first.contains_key(first) || table.own_first.contains_key(WILDCARD)
    }

    /// All that subscriptions of this node want.
    pub(in crate::bus) fn own_interest(&self) -> Vec<Wanted> {
        self.read().own.keys().cloned().collect()
    }

    /// Changes what another node wants. `replace`: nothing that the node wanted before counts any more.
    pub(in crate::bus) fn set_remote(&self, node: u64, replace: bool, changes: Vec<(InterestChange, Wanted)>) {
        let mut table = self.write();
        let mut known = table.remote.remove(&node).unwrap_or_default();
        if replace {
            self.inner.generations.all_changed();
            known.drain().for_each(|(_, number)| drop(table.remove(number)));
        }
        for (change, wanted) in changes {
            self.inner.generations.changed(&wanted.filter);
            match change {
                InterestChange::Add if known.contains_key(&wanted) => {}
                InterestChange::Add => {
                    let number = table.add(Entry::Remote { wanted: wanted.clone(), node });
                    known.insert(wanted, number);
                }
                InterestChange::Remove => {
                    if let Some(number) = known.remove(&wanted) {
                        table.remove(number);
                    }
                }
            }
        }
        if !known.is_empty() {
            table.remote.insert(node, known);
        }
    }

    /// What another node wants, as far as this node knows.
    #[cfg(test)]
    pub(in crate::bus) fn remote_interest(&self, node: u64) -> Vec<Wanted> {
        self.read().remote.get(&node).map(|known| known.keys().cloned().collect()).unwrap_or_default()
    }

    /// Other nodes whose interest is known.
    pub(in crate::bus) fn remote_nodes(&self) -> Vec<u64> {
        self.read().remote.keys().copied().collect()
    }

    /// Where messages of a subject go.
    pub(super) fn route(&self, subject: &LiveSubject) -> Arc<Route> {
        if let Some(route) = lock(&self.inner.routes).by_subject.get(subject.text())
            && self.is_current(route)
        {
            return Arc::clone(route);
        }
        let group = Generations::group(subject.first_token());
        let table = self.read();
        // Under the lock of the table, which does not change meanwhile.
        let route = Arc::new(table.route(subject, (group, self.inner.generations.of(group))));
        drop(table);
        lock(&self.inner.routes).keep(subject, &route);
        route
    }

    /// Where messages of a subject go, by way of the routes that the publisher has used.
    fn route_of<'o>(&self, subject: &LiveSubject, own: &'o mut OwnRoutes) -> &'o Route {
        let OwnRoutes { last, by_subject } = own;
        let is_it = |(text, route): &mut (ByteString, Arc<Route>)| {
            text.as_bytes() == subject.text().as_bytes() && self.is_current(route)
        };
        let (text, route) = last.take_if(is_it).unwrap_or_else(|| {
            // Copies of the text: that of a message may hold the whole buffer that the message came in.
            if let Some((text, route)) = by_subject.get_key_value(subject.text())
                && self.is_current(route)
            {
                return (text.clone(), Arc::clone(route));
            }
            let (text, route) = (ByteString::from(subject.as_str()), self.route(subject));
            if by_subject.len() >= OWN_ROUTES_MAX {
                by_subject.clear();
            }
            by_subject.insert(text.clone(), Arc::clone(&route));
            (text, route)
        });
        &last.insert((text, route)).1
    }

    /// The subscription of a client, in no queue group, that wants a subject.
    #[must_use]
    pub fn subscription_of(&self, client: u64, subject: &LiveSubject) -> Option<u64> {
        self.find_subscription(client, subject, |group| group.is_empty())
    }

    /// A subscription of a client, in a queue group or in none, that wants a subject.
    #[must_use]
    pub fn any_subscription_of(&self, client: u64, subject: &LiveSubject) -> Option<u64> {
        self.find_subscription(client, subject, |_| true)
    }

    fn find_subscription(&self, client: u64, subject: &LiveSubject, is_wanted: impl Fn(&str) -> bool) -> Option<u64> {
        let (table, mut found) = (self.read(), None);
        table.interest.for_each(subject.as_str(), &mut |numbers| {
            let entries = numbers.iter().filter_map(|number| table.entries.get(number));
            let own = entries.filter_map(|entry| match entry {
                Entry::Local { wanted, target } if is_wanted(&wanted.group) => Some(target),
                Entry::Local { .. } | Entry::Remote { .. } => None,
            });
            found = found.or_else(|| own.into_iter().find(|target| target.sink.client() == client));
        });
        found.map(|target| target.subscription)
    }

    /// Gives a message to all who want it, at all nodes. `except` is a client that does not get its own messages.
    /// Returns whether anybody wanted the message.
    pub fn publish(
        &self,
        subject: &LiveSubject,
        message: &LiveMessage,
        (own, except): (&mut OwnRoutes, Option<u64>),
        wakes: &mut Wakes,
    ) -> bool {
        let route = self.route_of(subject, own);
        if route.is_empty() {
            return false;
        }
        let mut taken = give_to_all(&route.plain, message, except, wakes);
        // Of each other node: the groups of which it is to choose a member.
        let mut elsewhere: Vec<(u64, Vec<&str>)> = route.nodes.iter().map(|node| (*node, Vec::new())).collect();
        for group in &route.groups {
            if group.give(message, except, wakes) {
                taken = true;
            } else if let Some(node) = group.node_in_turn() {
                match elsewhere.iter_mut().find(|(known, _)| *known == node) {
                    Some((_, groups)) => groups.push(&group.name),
                    None => elsewhere.push((node, vec![&group.name])),
                }
            }
        }
        for (node, groups) in elsewhere {
            let plain = route.nodes.binary_search(&node).is_ok();
            taken |= self.inner.peers.send(node, plain, &groups, message);
        }
        taken
    }

    /// Gives a message of another node to the clients of this one: to subscriptions without a group when `plain`, and to
    /// one member of each of these groups.
    pub(in crate::bus) fn deliver_from_peer(
        &self,
        subject: &LiveSubject,
        message: &LiveMessage,
        (plain, groups): (bool, &[ByteString]),
        (own, wakes): (&mut OwnRoutes, &mut Wakes),
    ) {
        let route = self.route_of(subject, own);
        if plain {
            give_to_all(&route.plain, message, None, wakes);
        }
        for name in groups {
            if let Some(group) = route.groups.iter().find(|group| *group.name == **name) {
                group.give(message, None, wakes);
            }
        }
    }

    /// Gives an event of the book to the clients of this node. Every node does so with every event, and the index of the
    /// event says which node chooses the member of a queue group.
    pub fn deliver_event(
        &self,
        subject: &LiveSubject,
        message: &LiveMessage,
        (here, index): (u64, u64),
        (own, wakes): (&mut OwnRoutes, &mut Wakes),
    ) {
        let route = self.route_of(subject, own);
        give_to_all(&route.plain, message, None, wakes);
        for group in route.groups.iter().filter(|group| !group.members.is_empty()) {
            let before = group.nodes.partition_point(|node| *node < here);
            let count = u64::try_from(group.nodes.len()).unwrap_or(u64::MAX).saturating_add(1);
            if index.checked_rem(count) == u64::try_from(before).ok() {
                group.give(message, None, wakes);
            }
        }
    }
}

fn give_to_all(targets: &[Target], message: &LiveMessage, except: Option<u64>, wakes: &mut Wakes) -> bool {
    let others = targets.iter().filter(|target| except.is_none_or(|client| target.sink.client() != client));
    // Every one of them gets the message, also behind one that takes it.
    others.filter(|target| target.give(message, wakes)).count() > 0
}
