//! Explicit-state check of rotations: every interleaving of a CA that crashes, verifiers that join, die, lose their stream,
//! and messages that are lost, late, doubled or passed off as another's, in small instances.
//!
//! Invariants (reference: design of rotation): I1 no live verifier meets a leaf whose root it lacks; I2 no root leaves the
//! bundle while a live leaf needs it; I3 the bundle is never empty; I4 generations never go back and never change their
//! meaning; I5 every step has its evidence; I6 acknowledgments that are forged, late or doubled open no gate. And from
//! every state a calm end can be reached. [`Fault`]s break one part each: the check must then fail.

use super::roster::{Acknowledgment, Challenge, HeldLeaf};
use super::{AuthorityId, Event, Facts, Holder, Phase, Roster, TrustState};
use crate::testing::NOW;
use mesh_trust::SpiffeId;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

/// A part of the CA that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Gate 1 waits for nobody.
    NoGate1,
    /// Gate 2 waits for nobody.
    NoGate2,
    /// The next state is published before it is on disk.
    PublishFirst,
    /// Whatever generation and challenge an acknowledgment has, it is taken for the newest.
    AnyAckCounts,
    /// After a start, only who reconnected is known.
    ForgetHolders,
    /// A verifier whose stream ended is taken for gone.
    CutIsGone,
    /// An acknowledgment ends the life of the newest leaf's predecessors, whichever leaf signed it.
    AnyLeafSupersedes,
}

/// How much happens at most.
#[derive(Clone, Copy)]
struct Bounds {
    /// Verifiers there at the start.
    present: usize,
    /// Verifiers that may join later.
    joining: usize,
    crashes: u8,
    deaths: u8,
    cuts: u8,
    /// Leaves that are issued and never reach their holder.
    lost_leaves: u8,
    aborts: u8,
    distrusts: u8,
}

type Anchors = Vec<AuthorityId>;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Update {
    generation: u64,
    challenge: Challenge,
    anchors: Anchors,
}

/// A verifier.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Process {
    joined: bool,
    alive: bool,
    /// What it applies.
    bundle: Option<(u64, Anchors)>,
    /// What it shows.
    leaf: Option<HeldLeaf>,
    stream: Option<u64>,
    /// Generation sent on the stream last.
    sent: u64,
    inbox: Option<Update>,
    /// What it applied last on this stream, to be acknowledged again with another leaf.
    applied: Option<Update>,
}

/// What a CA loses in a crash.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Memory {
    roster: Roster,
    state: TrustState,
    published: (u64, Anchors),
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    disk: TrustState,
    /// Leaves of the issuance log: holder and leaf.
    log: Vec<(usize, HeldLeaf)>,
    ca: Option<Memory>,
    processes: Vec<Process>,
    /// Acknowledgments under way, with the process that sent them.
    network: BTreeSet<(usize, u64, Challenge, String)>,
    /// Newest bundle that was ever published.
    highest: (u64, Anchors),
    emergency: bool,
    rotations: u8,
    crashes: u8,
    deaths: u8,
    cuts: u8,
    lost_leaves: u8,
    aborts: u8,
    distrusts: u8,
}

fn authority(n: u8) -> AuthorityId {
    AuthorityId::of_certificate(&[n])
}

fn holder(process: usize) -> Holder {
    let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap();
    Holder {
        id,
        instance: format!("{process}"),
    }
}

fn facts(roster: &Roster) -> Facts<'_> {
    Facts {
        drain_secs: 0,
        ..Facts::new(roster, NOW)
    }
}

