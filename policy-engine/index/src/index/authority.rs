//! Authentications resolved: whom a policy admits, or why it admits nobody.
//!
//! INVARIANT: a reference that cannot be resolved makes the whole policy grant nothing. A grant is never built with one of
//! its conditions missing.

use super::{Index, IndexConfig, Proxied};
use crate::finding::{Code, finding};
use crate::manifest::identity::Identity;
use crate::manifest::network::canonical_block;
use crate::manifest::resource::{
    AuthenticationKind, AuthenticationRef, AuthorizationPolicy, Key, NetworkEntry, Object,
    Resources, SaClient, ServerAuthorization,
};
use crate::map::{HashMap, HashSet};
use mesh_policy::snapshot::{
    Finding, IdentityPattern, IdentitySet, Network, NetworkSet, Source, Who,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Set of every verified identity, for the authenticated modes.
pub(crate) const AUTHENTICATED: &str = "default/authenticated";
/// The cluster networks.
pub(crate) const CLUSTER_NETWORKS: &str = "default/cluster-networks";
/// The probe networks.
pub(crate) const PROBE_NETWORKS: &str = "probe/networks";

const MESH_TLS: &str = "MeshTLSAuthentication";
const NETWORK: &str = "NetworkAuthentication";

/// Whom a policy admits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    pub(crate) who: Who,
    pub(crate) networks: Option<String>,
}

/// Authorities of all policies, and the sets they refer to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Authorities {
    /// By place in the list of AuthorizationPolicies; `None` grants nothing.
    pub(crate) policies: Vec<Option<Authority>>,
    /// By place in the list of ServerAuthorizations.
    pub(crate) server_authorizations: Vec<Option<Authority>>,
    pub(crate) identity_sets: BTreeMap<String, IdentitySet>,
    pub(crate) network_sets: BTreeMap<String, NetworkSet>,
}

impl Authorities {
    pub(crate) fn resolve(
        resources: &Resources,
        config: &IndexConfig,
        findings: &mut Vec<Finding>,
    ) -> Self {
        let mut resolver = Resolver::new(resources, config, findings);
        let policies = resources.authorization_policies.iter();
        let policies = policies.map(|p| resolver.policy(p)).collect();
        let authorizations = resources.server_authorizations.iter();
        let server_authorizations = authorizations
            .map(|p| resolver.server_authorization(p))
            .collect();
        let Resolver {
            identity_sets,
            network_sets,
            ..
        } = resolver;
        Self {
            policies,
            server_authorizations,
            identity_sets,
            network_sets,
        }
    }
}

/// What is known of an authentication.
struct Known {
    valid: bool,
    /// Id of its set.
    set: String,
}

struct Resolver<'a> {
    config: &'a IndexConfig,
    findings: &'a mut Vec<Finding>,
    mesh_tls: HashMap<&'a Key, Known>,
    networks: HashMap<&'a Key, Known>,
    accounts: HashSet<&'a Key>,
    identity_sets: BTreeMap<String, IdentitySet>,
    network_sets: BTreeMap<String, NetworkSet>,
}

impl<'a> Resolver<'a> {
    fn new(
        resources: &'a Resources,
        config: &'a IndexConfig,
        findings: &'a mut Vec<Finding>,
    ) -> Self {
        let accounts = resources.service_accounts.iter().map(|a| &a.key).collect();
        let (mesh_tls, networks) = (
            known(MESH_TLS, &resources.mesh_tls),
            known(NETWORK, &resources.network_authentications),
        );
        let (identity_sets, network_sets) = (BTreeMap::new(), BTreeMap::new());
        let mut out = Self {
            config,
            findings,
            mesh_tls,
            networks,
            accounts,
            identity_sets,
            network_sets,
        };
        let built_in = |what: &str| Source::BuiltIn(what.to_owned());
        out.identity_sets.insert(
            AUTHENTICATED.to_owned(),
            IdentitySet {
                members: vec![IdentityPattern::Any],
                source: built_in("every verified identity"),
            },
        );
        let plain = |blocks: &[ipnet::IpNet]| {
            blocks
                .iter()
                .map(|c| Network {
                    cidr: canonical_block(c),
                    except: Vec::new(),
                })
                .collect()
        };
        let (cluster, probe) = (
            plain(&config.cluster_networks),
            plain(&config.probe_networks),
        );
        let sets = [
            (CLUSTER_NETWORKS, cluster, "cluster networks"),
            (PROBE_NETWORKS, probe, "probe networks"),
        ];
        for (id, networks, what) in sets {
            out.network_sets.insert(
                id.to_owned(),
                NetworkSet {
                    networks,
                    source: built_in(what),
                },
            );
        }
        for object in resources.mesh_tls.iter().filter(|o| o.invalid.is_none()) {
            let id = set_id(MESH_TLS, &object.key);
            out.identities(id, &object.spec.members, object);
        }
        for object in resources
            .network_authentications
            .iter()
            .filter(|o| o.invalid.is_none())
        {
            let id = set_id(NETWORK, &object.key);
            out.network_sets
                .insert(id, network_set(&object.spec, object.source.clone()));
        }
        out
    }

