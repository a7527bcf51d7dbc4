//! The rules that every certificate must keep before it is signed, each with a name.
//!
//! They read the to-be-signed bytes with another library than the one that wrote them, and compare them with what was
//! attested, not with what the writer was told: a fault of the template is found here, not by a peer.

use crate::authority::{Authority, magnitude};
use crate::issue::{Kind, Serial};
use crate::key::PublicKey;
use crate::limits::{SERIAL_BYTES_MAX, TBS_BYTES_MAX};
use crate::profile::Validity;
use mesh_trust::{SpiffeId, Timestamp};
use x509_parser::certificate::TbsCertificate;
use x509_parser::extensions::{
    BasicConstraints, GeneralName, KeyUsage, ParsedExtension, X509Extension,
};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

/// What the certificate was meant to be.
#[derive(Debug)]
pub struct Expected<'a> {
    /// Root, issuer or leaf.
    pub kind: Kind,
    /// The one name.
    pub id: &'a SpiffeId,
    /// The reserved serial.
    pub serial: &'a Serial,
    /// The validity granted.
    pub validity: Validity,
    /// The most that the profile grants, backdating included.
    pub validity_secs_max: u64,
    /// The key.
    pub key: &'a PublicKey,
    /// Who will sign; none for a root.
    pub above: Option<&'a Authority>,
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// Stable name.
    pub name: &'static str,
    /// Where it is written.
    pub section: &'static str,
    check: fn(&TbsCertificate<'_>, &Expected<'_>) -> Result<(), String>,
}

/// A certificate that breaks a rule; it was not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("the certificate breaks rule `{rule}` ({section}): {why}")]
#[diagnostic(
    code("MESH-0214"),
    help("nothing was signed; report this as a fault of the CA, with the rule's name")
)]
pub struct LintError {
    /// Name of the rule.
    pub rule: &'static str,
    /// Where it is written.
    pub section: &'static str,
    /// What was found.
    pub why: String,
}

macro_rules! rules {
    ($($name:ident: $section:literal,)*) => {
        &[$(Rule { name: stringify!($name), section: $section, check: $name },)*]
    };
}

/// All rules, in the order in which they are checked.
pub const RULES: &[Rule] = rules! {
    size: "limit of this CA",
    version_is_3: "RFC 5280 4.1.2.1",
    serial_is_the_reserved_one: "RFC 5280 4.1.2.2",
    signature_algorithm_is_the_signers: "RFC 5280 4.1.2.3",
    issuer_is_the_signers_subject: "RFC 5280 4.1.2.4",
    times_have_their_form: "RFC 5280 4.1.2.5",
    validity_is_as_granted: "profile",
    validity_is_within_the_signers: "profile",
    subject_suits_the_kind: "RFC 5280 4.1.2.6",
    key_is_the_requested_one: "profile",
    no_unique_identifiers: "RFC 5280 4.1.2.8",
    extensions_are_known_and_single: "RFC 5280 4.2",
    basic_constraints_suit_the_kind: "X509-SVID 4.1",
    key_usage_suits_the_kind: "X509-SVID 4.3",
    extended_key_usage_suits_the_kind: "X509-SVID 4.4",
    the_only_name_is_the_identity: "X509-SVID 2",
    identity_is_in_the_signers_domain: "X509-SVID 3",
    names_are_critical_iff_subject_is_empty: "RFC 5280 4.2.1.6",
    authority_key_identifier_is_the_signers: "RFC 5280 4.2.1.1",
    subject_key_identifier_suits_the_kind: "RFC 5280 4.2.1.2",
};

/// Reads what is to be signed and checks it against every rule.
///
/// # Errors
/// [`LintError`]: the first rule broken.
pub fn check(tbs: &[u8], expected: &Expected<'_>) -> Result<(), LintError> {
    let unreadable = |why: &str| LintError {
        rule: "readable",
        section: "RFC 5280 4.1",
        why: why.to_owned(),
    };
    let (rest, read) =
        TbsCertificate::from_der(tbs).map_err(|_| unreadable("it is not DER of a certificate"))?;
    if !rest.is_empty() {
        return Err(unreadable("bytes follow it"));
    }
    for rule in RULES {
        (rule.check)(&read, expected).map_err(|why| LintError {
            rule: rule.name,
            section: rule.section,
            why,
        })?;
    }
    Ok(())
}

