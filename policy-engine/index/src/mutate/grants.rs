//! Policies and authentications that are gone, or admit more than they should.

use super::servers::wider;
use super::{Collector, List, take_out, valid};
use crate::manifest::cedar_kinds::CedarPolicies;
use crate::manifest::identity::Identity;
use crate::manifest::resource::{
    AuthenticationRef, AuthorizationPolicy, Federation, MeshTls, NetworkEntry, Object, Resources,
    SaClient, ServerAuthorization, Target,
};
use crate::manifest::term;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mesh_policy::snapshot::{Effect, Term};

const POLICIES: List<AuthorizationPolicy> = |resources| &mut resources.authorization_policies;
const AUTHORIZATIONS: List<ServerAuthorization> = |resources| &mut resources.server_authorizations;
const MESH_TLS: List<MeshTls> = |resources| &mut resources.mesh_tls;
const NETWORKS: List<Vec<NetworkEntry>> = |resources| &mut resources.network_authentications;
const FEDERATIONS: List<Federation> = |resources| &mut resources.federations;
const CEDAR: List<CedarPolicies> = |resources| &mut resources.cedar_policies;

pub(super) fn collect(resources: &Resources, out: &mut Collector) {
    for (at, policy) in valid(&resources.authorization_policies) {
        out.without(policy, at, POLICIES);
        lasting(out, policy, at, POLICIES);
        requirements(out, policy, at);
        if let Some(Target::Server(name) | Target::Route { name, .. }) = &policy.spec.target {
            let change = format!("targets every Server of the namespace, not {name} alone");
            out.with(policy, at, POLICIES, change, |policy| {
                policy.spec.target = Some(Target::Namespace);
            });
        }
    }
    for (at, policy) in valid(&resources.server_authorizations) {
        out.without(policy, at, AUTHORIZATIONS);
        lasting(out, policy, at, AUTHORIZATIONS);
        server_authorization(out, policy, at);
    }
    for (at, set) in valid(&resources.mesh_tls) {
        for (change, members) in other_members(&set.spec.members) {
            out.with(set, at, MESH_TLS, change, move |set| {
                set.spec.members.clone_from(&members);
            });
        }
    }
    for (at, set) in valid(&resources.network_authentications) {
        for (change, entries) in other_networks(&set.spec) {
            out.with(set, at, NETWORKS, change, move |set| {
                set.spec.clone_from(&entries);
            });
        }
    }
    for (at, federation) in valid(&resources.federations) {
        if federation.spec.in_wildcards {
            let change = "not included in wildcards";
            out.with(federation, at, FEDERATIONS, change, |federation| {
                federation.spec.in_wildcards = false;
            });
        }
    }
    cedar(resources, out);
}

/// A grant that would count for ever.
fn lasting<T: Clone + 'static>(out: &mut Collector, policy: &Object<T>, at: usize, list: List<T>) {
    if policy.annotations.contains_key(term::EXPIRES) {
        out.with(policy, at, list, "without its end", |policy| {
            policy.annotations.remove(term::EXPIRES);
            // Broken glass must end; without an end the object would be invalid, which is another fault.
            policy.annotations.remove(term::BREAK_GLASS);
        });
    }
}

fn requirements(out: &mut Collector, policy: &Object<AuthorizationPolicy>, at: usize) {
    for (number, one) in policy.spec.authentications.iter().enumerate() {
        let AuthenticationRef { kind, key, .. } = one;
        let change = format!(
            "does not require {} {}/{}",
            kind.name(),
            key.namespace,
            key.name
        );
        out.with(policy, at, POLICIES, change, move |policy| {
            take_out(&mut policy.spec.authentications, number);
            if policy.spec.authentications.is_empty() {
                policy.spec.open = Some("a mutant".to_owned());
            }
        });
    }
}

