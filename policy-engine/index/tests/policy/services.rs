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
