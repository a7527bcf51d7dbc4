//! Zones: which Services ask that requests stay in theirs, and for which zones each endpoint is.

use crate::world::World;
use mesh_policy_index::index::WorkloadKey;

const NODES: &str = "
{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {topology.kubernetes.io/zone: a}}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2, labels: {topology.kubernetes.io/zone: b}}, spec: {taints: [{key: x}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: bare}}
";

fn pod(name: &str, node: &str, ip: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, labels: {{app: cart}}}}, spec: {{nodeName: {node}, containers: []}}, status: {{podIP: {ip}}}}}"
    )
}

fn service(annotations: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: cart, namespace: shop, annotations: {{{annotations}}}}}, spec: {{ports: [{{port: 80}}]{spec}}}}}"
    )
}

fn world(nodes: &str, annotations: &str, spec: &str, more: &str) -> World {
    let pods = [
        pod("one", "n1", "10.0.0.1"),
        pod("two", "n2", "10.0.0.2"),
        pod("three", "n1", "10.0.0.3"),
    ];
    World::of(&[
        nodes,
        &pods.join("\n---\n"),
        &service(annotations, spec),
        more,
    ])
}

/// For which zones each endpoint is.
fn zones(world: &World) -> Vec<(String, Vec<String>)> {
    let services = world.index.services();
    let endpoints = services.iter().flat_map(|service| &service.endpoints);
    let zones = endpoints.map(|one| (one.workload.name.clone(), one.zones.clone()));
    let mut zones: Vec<_> = zones.collect();
    zones.sort();
    zones
}

fn of(all: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    let own = |zones: &[&str]| zones.iter().map(|zone| (*zone).to_owned()).collect();
    all.iter()
        .map(|(name, zones)| ((*name).to_owned(), own(zones)))
        .collect()
}

const SELECTS: &str = ", selector: {app: cart}";

#[test]
fn a_service_that_asks_for_it_has_the_zones_of_its_pods() {
    let want = of(&[("one", &["a"]), ("three", &["a"]), ("two", &["b"])]);
    let asked = |value: &str| format!("{SELECTS}, trafficDistribution: {value}");
    for value in ["PreferClose", "PreferSameZone", "PreferSameNode"] {
        assert_eq!(zones(&world(NODES, "", &asked(value), "")), want, "{value}");
    }
    let mode = "service.kubernetes.io/topology-mode";
    for value in ["Auto", "auto"] {
        let annotation = format!("{mode}: {value}");
        assert_eq!(zones(&world(NODES, &annotation, SELECTS, "")), want);
    }
    let nobody = of(&[("one", &[]), ("three", &[]), ("two", &[])]);
    assert_eq!(zones(&world(NODES, "", SELECTS, "")), nobody, "nobody asks");
    let disabled = format!("{mode}: Disabled");
    assert_eq!(zones(&world(NODES, &disabled, SELECTS, "")), nobody);
    let close = asked("PreferClose");
    assert_eq!(zones(&world("", "", &close, "")), nobody, "unknown nodes");
    assert_eq!(
        zones(&world(
            &NODES.replace("zone: a", "zone: ''"),
            "",
            &close,
            ""
        )),
        of(&[("one", &[]), ("three", &[]), ("two", &["b"])]),
        "a node that says nothing"
    );
}

#[test]
fn what_is_not_known_asks_for_nothing_and_is_reported() {
    let nobody = of(&[("one", &[]), ("three", &[]), ("two", &[])]);
    for (annotations, spec) in [
        ("", "trafficDistribution: PreferFar"),
        ("", "trafficDistribution: ''"),
        (
            "service.kubernetes.io/topology-mode: Always",
            "type: ClusterIP",
        ),
    ] {
        let world = world(NODES, annotations, &format!("{SELECTS}, {spec}"), "");
        assert_eq!(zones(&world), nobody, "{annotations} {spec}");
        let found = world.findings("MESH-0779");
        assert_eq!(found.len(), 1, "{annotations} {spec}");
    }
    let fine = format!("{SELECTS}, trafficDistribution: PreferClose");
    let world = world(NODES, "", &fine, "");
    assert!(world.findings("MESH-0779").is_empty());
}

#[test]
fn a_service_without_selector_is_for_whom_its_slices_say() {
    let slice = |endpoints: &str| {
        format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: cart-1, namespace: shop, labels: {{kubernetes.io/service-name: cart}}}}, addressType: IPv4, ports: [{{port: 80}}], endpoints: [{endpoints}]}}"
        )
    };
    let long = "z".repeat(64);
    let hints = slice(&format!(
        "{{addresses: [10.0.0.1], zone: b, hints: {{forZones: [{{name: a}}, {{name: c}}]}}}},
         {{addresses: [10.0.0.2], zone: b}},
         {{addresses: [10.0.0.3], hints: {{forZones: [{{name: {long}}}, {{name: ''}}]}}}}"
    ));
    assert_eq!(
        zones(&world(NODES, "", "", &hints)),
        of(&[("one", &["a", "c"]), ("three", &[]), ("two", &[])])
    );
    let asks = ", trafficDistribution: PreferClose";
    assert_eq!(
        zones(&world(NODES, "", asks, &hints)),
        of(&[("one", &["a", "c"]), ("three", &[]), ("two", &["b"])]),
        "the zone of the endpoint, where it has no hints"
    );
    // With a selector the pods say where they are; slices are not asked.
    let both = format!("{SELECTS}{asks}");
    assert_eq!(
        zones(&world(NODES, "", &both, &hints)),
        of(&[("one", &["a"]), ("three", &["a"]), ("two", &["b"])])
    );
    let broken = slice("{addresses: [10.0.0.1], hints: {forZones: [a]}}");
    assert_eq!(zones(&world(NODES, "", "", &broken)), of(&[]), "invalid");
}

#[test]
fn a_workload_is_in_the_zone_of_its_node() {
    let bare = pod("four", "bare", "10.0.0.4");
    let world = world(NODES, "", SELECTS, &bare);
    for (name, want) in [
        ("one", Some("a")),
        ("two", Some("b")),
        ("four", None),
        ("nobody", None),
    ] {
        let key = WorkloadKey {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        };
        assert_eq!(world.index.zone(&key), want, "{name}");
    }
}

#[test]
fn nodes_close_nothing_whatever_they_say() {
    let odd = "{apiVersion: v1, kind: Node, metadata: {name: 'No Name', labels: {topology.kubernetes.io/zone: a}}, spec: 1}";
    let before = world(NODES, "", SELECTS, "");
    let after = world(NODES, "", SELECTS, odd);
    let errors = |world: &World| {
        let all = world.index.findings().iter();
        all.filter(|one| one.code == "MESH-0384").count()
    };
    assert_eq!(errors(&after), errors(&before));
    assert_eq!(zones(&after), zones(&before));
}