type Verdict = Result<(), String>;

fn demand(holds: bool, why: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(why()) }
}

fn size(tbs: &TbsCertificate<'_>, _: &Expected<'_>) -> Verdict {
    let bytes = tbs.as_ref().len();
    demand(bytes <= TBS_BYTES_MAX, || {
        format!("{bytes} bytes; the limit is {TBS_BYTES_MAX}")
    })
}

fn version_is_3(tbs: &TbsCertificate<'_>, _: &Expected<'_>) -> Verdict {
    demand(tbs.version() == X509Version::V3, || {
        format!("version {}", tbs.version())
    })
}

fn serial_is_the_reserved_one(tbs: &TbsCertificate<'_>, expected: &Expected<'_>) -> Verdict {
    let raw = tbs.raw_serial();
    demand(raw.len() <= SERIAL_BYTES_MAX, || {
        format!("{} octets", raw.len())
    })?;
    demand(raw.first().is_some_and(|first| first & 0x80 == 0), || {
        "it is negative".to_owned()
    })?;
    demand(raw.iter().any(|octet| *octet != 0), || {
        "it is zero".to_owned()
    })?;
    demand(magnitude(raw) == expected.serial.as_bytes(), || {
        "it is another one".to_owned()
    })
}

fn signature_algorithm_is_the_signers(
    tbs: &TbsCertificate<'_>,
    expected: &Expected<'_>,
) -> Verdict {
    let signer = expected.above.map_or(expected.key, Authority::key);
    let want = match signer.curve() {
        crate::key::Curve::P256 => "1.2.840.10045.4.3.2",
        crate::key::Curve::P384 => "1.2.840.10045.4.3.3",
    };
    let found = tbs.signature.algorithm.to_id_string();
    demand(found == want && tbs.signature.parameters.is_none(), || {
        format!("found {found}, want {want} without parameters")
    })
}

fn issuer_is_the_signers_subject(tbs: &TbsCertificate<'_>, expected: &Expected<'_>) -> Verdict {
    let want = expected
        .above
        .map_or_else(|| tbs.subject().as_raw(), Authority::subject);
    demand(
        tbs.issuer().as_raw() == want && tbs.issuer().iter().next().is_some(),
        || format!("it is `{}`", tbs.issuer()),
    )
}

fn times_have_their_form(tbs: &TbsCertificate<'_>, _: &Expected<'_>) -> Verdict {
    for time in [tbs.validity().not_before, tbs.validity().not_after] {
        // 2050-01-01T00:00:00Z.
        let early = time.timestamp() < 2_524_608_000;
        demand(time.is_utctime() == early, || {
            format!("{time}: UTCTime is for years before 2050, GeneralizedTime for later ones")
        })?;
    }
    Ok(())
}

fn validity_is_as_granted(tbs: &TbsCertificate<'_>, expected: &Expected<'_>) -> Verdict {
    let found = validity(tbs);
    demand(found == expected.validity, || {
        format!("found {} to {}", found.not_before, found.not_after)
    })?;
    demand(found.not_before < found.not_after, || {
        "it ends before it starts".to_owned()
    })?;
    demand(found.secs() <= expected.validity_secs_max, || {
        format!(
            "{} s; the profile's limit is {} s",
            found.secs(),
            expected.validity_secs_max
        )
    })
}

fn validity_is_within_the_signers(tbs: &TbsCertificate<'_>, expected: &Expected<'_>) -> Verdict {
    let Some(above) = expected.above else {
        return Ok(());
    };
    demand(validity(tbs).is_within(&above.validity()), || {
        format!(
            "the signer counts from {} to {}",
            above.validity().not_before,
            above.validity().not_after
        )
    })
}

fn subject_suits_the_kind(tbs: &TbsCertificate<'_>, expected: &Expected<'_>) -> Verdict {
    let empty = tbs.subject().iter().next().is_none();
    let subject = tbs.subject().as_raw();
    match (expected.kind, expected.above) {
        (Kind::Leaf, _) => demand(empty, || {
            format!("a leaf has none, found `{}`", tbs.subject())
        }),
        (Kind::Issuer, Some(above)) => demand(!empty && subject != above.subject(), || {
            "it is empty, or the signer's".to_owned()
        }),
        (Kind::Issuer, None) => Err("an issuer has a signer above it".to_owned()),
        (Kind::Root, _) => demand(!empty && expected.above.is_none(), || {
            "it is empty, or the root has a signer above it".to_owned()
        }),
    }
}

