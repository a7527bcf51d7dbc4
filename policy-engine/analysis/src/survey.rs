//! One port of one workload, asked in full: every class of clients times every class of requests, each decided by the
//! code of the data path.

use crate::classes::literals::Literals;
use crate::classes::request::requests;
use crate::classes::{Ask, ClientClass, Clients, RequestClass, Who, clients, literals_of};
use crate::error::AnalysisError;
use crate::world::{AskedPort, World, title};
use mesh_policy::Snapshot;
use mesh_policy::connection::ConnectionAtoms;
use mesh_policy::decide::{Verdict, decide_on};
use mesh_policy::request::{Client, ClientRecord, RequestRecord, TargetRecord};
use mesh_policy::snapshot::SnapshotData;
use mesh_policy_index::WorkloadKey;
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Decisions that one port may cost: some seconds. More is refused, and nothing is claimed then.
pub const DECISIONS_MAX: usize = 20_000_000;

/// Sorted ids of all policies that allow.
pub type Reasons = Arc<[Arc<str>]>;

/// Addresses by the policies that allow them.
type Answers = BTreeMap<Reasons, Vec<usize>>;

/// One question that was allowed.
#[derive(Clone, Debug)]
pub struct Allowed {
    /// Place in [`Survey::clients`]' `who`.
    pub who: usize,
    /// Place in its `networks`.
    pub network: usize,
    /// Place in [`Survey::requests`].
    pub request: usize,
    /// What allows.
    pub reasons: Reasons,
}

/// What a port allows.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The workload.
    pub workload: WorkloadKey,
    /// The port.
    pub port: AskedPort,
    /// Trust domain of the mesh.
    pub home: TrustDomain,
    /// Who may ask.
    pub clients: Clients,
    /// What may be asked.
    pub requests: Vec<RequestClass>,
    /// Every combination that is allowed, by client, network, request.
    pub allowed: Vec<Allowed>,
    /// Rules that no request reaches.
    pub shadowed: Vec<String>,
    /// Why the answer might not be complete; empty: it is.
    pub inexact: Vec<String>,
    /// Where each policy that allows is declared.
    pub sources: BTreeMap<String, String>,
}

/// A policy that allows, and where it is declared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Reason {
    /// `<kind>/<namespace>/<name>/<part>`.
    pub policy: String,
    /// `file:line`.
    pub source: String,
}

/// Access that is allowed in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Access {
    /// Who, in classes.
    pub who: Vec<String>,
    /// From which addresses; empty: any.
    pub from: Vec<String>,
    /// What may be asked.
    pub requests: Vec<String>,
    /// Every policy that allows it.
    pub reasons: Vec<Reason>,
    /// One such request, as `mesh authz replay` takes it.
    pub witness: RequestRecord,
}

/// What is asked about.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The time of the decisions.
    pub now: Timestamp,
    /// Identities that exist, for policies written in Cedar.
    pub known: &'a [SpiffeId],
    /// Further Cedar texts whose literals matter.
    pub texts: &'a [String],
    /// Whether these look at clients and Servers alone ([`crate::classes::literals::is_structural`]).
    pub structural: bool,
}

/// Identities of all workloads of a world, sorted.
pub fn known_identities(world: &dyn World, home: &TrustDomain) -> Vec<SpiffeId> {
    let accounts: BTreeSet<(String, String)> = world
        .workloads()
        .iter()
        .filter_map(|key| world.account(key))
        .collect();
    accounts
        .iter()
        .filter_map(|(namespace, name)| SpiffeId::for_service_account(home, namespace, name).ok())
        .collect()
}

/// The client that stands for a class at an address.
pub fn client(class: &ClientClass, ip: std::net::IpAddr) -> Client {
    Client {
        id: class.id.clone(),
        ip,
        tls: class.tls,
        serial: None,
        expires: None,
    }
}

/// The same in a request record.
pub fn client_record(class: &ClientClass, ip: std::net::IpAddr) -> ClientRecord {
    ClientRecord {
        spiffe_id: class.id.as_ref().map(ToString::to_string),
        ip: Some(ip.to_string()),
        tls: Some(class.tls),
    }
}

/// The compiled policy of a workload.
///
/// # Errors
/// [`AnalysisError::Uncompiled`].
pub fn compile(key: &WorkloadKey, data: SnapshotData) -> Result<Snapshot, AnalysisError> {
    Snapshot::compile(data).map_err(|error| AnalysisError::Uncompiled {
        workload: title(key),
        why: error.to_string(),
    })
}

