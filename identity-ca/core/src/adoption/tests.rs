//! Issuers and roots as others keep them: what is read, each constraint by itself, each request's end.

use super::AdoptionError;
use super::preflight::{Demands, check};
use super::source::{Data, IssuerFiles, issuer_from, roots_beside, roots_from, roots_from_pem};
use crate::testing::NOW;
use mesh_trust::{Timestamp, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use std::time::Duration;

/// Seconds from now, as rcgen wants it.
macro_rules! time {
    ($secs:expr) => {
        rcgen::date_time_ymd(1970, 1, 1)
            + Duration::from_secs(u64::try_from(NOW.unix_secs() + $secs).unwrap())
    };
}

pub(super) type Made = CertifiedIssuer<'static, KeyPair>;

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = time!(-3_600);
    params.not_after = time!(30 * 86_400);
    params
}

fn domain() -> &'static TrustDomain {
    static DOMAIN: std::sync::OnceLock<TrustDomain> = std::sync::OnceLock::new();
    DOMAIN.get_or_init(|| TrustDomain::parse("cluster.local").unwrap())
}

pub(super) fn root() -> Made {
    CertifiedIssuer::self_signed(params("root"), KeyPair::generate().unwrap()).unwrap()
}

pub(super) fn below(above: &Made, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Made {
    let mut params = params(name);
    change(&mut params);
    CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), above).unwrap()
}

fn pem(all: &[&Made]) -> Vec<u8> {
    all.iter()
        .map(|made| made.pem())
        .collect::<String>()
        .into_bytes()
}

/// Below `above`, with so many seconds to live, and with `key` if it is given.
pub(super) fn living(above: &Made, secs: i64, key: Option<&KeyPair>) -> Made {
    let mut params = params("issuer");
    params.not_after = time!(secs);
    CertifiedIssuer::signed_by(params, key.map_or_else(fresh, copy), above).unwrap()
}

/// A root with the key of another.
pub(super) fn root_again(other: &Made) -> Made {
    let mut params = params("root");
    params.not_after = time!(60 * 86_400);
    CertifiedIssuer::self_signed(params, copy(other.key())).unwrap()
}

fn fresh() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn copy(key: &KeyPair) -> KeyPair {
    KeyPair::try_from(key.serialize_der()).unwrap()
}

pub(super) fn secret(chain: &[&Made], key: &Made) -> Data {
    [
        ("tls.crt".to_owned(), pem(chain)),
        ("tls.key".to_owned(), key.key().serialize_pem().into_bytes()),
    ]
    .into()
}

fn demands<'a>(roots: &'a [CertificateDer<'static>]) -> Demands<'a> {
    Demands {
        roots,
        domain: domain(),
        leaf_secs: 86_400,
        rotation_policy: Some("Always"),
        now: NOW,
    }
}

pub(super) fn der(made: &Made) -> CertificateDer<'static> {
    made.der().clone()
}

fn codes(found: Result<impl Sized, Vec<AdoptionError>>) -> Vec<String> {
    let errors = found.err().unwrap_or_default();
    errors
        .iter()
        .map(|error| miette::Diagnostic::code(error).unwrap().to_string())
        .collect()
}

