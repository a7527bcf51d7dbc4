//! Workloads field by field: selectors, ports, probes, annotations.

use crate::linkerd_model::Says::{Allow, Forbidden};
use crate::side_by_side::{Scene, refusals};
use crate::why::SAME;
use crate::world::{Ask, DENIED, SERVER, World, annotated_namespace, annotated_pod};
use mesh_policy::snapshot::{ProbeKind, ServerProtocol};
use mesh_policy_index::Mode;

/// A pod with these labels, and the Server whose selector is asked about; open where the Server does not select.
fn selected(labels: &str, selector: &str) -> (Scene, bool) {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: cart, namespace: shop, labels: {labels}}}\nspec: {{containers: [{{ports: [{{containerPort: 8080, name: http}}]}}]}}\n"
    );
    let server = SERVER.replace("{matchLabels: {app: cart}}", selector);
    let scene = Scene::default_policy(Mode::AllUnauthenticated, &[&pod, &server]);
    let chosen = scene.world.answer(&Ask::plain()) == DENIED;
    (scene, chosen)
}

#[test]
fn selectors_have_labels_and_four_operators() {
    let labels = "{app: cart, tier: back, empty: ''}";
    for (selector, chosen) in [
        ("{}", true),
        ("{matchLabels: {}}", true),
        ("{matchExpressions: []}", true),
        ("{matchLabels: {app: cart}}", true),
        ("{matchLabels: {app: cart, tier: back}}", true),
        ("{matchLabels: {app: cart, tier: front}}", false),
        ("{matchLabels: {app: Cart}}", false),
        ("{matchLabels: {absent: ''}}", false),
        ("{matchLabels: {empty: ''}}", true),
        (
            "{matchExpressions: [{key: app, operator: In, values: [cart, basket]}]}",
            true,
        ),
        (
            "{matchExpressions: [{key: app, operator: In, values: [basket]}]}",
            false,
        ),
        (
            "{matchExpressions: [{key: absent, operator: In, values: ['']}]}",
            false,
        ),
        (
            "{matchExpressions: [{key: app, operator: NotIn, values: [basket]}]}",
            true,
        ),
        (
            "{matchExpressions: [{key: app, operator: NotIn, values: [cart]}]}",
            false,
        ),
        (
            "{matchExpressions: [{key: absent, operator: NotIn, values: [cart]}]}",
            true,
        ),
        ("{matchExpressions: [{key: empty, operator: Exists}]}", true),
        (
            "{matchExpressions: [{key: absent, operator: Exists}]}",
            false,
        ),
        (
            "{matchExpressions: [{key: absent, operator: DoesNotExist}]}",
            true,
        ),
        (
            "{matchExpressions: [{key: app, operator: DoesNotExist}]}",
            false,
        ),
        (
            "{matchLabels: {app: cart}, matchExpressions: [{key: tier, operator: Exists}]}",
            true,
        ),
        (
            "{matchLabels: {app: cart}, matchExpressions: [{key: tier, operator: DoesNotExist}]}",
            false,
        ),
        (
            "{matchExpressions: [{key: app, operator: Exists}, {key: tier, operator: In, values: [front]}]}",
            false,
        ),
    ] {
        let (scene, got) = selected(labels, selector);
        assert_eq!(got, chosen, "{selector}");
        let (says, ours) = if chosen {
            (Forbidden, DENIED)
        } else {
            (Allow, "allow")
        };
        scene.answers(&[(Ask::plain(), says, ours, SAME)]);
    }
}