fn key_is_the_requested_one(tbs: &TbsCertificate<'_>, expected: &Expected<'_>) -> Verdict {
    // A `PublicKey` lies on its curve, and has one encoding.
    demand(tbs.subject_pki.raw == expected.key.spki(), || {
        "it is another one".to_owned()
    })?;
    demand(
        expected
            .above
            .is_none_or(|above| above.key() != expected.key),
        || "it is the signer's".to_owned(),
    )
}

fn no_unique_identifiers(tbs: &TbsCertificate<'_>, _: &Expected<'_>) -> Verdict {
    demand(
        tbs.issuer_uid.is_none() && tbs.subject_uid.is_none(),
        || "it has them".to_owned(),
    )
}

fn extensions_are_known_and_single(tbs: &TbsCertificate<'_>, _: &Expected<'_>) -> Verdict {
    for (at, extension) in tbs.extensions().iter().enumerate() {
        let oid = extension.oid.to_id_string();
        let known = matches!(
            extension.parsed_extension(),
            ParsedExtension::AuthorityKeyIdentifier(_)
                | ParsedExtension::SubjectKeyIdentifier(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::SubjectAlternativeName(_)
                | ParsedExtension::BasicConstraints(_)
                | ParsedExtension::ExtendedKeyUsage(_)
        );
        demand(known, || format!("{oid} is unknown or unreadable"))?;
        demand(
            !tbs.extensions()
                .iter()
                .take(at)
                .any(|other| other.oid == extension.oid),
            || format!("{oid} twice"),
        )?;
    }
    Ok(())
}

fn basic_constraints_suit_the_kind(tbs: &TbsCertificate<'_>, expected: &Expected<'_>) -> Verdict {
    let (want_authority, want_limit) = match expected.kind {
        Kind::Root => (true, None),
        Kind::Issuer => (true, Some(0)),
        Kind::Leaf => (false, None),
    };
    let found = find(tbs, |parsed| match parsed {
        ParsedExtension::BasicConstraints(BasicConstraints {
            ca,
            path_len_constraint,
        }) => Some((*ca, *path_len_constraint)),
        _ => None,
    });
    match found {
        Some((extension, (ca, limit))) => demand(
            extension.critical && ca == want_authority && limit == want_limit,
            || {
                format!(
                    "critical {}, cA {ca}, path length {limit:?}",
                    extension.critical
                )
            },
        ),
        None => Err("there are none".to_owned()),
    }
}

fn key_usage_suits_the_kind(tbs: &TbsCertificate<'_>, expected: &Expected<'_>) -> Verdict {
    // Bits as the reader numbers them: 0 digitalSignature, 5 keyCertSign, 6 cRLSign.
    let want = match expected.kind {
        Kind::Leaf => 1,
        Kind::Root | Kind::Issuer => 1 << 5 | 1 << 6,
    };
    let found = find(tbs, |parsed| match parsed {
        ParsedExtension::KeyUsage(KeyUsage { flags }) => Some(*flags),
        _ => None,
    });
    match found {
        Some((extension, flags)) => demand(extension.critical && flags == want, || {
            format!("critical {}, bits {flags:#b}", extension.critical)
        }),
        None => Err("there is none".to_owned()),
    }
}

fn extended_key_usage_suits_the_kind(tbs: &TbsCertificate<'_>, expected: &Expected<'_>) -> Verdict {
    let found = find(tbs, |parsed| match parsed {
        ParsedExtension::ExtendedKeyUsage(usage) => {
            let others = usage.any
                || usage.code_signing
                || usage.email_protection
                || usage.time_stamping
                || usage.ocsp_signing;
            Some((
                usage.server_auth,
                usage.client_auth,
                others || !usage.other.is_empty(),
            ))
        }
        _ => None,
    });
    match (expected.kind, found) {
        (Kind::Leaf, Some((extension, (true, true, false)))) => {
            demand(!extension.critical, || "it is critical".to_owned())
        }
        (Kind::Leaf, _) => Err("a leaf has serverAuth and clientAuth, and nothing else".to_owned()),
        (Kind::Root | Kind::Issuer, found) => {
            demand(found.is_none(), || "authorities have none".to_owned())
        }
    }
}

fn the_only_name_is_the_identity(tbs: &TbsCertificate<'_>, expected: &Expected<'_>) -> Verdict {
    let names = find(tbs, |parsed| match parsed {
        ParsedExtension::SubjectAlternativeName(names) => Some(names.general_names.as_slice()),
        _ => None,
    });
    match names {
        Some((_, [GeneralName::URI(uri)])) => demand(*uri == expected.id.as_str(), || {
            "it is another one".to_owned()
        }),
        Some((_, names)) => Err(format!("{} names, or not a URI", names.len())),
        None => Err("there is none".to_owned()),
    }
}

fn identity_is_in_the_signers_domain(tbs: &TbsCertificate<'_>, expected: &Expected<'_>) -> Verdict {
    let uri = find(tbs, |parsed| match parsed {
        ParsedExtension::SubjectAlternativeName(names) => names.general_names.first(),
        _ => None,
    });
    let Some((_, GeneralName::URI(uri))) = uri else {
        return Err("there is none".to_owned());
    };
    let id = SpiffeId::parse(uri).map_err(|error| error.to_string())?;
    let domain = expected
        .above
        .map_or(expected.id.trust_domain(), Authority::domain);
    demand(id.trust_domain() == domain, || {
        format!("`{}` is not `{domain}`", id.trust_domain())
    })?;
    let leaf = expected.kind == Kind::Leaf;
    demand(id.path().is_empty() != leaf, || {
        "workloads have a path, authorities have none".to_owned()
    })
}

fn names_are_critical_iff_subject_is_empty(tbs: &TbsCertificate<'_>, _: &Expected<'_>) -> Verdict {
    let empty = tbs.subject().iter().next().is_none();
    let critical = find(tbs, |parsed| {
        matches!(parsed, ParsedExtension::SubjectAlternativeName(_)).then_some(())
    })
    .is_some_and(|(extension, ())| extension.critical);
    demand(critical == empty, || {
        format!("critical {critical}, empty subject {empty}")
    })
}

fn authority_key_identifier_is_the_signers(
    tbs: &TbsCertificate<'_>,
    expected: &Expected<'_>,
) -> Verdict {
    let found = find(tbs, |parsed| match parsed {
        ParsedExtension::AuthorityKeyIdentifier(id) => Some(id),
        _ => None,
    });
    match (expected.above, found) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err("a root has none".to_owned()),
        (Some(_), None) => Err("there is none".to_owned()),
        (Some(above), Some((extension, id))) => {
            let bare = id.authority_cert_issuer.is_none() && id.authority_cert_serial.is_none();
            let same = id
                .key_identifier
                .as_ref()
                .is_some_and(|id| id.0 == above.key_id());
            demand(same && bare && !extension.critical, || {
                "it is another one, has more than a key identifier, or is critical".to_owned()
            })
        }
    }
}

