//! What a solver found, as a request; shown only if the matcher and Cedar decide it as the solver says.

use crate::solver::clipped;
use cedar_policy::{EvalResult, Expression, Record, eval_expression};
use cedar_policy_symcc::Env;
use mesh_policy::Snapshot;
use mesh_policy::cedar::model::Asker;
use mesh_policy::decide::{Decision, Verdict, decide};
use mesh_policy::equivalence::{Mismatch, Sample};
use mesh_policy::request::{Client, ClientRecord, Protocol, RequestRecord, TargetRecord};
use mesh_policy::snapshot::PathOptions;
use mesh_policy::{canonical, record::DecisionRecord};
use mesh_policy_analysis::prove::Witness;
use mesh_policy_analysis::survey::sources;
use mesh_policy_index::replay::Replay;
use mesh_policy_index::{Index, WorkloadKey};
use mesh_trust::{SpiffeId, Timestamp, TrustDomain};
use std::collections::BTreeMap;

/// Where a request is decided.
pub(crate) struct Court<'a> {
    pub(crate) index: &'a Index,
    pub(crate) workload: &'a WorkloadKey,
    /// The policy in force.
    pub(crate) base: &'a Snapshot,
    /// The policy with the claim in it.
    pub(crate) claimed: &'a Snapshot,
    pub(crate) now: Timestamp,
}

/// What contradicts a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contradiction {
    /// The claim forbids it, and it is allowed.
    Allowed,
    /// The claim asks for it, and it is denied.
    Denied,
}

impl Court<'_> {
    /// The first request that `found` may stand for and that contradicts the claim of this id.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn confirm(
        &self,
        found: &Env,
        asker: Asker,
        what: Contradiction,
        claim: &str,
    ) -> Result<Witness, String> {
        let mut refused = "no request has its form".to_owned();
        for request in requests(found, asker, self.workload) {
            match self.contradicts(&request, what, claim) {
                Ok(witness) => return Ok(witness),
                Err(why) => refused = why,
            }
        }
        Err(refused)
    }

    fn contradicts(
        &self,
        request: &RequestRecord,
        what: Contradiction,
        claim: &str,
    ) -> Result<Witness, String> {
        let (in_force, with_claim) = match what {
            Contradiction::Allowed => (Verdict::Allow, Verdict::Deny),
            Contradiction::Denied => (Verdict::Deny, Verdict::Allow),
        };
        let decided = self.decided(self.base, request)?;
        let claims = self.decided(self.claimed, request)?;
        let text = || clipped(&format!("{request:?}"));
        if decided.verdict != in_force {
            return Err(format!("the policy decides otherwise about {}", text()));
        }
        let by_claim = claims.reasons().iter().any(|reason| **reason == *claim);
        if claims.verdict != with_claim || !by_claim {
            return Err(format!("the claim says nothing about {}", text()));
        }
        let decision: DecisionRecord = Replay::new(self.index, self.now).decide(request);
        if decision.verdict != in_force {
            return Err(format!("replay decides otherwise about {}", text()));
        }
        let declared = sources(&self.base.data());
        let reasons = match what {
            Contradiction::Allowed => decided.reasons(),
            Contradiction::Denied => Vec::new(),
        };
        let sources = reasons.iter().map(|reason| {
            let place = declared.get(&**reason).map_or("<built in>", String::as_str);
            format!("{reason} ({place})")
        });
        Ok(Witness {
            request: request.clone(),
            decision,
            sources: sources.collect(),
        })
    }

    /// What the matcher decides, if Cedar decides the same.
    fn decided(&self, policy: &Snapshot, request: &RequestRecord) -> Result<Decision, String> {
        match judged(policy, request, self.now)? {
            Judged::Alike(decision) => Ok(decision),
            Judged::Otherwise(_) => {
                Err("the matcher and Cedar decide it differently: a defect of the mesh".into())
            }
        }
    }
}

/// What the matcher and Cedar make of a request.
pub(crate) enum Judged {
    /// Both the same.
    Alike(Decision),
    /// Each something else.
    Otherwise(Box<Mismatch>),
}

/// Has both decide.
///
/// # Errors
/// Why `request` is none.
pub(crate) fn judged(
    policy: &Snapshot,
    request: &RequestRecord,
    now: Timestamp,
) -> Result<Judged, String> {
    let client = Client::try_from(&request.client).map_err(|error| format!("{error:?}"))?;
    let call = request.call();
    let decision = decide(policy, request.server.port, &client, &call, now);
    Ok(match Sample::of(&decision, &client, &call, now).check() {
        Ok(()) => Judged::Alike(decision),
        Err(mismatch) => Judged::Otherwise(mismatch),
    })
}

/// The requests that `found` may stand for. A solver chooses freely what no policy looks at; where that is no name, path
/// or address, one that is takes its place.
pub(crate) fn requests(found: &Env, asker: Asker, workload: &WorkloadKey) -> Vec<RequestRecord> {
    let Some(sketch) = Sketch::of(found) else {
        return Vec::new();
    };
    let ids = match asker {
        Asker::Anonymous => vec![None],
        Asker::Workload => identities(found).into_iter().map(Some).collect(),
    };
    ids.into_iter()
        .map(|id| sketch.request(id, workload))
        .collect()
}

/// When it is asked; `None` if that is no time of ours.
pub(crate) fn time(found: &Env) -> Option<Timestamp> {
    const MILLIS: &str = r#"context.now.durationSince(datetime("1970-01-01")).toMilliseconds()"#;
    let millis: Expression = MILLIS.parse().ok()?;
    match eval_expression(&found.request, &found.entities, &millis) {
        Ok(EvalResult::Long(millis)) => millis.checked_mul(1_000).map(Timestamp::from_unix_micros),
        _ => None,
    }
}