fn server_authorization(out: &mut Collector, policy: &Object<ServerAuthorization>, at: usize) {
    let mut client = |change: String, client: SaClient| {
        out.with(policy, at, AUTHORIZATIONS, change, move |policy| {
            policy.spec.client = client.clone();
        });
    };
    match &policy.spec.client {
        SaClient::Identities(members) => {
            for (change, members) in other_members(members) {
                client(change, SaClient::Identities(members));
            }
            client("admits whoever speaks TLS".to_owned(), SaClient::AnyTls);
        }
        SaClient::AnyTls => client(
            "admits unauthenticated clients".to_owned(),
            SaClient::Unauthenticated,
        ),
        SaClient::Nobody | SaClient::Unauthenticated => {}
    }
    let entries = policy.spec.networks.as_deref().unwrap_or_default();
    let others = match &policy.spec.networks {
        Some(_) => other_networks(entries),
        None => vec![("admits every network".to_owned(), everywhere())],
    };
    for (change, entries) in others {
        out.with(policy, at, AUTHORIZATIONS, change, move |policy| {
            policy.spec.networks = Some(entries.clone());
        });
    }
    if let Some(Target::Servers(selector)) = &policy.spec.target {
        for (change, wider) in wider(selector) {
            let change = format!("with its Server selector {change}");
            out.with(policy, at, AUTHORIZATIONS, change, move |policy| {
                policy.spec.target = Some(Target::Servers(wider.clone()));
            });
        }
    }
}

/// Lists of identities with one dropped, one widened to its namespace, or everybody added.
fn other_members(members: &[Identity]) -> Vec<(String, Vec<Identity>)> {
    let mut out = Vec::new();
    for (at, member) in members.iter().enumerate() {
        let mut less = members.to_vec();
        take_out(&mut less, at);
        out.push((format!("without identity {}", member.text()), less));
        if let Some(wider) = member.of_its_namespace() {
            let mut more = members.to_vec();
            more.push(wider.clone());
            let change = format!("admits {}, not {} alone", wider.text(), member.text());
            out.push((change, more));
        }
    }
    if !members.is_empty() && !members.contains(&Identity::Any) {
        let mut more = members.to_vec();
        more.push(Identity::Any);
        out.push(("admits every verified identity".to_owned(), more));
    }
    out
}

/// Lists of networks with one or an exception of one dropped, or every address in it.
fn other_networks(entries: &[NetworkEntry]) -> Vec<(String, Vec<NetworkEntry>)> {
    let mut out = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        let mut less = entries.to_vec();
        take_out(&mut less, at);
        out.push((format!("without network {}", entry.cidr), less));
        for (number, except) in entry.except.iter().enumerate() {
            let mut more = entries.to_vec();
            if let Some(entry) = more.get_mut(at) {
                take_out(&mut entry.except, number);
            }
            out.push((format!("without the exception {except}"), more));
        }
    }
    let all = everywhere();
    if !all.iter().all(|entry| entries.contains(entry)) {
        out.push(("admits every network".to_owned(), all));
    }
    out
}

fn everywhere() -> Vec<NetworkEntry> {
    let blocks = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    blocks
        .map(|cidr| NetworkEntry {
            cidr,
            except: Vec::new(),
        })
        .to_vec()
}

/// Policies written in Cedar: one dropped, or without its end.
fn cedar(resources: &Resources, out: &mut Collector) {
    for (at, object) in valid(&resources.cedar_policies) {
        for (number, one) in object.spec.statements.iter().enumerate() {
            let effect = match one.effect {
                Effect::Permit => "permit",
                Effect::Forbid => "forbid",
            };
            let change = format!("without {effect} {}", one.id);
            out.with(object, at, CEDAR, change, move |object| {
                take_out(&mut object.spec.statements, number);
            });
        }
        if object.spec.term.expires.is_some() {
            out.with(object, at, CEDAR, "without its end", |object| {
                object.spec.term = Term::default();
            });
        }
    }
}
