//! Laws that hold between the answers of two meshes, one of which is the other with a change.

use crate::asks;
use crate::equality::MESH_BYTES;
use crate::mesh::{Make, Mesh, NAMESPACES, NOW, Names};
use crate::objects;
use crate::random::Random;
use mesh_policy::decide::Verdict;
use mesh_policy::fuzzing::choices::Choices;
use mesh_policy::record::DecisionRecord;
use mesh_policy::request::RequestRecord;
use mesh_policy_index::replay::Replay;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A change, and what it may do to answers.
type Law = fn(&Mesh, u64, &mut Choices<'_>) -> Option<Change>;

/// One mesh beside another.
struct Change {
    mesh: Mesh,
    names: Names,
    /// Whether an answer may have become another.
    may: fn(&DecisionRecord, &DecisionRecord) -> bool,
}

/// All laws by name.
const LAWS: [(&str, Law); 8] = [
    ("renaming namespaces changes nothing", renamed),
    ("the order of objects is irrelevant", reordered),
    ("which file an object is in is irrelevant", as_it_is),
    ("adding a permit never takes access away", with_permit),
    ("adding a forbid never gives access", with_forbid),
    (
        "breaking a grant or an authentication never gives access",
        with_broken_grant,
    ),
    (
        "taking a grant or an authentication away never gives access",
        without_grant,
    ),
    (
        "adding a grant that ended changes no verdict",
        with_ended_grant,
    ),
];

/// What was tried.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Pairs of answers that were compared, by law.
    pub compared: BTreeMap<&'static str, u64>,
    /// Answers that a change really changed.
    pub changed: u64,
}

/// Tries every law on the mesh of a seed.
///
/// # Errors
/// The law, the request and both answers, if one is broken.
pub fn try_seed(seed: u64, asks: u64, tally: &mut Tally) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mesh = mesh_of(seed, &mut random, Names::default());
    let asked: Vec<Vec<u8>> = (0..asks).map(|_| random.bytes(24)).collect();
    for (name, law) in LAWS {
        let dice = random.bytes(64);
        let Some(change) = law(&mesh, seed, &mut Choices::of(&dice)) else {
            continue;
        };
        let compared = tally.compared.entry(name).or_default();
        compare(&mesh, &change, &asked, compared, &mut tally.changed)
            .map_err(|why| format!("seed {seed}: {name}: {why}"))?;
    }
    Ok(())
}

/// The mesh of a seed; every second one has policies in Cedar.
fn mesh_of(seed: u64, random: &mut Random, names: Names) -> Mesh {
    let make = if seed.is_multiple_of(2) {
        Make::WithCedar
    } else {
        Make::WithoutCedar
    };
    Mesh::of(&random.bytes(MESH_BYTES), names, make, 0)
}

fn compare(
    mesh: &Mesh,
    change: &Change,
    asked: &[Vec<u8>],
    compared: &mut u64,
    changed: &mut u64,
) -> Result<(), String> {
    let one = mesh.index(1).map_err(|error| error.to_string())?;
    // Several files: what stands where must not matter.
    let other = change.mesh.index(3).map_err(|error| error.to_string())?;
    let (mut one, mut other) = (Replay::new(&one, NOW), Replay::new(&other, NOW));
    for bytes in asked {
        let ask = |names| asks::ask(&mut Choices::of(bytes), names);
        let before = one.decide(&ask(Names::default()));
        let after = original_names(change, other.decide(&ask(change.names)));
        *compared += 1;
        if before != after {
            *changed += 1;
        }
        if !(change.may)(&before, &after) {
            return Err(said(change, &ask(change.names), &before, &after));
        }
    }
    Ok(())
}

/// A record as it would read had the namespaces kept their names.
fn original_names(change: &Change, record: DecisionRecord) -> DecisionRecord {
    if change.names.prefix.is_empty() {
        return record;
    }
    let text = serde_json::to_string(&record).unwrap_or_default();
    let text = text.replace(change.names.prefix, "");
    serde_json::from_str(&text).unwrap_or(record)
}

fn said(
    change: &Change,
    ask: &RequestRecord,
    before: &DecisionRecord,
    after: &DecisionRecord,
) -> String {
    format!(
        "{}\nbefore {before:?}\nafter  {after:?}\nmanifests after:\n{}",
        serde_json::to_string(ask).unwrap_or_default(),
        change.mesh.text()
    )
}

fn nothing(before: &DecisionRecord, after: &DecisionRecord) -> bool {
    before == after
}