/// All of a request but who sends it.
struct Sketch {
    ip: std::net::IpAddr,
    tls: bool,
    port: u16,
    head: Option<Head>,
}

struct Head {
    method: String,
    path: String,
    host: Option<String>,
    grpc: bool,
    headers: BTreeMap<String, Vec<String>>,
}

impl Sketch {
    fn of(found: &Env) -> Option<Self> {
        let context = found.request.context()?;
        let EvalResult::Record(conn) = context.get("conn")? else {
            return None;
        };
        let head = match context.get("req") {
            Some(EvalResult::Record(req)) => Some(Head::of(&req, found)?),
            Some(_) => return None,
            None => None,
        };
        Some(Self {
            ip: address(conn.get("ip")?)?,
            tls: truth(&conn, "tls")?,
            port: match conn.get("port")? {
                EvalResult::Long(port) => u16::try_from(*port).ok()?,
                _ => return None,
            },
            head,
        })
    }

    fn request(&self, id: Option<SpiffeId>, workload: &WorkloadKey) -> RequestRecord {
        let head = self.head.as_ref();
        RequestRecord {
            client: ClientRecord {
                spiffe_id: id.map(|id| id.to_string()),
                ip: Some(self.ip.to_string()),
                tls: Some(self.tls),
            },
            server: TargetRecord {
                namespace: workload.namespace.clone(),
                pod: Some(workload.name.clone()),
                service: None,
                port: self.port,
            },
            protocol: match head {
                None => Protocol::Tcp,
                Some(head) if head.grpc => Protocol::Grpc,
                Some(_) => Protocol::Http,
            },
            method: head.map(|head| head.method.clone()),
            path: head.map(|head| head.path.clone()),
            host: head.and_then(|head| head.host.clone()),
            headers: head.map(|head| head.headers.clone()).unwrap_or_default(),
        }
    }
}

impl Head {
    fn of(req: &Record, found: &Env) -> Option<Self> {
        let method = text(req, "method")?;
        let path = text(req, "path")?;
        let host = text(req, "host");
        let method = match canonical::method(&method) {
            Ok(_) => method,
            Err(_) => "GET".to_owned(),
        };
        let path = match canonical::path(&path, &method, PathOptions::default()) {
            Ok(_) => path,
            Err(_) => "/".to_owned(),
        };
        let host = host.map(|host| match canonical::host(&host) {
            Ok(_) => host,
            Err(_) => "elsewhere.example".to_owned(),
        });
        let headers = match req.get("headers")? {
            EvalResult::EntityUid(uid) => headers(found, uid),
            _ => return None,
        };
        Some(Self {
            method,
            path,
            host,
            grpc: truth(req, "grpc")?,
            headers,
        })
    }
}

fn headers(found: &Env, uid: &cedar_policy::EntityUid) -> BTreeMap<String, Vec<String>> {
    let mut headers = BTreeMap::new();
    for (name, values) in found.entities.get(uid).into_iter().flat_map(|e| e.tags()) {
        let Ok(EvalResult::Set(values)) = values else {
            continue;
        };
        let values = values.iter().filter_map(|value| match value {
            EvalResult::String(value) => Some(value.clone()),
            _ => None,
        });
        headers.insert(name.to_owned(), values.collect());
    }
    headers
}

/// Who the client may be: what its entity is called, what its attribute says, the account that it consists of.
fn identities(found: &Env) -> Vec<SpiffeId> {
    let Some(uid) = found.request.principal() else {
        return Vec::new();
    };
    let attribute = |name: &str| match found.entities.get(uid)?.attr(name)? {
        Ok(EvalResult::String(text)) => Some(text),
        _ => None,
    };
    let mut ids = Vec::new();
    ids.extend(SpiffeId::parse(uid.id().unescaped()).ok());
    ids.extend(attribute("id").and_then(|id| SpiffeId::parse(&id).ok()));
    let domain = attribute("trustDomain").and_then(|domain| TrustDomain::parse(&domain).ok());
    let domain = domain.or_else(|| TrustDomain::parse("elsewhere.example").ok());
    if let Some(domain) = domain {
        let namespace = attribute("ns");
        let account = attribute("sa");
        let of = |namespace: &str, account: &str| {
            SpiffeId::for_service_account(&domain, namespace, account).ok()
        };
        match (namespace, account) {
            (Some(namespace), Some(account)) => {
                let made = of(&namespace, &account)
                    .or_else(|| of(&namespace, "somebody"))
                    .or_else(|| of("elsewhere", &account))
                    .or_else(|| of("elsewhere", "somebody"));
                ids.extend(made);
            }
            _ => ids.extend(SpiffeId::parse(&format!("spiffe://{domain}/somebody")).ok()),
        }
    }
    ids.dedup();
    ids
}

fn text(of: &Record, name: &str) -> Option<String> {
    match of.get(name)? {
        EvalResult::String(text) => Some(text.clone()),
        _ => None,
    }
}

fn truth(of: &Record, name: &str) -> Option<bool> {
    match of.get(name)? {
        EvalResult::Bool(value) => Some(*value),
        _ => None,
    }
}

/// `ip("10.0.0.0/8")`: its first address.
fn address(value: &EvalResult) -> Option<std::net::IpAddr> {
    let EvalResult::ExtensionValue(text) = value else {
        return None;
    };
    let (_, quoted) = text.split_once('"')?;
    let (quoted, _) = quoted.split_once('"')?;
    let address = quoted
        .split_once('/')
        .map_or(quoted, |(address, _)| address);
    address.parse().ok()
}
