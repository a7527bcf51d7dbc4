//! Issuers read again and again: kept, taken over, staged, refused, and what is said besides.

use super::super::source::issuer_from;
use super::super::tests::{Made, below, der, living, root, root_again, secret};
use super::*;
use crate::testing::NOW;
use miette::Diagnostic;

const DAY: u64 = 86_400;

/// A root with its issuer.
struct World {
    root: Made,
    issuer: Made,
}

impl World {
    fn new() -> Self {
        let root = root();
        let issuer = below(&root, "issuer", |_| {});
        Self { root, issuer }
    }

    fn in_hand(&self) -> InHand {
        InHand {
            id: id(&self.root),
            root: der(&self.root),
            issuer: der(&self.issuer),
            ends: NOW.plus_secs(30 * 86_400),
        }
    }

    fn in_force(&self) -> InForce {
        InForce {
            domain: TrustDomain::parse("cluster.local").unwrap(),
            trusted: vec![self.in_hand()],
            active: id(&self.root),
            rotating: false,
            once_trusted: [id(&self.root)].into(),
        }
    }
}

fn id(root: &Made) -> AuthorityId {
    AuthorityId::of_certificate(root.der())
}

fn offer(roots: &[&Made], issuer: &Made) -> Offer {
    Offer {
        roots: roots.iter().map(|root| der(root)).collect(),
        issuer: issuer_from(&secret(&[issuer], issuer)).unwrap(),
    }
}

/// The step by name with the codes of a refusal, and the codes of findings.
fn decided(offer: Offer, in_force: &InForce) -> (String, Vec<String>) {
    let Decision { step, findings } = decide(offer, in_force, DAY, NOW);
    let code = |one: &dyn Diagnostic| one.code().unwrap().to_string();
    let step = match step {
        Step::Keep => "keep".to_owned(),
        Step::Renew { id, .. } => format!("renew {id}"),
        Step::Stage { id, .. } => format!("stage {id}"),
        Step::Wait { id, .. } => format!("wait {id}"),
        Step::Refuse(broken) => {
            let codes: Vec<_> = broken.iter().map(|one| code(one)).collect();
            format!("refuse {}", codes.join(" "))
        }
    };
    (step, findings.iter().map(|one| code(one)).collect())
}

#[test]
fn what_is_in_force_is_kept_and_nothing_is_said() {
    let world = World::new();
    let same = offer(&[&world.root], &world.issuer);
    assert_eq!(decided(same, &world.in_force()), ("keep".into(), vec![]));
}

#[test]
fn a_renewed_issuer_under_a_trusted_root_is_taken_at_once() {
    let world = World::new();
    let next = below(&world.root, "issuer", |_| {});
    let (step, findings) = decided(offer(&[&world.root], &next), &world.in_force());
    assert_eq!(
        (step, findings),
        (format!("renew {}", id(&world.root)), vec![])
    );
    // Also while another root is on its way.
    let rotating = InForce {
        rotating: true,
        ..world.in_force()
    };
    let (step, _) = decided(offer(&[&world.root], &next), &rotating);
    assert_eq!(step, format!("renew {}", id(&world.root)));
}

#[test]
fn a_new_root_is_staged_once_nothing_else_is_under_way() {
    let (world, next) = (World::new(), World::new());
    let offered = || offer(&[&next.root], &next.issuer);
    let (step, findings) = decided(offered(), &world.in_force());
    assert_eq!(step, format!("stage {}", id(&next.root)));
    assert_eq!(
        findings,
        ["MESH-0951"],
        "the old root was withdrawn while it is needed"
    );
    let both = offer(&[&world.root, &next.root], &next.issuer);
    assert_eq!(decided(both, &world.in_force()).1, [""; 0]);
    let wait = format!("wait {}", id(&next.root));
    let rotating = InForce {
        rotating: true,
        ..world.in_force()
    };
    assert_eq!(
        decided(offered(), &rotating),
        (wait.clone(), vec!["MESH-0943".into()])
    );
    let refused = InForce {
        once_trusted: [id(&world.root), id(&next.root)].into(),
        ..world.in_force()
    };
    assert_eq!(
        decided(offer(&[&world.root, &next.root], &next.issuer), &refused),
        (wait, vec!["MESH-0950".into()])
    );
}

#[test]
fn the_same_key_again_is_accepted_and_said() {
    let world = World::new();
    let again = living(&world.root, 20 * 86_400, Some(world.issuer.key()));
    let (step, findings) = decided(offer(&[&world.root], &again), &world.in_force());
    assert_eq!(step, format!("renew {}", id(&world.root)));
    assert_eq!(findings, ["MESH-0952"]);
    // A root renewed with its key: an issuer that both signed belongs to the one that is trusted already.
    let renewed = root_again(&world.root);
    let next = below(&renewed, "issuer", |_| {});
    let (step, _) = decided(offer(&[&renewed, &world.root], &next), &world.in_force());
    assert_eq!(step, format!("renew {}", id(&world.root)));
    let (step, findings) = decided(offer(&[&renewed], &next), &world.in_force());
    assert_eq!(step, format!("stage {}", id(&renewed)));
    assert_eq!(findings, ["MESH-0951", "MESH-0952"]);
}

#[test]
fn what_breaks_a_constraint_is_refused_by_name_and_changes_nothing() {
    let (world, other) = (World::new(), World::new());
    let refuse = |offer| decided(offer, &world.in_force()).0;
    let ended = living(&world.root, -10, None);
    let short = living(&world.root, 86_400, None);
    assert_eq!(refuse(offer(&[&world.root], &ended)), "refuse MESH-0944");
    assert_eq!(refuse(offer(&[&world.root], &short)), "refuse MESH-0945");
    assert_eq!(
        refuse(offer(&[&world.root], &other.issuer)),
        "refuse MESH-0938"
    );
    // An intermediate among the roots, also beside the issuer that is in force.
    let both = offer(&[&world.root, &world.issuer], &world.issuer);
    assert_eq!(refuse(both), "refuse MESH-0947");
    let Step::Refuse(broken) = decide(
        offer(&[&world.root, &world.issuer], &world.issuer),
        &world.in_force(),
        DAY,
        NOW,
    )
    .step
    else {
        panic!("taken")
    };
    assert!(broken[0].to_string().contains("CN=issuer"), "{}", broken[0]);
}

#[test]
fn an_issuer_that_ends_is_said_before_and_after() {
    let world = World::new();
    let with = |secs| {
        let mut in_force = world.in_force();
        in_force.trusted[0].ends = NOW.plus_secs(secs);
        state_of(&in_force, DAY, NOW)
    };
    assert_eq!(with(2 * 86_400), []);
    assert!(matches!(
        with(2 * 86_400 - 1)[..],
        [Finding::IssuerEndsSoon { .. }]
    ));
    assert!(matches!(
        with(70)[..],
        [Finding::IssuerEndsSoon { left_secs: 70, .. }]
    ));
    assert!(
        matches!(with(69)[..], [Finding::IssuerEnded { .. }]),
        "no leaf fits any more"
    );
    assert!(matches!(with(-5)[..], [Finding::IssuerEnded { .. }]));
}