impl World {
    fn new(bounds: Bounds) -> Self {
        let disk = TrustState::first(authority(1), NOW);
        let nobody = Process {
            joined: false,
            alive: true,
            bundle: None,
            leaf: None,
            stream: None,
            sent: 0,
            inbox: None,
            applied: None,
        };
        let memory = Memory {
            roster: Roster::default(),
            state: disk.clone(),
            published: (disk.generation, disk.anchors.clone()),
        };
        let mut world = Self {
            highest: memory.published.clone(),
            disk,
            log: Vec::new(),
            ca: Some(memory),
            processes: vec![nobody; bounds.present + bounds.joining],
            network: BTreeSet::new(),
            emergency: false,
            rotations: 1,
            crashes: bounds.crashes,
            deaths: bounds.deaths,
            cuts: bounds.cuts,
            lost_leaves: bounds.lost_leaves,
            aborts: bounds.aborts,
            distrusts: bounds.distrusts,
        };
        for process in 0..bounds.present {
            world.issue(process, true);
            world.open(process);
        }
        world
    }

    /// All worlds that can be next.
    fn next(&self, fault: Option<Fault>) -> Vec<Self> {
        let mut all = Vec::new();
        let mut add = |change: &dyn Fn(&mut Self) -> bool| {
            let mut world = self.clone();
            if change(&mut world) {
                all.push(world);
            }
        };
        add(&|world| world.step(&Event::Tick, fault));
        add(&|world| world.publish());
        add(&|world| {
            take(&mut world.rotations) && world.step(&Event::Rotate { new: authority(2) }, fault)
        });
        add(&|world| take(&mut world.aborts) && world.step(&Event::Abort, fault));
        for (drop, keep) in [(1, 2), (2, 1), (1, 3)] {
            let event = Event::Distrust {
                drop: authority(drop),
                keep: authority(keep),
            };
            add(&|world| {
                world.emergency = true;
                take(&mut world.distrusts) && world.step(&event, fault)
            });
        }
        add(&|world| take(&mut world.crashes) && world.ca.take().is_some());
        add(&|world| world.restart(fault));
        for process in 0..self.processes.len() {
            add(&|world| world.issue(process, true));
            add(&|world| take(&mut world.lost_leaves) && world.issue(process, false));
            add(&|world| world.open(process));
            add(&|world| world.push(process));
            add(&|world| world.apply(process));
            add(&|world| world.report(process));
            add(&|world| take(&mut world.cuts) && world.cut(process, fault));
            add(&|world| take(&mut world.deaths) && world.die(process));
            add(&|world| world.notice_death(process));
        }
        for message in &self.network {
            for from in 0..self.processes.len() {
                add(&|world| world.deliver(message, from, fault));
            }
            add(&|world| world.network.remove(message));
        }
        all
    }

    fn step(&mut self, event: &Event, fault: Option<Fault>) -> bool {
        let Some(memory) = &mut self.ca else {
            return false;
        };
        let nobody = Roster::default();
        let roster = match (&memory.state.phase, fault) {
            (Phase::Proving { .. }, Some(Fault::NoGate1))
            | (Phase::Retiring { .. }, Some(Fault::NoGate2)) => &nobody,
            _ => &memory.roster,
        };
        let Ok(Some(transition)) = memory.state.step(event, &facts(roster)) else {
            return false;
        };
        assert!(
            !transition.evidence.is_empty(),
            "I5: a step without evidence"
        );
        assert!(transition.state.is_coherent(), "{:?}", transition.state);
        if fault == Some(Fault::PublishFirst) {
            // In memory and told, not on disk: a crash now forgets it.
            memory.published = (
                transition.state.generation,
                transition.state.anchors.clone(),
            );
            memory.state = transition.state;
        } else {
            self.disk = transition.state.clone();
            memory.state = transition.state;
        }
        true
    }

    fn publish(&mut self) -> bool {
        let Some(memory) = &mut self.ca else {
            return false;
        };
        let fresh = (memory.state.generation, memory.state.anchors.clone());
        let changes = memory.published != fresh || self.disk != memory.state;
        memory.published = fresh;
        self.disk = memory.state.clone();
        changes
    }

