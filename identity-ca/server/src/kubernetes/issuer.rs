//! The mesh as an external issuer of cert-manager: its CertificateRequests that name a `MeshIssuer` or
//! `MeshClusterIssuer` are decided about ([`mesh_issuance::adoption::request`]) and answered.
//!
//! Objects are watched; each is decided about anew when it, an issuer, or the API server's guard of user names changes.

use super::backlog::{Backlog, Outcome, Signed, Workers};
use super::signing::{NotSigned, Signing, text};
use crate::error::coded;
use crate::limits::{GUARD_LOOK, REQUESTS_AT_ONCE};
use mesh_issuance::adoption::request::guard::{self, GuardError, guarded_since};
use mesh_issuance::adoption::request::object::{self, ReadyReason};
use mesh_issuance::adoption::request::rules::{IssuerError, IssuerRules};
use mesh_issuance::adoption::request::{
    Candidate, GROUP, IssuerRef, IssuerState, Live, RequestDecision, RequestFacts, Standing, Terms,
    Wish, decide, is_ours, standing,
};
use mesh_kubernetes::kinds::{
    ADMISSION_POLICY, ADMISSION_POLICY_BINDING, CERTIFICATE_REQUEST, CERTIFICATE_REQUESTS, Kind,
    MESH_CLUSTER_ISSUER, MESH_ISSUER,
};
use mesh_kubernetes::watch::{self, Change};
use mesh_kubernetes::{object as kept, read};
use mesh_trust::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// CertificateRequests as they are served.
const REQUEST: (&Kind, &str) = (&CERTIFICATE_REQUEST, "v1");

/// Changes that may wait to be taken in.
const CHANGES: usize = 256;

/// Longest sleep while nothing happens: the time of the next look at the guard.
const NAP: Duration = GUARD_LOOK;

/// An issuer as it stands, with what it says.
struct Issuer {
    object: Value,
    rules: Arc<Result<IssuerRules, IssuerError>>,
}

/// What is known of requests and issuers.
struct Book {
    issuers: BTreeMap<String, Issuer>,
    requests: Backlog,
    guard: Result<Timestamp, GuardError>,
}

/// What came of a look at the guard and the issuers, which has two parts, one after the other.
enum Looked {
    /// Since when the API server vouches for user names.
    Guard(Result<Timestamp, GuardError>),
    /// Issuers were told how they stand.
    Told,
}

/// An issuer that is told how it stands, as it was seen, and its new status.
struct Tell {
    kind: &'static Kind,
    object: Value,
    status: Map<String, Value>,
}

/// Answers requests for as long as it is polled.
pub(crate) async fn serve(signing: Signing) -> Infallible {
    let (tell, mut changes) = mpsc::channel(CHANGES);
    let mut tasks = JoinSet::new();
    tasks.spawn(watch::watch(
        signing.client.clone(),
        CERTIFICATE_REQUESTS,
        kept::whole,
        tell,
    ));
    let mut book = Book {
        issuers: BTreeMap::new(),
        requests: Backlog::default(),
        guard: Err(GuardError::Unknown {
            why: "it was not asked yet".to_owned(),
        }),
    };
    let (mut workers, mut looking) = (Workers::default(), JoinSet::new());
    let mut look_at = signing.platform.monotonic();
    loop {
        let now = signing.platform.monotonic();
        // Beside the requests: an API server that does not answer keeps nobody waiting who needs nothing of it.
        if now >= look_at && !book.issuers.is_empty() && looking.is_empty() {
            look_at = now.plus(GUARD_LOOK);
            let signing = signing.clone();
            looking.spawn(async move { Looked::Guard(ask_for_guard(&signing).await) });
        }
        while let Some(taken) = book.requests.take(now, REQUESTS_AT_ONCE) {
            let (signing, rules) = (signing.clone(), book.rules_for(&taken.object));
            workers.start(taken.ticket, async move {
                settle(&signing, &taken.object, rules.as_deref(), taken.signed).await
            });
        }
        let due = book.requests.next_due().map_or(NAP, |due| due.since(now));
        tokio::select! {
            change = changes.recv() => match change {
                Some(change) => {
                    if book.take(change, &signing) {
                        look_at = signing.platform.monotonic();
                    }
                }
                // The watch never ends while we listen.
                None => std::future::pending().await,
            },
            (ticket, outcome) = workers.next() => {
                book.requests.done(&ticket, outcome, signing.platform.monotonic());
            }
            Some(looked) = looking.join_next(), if !looking.is_empty() => match looked {
                Ok(Looked::Guard(guard)) => {
                    if guard != book.guard {
                        book.guard = guard;
                        book.requests.all_due(signing.platform.monotonic());
                    }
                    let (signing, tells) = (signing.clone(), book.to_tell(&signing));
                    looking.spawn(async move { tell_issuers(&signing, tells).await });
                }
                Ok(Looked::Told) => {}
                Err(error) => tracing::error!(%error, "a look at the issuers broke off; the next one follows"),
            },
            () = tokio::time::sleep(due.min(NAP)) => {}
        }
    }
}

