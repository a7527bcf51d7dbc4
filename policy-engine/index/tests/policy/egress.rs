//! EgressNetworks and the routes on them: whom they concern, what they become, and that nothing that is wrong opens.

use crate::world::{SHOP, World, config};
use mesh_policy::Snapshot;
use mesh_policy::egress::{EgressNetwork, Layer, Seen, Speaks, TrafficPolicy};
use mesh_policy_index::manifest::{Affected, read_part};
use std::net::SocketAddr;

/// Further pods: one of another namespace, one of the control plane's.
const OTHERS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: ledger, namespace: bank, labels: {app: ledger}}
spec: {serviceAccountName: ledger, containers: [{name: app}]}
---
apiVersion: v1
kind: Pod
metadata: {name: controller, namespace: mesh-system}
spec: {containers: [{name: app}]}
";

const OUTSIDE: &str = "203.0.113.9:443";

fn network(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: policy.linkerd.io/v1alpha1\nkind: EgressNetwork\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"
    )
}

fn tls_route(namespace: &str, name: &str, parent: &str, hostnames: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TLSRoute\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{parentRefs: [{{group: policy.linkerd.io, kind: EgressNetwork, {parent}, port: 443}}], hostnames: [{hostnames}], rules: [{{backendRefs: []}}]}}\n"
    )
}

fn world(texts: &[&str]) -> World {
    let mut all = vec![SHOP, OTHERS];
    all.extend(texts);
    World::of(&all)
}

fn networks(world: &World, namespace: &str, name: &str) -> Vec<EgressNetwork> {
    world.snapshot(namespace, name).egress
}

/// What the proxy of a workload says of TLS to a name outside, in a word.
fn says(
    world: &World,
    (namespace, workload): (&str, &str),
    to: &str,
    name: Option<&str>,
) -> &'static str {
    let snapshot = Snapshot::compile(world.snapshot(namespace, workload)).unwrap();
    let to: SocketAddr = to.parse().unwrap();
    snapshot
        .egress()
        .at(to)
        .decide(&Seen::Tls(name))
        .cause
        .word()
}

fn web(world: &World, to: &str, name: Option<&str>) -> &'static str {
    says(world, ("shop", "web"), to, name)
}

const WEB: (&str, &str) = ("shop", "web");
const LEDGER: (&str, &str) = ("bank", "ledger");

#[test]
fn a_network_is_for_its_namespace_and_that_of_the_control_plane_for_all() {
    let own = network(
        "shop",
        "own",
        "trafficPolicy: Allow, networks: [{cidr: 203.0.113.0/24}]",
    );
    let world = world(&[&own]);
    assert_eq!(web(&world, OUTSIDE, None), "granted");
    assert_eq!(says(&world, LEDGER, OUTSIDE, None), "unrestricted");
    for namespace in ["mesh-system", "linkerd-egress"] {
        let guard = network(namespace, "guard", "trafficPolicy: Deny");
        let world = self::world(&[&own, &guard]);
        for workload in [WEB, LEDGER, ("mesh-system", "controller")] {
            assert_eq!(
                says(&world, workload, OUTSIDE, None),
                "egress-denied",
                "{workload:?}"
            );
        }
        let of = networks(&world, "shop", "web");
        let layers: Vec<Layer> = of.iter().map(|one| one.layer).collect();
        assert_eq!(layers.iter().filter(|one| **one == Layer::Mesh).count(), 1);
        assert_eq!(layers.len(), 2);
    }
}

#[test]
fn without_networks_it_speaks_for_everything_outside_of_the_cluster() {
    let world = world(&[&network("shop", "all", "trafficPolicy: Deny")]);
    for (to, want) in [
        (OUTSIDE, "egress-denied"),
        ("[2001:db8::1]:443", "egress-denied"),
        ("169.254.169.254:80", "egress-denied"),
        ("10.1.2.3:443", "unrestricted"),
        ("192.168.7.7:443", "unrestricted"),
        ("[fd00::1]:443", "unrestricted"),
    ] {
        assert_eq!(web(&world, to, None), want, "{to}");
    }
    let mut settings = config();
    settings.cluster_networks = vec!["203.0.113.0/24".parse().unwrap()];
    let own = network("shop", "all", "trafficPolicy: Deny");
    let world = World::with(&settings, &[SHOP, &own]);
    assert_eq!(web(&world, OUTSIDE, None), "unrestricted");
    assert_eq!(web(&world, "10.1.2.3:443", None), "egress-denied");
}

