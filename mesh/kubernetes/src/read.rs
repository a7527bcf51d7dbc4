//! Looks at a cluster once: for commands, which watch nothing.

use crate::error::{KubernetesError, root_cause};
use crate::kinds::Kind;
use crate::object;
use crate::watch::View;
use futures_util::stream::{StreamExt, TryStreamExt, iter};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, PostParams};
use kube::client::Body;
use kube::core::GroupVersionKind;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Questions under way at a time: an API server answers some of them side by side, and lets nobody ask without end.
const ASKED_AT_ONCE: usize = 16;

/// Time for a pod to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Bytes of a pod's answer that are taken.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Objects of one page of a list.
const PAGE: u32 = 500;

/// Objects of many kinds at about one moment.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// By [`object::name`], as JSON.
    pub files: BTreeMap<String, Vec<u8>>,
    /// How each kind is served; kinds that are not there are not in it.
    pub served: BTreeMap<String, Served>,
}

/// How an API server serves a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// The newest version that both sides know.
    pub version: &'static str,
    /// Whether what became of its objects can be written.
    pub status: bool,
}

/// Lists all objects of `kinds`; kinds that the API server does not have, have none.
///
/// # Errors
/// [`KubernetesError`] if one of them cannot be listed: half of the objects would mean something else.
pub async fn objects(
    client: &Client,
    kinds: &'static [Kind],
    view: View,
) -> Result<Objects, KubernetesError> {
    let mut out = Objects {
        files: BTreeMap::new(),
        served: served(client, kinds).await?,
    };
    let lists = kinds.iter().filter_map(|kind| {
        let version = out.served.get(&kind.resource())?.version;
        Some(list_kind(client, kind, version, view))
    });
    let lists: Vec<Vec<(String, Vec<u8>)>> = iter(lists.collect::<Vec<_>>())
        .buffer_unordered(ASKED_AT_ONCE)
        .try_collect()
        .await?;
    out.files.extend(lists.into_iter().flatten());
    Ok(out)
}

/// One object without namespace, as JSON; none if there is no such object.
///
/// # Errors
/// [`KubernetesError`] if the API server does not answer.
pub async fn one(
    client: &Client,
    (kind, version): (&Kind, &str),
    name: &str,
) -> Result<Option<Value>, KubernetesError> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.api_resource(version));
    let what = || format!("read {} {name}", kind.kind);
    let found = api
        .get_opt(name)
        .await
        .map_err(|error| KubernetesError::of(what(), &error))?;
    // Came from JSON, so it has a JSON form.
    Ok(found.map(|object| serde_json::to_value(object).unwrap_or_default()))
}

/// How each of `kinds` is served.
///
/// # Errors
/// [`KubernetesError`] if the API server does not answer.
pub async fn served(
    client: &Client,
    kinds: &'static [Kind],
) -> Result<BTreeMap<String, Served>, KubernetesError> {
    let wanted: BTreeSet<(&str, &str)> = kinds
        .iter()
        .filter(|kind| !kind.built_in)
        .flat_map(|kind| kind.versions.iter().map(|version| (kind.group, *version)))
        .collect();
    let asked = wanted.into_iter().map(|(group, version)| async move {
        let known = resources(client, group, version).await?;
        Ok::<_, KubernetesError>(((group, version), known))
    });
    let known: BTreeMap<(&str, &str), BTreeSet<String>> = iter(asked.collect::<Vec<_>>())
        .buffer_unordered(ASKED_AT_ONCE)
        .try_collect()
        .await?;
    let mut out = BTreeMap::new();
    for kind in kinds {
        let has = |version: &&&str, name: &str| {
            let of_version = known.get(&(kind.group, **version));
            of_version.is_some_and(|names| names.contains(name))
        };
        let version = if kind.built_in {
            kind.versions.first()
        } else {
            kind.versions
                .iter()
                .find(|version| has(version, kind.plural))
        };
        if let Some(version) = version {
            let status = format!("{}/status", kind.plural);
            out.insert(
                kind.resource(),
                Served {
                    version,
                    status: has(&version, &status),
                },
            );
        }
    }
    Ok(out)
}