    /// Registers an identity set, with what is doubtful about its members.
    fn identities<T>(&mut self, id: String, members: &[Identity], object: &Object<T>) {
        let domain = &self.config.trust_domain;
        let mut patterns: Vec<IdentityPattern> =
            members.iter().map(|m| m.pattern(domain)).collect();
        for (member, pattern) in members.iter().zip(&patterns) {
            if let IdentityPattern::Nobody(text) = pattern {
                let message =
                    format!("identity `{text}` matches nobody in trust domain `{domain}`");
                Index::note(self.findings, Code::MatchesNobody, object, message);
            }
            if *pattern == IdentityPattern::Any {
                let message = format!("{} admits every verified identity (`*`)", object.title());
                Index::note(self.findings, Code::Wildcard, object, message);
            }
            if let Identity::ServiceAccount { namespace, name } = member {
                self.account(&Key::new(namespace, name), object, &object.source);
            }
        }
        if patterns.len() > 1 {
            patterns.sort_by_cached_key(|p| format!("{p:?}"));
        }
        patterns.dedup();
        self.identity_sets.insert(
            id,
            IdentitySet {
                members: patterns,
                source: object.source.clone(),
            },
        );
    }

    /// Warns of a ServiceAccount that no manifest declares, if manifests declare any.
    fn account<T>(&mut self, key: &Key, object: &Object<T>, source: &Source) {
        // Of a cluster no ServiceAccounts are read, so none can be missed.
        if self.config.proxied == Proxied::WithContainer {
            return;
        }
        if !self.accounts.contains(key) && key.name != "default" {
            let message = format!(
                "{} refers to ServiceAccount {}/{}, which no manifest declares",
                object.title(),
                key.namespace,
                key.name
            );
            self.findings.push(finding(
                Code::UnknownServiceAccount,
                message,
                Some(object.reference()),
                source.clone(),
            ));
        }
    }

    fn policy(&mut self, policy: &Object<AuthorizationPolicy>) -> Option<Authority> {
        // References are looked at even if the policy is invalid: whoever mends it wants to know all.
        let mut authority = Authority {
            who: Who::Anyone,
            networks: None,
        };
        let mut whole = policy.invalid.is_none();
        for reference in &policy.spec.authentications {
            match self.reference(policy, reference) {
                Some(Half::Who(set)) => authority.who = Who::Identities(set),
                Some(Half::Networks(set)) => authority.networks = Some(set),
                None => whole = false,
            }
        }
        if !whole {
            return None;
        }
        if policy.spec.authentications.is_empty() {
            let Some(reason) = &policy.spec.open else {
                let message = format!(
                    "{} requires no authentication and does not say why: it grants nothing",
                    policy.title()
                );
                Index::note(self.findings, Code::NoAuthentication, policy, message);
                return None;
            };
            let message = format!(
                "{} admits everyone, unauthenticated: {reason}",
                policy.title()
            );
            Index::note(self.findings, Code::Unauthenticated, policy, message);
        } else if authority.who == Who::Anyone {
            let message = format!("{} requires a network, but no identity", policy.title());
            Index::note(self.findings, Code::NetworkOnly, policy, message);
        }
        Some(authority)
    }