#[test]
fn of_equal_blocks_the_older_decides_then_the_name() {
    let at = |name: &str, created: &str, traffic: &str| {
        network("shop", name, &format!("trafficPolicy: {traffic}")).replace(
            ", namespace:",
            &format!(", creationTimestamp: '{created}', namespace:"),
        )
    };
    let (old, new) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
    for (first, second, want) in [
        (at("b", old, "Deny"), at("a", new, "Allow"), "egress-denied"),
        (at("b", new, "Deny"), at("a", old, "Allow"), "granted"),
        (at("b", old, "Deny"), at("a", old, "Allow"), "granted"),
    ] {
        assert_eq!(
            web(&world(&[&first, &second]), OUTSIDE, None),
            want,
            "{first}{second}"
        );
        assert_eq!(
            web(&world(&[&second, &first]), OUTSIDE, None),
            want,
            "{first}{second}"
        );
    }
}

#[test]
fn what_is_wrong_with_a_network_closes_what_it_may_speak_for() {
    let closed = "egress-invalid-network";
    for (spec, to, want) in [
        ("trafficPolicy: allow", OUTSIDE, closed),
        ("trafficPolicy: Allow, novelty: 1", OUTSIDE, closed),
        ("trafficPolicy: Allow, networks: []", OUTSIDE, closed),
        (
            "trafficPolicy: Allow, networks: [{cidr: nowhere}]",
            OUTSIDE,
            closed,
        ),
        ("networks: [{cidr: 203.0.113.0/24}]", OUTSIDE, closed),
        (
            "networks: [{cidr: 203.0.113.0/24}]",
            "198.51.100.1:443",
            "unrestricted",
        ),
        // One of two blocks cannot be read: it might have been any.
        (
            "trafficPolicy: Allow, networks: [{cidr: 203.0.113.0/24}, {cidr: x}]",
            "198.51.100.1:443",
            closed,
        ),
        // It overlaps the cluster.
        (
            "trafficPolicy: Allow, networks: [{cidr: 0.0.0.0/0}]",
            OUTSIDE,
            closed,
        ),
    ] {
        let wide = network(
            "shop",
            "wide",
            "trafficPolicy: Allow, networks: [{cidr: 203.0.113.9}]",
        );
        let torn = network("shop", "torn", spec);
        assert_eq!(web(&world(&[&torn]), to, None), want, "{spec}");
        if to == OUTSIDE {
            assert_eq!(
                web(&world(&[&torn, &wide]), to, None),
                closed,
                "{spec}, beside another"
            );
        }
    }
    let one = network("shop", "twice", "trafficPolicy: Allow");
    assert_eq!(
        web(&world(&[&one, &one]), OUTSIDE, None),
        closed,
        "it stands twice"
    );
}

#[test]
fn a_document_that_may_be_a_network_closes() {
    let whole = network("shop", "all", "trafficPolicy: Deny");
    let closed = "egress-invalid-network";
    for (text, bank) in [
        (whole.replace("spec: {", "spec: {{ ["), "unrestricted"),
        (
            whole.replace(
                "metadata: {name: all, namespace: shop}",
                "metadata: {name: all, [",
            ),
            closed,
        ),
        (
            whole.replace("namespace: shop", "namespace: [shop]"),
            closed,
        ),
        (
            whole.replace("kind: EgressNetwork", "kind: [EgressNetwork]"),
            "unrestricted",
        ),
        (
            "apiVersion: policy.linkerd.io/v1alpha1\nkind: EgressNetworkList\nitems: [7]\n"
                .to_owned(),
            closed,
        ),
    ] {
        let world = world(&[&text]);
        assert_eq!(web(&world, OUTSIDE, None), closed, "{text}");
        assert_eq!(says(&world, LEDGER, OUTSIDE, None), bank, "{text}");
        assert_eq!(
            web(&world, "10.1.2.3:443", None),
            "unrestricted",
            "the cluster stays"
        );
        let guard = network(
            "shop",
            "open",
            "trafficPolicy: Allow, networks: [{cidr: 203.0.113.9}]",
        );
        let world = self::world(&[&text, &guard]);
        assert_eq!(web(&world, OUTSIDE, None), closed, "{text}, beside another");
    }
    let unrelated = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x\n";
    assert_eq!(web(&world(&[unrelated]), OUTSIDE, None), "unrestricted");
}

