//! Sources that a MeshTLSAuthentication and a NetworkAuthentication can say: sets of identities, sets of addresses.
//!
//! Istio's namespaces and service accounts mean those of every trust domain, this mesh's those of its own. Clients of
//! other trust domains that were meant so are admitted no longer; docs/reference/import.md says it once for all.

use super::model::{Attribute, Clause, Mtls, Want};
use super::pattern::Text;
use crate::manifest::identity::Identity;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mesh_trust::{SpiffeId, TrustDomain};
use std::collections::BTreeSet;

/// Who is admitted, as authentications can say it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Who {
    pub(crate) ids: Ids,
    /// `None`: from anywhere.
    pub(crate) networks: Option<Vec<Block>>,
}

/// Which identities.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ids {
    /// Nobody is asked.
    Anyone,
    /// Any verified identity.
    Verified,
    Members(BTreeSet<Member>),
}

/// Some identities.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    /// `None`: of any trust domain.
    domain: Option<String>,
    path: MemberPath,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum MemberPath {
    Namespace(String),
    Account(String, String),
    Other(String),
}

/// A block of addresses with what is taken out of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Block {
    pub(crate) cidr: IpNet,
    pub(crate) except: BTreeSet<IpNet>,
}

/// What can be said of the sources of a piece of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sources {
    Of(Who),
    /// They exclude each other: nobody.
    Nobody,
    /// Only Cedar can say it.
    NeedCedar,
}

impl Member {
    fn meet(&self, other: &Self) -> Option<Self> {
        let domain = match (&self.domain, &other.domain) {
            (Some(a), Some(b)) if a != b => return None,
            (a, b) => a.clone().or_else(|| b.clone()),
        };
        let path = match (&self.path, &other.path) {
            (a, b) if a == b => a.clone(),
            (MemberPath::Namespace(n), account @ MemberPath::Account(m, _))
            | (account @ MemberPath::Account(m, _), MemberPath::Namespace(n))
                if n == m =>
            {
                account.clone()
            }
            _ => return None,
        };
        Some(Self { domain, path })
    }

    /// As `identities` of a MeshTLSAuthentication has it; `None` if no identity looks like that.
    pub(crate) fn text(&self, own: &TrustDomain) -> Option<String> {
        let domain = self.domain.as_deref().unwrap_or(own.as_str());
        let text = match &self.path {
            MemberPath::Namespace(namespace) => format!("spiffe://{domain}/ns/{namespace}/*"),
            MemberPath::Account(namespace, name) => {
                format!("spiffe://{domain}/ns/{namespace}/sa/{name}")
            }
            MemberPath::Other(path) => format!("spiffe://{domain}{path}"),
        };
        Identity::parse(&text).ok().map(|_| text)
    }

    /// A word for names of objects.
    pub(crate) fn word(&self) -> String {
        match &self.path {
            MemberPath::Namespace(namespace) => format!("namespace-{namespace}"),
            MemberPath::Account(namespace, name) => format!("{name}-of-{namespace}"),
            MemberPath::Other(path) => path.clone(),
        }
    }
}

/// `cluster.local` points to the mesh's own trust domain, whatever that is called.
pub(crate) fn localize(principal: &Text, own: &TrustDomain) -> Text {
    if matches!(principal, Text::Suffix(_)) {
        return principal.clone();
    }
    principal.map(|text| match text.strip_prefix("cluster.local/") {
        Some(path) => format!("{own}/{path}"),
        None => text.to_owned(),
    })
}

/// What the clauses about identities and addresses admit, if authentications can say it.
pub(crate) fn sources(clauses: &[&Clause], own: &TrustDomain, mode: Mtls) -> Sources {
    let mut ids = if mode == Mtls::Strict {
        Ids::Verified
    } else {
        Ids::Anyone
    };
    let mut networks: Option<Vec<Block>> = None;
    for clause in clauses {
        if clause.attribute == Attribute::SourceIp {
            networks = Some(narrow(networks, clause));
        } else if clause.attribute.is_identity() {
            if !clause.not_values.is_empty() {
                return Sources::NeedCedar;
            }
            let members: Option<Vec<Ids>> = clause
                .values
                .iter()
                .map(|w| member(&clause.attribute, w, own))
                .collect();
            let Some(members) = members else {
                return Sources::NeedCedar;
            };
            ids = meet(ids, any(members));
        }
    }
    let nobody = matches!(&ids, Ids::Members(members) if members.is_empty())
        || networks.as_ref().is_some_and(Vec::is_empty);
    if nobody {
        return Sources::Nobody;
    }
    Sources::Of(Who { ids, networks })
}