/// Names of the resources of a group and version, subresources among them; none if it is not there.
async fn resources(
    client: &Client,
    group: &str,
    version: &str,
) -> Result<BTreeSet<String>, KubernetesError> {
    match client
        .list_api_group_resources(&format!("{group}/{version}"))
        .await
    {
        Ok(list) => Ok(list.resources.into_iter().map(|one| one.name).collect()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(BTreeSet::new()),
        Err(error) => Err(KubernetesError::of(
            format!("list what is in {group}/{version}"),
            &error,
        )),
    }
}

async fn list_kind(
    client: &Client,
    kind: &'static Kind,
    version: &'static str,
    view: View,
) -> Result<Vec<(String, Vec<u8>)>, KubernetesError> {
    let resource = kind.api_resource(version);
    let parameters = ListParams {
        label_selector: kind.labels.map(str::to_owned),
        ..ListParams::default()
    };
    let found = pages(client, (&resource, None), parameters).await?;
    let one = |object: DynamicObject| {
        let namespace = object.metadata.namespace.clone();
        let name = object.metadata.name.clone().unwrap_or_default();
        let name = object::name(kind.group, kind.kind, namespace.as_deref(), &name);
        let value = serde_json::to_value(object).unwrap_or_default();
        let kept = view(kind.kind, &kind.api_version(version), value);
        (name, serde_json::to_vec(&kept).unwrap_or_default())
    };
    Ok(found.into_iter().map(one).collect())
}

async fn pages(
    client: &Client,
    (resource, namespace): (&ApiResource, Option<&str>),
    parameters: ListParams,
) -> Result<Vec<DynamicObject>, KubernetesError> {
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    };
    let mut parameters = parameters.limit(PAGE);
    let mut out = Vec::new();
    loop {
        let page = api.list(&parameters).await.map_err(|error| {
            let dot = if resource.group.is_empty() { "" } else { "." };
            KubernetesError::of(
                format!("list {}{dot}{}", resource.plural, resource.group),
                &error,
            )
        })?;
        let next = page
            .metadata
            .continue_
            .clone()
            .filter(|next| !next.is_empty());
        out.extend(page.items);
        match next {
            Some(next) => parameters.continue_token = Some(next),
            None => return Ok(out),
        }
    }
}

fn resource_of(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// Objects of any kind, all namespaces; `fields` and `labels` are selectors, empty: all.
///
/// # Errors
/// [`KubernetesError`]
pub async fn list(
    client: &Client,
    kind: (&str, &str),
    selectors: (&str, &str),
) -> Result<Vec<Value>, KubernetesError> {
    list_in(client, kind, None, selectors).await
}

/// The same by labels; none where the API server does not know the kind.
///
/// # Errors
/// [`KubernetesError`]
pub async fn list_if_served(
    client: &Client,
    (api_version, kind): (&str, &str),
    labels: &str,
) -> Result<Vec<Value>, KubernetesError> {
    let resource = resource_of(api_version, kind);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if !group.is_empty() && !is_served(client, (group, version), &resource.plural).await? {
        return Ok(Vec::new());
    }
    list(client, (api_version, kind), ("", labels)).await
}

/// Whether the API server knows a resource, by its plural, in a version of a group.
///
/// # Errors
/// [`KubernetesError`] if the API server does not answer.
pub async fn is_served(
    client: &Client,
    (group, version): (&str, &str),
    plural: &str,
) -> Result<bool, KubernetesError> {
    Ok(resources(client, group, version).await?.contains(plural))
}

/// The same of one namespace, if one is named: the right to list them there is enough.
///
/// # Errors
/// [`KubernetesError`]
pub async fn list_in(
    client: &Client,
    (api_version, kind): (&str, &str),
    namespace: Option<&str>,
    (fields, labels): (&str, &str),
) -> Result<Vec<Value>, KubernetesError> {
    let mut parameters = ListParams::default();
    if !fields.is_empty() {
        parameters = parameters.fields(fields);
    }
    if !labels.is_empty() {
        parameters = parameters.labels(labels);
    }
    let resource = resource_of(api_version, kind);
    let found = pages(client, (&resource, namespace), parameters).await?;
    let values = found.into_iter();
    Ok(values
        .map(|object| serde_json::to_value(object).unwrap_or_default())
        .collect())
}

/// One object of any kind, by its own `apiVersion`, `kind`, namespace and name; `None` if there is none.
///
/// # Errors
/// [`KubernetesError`]
pub async fn named(client: &Client, like: &Value) -> Result<Option<Value>, KubernetesError> {
    let text = |path: &str| {
        like.pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (kind, namespace, name) = (
        text("/kind"),
        text("/metadata/namespace"),
        text("/metadata/name"),
    );
    let resource = resource_of(text("/apiVersion"), kind);
    let api: Api<DynamicObject> = if namespace.is_empty() {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), namespace, &resource)
    };
    match api.get_opt(name).await {
        Ok(found) => Ok(found.map(|object| serde_json::to_value(object).unwrap_or_default())),
        Err(error) => Err(KubernetesError::of(format!("read {kind} {name}"), &error)),
    }
}