#[test]
fn a_route_opens_its_port_for_the_names_it_lists() {
    let all = network("shop", "all", "trafficPolicy: Deny");
    let route = tls_route("shop", "api", "name: all", "api.example, '*.cdn.example'");
    let world = world(&[&all, &route]);
    for (name, want) in [
        (Some("api.example"), "granted"),
        (Some("a.cdn.example"), "granted"),
        (Some("evil.example"), "egress-no-route"),
        (None, "egress-no-server-name"),
    ] {
        assert_eq!(web(&world, OUTSIDE, name), want, "{name:?}");
    }
    assert_eq!(
        web(&world, "203.0.113.9:8443", Some("api.example")),
        "egress-denied"
    );
    let of = networks(&world, "shop", "web");
    assert_eq!(of[0].traffic, TrafficPolicy::Deny);
    assert_eq!(of[0].ports[&443].speaks, Speaks::Tls);
    assert_eq!(world.errors(), Vec::<&str>::new());
    let statuses = world.index.route_statuses();
    let parent = &statuses[0].parents[0];
    assert_eq!((parent.kind, parent.port), ("EgressNetwork", Some(443)));
    assert!(parent.accepted.holds);
}

#[test]
fn routes_of_other_namespaces_open_nothing() {
    let guard = network("mesh-system", "guard", "trafficPolicy: Deny");
    let route = tls_route(
        "shop",
        "mine",
        "name: guard, namespace: mesh-system",
        "api.example",
    );
    let world = world(&[&guard, &route]);
    assert_eq!(web(&world, OUTSIDE, Some("api.example")), "egress-denied");
    assert_eq!(world.findings("MESH-0778").len(), 1);
    let statuses = world.index.route_statuses();
    assert_eq!(statuses[0].parents[0].accepted.reason, "NotAllowedByParent");
    let own = tls_route("mesh-system", "theirs", "name: guard", "api.example");
    let world = self::world(&[&guard, &route, &own]);
    assert_eq!(web(&world, OUTSIDE, Some("api.example")), "granted");
}

#[test]
fn one_kind_of_route_counts_on_a_port_and_the_others_are_told() {
    let all = network("shop", "all", "trafficPolicy: Deny");
    let tls = tls_route("shop", "tls", "name: all", "api.example");
    let http = tls
        .replace("v1alpha2", "v1")
        .replace("kind: TLSRoute", "kind: HTTPRoute")
        .replace("name: tls", "name: http");
    let tcp = tls
        .replace("kind: TLSRoute", "kind: TCPRoute")
        .replace("hostnames: [api.example], ", "")
        .replace("name: tls", "name: tcp");
    for (texts, speaks, want, idle) in [
        (vec![&tcp], Speaks::Tcp, "granted", 0),
        (vec![&tcp, &tls], Speaks::Tls, "granted", 1),
        (
            vec![&tcp, &tls, &http],
            Speaks::Http,
            "egress-wrong-protocol",
            2,
        ),
    ] {
        let mut all_texts = vec![all.as_str()];
        all_texts.extend(texts.iter().map(|text| text.as_str()));
        let world = world(&all_texts);
        assert_eq!(
            networks(&world, "shop", "web")[0].ports[&443].speaks,
            speaks
        );
        assert_eq!(
            web(&world, OUTSIDE, Some("api.example")),
            want,
            "{speaks:?}"
        );
        assert_eq!(world.findings("MESH-0399").len(), idle, "{speaks:?}");
    }
}

