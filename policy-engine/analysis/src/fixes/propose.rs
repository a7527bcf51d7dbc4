//! Proposals by the cause of a denial. Nothing here decides: whoever calls tries each of them.

mod grant;
mod mend;
mod route;

use super::draft::Draft;
use super::{Denied, Hindrance, Judged, Proposal, State};
use mesh_policy::Data;
use mesh_policy::decide::Cause;
use mesh_policy::request::Client;
use mesh_policy::snapshot::{Effect, Finding, PortPolicy, Severity, Source};
use mesh_policy_index::edit::Edit;
use mesh_trust::SpiffeId;
use std::collections::BTreeSet;

/// What was thought of.
#[derive(Default)]
pub(super) struct Found {
    pub(super) proposals: Vec<Proposal>,
    pub(super) hindrances: Vec<Hindrance>,
}

/// Thinks of changes that might take the cause of a denial away.
pub(super) fn propose<'a>(
    denied: &'a Denied<'a>,
    client: &'a Client,
    state: &'a State<'a>,
    denial: &'a Judged,
    from: &'a Proposal,
) -> Found {
    let mut maker = Maker {
        denied,
        client,
        state,
        denial,
        from,
        found: Found::default(),
    };
    maker.make();
    maker.found
}

struct Maker<'a> {
    denied: &'a Denied<'a>,
    client: &'a Client,
    state: &'a State<'a>,
    denial: &'a Judged,
    from: &'a Proposal,
    found: Found,
}