impl Survey {
    /// Asks everybody.
    ///
    /// # Errors
    /// [`AnalysisError::TooMany`] if there are more classes than are asked.
    pub fn of(
        key: &WorkloadKey,
        view: &Snapshot,
        port: AskedPort,
        setting: Setting<'_>,
    ) -> Result<Self, AnalysisError> {
        Self::beside(key, view, port, setting, &[&view.data()])
    }

    /// As [`Survey::of`], with the classes of `data` too: what further policies tell apart.
    ///
    /// # Errors
    /// As [`Survey::of`].
    pub fn beside(
        key: &WorkloadKey,
        view: &Snapshot,
        port: AskedPort,
        setting: Setting<'_>,
        data: &[&SnapshotData],
    ) -> Result<Self, AnalysisError> {
        let literals = literals_of(&[&view.data()], setting.texts);
        let who = clients(data, setting.known, literals.as_ref());
        let requests = if setting.structural {
            literals_of(&[&view.data()], &[])
        } else {
            literals
        };
        Self::asking(key, view, port, setting, who, requests.as_ref())
    }

    /// Asks everybody for one request alone.
    ///
    /// # Errors
    /// As [`Survey::of`].
    pub fn of_request(
        key: &WorkloadKey,
        view: &Snapshot,
        port: AskedPort,
        setting: Setting<'_>,
        ask: Ask,
    ) -> Result<Self, AnalysisError> {
        let literals = literals_of(&[&view.data()], setting.texts);
        let mut survey = Self {
            workload: key.clone(),
            port,
            home: view.data().trust_domain.clone(),
            clients: clients(&[&view.data()], setting.known, literals.as_ref()),
            requests: vec![RequestClass {
                what: ask.text(),
                ask,
            }],
            allowed: Vec::new(),
            shadowed: Vec::new(),
            inexact: Vec::new(),
            sources: sources(&view.data()),
        };
        if literals.is_some() {
            let why = "policies written in Cedar may look at anything of a client; what they name was tried";
            survey.inexact.push(why.to_owned());
        }
        survey.ask(view, setting.now)?;
        Ok(survey)
    }

    /// Asks only `who`, from everywhere.
    ///
    /// # Errors
    /// As [`Survey::of`].
    pub fn of_one(
        key: &WorkloadKey,
        view: &Snapshot,
        port: AskedPort,
        setting: Setting<'_>,
        who: ClientClass,
    ) -> Result<Self, AnalysisError> {
        let literals = literals_of(&[&view.data()], setting.texts);
        let all = clients(&[&view.data()], &[], literals.as_ref());
        let who = Clients {
            who: vec![who],
            ..all
        };
        Self::asking(key, view, port, setting, who, literals.as_ref())
    }

    fn asking(
        key: &WorkloadKey,
        view: &Snapshot,
        port: AskedPort,
        setting: Setting<'_>,
        who: Clients,
        literals: Option<&Literals>,
    ) -> Result<Self, AnalysisError> {
        let found = requests(&[view], port.number(), setting.now, literals);
        let mut survey = Self {
            workload: key.clone(),
            port,
            home: view.data().trust_domain.clone(),
            clients: who,
            requests: found.classes,
            allowed: Vec::new(),
            shadowed: found.shadowed,
            inexact: found.inexact,
            sources: sources(&view.data()),
        };
        survey.ask(view, setting.now)?;
        Ok(survey)
    }

    fn ask(&mut self, view: &Snapshot, now: Timestamp) -> Result<(), AnalysisError> {
        let (who, networks) = (&self.clients.who, &self.clients.networks);
        let clients = who.len().saturating_mul(networks.len());
        if clients.saturating_mul(self.requests.len()) > DECISIONS_MAX {
            return Err(AnalysisError::TooMany {
                workload: title(&self.workload),
                port: self.port.number(),
                limit: DECISIONS_MAX,
            });
        }
        let mut interned: HashMap<Vec<Arc<str>>, Reasons> = HashMap::new();
        self.allowed.clear();
        for (place, class) in who.iter().enumerate() {
            for (network, from) in networks.iter().enumerate() {
                let atoms = ConnectionAtoms::of(view, &client(class, from.address));
                for (request, asked) in self.requests.iter().enumerate() {
                    let decision = decide_on(&atoms, self.port.number(), &asked.ask.call(), now);
                    if decision.verdict == Verdict::Deny {
                        continue;
                    }
                    let reasons = decision.reasons();
                    let reasons = match interned.get(&reasons) {
                        Some(known) => Arc::clone(known),
                        None => {
                            let shared: Reasons = reasons.clone().into();
                            interned.insert(reasons, Arc::clone(&shared));
                            shared
                        }
                    };
                    self.allowed.push(Allowed {
                        who: place,
                        network,
                        request,
                        reasons,
                    });
                }
            }
        }
        Ok(())
    }

