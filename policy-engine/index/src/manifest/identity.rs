//! Identity texts of policies: `*`, DNS forms and SPIFFE IDs (settled reading 9).

use mesh_policy::snapshot::IdentityPattern;
use mesh_trust::{SpiffeId, TrustDomain};

/// An identity as a policy writes it. What a DNS form means depends on our trust domain, known only to the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// `*`.
    Any,
    /// A DNS form, `*.` in front or not.
    Dns(String),
    /// A SPIFFE ID.
    Exact(SpiffeId),
    /// `spiffe://<td>/ns/<namespace>/*`.
    ForeignNamespace(TrustDomain, String),
    /// A ServiceAccount of our own trust domain.
    ServiceAccount { namespace: String, name: String },
    /// All ServiceAccounts of a namespace of our own trust domain.
    Namespace(String),
}

impl Identity {
    /// Reads an identity text.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if text
            .get(..9)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe://"))
        {
            return Self::parse_spiffe(text);
        }
        let labels = text.strip_prefix("*.").unwrap_or(text);
        if text.len() > 253 {
            return Err("it is longer than 253 bytes".into());
        }
        if labels.split('.').all(is_label) {
            return Ok(Self::Dns(text.to_owned()));
        }
        Err("expected `*`, a lower-case DNS name (only its first label may be `*`) or `spiffe://<trust domain>/<path>`".into())
    }

    fn parse_spiffe(text: &str) -> Result<Self, String> {
        let (id, whole) = match text.strip_suffix("/*") {
            Some(prefix) => (prefix, false),
            None => (text, true),
        };
        let id = SpiffeId::parse_config(id).map_err(|e| e.to_string())?;
        if whole {
            return if id.path().is_empty() {
                Err("a trust domain alone is no workload's identity".into())
            } else {
                Ok(Self::Exact(id))
            };
        }
        match id.path().strip_prefix("/ns/") {
            Some(namespace) if !namespace.is_empty() && !namespace.contains('/') => {
                Ok(Self::ForeignNamespace(id.trust_domain().clone(), namespace.to_owned()))
            }
            _ => Err("`*` may only stand for the service accounts of a namespace: `spiffe://<trust domain>/ns/<namespace>/*`".into()),
        }
    }

    /// As people write it; a ServiceAccount as `namespace/name`.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Any => "*".to_owned(),
            Self::Dns(text) => text.clone(),
            Self::Exact(id) => id.to_string(),
            Self::ForeignNamespace(domain, namespace) => {
                format!("spiffe://{domain}/ns/{namespace}/*")
            }
            Self::ServiceAccount { namespace, name } => format!("{namespace}/{name}"),
            Self::Namespace(namespace) => format!("{namespace}/*"),
        }
    }

    /// All service accounts of the namespace that this one is of, if it is one.
    pub(crate) fn of_its_namespace(&self) -> Option<Self> {
        match self {
            Self::ServiceAccount { namespace, .. } => Some(Self::Namespace(namespace.clone())),
            Self::Exact(id) => {
                let (namespace, _) = id.service_account()?;
                let domain = id.trust_domain().clone();
                Some(Self::ForeignNamespace(domain, namespace.to_owned()))
            }
            Self::Dns(text) => {
                let (account, rest) = text.split_once(".serviceaccount.identity.")?;
                let (name, namespace) = account.rsplit_once('.')?;
                let all = format!("*.{namespace}.serviceaccount.identity.{rest}");
                (name != "*").then_some(Self::Dns(all))
            }
            Self::Any | Self::ForeignNamespace(..) | Self::Namespace(_) => None,
        }
    }

    /// What it means in `domain`.
    pub(crate) fn pattern(&self, domain: &TrustDomain) -> IdentityPattern {
        let account = |namespace: &str, name: &str| match SpiffeId::for_service_account(
            domain, namespace, name,
        ) {
            Ok(id) => IdentityPattern::Exact(id),
            Err(_) => IdentityPattern::Nobody(format!("{name}.{namespace}")),
        };
        let all = |namespace: &str| IdentityPattern::Namespace {
            trust_domain: domain.clone(),
            namespace: namespace.to_owned(),
        };
        match self {
            Self::Any => IdentityPattern::Any,
            Self::Exact(id) => IdentityPattern::Exact(id.clone()),
            Self::ForeignNamespace(trust_domain, namespace) => IdentityPattern::Namespace {
                trust_domain: trust_domain.clone(),
                namespace: namespace.clone(),
            },
            Self::ServiceAccount { namespace, name } => account(namespace, name),
            Self::Namespace(namespace) => all(namespace),
            Self::Dns(text) => match of_our_domain(text, domain) {
                Some(("*", namespace)) => all(namespace),
                Some((name, namespace)) => account(namespace, name),
                None => IdentityPattern::Nobody(text.clone()),
            },
        }
    }
}