#[test]
fn half_a_selector_is_none_and_closes_the_namespace() {
    for selector in [
        "{matchExpressions: [{key: app, operator: Is}]}",
        "{matchExpressions: [{key: app, operator: in, values: [cart]}]}",
        "{matchExpressions: [{key: app, operator: In}]}",
        "{matchExpressions: [{key: app, operator: In, values: []}]}",
        "{matchExpressions: [{key: app, operator: NotIn}]}",
        "{matchExpressions: [{key: app, operator: Exists, values: [a]}]}",
        "{matchExpressions: [{key: app, operator: DoesNotExist, values: [a]}]}",
        "{matchExpressions: [{operator: Exists}]}",
        "{matchExpressions: [{key: app}]}",
        "{matchExpressions: [{key: app, operator: In, values: [1]}]}",
        "{matchExpressions: [{key: app, operator: In, values: cart}]}",
        "{matchExpressions: {key: app, operator: Exists}}",
        "{matchLabels: {app: true}}",
        "{matchLabels: [app]}",
        "{matchlabels: {app: cart}}",
        "{matchLabels: {app: cart}, novelty: 1}",
        "",
        "app=cart",
    ] {
        let server = SERVER.replace("{matchLabels: {app: cart}}", selector);
        assert!(!refusals(&server).is_empty(), "{selector}");
        let world = World::default_policy(Mode::AllUnauthenticated, &[crate::world::SHOP, &server]);
        assert_eq!(
            world.answer(&Ask::plain().pod("web")),
            DENIED,
            "{selector}: it might have selected any pod"
        );
    }
}

/// Ports of the pod `cart` that a Server on `port` claims.
fn claimed(containers: &str, port: &str) -> Vec<u16> {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: cart, namespace: shop, labels: {{app: cart}}}}\nspec: {{{containers}}}\n"
    );
    let server = SERVER.replace("port: http", &format!("port: {port}"));
    let snapshot = World::of(&[&pod, &server]).snapshot("shop", "cart");
    let named = snapshot.ports.iter().filter(|(_, p)| !p.server.default);
    named.map(|(port, _)| *port).collect()
}

#[test]
fn ports_go_by_number_and_by_name() {
    let one = "containers: [{ports: [{containerPort: 8080, name: http}, {containerPort: 9090}]}]";
    for (containers, port, want) in [
        (one, "8080", vec![8080]),
        (one, "9090", vec![9090]),
        // A number counts whether or not a container declares it.
        (one, "7070", vec![7070]),
        (one, "http", vec![8080]),
        (one, "admin", vec![]),
        // One name may stand for several ports, of one container or more.
        (
            "containers: [{ports: [{containerPort: 1, name: http}, {containerPort: 2, name: http}]}, {ports: [{containerPort: 3, name: http}]}]",
            "http",
            vec![1, 2, 3],
        ),
        // Init containers, and sidecars among them, have ports too.
        (
            "containers: [{ports: [{containerPort: 1, name: http}]}], initContainers: [{restartPolicy: Always, ports: [{containerPort: 4, name: http}]}]",
            "http",
            vec![1, 4],
        ),
        (
            "initContainers: [{ports: [{containerPort: 5, name: http}]}]",
            "http",
            vec![5],
        ),
        // Names are those of TCP ports.
        (
            "containers: [{ports: [{containerPort: 1, name: http, protocol: UDP}, {containerPort: 2, name: http, protocol: TCP}, {containerPort: 3, name: http, protocol: SCTP}]}]",
            "http",
            vec![2],
        ),
        // Ephemeral containers declare none.
        (
            "ephemeralContainers: [{ports: [{containerPort: 6, name: http}]}]",
            "http",
            vec![],
        ),
    ] {
        assert_eq!(claimed(containers, port), want, "{containers} {port}");
    }
}

#[test]
fn a_server_by_name_decides_as_linkerds_does() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: cart, namespace: shop, labels: {app: cart}}\nspec:\n  containers: [{ports: [{containerPort: 1, name: http}, {containerPort: 2}]}]\n  initContainers: [{restartPolicy: Always, ports: [{containerPort: 4, name: http}]}]\n";
    Scene::default_policy(Mode::AllUnauthenticated, &[pod, SERVER]).answers(&[
        (Ask::plain().port(1), Forbidden, DENIED, SAME),
        (Ask::plain().port(4), Forbidden, DENIED, SAME),
        (Ask::plain().port(2), Allow, "allow", SAME),
    ]);
}

