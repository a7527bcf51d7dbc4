//! Objects of many kinds as they are now, and every change after that.
//!
//! ```text
//! absent --CRD appears--> listing --Listed--> watching --Applied, Removed--> watching
//! watching --410, broken stream--> listing      any --CRD gone--> absent
//! ```
//! A list replaces all that was known of its kind, so whatever was missed meanwhile is made good (faults F8, F9).
//! While a kind cannot be listed, what was known of it stays.

use crate::error::{KubernetesError, root_cause};
use crate::kinds::Kind;
use crate::object::name;
use futures_util::{Stream, StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Pause before an API server is asked again which versions it has.
const VERSIONS_RETRY: Duration = Duration::from_secs(2);

/// Something about one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// All objects of the kind, by name, as JSON; they replace what was known.
    Listed {
        /// Which.
        kind: &'static Kind,
        /// By [`name`].
        objects: BTreeMap<String, Vec<u8>>,
        /// Highest resource version among them.
        revision: u64,
    },
    /// One object is new or different.
    Applied {
        /// By [`name`].
        name: String,
        /// It, as JSON.
        json: Vec<u8>,
        /// Its resource version.
        revision: u64,
    },
    /// One object is gone.
    Removed {
        /// By [`name`].
        name: String,
        /// Resource version of its removal.
        revision: u64,
    },
    /// The API server does not know the kind; it may learn it.
    Absent {
        /// Which.
        kind: &'static Kind,
    },
    /// The kind cannot be read now; what was known of it stays.
    Trouble {
        /// Which.
        kind: &'static Kind,
        /// Why not.
        why: String,
    },
}

/// What of an object is told, of its kind and `apiVersion`: one of the functions of [`crate::object`].
pub type View = fn(&str, &str, serde_json::Value) -> serde_json::Value;

/// Watches `kinds` and tells every change, until nobody listens.
pub async fn watch(client: Client, kinds: &'static [Kind], view: View, tell: mpsc::Sender<Change>) {
    let (known, custom) = watch::channel(None);
    let mut tasks = JoinSet::new();
    tasks.spawn(follow_definitions(client.clone(), known));
    for kind in kinds {
        let (client, custom, tell) = (client.clone(), custom.clone(), tell.clone());
        tasks.spawn(follow(client, (kind, view), custom, tell));
    }
    tell.closed().await;
}

/// Watches a kind in a version that is served, and tells every change, until nobody listens.
pub async fn watch_served(
    client: Client,
    (kind, version): (&'static Kind, &'static str),
    view: View,
    tell: mpsc::Sender<Change>,
) {
    stream(&client, (kind, version, view), &tell).await;
}

/// Names of all CRDs; `None` until they were listed.
type Definitions = Option<BTreeSet<String>>;

async fn follow_definitions(client: Client, known: watch::Sender<Definitions>) {
    let api: Api<PartialObjectMeta<CustomResourceDefinition>> = Api::all(client);
    let events = watcher(api, watcher::Config::default()).default_backoff();
    pin_mut!(events);
    let mut listing = BTreeSet::new();
    while let Some(event) = events.next().await {
        let name = |object: &PartialObjectMeta<CustomResourceDefinition>| object.name_any();
        match event {
            Ok(watcher::Event::Init) => listing = BTreeSet::new(),
            Ok(watcher::Event::InitApply(object)) => drop(listing.insert(name(&object))),
            Ok(watcher::Event::InitDone) => drop(known.send_replace(Some(listing.clone()))),
            Ok(watcher::Event::Apply(object)) => known.send_modify(|known| {
                known.get_or_insert_default().insert(name(&object));
            }),
            Ok(watcher::Event::Delete(object)) => known.send_modify(|known| {
                known.get_or_insert_default().remove(&name(&object));
            }),
            Err(error) => {
                tracing::warn!(
                    why = root_cause(&error),
                    "custom resource definitions cannot be watched; trying again"
                );
            }
        }
    }
}

