//! From the ceremony to an SVID: a CA that never has the root's key; and what is refused on the way.

use super::*;
use crate::adoption::files::KeptFiles;
use crate::adoption::first;
use crate::issuing::Desk;
use crate::testing::{DAY, NOW, World, domain, request as svid_request, signing};
use mesh_platform::files;
use mesh_trust::{Svid, TrustBundle, TrustBundles};

fn wish(shares: u8, threshold: u8) -> RootWish {
    RootWish {
        domain: domain(),
        shares,
        threshold,
        version: "test".to_owned(),
    }
}

fn issuer_wish(text: &str) -> IssuerWish {
    IssuerWish {
        request: ("issuer.csr".to_owned(), text.as_bytes().to_vec()),
        days: 30,
        version: "test".to_owned(),
    }
}

fn shares_of(made: &MadeRoot, which: &[usize]) -> Vec<Named<Zeroizing<Vec<u8>>>> {
    let text = |at: &usize| {
        let (name, text) = &made.shares[*at];
        (name.clone(), Zeroizing::new(text.as_bytes().to_vec()))
    };
    which.iter().map(text).collect()
}

fn root_of(made: &MadeRoot) -> (&str, &[u8]) {
    ("root.pem", made.pem.as_bytes())
}

#[tokio::test]
async fn a_ca_goes_on_with_what_the_ceremony_made_and_never_has_the_roots_key() {
    let world = World::at(NOW);
    let made = make(&wish(5, 3), &*world).unwrap();
    let new = request(None).unwrap();
    let signed = sign(
        &issuer_wish(&new.request),
        root_of(&made),
        &shares_of(&made, &[4, 0, 2]),
        &*world,
    )
    .unwrap();
    assert_eq!(signed.root, made.pem);
    assert_eq!(*signed.issuer.key(), new.public);

    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("tls.crt", signed.chain.as_str()),
        ("ca.crt", &signed.root),
        ("tls.key", &new.key),
    ] {
        files::write_atomic(&folder.path().join(name), text.as_bytes(), 0o600).unwrap();
    }
    let kept = KeptFiles::new(folder.path(), None);
    let dir = tempfile::tempdir().unwrap();
    let keys = signing(dir.path()).unwrap();
    let begun = first((&kept, &keys), &domain(), 86_400, || NOW, |_| {})
        .await
        .unwrap();
    let profile = Profile::leaf(86_400).unwrap();
    let with = (&keys, Some(&begun), None);
    let mut desk = Desk::open_with(dir.path(), &domain(), profile, world.clone(), with).unwrap();
    let chain = desk.issue(vec![svid_request()]).remove(0).unwrap();
    let svid = Svid::parse(chain.whole()).unwrap();
    let bundle = TrustBundle::new(domain(), vec![made.root.certificate().clone()]).unwrap();
    TrustBundles::from(bundle).verify(&svid, NOW).unwrap();
    drop(desk);
    for entry in walk(dir.path()) {
        assert_ne!(entry.file_name().unwrap(), "root.key", "{entry:?}");
    }

    let checked = check(
        root_of(&made),
        &[
            ("a".to_owned(), made.transcript.clone().into_bytes()),
            ("b".to_owned(), signed.transcript.into_bytes()),
        ],
        &shares_of(&made, &[0, 1, 3]),
        NOW,
    )
    .unwrap();
    assert_eq!(checked.restores, Some(true));
    assert_eq!(checked.transcripts[1].1.get("shares-used"), Some("5 1 3"));
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(walk(&path)),
            false => all.push(path),
        }
    }
    all
}

#[test]
fn numbers_that_make_no_shares_are_refused_before_a_key_is_made() {
    let world = World::at(NOW);
    for (shares, threshold) in [(5, 1), (5, 0), (2, 3), (101, 2)] {
        assert!(matches!(
            make(&wish(shares, threshold), &*world),
            Err(CeremonyError::Numbers { .. })
        ));
    }
}