#[test]
fn ports_that_are_none_are_refused() {
    for port in [
        "0",
        "65536",
        "-1",
        "80.5",
        "'80'",
        "Http",
        "a--b",
        "-a",
        "a_b",
        "sixteen-letters-x",
        "''",
        "true",
        "[80]",
        "{a: 1}",
        "",
    ] {
        let server = SERVER.replace("port: http", &format!("port: {port}"));
        assert!(!refusals(&server).is_empty(), "`{port}`");
    }
}

/// Kinds of the probes of a container, by port.
fn probes(containers: &str) -> Vec<(u16, ProbeKind)> {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: cart, namespace: shop}}\nspec: {{{containers}}}\n"
    );
    let snapshot = World::of(&[&pod]).snapshot("shop", "cart");
    let of = |(port, p): (&u16, &mesh_policy::snapshot::PortPolicy)| {
        let port = *port;
        p.probes
            .iter()
            .map(move |p| (port, p.kind.clone()))
            .collect::<Vec<_>>()
    };
    snapshot.ports.iter().flat_map(of).collect()
}

#[test]
fn probes_are_liveness_readiness_and_startup_of_every_container() {
    let http = |path: &str| ProbeKind::Http(path.to_owned());
    for (containers, want) in [
        (
            "containers: [{livenessProbe: {httpGet: {path: /l, port: 1}}, readinessProbe: {httpGet: {path: /r, port: 1}}, startupProbe: {httpGet: {path: /s, port: 2}}}]",
            vec![(1, http("/l")), (1, http("/r")), (2, http("/s"))],
        ),
        // By name: a port of the probe's own container, TCP.
        (
            "containers: [{ports: [{containerPort: 3, name: http}], livenessProbe: {httpGet: {port: http}}}]",
            vec![(3, http("/"))],
        ),
        (
            "containers: [{livenessProbe: {httpGet: {port: http}}}, {ports: [{containerPort: 3, name: http}]}]",
            vec![],
        ),
        (
            "containers: [{ports: [{containerPort: 3, name: http, protocol: UDP}], livenessProbe: {httpGet: {port: http}}}]",
            vec![],
        ),
        // A native sidecar is an init container that stays.
        (
            "initContainers: [{restartPolicy: Always, startupProbe: {httpGet: {path: /up, port: 4}}}]",
            vec![(4, http("/up"))],
        ),
        // Query and fragment are no part of the path; kubelets add a missing slash.
        (
            "containers: [{livenessProbe: {httpGet: {path: '/l?a=b#c', port: 1}}}]",
            vec![(1, http("/l"))],
        ),
        (
            "containers: [{livenessProbe: {httpGet: {path: live, port: 1}}}]",
            vec![(1, http("/live"))],
        ),
        (
            "containers: [{livenessProbe: {httpGet: {path: /l, port: 1, scheme: HTTP}}}]",
            vec![(1, http("/l"))],
        ),
        (
            "containers: [{livenessProbe: {httpGet: {path: /l, port: 1, scheme: HTTPS}}}]",
            vec![],
        ),
        (
            "containers: [{livenessProbe: {grpc: {port: 5}}, readinessProbe: {grpc: {port: 6, service: a.B}}}]",
            vec![(5, ProbeKind::Grpc), (6, ProbeKind::Grpc)],
        ),
        (
            "containers: [{livenessProbe: {tcpSocket: {port: 7}}}]",
            vec![(7, ProbeKind::Tcp)],
        ),
        (
            "containers: [{livenessProbe: {exec: {command: [true]}}}]",
            vec![],
        ),
        // Hooks are called by the kubelet too, but they are no probes.
        (
            "containers: [{lifecycle: {postStart: {httpGet: {path: /start, port: 8}}, preStop: {httpGet: {path: /stop, port: 8}}}}]",
            vec![],
        ),
        (
            "ephemeralContainers: [{livenessProbe: {httpGet: {path: /e, port: 9}}}]",
            vec![],
        ),
        // The same probe twice is one.
        (
            "containers: [{livenessProbe: {httpGet: {path: /l, port: 1}}, readinessProbe: {httpGet: {path: /l, port: 1}}}]",
            vec![(1, http("/l"))],
        ),
    ] {
        assert_eq!(probes(containers), want, "{containers}");
    }
}

