//! Gates by name and reason, waves, halts, waivers; what is refused.

use super::roster::{AckError, Acknowledgment, HeldLeaf, Presence};
use super::*;
use crate::testing::NOW;
use mesh_trust::SpiffeId;

fn authority(n: u8) -> AuthorityId {
    AuthorityId::of_certificate(&[n])
}

fn holder(name: &str) -> Holder {
    Holder {
        id: SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/{name}")).unwrap(),
        instance: "pid 7".into(),
    }
}

fn leaf(serial: &str, n: u8) -> HeldLeaf {
    HeldLeaf {
        serial: serial.into(),
        authority: authority(n),
        not_after: NOW.plus_secs(3_600),
    }
}

fn ack(generation: u64, serial: &str) -> Acknowledgment {
    Acknowledgment {
        generation,
        challenge: [generation as u8; 32],
        serial: serial.into(),
        canary: Ok(()),
        skew_secs: 0,
        refused_handshakes: 0,
    }
}

/// A mesh of one CA whose verifiers do what they are told.
struct Mesh {
    state: TrustState,
    roster: Roster,
    now: Timestamp,
}

impl Mesh {
    fn of(names: &[&str]) -> Self {
        let mut roster = Roster::default();
        for name in names {
            roster.issued(&holder(name), leaf(&format!("{name}-1"), 1));
            roster.opened(&holder(name)).unwrap();
        }
        Self {
            state: TrustState::first(authority(1), NOW),
            roster,
            now: NOW,
        }
    }

    fn facts(&self) -> Facts<'_> {
        Facts::new(&self.roster, self.now)
    }

    fn step(&mut self, event: Event) -> Result<bool, RotationError> {
        let next = self.state.step(&event, &self.facts())?;
        Ok(next.map(|next| self.state = next.state).is_some())
    }

    fn rotate(&mut self) {
        assert!(self.step(Event::Rotate { new: authority(2) }).unwrap());
    }

    fn acknowledge(&mut self, name: &str, serial: &str) -> Result<(), AckError> {
        let (holder, generation) = (holder(name), self.state.generation);
        let stream = self.roster.opened(&holder).unwrap();
        self.roster
            .challenged(&holder, stream, generation, [generation as u8; 32]);
        self.roster.acknowledge(&holder, &ack(generation, serial))
    }

    fn move_to(&mut self, name: &str, n: u8) {
        let serial = format!("{name}-on-{n}");
        self.roster.issued(&holder(name), leaf(&serial, n));
        self.acknowledge(name, &serial).unwrap();
    }

    fn blockers(&self) -> Vec<(String, String)> {
        let all = self.state.blockers(&self.facts());
        let last = |name: &str| name.rsplit('/').next().unwrap().to_owned();
        all.iter()
            .map(|blocker| (last(&blocker.name), blocker.reason.to_string()))
            .collect()
    }

    fn until_retiring(names: &[&str]) -> Self {
        let mut mesh = Self::of(names);
        mesh.rotate();
        for name in names {
            mesh.acknowledge(name, &format!("{name}-1")).unwrap();
        }
        for _ in 0..3 {
            for name in names {
                if mesh.state.authority_for(&holder(name)) == &authority(2) {
                    mesh.move_to(name, 2);
                }
            }
            mesh.step(Event::Tick).unwrap();
        }
        assert_eq!(mesh.state.phase.name(), "retiring");
        mesh
    }
}

