//! What policies written in Cedar compare with: their string literals, as candidates for classes.
//!
//! Best effort. A policy may look at any attribute in any way, so whatever is found here, an answer about it is marked as
//! not exact.

use ipnet::IpNet;
use mesh_trust::{SpiffeId, TrustDomain};
use std::collections::BTreeSet;

/// Literals of some texts, by what they may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Literals {
    /// SPIFFE IDs.
    pub identities: BTreeSet<SpiffeId>,
    /// `<trust domain>/<namespace>`, and namespaces alone.
    pub namespaces: BTreeSet<(Option<TrustDomain>, String)>,
    /// Trust domains.
    pub domains: BTreeSet<TrustDomain>,
    /// Addresses and blocks.
    pub networks: BTreeSet<IpNet>,
    /// Paths.
    pub paths: BTreeSet<String>,
    /// Methods.
    pub methods: BTreeSet<String>,
}

impl Literals {
    /// Adds those of one text.
    pub fn add(&mut self, text: &str) {
        for literal in strings(text) {
            self.place(literal);
        }
    }

    fn place(&mut self, text: String) {
        if let Ok(id) = SpiffeId::parse(&text) {
            self.identities.insert(id);
        } else if let Ok(block) = text.parse::<IpNet>() {
            self.networks.insert(block.trunc());
        } else if let Ok(address) = text.parse::<std::net::IpAddr>() {
            self.networks.insert(IpNet::from(address));
        } else if text.starts_with('/') {
            self.paths.insert(text.replace('*', "x"));
        } else if let Some((domain, namespace)) = text.split_once('/') {
            if let Ok(domain) = TrustDomain::parse(domain) {
                self.namespaces.insert((Some(domain), namespace.to_owned()));
            }
        } else if !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase()) {
            self.methods.insert(text);
        } else if let Ok(domain) = TrustDomain::parse(&text) {
            self.namespaces.insert((None, text));
            self.domains.insert(domain);
        }
    }
}

/// Whether a text looks only at who asks, and at which Server or namespace is asked: then classes of clients and ports
/// decide it, and no attribute of a request matters.
pub fn is_structural(text: &str) -> bool {
    let bare = outside_strings(text);
    let words = bare.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let known = |word: &str| {
        word.is_empty()
            || [
                "permit",
                "forbid",
                "principal",
                "action",
                "resource",
                "when",
                "unless",
                "in",
                "is",
                "true",
                "false",
                "if",
                "then",
                "else",
                "Mesh",
            ]
            .contains(&word)
            || [
                "Namespace",
                "Workload",
                "Anonymous",
                "Server",
                "TrustDomain",
                "NamedServers",
                "IdentitySet",
            ]
            .contains(&word)
    };
    words.into_iter().all(known) && !bare.contains('.') && !bare.contains('@')
}

fn outside_strings(text: &str) -> String {
    let (mut out, mut inside, mut escaped) = (String::new(), false, false);
    for character in text.chars() {
        match (inside, escaped, character) {
            (true, true, _) => escaped = false,
            (true, false, '\\') => escaped = true,
            (_, _, '"') => inside = !inside,
            (false, _, _) => out.push(character),
            (true, false, _) => {}
        }
    }
    out
}

/// String literals, escapes of quote and backslash undone.
fn strings(text: &str) -> Vec<String> {
    let (mut out, mut current, mut escaped) = (Vec::new(), None::<String>, false);
    for character in text.chars() {
        match (&mut current, escaped, character) {
            (Some(literal), true, _) => {
                literal.push(character);
                escaped = false;
            }
            (Some(_), false, '\\') => escaped = true,
            (Some(_), false, '"') => out.extend(current.take()),
            (Some(literal), false, _) => literal.push(character),
            (None, _, '"') => current = Some(String::new()),
            (None, ..) => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_sorted_by_what_they_may_be() {
        let mut found = Literals::default();
        found.add(
            r#"permit(principal == Mesh::Workload::"spiffe://a.b/ns/x/sa/y", action, resource in Mesh::Namespace::"a.b/shop")
               when { context.req.path like "/admin/*" && context.req.method == "POST" && context.conn.ip.isInRange(ip("10.0.0.0/8"))
                      && principal.ns == "dev" };"#,
        );
        assert_eq!(found.identities.len(), 1);
        assert!(found.paths.contains("/admin/x") && found.methods.contains("POST"));
        assert_eq!(found.networks.len(), 1);
        let names: Vec<_> = found.namespaces.iter().map(|(_, n)| n.as_str()).collect();
        assert_eq!(names, ["dev", "shop"]);
    }

    #[test]
    fn only_texts_about_who_and_where_are_structural() {
        for (text, want) in [
            (
                r#"forbid(principal in Mesh::Namespace::"t/dev", action, resource in Mesh::Namespace::"t/pay");"#,
                true,
            ),
            (
                r#"forbid(principal, action, resource) when { principal is Mesh::Anonymous };"#,
                true,
            ),
            (
                r#"forbid(principal, action, resource) when { context.now > datetime("2026-01-01") };"#,
                false,
            ),
            (
                r#"forbid(principal, action, resource) when { principal.ns == "dev" };"#,
                false,
            ),
            (
                r#"forbid(principal in Mesh::IdentitySet::"a", action, resource);"#,
                true,
            ),
            (
                r#"forbid(principal, action, resource) when { context.conn.tls == false };"#,
                false,
            ),
            (
                r#"forbid(principal, action == Mesh::Action::"connect", resource);"#,
                false,
            ),
        ] {
            assert_eq!(is_structural(text), want, "{text}");
        }
    }
}