/// From when on the API server vouches for user names.
async fn ask_for_guard(signing: &Signing) -> Result<Timestamp, GuardError> {
    let one = |kind: &'static Kind| {
        signing.ask(async move {
            let found = read::one(&signing.client, (kind, "v1"), guard::POLICY).await;
            found.map_err(|error| error.to_string())
        })
    };
    let unknown = |why| GuardError::Unknown { why };
    let policy = one(&ADMISSION_POLICY).await.map_err(unknown)?;
    let binding = one(&ADMISSION_POLICY_BINDING).await.map_err(unknown)?;
    guarded_since(policy.as_ref(), binding.as_ref())
}

impl Book {
    /// Takes in a change; whether issuers changed.
    fn take(&mut self, change: Change, signing: &Signing) -> bool {
        let now = signing.platform.monotonic();
        match change {
            Change::Listed { kind, objects, .. } if *kind == CERTIFICATE_REQUEST => {
                self.requests.keep(|name| objects.contains_key(name));
                for (name, json) in objects {
                    self.take_request(name, &json, signing);
                }
                false
            }
            Change::Listed { kind, objects, .. } => {
                let prefix = kind.prefix();
                self.issuers.retain(|name, _| !name.starts_with(&prefix));
                for (name, json) in objects {
                    self.take_issuer(name, &json);
                }
                self.requests.all_due(now);
                true
            }
            Change::Applied { name, json, .. } => {
                if name.starts_with(&CERTIFICATE_REQUEST.prefix()) {
                    self.take_request(name, &json, signing);
                    return false;
                }
                let changed = self.take_issuer(name, &json);
                if changed {
                    self.requests.all_due(now);
                }
                changed
            }
            Change::Removed { name, .. } => {
                self.requests.remove(&name);
                self.issuers.remove(&name).is_some()
            }
            Change::Absent { kind } => {
                tracing::info!(
                    kind = kind.resource(),
                    "not defined in this cluster; once it is, certificate requests are answered"
                );
                let prefix = kind.prefix();
                self.requests.keep(|name| !name.starts_with(&prefix));
                self.issuers.retain(|name, _| !name.starts_with(&prefix));
                false
            }
            Change::Trouble { kind, why } => {
                tracing::warn!(
                    kind = kind.resource(),
                    why,
                    "cannot be watched; trying again"
                );
                false
            }
        }
    }

    /// Notes a request, if it names one of our issuers and has no answer yet.
    fn take_request(&mut self, name: String, json: &[u8], signing: &Signing) {
        let Ok(object) = serde_json::from_slice::<Value>(json) else {
            return;
        };
        if is_ours(&object::issuer_ref(&object)) && !object::is_answered(&object) {
            self.requests
                .put(name, object, signing.platform.monotonic());
        } else {
            self.requests.remove(&name);
        }
    }