/// `<sa>.<ns>.serviceaccount.identity.<any control-plane namespace>.<our trust domain>` as name and namespace.
fn of_our_domain<'t>(text: &'t str, domain: &TrustDomain) -> Option<(&'t str, &'t str)> {
    let (account, rest) = text.split_once(".serviceaccount.identity.")?;
    let (_control_plane, its_domain) = rest.split_once('.')?;
    (its_domain == domain.as_str()).then_some(())?;
    // A service account's name may hold dots, a namespace's may not.
    let (name, namespace) = account.rsplit_once('.')?;
    (!name.is_empty() && !namespace.is_empty()).then_some((name, namespace))
}

/// A DNS label (RFC 1123): lower-case letters, digits and inner hyphens, at most 63.
pub(crate) fn is_label(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// A DNS name (RFC 1123), as most objects are named: labels with dots, at most 253.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// A port name (RFC 6335): at most 15 of lower-case letters, digits and single inner hyphens, with a letter.
pub(crate) fn is_port_name(text: &str) -> bool {
    text.len() <= 15
        && is_label(text)
        && !text.contains("--")
        && text.bytes().any(|b| b.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> TrustDomain {
        TrustDomain::parse("cluster.local").unwrap()
    }

    #[test]
    fn identity_texts_follow_the_grammar_of_the_admission_webhook() {
        for text in [
            "*",
            "*.x",
            "*.shop.serviceaccount.identity.linkerd.cluster.local",
            "a.b.c",
            "spiffe://cluster.local/ns/shop/sa/cart",
            "SPIFFE://Cluster.Local/ns/shop/sa/cart",
            "spiffe://td/ns/shop/*",
        ] {
            assert!(
                Identity::parse(text).is_ok(),
                "{text}: {:?}",
                Identity::parse(text)
            );
        }
        for text in [
            "",
            "x.*",
            "*x",
            "**",
            "*.*",
            "*.",
            "a..b",
            "a.",
            ".a",
            "A.b",
            "a_b",
            "-a.b",
            "spiffe://",
            "spiffe://td",
            "spiffe:///x",
            "spiffe://td/",
            "spiffe://td/a/",
            "spiffe://td//a",
            "spiffe://td/./a",
            "spiffe://td/../a",
            "spiffe://t!d/a",
            "spiffe://td/*",
            "spiffe://td/ns/*",
            "spiffe://td/ns/a/sa/*",
            "spiffe://td/ns/a/*/b",
            "spiffe://*/ns/a/sa/b",
            "https://td/a",
            "spiffe://td/a b",
            "spiffe://td:8/a",
            "spiffe://td/a?x",
            "spiffe://td/a%20",
            "é.b",
        ] {
            assert!(Identity::parse(text).is_err(), "`{text}` is refused");
        }
    }

    #[test]
    fn dns_forms_of_any_control_plane_namespace_mean_our_service_accounts() {
        let exact = |path: &str| {
            IdentityPattern::Exact(
                SpiffeId::parse(&format!("spiffe://cluster.local{path}")).unwrap(),
            )
        };
        let meaning = |text: &str| Identity::parse(text).unwrap().pattern(&domain());
        assert_eq!(
            meaning("cart.shop.serviceaccount.identity.linkerd.cluster.local"),
            exact("/ns/shop/sa/cart")
        );
        assert_eq!(
            meaning("cart.shop.serviceaccount.identity.mesh-system.cluster.local"),
            exact("/ns/shop/sa/cart")
        );
        assert_eq!(
            meaning("a.b.shop.serviceaccount.identity.linkerd.cluster.local"),
            exact("/ns/shop/sa/a.b")
        );
        assert_eq!(
            meaning("*.shop.serviceaccount.identity.linkerd.cluster.local"),
            IdentityPattern::Namespace {
                trust_domain: domain(),
                namespace: "shop".into()
            }
        );
    }

    #[test]
    fn other_suffixes_match_nobody() {
        for text in [
            "cart.shop.serviceaccount.identity.linkerd.other.example",
            "*.cluster.local",
            "*.serviceaccount.identity.linkerd.cluster.local",
            "*.identity.linkerd.cluster.local",
            "shop.serviceaccount.identity.linkerd.cluster.local",
            "cart",
            "*.x",
            "cart.shop.serviceaccount.identity.cluster.local",
            "*.a.shop.serviceaccount.identity.linkerd.evil.cluster.local",
        ] {
            let pattern = Identity::parse(text).unwrap().pattern(&domain());
            assert!(
                matches!(pattern, IdentityPattern::Nobody(_)),
                "{text}: {pattern:?}"
            );
        }
    }

    #[test]
    fn port_names_are_service_names() {
        for name in ["http", "a1", "my-port", "1a"] {
            assert!(is_port_name(name), "{name}");
        }
        for name in [
            "",
            "8080",
            "a--b",
            "-a",
            "a-",
            "Http",
            "a_b",
            "sixteen-letters-",
        ] {
            assert!(!is_port_name(name), "{name}");
        }
    }
}