impl Maker<'_> {
    fn make(&mut self) {
        match self.denial.decision.cause.clone() {
            Cause::IdentityWithoutTls => {
                self.hinder(
                    "an identity counts only over mutual TLS: no policy can allow this",
                    None,
                );
            }
            Cause::InvalidServer(_) => {
                let source = self.port().server.source.clone();
                self.mend_object(&source);
            }
            Cause::RawBytes => {
                let text = "this port's policy is made for requests: raw bytes pass only where `proxyProtocol` is opaque or \
                            TLS, or unknown without routes and rate limits; its owner must decide that";
                let source = self.port().server.source.to_string();
                self.hinder(text, Some(source));
            }
            Cause::Refused(refusal) => {
                let text =
                    format!("{refusal}: the client must ask otherwise, no grant can allow this");
                self.hinder(text, None);
            }
            Cause::NoRoute => self.missing_route(),
            Cause::InvalidRoute(_) => {
                if let Some(route) = &self.denial.decision.route {
                    let source = route.source.clone();
                    self.mend_object(&source);
                }
            }
            Cause::Forbidden => self.exceptions(),
            Cause::Undecidable(why) => self.undecidable(&why),
            Cause::NoGrant => self.missing_grant(),
            Cause::Granted | Cause::Probe | Cause::RateLimited => {}
        }
    }

    fn data(&self) -> Data {
        self.denial.snapshot.data()
    }

    fn port(&self) -> &PortPolicy {
        self.denial.snapshot.port(self.denial.port)
    }

    /// The client's identity, as far as a policy can name it.
    fn id(&self) -> Option<&SpiffeId> {
        self.client.id.as_ref().filter(|id| !id.path().is_empty())
    }

    /// The client in words: `namespace/account` in our own trust domain.
    fn who(&self) -> String {
        let Some(id) = &self.client.id else {
            return format!("address {}", self.client.ip);
        };
        match id.service_account() {
            Some((namespace, name)) if *id.trust_domain() == self.data().trust_domain => {
                format!("{namespace}/{name}")
            }
            _ => id.to_string(),
        }
    }

    fn hinder(&mut self, text: impl Into<String>, source: Option<String>) {
        self.found.hindrances.push(Hindrance::new(text, source));
    }

    /// A copy of what there is so far, to be gone on with.
    fn draft(&self) -> Draft {
        self.from.draft.clone()
    }

    fn offer(&mut self, draft: Draft, what: impl Into<String>, needs_owner: Option<String>) {
        let mut proposal = self.from.clone();
        proposal.draft = draft;
        proposal.what.push(what.into());
        proposal.needs_owner = proposal.needs_owner.or(needs_owner);
        self.found.proposals.push(proposal);
    }

    /// An exception from every forbid that holds, for exactly this client.
    fn exceptions(&mut self) {
        let (reasons, data) = (self.denial.decision.reasons(), self.data());
        let mut draft = self.draft();
        let mut whole = true;
        let mut names = Vec::new();
        for reason in &reasons {
            let text = data.cedar_policies.iter().find(|text| text.id == **reason);
            let Some(source) = text.map(|text| text.source.clone()) else {
                whole = false;
                continue;
            };
            self.found.hindrances.push(Hindrance::new(
                format!("{reason} forbids this: a forbid wins over every grant"),
                Some(source.to_string()),
            ));
            names.push(reason.to_string());
            whole &= self.excepted(&mut draft, reason, &source).is_some();
        }
        if whole && !names.is_empty() {
            let list = names.join(" and ");
            let owner =
                format!("{list} forbids it on purpose: its owner must agree to an exception");
            let what = format!("except {} from {list}", self.who());
            self.offer(draft, what, Some(owner));
        }
    }

    fn excepted(&self, draft: &mut Draft, reason: &str, statement: &Source) -> Option<()> {
        let object = self.state.index.cedar_object(reason)?;
        let Source::File { end_line, .. } = statement else {
            return None;
        };
        let id = serde_json::Value::from(self.id()?.to_string());
        let splice = Edit::Splice {
            text: vec!["spec".to_owned(), "cedar".to_owned()],
            line: *end_line,
            insert: format!(" unless {{ principal == Mesh::Workload::{id} }}"),
        };
        draft.edit(self.denied.files, &object, &splice)
    }

    /// Policies that might forbid, and cannot be evaluated.
    fn undecidable(&mut self, why: &str) {
        let data = self.data();
        let texts = data.cedar_policies.iter();
        let broken: Vec<Hindrance> = texts
            .filter(|text| text.effect == Effect::Forbid)
            .filter_map(|text| {
                let fault = text.invalid.as_ref()?;
                let message = format!(
                    "{} might forbid this and cannot be evaluated: {fault}",
                    text.id
                );
                Some(Hindrance::new(message, Some(text.source.to_string())))
            })
            .collect();
        if broken.is_empty() {
            self.hinder(
                format!("{why}: mend that policy; nothing is allowed while it might forbid"),
                None,
            );
        }
        self.found.hindrances.extend(broken);
        let findings: Vec<Finding> = self.data().findings.clone();
        let kinds = ["CedarPolicy", "ClusterCedarPolicy"];
        let about = |finding: &&Finding| {
            finding
                .object
                .as_ref()
                .is_some_and(|object| kinds.contains(&object.kind.as_str()))
        };
        self.mend_all(findings.iter().filter(about));
    }

    /// Mends an object that is invalid, or says what is wrong with it.
    fn mend_object(&mut self, source: &Source) {
        let findings: Vec<Finding> = self.data().findings.clone();
        let about = |finding: &&Finding| {
            finding.severity == Severity::Error
                && (finding
                    .object
                    .as_ref()
                    .is_some_and(|object| object.source == *source)
                    || finding.source == *source)
        };
        let found: Vec<&Finding> = findings.iter().filter(about).collect();
        let places: BTreeSet<String> = found
            .iter()
            .map(|finding| finding.source.to_string())
            .collect();
        for finding in &found {
            let hint = finding.hint.as_deref().unwrap_or_default();
            let text = format!("{} {}: {hint}", finding.code, finding.message);
            self.hinder(text, Some(finding.source.to_string()));
        }
        if places.is_empty() {
            let cause = self.denial.decision.cause.to_string();
            self.hinder(format!("{cause}: mend it"), Some(source.to_string()));
        }
        self.mend_all(found.into_iter());
    }
}