/// Follows one kind for as long as somebody listens.
async fn follow(
    client: Client,
    (kind, view): (&'static Kind, View),
    mut definitions: watch::Receiver<Definitions>,
    tell: mpsc::Sender<Change>,
) {
    let resource = kind.resource();
    let defined = |known: &Definitions| {
        kind.built_in
            || known
                .as_ref()
                .is_some_and(|known| known.contains(&resource))
    };
    loop {
        if !kind.built_in && definitions.wait_for(Option::is_some).await.is_err() {
            return;
        }
        if !defined(&definitions.borrow_and_update()) {
            if tell.send(Change::Absent { kind }).await.is_err()
                || definitions.wait_for(&defined).await.is_err()
            {
                return;
            }
            continue;
        }
        let version = match served_version(&client, kind).await {
            Ok(Some(version)) => version,
            // A definition whose versions are all unknown to us, or that is not served yet.
            Ok(None) => {
                let why =
                    format!("the API server serves no version of {resource} that is read here");
                if tell.send(Change::Trouble { kind, why }).await.is_err() {
                    return;
                }
                tokio::time::sleep(VERSIONS_RETRY).await;
                continue;
            }
            Err(error) => {
                let why = error.to_string();
                if tell.send(Change::Trouble { kind, why }).await.is_err() {
                    return;
                }
                tokio::time::sleep(VERSIONS_RETRY).await;
                continue;
            }
        };
        tokio::select! {
            () = stream(&client, (kind, version, view), &tell) => return,
            gone = definitions.wait_for(|known| !defined(known)), if !kind.built_in => {
                if gone.is_err() {
                    return;
                }
            }
        }
    }
}

/// The first of the kind's versions that the API server serves; none: it has no such kind.
///
/// # Errors
/// [`KubernetesError`] if the API server does not answer.
pub async fn served_version(
    client: &Client,
    kind: &'static Kind,
) -> Result<Option<&'static str>, KubernetesError> {
    if kind.built_in {
        return Ok(kind.versions.first().copied());
    }
    for version in kind.versions {
        match client
            .list_api_group_resources(&kind.api_version(version))
            .await
        {
            Ok(list) if list.resources.iter().any(|one| one.name == kind.plural) => {
                return Ok(Some(version));
            }
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                return Err(KubernetesError::of(
                    format!("list versions of {}", kind.resource()),
                    &error,
                ));
            }
        }
    }
    Ok(None)
}

/// Tells all that happens to objects of a kind; ends when nobody listens.
async fn stream(
    client: &Client,
    (kind, version, view): (&'static Kind, &'static str, View),
    tell: &mpsc::Sender<Change>,
) {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.api_resource(version));
    // Pages bound the memory of one answer; bookmarks keep a quiet watch young.
    let config = watcher::Config {
        label_selector: kind.labels.map(str::to_owned),
        field_selector: kind.fields.map(str::to_owned),
        ..watcher::Config::default()
    };
    let events = watcher(api, config).default_backoff();
    let events = events.map_err(|error| root_cause(&error));
    let changes = changes((kind, version, view), events);
    pin_mut!(changes);
    while let Some(change) = changes.next().await {
        if tell.send(change).await.is_err() {
            return;
        }
    }
}

/// Events of the library as changes: a list is told whole, once it is.
fn changes(
    (kind, version, view): (&'static Kind, &'static str, View),
    events: impl Stream<Item = Result<watcher::Event<DynamicObject>, String>>,
) -> impl Stream<Item = Change> {
    let mut listing = BTreeMap::new();
    let mut newest = 0;
    events.filter_map(move |event| {
        let change = match event {
            Ok(watcher::Event::Init) => {
                listing = BTreeMap::new();
                newest = 0;
                None
            }
            Ok(watcher::Event::InitApply(object)) => {
                newest = newest.max(revision(&object));
                listing.insert(name_of(kind, &object), json((kind, version, view), object));
                None
            }
            Ok(watcher::Event::InitDone) => Some(Change::Listed {
                kind,
                objects: std::mem::take(&mut listing),
                revision: newest,
            }),
            Ok(watcher::Event::Apply(object)) => Some(Change::Applied {
                name: name_of(kind, &object),
                revision: revision(&object),
                json: json((kind, version, view), object),
            }),
            Ok(watcher::Event::Delete(object)) => Some(Change::Removed {
                name: name_of(kind, &object),
                revision: revision(&object),
            }),
            Err(why) => Some(Change::Trouble { kind, why }),
        };
        std::future::ready(change)
    })
}