#[test]
fn a_probe_that_cannot_be_read_makes_its_pod_invalid() {
    for probe in [
        "{httpGet: {path: /l}}",
        "{httpGet: {path: /l, port: 0}}",
        "{httpGet: {path: 1, port: 1}}",
        "{httpGet: [a]}",
        "{tcpSocket: {}}",
        "{grpc: {port: {}}}",
        "[a]",
    ] {
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: cart, namespace: shop}}\nspec: {{containers: [{{livenessProbe: {probe}}}]}}\n"
        );
        let world = World::default_policy(Mode::AllUnauthenticated, &[&pod]);
        assert_eq!(world.answer(&Ask::plain()), "server 403", "{probe}");
    }
}

#[test]
fn opaque_ports_have_ranges_and_names_and_ours_count_before_linkerds() {
    let protocol = |manifests: &str, port: u16| {
        let snapshot = World::of(&[manifests]).snapshot("shop", "cart");
        snapshot
            .ports
            .get(&port)
            .map_or(snapshot.other_ports.server.protocol, |p| p.server.protocol)
    };
    let (ours, linkerds) = (
        "mesh.internal/opaque-ports",
        "config.linkerd.io/opaque-ports",
    );
    for (annotations, opaque) in [
        (format!("{linkerds}: '8080'"), vec![8080]),
        (
            format!("{linkerds}: '4000-4002,admin'"),
            vec![4000, 4001, 4002, 9090],
        ),
        (format!("{ours}: '8080', {linkerds}: '9090'"), vec![8080]),
        (format!("{ours}: '', {linkerds}: '9090'"), vec![]),
        (format!("{linkerds}: '8080,nonsense'"), vec![8080]),
    ] {
        for manifests in [
            annotated_pod(&annotations),
            annotated_namespace(&annotations),
        ] {
            for port in [3999, 4000, 4001, 4002, 4003, 8080, 9090] {
                let want = if opaque.contains(&port) {
                    ServerProtocol::Opaque
                } else {
                    ServerProtocol::Unknown
                };
                assert_eq!(protocol(&manifests, port), want, "{annotations} {port}");
            }
        }
    }
    let own = annotated_pod(&format!("{linkerds}: '9090'")).replace(
        "metadata: {name: shop}",
        &format!("metadata: {{name: shop, annotations: {{{ours}: '8080'}}}}"),
    );
    assert_eq!(
        protocol(&own, 8080),
        ServerProtocol::Unknown,
        "a pod's list takes the place of its namespace's"
    );
    assert_eq!(protocol(&own, 9090), ServerProtocol::Opaque);
    let world = World::of(&[&annotated_pod(&format!(
        "{ours}: '8080', {linkerds}: '9090'"
    ))]);
    assert_eq!(world.findings("MESH-0391").len(), 1);
    let world = World::of(&[&annotated_pod(&format!("{linkerds}: '8080,nonsense'"))]);
    assert_eq!(
        world.findings("MESH-0363").len(),
        1,
        "and what is left out is told"
    );
}

#[test]
fn a_service_account_is_the_one_named_or_default() {
    for (spec, want) in [
        ("serviceAccountName: cart", "cart"),
        ("serviceAccount: old", "old"),
        ("serviceAccountName: new, serviceAccount: old", "new"),
        ("serviceAccountName: ''", "default"),
        ("containers: []", "default"),
    ] {
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: cart, namespace: shop}}\nspec: {{{spec}}}\n"
        );
        assert_eq!(
            World::of(&[&pod])
                .snapshot("shop", "cart")
                .workload
                .service_account,
            want,
            "{spec}"
        );
    }
}