#[test]
fn an_issuer_is_read_under_both_names_and_in_both_forms_of_its_key() {
    let root = root();
    let issuer = below(&root, "issuer", |_| {});
    let tls = secret(&[&issuer, &root], &issuer);
    let read = issuer_from(&tls).unwrap();
    let linkerd: Data = [
        ("crt.pem".to_owned(), tls["tls.crt"].clone()),
        ("key.pem".to_owned(), tls["tls.key"].clone()),
    ]
    .into();
    assert_eq!(issuer_from(&linkerd).unwrap(), read);
    // SEC1, as cert-manager writes it: what stands inside of PKCS #8.
    let pkcs8 = issuer.key().serialize_der();
    let at = pkcs8
        .windows(2)
        .rposition(|pair| pair == [0x30, 0x6b])
        .unwrap();
    let curve = [0xa0, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    let (head, public) = pkcs8[at + 2..].split_at(3 + 34);
    let content = [head, &curve, public].concat();
    let sec1 = [&[0x30, u8::try_from(content.len()).unwrap()], &content[..]].concat();
    let text = format!(
        "-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n",
        data_encoding::BASE64.encode(&sec1)
    );
    let old_form: Data = [
        ("tls.crt".to_owned(), tls["tls.crt"].clone()),
        ("tls.key".to_owned(), text.into_bytes()),
    ]
    .into();
    let roots = [der(&root)];
    for files in [read, issuer_from(&old_form).unwrap()] {
        let adopted = check(files, demands(&roots)).unwrap();
        assert_eq!(
            (adopted.root, adopted.issuer.chain),
            (der(&root), vec![der(&issuer)]),
            "the root is left out of the chain"
        );
    }
}

#[test]
fn what_is_missing_or_unreadable_is_named() {
    let issuer = root();
    let good = secret(&[&issuer], &issuer);
    let without = |key: &str| {
        let mut data = good.clone();
        data.remove(key);
        issuer_from(&data).unwrap_err()
    };
    assert!(matches!(without("tls.crt"), AdoptionError::NoKey { .. }));
    assert!(matches!(without("tls.key"), AdoptionError::NoKey { .. }));
    let with = |key: &str, value: &[u8]| {
        let mut data = good.clone();
        data.insert(key.to_owned(), value.to_vec());
        issuer_from(&data)
    };
    for value in [
        &b""[..],
        b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        &good["tls.key"],
    ] {
        assert!(matches!(
            with("tls.crt", value),
            Err(AdoptionError::Unreadable { what: "chain", .. })
        ));
    }
    for value in [
        &b""[..],
        &good["tls.crt"],
        b"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
    ] {
        assert!(matches!(
            with("tls.key", value),
            Err(AdoptionError::Unreadable { what: "key", .. })
        ));
    }
    assert!(
        matches!(
            with("tls.crt", &good["tls.crt"].repeat(50)),
            Err(AdoptionError::Unreadable { .. })
        ),
        "too many"
    );
    assert!(
        with("ca.crt", b"rubbish").unwrap().hint_of_root.is_none(),
        "best effort"
    );
}

#[test]
fn roots_with_a_private_key_anywhere_beside_them_are_refused() {
    let root = root();
    let key = root.key().serialize_pem();
    let bundle = String::from_utf8(pem(&[&root])).unwrap();
    let map = |entries: &[(&str, &str)]| -> Data {
        entries
            .iter()
            .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))
            .collect()
    };
    assert_eq!(
        roots_from(&map(&[("ca-bundle.crt", &bundle)]), None).unwrap(),
        [der(&root)]
    );
    assert_eq!(
        roots_from(&map(&[("x", &bundle)]), Some("x")).unwrap(),
        [der(&root)]
    );
    for data in [
        map(&[("ca-bundle.crt", &format!("{bundle}{key}"))]),
        map(&[("ca-bundle.crt", &bundle), ("tls.key", &key)]),
    ] {
        assert_eq!(
            roots_from(&data, None),
            Err(AdoptionError::PrivateKeyAmongRoots)
        );
    }
    assert_eq!(
        roots_from_pem(key.as_bytes()),
        Err(AdoptionError::PrivateKeyAmongRoots)
    );
    assert!(matches!(
        roots_from(&map(&[("other", &bundle)]), None),
        Err(AdoptionError::NoKey { .. })
    ));
}

#[test]
fn what_peers_would_refuse_is_refused_before_anybody_is_asked_to_trust_it() {
    let bare = {
        let mut params = params("root");
        params.key_usages.clear();
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let issuer = below(&bare, "issuer", |_| {});
    let files = issuer_from(&secret(&[&issuer], &issuer)).unwrap();
    assert_eq!(
        codes(check(files, demands(&[der(&bare)]))),
        ["MESH-0935"],
        "a root without keyCertSign"
    );
    let root = root();
    let named = |uri: &str| {
        let uri = rcgen::SanType::URI(uri.try_into().unwrap());
        let issuer = below(&root, "issuer", |params| params.subject_alt_names.push(uri));
        let files = issuer_from(&secret(&[&issuer], &issuer)).unwrap();
        codes(check(files, demands(&[der(&root)])))
    };
    assert_eq!(named("spiffe://cluster.local"), [""; 0]);
    for foreign in ["spiffe://other.example", "spiffe://cluster.local/ns/a/sa/b"] {
        assert_eq!(named(foreign), ["MESH-0958"], "{foreign}");
    }
}

#[test]
fn roots_beside_an_issuer_are_certificates_alone() {
    let root = root();
    let issuer = below(&root, "issuer", |_| {});
    let mut data = secret(&[&issuer], &issuer);
    assert!(matches!(
        roots_beside(&data),
        Err(AdoptionError::NoKey { .. })
    ));
    data.insert("ca.crt".to_owned(), root.pem().into_bytes());
    assert_eq!(roots_beside(&data).unwrap(), [der(&root)]);
    data.insert("ca.crt".to_owned(), root.key().serialize_pem().into_bytes());
    assert_eq!(
        roots_beside(&data),
        Err(AdoptionError::PrivateKeyAmongRoots)
    );
}

#[test]
fn each_constraint_of_the_preflight_is_named_by_itself() {
    let root = root();
    let roots = [der(&root)];
    let issuer = |change: fn(&mut CertificateParams)| below(&root, "issuer", change);
    let of = |chain: &[&Made], key: &Made| issuer_from(&secret(chain, key)).unwrap();
    let checked = |made: &Made| codes(check(of(&[made], made), demands(&roots)));
    assert_eq!(checked(&issuer(|_| {})), [""; 0]);
    for (what, change, want) in [
        (
            "no CA",
            (|p: &mut CertificateParams| p.is_ca = IsCa::ExplicitNoCa)
                as fn(&mut CertificateParams),
            "MESH-0909",
        ),
        (
            "no keyCertSign",
            |p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature],
            "MESH-0935",
        ),
        ("no key usage", |p| p.key_usages.clear(), "MESH-0935"),
        ("expired", |p| p.not_after = time!(-10), "MESH-0944"),
        ("not yet", |p| p.not_before = time!(10), "MESH-0944"),
        (
            "less than two lives left",
            |p| p.not_after = time!(2 * 86_400 - 1),
            "MESH-0945",
        ),
    ] {
        assert_eq!(checked(&issuer(change)), [want], "{what}");
    }
    assert_eq!(
        checked(&issuer(|p| p.not_after = time!(2 * 86_400))),
        [""; 0]
    );
    let good = issuer(|_| {});
    assert_eq!(
        codes(check(of(&[&good], &root), demands(&roots))),
        ["MESH-0936"]
    );
    assert_eq!(
        codes(check(of(&[&root], &root), demands(&roots))),
        ["MESH-0948"]
    );
    let stranger = self::root();
    assert_eq!(
        codes(check(of(&[&good], &good), demands(&[der(&stranger)]))),
        ["MESH-0938"]
    );
    assert_eq!(
        codes(check(of(&[&good], &good), demands(&[]))),
        ["MESH-0938"]
    );
    let never = Demands {
        rotation_policy: Some("Never"),
        ..demands(&roots)
    };
    assert_eq!(codes(check(of(&[&good], &good), never)), ["MESH-0946"]);
    let unknown = Demands {
        rotation_policy: None,
        ..demands(&roots)
    };
    assert_eq!(codes(check(of(&[&good], &good), unknown)), [""; 0]);
}

