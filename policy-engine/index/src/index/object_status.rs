//! What is said of each policy object, from the findings about it: conditions for whoever asks an API server.
//!
//! An error about a reference speaks of what is referred to, every other one of the object itself. Whether proxies apply
//! the object is not known here; [`Reach`] says to whom that question can be put.

use super::workloads::WorkloadKey;
use super::{Condition, Index, Proxied};
use crate::finding::Code;
use crate::manifest::resource::{Object, Resources};
use crate::manifest::shadow::Shadow;
use crate::map::HashMap;
use mesh_policy::snapshot::{Finding, Severity, Source};
use std::sync::Arc;

/// Findings that a message repeats; what is wrong first stands first.
const FINDINGS_TOLD_MAX: usize = 3;

/// What became of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStatus {
    /// The file that holds it; of a cluster: the object's name among all.
    pub file: String,
    /// `metadata.generation` of what was read, if an API server gave it one.
    pub generation: Option<i64>,
    /// Whether it can be used: condition `Accepted`.
    pub accepted: Condition,
    /// Whether all that it refers to is there, and can be used: condition `ResolvedRefs`.
    pub resolved: Condition,
    /// Whom it is for.
    pub reach: Reach,
    /// What is wrong with it, by code; empty if both conditions hold.
    pub refusals: Vec<Refusal>,
    /// What is doubtful; empty if nothing is.
    pub doubts: String,
}

/// Whose proxies apply an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those whose snapshots hold it.
    Snapshots,
    /// The same of a route: it holds at one parent though another is not there.
    Parents,
    /// All.
    Everyone,
    /// Nobody's: it is the candidate's alone.
    Candidate,
    /// Nobody's: a reason, and why.
    Nobody(&'static str, String),
}

/// Why an object has no effect, or only denies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `MESH-nnnn`.
    pub code: String,
    /// What is wrong and what to do, in one line.
    pub message: String,
}

/// A workload, as far as policy can be in force at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is a pod that is ready: one that only starts has no policy yet, and serves nobody.
    pub ready: bool,
    /// Whether it has a proxy.
    pub proxied: bool,
}

impl Index {
    /// Of every policy object, sorted by kind, then namespace and name.
    pub fn object_statuses(&self) -> Vec<ObjectStatus> {
        let findings = by_file(&self.findings);
        let mut out = Vec::new();
        let Resources {
            servers,
            server_authorizations,
            authorization_policies,
            mesh_tls,
            network_authentications,
            routes,
            rate_limits,
            faults,
            federations,
            egress_networks,
            cedar_policies,
            invariants,
            ..
        } = &self.resources;
        add(&mut out, &findings, servers, |_| Reach::Snapshots);
        add(&mut out, &findings, server_authorizations, |_| {
            Reach::Snapshots
        });
        add(&mut out, &findings, authorization_policies, |_| {
            Reach::Snapshots
        });
        add(&mut out, &findings, mesh_tls, |_| Reach::Snapshots);
        add(&mut out, &findings, network_authentications, |_| {
            Reach::Snapshots
        });
        add(&mut out, &findings, routes, |_| Reach::Parents);
        add(&mut out, &findings, rate_limits, |_| Reach::Snapshots);
        add(&mut out, &findings, faults, |_| Reach::Snapshots);
        add(&mut out, &findings, cedar_policies, |_| Reach::Snapshots);
        add(&mut out, &findings, federations, |one| {
            if one.spec.in_wildcards {
                return Reach::Everyone;
            }
            let why = "no wildcard covers its workloads; identities of it may be named one by one";
            Reach::Nobody("NotInWildcards", why.to_owned())
        });
        add(&mut out, &findings, egress_networks, |_| Reach::Snapshots);
        add(&mut out, &findings, invariants, |_| {
            let why = "no proxy evaluates an invariant: `mesh authz prove` says whether it holds";
            Reach::Nobody("NotEvaluated", why.to_owned())
        });
        out
    }

    /// How a workload stands; `None` if it is in no manifest.
    pub fn standing(&self, key: &WorkloadKey) -> Option<Standing> {
        let workload = self
            .by_key
            .get(key)
            .and_then(|at| self.workloads.get(*at))?;
        let proxied = match self.config.proxied {
            Proxied::All => true,
            Proxied::WithContainer => workload.pod.has_proxy,
        };
        Some(Standing {
            ready: workload.kind == "Pod" && workload.pod.ready,
            proxied,
        })
    }
}

type ByFile<'a> = HashMap<&'a str, Vec<&'a Finding>>;

/// Findings by the file of the object that they are about, else by the file that they are in.
fn by_file(findings: &[Finding]) -> ByFile<'_> {
    let mut out = ByFile::default();
    for finding in findings {
        let source = finding.object.as_ref().map(|object| &object.source);
        if let Source::File { file, .. } = source.unwrap_or(&finding.source) {
            out.entry(file.as_str()).or_default().push(finding);
        }
    }
    out
}