#[test]
fn a_whole_rotation_goes_through_its_gates_in_order() {
    let mut mesh = Mesh::of(&["a", "b", "c"]);
    mesh.rotate();
    assert_eq!((mesh.state.generation, mesh.state.anchors.len()), (2, 2));
    assert!(!mesh.step(Event::Tick).unwrap(), "nobody acknowledged");
    for name in ["a", "b", "c"] {
        assert!(!mesh.step(Event::Tick).unwrap());
        mesh.acknowledge(name, &format!("{name}-1")).unwrap();
    }
    assert!(mesh.step(Event::Tick).unwrap());
    let first: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .filter(|name| *mesh.state.authority_for(&holder(name)) == authority(2))
        .collect();
    assert_eq!(first.len(), 1, "the first wave is as small as can be");
    assert!(!mesh.step(Event::Tick).unwrap(), "the wave has not moved");
    mesh.move_to(first[0], 2);
    assert!(mesh.step(Event::Tick).unwrap() && mesh.step(Event::Tick).unwrap());
    assert_eq!(mesh.state.phase.name(), "retiring");
    assert!(
        !mesh.step(Event::Tick).unwrap(),
        "two leaves are left under the old root"
    );
    for name in ["a", "b", "c"] {
        assert_eq!(*mesh.state.authority_for(&holder(name)), authority(2));
        mesh.move_to(name, 2);
    }
    assert!(mesh.step(Event::Tick).unwrap(), "gate 2 opens");
    assert!(!mesh.step(Event::Tick).unwrap(), "connections drain");
    mesh.now = mesh.now.plus_secs(i64::try_from(DRAIN_SECS).unwrap());
    assert!(mesh.step(Event::Tick).unwrap());
    assert_eq!(
        (mesh.state.generation, mesh.state.anchors.as_slice()),
        (3, &[authority(2)][..])
    );
    assert!(
        !mesh.step(Event::Tick).unwrap(),
        "nobody acknowledged that the root is gone"
    );
    for name in ["a", "b", "c"] {
        mesh.acknowledge(name, &format!("{name}-on-2")).unwrap();
    }
    assert!(mesh.step(Event::Tick).unwrap());
    assert_eq!(
        mesh.state.phase,
        Phase::Steady {
            active: authority(2)
        }
    );
    assert_eq!(mesh.state.retired, BTreeSet::from([authority(1)]));
    assert!(mesh.state.destroyed(&authority(1)).state.retired.is_empty());
}

#[test]
fn each_blocker_has_its_name_and_reason() {
    let mut mesh = Mesh::of(&["silent", "refuses", "away", "done"]);
    mesh.roster.issued(&holder("plain"), leaf("plain-1", 1));
    mesh.rotate();
    mesh.acknowledge("done", "done-1").unwrap();
    let stream = mesh.roster.opened(&holder("away")).unwrap();
    mesh.roster.closed(&holder("away"), stream);
    let stream = mesh.roster.opened(&holder("refuses")).unwrap();
    mesh.roster
        .challenged(&holder("refuses"), stream, 2, [2; 32]);
    let refusal = Acknowledgment {
        canary: Err("not valid before tomorrow".into()),
        ..ack(2, "refuses-1")
    };
    mesh.roster
        .acknowledge(&holder("refuses"), &refusal)
        .unwrap();
    let until = NOW.plus_secs(3_600);
    let wanted = [
        (
            "away",
            format!("is not connected; its SVID is good until {until}"),
        ),
        (
            "plain",
            format!(
                "is a plain SPIFFE client and cannot acknowledge; its SVID is good until {until}"
            ),
        ),
        (
            "refuses",
            "refuses the canary: not valid before tomorrow".into(),
        ),
        ("silent", "has not acknowledged generation 2".into()),
    ];
    assert_eq!(
        mesh.blockers(),
        wanted.map(|(name, reason)| (name.to_owned(), reason))
    );
    mesh.now = until.plus_secs(2);
    mesh.roster.forget_expired(mesh.now);
    assert_eq!(
        mesh.blockers(),
        [],
        "past its SVID nobody can verify anybody"
    );
}

#[test]
fn a_verifier_that_joins_while_proving_is_waited_for() {
    let mut mesh = Mesh::of(&["a"]);
    mesh.rotate();
    mesh.acknowledge("a", "a-1").unwrap();
    mesh.roster.issued(&holder("new"), leaf("new-1", 1));
    assert!(!mesh.step(Event::Tick).unwrap());
    mesh.acknowledge("new", "new-1").unwrap();
    assert!(mesh.step(Event::Tick).unwrap());
}