#[test]
fn chains_are_followed_upwards_and_path_lengths_counted() {
    let root = root();
    let middle = below(&root, "middle", |_| {});
    let issuer = below(&middle, "issuer", |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))
    });
    let roots = [der(&root)];
    let of = |chain: &[&Made]| issuer_from(&secret(chain, &issuer)).unwrap();
    let adopted = check(of(&[&issuer, &middle, &root]), demands(&roots)).unwrap();
    assert_eq!(adopted.issuer.chain, [der(&issuer), der(&middle)]);
    assert_eq!(
        codes(check(of(&[&issuer]), demands(&roots))),
        ["MESH-0938"],
        "an intermediate is missing"
    );
    let other = below(&root, "other", |_| {});
    assert_eq!(
        codes(check(of(&[&issuer, &other]), demands(&roots))),
        ["MESH-0939"]
    );
    let among = [der(&root), der(&middle)];
    assert_eq!(
        codes(check(of(&[&issuer, &middle]), demands(&among))),
        ["MESH-0947"]
    );
    let narrow = below(&root, "narrow", |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))
    });
    let under = below(&narrow, "issuer", |_| {});
    let files = issuer_from(&secret(&[&under, &narrow], &under)).unwrap();
    let found = check(files, demands(&roots)).unwrap_err();
    assert_eq!(
        found,
        [AdoptionError::PathLength {
            position: 1,
            found: 0,
            needed: 1
        }]
    );
}

#[test]
fn all_broken_constraints_are_listed_at_once() {
    let root = root();
    let issuer = below(&root, "issuer", |p| {
        p.is_ca = IsCa::ExplicitNoCa;
        p.key_usages.clear();
        p.not_after = time!(60);
    });
    let files = issuer_from(&secret(&[&issuer], &root)).unwrap();
    let never = [der(&self::root())];
    let found = codes(check(
        files,
        Demands {
            rotation_policy: Some("Never"),
            ..demands(&never)
        },
    ));
    assert_eq!(
        found,
        [
            "MESH-0946",
            "MESH-0936",
            "MESH-0909",
            "MESH-0935",
            "MESH-0945",
            "MESH-0938"
        ]
    );
}

#[test]
fn a_key_never_shows_in_debug_output() {
    let issuer = root();
    let files: IssuerFiles = issuer_from(&secret(&[&issuer], &issuer)).unwrap();
    assert_eq!(format!("{files:?}"), "IssuerFiles(1 certificates)");
}

#[test]
fn a_chain_that_lies_about_time_is_held_against_the_clock_given() {
    let root = root();
    let issuer = below(&root, "issuer", |_| {});
    let roots = [der(&root)];
    let later: Timestamp = NOW.plus_secs(40 * 86_400);
    let files = issuer_from(&secret(&[&issuer], &issuer)).unwrap();
    assert_eq!(
        codes(check(
            files,
            Demands {
                now: later,
                ..demands(&roots)
            }
        )),
        ["MESH-0944", "MESH-0944"],
        "issuer and root"
    );
}