/// The identities of one value; `None` if only Cedar can say it.
fn member(attribute: &Attribute, want: &Want, own: &TrustDomain) -> Option<Ids> {
    let one = |domain: Option<&str>, path: MemberPath| {
        let domain = domain.map(str::to_owned);
        let member = Member { domain, path };
        // What is no identity is nobody's.
        let members = member.text(own).map(|_| member);
        Some(Ids::Members(members.into_iter().collect()))
    };
    match (attribute, want) {
        (Attribute::ServiceAccount, Want::Account { namespace, name }) => {
            one(None, MemberPath::Account(namespace.clone(), name.clone()))
        }
        (Attribute::Namespace, Want::Text(Text::Exact(namespace))) => {
            one(None, MemberPath::Namespace(namespace.clone()))
        }
        (Attribute::Principal, Want::Text(text)) => match localize(text, own) {
            Text::Present => Some(Ids::Verified),
            Text::Exact(principal) => {
                let id = SpiffeId::parse(&format!("spiffe://{principal}"));
                let Ok(id) = id.map_err(drop).and_then(|id| {
                    if id.path().is_empty() {
                        Err(())
                    } else {
                        Ok(id)
                    }
                }) else {
                    return Some(Ids::Members(BTreeSet::new()));
                };
                let path = match id.service_account() {
                    Some((namespace, name)) => {
                        MemberPath::Account(namespace.to_owned(), name.to_owned())
                    }
                    None => MemberPath::Other(id.path().to_owned()),
                };
                one(Some(id.trust_domain().as_str()), path)
            }
            Text::Prefix(prefix) => {
                let (domain, rest) = prefix.split_once("/ns/")?;
                let rest = rest
                    .strip_suffix("/sa/")
                    .or_else(|| rest.strip_suffix('/'))?;
                let whole = !rest.is_empty() && !rest.contains('/');
                (whole && TrustDomain::parse(domain).is_ok())
                    .then(|| one(Some(domain), MemberPath::Namespace(rest.to_owned())))
                    .flatten()
            }
            Text::Suffix(_) => None,
        },
        _ => None,
    }
}

/// Any of several.
fn any(all: Vec<Ids>) -> Ids {
    let mut out = Ids::Members(BTreeSet::new());
    all.into_iter().for_each(|ids| out.join(ids));
    out
}

impl Ids {
    /// Admits those of `other` too.
    pub(crate) fn join(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Anyone, _) => {}
            (_, Self::Anyone) => *self = Self::Anyone,
            (Self::Verified, _) => {}
            (_, Self::Verified) => *self = Self::Verified,
            (Self::Members(members), Self::Members(more)) => members.extend(more),
        }
    }
}

/// Both.
fn meet(a: Ids, b: Ids) -> Ids {
    match (a, b) {
        (Ids::Anyone, other) | (other, Ids::Anyone) => other,
        (Ids::Verified, other) | (other, Ids::Verified) => other,
        (Ids::Members(a), Ids::Members(b)) => Ids::Members(
            a.iter()
                .flat_map(|a| b.iter().filter_map(|b| a.meet(b)))
                .collect(),
        ),
    }
}

/// Blocks that a clause leaves of those that others left.
fn narrow(before: Option<Vec<Block>>, clause: &Clause) -> Vec<Block> {
    let blocks = |wants: &[Want]| -> Vec<IpNet> {
        let blocks = wants.iter().filter_map(|w| match w {
            Want::Block(block) => Some(*block),
            _ => None,
        });
        blocks.collect()
    };
    let before = before.unwrap_or_else(everywhere);
    let (within, without) = (blocks(&clause.values), blocks(&clause.not_values));
    let mut out: Vec<Block> = Vec::new();
    for block in before {
        if clause.values.is_empty() {
            out.push(block);
            continue;
        }
        for net in &within {
            // Blocks are nested or apart.
            let cidr = match (net.contains(&block.cidr), block.cidr.contains(net)) {
                (true, _) => block.cidr,
                (_, true) => *net,
                _ => continue,
            };
            out.push(Block {
                cidr,
                except: block.except.clone(),
            });
        }
    }
    let mut kept = Vec::new();
    for mut block in out {
        block.except.extend(without.iter().copied());
        let cidr = block.cidr;
        if block.except.iter().any(|e| e.contains(&cidr)) {
            continue;
        }
        block.except.retain(|e| cidr.contains(e));
        kept.push(block);
    }
    kept.sort();
    kept.dedup();
    kept
}