fn add<T>(
    out: &mut Vec<ObjectStatus>,
    findings: &ByFile<'_>,
    objects: &[Arc<Object<T>>],
    reach: impl Fn(&Object<T>) -> Reach,
) {
    for object in objects {
        let Source::File { file, .. } = &object.source else {
            continue;
        };
        let found = findings.get(file.as_str()).map_or(&[][..], Vec::as_slice);
        let reach = match object.shadow {
            Shadow::Add => Reach::Candidate,
            Shadow::No | Shadow::Remove => reach(object),
        };
        out.push(status(file, object, found, reach));
    }
}

fn status<T>(file: &str, object: &Object<T>, found: &[&Finding], reach: Reach) -> ObjectStatus {
    let (mut own, mut references, mut doubts) = (Vec::new(), Vec::new(), Vec::new());
    for finding in found.iter().copied() {
        match (finding.severity, is_reference(&finding.code)) {
            (Severity::Error, true) => references.push(finding),
            (Severity::Error, false) => own.push(finding),
            (Severity::Warning, _) => doubts.push(finding),
            (Severity::Info, _) => {}
        }
    }
    let mut accepted = condition("Accepted", &own);
    // An object that the index does not use is never called accepted, whatever findings say.
    if let (true, Some(why)) = (accepted.holds, &object.invalid) {
        accepted = Condition::no("Invalid", why.clone());
    }
    let refusals = own.iter().chain(&references).map(|finding| Refusal {
        code: finding.code.clone(),
        message: line(finding),
    });
    ObjectStatus {
        file: file.to_owned(),
        generation: object.generation,
        accepted,
        resolved: condition("ResolvedRefs", &references),
        reach,
        refusals: refusals.collect(),
        doubts: told(&doubts),
    }
}

fn condition(holds: &'static str, errors: &[&Finding]) -> Condition {
    match errors.first() {
        None => Condition::yes(holds),
        Some(first) => Condition::no(reason(&first.code), told(errors)),
    }
}

/// Codes of errors about what an object refers to.
const REFERENCES: &[Code] = &[
    Code::Dangling,
    Code::InvalidReferent,
    Code::CedarReference,
    Code::BackendMissing,
    Code::BackendNotPermitted,
    Code::BackendKind,
];

fn is_reference(code: &str) -> bool {
    REFERENCES.iter().any(|one| one.text() == code)
}

/// Linkerd's and Gateway API's words where they have one.
fn reason(code: &str) -> &'static str {
    let is = |one: Code| one.text() == code;
    if is(Code::Dangling) || is(Code::CedarReference) || is(Code::BackendMissing) {
        "RefNotFound"
    } else if is(Code::InvalidReferent) || is(Code::BackendKind) {
        "RefInvalid"
    } else if is(Code::BackendNotPermitted) {
        "RefNotPermitted"
    } else if is(Code::EgressOverlap) {
        "EgressReasonNetworkOverlap"
    } else if is(Code::NoAuthentication) {
        "NoAuthentication"
    } else {
        "Invalid"
    }
}

fn told(findings: &[&Finding]) -> String {
    let mut lines: Vec<String> = findings
        .iter()
        .take(FINDINGS_TOLD_MAX)
        .map(|finding| format!("{}: {}", finding.code, line(finding)))
        .collect();
    if let Some(more) = findings
        .len()
        .checked_sub(FINDINGS_TOLD_MAX)
        .filter(|n| *n > 0)
    {
        lines.push(format!("and {more} more"));
    }
    lines.join("; ")
}