#[test]
fn forged_late_and_doubled_acknowledgments_change_nothing() {
    let mut mesh = Mesh::of(&["a", "b"]);
    mesh.rotate();
    let stream = mesh.roster.opened(&holder("a")).unwrap();
    assert!(matches!(
        mesh.roster.acknowledge(&holder("a"), &ack(2, "a-1")),
        Err(AckError::NotAsked { .. })
    ));
    mesh.roster.challenged(&holder("a"), stream, 2, [2; 32]);
    let before = mesh.roster.clone();
    for (who, wrong, want) in [
        ("a", ack(1, "a-1"), "MESH-0911"),
        ("a", ack(3, "a-1"), "MESH-0911"),
        (
            "a",
            Acknowledgment {
                challenge: [9; 32],
                ..ack(2, "a-1")
            },
            "MESH-0912",
        ),
        ("a", ack(2, "b-1"), "MESH-0913"),
        ("a", ack(2, ""), "MESH-0913"),
        ("b", ack(2, "b-1"), "MESH-0910"),
        ("nobody", ack(2, "a-1"), "MESH-0910"),
    ] {
        let error = mesh.roster.acknowledge(&holder(who), &wrong).unwrap_err();
        assert_eq!(
            miette::Diagnostic::code(&error).unwrap().to_string(),
            want,
            "{error}"
        );
        assert_eq!(mesh.roster, before, "{error}");
    }
    mesh.roster
        .acknowledge(&holder("a"), &ack(2, "a-1"))
        .unwrap();
    let once = mesh.roster.clone();
    mesh.roster
        .acknowledge(&holder("a"), &ack(2, "a-1"))
        .unwrap();
    assert_eq!(mesh.roster, once, "doubled");
    mesh.roster.challenged(&holder("a"), stream - 1, 2, [7; 32]);
    assert_eq!(
        mesh.roster, once,
        "a challenge of a stream that was replaced"
    );
    mesh.roster.closed(&holder("a"), stream - 1);
    assert_eq!(mesh.roster, once, "the end of a stream that was replaced");
}

#[test]
fn an_acknowledgment_with_an_old_leaf_does_not_supersede_a_newer_one() {
    let mut mesh = Mesh::of(&["a"]);
    for serial in ["a-2", "a-3"] {
        mesh.roster.issued(&holder("a"), leaf(serial, 2));
    }
    mesh.acknowledge("a", "a-2").unwrap();
    let left: Vec<_> = mesh
        .roster
        .leaves()
        .map(|(_, leaf)| leaf.serial.as_str())
        .collect();
    assert_eq!(left, ["a-2", "a-3"]);
    mesh.roster.failed(&holder("a"), "a-3");
    assert_eq!(mesh.roster.leaves().count(), 1);
    mesh.roster.failed(&holder("a"), "a-2");
    assert_eq!(mesh.roster.verifiers().count(), 0);
}

#[test]
fn a_waiver_names_one_blocker_and_ends_with_the_rotation() {
    let mut mesh = Mesh::of(&["a", "b"]);
    mesh.rotate();
    mesh.acknowledge("a", "a-1").unwrap();
    for name in [
        "spiffe://cluster.local/ns/shop/sa/a",
        "b",
        "spiffe://cluster.local/ns/shop/sa/b#pid 8",
    ] {
        let refused = mesh.step(Event::Waive { name: name.into() });
        assert!(
            matches!(refused, Err(RotationError::NothingToWaive { .. })),
            "{name}"
        );
    }
    assert!(!mesh.step(Event::Tick).unwrap());
    assert!(
        mesh.step(Event::Waive {
            name: "spiffe://cluster.local/ns/shop/sa/b#pid 7".into()
        })
        .unwrap()
    );
    assert!(mesh.step(Event::Tick).unwrap());
    assert_eq!(
        mesh.state.waived.len(),
        1,
        "it holds for the later gates too"
    );
    mesh.state = TrustState::first(authority(1), NOW);
    mesh.state
        .waived
        .insert("spiffe://cluster.local/ns/shop/sa/b".into());
    mesh.rotate();
    assert!(mesh.state.waived.is_empty());
}

#[test]
fn refused_handshakes_halt_the_cutover_until_somebody_resumes_it() {
    let mut mesh = Mesh::of(&["a"]);
    mesh.rotate();
    mesh.acknowledge("a", "a-1").unwrap();
    mesh.step(Event::Tick).unwrap();
    mesh.roster.issued(&holder("a"), leaf("a-2", 2));
    let stream = mesh.roster.opened(&holder("a")).unwrap();
    mesh.roster.challenged(&holder("a"), stream, 2, [2; 32]);
    let many = Acknowledgment {
        refused_handshakes: HANDSHAKES_REFUSED_MAX + 1,
        ..ack(2, "a-2")
    };
    mesh.roster.acknowledge(&holder("a"), &many).unwrap();
    assert!(mesh.step(Event::Tick).unwrap());
    assert!(mesh.state.halted.is_some() && !mesh.step(Event::Tick).unwrap());
    assert_eq!(mesh.state.phase.name(), "cutting over");
    assert!(mesh.step(Event::Resume).unwrap());
    assert_eq!(mesh.step(Event::Resume), Err(RotationError::NotHalted));
    assert!(mesh.step(Event::Tick).unwrap());
}