    fn restart(&mut self, fault: Option<Fault>) -> bool {
        if self.ca.is_some() {
            return false;
        }
        let mut roster = Roster::default();
        if fault != Some(Fault::ForgetHolders) {
            self.log
                .iter()
                .for_each(|(process, leaf)| roster.issued(&holder(*process), leaf.clone()));
        }
        roster.all_away();
        let (state, published) = (
            self.disk.clone(),
            (self.disk.generation, self.disk.anchors.clone()),
        );
        self.ca = Some(Memory {
            roster,
            state,
            published,
        });
        self.processes.iter_mut().for_each(|process| {
            process.stream = None;
            process.inbox = None;
            process.applied = None;
        });
        true
    }

    /// A leaf for whoever has none, or one under the wrong authority.
    fn issue(&mut self, process: usize, arrives: bool) -> bool {
        let Some(memory) = &mut self.ca else {
            return false;
        };
        let this = &mut self.processes[process];
        // Whoever issues holds the desk, and a step that is on disk is told to everybody before it is let go.
        if memory.published.0 != memory.state.generation {
            return false;
        }
        let wanted = memory.state.authority_for(&holder(process)).clone();
        if !this.alive
            || this
                .leaf
                .as_ref()
                .is_some_and(|leaf| leaf.authority == wanted)
        {
            return false;
        }
        let leaf = HeldLeaf {
            serial: format!("{}", self.log.len()),
            authority: wanted,
            not_after: NOW.plus_secs(86_400),
        };
        memory.roster.issued(&holder(process), leaf.clone());
        self.log.push((process, leaf.clone()));
        if arrives {
            this.joined = true;
            this.leaf = Some(leaf);
            // What comes with the first SVID; later bundles come on the trust stream.
            this.bundle.get_or_insert_with(|| memory.published.clone());
        }
        true
    }

    fn open(&mut self, process: usize) -> bool {
        let this = &mut self.processes[process];
        let Some(memory) = self
            .ca
            .as_mut()
            .filter(|_| this.alive && this.joined && this.stream.is_none())
        else {
            return false;
        };
        this.stream = memory.roster.opened(&holder(process));
        this.sent = 0;
        this.stream.is_some()
    }

    fn push(&mut self, process: usize) -> bool {
        let this = &mut self.processes[process];
        let (Some(memory), Some(stream)) = (&mut self.ca, this.stream) else {
            return false;
        };
        let (generation, anchors) = memory.published.clone();
        if this.sent >= generation {
            return false;
        }
        let mut challenge = [0; 32];
        challenge[0] = process as u8;
        challenge[1] = stream as u8;
        challenge[2] = generation as u8;
        memory
            .roster
            .challenged(&holder(process), stream, generation, challenge);
        this.sent = generation;
        this.inbox = Some(Update {
            generation,
            challenge,
            anchors,
        });
        true
    }

    fn apply(&mut self, process: usize) -> bool {
        let this = &mut self.processes[process];
        let (true, Some(update)) = (this.alive, this.inbox.take()) else {
            return false;
        };
        let older = |(generation, _): &(u64, Anchors)| update.generation < *generation;
        if !this.bundle.as_ref().is_some_and(older) {
            this.bundle = Some((update.generation, update.anchors.clone()));
            this.applied = Some(update);
            self.report(process);
        }
        true
    }

    /// Acknowledges what is applied, with the leaf in use: again after a loss, or because the leaf is another.
    fn report(&mut self, process: usize) -> bool {
        let this = &self.processes[process];
        let (true, Some(update), Some(leaf)) = (this.alive, &this.applied, &this.leaf) else {
            return false;
        };
        let message = (
            process,
            update.generation,
            update.challenge,
            leaf.serial.clone(),
        );
        self.network.insert(message)
    }