    /// How many questions were decided.
    pub fn decisions(&self) -> usize {
        let clients = self
            .clients
            .who
            .len()
            .saturating_mul(self.clients.networks.len());
        clients.saturating_mul(self.requests.len())
    }

    /// The request record of an allowed question.
    pub fn witness(&self, allowed: &Allowed) -> Option<RequestRecord> {
        let class = self.clients.who.get(allowed.who)?;
        let network = self.clients.networks.get(allowed.network)?;
        let asked = self.requests.get(allowed.request)?;
        let target = TargetRecord {
            namespace: self.workload.namespace.clone(),
            pod: Some(self.workload.name.clone()),
            service: None,
            port: self.port.number(),
        };
        Some(
            asked
                .ask
                .record(client_record(class, network.address), target),
        )
    }

    /// What is allowed, equal answers together.
    pub fn access(&self) -> Vec<Access> {
        self.grouped(self.allowed.iter())
    }

    /// As [`Survey::access`], of some of its questions.
    pub fn grouped<'s>(&'s self, allowed: impl Iterator<Item = &'s Allowed>) -> Vec<Access> {
        let mut by_question: BTreeMap<(usize, usize), Answers> = BTreeMap::new();
        for one in allowed {
            let at = by_question.entry((one.request, one.who)).or_default();
            at.entry(Arc::clone(&one.reasons))
                .or_default()
                .push(one.network);
        }
        let mut by_answer: BTreeMap<(usize, Reasons, Vec<usize>), Vec<usize>> = BTreeMap::new();
        for ((request, who), answers) in by_question {
            for (reasons, networks) in answers {
                by_answer
                    .entry((request, reasons, networks))
                    .or_default()
                    .push(who);
            }
        }
        let mut rows: BTreeMap<(Vec<usize>, Vec<usize>, Reasons), Vec<usize>> = BTreeMap::new();
        for ((request, reasons, networks), who) in by_answer {
            rows.entry((who, networks, reasons))
                .or_default()
                .push(request);
        }
        rows.into_iter()
            .filter_map(|((who, networks, reasons), requests)| {
                self.row(&who, &networks, &reasons, &requests)
            })
            .collect()
    }

    fn row(
        &self,
        who: &[usize],
        networks: &[usize],
        reasons: &Reasons,
        requests: &[usize],
    ) -> Option<Access> {
        let first = Allowed {
            who: *who.first()?,
            network: *networks.first()?,
            request: *requests.first()?,
            reasons: Arc::clone(reasons),
        };
        let from = if networks.len() == self.clients.networks.len() {
            Vec::new()
        } else {
            let blocks = networks
                .iter()
                .filter_map(|at| self.clients.networks.get(*at));
            blocks
                .flat_map(|class| &class.blocks)
                .map(ToString::to_string)
                .collect()
        };
        Some(Access {
            who: self.who_text(who),
            from,
            requests: if requests.len() > 1 && requests.len() == self.requests.len() {
                vec!["every request".to_owned()]
            } else {
                requests
                    .iter()
                    .filter_map(|at| self.requests.get(*at))
                    .map(|one| one.what.clone())
                    .collect()
            },
            reasons: reasons.iter().map(|reason| self.reason(reason)).collect(),
            witness: self.witness(&first)?,
        })
    }

    /// A policy with its place.
    pub fn reason(&self, policy: &str) -> Reason {
        let source = self.sources.get(policy).cloned();
        Reason {
            policy: policy.to_owned(),
            source: source.unwrap_or_else(|| "<built in>".to_owned()),
        }
    }

    /// These classes of clients in words, wider words for all of a kind.
    fn who_text(&self, who: &[usize]) -> Vec<String> {
        let all = &self.clients.who;
        let everybody = all.iter().any(|class| class.who == Who::Plaintext) && all.len() > 1;
        if everybody && who.len() == all.len() {
            return vec!["everybody".to_owned()];
        }
        let chosen: Vec<&Who> = who
            .iter()
            .filter_map(|at| all.get(*at))
            .map(|class| &class.who)
            .collect();
        let inside: BTreeSet<&Who> = chosen.iter().copied().collect();
        let mut covered: BTreeSet<&Who> = BTreeSet::new();
        let mut out = Vec::new();
        for one in &chosen {
            let text = match one {
                Who::Domain(domain) => format!("every identity of {domain}"),
                Who::Namespace(domain, namespace) if *domain == self.home => {
                    format!("any identity of namespace {namespace}")
                }
                Who::Namespace(domain, namespace) => {
                    format!("any identity of namespace {namespace} of {domain}")
                }
                _ => continue,
            };
            let members: Vec<&Who> = all
                .iter()
                .map(|class| &class.who)
                .filter(|who| covers(one, who))
                .collect();
            if members.iter().all(|member| inside.contains(member)) {
                covered.extend(members);
                out.push((one, text));
            }
        }
        // A namespace within a domain that is there as a whole needs no word of its own.
        let whole: Vec<&TrustDomain> = out
            .iter()
            .filter_map(|(who, _)| match who {
                Who::Domain(domain) => Some(domain),
                _ => None,
            })
            .collect();
        let needless =
            |who: &Who| matches!(who, Who::Namespace(domain, _) if whole.contains(&domain));
        let wide = out
            .iter()
            .filter(|(who, _)| !needless(who))
            .map(|(_, text)| text.clone());
        let rest = chosen
            .iter()
            .filter(|who| !covered.contains(*who))
            .map(|who| who.text(&self.home));
        wide.chain(rest).collect()
    }

    /// Places of the classes that may be `who`: an identity's own, and those without one, which anybody can be.
    pub fn classes_of(&self, id: &SpiffeId) -> Vec<usize> {
        let own = class_of(&self.clients.who, id);
        let anonymous = self
            .clients
            .who
            .iter()
            .enumerate()
            .filter(|(_, class)| class.who.is_anonymous());
        own.into_iter().chain(anonymous.map(|(at, _)| at)).collect()
    }
}