#[test]
fn an_abort_goes_back_by_evidence_and_destroys_the_new_key() {
    let mut mesh = Mesh::until_retiring(&["a", "b"]);
    assert!(mesh.step(Event::Abort).unwrap());
    assert_eq!(mesh.state.phase.name(), "rolling back");
    assert!(
        !mesh.step(Event::Tick).unwrap(),
        "leaves under the new root are in use"
    );
    assert!(matches!(
        mesh.step(Event::Abort),
        Err(RotationError::NothingToAbort { .. })
    ));
    mesh.move_to("a", 1);
    mesh.move_to("b", 1);
    assert!(mesh.step(Event::Tick).unwrap());
    mesh.now = mesh.now.plus_secs(3_600);
    assert!(mesh.step(Event::Tick).unwrap());
    assert_eq!(
        (mesh.state.generation, mesh.state.anchors.as_slice()),
        (3, &[authority(1)][..])
    );
    assert!(
        matches!(
            mesh.step(Event::Abort),
            Err(RotationError::NothingToAbort { .. })
        ),
        "past the drop"
    );
}

#[test]
fn a_leaf_that_turns_up_late_closes_gate_two_again() {
    let mut mesh = Mesh::until_retiring(&["a"]);
    assert!(mesh.step(Event::Tick).unwrap());
    mesh.roster.issued(&holder("late"), leaf("late-1", 1));
    mesh.now = mesh.now.plus_secs(3_600);
    assert!(mesh.step(Event::Tick).unwrap());
    assert!(matches!(
        mesh.state.phase,
        Phase::Retiring {
            clear_since: None,
            ..
        }
    ));
    assert_eq!(mesh.state.anchors.len(), 2);
}

#[test]
fn one_rotation_at_a_time_and_never_to_a_root_that_is_there() {
    let mut mesh = Mesh::of(&["a"]);
    let same = mesh.step(Event::Rotate { new: authority(1) });
    assert_eq!(same, Err(RotationError::SameAuthority { id: authority(1) }));
    assert!(matches!(
        mesh.step(Event::Abort),
        Err(RotationError::NothingToAbort { .. })
    ));
    mesh.rotate();
    let second = mesh.step(Event::Rotate { new: authority(3) });
    assert_eq!(second, Err(RotationError::UnderWay { phase: "proving" }));
}

#[test]
fn distrust_leaves_one_root_and_says_who_was_not_ready() {
    let mut mesh = Mesh::of(&["a", "b"]);
    let (one, two) = (authority(1), authority(2));
    assert_eq!(
        mesh.state.blast_radius(&one, &two, &mesh.facts()).len(),
        4,
        "two verifiers, two leaves"
    );
    for (drop, keep) in [(2, 1), (1, 1)] {
        let refused = mesh.step(Event::Distrust {
            drop: authority(drop),
            keep: authority(keep),
        });
        assert!(
            matches!(refused, Err(RotationError::CannotDistrust { .. })),
            "{drop} {keep}"
        );
    }
    assert!(
        mesh.step(Event::Distrust {
            drop: one.clone(),
            keep: two.clone()
        })
        .unwrap()
    );
    assert_eq!(mesh.state.anchors, std::slice::from_ref(&two));
    assert_eq!(mesh.state.retired, BTreeSet::from([one.clone()]));
    assert_eq!(*mesh.state.authority_for(&holder("a")), two);
    let back = mesh.step(Event::Distrust {
        drop: two,
        keep: one,
    });
    assert!(
        matches!(back, Err(RotationError::CannotDistrust { .. })),
        "what was distrusted never comes back"
    );
}

#[test]
fn federated_domains_get_their_time() {
    let mut mesh = Mesh::of(&["a"]);
    mesh.rotate();
    mesh.acknowledge("a", "a-1").unwrap();
    let facts = Facts {
        federation_secs: Some(300),
        ..mesh.facts()
    };
    let blockers = mesh.state.blockers(&facts);
    assert_eq!(
        blockers[0].reason,
        Reason::Federation {
            until: NOW.plus_secs(300)
        }
    );
    assert!(
        mesh.state
            .blockers(&Facts {
                now: NOW.plus_secs(300),
                ..facts
            })
            .is_empty()
    );
    let waive = Event::Waive {
        name: "federation".to_owned(),
    };
    let waived = mesh.state.step(&waive, &facts).unwrap().unwrap().state;
    assert!(
        waived.blockers(&facts).is_empty(),
        "and no longer than a person wants"
    );
}