#[test]
fn a_route_that_asks_for_what_is_not_done_denies_what_it_takes() {
    let all = network("shop", "all", "trafficPolicy: Deny");
    let route = |rule: &str| {
        tls_route("shop", "out", "name: all", "api.example")
            .replace("v1alpha2", "v1")
            .replace("kind: TLSRoute", "kind: HTTPRoute")
            .replace("{backendRefs: []}", rule)
    };
    let itself =
        "{backendRefs: [{group: policy.linkerd.io, kind: EgressNetwork, name: all, port: 443}]}";
    let header =
        "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [cookie]}}]}";
    let filtered = "{backendRefs: [{group: policy.linkerd.io, kind: EgressNetwork, name: all, port: 443, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [cookie]}}]}]}";
    for (rule, invalid) in [
        ("{backendRefs: []}", false),
        (itself, false),
        ("{timeouts: {request: 10s}}", false),
        (header, true),
        ("{backendRefs: [{name: cart, port: 80}]}", true),
        (
            "{backendRefs: [{group: policy.linkerd.io, kind: EgressNetwork, name: other, port: 443}]}",
            true,
        ),
        // A Service that is called as the network is.
        ("{backendRefs: [{name: all, port: 443}]}", true),
        (filtered, true),
    ] {
        let world = world(&[&all, &route(rule)]);
        let of = networks(&world, "shop", "web");
        let made = &of[0].ports[&443].routes[0];
        assert_eq!(made.invalid.is_some(), invalid, "{rule}");
        assert!(made.rules.iter().all(|rule| rule.filters.is_empty()));
        let told = world.findings("MESH-0379");
        assert_eq!(
            !told.is_empty(),
            rule.contains("timeouts"),
            "{rule}: {told:?}"
        );
        assert_eq!(
            world.errors().is_empty(),
            !invalid,
            "{rule}: {:?}",
            world.errors()
        );
    }
}

#[test]
fn networks_and_routes_may_be_for_some_service_accounts() {
    let annotated = |text: String, value: &str| {
        text.replacen(
            ", namespace:",
            &format!(", annotations: {{mesh.internal/service-accounts: '{value}'}}, namespace:"),
            1,
        )
    };
    let all = network("shop", "all", "trafficPolicy: Deny");
    let route = tls_route("shop", "api", "name: all", "api.example");
    let cart = ("shop", "cart");
    let world = world(&[&all, &annotated(route.clone(), "cart, mail")]);
    assert_eq!(says(&world, cart, OUTSIDE, Some("api.example")), "granted");
    assert_eq!(web(&world, OUTSIDE, Some("api.example")), "egress-denied");
    let world = self::world(&[&annotated(all.clone(), "cart")]);
    assert_eq!(says(&world, cart, OUTSIDE, None), "egress-denied");
    assert_eq!(web(&world, OUTSIDE, None), "unrestricted");
    for torn in ["", "cart,", "Cart", "a b"] {
        let world = self::world(&[&annotated(all.clone(), torn)]);
        assert_eq!(
            web(&world, OUTSIDE, None),
            "egress-invalid-network",
            "{torn}"
        );
        assert_eq!(world.findings("MESH-0359").len(), 1, "{torn}");
        let world = self::world(&[&all, &annotated(route.clone(), torn)]);
        assert_eq!(
            web(&world, OUTSIDE, Some("api.example")),
            "egress-invalid-route",
            "{torn}"
        );
        assert_eq!(world.findings("MESH-0359").len(), 1, "{torn}");
    }
}