    fn reference(
        &mut self,
        policy: &Object<AuthorizationPolicy>,
        reference: &AuthenticationRef,
    ) -> Option<Half> {
        let (kind, known) = match reference.kind {
            AuthenticationKind::MeshTls => (MESH_TLS, self.mesh_tls.get(&reference.key)),
            AuthenticationKind::Network => (NETWORK, self.networks.get(&reference.key)),
            AuthenticationKind::ServiceAccount => {
                let id = set_id("ServiceAccount", &reference.key);
                self.account(&reference.key, policy, &reference.source);
                let account = Identity::ServiceAccount {
                    namespace: reference.key.namespace.clone(),
                    name: reference.key.name.clone(),
                };
                let members = vec![account.pattern(&self.config.trust_domain)];
                let source = reference.source.clone();
                // Several policies may name one account: the first place in order stands, so that bytes stay equal.
                let entry = self.identity_sets.entry(id.clone());
                let set = entry.or_insert(IdentitySet {
                    members,
                    source: source.clone(),
                });
                set.source = set.source.clone().min(source);
                return Some(Half::Who(id));
            }
        };
        let key = &reference.key;
        let (code, state) = match known {
            Some(Known { valid: true, set }) => {
                let half = match kind {
                    NETWORK => Half::Networks,
                    _ => Half::Who,
                };
                return Some(half(set.clone()));
            }
            Some(Known { valid: false, .. }) => (Code::InvalidReferent, "is invalid"),
            None => (Code::Dangling, "does not exist"),
        };
        let message = format!(
            "{} grants nothing: it requires {kind} {}/{}, which {state}",
            policy.title(),
            key.namespace,
            key.name
        );
        self.findings.push(finding(
            code,
            message,
            Some(policy.reference()),
            reference.source.clone(),
        ));
        None
    }

    fn server_authorization(&mut self, policy: &Object<ServerAuthorization>) -> Option<Authority> {
        let id = set_id("ServerAuthorization", &policy.key);
        if policy.invalid.is_some() {
            return None;
        }
        let who = match &policy.spec.client {
            SaClient::Nobody => {
                let message = format!("{} names no clients: it grants nothing", policy.title());
                Index::note(self.findings, Code::NoAuthentication, policy, message);
                return None;
            }
            SaClient::Identities(members) if members.is_empty() => {
                let message = format!(
                    "{} has an empty `meshTLS`: it grants nothing",
                    policy.title()
                );
                Index::note(self.findings, Code::NoAuthentication, policy, message);
                return None;
            }
            SaClient::Unauthenticated => {
                let message = format!("{} admits unauthenticated clients", policy.title());
                Index::note(self.findings, Code::Unauthenticated, policy, message);
                Who::Anyone
            }
            SaClient::AnyTls => Who::AnyTls,
            SaClient::Identities(members) => {
                self.identities(id.clone(), members, policy);
                Who::Identities(id.clone())
            }
        };
        let networks = match &policy.spec.networks {
            None => CLUSTER_NETWORKS.to_owned(),
            Some(entries) => {
                if entries.is_empty() {
                    let message = format!(
                        "{} has an empty list of networks: it grants nothing",
                        policy.title()
                    );
                    Index::note(self.findings, Code::NoAuthentication, policy, message);
                }
                self.network_sets
                    .insert(id.clone(), network_set(entries, policy.source.clone()));
                id
            }
        };
        Some(Authority {
            who,
            networks: Some(networks),
        })
    }
}

/// One of the two conditions that a policy may have.
enum Half {
    Who(String),
    Networks(String),
}

fn known<'a, T>(kind: &str, objects: &'a [Arc<Object<T>>]) -> HashMap<&'a Key, Known> {
    let mut out: HashMap<&Key, Known> = HashMap::default();
    for object in objects {
        let known = out.entry(&object.key).or_insert_with(|| Known {
            valid: true,
            set: set_id(kind, &object.key),
        });
        known.valid &= object.invalid.is_none();
    }
    out
}

fn set_id(kind: &str, key: &Key) -> String {
    format!("{kind}/{}/{}", key.namespace, key.name)
}

fn network_set(entries: &[NetworkEntry], source: Source) -> NetworkSet {
    let mut networks: Vec<Network> = entries.iter().map(NetworkEntry::to_network).collect();
    networks.sort_by(|a, b| (a.cidr, &a.except).cmp(&(b.cidr, &b.except)));
    networks.dedup();
    NetworkSet { networks, source }
}