/// Whether it is allowed as a declared probe alone: nobody is let in by that.
pub fn is_probe(allowed: &Allowed) -> bool {
    allowed
        .reasons
        .iter()
        .all(|reason| &**reason == "default/probe")
}

/// The class that an identity is in.
pub fn class_of(all: &[ClientClass], id: &SpiffeId) -> Option<usize> {
    let find = |wanted: &Who| all.iter().position(|class| class.who == *wanted);
    let namespace = || {
        let (namespace, _) = id.service_account()?;
        find(&Who::Namespace(
            id.trust_domain().clone(),
            namespace.to_owned(),
        ))
    };
    find(&Who::Named(id.clone()))
        .or_else(namespace)
        .or_else(|| find(&Who::Domain(id.trust_domain().clone())))
        .or_else(|| find(&Who::Foreign))
}

/// Whether `who` is of the trust domain, or the namespace, that `wide` is the rest of.
fn covers(wide: &Who, who: &Who) -> bool {
    match (wide, who) {
        (Who::Domain(domain), Who::Named(id)) => id.trust_domain() == domain,
        (Who::Domain(domain), Who::Namespace(of, _) | Who::Domain(of)) => domain == of,
        (Who::Namespace(domain, namespace), Who::Named(id)) => {
            let account = id.service_account();
            id.trust_domain() == domain && account.is_some_and(|(of, _)| of == namespace)
        }
        (Who::Namespace(..), Who::Namespace(..)) => wide == who,
        _ => false,
    }
}

/// Where each policy of a snapshot is declared.
pub fn sources(data: &SnapshotData) -> BTreeMap<String, String> {
    let grants = data.grants.iter().map(|grant| (&grant.id, &grant.source));
    let texts = data
        .cedar_policies
        .iter()
        .map(|text| (&text.id, &text.source));
    grants
        .chain(texts)
        .map(|(id, source)| (id.clone(), source.to_string()))
        .collect()
}