#[test]
fn a_route_of_which_a_part_is_not_understood_denies_what_it_takes() {
    let all = network("shop", "all", "trafficPolicy: Deny");
    let good = tls_route("shop", "out", "name: all", "api.example");
    let tcp = good
        .replace("kind: TLSRoute", "kind: TCPRoute")
        .replace("hostnames: [api.example], ", "");
    assert_eq!(web(&world(&[&all, &tcp]), OUTSIDE, None), "granted");
    for (what, torn) in [
        (
            "a field of the spec",
            good.replace("hostnames:", "novelty: 1, hostnames:"),
        ),
        (
            "a field of a parent",
            good.replace("port: 443", "port: 443, novelty: 1"),
        ),
        (
            "a field of a rule",
            good.replace("backendRefs: []", "backendRefs: [], novelty: 1"),
        ),
        (
            "two rules",
            good.replace("rules: [", "rules: [{backendRefs: []}, "),
        ),
        (
            "a section",
            good.replace("port: 443", "port: 443, sectionName: https"),
        ),
        (
            "hostnames of a TCPRoute",
            good.replace("kind: TLSRoute", "kind: TCPRoute"),
        ),
    ] {
        let world = world(&[&all, &torn]);
        let said = web(&world, OUTSIDE, Some("api.example"));
        assert_eq!(said, "egress-invalid-route", "{what}");
        assert!(!world.errors().is_empty(), "{what}");
    }
    for fine in [
        good.replace("hostnames:", "useDefaultGateways: None, hostnames:"),
        good.replace("backendRefs: []", "name: one, backendRefs: []"),
        good.replace(
            "parentRefs: [",
            "parentRefs: [{group: '', kind: Service, name: cart, port: 80}, ",
        ),
    ] {
        let world = world(&[&all, &fine]);
        assert_eq!(
            web(&world, OUTSIDE, Some("api.example")),
            "granted",
            "{fine}"
        );
        let elsewhere = world.findings("MESH-0379").len();
        assert_eq!(
            elsewhere,
            usize::from(fine.contains("kind: Service")),
            "{fine}"
        );
    }
}

#[test]
fn routes_stand_only_on_a_network_that_looks_at_them() {
    let route = tls_route("shop", "out", "name: all", "api.example");
    for (spec, ports) in [
        ("trafficPolicy: Deny", 1),
        ("trafficPolicy: Allow", 0),
        ("trafficPolicy: Deny, networks: [{cidr: 10.0.0.0/7}]", 0),
    ] {
        let world = world(&[&network("shop", "all", spec), &route]);
        let of = networks(&world, "shop", "web");
        assert_eq!(of[0].ports.len(), ports, "{spec}");
    }
    let world = world(&[&network(
        "shop",
        "all",
        "trafficPolicy: Deny, networks: [{cidr: 10.0.0.0/7}]",
    )]);
    let [overlap] = world.findings("MESH-0392").try_into().unwrap();
    assert!(
        overlap
            .message
            .contains("`10.0.0.0/7` and the cluster network `10.0.0.0/8`")
    );
}

#[test]
fn the_mesh_may_leave_it_to_namespaces_and_only_by_the_exact_word() {
    let own = network("shop", "own", "trafficPolicy: Allow");
    for (value, want, found) in [
        ("true", "granted", 0),
        ("yes", "egress-denied", 1),
        ("True", "egress-denied", 1),
    ] {
        let guard = network("mesh-system", "guard", "trafficPolicy: Deny").replace(
            ", namespace:",
            &format!(", annotations: {{mesh.internal/namespaces-decide: '{value}'}}, namespace:"),
        );
        let world = world(&[&guard, &own]);
        assert_eq!(web(&world, OUTSIDE, None), want, "{value}");
        assert_eq!(says(&world, LEDGER, OUTSIDE, None), "egress-denied");
        assert_eq!(world.findings("MESH-0359").len(), found, "{value}");
    }
}

#[test]
fn a_route_on_a_network_that_allows_is_told_to_be_idle() {
    let all = network("shop", "all", "trafficPolicy: Allow");
    let route = tls_route("shop", "api", "name: all", "api.example");
    let world = world(&[&all, &route]);
    assert_eq!(world.findings("MESH-0399").len(), 1);
    assert_eq!(web(&world, OUTSIDE, Some("evil.example")), "granted");
}

#[test]
fn a_change_of_what_is_said_of_egress_concerns_everybody() {
    let part = |text: &str| read_part("egress.yaml", text.as_bytes());
    let network = network("mesh-system", "guard", "trafficPolicy: Deny");
    let route = tls_route("mesh-system", "api", "name: guard", "api.example");
    let torn = network.replace("kind: EgressNetwork", "kind: [EgressNetwork]");
    for text in [&network, &route, &torn] {
        let affected = Affected::by([&part(text)], []);
        assert!(affected.includes("shop"), "{text}");
    }
    let server = part(crate::world::SERVER);
    assert!(!Affected::by([&server], []).includes("bank"));
}