fn line(finding: &Finding) -> String {
    match &finding.hint {
        Some(hint) => format!("{} ({hint})", finding.message),
        None => finding.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IndexConfig, load};
    use mesh_trust::TrustDomain;

    fn statuses(objects: &[(&str, &str)]) -> Vec<ObjectStatus> {
        let files = objects
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        let config = IndexConfig::new(TrustDomain::parse("cluster.local").unwrap());
        Index::build(&load(files), &config).object_statuses()
    }

    fn of<'a>(statuses: &'a [ObjectStatus], file: &str) -> &'a ObjectStatus {
        statuses.iter().find(|one| one.file == file).unwrap()
    }

    const SERVER: (&str, &str) = (
        "server",
        r#"{"apiVersion":"policy.linkerd.io/v1beta3","kind":"Server","metadata":{"name":"web","namespace":"shop","generation":4},
            "spec":{"podSelector":{},"port":80}}"#,
    );

    fn policy(target: &str, authentication: &str) -> String {
        format!(
            r#"{{"apiVersion":"policy.linkerd.io/v1alpha1","kind":"AuthorizationPolicy",
                "metadata":{{"name":"p","namespace":"shop","generation":7}},
                "spec":{{"targetRef":{{"group":"policy.linkerd.io","kind":"Server","name":"{target}"}},
                "requiredAuthenticationRefs":[{{"group":"policy.linkerd.io","kind":"MeshTLSAuthentication","name":"{authentication}"}}]}}}}"#
        )
    }

    const MESH_TLS: &str = r#"{"apiVersion":"policy.linkerd.io/v1alpha1","kind":"MeshTLSAuthentication",
        "metadata":{"name":"a","namespace":"shop"},"spec":{"identities":["spiffe://cluster.local/ns/shop/sa/x"]}}"#;

    #[test]
    fn what_holds_is_accepted_and_resolved_with_the_generation_that_was_read() {
        let good = policy("web", "a");
        let all = statuses(&[SERVER, ("policy", &good), ("tls", MESH_TLS)]);
        for file in ["policy", "tls"] {
            let one = of(&all, file);
            assert!(one.accepted.holds && one.resolved.holds, "{one:?}");
            assert_eq!(one.refusals, []);
            assert_eq!(one.reach, Reach::Snapshots);
        }
        assert_eq!(of(&all, "policy").generation, Some(7));
        assert_eq!(of(&all, "tls").generation, None);
        assert!(
            of(&all, "server").doubts.starts_with("MESH-0370: "),
            "{all:?}"
        );
    }

    #[test]
    fn a_reference_to_nothing_is_not_resolved_and_names_its_code() {
        for (target, authentication) in [("ghost", "a"), ("web", "ghost")] {
            let bad = policy(target, authentication);
            let all = statuses(&[SERVER, ("policy", &bad), ("tls", MESH_TLS)]);
            let one = of(&all, "policy");
            assert!(one.accepted.holds, "{one:?}");
            assert_eq!(
                (one.resolved.holds, one.resolved.reason),
                (false, "RefNotFound")
            );
            assert!(
                one.resolved.message.starts_with("MESH-0364: "),
                "{}",
                one.resolved.message
            );
            assert!(
                one.refusals
                    .iter()
                    .all(|refusal| refusal.code == "MESH-0364")
            );
            assert!(!one.refusals.is_empty());
        }
    }

    #[test]
    fn a_reference_to_what_is_invalid_is_not_resolved_and_that_is_not_accepted() {
        let bad = MESH_TLS.replace("identities", "identitys");
        let good = policy("web", "a");
        let all = statuses(&[SERVER, ("policy", &good), ("tls", &bad)]);
        let (policy, tls) = (of(&all, "policy"), of(&all, "tls"));
        assert_eq!(
            (policy.resolved.holds, policy.resolved.reason),
            (false, "RefInvalid")
        );
        assert_eq!(
            (tls.accepted.holds, tls.accepted.reason),
            (false, "Invalid")
        );
        assert!(tls.resolved.holds);
    }

    #[test]
    fn an_unreadable_server_is_refused_though_it_closes_its_namespace() {
        let bad = SERVER.1.replace("podSelector", "podSelektor");
        let all = statuses(&[("server", &bad)]);
        let one = of(&all, "server");
        assert!(!one.accepted.holds, "{one:?}");
        assert!(one.refusals.iter().any(|one| one.code == "MESH-0369"));
    }

    #[test]
    fn what_no_proxy_applies_says_so() {
        let egress = r#"{"apiVersion":"policy.linkerd.io/v1alpha1","kind":"EgressNetwork",
            "metadata":{"name":"e","namespace":"shop"},"spec":{"trafficPolicy":"Deny","networks":[{"cidr":"10.0.0.0/8"}]}}"#;
        let federation = |wildcards| {
            format!(
                r#"{{"apiVersion":"mesh.internal/v1alpha1","kind":"Federation","metadata":{{"name":"f"}},
                    "spec":{{"trustDomain":"other.example","includeInWildcards":{wildcards}}}}}"#
            )
        };
        let (inside, outside) = (federation(true), federation(false));
        let all = statuses(&[("egress", egress), ("in", &inside), ("out", &outside)]);
        let egress = of(&all, "egress");
        assert_eq!(egress.accepted.reason, "EgressReasonNetworkOverlap");
        assert_eq!(egress.reach, Reach::Snapshots);
        assert_eq!(of(&all, "in").reach, Reach::Everyone);
        assert!(matches!(
            of(&all, "out").reach,
            Reach::Nobody("NotInWildcards", _)
        ));
    }

    #[test]
    fn a_message_stays_short() {
        let source = Source::BuiltIn("test".to_owned());
        let one = crate::finding::finding(Code::BadValue, "bad", None, source);
        let many = vec![&one; 5];
        assert!(told(&many).ends_with("; and 2 more"), "{}", told(&many));
        assert!(!told(&many[..3]).contains("more"));
    }
}