    /// Delivers an acknowledgment as if `from` had sent it. It stays under way: it may come again, and late.
    fn deliver(
        &mut self,
        message: &(usize, u64, Challenge, String),
        from: usize,
        fault: Option<Fault>,
    ) -> bool {
        let Some(memory) = &mut self.ca else {
            return false;
        };
        let (_, generation, challenge, serial) = message.clone();
        let mut ack = Acknowledgment {
            generation,
            challenge,
            serial,
            canary: Ok(()),
            skew_secs: 0,
            refused_handshakes: 0,
        };
        let this = &self.processes[from];
        if fault == Some(Fault::AnyAckCounts)
            && let Some(stream) = this.stream
        {
            ack.generation = this.sent;
            memory
                .roster
                .challenged(&holder(from), stream, ack.generation, challenge);
        }
        if fault == Some(Fault::AnyLeafSupersedes)
            && let Some(newest) = memory.roster.leaves_of(&holder(from)).last()
        {
            ack.serial = newest.serial.clone();
        }
        memory.roster.acknowledge(&holder(from), &ack).is_ok()
    }

    fn cut(&mut self, process: usize, fault: Option<Fault>) -> bool {
        let this = &mut self.processes[process];
        let (Some(memory), Some(stream)) = (&mut self.ca, this.stream.take()) else {
            return false;
        };
        this.inbox = None;
        this.applied = None;
        if fault == Some(Fault::CutIsGone) {
            memory.roster.ended(&holder(process));
        } else {
            memory.roster.closed(&holder(process), stream);
        }
        true
    }

    /// The process ends, or its SVID does: either way it verifies nobody and shows nothing.
    fn die(&mut self, process: usize) -> bool {
        let this = &mut self.processes[process];
        let lives = this.alive && this.joined;
        this.alive = false;
        this.inbox = None;
        lives
    }

    fn notice_death(&mut self, process: usize) -> bool {
        let Some(memory) = self.ca.as_mut().filter(|_| !self.processes[process].alive) else {
            return false;
        };
        let before = memory.roster.clone();
        memory.roster.ended(&holder(process));
        memory.roster != before
    }

    /// The first invariant that does not hold.
    fn check(&mut self) -> Result<(), String> {
        if let Some(memory) = &self.ca {
            let (generation, anchors) = &memory.published;
            if anchors.is_empty() {
                return Err("I3: an empty bundle".into());
            }
            if *generation < self.highest.0
                || (*generation == self.highest.0 && *anchors != self.highest.1)
            {
                return Err(format!(
                    "I4: generation {generation} after {}",
                    self.highest.0
                ));
            }
            self.highest = memory.published.clone();
        }
        if self.emergency {
            return Ok(());
        }
        let live = || self.processes.iter().filter(|process| process.alive);
        for leaf in live().filter_map(|process| process.leaf.as_ref()) {
            if live().any(|verifier| {
                verifier
                    .bundle
                    .as_ref()
                    .is_some_and(|(_, roots)| !roots.contains(&leaf.authority))
            }) {
                return Err(format!(
                    "I1: a live verifier meets leaf {} and lacks its root",
                    leaf.serial
                ));
            }
            if !self.disk.anchors.contains(&leaf.authority) {
                return Err(format!(
                    "I2: leaf {} is in use and its root is gone",
                    leaf.serial
                ));
            }
        }
        Ok(())
    }

    fn is_calm(&self) -> bool {
        self.ca.is_some() && matches!(self.disk.phase, Phase::Steady { .. })
    }
}

fn take(left: &mut u8) -> bool {
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}

/// Two worlds of the same hash are taken for one: among 200,000 that happens once in a billion runs.
fn hash(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug, Default)]
struct Explored {
    states: usize,
    /// Rotations that ended with the new root alone, and with the old one.
    forward: usize,
    back: usize,
}