#[test]
fn what_lets_out_more_than_it_seems_is_found() {
    let allow = |networks: &str| network("shop", "out", &format!("trafficPolicy: Allow{networks}"));
    let cidr = |text: &str| allow(&format!(", networks: [{{cidr: {text}}}]"));
    let holed = "0.0.0.0/0, except: [10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16";
    let closed = |spec: &str| {
        let own = network("shop", "metadata", &format!("trafficPolicy: Deny, {spec}"));
        allow("") + "---\n" + &own
    };
    for (text, found) in [
        (allow(""), 1),
        (cidr(&format!("{holed}]")), 1),
        (cidr("169.0.0.0/8"), 1),
        (cidr(&format!("{holed}, 169.254.0.0/16]")), 0),
        (cidr("203.0.113.0/24"), 0),
        (cidr("169.254.169.254/32"), 0), // meant
        (network("shop", "out", "trafficPolicy: Deny"), 0),
        (closed("networks: [{cidr: 169.254.0.0/16}]"), 0),
        (closed("networks: [{cidr: 203.0.113.0/24}]"), 1),
        (
            closed("networks: [{cidr: 169.254.0.0/16}]").replace(
                "name: metadata,",
                "name: metadata, annotations: {mesh.internal/service-accounts: web},",
            ),
            1, // for other workloads it is open
        ),
        (
            closed("networks: [{cidr: 169.254.0.0/16}]").replace(
                "name: metadata, namespace: shop",
                "name: metadata, namespace: bank",
            ),
            1,
        ),
    ] {
        let world = world(&[&text]);
        assert_eq!(world.findings("MESH-0337").len(), found, "{text}");
    }
    let guard = network("shop", "guard", "trafficPolicy: Deny");
    for (names, found) in [
        ("'*.com'", 1),
        ("a.example, '*.com'", 1),
        ("'*.example.com', com", 0),
    ] {
        let world = world(&[&guard, &tls_route("shop", "names", "name: guard", names)]);
        assert_eq!(world.findings("MESH-0337").len(), found, "{names}");
    }
}

#[test]
fn what_is_found_about_a_network_is_told_to_the_workloads_that_it_bears_on() {
    let wide = network("shop", "wide", "trafficPolicy: Allow");
    let elsewhere = network("bank", "wide", "trafficPolicy: Allow");
    for (text, told) in [(wide, 1), (elsewhere, 0)] {
        let world = world(&[&text]);
        assert_eq!(world.findings("MESH-0337").len(), 1, "{text}");
        let findings = world.snapshot("shop", "web").findings;
        let of_it = findings.iter().filter(|one| one.code == "MESH-0337");
        assert_eq!(of_it.count(), told, "{text}");
    }
}

#[test]
fn names_lead_anywhere_only_where_a_route_says_so_and_that_is_told() {
    let all = network("shop", "all", "trafficPolicy: Deny");
    for (annotation, word, unbound, code) in [
        ("", "granted", false, None),
        ("mesh.internal/bind-names: 'true'", "granted", false, None),
        (
            "mesh.internal/bind-names: 'false'",
            "granted",
            true,
            Some("MESH-0337"),
        ),
        (
            "mesh.internal/bind-names: 'no'",
            "egress-invalid-route",
            false,
            Some("MESH-0359"),
        ),
        (
            "mesh.internal/bind-names: ''",
            "egress-invalid-route",
            false,
            Some("MESH-0359"),
        ),
    ] {
        let route = tls_route("shop", "api", "name: all", "api.example");
        let route = route.replacen(
            "name: api,",
            &format!("name: api, annotations: {{{annotation}}},"),
            1,
        );
        let world = world(&[&all, &route]);
        assert_eq!(
            web(&world, OUTSIDE, Some("api.example")),
            word,
            "{annotation}"
        );
        let port = &networks(&world, "shop", "web")[0].ports[&443];
        assert_eq!(port.unbound.len(), usize::from(unbound), "{annotation}");
        for found in ["MESH-0337", "MESH-0359"] {
            let told = world.findings(found).len();
            assert_eq!(
                told,
                usize::from(code == Some(found)),
                "{annotation}: {found}"
            );
        }
    }
}
