//! For every rule at least one certificate that breaks it, and nothing before it.

use super::*;
use crate::issue::{self, Draft, Linted};
use crate::key::Curve;
use crate::profile::Profile;
use crate::testing::{NOW, TestKey, World, serial};
use rcgen::{
    BasicConstraints as Basic, CertificateParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose as Purpose, IsCa, KeyIdMethod, KeyUsagePurpose, SanType, SerialNumber,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// How a template is bent.
type Bend = fn(&mut CertificateParams);
/// How the finished bytes are bent.
type Patch = fn(&mut Vec<u8>);

fn bent(world: &World, kind: Kind, bend: Bend, patch: Patch) -> Result<(), LintError> {
    let key = TestKey::new().public;
    let (root, at) = (&world.root, serial(7));
    let draft = match kind {
        Kind::Leaf => {
            let request = issue::Request {
                key,
                ..world.request("ns/shop/sa/cart")
            };
            let profile = Profile::leaf(86_400).unwrap();
            Draft::leaf(request, &profile, &world.issuer, at, NOW)
        }
        Kind::Issuer => Draft::issuer(key, &Profile::issuer(), root, at, NOW),
        Kind::Root => Draft::root(key, &Profile::root(), &world.domain, at, NOW),
    };
    let mut draft = draft.unwrap();
    bend(&mut draft.params);
    let mut tbs = issue::encode(&draft.params, &draft.key, draft.above.as_ref()).unwrap();
    patch(&mut tbs);
    check(
        &tbs,
        &Expected {
            kind,
            id: &draft.id,
            serial: &draft.serial,
            validity: draft.validity,
            validity_secs_max: Profile::root().validity_secs_max(),
            key: &draft.key,
            above: draft.above.as_ref(),
        },
    )
}

const KEEP: Bend = |_| {};
const AS_IS: Patch = |_| {};

fn replace(tbs: &mut [u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let at = tbs
        .windows(from.len())
        .position(|window| window == from)
        .expect("present");
    tbs[at..at + from.len()].copy_from_slice(to);
}

/// Inserts octets before the first place where `mark` stands, and mends the outermost length.
fn insert(tbs: &mut Vec<u8>, mark: &[u8], octets: &[u8]) {
    let at = tbs
        .windows(mark.len())
        .position(|window| window == mark)
        .expect("present");
    tbs.splice(at..at, octets.iter().copied());
    assert_eq!(tbs[1], 0x82, "a long form of two octets");
    let length = u16::try_from(tbs.len() - 4).unwrap().to_be_bytes();
    tbs[2..4].copy_from_slice(&length);
}

fn table() -> Vec<(&'static str, Kind, Bend, Patch)> {
    use Kind::{Issuer, Leaf, Root};
    vec![
        ("readable", Leaf, KEEP, |tbs| tbs.push(0)),
        ("readable", Leaf, KEEP, |tbs| tbs[4] = 0x02),
        (
            "size",
            Leaf,
            |p| p.subject_alt_names = vec![SanType::URI("x".repeat(5_000).try_into().unwrap())],
            AS_IS,
        ),
        ("version_is_3", Leaf, KEEP, |tbs| {
            replace(tbs, &[0xa0, 3, 2, 1, 2], &[0xa0, 3, 2, 1, 1])
        }),
        (
            "serial_is_the_reserved_one",
            Leaf,
            |p| p.serial_number = Some(SerialNumber::from_slice(&[1; 16])),
            AS_IS,
        ),
        (
            "serial_is_the_reserved_one",
            Leaf,
            |p| p.serial_number = Some(SerialNumber::from_slice(&[0])),
            AS_IS,
        ),
        (
            "serial_is_the_reserved_one",
            Leaf,
            |p| p.serial_number = Some(SerialNumber::from_slice(&[0x5a; 21])),
            AS_IS,
        ),
        (
            "serial_is_the_reserved_one",
            Leaf,
            |p| p.serial_number = Some(SerialNumber::from_slice(&[0x7f; 16])),
            |tbs| replace(tbs, &[2, 16, 0x7f], &[2, 16, 0xff]),
        ),
        ("signature_algorithm_is_the_signers", Leaf, KEEP, |tbs| {
            replace(
                tbs,
                &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2],
                &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 1],
            )
        }),
        ("issuer_is_the_signers_subject", Leaf, KEEP, |tbs| {
            replace(tbs, b"issuer ", b"another")
        }),
        ("times_have_their_form", Leaf, KEEP, utc_to_generalized),
        (
            "validity_is_as_granted",
            Leaf,
            |p| p.not_after += Duration::from_secs(1),
            AS_IS,
        ),
        (
            "validity_is_as_granted",
            Leaf,
            |p| p.not_before -= Duration::from_secs(1),
            AS_IS,
        ),
        (
            "subject_suits_the_kind",
            Leaf,
            |p| p.distinguished_name.push(DnType::CommonName, "cart"),
            AS_IS,
        ),
        (
            "subject_suits_the_kind",
            Issuer,
            |p| p.distinguished_name = rcgen::DistinguishedName::new(),
            AS_IS,
        ),
        ("key_is_the_requested_one", Leaf, KEEP, |tbs| {
            replace_point(tbs, TestKey::new().public.point())
        }),
        ("key_is_the_requested_one", Leaf, KEEP, |tbs| {
            replace_point(tbs, &[&[4][..], &[7; 64]].concat())
        }),
        ("no_unique_identifiers", Leaf, KEEP, |tbs| {
            insert(tbs, &[0xa3, 0x81], &[0x81, 2, 0, 0x55])
        }),
        (
            "extensions_are_known_and_single",
            Leaf,
            |p| {
                p.custom_extensions.push(CustomExtension::from_oid_content(
                    &[1, 3, 6, 1, 4, 1, 99_999],
                    vec![5, 0],
                ))
            },
            AS_IS,
        ),
        (
            "extensions_are_known_and_single",
            Leaf,
            |p| {
                p.custom_extensions.push(CustomExtension::from_oid_content(
                    &[2, 5, 29, 15],
                    vec![3, 2, 7, 0x80],
                ))
            },
            AS_IS,
        ),
        (
            "basic_constraints_suit_the_kind",
            Leaf,
            |p| p.is_ca = IsCa::Ca(Basic::Unconstrained),
            AS_IS,
        ),
        (
            "basic_constraints_suit_the_kind",
            Leaf,
            |p| p.is_ca = IsCa::NoCa,
            AS_IS,
        ),
        (
            "basic_constraints_suit_the_kind",
            Issuer,
            |p| p.is_ca = IsCa::Ca(Basic::Unconstrained),
            AS_IS,
        ),
        (
            "basic_constraints_suit_the_kind",
            Issuer,
            |p| p.is_ca = IsCa::Ca(Basic::Constrained(1)),
            AS_IS,
        ),
        (
            "basic_constraints_suit_the_kind",
            Root,
            |p| p.is_ca = IsCa::ExplicitNoCa,
            AS_IS,
        ),
        (
            "key_usage_suits_the_kind",
            Leaf,
            |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign),
            AS_IS,
        ),
        (
            "key_usage_suits_the_kind",
            Leaf,
            |p| p.key_usages.push(KeyUsagePurpose::CrlSign),
            AS_IS,
        ),
        (
            "key_usage_suits_the_kind",
            Leaf,
            |p| p.key_usages.push(KeyUsagePurpose::KeyEncipherment),
            AS_IS,
        ),
        (
            "key_usage_suits_the_kind",
            Leaf,
            |p| p.key_usages.clear(),
            AS_IS,
        ),
        ("key_usage_suits_the_kind", Leaf, KEEP, |tbs| {
            replace(
                tbs,
                &[0x55, 0x1d, 0x0f, 1, 1, 0xff],
                &[0x55, 0x1d, 0x0f, 1, 1, 0],
            )
        }),
        (
            "key_usage_suits_the_kind",
            Issuer,
            |p| p.key_usages.push(KeyUsagePurpose::DigitalSignature),
            AS_IS,
        ),
        (
            "extended_key_usage_suits_the_kind",
            Leaf,
            |p| p.extended_key_usages = vec![Purpose::ServerAuth],
            AS_IS,
        ),
        (
            "extended_key_usage_suits_the_kind",
            Leaf,
            |p| p.extended_key_usages = vec![Purpose::ClientAuth],
            AS_IS,
        ),
        (
            "extended_key_usage_suits_the_kind",
            Leaf,
            |p| p.extended_key_usages.push(Purpose::Any),
            AS_IS,
        ),
        (
            "extended_key_usage_suits_the_kind",
            Leaf,
            |p| p.extended_key_usages.clear(),
            AS_IS,
        ),
        (
            "extended_key_usage_suits_the_kind",
            Issuer,
            |p| p.extended_key_usages = vec![Purpose::ServerAuth],
            AS_IS,
        ),
        (
            "the_only_name_is_the_identity",
            Leaf,
            |p| {
                p.subject_alt_names
                    .push(SanType::DnsName("cart".try_into().unwrap()))
            },
            AS_IS,
        ),
        (
            "the_only_name_is_the_identity",
            Leaf,
            |p| p.subject_alt_names.push(p.subject_alt_names[0].clone()),
            AS_IS,
        ),
        (
            "the_only_name_is_the_identity",
            Leaf,
            |p| p.subject_alt_names.clear(),
            AS_IS,
        ),
        (
            "the_only_name_is_the_identity",
            Leaf,
            |p| p.subject_alt_names = vec![SanType::DnsName("cart".try_into().unwrap())],
            AS_IS,
        ),
        (
            "the_only_name_is_the_identity",
            Leaf,
            |p| {
                p.subject_alt_names = vec![SanType::URI(
                    "spiffe://cluster.local/ns/shop/sa/web".try_into().unwrap(),
                )]
            },
            AS_IS,
        ),
        (
            "names_are_critical_iff_subject_is_empty",
            Leaf,
            KEEP,
            |tbs| {
                replace(
                    tbs,
                    &[0x55, 0x1d, 0x11, 1, 1, 0xff],
                    &[0x55, 0x1d, 0x11, 1, 1, 0],
                )
            },
        ),
        (
            "authority_key_identifier_is_the_signers",
            Leaf,
            |p| p.use_authority_key_identifier_extension = false,
            AS_IS,
        ),
        (
            "authority_key_identifier_is_the_signers",
            Issuer,
            |p| p.use_authority_key_identifier_extension = false,
            AS_IS,
        ),
        (
            "authority_key_identifier_is_the_signers",
            Root,
            |p| p.use_authority_key_identifier_extension = true,
            AS_IS,
        ),
        (
            "authority_key_identifier_is_the_signers",
            Leaf,
            KEEP,
            |tbs| {
                let at = tbs
                    .windows(5)
                    .position(|window| window == [0x55, 0x1d, 0x23, 4, 0x18])
                    .expect("present");
                tbs[at + 10] ^= 1;
            },
        ),
        (
            "subject_key_identifier_suits_the_kind",
            Issuer,
            |p| p.key_identifier_method = KeyIdMethod::PreSpecified(vec![]),
            AS_IS,
        ),
    ]
}

