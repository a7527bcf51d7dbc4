//! Rules X3 to X5: paths that must not be trusted, and what checking them may cost.

use super::*;
use crate::forge::{self, *};
use crate::limits::CHAIN_CERTIFICATES_MAX;

const CART: &str = "spiffe://td/ns/shop/sa/cart";

fn leaf_from(issuer: &Authority, id: &str) -> CertificateDer<'static> {
    Template::leaf(id).sign(&forge::Key::p256(), &issuer.name, &issuer.key)
}

fn svid(chain: Vec<CertificateDer<'static>>) -> Svid {
    Svid::parse(chain).expect("an SVID")
}

fn intermediate(name: &str) -> Template {
    Template::authority(name, "spiffe://td", -1)
}

#[test]
fn a_leaf_under_its_root_is_trusted_directly_and_through_intermediates() {
    let root = Authority::root("td");
    let bundles = TrustBundles::from(root.bundle("td"));
    let peer = bundles
        .verify(&svid(vec![leaf_from(&root, CART)]), NOW)
        .expect("trusted");
    assert_eq!(
        (peer.id().as_str(), peer.not_after()),
        (CART, NOW.plus_secs(23 * HOUR))
    );
    assert_eq!(
        (peer.serial(), peer.not_before()),
        ("5a".repeat(16).as_str(), NOW.plus_secs(-HOUR))
    );

    let one = root.issue(&intermediate("one"));
    let two = one.issue(&intermediate("two"));
    let leaf = leaf_from(&two, CART);
    for chain in [
        vec![leaf.clone(), two.der.clone(), one.der.clone()],
        vec![
            leaf.clone(),
            two.der.clone(),
            one.der.clone(),
            root.der.clone(),
        ],
        vec![leaf.clone(), one.der.clone(), two.der.clone()],
    ] {
        assert_eq!(
            bundles
                .verify(&svid(chain), NOW)
                .map(|peer| peer.id().to_string()),
            Ok(CART.to_owned())
        );
    }
    assert!(matches!(
        bundles.verify(&svid(vec![leaf, two.der]), NOW),
        Err(PathError::NotSigned { .. })
    ));
}

#[test]
fn authorities_with_p384_and_ed25519_keys_may_sign() {
    for key in [forge::Key::p384(), forge::Key::ed25519()] {
        let template = Template::authority("root", "", -1);
        let root = Authority {
            name: "root".to_owned(),
            der: template.sign(&key, "root", &key),
            key,
        };
        let bundles = TrustBundles::from(root.bundle("td"));
        assert!(
            bundles
                .verify(&svid(vec![leaf_from(&root, CART)]), NOW)
                .is_ok()
        );
    }
}

#[test]
fn only_the_bundle_of_the_leafs_own_domain_counts() {
    let (td, other) = (Authority::root("td"), Authority::root("other"));
    let both: TrustBundles = [td.bundle("td"), other.bundle("other")]
        .into_iter()
        .collect();
    // The other domain's root is trusted, and its signature is right; only not for this domain.
    let refused = both.verify(&svid(vec![leaf_from(&other, CART)]), NOW);
    assert!(
        matches!(&refused, Err(PathError::NotSigned { domain, .. }) if domain.as_str() == "td"),
        "{refused:?}"
    );
    assert!(
        both.verify(&svid(vec![leaf_from(&other, "spiffe://other/x")]), NOW)
            .is_ok()
    );
    let unknown = both.verify(&svid(vec![leaf_from(&td, "spiffe://third/x")]), NOW);
    assert!(
        matches!(unknown, Err(PathError::UnknownDomain { .. })),
        "{unknown:?}"
    );
    let empty = TrustBundle::new(TrustDomain::parse("td").expect("valid"), Vec::new())
        .expect("empty is allowed");
    let refused = TrustBundles::from(empty).verify(&svid(vec![leaf_from(&td, CART)]), NOW);
    assert!(
        matches!(refused, Err(PathError::NotSigned { .. })),
        "{refused:?}"
    );
}

#[test]
fn an_impostor_with_the_name_of_the_root_is_refused() {
    let (root, impostor) = (Authority::root("td"), Authority::root("td"));
    assert_eq!(root.name, impostor.name);
    let bundles = TrustBundles::from(root.bundle("td"));
    let refused = bundles.verify(
        &svid(vec![leaf_from(&impostor, CART), impostor.der.clone()]),
        NOW,
    );
    assert!(
        matches!(
            refused,
            Err(PathError::NotSigned {
                why: "a signature is wrong",
                ..
            })
        ),
        "{refused:?}"
    );
}