/// Visits every world; the first broken invariant ends it.
fn explore(bounds: Bounds, fault: Option<Fault>) -> Result<Explored, String> {
    let first = World::new(bounds);
    let mut seen = HashMap::from([(hash(&first), 0usize)]);
    let mut before: Vec<Vec<u32>> = vec![Vec::new()];
    let mut calm = Vec::new();
    let mut waiting = VecDeque::from([(0usize, first)]);
    let mut explored = Explored::default();
    while let Some((index, world)) = waiting.pop_front() {
        explored.states += 1;
        if world.is_calm() {
            calm.push(index);
            explored.forward += usize::from(world.disk.anchors == [authority(2)]);
            explored.back +=
                usize::from(world.disk.generation > 1 && world.disk.anchors == [authority(1)]);
        }
        for mut next in world.next(fault) {
            next.check()?;
            let fresh = before.len();
            let at = *seen.entry(hash(&next)).or_insert(fresh);
            if at == fresh {
                before.push(Vec::new());
                waiting.push_back((at, next));
            }
            before[at].push(index as u32);
        }
    }
    // Backwards from the calm ends: whatever is not met there is stuck.
    let mut reached = vec![false; before.len()];
    while let Some(index) = calm.pop() {
        if !std::mem::replace(&mut reached[index], true) {
            calm.extend(before[index].iter().map(|at| *at as usize));
        }
    }
    let stuck = reached.iter().filter(|reached| !**reached).count();
    if stuck > 0 && fault.is_none() {
        return Err(format!("{stuck} of {} states lead nowhere", before.len()));
    }
    Ok(explored)
}

const CALM: Bounds = Bounds {
    present: 2,
    joining: 0,
    crashes: 0,
    deaths: 0,
    cuts: 0,
    lost_leaves: 0,
    aborts: 0,
    distrusts: 0,
};

#[test]
fn no_interleaving_of_a_rotation_breaks_an_invariant() {
    for bounds in [
        Bounds { cuts: 1, ..CALM },
        Bounds {
            lost_leaves: 1,
            ..CALM
        },
        Bounds {
            present: 1,
            joining: 1,
            ..CALM
        },
        Bounds {
            present: 1,
            joining: 1,
            deaths: 1,
            ..CALM
        },
        Bounds {
            present: 1,
            crashes: 2,
            cuts: 1,
            lost_leaves: 1,
            ..CALM
        },
    ] {
        let explored = explore(bounds, None).unwrap();
        println!("{explored:?}");
        assert!(
            explored.forward > 0 && explored.states > 200,
            "{explored:?}"
        );
    }
}

#[test]
fn no_interleaving_with_an_abort_breaks_an_invariant() {
    for bounds in [
        Bounds { aborts: 1, ..CALM },
        Bounds {
            present: 1,
            aborts: 1,
            crashes: 1,
            cuts: 1,
            ..CALM
        },
    ] {
        let explored = explore(bounds, None).unwrap();
        println!("{explored:?}");
        assert!(explored.forward > 0 && explored.back > 0, "{explored:?}");
    }
}

#[test]
fn distrust_at_any_moment_keeps_bundle_and_generations() {
    let explored = explore(
        Bounds {
            present: 1,
            distrusts: 1,
            crashes: 1,
            ..CALM
        },
        None,
    )
    .unwrap();
    println!("{explored:?}");
    assert!(explored.states > 200, "{explored:?}");
}

#[test]
fn every_broken_part_is_found() {
    for (fault, bounds, invariant) in [
        (Fault::NoGate1, CALM, "I1"),
        (Fault::NoGate2, CALM, "I2"),
        (
            Fault::PublishFirst,
            Bounds {
                present: 1,
                crashes: 1,
                ..CALM
            },
            "I4",
        ),
        (Fault::AnyAckCounts, CALM, "I1"),
        (Fault::ForgetHolders, Bounds { crashes: 1, ..CALM }, "I"),
        (Fault::CutIsGone, Bounds { cuts: 1, ..CALM }, "I"),
        (
            Fault::AnyLeafSupersedes,
            Bounds {
                present: 1,
                lost_leaves: 1,
                ..CALM
            },
            "I2",
        ),
    ] {
        let found = explore(bounds, Some(fault)).expect_err(&format!("{fault:?} goes unnoticed"));
        println!("{fault:?}: {found}");
        assert!(found.starts_with(invariant), "{fault:?}: {found}");
    }
}
