//! Rule X3: who may sign.

use super::*;
use crate::forge::*;

fn check_template(template: &Template) -> Result<(), AuthorityError> {
    let domain = TrustDomain::parse("td").expect("valid");
    check(&Authority::self_signed(template).der, &domain).map(drop)
}

fn authority(id: &str) -> Template {
    Template::authority("root", id, -1)
}

#[test]
fn roots_with_the_id_of_their_domain_or_none_may_sign() {
    let dns = names(&[(2, b"ca.example"), (2, b"ca2.example")]);
    let web = names(&[(6, b"https://pki.example/ca")]);
    for template in [
        authority("spiffe://td"),
        authority(""),
        authority("").with(NAMES, false, dns),
        authority("").with(NAMES, false, web),
    ] {
        assert_eq!(check_template(&template), Ok(()));
    }
}

#[test]
fn workloads_and_authorities_without_cert_sign_may_not() {
    assert_eq!(
        check_template(&Template::leaf("spiffe://td/x")),
        Err(AuthorityError::NotAuthority)
    );
    assert_eq!(
        check_template(&authority("").without(BASIC)),
        Err(AuthorityError::NotAuthority)
    );
    assert_eq!(
        check_template(&authority("").without(KEY_USAGE)),
        Err(AuthorityError::NoCertSign)
    );
    assert_eq!(
        check_template(&authority("").with(KEY_USAGE, true, key_usage(&[0, 6]))),
        Err(AuthorityError::NoCertSign)
    );
}

#[test]
fn authorities_of_other_domains_and_with_workload_ids_may_not() {
    for id in ["spiffe://other", "spiffe://td/ca", "spiffe://td.evil"] {
        let refused = check_template(&authority(id));
        assert!(
            matches!(refused, Err(AuthorityError::OtherDomain { .. })),
            "{id}: {refused:?}"
        );
    }
    for id in ["spiffe://TD", "SPIFFE://td", "spiffe://td/", "spiffe:td"] {
        let refused = check_template(&authority(id));
        assert!(
            matches!(
                refused,
                Err(AuthorityError::Id {
                    source: Some(_),
                    ..
                })
            ),
            "{id}: {refused:?}"
        );
    }
    let both = names(&[(6, b"https://x"), (6, b"spiffe://td")]);
    let refused = check_template(&authority("").with(NAMES, false, both));
    assert!(
        matches!(refused, Err(AuthorityError::Id { source: None, .. })),
        "{refused:?}"
    );
}
