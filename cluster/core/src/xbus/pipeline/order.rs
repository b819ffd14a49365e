//! Which node stands before which.

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

/// The numbers of `count` nodes, each behind those with an edge to it; of several that could follow, the first in the
/// text.
///
/// # Errors
/// The first node of the text from which edges lead back to the node.
pub(super) fn topological(count: usize, edges: &[(usize, usize)]) -> Result<Vec<usize>, usize> {
    let mut waiting = vec![0_usize; count];
    for (_, to) in edges {
        if let Some(feeders) = waiting.get_mut(*to) {
            *feeders = feeders.saturating_add(1);
        }
    }
    let mut free: BTreeSet<usize> = (0..count).filter(|node| waiting.get(*node) == Some(&0)).collect();
    let mut order = Vec::with_capacity(count);
    while let Some(node) = free.pop_first() {
        order.push(node);
        for (_, to) in edges.iter().filter(|(from, _)| *from == node) {
            let Some(feeders) = waiting.get_mut(*to) else { continue };
            *feeders = feeders.saturating_sub(1);
            if *feeders == 0 {
                free.insert(*to);
            }
        }
    }
    match (0..count).filter(|node| !order.contains(node)).find(|node| leads_back(*node, edges)) {
        Some(node) => Err(node),
        None => Ok(order),
    }
}

/// Whether edges lead from a node back to the node.
fn leads_back(start: usize, edges: &[(usize, usize)]) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![start]);
    while let Some(node) = next.pop() {
        for (_, to) in edges.iter().filter(|(from, _)| *from == node) {
            if *to == start {
                return true;
            }
            if seen.insert(*to) {
                next.push(*to);
            }
        }
    }
    false
}
