//! The signer `mesh.internal/identity` of PodCertificateRequests, where the API server has them: a kubelet asks for the
//! certificate of a pod, and puts it into a volume.
//!
//! What is decided is in [`mesh_issuance::attestation::pod_certificate`]. An answer is final: chain and times are written
//! together, once.

use super::backlog::{Backlog, Outcome, Signed, Workers};
use super::served;
use super::signing::{NotSigned, Signing, text};
use crate::error::coded;
use crate::issuing::Chain;
use crate::limits::REQUESTS_AT_ONCE;
use mesh_issuance::adoption::request::object::whole_secs;
use mesh_issuance::attestation::pod_certificate::{
    LIFE_SECS_MIN, PodCandidate, PodDecision, PodRefusal, decide, is_open,
};
use mesh_issuance::renewal;
use mesh_kubernetes::kinds::{Kind, POD_CERTIFICATE_REQUEST};
use mesh_kubernetes::object as kept;
use mesh_kubernetes::watch::{self, Change};
use serde_json::{Map, Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Changes that may wait to be taken in.
const CHANGES: usize = 256;

/// Longest sleep while nothing happens.
const NAP: Duration = Duration::from_secs(60);

/// Answers requests for as long as it is polled, once the API server has them.
pub(crate) async fn serve(signing: Signing) -> Infallible {
    let without = "pods get no certificates over PodCertificateRequests";
    let version = served(&signing.client, &POD_CERTIFICATE_REQUEST, without).await;
    tracing::info!(version, "signs PodCertificateRequests");
    let (tell, mut changes) = mpsc::channel(CHANGES);
    let mut tasks = JoinSet::new();
    let kind = (&POD_CERTIFICATE_REQUEST, version);
    tasks.spawn(watch::watch_served(
        signing.client.clone(),
        kind,
        kept::whole,
        tell,
    ));
    let mut requests = Backlog::default();
    let mut workers = Workers::default();
    loop {
        let now = signing.platform.monotonic();
        while let Some(taken) = requests.take(now, REQUESTS_AT_ONCE) {
            let signing = signing.clone();
            workers.start(taken.ticket, async move {
                settle(&signing, version, &taken.object, taken.signed).await
            });
        }
        let due = requests.next_due().map_or(NAP, |due| due.since(now));
        tokio::select! {
            change = changes.recv() => match change {
                Some(change) => take(&mut requests, change, &signing),
                // The watch never ends while we listen.
                None => std::future::pending().await,
            },
            (ticket, outcome) = workers.next() => {
                requests.done(&ticket, outcome, signing.platform.monotonic());
            }
            () = tokio::time::sleep(due.min(NAP)) => {}
        }
    }
}

fn take(requests: &mut Backlog, change: Change, signing: &Signing) {
    let now = signing.platform.monotonic();
    let put = |requests: &mut Backlog, name: String, json: &[u8]| {
        let Ok(object) = serde_json::from_slice::<Value>(json) else {
            return;
        };
        match is_open(&object) {
            true => requests.put(name, object, now),
            false => requests.remove(&name),
        }
    };
    match change {
        Change::Listed { objects, .. } => {
            requests.keep(|name| objects.contains_key(name));
            for (name, json) in objects {
                put(requests, name, &json);
            }
        }
        Change::Applied { name, json, .. } => put(requests, name, &json),
        Change::Removed { name, .. } => requests.remove(&name),
        Change::Absent { .. } => {}
        Change::Trouble { why, .. } => {
            tracing::warn!(
                why,
                "PodCertificateRequests cannot be watched; trying again"
            );
        }
    }
}

/// Decides about one request and answers it; with what was `signed` for it before, if that could not be written.
async fn settle(
    signing: &Signing,
    version: &str,
    request: &Value,
    signed: Option<Arc<Signed>>,
) -> Outcome {
    let kind = (&POD_CERTIFICATE_REQUEST, version);
    if let Some(signed) = signed {
        return match is_open(request) {
            true => write_issued(signing, kind, request, signed).await,
            // Somebody denied it meanwhile.
            false => Outcome::Settled,
        };
    }
    let candidate = match decide(request, signing.leaf_secs) {
        PodDecision::Leave => return Outcome::Settled,
        PodDecision::Refuse(why) => return refuse(signing, version, request, &why).await,
        PodDecision::Ask(candidate) => *candidate,
    };
    match issue(signing, candidate).await {
        Ok(chain) => {
            let signed = Arc::new(issued(signing, &chain));
            write_issued(signing, kind, request, signed).await
        }
        Err(NotIssued::Later(why)) => {
            tracing::warn!(
                why,
                request = text(request, "/metadata/name"),
                "a pod's certificate request waits"
            );
            Outcome::Again
        }
        Err(NotIssued::Never(why)) => refuse(signing, version, request, &why).await,
        Err(NotIssued::Failed(why)) => {
            let told = ("Failed", "NotIssued", why.as_str());
            let status = condition(signing, request, told);
            signing.write(kind, request, status).await
        }
    }
}

/// Why a request gets no certificate now.
enum NotIssued {
    Later(String),
    Never(PodRefusal),
    Failed(String),
}

async fn issue(signing: &Signing, candidate: PodCandidate) -> Result<Chain, NotIssued> {
    let (namespace, name) = candidate.pod();
    let pod = signing
        .pod(namespace, name)
        .await
        .map_err(NotIssued::Later)?;
    let granted = candidate
        .grant(pod.as_ref(), &signing.domain)
        .map_err(NotIssued::Never)?;
    let id = granted.request.id.clone();
    let chain = signing.issue(granted).await.map_err(|why| match why {
        NotSigned::Now(why) => NotIssued::Later(why),
        NotSigned::Ever(why) => NotIssued::Failed(why.to_string()),
    })?;
    let granted_secs = chain.leaf.validity().secs();
    // The issuer ends too soon for what the API server takes.
    if granted_secs < LIFE_SECS_MIN {
        return Err(NotIssued::Never(PodRefusal::TooShort { granted_secs }));
    }
    tracing::info!(%id, serial = chain.leaf.serial().to_hex(), "issued an SVID for a pod certificate request");
    Ok(chain)
}

/// Chain and times, together.
fn issued(signing: &Signing, chain: &Chain) -> Signed {
    let validity = chain.leaf.validity();
    let now = signing.platform.wall_clock();
    let refresh = renewal::renew_at(now, validity.not_after, signing.platform.dice());
    let fields = [
        ("certificateChain", Signing::chain_pem(chain)),
        ("notBefore", whole_secs(validity.not_before)),
        ("beginRefreshAt", whole_secs(refresh)),
        ("notAfter", whole_secs(validity.not_after)),
    ];
    let fields = fields.map(|(field, value)| (field.to_owned(), value.into()));
    Signed {
        message: format!("an SVID of {}", chain.leaf.id()),
        fields: fields.into_iter().collect(),
    }
}

async fn write_issued(
    signing: &Signing,
    kind: (&Kind, &str),
    request: &Value,
    signed: Arc<Signed>,
) -> Outcome {
    let status = condition(signing, request, ("Issued", "Issued", &signed.message));
    signing.write_issued(kind, request, (status, signed)).await
}

async fn refuse(signing: &Signing, version: &str, request: &Value, why: &PodRefusal) -> Outcome {
    let (kind, reason) = why.condition();
    let message = coded(why);
    tracing::warn!(
        why = message,
        namespace = text(request, "/metadata/namespace"),
        request = text(request, "/metadata/name"),
        "a pod's certificate request is refused"
    );
    let status = condition(signing, request, (kind, reason, &message));
    signing
        .write((&POD_CERTIFICATE_REQUEST, version), request, status)
        .await
}

fn condition(
    signing: &Signing,
    request: &Value,
    (kind, reason, message): (&str, &str, &str),
) -> Map<String, Value> {
    let condition = json!({
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": message,
        "observedGeneration": request.pointer("/metadata/generation").cloned().unwrap_or(0.into()),
        "lastTransitionTime": whole_secs(signing.platform.wall_clock()),
    });
    let mut status = Map::new();
    status.insert("conditions".to_owned(), json!([condition]));
    status
}