#[test]
fn shares_that_do_not_do_are_refused_each_with_its_reason() {
    let world = World::at(NOW);
    let (made, other) = (
        make(&wish(4, 3), &*world).unwrap(),
        make(&wish(4, 3), &*world).unwrap(),
    );
    let text = request(None).unwrap().request;
    let refused = |shares: &[Named<Zeroizing<Vec<u8>>>]| {
        let result = sign(&issuer_wish(&text), root_of(&made), shares, &*world);
        result.err().expect("refused")
    };
    assert!(matches!(
        refused(&shares_of(&made, &[0, 1])),
        CeremonyError::TooFew { have: 2, need: 3 }
    ));
    assert!(matches!(
        refused(&[]),
        CeremonyError::TooFew { have: 0, .. }
    ));
    assert!(matches!(
        refused(&shares_of(&made, &[0, 1, 0])),
        CeremonyError::SameShare { number: 1, .. }
    ));
    // Of another root, which is seen before the sets are.
    let mixed = [shares_of(&made, &[0, 1]), shares_of(&other, &[2])].concat();
    assert!(matches!(refused(&mixed), CeremonyError::Root { .. }));
    let mut flipped = shares_of(&made, &[0, 1, 2]);
    flipped[1].1[200] ^= 1;
    assert!(matches!(refused(&flipped), CeremonyError::Share { .. }));
}

#[test]
fn shares_of_a_set_that_restores_another_key_are_refused() {
    let world = World::at(NOW);
    let made = make(&wish(2, 2), &*world).unwrap();
    // A share of the right name and sum, over a value that somebody made up.
    let set = Share::parse("s", made.shares[0].1.as_bytes()).unwrap().set;
    let forged = shares::split(&Zeroizing::new([7; 32]), &set, random).unwrap();
    let mut given = shares_of(&made, &[0]);
    let text = forged[1].to_text();
    given.push((
        "forged".to_owned(),
        Zeroizing::new(text.as_bytes().to_vec()),
    ));
    let wish = issuer_wish(&request(None).unwrap().request);
    let refused = sign(&wish, root_of(&made), &given, &*world);
    assert!(matches!(refused, Err(CeremonyError::OtherKey)));
    let checked = check(root_of(&made), &[], &given, NOW);
    assert!(matches!(checked, Err(CeremonyError::OtherKey)));
    let spoken_of = check(
        root_of(&made),
        &[("t".to_owned(), made.transcript.clone().into_bytes())],
        &given[1..],
        NOW,
    );
    assert!(matches!(
        spoken_of,
        Err(CeremonyError::NotInTranscript { .. })
    ));
}

#[test]
fn requests_and_roots_that_do_not_do_are_refused() {
    let world = World::at(NOW);
    let made = make(&wish(2, 2), &*world).unwrap();
    let both = shares_of(&made, &[0, 1]);
    let good = request(None).unwrap().request;
    for bad in [
        "",
        "x",
        &made.pem,
        &good.replace("CERTIFICATE REQUEST", "PUBLIC KEY"),
    ] {
        let refused = sign(&issuer_wish(bad), root_of(&made), &both, &*world);
        assert!(
            matches!(refused, Err(CeremonyError::Request { .. })),
            "{bad}"
        );
    }
    for days in [0, 399] {
        let wish = IssuerWish {
            days,
            ..issuer_wish(&good)
        };
        let refused = sign(&wish, root_of(&made), &both, &*world);
        assert!(
            matches!(refused, Err(CeremonyError::Request { .. })),
            "{days}"
        );
    }
    let other = make(&wish(2, 2), &*world).unwrap();
    for bad in ["", "x", &other.pem, &good] {
        let refused = sign(&issuer_wish(&good), ("r", bad.as_bytes()), &both, &*world);
        assert!(matches!(refused, Err(CeremonyError::Root { .. })), "{bad}");
    }
    world.set(NOW.plus_secs(4_000 * DAY));
    let ended = sign(&issuer_wish(&good), root_of(&made), &both, &*world);
    assert!(matches!(ended, Err(CeremonyError::Root { .. })));
}

#[test]
fn a_public_key_alone_is_certified_too() {
    let world = World::at(NOW);
    let made = make(&wish(2, 2), &*world).unwrap();
    let key = request(None).unwrap().public;
    let text = pem::encode("PUBLIC KEY", &key.spki());
    let signed = sign(
        &issuer_wish(&text),
        root_of(&made),
        &shares_of(&made, &[0, 1]),
        &*world,
    );
    assert_eq!(*signed.unwrap().issuer.key(), key);
}