fn name_of(kind: &Kind, object: &DynamicObject) -> String {
    name(
        kind.group,
        kind.kind,
        object.metadata.namespace.as_deref(),
        &object.name_any(),
    )
}

/// Resource versions are numbers of one sequence for all kinds of an API server; one that is none counts as oldest.
fn revision(object: &DynamicObject) -> u64 {
    object
        .metadata
        .resource_version
        .as_deref()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn json((kind, version, view): (&Kind, &str, View), object: DynamicObject) -> Vec<u8> {
    // Came from JSON, so it has a JSON form.
    let value = serde_json::to_value(object).unwrap_or_default();
    let kept = view(kind.kind, &kind.api_version(version), value);
    serde_json::to_vec(&kept).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::POLICY_SOURCES;
    use crate::object::essence;
    use kube::api::ApiResource;

    fn servers() -> &'static Kind {
        let mut kinds = POLICY_SOURCES.iter();
        kinds.find(|kind| kind.kind == "Server").unwrap()
    }

    fn server(name: &str, revision: &str) -> DynamicObject {
        let resource: ApiResource = servers().api_resource("v1beta3");
        let mut object = DynamicObject::new(name, &resource).within("shop");
        object.metadata.resource_version = Some(revision.to_owned());
        object
    }

    async fn told(events: Vec<Result<watcher::Event<DynamicObject>, String>>) -> Vec<Change> {
        let events = futures_util::stream::iter(events);
        changes((servers(), "v1beta3", essence), events)
            .collect()
            .await
    }

    #[tokio::test]
    async fn a_list_is_told_once_it_is_whole_and_replaces_a_broken_one() {
        let told = told(vec![
            Ok(watcher::Event::Init),
            Ok(watcher::Event::InitApply(server("half", "90"))),
            Err("connection reset".to_owned()),
            Ok(watcher::Event::Init),
            Ok(watcher::Event::InitApply(server("a", "7"))),
            Ok(watcher::Event::InitApply(server("b", "5"))),
            Ok(watcher::Event::InitDone),
        ])
        .await;
        let [
            Change::Trouble { why, .. },
            Change::Listed {
                objects, revision, ..
            },
        ] = &told[..]
        else {
            panic!("{told:?}");
        };
        assert_eq!(why, "connection reset");
        assert_eq!(*revision, 7);
        let names: Vec<_> = objects.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "Server.policy.linkerd.io/shop/a",
                "Server.policy.linkerd.io/shop/b"
            ]
        );
    }

    #[tokio::test]
    async fn changes_after_the_list_are_told_one_by_one_with_their_revision() {
        let told = told(vec![
            Ok(watcher::Event::Init),
            Ok(watcher::Event::InitDone),
            Ok(watcher::Event::Apply(server("a", "11"))),
            Ok(watcher::Event::Delete(server("a", "12"))),
            Ok(watcher::Event::Apply(server("a", "no number"))),
        ])
        .await;
        let revisions: Vec<_> = told
            .iter()
            .map(|change| match change {
                Change::Listed { revision, .. }
                | Change::Applied { revision, .. }
                | Change::Removed { revision, .. } => *revision,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(revisions, [0, 11, 12, 0]);
        let Change::Applied { json, .. } = &told[1] else {
            panic!()
        };
        let value: serde_json::Value = serde_json::from_slice(json).unwrap();
        assert_eq!(value["apiVersion"], "policy.linkerd.io/v1beta3");
        assert_eq!(value["kind"], "Server");
    }
}