/// All addresses.
fn everywhere() -> Vec<Block> {
    let all = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    all.map(|cidr| Block {
        cidr,
        except: BTreeSet::new(),
    })
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_policy::snapshot::Source;

    fn own() -> TrustDomain {
        TrustDomain::parse("prod.example").unwrap()
    }

    fn clause(attribute: Attribute, values: &[Want], not_values: &[Want]) -> Clause {
        Clause {
            attribute,
            values: values.to_vec(),
            not_values: not_values.to_vec(),
            path: String::new(),
            source: Source::BuiltIn("test".into()),
        }
    }

    fn principals(values: &[&str]) -> Clause {
        let values: Vec<Want> = values.iter().map(|v| Want::Text(Text::parse(v))).collect();
        clause(Attribute::Principal, &values, &[])
    }

    fn namespaces(values: &[&str]) -> Clause {
        Clause {
            attribute: Attribute::Namespace,
            ..principals(values)
        }
    }

    fn texts(clauses: &[&Clause]) -> Option<Vec<String>> {
        match sources(clauses, &own(), Mtls::Permissive) {
            Sources::Of(Who {
                ids: Ids::Members(members),
                ..
            }) => Some(members.iter().filter_map(|m| m.text(&own())).collect()),
            Sources::Of(Who {
                ids: Ids::Verified, ..
            }) => Some(vec!["*".into()]),
            Sources::Nobody => Some(Vec::new()),
            _ => None,
        }
    }

    #[test]
    fn principals_and_namespaces_become_identities() {
        for (values, want) in [
            (
                &["cluster.local/ns/a/sa/b"][..],
                Some(&["spiffe://prod.example/ns/a/sa/b"][..]),
            ),
            (
                &["prod.example/ns/a/sa/b"],
                Some(&["spiffe://prod.example/ns/a/sa/b"]),
            ),
            (
                &["td/ns/a/sa/b", "td/x"],
                Some(&["spiffe://td/ns/a/sa/b", "spiffe://td/x"]),
            ),
            (
                &["cluster.local/ns/a/*"],
                Some(&["spiffe://prod.example/ns/a/*"]),
            ),
            (
                &["cluster.local/ns/a/sa/*"],
                Some(&["spiffe://prod.example/ns/a/*"]),
            ),
            (&["*"], Some(&["*"])),
            (&["cluster.local/ns/a/sa/b", "*"], Some(&["*"])),
            (&["not an identity"], Some(&[])),
            (&["cluster.local"], Some(&[])),
            (&["cluster.local/ns/a*"], None),
            (&["cluster.local/*"], None),
            (&["*/sa/b"], None),
            (&["cluster.local/ns/a/sa/b*"], None),
        ] {
            let found = texts(&[&principals(values)]);
            assert_eq!(
                found,
                want.map(|w| w.iter().map(|t| (*t).to_owned()).collect()),
                "{values:?}"
            );
        }
    }

    #[test]
    fn several_clauses_must_all_hold() {
        let both = |a: &[&str], b: &[&str]| texts(&[&principals(a), &namespaces(b)]);
        assert_eq!(
            both(&["td/ns/a/sa/b", "td/ns/c/sa/d"], &["c"]),
            Some(vec!["spiffe://td/ns/c/sa/d".into()])
        );
        assert_eq!(
            both(&["*"], &["c"]),
            Some(vec!["spiffe://prod.example/ns/c/*".into()])
        );
        assert_eq!(
            both(&["td/ns/a/*"], &["a"]),
            Some(vec!["spiffe://td/ns/a/*".into()])
        );
        assert_eq!(both(&["td/ns/a/sa/b"], &["c"]), Some(vec![]));
        let domains = [
            principals(&["td/ns/a/sa/b"]),
            principals(&["other/ns/a/sa/b", "other/ns/a/*"]),
        ];
        assert_eq!(texts(&[&domains[0], &domains[1]]), Some(vec![]));
    }

    #[test]
    fn blocks_are_cut_and_holes_are_kept() {
        let net = |text: &str| Want::Block(text.parse().unwrap());
        let left = |values: &[Want], not_values: &[Want]| {
            let clause = clause(Attribute::SourceIp, values, not_values);
            match sources(&[&clause], &own(), Mtls::Permissive) {
                Sources::Of(who) => who
                    .networks
                    .unwrap()
                    .iter()
                    .map(|b| format!("{} -{:?}", b.cidr, b.except))
                    .collect(),
                _ => Vec::new(),
            }
        };
        assert_eq!(
            left(
                &[net("10.0.0.0/8")],
                &[net("10.1.0.0/16"), net("11.0.0.0/8")]
            ),
            ["10.0.0.0/8 -{10.1.0.0/16}"]
        );
        assert_eq!(
            left(&[net("10.1.0.0/16")], &[net("10.0.0.0/8")]),
            Vec::<String>::new()
        );
        assert_eq!(
            left(&[], &[net("10.0.0.0/8")]),
            ["0.0.0.0/0 -{10.0.0.0/8}", "::/0 -{}"]
        );
        let (a, b) = (
            clause(Attribute::SourceIp, &[net("10.0.0.0/8")], &[]),
            clause(Attribute::SourceIp, &[net("10.1.0.0/16"), net("::/0")], &[]),
        );
        let Sources::Of(who) = sources(&[&a, &b], &own(), Mtls::Permissive) else {
            panic!()
        };
        assert_eq!(who.networks.unwrap().len(), 1);
    }

    #[test]
    fn strict_asks_everyone_for_an_identity() {
        let Sources::Of(who) = sources(&[], &own(), Mtls::Strict) else {
            panic!()
        };
        assert_eq!(who.ids, Ids::Verified);
    }
}
