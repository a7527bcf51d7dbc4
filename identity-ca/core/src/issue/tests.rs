//! What may be prepared and signed, and what is refused at each of the two steps.

use super::*;
use crate::testing::{NOW, TestKey, World, serial};
use mesh_trust::{Svid, TrustBundle, TrustBundles};
use std::cell::Cell;

fn profile() -> Profile {
    Profile::leaf(86_400).unwrap()
}

#[test]
fn an_issued_leaf_is_an_svid_that_its_bundle_trusts() {
    let world = World::new();
    let leaf = world.leaf("ns/shop/sa/cart");
    let svid = Svid::parse(vec![
        leaf.certificate().clone(),
        world.issuer.certificate().clone(),
    ])
    .unwrap();
    let bundles = TrustBundles::from(
        TrustBundle::new(world.domain.clone(), vec![world.root.certificate().clone()]).unwrap(),
    );
    let peer = bundles.verify(&svid, NOW).unwrap();
    assert_eq!(peer.id().as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(peer.serial(), leaf.serial().to_hex());
    assert_eq!(svid.not_after(), NOW.plus_secs(86_400));
    assert_eq!(
        svid.not_before(),
        NOW.plus_secs(-300).max(world.issuer.validity().not_before)
    );
}

#[test]
fn the_longest_spiffe_id_can_be_issued() {
    let world = World::new();
    let path = "a".repeat(2_048 - "spiffe://cluster.local/".len());
    assert!(Svid::parse(vec![world.leaf(&path).certificate().clone()]).is_ok());
}

#[test]
fn identities_of_other_domains_and_roots_are_refused() {
    let world = World::new();
    for id in [
        "spiffe://other.example/ns/shop/sa/cart",
        "spiffe://cluster.local",
        "spiffe://cluster.local.evil/ns/a/sa/b",
    ] {
        let request = Request {
            id: SpiffeId::parse(id).unwrap(),
            ..world.request("x")
        };
        let error = prepare(request, &profile(), &world.issuer, serial(9), NOW).unwrap_err();
        assert!(
            matches!(error, IssueError::Identity { .. }),
            "{id}: {error}"
        );
    }
}

#[test]
fn the_issuers_own_key_is_refused() {
    let world = World::new();
    let request = Request {
        key: world.issuer_key.public.clone(),
        ..world.request("ns/a/sa/b")
    };
    assert_eq!(
        prepare(request, &profile(), &world.issuer, serial(9), NOW).unwrap_err(),
        IssueError::IssuersKey
    );
    let again = prepare_issuer(
        world.root_key.public.clone(),
        &Profile::issuer(),
        &world.root,
        serial(9),
        NOW,
    );
    assert_eq!(again.unwrap_err(), IssueError::IssuersKey);
}

#[test]
fn ten_years_are_clamped_and_no_leaf_outlives_its_issuer() {
    let world = World::new();
    let end = world.issuer.validity().not_after;
    for (now, most) in [
        (NOW, crate::limits::LEAF_LIFETIME_SECS_MAX),
        (end.plus_secs(-3_600), 3_540),
        (end.plus_secs(-75), 15),
    ] {
        let request = Request {
            lifetime_secs: Some(315_360_000),
            ..world.request("ns/a/sa/b")
        };
        let linted = prepare(request, &profile(), &world.issuer, serial(9), now).unwrap();
        assert_eq!(now.secs_until(linted.validity().not_after), most);
        assert!(linted.validity().is_within(&world.issuer.validity()));
    }
    for now in [end.plus_secs(-60), end, end.plus_secs(1_000_000)] {
        let error = prepare(
            world.request("ns/a/sa/b"),
            &profile(),
            &world.issuer,
            serial(9),
            now,
        )
        .unwrap_err();
        assert!(
            matches!(error, IssueError::Profile(ProfileError::IssuerEnds { .. })),
            "{error}"
        );
    }
}

#[test]
fn another_signer_than_the_issuer_is_refused() {
    let world = World::new();
    for other in [TestKey::new(), World::new().issuer_key] {
        let error = sign(world.prepare("ns/a/sa/b"), &other).unwrap_err();
        assert!(matches!(error, IssueError::WrongSigner { .. }), "{error}");
    }
    assert!(matches!(
        sign(world.prepare("ns/a/sa/b"), &world.root_key),
        Err(IssueError::WrongSigner { .. })
    ));
}

/// Claims a key, and answers whatever it is told to.
struct Faulty<'a> {
    key: &'a PublicKey,
    answer: Result<Vec<u8>, SignerFailed>,
    asked: Cell<bool>,
}

// The tests are of one thread.
struct Shared<'a>(std::sync::Mutex<Faulty<'a>>, PublicKey);

impl Signer for Shared<'_> {
    fn public_key(&self) -> &PublicKey {
        &self.1
    }

    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, SignerFailed> {
        let inner = self.0.lock().unwrap();
        inner.asked.set(true);
        assert_eq!(*inner.key, self.1);
        inner.answer.clone()
    }
}

fn faulty(key: &PublicKey, answer: Result<Vec<u8>, SignerFailed>) -> Shared<'_> {
    Shared(
        std::sync::Mutex::new(Faulty {
            key,
            answer,
            asked: Cell::new(false),
        }),
        key.clone(),
    )
}

#[test]
fn a_signer_that_fails_or_computes_wrongly_yields_no_certificate() {
    let world = World::new();
    let failed = SignerFailed("token removed".into());
    let signer = faulty(&world.issuer_key.public, Err(failed.clone()));
    assert_eq!(
        sign(world.prepare("ns/a/sa/b"), &signer).unwrap_err(),
        IssueError::Signer(failed)
    );
    let over_something_else = Signer::sign(&world.issuer_key, b"something else").unwrap();
    for wrong in [over_something_else, vec![], vec![0x30, 0]] {
        let signer = faulty(&world.issuer_key.public, Ok(wrong));
        let error = sign(world.prepare("ns/a/sa/b"), &signer).unwrap_err();
        assert!(matches!(error, IssueError::NotAsLinted { .. }), "{error}");
    }
}

#[test]
fn what_is_logged_is_what_is_signed() {
    let world = World::new();
    let linted = world.prepare("ns/a/sa/b");
    let (tbs, print) = (linted.tbs().to_vec(), linted.tbs_fingerprint());
    let issued = sign(linted, &world.issuer_key).unwrap();
    assert!(
        issued
            .certificate()
            .windows(tbs.len())
            .any(|window| window == tbs)
    );
    assert_eq!(print, sha256(&tbs));
}

#[test]
fn serials_are_positive_and_never_zero() {
    assert_eq!(Serial::new([0; 16], None), None);
    assert_eq!(Serial::new([0; 16], Some(0)), None);
    assert_eq!(
        Serial::new([0xff; 16], Some(7)).unwrap().to_hex(),
        format!("07{}", "ff".repeat(16))
    );
    let world = World::new();
    let request = world.request("ns/a/sa/b");
    let linted = prepare(
        request,
        &profile(),
        &world.issuer,
        Serial::new([0xff; 16], None).unwrap(),
        NOW,
    )
    .unwrap();
    let issued = sign(linted, &world.issuer_key).unwrap();
    let svid = Svid::parse(vec![issued.certificate().clone()]).unwrap();
    assert_eq!(
        svid.serial(),
        "ff".repeat(16),
        "a set top bit does not make it negative"
    );
}