#[test]
fn periods_are_inclusive_and_hold_for_every_certificate_of_the_path() {
    let root = Authority::root("td");
    let bundles = TrustBundles::from(root.bundle("td"));
    let leaf = svid(vec![leaf_from(&root, CART)]);
    assert!(bundles.verify(&leaf, leaf.not_before()).is_ok());
    assert!(bundles.verify(&leaf, leaf.not_after()).is_ok());
    let early = bundles.verify(&leaf, leaf.not_before().plus_secs(-1));
    assert!(
        matches!(early, Err(PathError::NotYetValid { .. })),
        "{early:?}"
    );
    let late = bundles.verify(&leaf, leaf.not_after().plus_secs(1));
    assert!(matches!(late, Err(PathError::Expired { .. })), "{late:?}");

    let stale = root.issue(&intermediate("stale").period(-10 * HOUR, -1));
    let refused = bundles.verify(&svid(vec![leaf_from(&stale, CART), stale.der.clone()]), NOW);
    assert!(
        matches!(refused, Err(PathError::Expired { .. })),
        "{refused:?}"
    );
}

#[test]
fn an_expired_anchor_signs_nothing_unless_its_renewal_is_in_the_bundle() {
    let old = Authority::self_signed(&intermediate("root").period(-10 * HOUR, -1));
    let bundle = old.bundle("td");
    let leaf = svid(vec![leaf_from(&old, CART)]);
    let refused = TrustBundles::from(bundle).verify(&leaf, NOW);
    assert!(
        matches!(refused, Err(PathError::Expired { .. })),
        "{refused:?}"
    );

    let renewed = intermediate("root").sign(&old.key, "root", &old.key);
    let domain = TrustDomain::parse("td").expect("valid");
    let both = TrustBundle::new(domain, vec![old.der.clone(), renewed]).expect("anchors");
    assert!(TrustBundles::from(both).verify(&leaf, NOW).is_ok());

    let next = Authority::self_signed(&intermediate("root").period(HOUR, 10 * HOUR));
    let refused =
        TrustBundles::from(next.bundle("td")).verify(&svid(vec![leaf_from(&next, CART)]), NOW);
    assert!(
        matches!(refused, Err(PathError::NotYetValid { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_workload_cannot_sign_for_others() {
    let root = Authority::root("td");
    let bundles = TrustBundles::from(root.bundle("td"));
    let workload = root.issue(&Template {
        subject: "workload".to_owned(),
        ..Template::leaf("spiffe://td/evil")
    });
    let refused = bundles.verify(
        &svid(vec![leaf_from(&workload, CART), workload.der.clone()]),
        NOW,
    );
    assert!(
        matches!(
            refused,
            Err(PathError::Authority {
                source: AuthorityError::NotAuthority,
                ..
            })
        ),
        "{refused:?}"
    );
}

#[test]
fn intermediates_that_may_not_sign_here_are_refused() {
    let root = Authority::root("td");
    let bundles = TrustBundles::from(root.bundle("td"));
    for (template, why) in [
        (intermediate("i").without(KEY_USAGE), "no key usage"),
        (
            intermediate("i").with(KEY_USAGE, true, key_usage(&[0])),
            "no keyCertSign",
        ),
        (
            Template::authority("i", "spiffe://other", -1),
            "another domain",
        ),
        (
            Template::authority("i", "spiffe://td/workload", -1),
            "a workload's ID",
        ),
        (
            intermediate("i").and(&[0x55, 0x1d, KEY_USAGE], true, key_usage(&[5])),
            "key usage twice",
        ),
    ] {
        let issuer = root.issue(&template);
        let refused = bundles.verify(
            &svid(vec![leaf_from(&issuer, CART), issuer.der.clone()]),
            NOW,
        );
        assert!(
            matches!(
                refused,
                Err(PathError::Authority { .. } | PathError::Refused { .. })
            ),
            "{why}: {refused:?}"
        );
    }
    let critical = root.issue(&intermediate("i").and(&[0x2a, 3, 4], true, vec![]));
    assert!(
        bundles
            .verify(
                &svid(vec![leaf_from(&critical, CART), critical.der.clone()]),
                NOW
            )
            .is_err()
    );
    for one in [SERVER_AUTH, CLIENT_AUTH] {
        let purpose = root.issue(&intermediate("i").with(PURPOSES, false, purposes(&[one])));
        let chain = svid(vec![leaf_from(&purpose, CART), purpose.der.clone()]);
        assert!(bundles.verify(&chain, NOW).is_err());
    }
    let both = purposes(&[SERVER_AUTH, CLIENT_AUTH]);
    let serves = root.issue(&intermediate("i").with(PURPOSES, false, both));
    let chain = svid(vec![leaf_from(&serves, CART), serves.der.clone()]);
    assert!(bundles.verify(&chain, NOW).is_ok());
}

#[test]
fn path_lengths_are_kept() {
    let root = Authority::root("td");
    let bundles = TrustBundles::from(root.bundle("td"));
    let last = root.issue(&Template::authority("last", "", 0));
    assert!(
        bundles
            .verify(&svid(vec![leaf_from(&last, CART), last.der.clone()]), NOW)
            .is_ok()
    );
    let beyond = last.issue(&intermediate("beyond"));
    let chain = vec![
        leaf_from(&beyond, CART),
        beyond.der.clone(),
        last.der.clone(),
    ];
    let refused = bundles.verify(&svid(chain), NOW);
    assert!(
        matches!(refused, Err(PathError::PathLength { .. })),
        "{refused:?}"
    );
}

#[test]
fn uri_name_constraints_refuse_every_leaf_rather_than_none() {
    let permitted = tlv(0xa0, &sequence(&[tlv(0x86, b"td")]));
    let root = Authority::self_signed(&Template::authority("root", "", -1).with(
        NAME_CONSTRAINTS,
        true,
        sequence(&[permitted]),
    ));
    let refused =
        TrustBundles::from(root.bundle("td")).verify(&svid(vec![leaf_from(&root, CART)]), NOW);
    assert!(
        matches!(refused, Err(PathError::NameConstraint { .. })),
        "{refused:?}"
    );
}

/// As many authorities as a chain may have, that could all stand above each other and lead to no root: every order of
/// them has to be tried.
fn costly_chain(extensions: u16) -> Svid {
    let filler = (0..extensions).fold(intermediate("alike"), |template, at| {
        template.and(
            &[0x2a, 0x81, (at >> 7) as u8 | 0x80, (at & 0x7f) as u8],
            false,
            vec![0; 8],
        )
    });
    let keys: Vec<_> = (1..CHAIN_CERTIFICATES_MAX)
        .map(|_| forge::Key::p256())
        .collect();
    let mut chain = vec![Template::leaf(CART).sign(&forge::Key::p256(), "alike", &keys[0])];
    chain.extend(keys.iter().map(|key| filler.sign(key, "alike", key)));
    svid(chain)
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    #[expect(clippy::disallowed_methods, reason = "a test of cost needs a clock")]
    let begin = std::time::Instant::now();
    let result = work();
    (result, begin.elapsed())
}

#[test]
fn chains_made_to_be_costly_end_soon() {
    let bundles = TrustBundles::from(Authority::root("td").bundle("td"));
    let chain = costly_chain(28);
    let (refused, took) = timed(|| bundles.verify(&chain, NOW));
    assert!(
        matches!(refused, Err(PathError::NotSigned { .. })),
        "{refused:?}"
    );
    assert!(took < Duration::from_millis(50), "took {took:?}");

    let crowded = bundles.verify(&costly_chain(600), NOW);
    assert!(
        matches!(crowded, Err(PathError::Authority { .. })),
        "{crowded:?}"
    );
}

#[test]
fn signatures_that_no_anchor_made_are_checked_a_bounded_number_of_times() {
    // Every order of these ends with the name of all 32 anchors, so each would cost 32 signature checks.
    let domain = TrustDomain::parse("td").expect("valid");
    let anchors = (0..crate::limits::ANCHORS_MAX)
        .map(|_| Authority::self_signed(&intermediate("alike")).der)
        .collect();
    let bundles = TrustBundles::from(TrustBundle::new(domain, anchors).expect("anchors"));
    let chain = costly_chain(0);
    let (refused, took) = timed(|| bundles.verify(&chain, NOW));
    assert!(
        matches!(refused, Err(PathError::TooCostly { .. })),
        "{refused:?}"
    );
    assert!(took < Duration::from_millis(50), "took {took:?}");
}

#[test]
fn cross_signed_authorities_in_a_circle_end_soon() {
    let root = Authority::root("td");
    let bundles = TrustBundles::from(root.bundle("td"));
    let (a, b) = (forge::Key::p256(), forge::Key::p256());
    let circle = [
        intermediate("a").sign(&a, "b", &b),
        intermediate("b").sign(&b, "a", &a),
    ];
    let leaf = Template::leaf(CART).sign(&forge::Key::p256(), "a", &a);
    let refused = bundles.verify(&svid([vec![leaf], circle.to_vec()].concat()), NOW);
    assert!(
        matches!(refused, Err(PathError::NotSigned { .. })),
        "{refused:?}"
    );
}