fn subject_key_identifier_suits_the_kind(
    tbs: &TbsCertificate<'_>,
    expected: &Expected<'_>,
) -> Verdict {
    let found = find(tbs, |parsed| match parsed {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    });
    let differs = |id: &[u8]| expected.above.is_none_or(|above| above.key_id() != id);
    match found {
        Some((extension, id)) => demand(
            !extension.critical && (8..=32).contains(&id.len()) && differs(id),
            || {
                format!(
                    "{} octets, critical {}, or the signer's",
                    id.len(),
                    extension.critical
                )
            },
        ),
        None => Err("there is none".to_owned()),
    }
}

fn validity(tbs: &TbsCertificate<'_>) -> Validity {
    Validity {
        not_before: Timestamp::from_unix_secs(tbs.validity().not_before.timestamp()),
        not_after: Timestamp::from_unix_secs(tbs.validity().not_after.timestamp()),
    }
}

/// The first extension from which `pick` takes something.
fn find<'a, T>(
    tbs: &'a TbsCertificate<'_>,
    pick: impl Fn(&'a ParsedExtension<'a>) -> Option<T>,
) -> Option<(&'a X509Extension<'a>, T)> {
    tbs.extensions()
        .iter()
        .find_map(|extension| pick(extension.parsed_extension()).map(|picked| (extension, picked)))
}

#[cfg(test)]
mod tests;