    /// Notes an issuer; whether what it says changed.
    fn take_issuer(&mut self, name: String, json: &[u8]) -> bool {
        let Ok(object) = serde_json::from_slice::<Value>(json) else {
            return false;
        };
        let rules = IssuerRules::read(object.get("spec"), namespace_of(&object));
        let changed = self
            .issuers
            .get(&name)
            .is_none_or(|old| *old.rules != rules);
        let rules = Arc::new(rules);
        self.issuers.insert(name, Issuer { object, rules });
        changed
    }

    /// What the issuer says that a request names; none if there is no such issuer.
    fn rules_for(&self, request: &Value) -> Option<Arc<Result<IssuerRules, IssuerError>>> {
        let IssuerRef { kind, name, .. } = object::issuer_ref(request);
        let namespace = match kind.as_str() {
            "MeshIssuer" => Some(text(request, "/metadata/namespace")),
            _ => None,
        };
        let issuer = self
            .issuers
            .get(&kept::name(GROUP, &kind, namespace, &name))?;
        Some(Arc::clone(&issuer.rules))
    }

    /// What is to be noted in issuers: whether they are ready, where that is not what stands there.
    fn to_tell(&self, signing: &Signing) -> Vec<Tell> {
        let mut tells = Vec::new();
        for issuer in self.issuers.values() {
            let object = &issuer.object;
            let told = match (&*issuer.rules, &self.guard) {
                (Err(why), _) => (false, "Invalid", coded(why)),
                (_, Err(why)) => (false, "Unguarded", coded(why)),
                (Ok(_), Ok(_)) => {
                    let text = format!("signs SVIDs of trust domain {}", signing.domain);
                    (true, "Ready", text)
                }
            };
            let (ready, reason, message) = &told;
            let told = (*ready, *reason, message.as_str());
            if object::issuer_says(object, told) {
                continue;
            }
            let kind = match namespace_of(object) {
                Some(_) => &MESH_ISSUER,
                None => &MESH_CLUSTER_ISSUER,
            };
            let now = signing.platform.wall_clock();
            let conditions = object::issuer_conditions(object, told, now);
            tells.push(Tell {
                kind,
                object: object.clone(),
                status: Map::from_iter([("conditions".to_owned(), conditions)]),
            });
        }
        tells
    }
}

async fn tell_issuers(signing: &Signing, tells: Vec<Tell>) -> Looked {
    for Tell {
        kind,
        object,
        status,
    } in tells
    {
        // What could not be written is told again with the next look.
        signing.write((kind, "v1alpha1"), &object, status).await;
    }
    Looked::Told
}

fn namespace_of(object: &Value) -> Option<&str> {
    object
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
}

/// Decides about one request and answers it; with what was `signed` for it before, if that could not be written.
async fn settle(
    signing: &Signing,
    request: &Value,
    rules: Option<&Result<IssuerRules, IssuerError>>,
    signed: Option<Arc<Signed>>,
) -> Outcome {
    let Some(facts) = object::facts(request) else {
        return Outcome::Settled;
    };
    if let Some(signed) = signed {
        return match standing(&facts) {
            Standing::Approved => write_issued(signing, request, signed).await,
            Standing::Denied => {
                let message = "the request was denied; what was signed before is not given away";
                note(signing, request, ReadyReason::Denied, message).await
            }
            Standing::NotOpen => Outcome::Settled,
        };
    }
    let issuer = match rules {
        None => IssuerState::Absent,
        Some(Err(why)) => IssuerState::Invalid(why),
        Some(Ok(rules)) => IssuerState::Rules(rules),
    };
    // Asked now, not remembered: what was taken away a moment ago vouches for nothing.
    let guard = match facts.approved {
        true => ask_for_guard(signing).await,
        false => Err(GuardError::Unknown {
            why: "the request is not approved".to_owned(),
        }),
    };
    let terms = Terms {
        domain: &signing.domain,
        own_namespace: &signing.namespace,
        leaf_secs: signing.leaf_secs,
    };
    match decide(&facts, issuer, &guard, terms) {
        RequestDecision::Leave => Outcome::Settled,
        RequestDecision::NoteDenied => {
            let message = "the request was denied; nothing was signed";
            note(signing, request, ReadyReason::Denied, message).await
        }
        RequestDecision::Pend(why) => pend(signing, request, &why.to_string()).await,
        RequestDecision::Fail(why) => fail(signing, request, coded(&why)).await,
        RequestDecision::Ask(candidate) => issue(signing, request, &facts, *candidate).await,
    }
}