/// Makes an object as far as the API server would take it, and stores nothing; what it would be.
///
/// # Errors
/// [`KubernetesError`] if it is not taken: by a right that is missing, or by a webhook.
pub async fn try_create(client: &Client, object: &Value) -> Result<Value, KubernetesError> {
    let text = |path: &str| {
        object
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let resource = resource_of(text("/apiVersion"), text("/kind"));
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), text("/metadata/namespace"), &resource);
    let what = format!("try to create a {}", text("/kind"));
    let typed =
        serde_json::from_value(object.clone()).map_err(|error| KubernetesError::Failed {
            what: what.clone(),
            why: error.to_string(),
        })?;
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match api.create(&parameters, &typed).await {
        Ok(made) => Ok(serde_json::to_value(made).unwrap_or_default()),
        Err(error) => Err(KubernetesError::of(what, &error)),
    }
}

/// What one may do to what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// `create`, `list` and so on.
    pub verb: String,
    /// API group; empty: core.
    pub group: String,
    /// `pods`; with a subresource `pods/proxy`.
    pub resource: String,
    /// Where; empty: everywhere, or a kind without namespaces.
    pub namespace: String,
}

/// Whether whoever asks has this right.
///
/// # Errors
/// [`KubernetesError`] if the API server does not answer.
pub async fn may(client: &Client, right: &Right) -> Result<bool, KubernetesError> {
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let (resource, subresource) = match right.resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (right.resource.as_str(), None),
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: Some(right.verb.clone()),
                group: Some(right.group.clone()),
                resource: Some(resource.to_owned()),
                subresource,
                namespace: Some(right.namespace.clone()).filter(|text| !text.is_empty()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = api.create(&PostParams::default(), &review).await;
    match answer {
        Ok(review) => Ok(review.status.is_some_and(|status| status.allowed)),
        Err(error) => Err(KubernetesError::of("say what one may do", &error)),
    }
}

/// What an API server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `v1.34.1`.
    pub version: String,
    /// Its clock, as HTTP has it: `Sun, 29 Nov 2026 15:28:00 GMT`.
    pub date: Option<String>,
}

/// Asks the API server for its version and its clock.
///
/// # Errors
/// [`KubernetesError`] if it does not answer, or not like one.
pub async fn server(client: &Client) -> Result<Server, KubernetesError> {
    let failed = |why: String| KubernetesError::Failed {
        what: "tell its version".to_owned(),
        why,
    };
    let request = http::Request::get("/version")
        .body(Body::empty())
        .map_err(|error| failed(error.to_string()))?;
    let response = client
        .send(request)
        .await
        .map_err(|error| failed(root_cause(&error)))?;
    let status = response.status();
    let date = response
        .headers()
        .get(http::header::DATE)
        .and_then(|date| date.to_str().ok())
        .map(str::to_owned);
    let body = response
        .into_body()
        .collect_bytes()
        .await
        .map_err(|error| failed(root_cause(&error)))?;
    if matches!(status.as_u16(), 401 | 403) {
        return Err(KubernetesError::Refused {
            what: "tell its version".to_owned(),
            why: status.to_string(),
        });
    }
    let value: Value = serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))?;
    let version = value.get("gitVersion").and_then(Value::as_str);
    Ok(Server {
        version: version
            .ok_or_else(|| failed("it answers, but not as an API server does".to_owned()))?
            .to_owned(),
        date,
    })
}

/// What a port of a pod answers to `GET path`, asked by the API server: no port of a pod needs to be reachable from here.
///
/// # Errors
/// [`KubernetesError`] if the pod does not answer within ten seconds, or too much, or the right to `get` `pods/proxy` is
/// missing.
pub async fn ask_pod(
    client: &Client,
    (namespace, pod, port): (&str, &str, u16),
    path: &str,
) -> Result<String, KubernetesError> {
    let what = format!("let pod {namespace}/{pod} be asked on port {port}");
    let failed = |why: String| KubernetesError::Failed {
        what: what.clone(),
        why,
    };
    let uri = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}");
    let request = http::Request::get(uri).body(Vec::new());
    let request = request.map_err(|error| failed(error.to_string()))?;
    let answer = tokio::time::timeout(ANSWER_WITHIN, client.request_text(request)).await;
    let text = answer
        .map_err(|_elapsed| failed("it did not answer in time".to_owned()))?
        .map_err(|error| KubernetesError::of(what.clone(), &error))?;
    match text.len() {
        0..=ANSWER_BYTES_MAX => Ok(text),
        _ => Err(failed("it answers too much".to_owned())),
    }
}
