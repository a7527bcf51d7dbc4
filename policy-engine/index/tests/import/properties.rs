//! What is imported never allows more than Istio did, and exactly as much where the report says that it was kept.

use crate::generate::{WORKLOADS, manifests, mesh, request};
use crate::istio_model::{Mesh, Request};
use crate::ours::{ALL, NOW, decide, import, index, text};
use mesh_policy_index::import::{Imported, Status};
use mesh_policy_index::replay::Replay;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::Cell;

/// Whether the report promises equality for a workload. Facts about workloads that no policy selects, and about policies
/// that select none, say nothing of the others.
fn promises(imported: &Imported, place: usize) -> bool {
    let name = format!(
        "Deployment {}/{}",
        WORKLOADS[place].namespace, WORKLOADS[place].name
    );
    imported.report.facts.iter().all(|fact| {
        let of_others = matches!(fact.code, Some("MESH-0343" | "MESH-0344"))
            || (fact.code == Some("MESH-0346") && fact.object != name);
        fact.status == Status::Kept || of_others
    })
}

/// What docs/reference/import.md leaves out of the promise: clients of other trust domains and with unusual identities, for
/// Istio's namespaces and service accounts are those of every URI; headers that are sent more than once; and paths with
/// characters that templates do not take.
fn is_promised(request: &Request) -> bool {
    let ours = request
        .principal
        .as_ref()
        .is_none_or(|p| p.starts_with("cluster.local/ns/"));
    let mut headers = request.http.iter().flat_map(|h| h.headers.values());
    let plain = |path: &str| !path.contains(['<', '>']);
    ours && headers.all(|values| values.len() == 1) && request.http.iter().all(|h| plain(&h.path))
}

/// How much was compared.
#[derive(Default)]
struct Counts {
    requests: Cell<usize>,
    promised: Cell<usize>,
    allowed: Cell<usize>,
}

fn count(cell: &Cell<usize>, holds: bool) {
    cell.set(cell.get() + usize::from(holds));
}

/// Compares the answers of both meshes. What is said of `known` workloads is imported for all of them.
fn compare(
    mesh: &Mesh,
    requests: &[(usize, Request)],
    known: &[usize],
    counts: &Counts,
) -> Result<(), TestCaseError> {
    let input = manifests(mesh);
    let imported = import(&input, known);
    let index = index(&imported);
    let mut replay = Replay::new(&index, NOW);
    for (place, request) in requests {
        let theirs = mesh.allows(&WORKLOADS[*place], request);
        let (ours, decision) = decide(&mut replay, *place, request);
        let promised =
            known.len() == WORKLOADS.len() && promises(&imported, *place) && is_promised(request);
        count(&counts.requests, true);
        count(&counts.promised, promised);
        count(&counts.allowed, ours);
        let shown = || {
            let facts: Vec<String> = imported
                .report
                .facts
                .iter()
                .map(|f| format!("{} {:?} {}", f.status, f.part, f.message))
                .collect();
            format!(
                "{}\n{request:#?}\n{decision:#?}\n{input}\n=>\n{}\n{}",
                WORKLOADS[*place].name,
                text(&imported),
                facts.join("\n")
            )
        };
        prop_assert!(
            theirs || !ours,
            "allowed here, denied by Istio: {}",
            shown()
        );
        prop_assert!(
            ours || !theirs || !promised,
            "denied here though reported as kept: {}",
            shown()
        );
    }
    Ok(())
}

/// Requests; the one that matters is in the message of a failure.
struct Requests(Vec<(usize, Request)>);

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} requests", self.0.len())
    }
}

fn requests() -> impl Strategy<Value = Requests> {
    prop::collection::vec(request(), 48).prop_map(Requests)
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig {
        cases,
        max_shrink_iters: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })
}

#[test]
fn an_import_never_allows_more_than_istio_did_and_as_much_where_it_says_so() {
    let counts = Counts::default();
    let outcome = runner(768).run(&(mesh(), requests()), |(mesh, requests)| {
        compare(&mesh, &requests.0, ALL, &counts)
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    // An importer that writes nothing, and promises nothing, would pass.
    let (requests, promised, allowed) = (
        counts.requests.get(),
        counts.promised.get(),
        counts.allowed.get(),
    );
    assert!(requests > 5_000, "{requests} requests");
    // About a quarter is; of 768 meshes, each promised as a whole, a fifth is within chance.
    assert!(promised * 8 > requests, "{promised} of {requests} promised");
    assert!(allowed * 10 > requests, "{allowed} of {requests} allowed");
}

/// What a port speaks is not known without its Service: only requests, on ports that take them, are compared.
#[test]
fn an_import_that_knows_some_workloads_allows_no_more_to_the_others() {
    let counts = Counts::default();
    let known = prop::sample::subsequence(ALL, 0..ALL.len());
    let outcome = runner(256).run(&(mesh(), requests(), known), |(mesh, requests, known)| {
        let requests: Vec<_> = requests
            .0
            .into_iter()
            .filter(|(_, r)| r.http.is_some() && r.port != 9090)
            .collect();
        compare(&mesh, &requests, &known, &counts)
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let (requests, allowed) = (counts.requests.get(), counts.allowed.get());
    assert!(allowed * 20 > requests, "{allowed} of {requests} allowed");
}

#[test]
fn an_import_is_the_same_each_time_and_as_long_whatever_the_order_of_policies() {
    let outcome = runner(64).run(&mesh(), |mesh| {
        let mut reversed = mesh.clone();
        reversed.policies.reverse();
        reversed.peers.reverse();
        let written = |mesh: &Mesh| text(&import(&manifests(mesh), ALL));
        // Lines are other ones, and what is called after one rule may be called after another.
        let lines = |text: String| text.lines().filter(|l| !l.starts_with("# from ")).count();
        prop_assert_eq!(written(&mesh), written(&mesh));
        prop_assert_eq!(lines(written(&mesh)), lines(written(&reversed)));
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
