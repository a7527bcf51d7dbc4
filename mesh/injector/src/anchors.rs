//! The authorities in a webhook's `caBundle`. Every injector adds its own and leaves those of its siblings, until they have
//! expired: an API server accepts whichever of them answers.

use crate::limits::ANCHORS_MAX;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What `caBundle` must become so that `own` is in it; `None` if it is as it should be. Kept are others that are valid at
/// `now` (seconds since 1970), the newest [`ANCHORS_MAX`] in all; what cannot be read is dropped.
pub(crate) fn with_own(bundle: &[u8], own: &str, now: i64) -> Option<String> {
    let own_der = CertificateDer::from_pem_slice(own.as_bytes()).ok()?;
    let mut others: Vec<(i64, CertificateDer<'static>)> = CertificateDer::pem_slice_iter(bundle)
        .filter_map(Result::ok)
        .filter_map(|der| Some((begins_if_valid(&der, now)?, der)))
        .collect();
    let stands = others.iter().any(|(_, der)| *der == own_der);
    let expired = CertificateDer::pem_slice_iter(bundle).count() > others.len();
    if stands && !expired && others.len() <= ANCHORS_MAX {
        return None;
    }
    others.retain(|(_, der)| *der != own_der);
    others.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.as_ref().cmp(b.1.as_ref())));
    others.dedup_by(|a, b| a.1 == b.1);
    others.truncate(ANCHORS_MAX - 1);
    let mut out = own.to_owned();
    for (_, der) in &others {
        out.push_str(&pem(der));
    }
    Some(out)
}

/// When it begins to be valid, if it is valid at `now`.
fn begins_if_valid(der: &CertificateDer<'_>, now: i64) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    (validity.not_after.timestamp() > now).then(|| validity.not_before.timestamp())
}

fn pem(der: &CertificateDer<'_>) -> String {
    let text = data_encoding::BASE64.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Authority;
    use crate::limits::LIFE;
    use crate::state::testing::At;

    fn anchor(at: i64) -> String {
        Authority::new(&At(at)).expect("a certificate").anchor
    }

    fn count(bundle: &str) -> usize {
        CertificateDer::pem_slice_iter(bundle.as_bytes())
            .filter_map(Result::ok)
            .count()
    }

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn its_own_is_added_and_those_of_siblings_stay() {
        let (own, sibling) = (anchor(NOW), anchor(NOW - 60));
        let bundle = with_own(b"", &own, NOW).expect("a change");
        assert_eq!(count(&bundle), 1);
        let both = with_own(sibling.as_bytes(), &own, NOW).expect("a change");
        assert_eq!(count(&both), 2);
        assert!(
            both.contains(own.trim()) && both.contains(sibling.trim()),
            "{both}"
        );
        // The sibling finds itself there, and changes nothing: two injectors do not fight.
        assert_eq!(with_own(both.as_bytes(), &sibling, NOW), None);
        assert_eq!(with_own(both.as_bytes(), &own, NOW), None);
    }

    #[test]
    fn what_has_expired_or_cannot_be_read_is_dropped() {
        let life = i64::try_from(LIFE.as_secs()).unwrap();
        let (own, old) = (anchor(NOW), anchor(NOW - life - 1));
        let bundle = with_own(format!("{own}{old}").as_bytes(), &own, NOW).expect("a change");
        assert_eq!(bundle, own);
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let bundle = with_own(format!("{broken}{own}").as_bytes(), &own, NOW).expect("a change");
        assert_eq!(bundle, own);
        assert_eq!(
            with_own(b"nonsense", &own, NOW).as_deref(),
            Some(own.as_str())
        );
    }

    #[test]
    fn many_restarts_do_not_make_it_grow_without_end() {
        let mut bundle = String::new();
        for restart in 0..i64::try_from(ANCHORS_MAX).unwrap() + 5 {
            let own = anchor(NOW + restart);
            bundle = with_own(bundle.as_bytes(), &own, NOW + restart).expect("a change");
            assert!(bundle.contains(own.trim()));
        }
        assert_eq!(count(&bundle), ANCHORS_MAX);
        assert!(!bundle.contains(anchor(NOW).trim()));
    }
}