/// Asks for whom it is, signs, and writes what was signed.
async fn issue(
    signing: &Signing,
    request: &Value,
    facts: &RequestFacts,
    candidate: Candidate,
) -> Outcome {
    let id = candidate.id.clone();
    let live = match live(signing, &candidate).await {
        Ok(live) => live,
        Err(why) => return pend(signing, request, &why).await,
    };
    let granted = match candidate.grant(&live) {
        Ok(granted) => granted,
        Err(why) => return fail(signing, request, coded(&why)).await,
    };
    let chain = match signing.issue(granted).await {
        Ok(chain) => chain,
        Err(NotSigned::Now(why)) => return pend(signing, request, &why).await,
        Err(NotSigned::Ever(why)) => return fail(signing, request, coded(&why)).await,
    };
    let validity = chain.leaf.validity();
    let mut message = format!(
        "an SVID of {id}, until {}",
        object::whole_secs(validity.not_after)
    );
    if let Wish::Secs(wished) = facts.duration
        && wished > validity.secs()
    {
        message.push_str(&format!(
            "; {wished} s were asked for, and SVIDs live {} s here",
            signing.leaf_secs
        ));
    }
    tracing::info!(
        %id, serial = chain.leaf.serial().to_hex(), namespace = facts.namespace, request = facts.name,
        "issued an SVID for a certificate request"
    );
    let base64 = |pem: String| json!(data_encoding::BASE64.encode(pem.as_bytes()));
    let fields = Map::from_iter([
        ("certificate".to_owned(), base64(Signing::chain_pem(&chain))),
        ("ca".to_owned(), base64(signing.anchors_pem(&chain))),
    ]);
    write_issued(signing, request, Arc::new(Signed { message, fields })).await
}

/// Writes what was signed, beside the conditions that stand in the request now.
async fn write_issued(signing: &Signing, request: &Value, signed: Arc<Signed>) -> Outcome {
    let now = signing.platform.wall_clock();
    let status = object::status_with_ready(request, ReadyReason::Issued, &signed.message, now);
    signing
        .write_issued(REQUEST, request, (status, signed))
        .await
}

/// What the API server says of whoever asks, and of whoever it is for.
async fn live(signing: &Signing, candidate: &Candidate) -> Result<Live, String> {
    let account = &candidate.account;
    let account_uid = signing
        .account_uid(&account.namespace, &account.name)
        .await?;
    let asks_uid = match &candidate.asks {
        Some((asks, _)) if asks != account => {
            signing.account_uid(&asks.namespace, &asks.name).await?
        }
        _ => account_uid.clone(),
    };
    let pod = signing.bound_pod(candidate.pod.as_ref()).await?;
    Ok(Live {
        account_uid,
        asks_uid,
        pod,
    })
}

/// Notes that a request waits, unless that stands there already.
async fn pend(signing: &Signing, request: &Value, why: &str) -> Outcome {
    if !object::says_pending(request, why) {
        note(signing, request, ReadyReason::Pending, why).await;
    }
    Outcome::Again
}

async fn fail(signing: &Signing, request: &Value, message: String) -> Outcome {
    tracing::warn!(
        why = message,
        namespace = text(request, "/metadata/namespace"),
        request = text(request, "/metadata/name"),
        "a certificate request fails"
    );
    note(signing, request, ReadyReason::Failed, &message).await
}

async fn note(signing: &Signing, request: &Value, reason: ReadyReason, message: &str) -> Outcome {
    let now = signing.platform.wall_clock();
    let status = object::status_with_ready(request, reason, message, now);
    signing.write(REQUEST, request, status).await
}
