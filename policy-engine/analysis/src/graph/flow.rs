//! The smallest cut as a maximum flow (Ford and Fulkerson): every grant is a gate that one unit can pass.
//!
//! Workloads lead to the gates that let them in, gates lead to the workloads that they open. Where each gate opens all of
//! its workloads to everybody whom it lets in, ways through gates are exactly ways over edges, and the gates of a minimum
//! cut are the smallest set of grants. Otherwise there may be more ways than there are: the cut still closes all, but a
//! smaller one might.

use super::{Graph, Reason};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// Arcs that the search may walk: about a second.
const WORK_MAX: usize = 50_000_000;

/// What was found.
pub(super) struct Gates {
    /// Grants that close every way.
    pub(super) grants: BTreeSet<Reason>,
    /// Whether no smaller set does.
    pub(super) smallest: bool,
}

/// The gates of a minimum cut; `None` if the search would take too long, or a start is a goal.
pub(super) fn gates(graph: &Graph, start: &[String], goal: &BTreeSet<String>) -> Option<Gates> {
    if start.iter().any(|node| goal.contains(node)) {
        return None;
    }
    let mut net = Net::default();
    let mut sides: BTreeMap<&Reason, Sides<'_>> = BTreeMap::new();
    for edge in graph.edges.values().flatten() {
        for grant in &edge.grants {
            let side = sides.entry(grant).or_default();
            side.from.insert(&edge.from);
            side.to.insert(&edge.to);
            side.edges += 1;
        }
    }
    let mut smallest = true;
    for (grant, side) in &sides {
        smallest &= side.is_product();
        let (inner, outer) = (Spot::In(grant), Spot::Out(grant));
        net.arc(inner, outer, 1);
        for from in &side.from {
            net.arc(Spot::Workload(from), inner, WIDE);
        }
        for to in &side.to {
            net.arc(outer, Spot::Workload(to), WIDE);
        }
    }
    for node in start {
        net.arc(Spot::Source, Spot::Workload(node), WIDE);
    }
    for node in goal {
        net.arc(Spot::Workload(node), Spot::Sink, WIDE);
    }
    let reached = net.saturated()?;
    let open = |spot: Spot<'_>| net.place(spot).is_some_and(|at| reached.contains(&at));
    let cut = sides
        .keys()
        .filter(|grant| open(Spot::In(grant)) && !open(Spot::Out(grant)));
    Some(Gates {
        grants: cut.map(|grant| (*grant).clone()).collect(),
        smallest,
    })
}

/// Whom a grant lets in, and where.
#[derive(Default)]
struct Sides<'g> {
    from: BTreeSet<&'g str>,
    to: BTreeSet<&'g str>,
    edges: usize,
}

impl Sides<'_> {
    /// Whether it lets everybody in everywhere; nobody has an edge to itself.
    fn is_product(&self) -> bool {
        let own = self.from.intersection(&self.to).count();
        self.edges + own == self.from.len().saturating_mul(self.to.len())
    }
}

/// More than any number of gates.
const WIDE: usize = usize::MAX / 4;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Spot<'g> {
    Source,
    Sink,
    Workload(&'g str),
    In(&'g Reason),
    Out(&'g Reason),
}

/// Arcs with what is left of them; an arc and its reverse stand side by side.
#[derive(Default)]
struct Net<'g> {
    places: HashMap<Spot<'g>, usize>,
    /// Arcs that leave each place.
    leaving: Vec<Vec<usize>>,
    /// Where an arc leads, and how much more it takes.
    arcs: Vec<(usize, usize)>,
}

impl<'g> Net<'g> {
    fn place(&self, spot: Spot<'g>) -> Option<usize> {
        self.places.get(&spot).copied()
    }

    fn spot(&mut self, spot: Spot<'g>) -> usize {
        let next = self.leaving.len();
        let at = *self.places.entry(spot).or_insert(next);
        if at == next {
            self.leaving.push(Vec::new());
        }
        at
    }

    fn arc(&mut self, from: Spot<'g>, to: Spot<'g>, width: usize) {
        let (from, to) = (self.spot(from), self.spot(to));
        for (leaves, leads, width) in [(from, to, width), (to, from, 0)] {
            let number = self.arcs.len();
            self.arcs.push((leads, width));
            if let Some(list) = self.leaving.get_mut(leaves) {
                list.push(number);
            }
        }
    }

    /// Pushes units until no way is left; the places that are still reached then. `None`: too long.
    fn saturated(&mut self) -> Option<BTreeSet<usize>> {
        let (source, sink) = (self.spot(Spot::Source), self.spot(Spot::Sink));
        let mut work = 0usize;
        loop {
            let mut came: HashMap<usize, usize> = HashMap::new();
            let mut queue = VecDeque::from([source]);
            let mut seen = BTreeSet::from([source]);
            while let Some(at) = queue.pop_front() {
                for number in self.leaving.get(at).into_iter().flatten() {
                    work += 1;
                    let Some((leads, left)) = self.arcs.get(*number).copied() else {
                        continue;
                    };
                    if left > 0 && seen.insert(leads) {
                        came.insert(leads, *number);
                        queue.push_back(leads);
                    }
                }
            }
            if !seen.contains(&sink) {
                return Some(seen);
            }
            if work > WORK_MAX {
                return None;
            }
            self.push(sink, &came)?;
        }
    }

    /// One unit on the way that the search came.
    fn push(&mut self, sink: usize, came: &HashMap<usize, usize>) -> Option<()> {
        let mut at = sink;
        while let Some(number) = came.get(&at) {
            let reverse = number ^ 1;
            self.arcs.get_mut(*number)?.1 -= 1;
            let back = self.arcs.get_mut(reverse)?;
            back.1 = back.1.saturating_add(1);
            at = back.0;
        }
        Some(())
    }
}
