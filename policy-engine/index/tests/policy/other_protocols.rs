//! Ports of UDP and SCTP: no policy is for them, and that is said.

use crate::world::{SHOP, World};

/// A pod with ports of all protocols.
const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: media, namespace: shop, labels: {app: media}}
spec: {containers: [{name: app, ports: [{containerPort: 5004, name: rtp, protocol: UDP}, {containerPort: 8443, name: https}, {containerPort: 8443, name: quic, protocol: UDP}, {containerPort: 132, name: bulk, protocol: SCTP}]}]}
";

fn server(port: &str, app: &str) -> String {
    format!(
        "apiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {{name: media, namespace: shop}}\nspec: {{podSelector: {{matchLabels: {{app: {app}}}}}, port: {port}, proxyProtocol: unknown}}\n"
    )
}

#[test]
fn a_server_at_a_port_that_is_not_of_tcp_is_reported() {
    for (port, app, want) in [
        (
            "5004",
            "media",
            Some("5004 of shop/media, which is declared as UDP"),
        ),
        ("rtp", "media", Some("declared as UDP")),
        ("bulk", "media", Some("declared as SCTP")),
        // HTTP over both: what policy says of it holds for the half of it.
        ("8443", "media", Some("declared as UDP")),
        ("https", "media", None),
        ("5005", "media", None),
        ("5004", "cart", None),
    ] {
        let world = World::of(&[SHOP, POD, &server(port, app)]);
        let found = world.findings("MESH-0414");
        assert_eq!(
            found.len(),
            usize::from(want.is_some()),
            "{port}: {found:?}"
        );
        if let Some(want) = want {
            assert!(found[0].message.contains(want), "{found:?}");
            assert_eq!(found[0].object.as_ref().unwrap().kind, "Server");
        }
    }
}

#[test]
fn a_service_port_that_is_not_of_tcp_is_reported_but_for_names() {
    let service = |ports: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: media, namespace: shop}}\nspec: {{selector: {{app: media}}, ports: [{ports}]}}\n"
        )
    };
    for (ports, want) in [
        ("{port: 5004, protocol: UDP, name: rtp}", 1),
        (
            "{port: 132, protocol: SCTP}, {port: 5004, protocol: UDP}",
            2,
        ),
        ("{port: 443}, {port: 443, protocol: UDP, name: h3}", 1),
        ("{port: 53, protocol: UDP}", 0),
        ("{port: 53, protocol: SCTP}", 1),
        ("{port: 443, protocol: TCP}", 0),
    ] {
        let world = World::of(&[SHOP, POD, &service(ports)]);
        let found = world.findings("MESH-0414");
        assert_eq!(found.len(), want, "{ports}: {found:?}");
        assert!(world.errors().is_empty(), "it is a warning: {found:?}");
    }
}
