//! Services as clients find them: their ready pods, with address and identity, and whether bytes go there.

use crate::world::World;

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: front, namespace: shop}
spec: {selector: {tier: front}, ports: [{port: 80, targetPort: web}, {name: raw, port: 81, targetPort: 8081}, {port: 82}, {port: 53, protocol: UDP}]}
---
apiVersion: v1
kind: Pod
metadata: {name: one, namespace: shop, labels: {tier: front}}
spec: {serviceAccountName: front, containers: [{ports: [{containerPort: 8080, name: web}]}]}
status: {podIP: 10.0.0.1, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: two, namespace: shop, labels: {tier: front, special: 'yes'}}
spec: {serviceAccountName: front, containers: [{ports: [{containerPort: 9080, name: web}]}]}
status: {podIP: 10.0.0.2}
";

#[test]
fn services_have_their_ready_pods_with_address_and_identity() {
    let unready = SERVICES.replace(
        "status: {podIP: 10.0.0.2}",
        "status: {podIP: 10.0.0.2, conditions: [{type: Ready, status: 'False'}]}",
    );
    for (text, want) in [
        (SERVICES.to_owned(), vec!["10.0.0.1:8080", "10.0.0.2:9080"]),
        (unready, vec!["10.0.0.1:8080"]),
    ] {
        let services = World::of(&[&text]).index.services();
        assert_eq!(
            services.iter().map(|s| s.port).collect::<Vec<_>>(),
            [80, 81, 82],
            "UDP is none of ours"
        );
        let first = services.first().unwrap();
        let endpoints: Vec<String> = first
            .endpoints
            .iter()
            .map(|e| format!("{}:{}", e.ip, e.port))
            .collect();
        assert_eq!(endpoints, want);
        assert_eq!(
            first.endpoints.first().unwrap().identity.as_str(),
            "spiffe://cluster.local/ns/shop/sa/front"
        );
        assert!(!first.opaque);
    }
    let annotated = SERVICES.replace(
        "{name: front, namespace: shop}",
        "{name: front, namespace: shop, annotations: {config.linkerd.io/opaque-ports: '80,raw'}}",
    );
    let opaque: Vec<bool> = World::of(&[&annotated])
        .index
        .services()
        .iter()
        .map(|s| s.opaque)
        .collect();
    assert_eq!(opaque, [true, true, false]);
}

/// The API server's own Service has no selector, and pods must reach it.
#[test]
fn a_service_without_selector_claims_no_address() {
    let addresses = |spec: &str| -> Vec<String> {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: kubernetes, namespace: default}}\nspec: {{clusterIP: 10.96.0.1, ports: [{{port: 443}}]{spec}}}\n"
        );
        let services = World::of(&[&text]).index.services();
        let all = services.iter().flat_map(|s| &s.addresses);
        all.map(ToString::to_string).collect()
    };
    assert_eq!(addresses(""), [""; 0]);
    assert_eq!(addresses(", selector: {}"), [""; 0]);
    assert_eq!(addresses(", selector: {app: x}"), ["10.96.0.1"]);
}

const LISTED: &str = "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: 10.96.0.9, ports: [{name: sql, port: 5432}, {name: admin, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 5433}, {name: sql, protocol: UDP, port: 9}]
endpoints:
- {addresses: [192.0.2.1], conditions: {ready: true}, nodeName: n1, hints: {forZones: [{name: a}]}}
- {addresses: [192.0.2.2, 192.0.2.9]}
- {addresses: [192.0.2.3], conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.0.0.1], targetRef: {kind: Pod, name: somebody-else, namespace: other}}
";

/// Addresses of the Service's first port, its pods, and who else stands behind it.
fn listed(text: &str) -> (Vec<String>, Vec<String>, Vec<String>) {
    let services = World::of(&[SERVICES, text]).index.services();
    let sql = services.iter().find(|s| s.port == 5432).unwrap();
    let pods = sql.endpoints.iter();
    let texts = |all: &mut dyn Iterator<Item = String>| all.collect();
    (
        texts(&mut sql.addresses.iter().map(ToString::to_string)),
        texts(&mut pods.map(|e| format!("{}:{} {}", e.ip, e.port, e.identity))),
        texts(&mut sql.others.iter().map(ToString::to_string)),
    )
}

#[test]
fn a_service_without_selector_is_where_its_slices_say() {
    let (addresses, pods, others) = listed(LISTED);
    assert_eq!(addresses, ["10.96.0.9"]);
    // Whose address it is counts, not what the slice calls it.
    assert_eq!(
        pods,
        ["10.0.0.1:5433 spiffe://cluster.local/ns/shop/sa/front"]
    );
    assert_eq!(others, ["192.0.2.1:5433", "192.0.2.2:5433"]);
    // A port that no slice has leads nowhere.
    let services = World::of(&[LISTED]).index.services();
    let admin = services.iter().find(|s| s.port == 80).unwrap();
    assert!(admin.endpoints.is_empty() && admin.others.is_empty());
}

#[test]
fn slices_of_others_and_broken_ones_say_nothing() {
    let nothing = (Vec::new(), Vec::new(), Vec::new());
    for (what, with) in [
        ("service-name: db}", "service-name: other}"),
        ("labels: {kubernetes.io/service-name: db}", "labels: {}"),
        (
            "name: db-1, namespace: shop",
            "name: db-1, namespace: other",
        ),
        ("addresses: [192.0.2.1]", "addresses: [not-an-address]"),
        ("ready: true", "ready: perhaps"),
        ("port: 5433", "port: 70000"),
    ] {
        assert_eq!(listed(&LISTED.replacen(what, with, 1)), nothing, "{with}");
    }
    let names = LISTED.replace("addressType: IPv4", "addressType: FQDN");
    assert_eq!(
        listed(&names),
        (vec!["10.96.0.9".to_owned()], vec![], vec![])
    );
}

#[test]
fn a_selector_counts_more_than_slices() {
    let selected = LISTED.replace(
        "ports: [{name: sql, port: 5432}",
        "selector: {tier: front}, ports: [{name: sql, port: 5432}",
    );
    let (_, pods, others) = listed(&selected);
    assert_eq!(
        pods,
        [
            "10.0.0.1:5432 spiffe://cluster.local/ns/shop/sa/front",
            "10.0.0.2:5432 spiffe://cluster.local/ns/shop/sa/front"
        ]
    );
    assert_eq!(others, [""; 0]);
}

#[test]
fn of_two_annotations_for_opaque_ports_ours_counts_and_a_difference_is_reported() {
    let opaque = |annotations: &str| -> (Vec<bool>, usize) {
        let named = format!("{{name: front, namespace: shop, annotations: {{{annotations}}}}}");
        let world = World::of(&[&SERVICES.replace("{name: front, namespace: shop}", &named)]);
        let opaque = world.index.services().iter().map(|s| s.opaque).collect();
        (opaque, world.findings("MESH-0391").len())
    };
    let (ours, linkerds) = (
        "mesh.internal/opaque-ports",
        "config.linkerd.io/opaque-ports",
    );
    assert_eq!(
        opaque(&format!("{ours}: '82', {linkerds}: '80,raw'")),
        (vec![false, false, true], 1)
    );
    assert_eq!(
        opaque(&format!("{ours}: 'raw,80', {linkerds}: '80,raw'")),
        (vec![true, true, false], 0)
    );
    assert_eq!(
        opaque(&format!("{ours}: ''")),
        (vec![false, false, false], 0)
    );
}
