//! The signer `mesh.internal/identity` of PodCertificateRequests, where the API server has them: a kubelet asks for the
//! certificate of a pod, and puts it into a volume.
//!
//! What is decided is in [`mesh_issuance::attestation::pod_certificate`]. An answer is final: chain and times are written
//! together, once.

use super::backlog::{Backlog, Outcome};
use super::signing::{NotSigned, Signing, text};
use crate::issuing::Chain;
use crate::limits::{API_LOOK, REQUESTS_AT_ONCE};
use mesh_issuance::adoption::request::object::whole_secs;
use mesh_issuance::attestation::pod_certificate::{
    LIFE_SECS_MIN, PodCandidate, PodDecision, PodRefusal, decide,
};
use mesh_issuance::renewal;
use mesh_kubernetes::kinds::POD_CERTIFICATE_REQUEST;
use mesh_kubernetes::object as kept;
use mesh_kubernetes::watch::{self, Change};
use serde_json::{Map, Value, json};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Changes that may wait to be taken in.
const CHANGES: usize = 256;

/// Longest sleep while nothing happens.
const NAP: Duration = Duration::from_secs(60);

/// Answers requests for as long as it is polled, once the API server has them.
pub(crate) async fn serve(signing: Signing) -> Infallible {
    let version = served(
        &signing,
        "pods get no certificates over PodCertificateRequests",
    )
    .await;
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
    let mut under_way = JoinSet::new();
    loop {
        let now = signing.platform.monotonic();
        while let Some((name, request)) = requests.take(now, REQUESTS_AT_ONCE) {
            let signing = signing.clone();
            under_way.spawn(async move {
                let outcome = settle(&signing, version, &request).await;
                (name, outcome)
            });
        }
        let due = requests.next_due().map_or(NAP, |due| due.since(now));
        tokio::select! {
            change = changes.recv() => match change {
                Some(change) => take(&mut requests, change, &signing),
                // The watch never ends while we listen.
                None => std::future::pending().await,
            },
            Some(done) = under_way.join_next(), if !under_way.is_empty() => match done {
                Ok((name, outcome)) => requests.done(&name, outcome, signing.platform.monotonic()),
                Err(error) => tracing::error!(%error, "a request was given up"),
            },
            () = tokio::time::sleep(due.min(NAP)) => {}
        }
    }
}

/// The version in which the API server has them; waits until it has one.
async fn served(signing: &Signing, without: &str) -> &'static str {
    let mut said = false;
    loop {
        match watch::served_version(&signing.client, &POD_CERTIFICATE_REQUEST).await {
            Ok(Some(version)) => return version,
            Ok(None) if said => {}
            Ok(None) => {
                said = true;
                tracing::info!("the API server has no PodCertificateRequests: {without}");
            }
            Err(error) => {
                tracing::warn!(%error, "cannot find out whether there are PodCertificateRequests")
            }
        }
        tokio::time::sleep(API_LOOK).await;
    }
}

fn take(requests: &mut Backlog, change: Change, signing: &Signing) {
    let now = signing.platform.monotonic();
    let put = |requests: &mut Backlog, name: String, json: &[u8]| {
        let Ok(object) = serde_json::from_slice::<Value>(json) else {
            return;
        };
        match decide(&object, signing.leaf_secs) {
            PodDecision::Leave => {
                requests.remove(&name);
                signing.forget(text(&object, "/metadata/uid"));
            }
            _ => requests.put(name, object, now),
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

/// Decides about one request and answers it.
async fn settle(signing: &Signing, version: &str, request: &Value) -> Outcome {
    let kind = (&POD_CERTIFICATE_REQUEST, version);
    if let Some(written) = signing.write_again(kind, request).await {
        return written;
    }
    let candidate = match decide(request, signing.leaf_secs) {
        PodDecision::Leave => return Outcome::Settled,
        PodDecision::Refuse(why) => return refuse(signing, version, request, &why).await,
        PodDecision::Ask(candidate) => *candidate,
    };
    match issue(signing, candidate).await {
        Ok(chain) => {
            let status = issued(signing, request, &chain);
            signing.write_issued(kind, request, status).await
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
fn issued(signing: &Signing, request: &Value, chain: &Chain) -> Map<String, Value> {
    let validity = chain.leaf.validity();
    let now = signing.platform.wall_clock();
    let refresh = renewal::renew_at(now, validity.not_after, signing.platform.dice());
    let message = format!("an SVID of {}", chain.leaf.id());
    let mut status = condition(signing, request, ("Issued", "Issued", &message));
    for (field, value) in [
        ("certificateChain", Signing::chain_pem(chain)),
        ("notBefore", whole_secs(validity.not_before)),
        ("beginRefreshAt", whole_secs(refresh)),
        ("notAfter", whole_secs(validity.not_after)),
    ] {
        status.insert(field.to_owned(), value.into());
    }
    status
}

async fn refuse(signing: &Signing, version: &str, request: &Value, why: &PodRefusal) -> Outcome {
    let (kind, reason) = why.condition();
    let code = miette::Diagnostic::code(why).map(|code| format!("{code}: "));
    let message = format!("{}{why}", code.unwrap_or_default());
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