/// A certificate that somebody took from the Kubernetes API: nobody ever acknowledges for it.
#[test]
fn whoever_is_outside_gets_time_to_take_the_bundle_and_keeps_the_old_root_for_as_long_as_its_leaf()
{
    use crate::limits::OUTSIDE_SECS;
    let outside = Holder {
        instance: crate::attestation::kubernetes::outside("certificate request shop/w-1 uid 1"),
        ..holder("web")
    };
    let mut mesh = Mesh::of(&["cart"]);
    mesh.roster.issued(&outside, leaf("web-1", 1));
    mesh.rotate();
    mesh.acknowledge("cart", "cart-1").unwrap();
    mesh.now = NOW.plus_secs(OUTSIDE_SECS - 1);
    assert!(!mesh.step(Event::Tick).unwrap());
    let reasons = |mesh: &Mesh| -> Vec<&str> {
        let blockers = mesh.state.blockers(&mesh.facts());
        blockers.iter().map(|one| one.reason.kind()).collect()
    };
    assert_eq!(reasons(&mesh), ["outside"]);
    mesh.now = NOW.plus_secs(OUTSIDE_SECS);
    assert_eq!(mesh.roster.heard().count(), 1);
    let up_to = mesh.roster.place_of_part(0.01);
    assert_eq!(
        up_to,
        holder("cart").place(),
        "a wave is of those that are heard of"
    );
    assert!(mesh.step(Event::Tick).unwrap(), "it cuts over");
    mesh.move_to("cart", 2);
    while mesh.step(Event::Tick).unwrap() {}
    assert!(matches!(mesh.state.phase, Phase::Retiring { .. }));
    assert_eq!(reasons(&mesh), ["holdsLeaf"]);
    mesh.now = leaf("web-1", 1).not_after.plus_secs(2);
    mesh.roster.issued(
        &holder("cart"),
        HeldLeaf {
            not_after: mesh.now.plus_secs(600),
            ..leaf("cart-3", 2)
        },
    );
    mesh.roster.forget_expired(mesh.now);
    // A new one of the same, under the new root, stands in nobody's way.
    mesh.roster.issued(
        &outside,
        HeldLeaf {
            not_after: mesh.now.plus_secs(600),
            ..leaf("web-2", 2)
        },
    );
    assert!(reasons(&mesh).is_empty(), "{:?}", mesh.blockers());
    mesh.step(Event::Tick).unwrap();
    mesh.now = mesh.now.plus_secs(DRAIN_SECS as i64 + 1);
    while mesh.step(Event::Tick).unwrap() {}
    assert!(
        matches!(mesh.state.phase, Phase::Dropping { .. }),
        "{:?}",
        mesh.state.phase
    );
    assert_eq!(reasons(&mesh), ["notAcknowledged"], "of `cart` alone");
}

#[test]
fn a_state_is_read_as_it_was_written_and_only_if_it_fits_together() {
    let mut mesh = Mesh::until_retiring(&["a"]);
    mesh.state.waived.insert("x".into());
    let text = serde_json::to_string(&mesh.state).unwrap();
    let read: TrustState = serde_json::from_str(&text).unwrap();
    assert_eq!(read, mesh.state);
    assert!(read.is_coherent());
    for broken in [
        TrustState {
            anchors: Vec::new(),
            ..read.clone()
        },
        TrustState {
            anchors: vec![authority(1)],
            ..read.clone()
        },
        TrustState {
            anchors: vec![authority(1), authority(2), authority(1)],
            ..read.clone()
        },
        TrustState {
            generation: 0,
            ..read.clone()
        },
        TrustState {
            retired: BTreeSet::from([authority(2)]),
            ..read.clone()
        },
        TrustState {
            phase: Phase::Dropping {
                keep: authority(1),
                drop: authority(2),
            },
            ..read
        },
    ] {
        assert!(!broken.is_coherent(), "{broken:?}");
    }
    assert!(serde_json::from_str::<TrustState>(&text.replace("waived", "wavied")).is_err());
    assert!(AuthorityId::try_from("ABC".to_owned()).is_err());
}

#[test]
fn after_a_start_everybody_is_heard_of_anew() {
    let mut mesh = Mesh::of(&["a"]);
    mesh.rotate();
    mesh.acknowledge("a", "a-1").unwrap();
    mesh.roster.all_away();
    let presence: Vec<_> = mesh
        .roster
        .verifiers()
        .map(|(_, verifier)| verifier.presence)
        .collect();
    assert_eq!(presence, [Presence::Away]);
    assert!(!mesh.step(Event::Tick).unwrap());
}
