//! All objects as they are at one moment, and what a pod answers: for commands that ask once and end.

use crate::error::KubernetesError;
use crate::kinds::{Kind, POLICY_SOURCES};
use crate::object::essence;
use crate::watch::{Change, watch};
use kube::Client;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc;

/// Time for all kinds to be listed once.
const LIST_WITHIN: Duration = Duration::from_secs(60);

/// Time for a pod to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Bytes of an answer that are taken.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What policy is made of, each object as JSON by its name ([`crate::object::name`]).
///
/// # Errors
/// [`KubernetesError`] of the first kind that cannot be listed: half of the objects say nothing.
pub async fn policy_sources(client: &Client) -> Result<BTreeMap<String, Vec<u8>>, KubernetesError> {
    let (tell, mut changes) = mpsc::channel(64);
    let watching = watch(client.clone(), POLICY_SOURCES, essence, tell);
    let taking = async {
        let (mut all, mut known) = (BTreeMap::new(), BTreeSet::new());
        while known.len() < POLICY_SOURCES.len() {
            match changes.recv().await {
                Some(Change::Listed { kind, objects, .. }) => {
                    known.insert(kind.resource());
                    all.extend(objects);
                }
                Some(Change::Absent { kind }) => drop(known.insert(kind.resource())),
                Some(Change::Applied { name, json, .. }) => drop(all.insert(name, json)),
                Some(Change::Removed { name, .. }) => drop(all.remove(&name)),
                Some(Change::Trouble { kind, why }) => return Err(failed(kind, why)),
                None => break,
            }
        }
        Ok(all)
    };
    tokio::select! {
        all = taking => all,
        () = watching => Err(gone("the API server ended the lists")),
        () = tokio::time::sleep(LIST_WITHIN) => Err(gone("it took too long")),
    }
}

fn failed(kind: &Kind, why: String) -> KubernetesError {
    KubernetesError::Failed {
        what: format!("list {}", kind.resource()),
        why,
    }
}

fn gone(why: &str) -> KubernetesError {
    KubernetesError::Failed {
        what: "list what policy is made of".to_owned(),
        why: why.to_owned(),
    }
}

/// What a pod answers to `GET /<path>` on a port of its own, asked through the API server.
///
/// # Errors
/// [`KubernetesError`] if it does not answer, or too much.
pub async fn ask_pod(
    client: &Client,
    (namespace, pod, port): (&str, &str, u16),
    path: &str,
) -> Result<String, KubernetesError> {
    let what = format!("ask pod {namespace}/{pod} for {path}");
    let fault = |why: &str| KubernetesError::Failed {
        what: what.clone(),
        why: why.to_owned(),
    };
    let uri = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/{path}");
    let request = http::Request::get(uri).body(Vec::new());
    let request = request.map_err(|error| fault(&error.to_string()))?;
    let answer = tokio::time::timeout(ANSWER_WITHIN, client.request_text(request)).await;
    let text = answer
        .map_err(|_elapsed| fault("it did not answer in time"))?
        .map_err(|error| KubernetesError::of(what.clone(), &error))?;
    match text.len() {
        0..=ANSWER_BYTES_MAX => Ok(text),
        _ => Err(fault("it answers too much")),
    }
}