fn replace_point(tbs: &mut [u8], point: &[u8]) {
    let at = tbs
        .windows(4)
        .position(|window| window == [3, 0x42, 0, 4])
        .expect("a P-256 key")
        + 3;
    tbs[at..at + 65].copy_from_slice(point);
}

/// notBefore as GeneralizedTime, in a year before 2050.
fn utc_to_generalized(tbs: &mut Vec<u8>) {
    let at = tbs
        .windows(2)
        .position(|window| window == [0x17, 0x0d])
        .expect("UTCTime");
    let validity = at - 2;
    assert_eq!(tbs[validity..at], [0x30, 30]);
    tbs.splice(at..at + 2, [0x18, 0x0f, b'2', b'0']);
    tbs[validity + 1] += 2;
    let length = u16::try_from(tbs.len() - 4).unwrap().to_be_bytes();
    tbs[2..4].copy_from_slice(&length);
}

#[test]
fn what_we_make_keeps_every_rule() {
    let world = World::new();
    for kind in [Kind::Root, Kind::Issuer, Kind::Leaf] {
        assert_eq!(bent(&world, kind, KEEP, AS_IS), Ok(()), "{kind:?}");
    }
}

#[test]
fn every_rule_refuses_what_breaks_it() {
    let world = World::new();
    let mut met = BTreeSet::new();
    for (row, (rule, kind, bend, patch)) in table().into_iter().enumerate() {
        let error = bent(&world, kind, bend, patch).expect_err(rule);
        assert_eq!(error.rule, rule, "row {row}: {error}");
        met.insert(rule);
    }
    // Two rules cannot be reached from a bent certificate alone; they compare the two parties.
    met.extend([
        "validity_is_within_the_signers",
        "identity_is_in_the_signers_domain",
    ]);
    let missing: Vec<_> = RULES
        .iter()
        .map(|rule| rule.name)
        .filter(|name| !met.contains(name))
        .collect();
    assert!(missing.is_empty(), "no test breaks {missing:?}");
}