fn gain(before: &DecisionRecord, after: &DecisionRecord) -> bool {
    before.verdict == Verdict::Deny || after.verdict == Verdict::Allow
}

fn loss(before: &DecisionRecord, after: &DecisionRecord) -> bool {
    gain(after, before)
}

fn no_verdict(before: &DecisionRecord, after: &DecisionRecord) -> bool {
    (before.verdict, before.phase, &before.reasons) == (after.verdict, after.phase, &after.reasons)
}

fn changed(mesh: Mesh, may: fn(&DecisionRecord, &DecisionRecord) -> bool) -> Option<Change> {
    Some(Change {
        mesh,
        names: Names::default(),
        may,
    })
}

fn renamed(_: &Mesh, seed: u64, _: &mut Choices<'_>) -> Option<Change> {
    // Made again of the same bytes: what mentions a namespace anywhere mentions the new name.
    let names = Names { prefix: "zq-" };
    Some(Change {
        mesh: mesh_of(seed, &mut Random::new(seed), names),
        names,
        may: nothing,
    })
}

fn reordered(mesh: &Mesh, _: u64, choices: &mut Choices<'_>) -> Option<Change> {
    let mut mesh = mesh.clone();
    let count = mesh.objects.len();
    for place in 1..count {
        mesh.objects.swap(place, choices.below(place + 1));
    }
    changed(mesh, nothing)
}

fn as_it_is(mesh: &Mesh, _: u64, _: &mut Choices<'_>) -> Option<Change> {
    changed(mesh.clone(), nothing)
}

/// An AuthorizationPolicy on a Server, or on a namespace, for everyone.
fn permit(choices: &mut Choices<'_>, annotations: &Value) -> Value {
    let namespace = NAMESPACES.get(choices.below(NAMESPACES.len()));
    let target = match choices.below(2) {
        0 => json!({ "kind": "Namespace", "name": namespace }),
        _ => {
            json!({ "group": "policy.linkerd.io", "kind": "Server", "name": choices.pick(&objects::SERVERS) })
        }
    };
    json!({
        "apiVersion": "policy.linkerd.io/v1alpha1",
        "kind": "AuthorizationPolicy",
        "metadata": { "name": "added", "namespace": namespace, "annotations": annotations },
        "spec": { "targetRef": target, "requiredAuthenticationRefs": [] },
    })
}

fn with_permit(mesh: &Mesh, _: u64, choices: &mut Choices<'_>) -> Option<Change> {
    let mut mesh = mesh.clone();
    mesh.objects.push(permit(choices, &json!({})));
    changed(mesh, gain)
}

fn with_ended_grant(mesh: &Mesh, _: u64, choices: &mut Choices<'_>) -> Option<Change> {
    let mut mesh = mesh.clone();
    let ended = json!({ "mesh.internal/expires": "2025-12-31T23:59:59Z" });
    mesh.objects.push(permit(choices, &ended));
    changed(mesh, no_verdict)
}

fn with_forbid(mesh: &Mesh, _: u64, choices: &mut Choices<'_>) -> Option<Change> {
    let mut mesh = mesh.clone();
    let (namespace, but_reading) = (choices.below(2), choices.below(2) == 0);
    let forbid = objects::forbid(namespace, Names::default(), but_reading);
    mesh.objects.push(forbid);
    changed(mesh, loss)
}

/// The place of a grant or an authentication.
fn some_grant(mesh: &Mesh, choices: &mut Choices<'_>) -> Option<usize> {
    const KINDS: [&str; 4] = [
        "AuthorizationPolicy",
        "ServerAuthorization",
        "MeshTLSAuthentication",
        "NetworkAuthentication",
    ];
    let is_one = |object: &Value| KINDS.contains(&object["kind"].as_str().unwrap_or_default());
    let all = mesh.objects.iter().enumerate();
    let places: Vec<usize> = all
        .filter(|(_, object)| is_one(object))
        .map(|(place, _)| place)
        .collect();
    choices.pick(&places)
}

fn with_broken_grant(mesh: &Mesh, _: u64, choices: &mut Choices<'_>) -> Option<Change> {
    let mut mesh = mesh.clone();
    let place = some_grant(&mesh, choices)?;
    objects::break_it(mesh.objects.get_mut(place)?, choices);
    changed(mesh, loss)
}

fn without_grant(mesh: &Mesh, _: u64, choices: &mut Choices<'_>) -> Option<Change> {
    let mut mesh = mesh.clone();
    let place = some_grant(&mesh, choices)?;
    mesh.objects.remove(place);
    changed(mesh, loss)
}