fn leaf_expected<'a>(linted: &'a Linted, above: &'a Authority) -> Expected<'a> {
    Expected {
        kind: Kind::Leaf,
        id: linted.id(),
        serial: linted.serial(),
        validity: linted.validity(),
        validity_secs_max: u64::MAX,
        key: linted.key(),
        above: Some(above),
    }
}

fn rule(name: &str) -> &'static Rule {
    RULES.iter().find(|rule| rule.name == name).unwrap()
}

#[test]
fn a_leaf_outside_its_signers_validity_or_domain_is_refused() {
    let world = World::new();
    let linted = world.prepare("ns/shop/sa/cart");
    let (_, tbs) = TbsCertificate::from_der(linted.tbs()).unwrap();
    let long = issue::prepare_issuer(
        TestKey::new().public,
        &Profile::issuer(),
        &world.root,
        serial(8),
        NOW.plus_secs(-6 * 86_400 - 7_200),
    );
    // The root starts later than that; an issuer of an older root serves.
    assert!(long.is_err());
    let late_root_key = TestKey::new();
    let late = NOW.plus_secs(86_400);
    let late_root = issue::prepare_root(
        late_root_key.public.clone(),
        &Profile::root(),
        &world.domain,
        serial(9),
        late,
    )
    .unwrap();
    let late_root = Authority::parse(
        issue::sign(late_root, &late_root_key)
            .unwrap()
            .certificate(),
        &world.domain,
    )
    .unwrap();
    let error =
        (rule("validity_is_within_the_signers").check)(&tbs, &leaf_expected(&linted, &late_root));
    assert!(error.is_err());

    let other = mesh_trust::TrustDomain::parse("other.example").unwrap();
    let key = TestKey::new();
    let root =
        issue::prepare_root(key.public.clone(), &Profile::root(), &other, serial(9), NOW).unwrap();
    let foreign = Authority::parse(issue::sign(root, &key).unwrap().certificate(), &other).unwrap();
    let error =
        (rule("identity_is_in_the_signers_domain").check)(&tbs, &leaf_expected(&linted, &foreign));
    assert!(error.unwrap_err().contains("is not `other.example`"));
    let issuer = issue::prepare_issuer(
        TestKey::new().public,
        &Profile::issuer(),
        &world.root,
        serial(9),
        NOW,
    )
    .unwrap();
    let (_, tbs) = TbsCertificate::from_der(issuer.tbs()).unwrap();
    let error = (rule("identity_is_in_the_signers_domain").check)(
        &tbs,
        &leaf_expected(&linted, &world.issuer),
    );
    assert!(error.unwrap_err().contains("path"), "a leaf without path");
}

#[test]
fn the_longest_validity_is_the_profiles() {
    let world = World::new();
    let linted = world.prepare("ns/shop/sa/cart");
    let expected = Expected {
        validity_secs_max: linted.validity().secs() - 1,
        ..leaf_expected(&linted, &world.issuer)
    };
    assert_eq!(
        check(linted.tbs(), &expected).unwrap_err().rule,
        "validity_is_as_granted"
    );
}

#[test]
fn keys_of_p384_can_be_certified() {
    use ring::signature::{ECDSA_P384_SHA384_ASN1_SIGNING as P384, EcdsaKeyPair, KeyPair};
    let random = ring::rand::SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&P384, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&P384, pkcs8.as_ref(), &random).unwrap();
    let key = PublicKey::from_point(Curve::P384, pair.public_key().as_ref()).unwrap();
    let world = World::new();
    let request = issue::Request {
        key,
        ..world.request("ns/a/sa/b")
    };
    let linted = issue::prepare(
        request,
        &Profile::leaf(60).unwrap(),
        &world.issuer,
        serial(9),
        NOW,
    )
    .unwrap();
    assert!(issue::sign(linted, &world.issuer_key).is_ok());
}
