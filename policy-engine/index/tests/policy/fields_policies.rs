//! Kinds and versions field by field: which are read, and what each refuses.

use crate::side_by_side::{Admission, admissions, refusals};
use crate::why::{SAME, UNKNOWN_FIELD};
use crate::world::{MESHED, NETWORK, SERVER, SHOP, World, policy, route, server_authorization};

/// Codes of all findings of one document.
fn codes(document: &str) -> Vec<String> {
    let world = World::of(&[document]);
    world
        .index
        .findings()
        .iter()
        .map(|f| f.code.clone())
        .collect()
}

#[test]
fn every_version_of_every_kind_is_read_and_no_other() {
    let grpc = "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: g}\nspec: {}\n".to_owned();
    let limit = "apiVersion: policy.linkerd.io/v1alpha1\nkind: HTTPLocalRateLimitPolicy\nmetadata: {name: l}\nspec: {targetRef: {group: policy.linkerd.io, kind: Server, name: cart}}\n".to_owned();
    let egress = "apiVersion: policy.linkerd.io/v1alpha1\nkind: EgressNetwork\nmetadata: {name: e}\nspec: {trafficPolicy: Deny}\n".to_owned();
    let profile = "apiVersion: linkerd.io/v1alpha2\nkind: ServiceProfile\nmetadata: {name: a.b.svc.cluster.local}\nspec: {}\n".to_owned();
    let federation = "apiVersion: mesh.internal/v1alpha1\nkind: Federation\nmetadata: {name: f}\nspec: {trustDomain: a.example}\n".to_owned();
    let gateway = route("r", "{value: /}")
        .replace("policy.linkerd.io/v1beta3", "gateway.networking.k8s.io/v1");
    let authorization = server_authorization("{name: cart}", "{unauthenticated: true}");
    let ours = policy("p", "Server cart", &["ServiceAccount web"]);
    for (document, versions) in [
        (SERVER, "v1alpha1 v1beta1 v1beta2 v1beta3"),
        (authorization.as_str(), "v1alpha1 v1beta1"),
        (ours.as_str(), "v1alpha1"),
        (MESHED, "v1alpha1"),
        (NETWORK, "v1alpha1"),
        (limit.as_str(), "v1alpha1"),
        (egress.as_str(), "v1alpha1"),
        (
            route("r", "{value: /}").as_str(),
            "v1alpha1 v1beta1 v1beta2 v1beta3",
        ),
        (gateway.as_str(), "v1beta1 v1"),
        (grpc.as_str(), "v1"),
        (profile.as_str(), "v1alpha2"),
        (federation.as_str(), "v1alpha1"),
    ] {
        let line = document
            .lines()
            .find(|l| l.starts_with("apiVersion: "))
            .unwrap();
        let group = line
            .trim_start_matches("apiVersion: ")
            .split_once('/')
            .unwrap()
            .0;
        for version in [
            "v1alpha1", "v1alpha2", "v1beta1", "v1beta2", "v1beta3", "v1beta4", "v1", "v2",
        ] {
            let text = document.replace(line, &format!("apiVersion: {group}/{version}"));
            let want: &[&str] = if versions.split(' ').any(|v| v == version) {
                &[]
            } else {
                &["MESH-0355"]
            };
            assert_eq!(refusals(&text), want, "{group}/{version} of\n{document}");
        }
        assert_eq!(
            refusals(&document.replace(&format!("{line}\n"), "")),
            ["MESH-0355"],
            "no version\n{document}"
        );
    }
}

#[test]
fn external_workloads_are_checked_in_both_versions() {
    let whole = |spec: &str| {
        format!(
            "apiVersion: workload.linkerd.io/v1beta1\nkind: ExternalWorkload\nmetadata: {{name: vm}}\nspec: {{{spec}}}\n"
        )
    };
    let good = "meshTLS: {identity: 'spiffe://root.example/vm', serverName: vm.example}, ports: [{port: 80, name: http}, {port: 81, protocol: TCP}], workloadIPs: [{ip: 192.0.2.1}, {ip: '2001:db8::1'}]";
    assert_eq!(
        codes(&whole(good)),
        ["MESH-0379"],
        "it is said that nothing is enforced"
    );
    let alpha = whole(good).replace("v1beta1", "v1alpha1");
    assert!(
        !refusals(&alpha).is_empty(),
        "`meshTLS` is `meshTls` in v1alpha1"
    );
    assert_eq!(
        refusals(&alpha.replace("meshTLS", "meshTls")),
        Vec::<String>::new()
    );
    assert!(!refusals(&whole(good).replace("meshTLS", "meshTls")).is_empty());
    let long = format!("spiffe://root.example/{}", "x".repeat(253));
    for (from, to) in [
        ("spiffe://root.example/vm", "vm.example"),
        ("spiffe://root.example/vm", "spiffe://root.example/"),
        ("spiffe://root.example/vm", long.as_str()),
        ("serverName: vm.example", "serverName: 'VM_1'"),
        (", serverName: vm.example", ""),
        ("identity: 'spiffe://root.example/vm', ", ""),
        ("port: 80", "port: 0"),
        ("{port: 80, name: http}", "{name: http}"),
        ("name: http", "name: 'not a name'"),
        ("{port: 81, protocol: TCP}", "{port: 81, name: http}"),
        ("protocol: TCP", "protocol: UDP"),
        ("192.0.2.1", "somewhere"),
        ("[{ip: 192.0.2.1}", "[{ip: 192.0.2.2}, {ip: 192.0.2.1}"),
        ("workloadIPs", "workloadIps"),
    ] {
        let spoilt = good.replacen(from, to, 1);
        assert_ne!(spoilt, good, "{from}");
        assert!(!refusals(&whole(&spoilt)).is_empty(), "{to}");
    }
}

#[test]
fn a_server_that_selects_external_workloads_claims_no_port_and_says_so() {
    let server = SERVER.replace("podSelector", "externalWorkloadSelector");
    let world = World::of(&[SHOP, &server]);
    assert_eq!(
        world
            .snapshot("shop", "cart")
            .ports
            .get(&8080)
            .map(|p| p.server.default),
        Some(true)
    );
    assert_eq!(world.findings("MESH-0379").len(), 1);
    assert_eq!(world.errors(), Vec::<&str>::new());
}

fn egress(spec: &str) -> String {
    format!(
        "apiVersion: policy.linkerd.io/v1alpha1\nkind: EgressNetwork\nmetadata: {{name: all, namespace: shop}}\nspec: {{{spec}}}\n"
    )
}

#[test]
fn egress_networks_have_a_policy_and_networks_that_are_not_empty() {
    let rows: &[Admission<'_>] = &[
        ("trafficPolicy: Allow", true, true, SAME),
        (
            "trafficPolicy: Deny, networks: [{cidr: 203.0.113.0/24, except: [203.0.113.7]}]",
            true,
            true,
            SAME,
        ),
        ("networks: [{cidr: 203.0.113.0/24}]", false, false, SAME),
        ("trafficPolicy: allow", false, false, SAME),
        ("trafficPolicy: Audit", false, false, SAME),
        ("trafficPolicy: Deny, networks: []", false, false, SAME),
        (
            "trafficPolicy: Deny, networks: [{cidr: 203.0.113.0/24, except: [198.51.100.0/24]}]",
            false,
            false,
            SAME,
        ),
        (
            "trafficPolicy: Deny, networks: [{cidr: 203.0.113.0/24, except: [203.0.113.0/24]}]",
            false,
            false,
            SAME,
        ),
        (
            "trafficPolicy: Deny, networks: {cidr: 203.0.113.0/24}",
            false,
            false,
            SAME,
        ),
        (
            "trafficPolicy: Deny, network: []",
            true,
            false,
            UNKNOWN_FIELD,
        ),
    ];
    admissions(egress, rows);
}

#[test]
fn egress_networks_may_not_overlap_the_cluster() {
    for (networks, overlaps) in [
        ("", false),
        (", networks: [{cidr: 203.0.113.0/24}]", false),
        (", networks: [{cidr: 10.1.0.0/16}]", true),
        (", networks: [{cidr: 0.0.0.0/0}]", true),
        (", networks: [{cidr: '::/0'}]", true),
        (
            ", networks: [{cidr: 203.0.113.0/24}, {cidr: 192.168.1.1}]",
            true,
        ),
        (", networks: [{cidr: '::ffff:10.0.0.0/104'}]", true),
        (
            ", networks: [{cidr: 0.0.0.0/0, except: [10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16]}]",
            false,
        ),
        (
            ", networks: [{cidr: 0.0.0.0/0, except: [10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12]}]",
            true,
        ),
        (
            ", networks: [{cidr: 10.0.0.0/7, except: [10.0.0.0/8]}]",
            false,
        ),
        (
            ", networks: [{cidr: 10.0.0.0/7, except: [10.0.0.0/9, 10.128.0.0/9]}]",
            true,
        ),
    ] {
        let found = codes(&egress(&format!("trafficPolicy: Deny{networks}")));
        assert_eq!(
            found.contains(&"MESH-0392".to_owned()),
            overlaps,
            "{networks}"
        );
    }
    let mut settings = crate::world::config();
    settings.cluster_networks = vec!["203.0.113.0/24".parse().unwrap()];
    let world = World::with(
        &settings,
        &[&egress(
            "trafficPolicy: Deny, networks: [{cidr: 10.0.0.0/8}]",
        )],
    );
    assert_eq!(
        world.findings("MESH-0392").len(),
        0,
        "the cluster networks are those of the installation"
    );
}

#[test]
fn service_profiles_are_checked_and_not_applied() {
    let whole = |spec: &str| {
        format!(
            "apiVersion: linkerd.io/v1alpha2\nkind: ServiceProfile\nmetadata: {{name: cart.shop.svc.cluster.local}}\nspec: {spec}\n"
        )
    };
    let good = "{routes: [{name: 'GET /', condition: {all: [{method: GET}, {not: {pathRegex: '/private.*'}}]}, responseClasses: [{condition: {any: [{status: {min: 500, max: 599}}]}, isFailure: true}], isRetryable: true, timeout: 1m30s}], retryBudget: {retryRatio: 0.2, minRetriesPerSecond: 10, ttl: 10s}, dstOverrides: [{authority: 'a.b:80', weight: 500m}], opaquePorts: ['25']}";
    assert_eq!(codes(&whole(good)), ["MESH-0379"]);
    assert_eq!(refusals(&whole("{}")), Vec::<String>::new());
    for (from, to) in [
        ("name: 'GET /', ", ""),
        (
            "condition: {all: [{method: GET}, {not: {pathRegex: '/private.*'}}]}, ",
            "",
        ),
        ("method: GET", "method: get"),
        ("'/private.*'", "'('"),
        ("min: 500", "min: 99"),
        ("max: 599", "max: 600"),
        ("min: 500, max: 599", "min: 500, max: 400"),
        ("isFailure: true", "isFailure: 'yes'"),
        ("isRetryable: true", "isRetryable: 1"),
        ("timeout: 1m30s", "timeout: soon"),
        (", ttl: 10s", ""),
        ("ttl: 10s", "ttl: 10"),
        ("retryRatio: 0.2", "retryRatio: -0.2"),
        ("minRetriesPerSecond: 10", "minRetriesPerSecond: 1.5"),
        ("authority: 'a.b:80', ", ""),
        ("{routes:", "{novelty: 1, routes:"),
        ("{all:", "{novelty: 1, all:"),
    ] {
        let spoilt = good.replacen(from, to, 1);
        assert_ne!(spoilt, good, "{from}");
        assert!(!refusals(&whole(&spoilt)).is_empty(), "{to}");
    }
}

#[test]
fn a_parent_of_a_route_is_a_server_of_its_namespace() {
    for (parent, attached, code) in [
        (
            "{group: policy.linkerd.io, kind: Server, name: cart}",
            true,
            None,
        ),
        (
            "{group: policy.linkerd.io, kind: Server, name: cart, namespace: shop}",
            true,
            None,
        ),
        (
            "{group: policy.linkerd.io, kind: Server, name: cart, namespace: other}",
            false,
            Some("MESH-0371"),
        ),
        ("{kind: Server, name: cart}", true, None),
        ("{name: cart}", false, Some("MESH-0371")),
        (
            "{group: gateway.networking.k8s.io, kind: Server, name: cart}",
            false,
            Some("MESH-0371"),
        ),
        (
            "{group: policy.linkerd.io, kind: server, name: cart}",
            false,
            Some("MESH-0371"),
        ),
        (
            "{group: policy.linkerd.io, kind: Sever, name: cart}",
            false,
            Some("MESH-0371"),
        ),
        (
            "{group: policy.linkerd.io, kind: Server, name: ghost}",
            false,
            Some("MESH-0364"),
        ),
        (
            "{group: '', kind: Service, name: cart, port: 80}",
            false,
            Some("MESH-0778"),
        ),
        (
            "{group: core, kind: Service, name: cart, port: 80}",
            false,
            Some("MESH-0778"),
        ),
        (
            "{group: policy.linkerd.io, kind: EgressNetwork, name: all, port: 443}",
            false,
            Some("MESH-0778"),
        ),
        (
            "{group: gateway.networking.k8s.io, kind: Gateway, name: edge}",
            false,
            None,
        ),
        (
            "{group: gateway.networking.k8s.io, kind: Service, name: cart}",
            false,
            Some("MESH-0371"),
        ),
        (
            "{group: '', kind: Service, name: 'no name'}",
            false,
            Some("MESH-0359"),
        ),
        (
            "{group: '', kind: Service, name: cart, namespace: NO}",
            false,
            Some("MESH-0359"),
        ),
        (
            "{group: '', kind: Service, name: cart, port: 0}",
            false,
            Some("MESH-0359"),
        ),
        // Invalid, and attached where it might have been meant.
        (
            "{group: policy.linkerd.io, kind: Server, name: cart, port: 8080}",
            true,
            Some("MESH-0360"),
        ),
        (
            "{group: policy.linkerd.io, kind: Server, name: cart, sectionName: x}",
            true,
            Some("MESH-0360"),
        ),
        (
            "{group: policy.linkerd.io, kind: [Server], name: cart}",
            true,
            Some("MESH-0356"),
        ),
        (
            "{group: policy.linkerd.io, kind: Server}",
            false,
            Some("MESH-0357"),
        ),
        (
            "{group: policy.linkerd.io, kind: EgressNetwork, name: all}",
            false,
            Some("MESH-0357"),
        ),
    ] {
        let text = route("r", "{value: /}").replace(
            "{group: policy.linkerd.io, kind: Server, name: cart}",
            parent,
        );
        let world = World::of(&[SHOP, SERVER, &text]);
        let routes = world
            .snapshot("shop", "cart")
            .ports
            .get(&8080)
            .unwrap()
            .routes
            .len();
        assert_eq!(routes == 1, attached, "{parent}");
        let found: Vec<&str> = world
            .index
            .findings()
            .iter()
            .map(|f| f.code.as_str())
            .collect();
        assert_eq!(found.first().copied(), code, "{parent}: {found:?}");
    }
}

#[test]
fn backends_and_timeouts_of_a_route_are_checked() {
    let policy_group =
        |rule: &str| route("r", "{value: /}").replace("matches:", &format!("{rule}, matches:"));
    let gateway = |rule: &str| {
        policy_group(rule).replace("policy.linkerd.io/v1beta3", "gateway.networking.k8s.io/v1")
    };
    for (rule, valid) in [
        ("backendRefs: [{name: a, port: 80}]", true),
        (
            "backendRefs: [{group: '', kind: Service, name: a, namespace: b, port: 80, weight: 0}]",
            true,
        ),
        (
            "backendRefs: [{group: policy.linkerd.io, kind: EgressNetwork, name: all}]",
            true,
        ),
        (
            "backendRefs: [{name: a, port: 80, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}]}}]}]",
            true,
        ),
        ("backendRefs: [{name: a}]", false),
        ("backendRefs: [{port: 80}]", false),
        ("backendRefs: [{name: a, port: 0}]", false),
        ("backendRefs: [{name: a, port: 80, weight: 1000001}]", false),
        ("backendRefs: [{name: a, port: 80, novelty: 1}]", false),
        ("backendRefs: {name: a, port: 80}", false),
        ("timeouts: {request: 10s, backendRequest: 10s}", true),
        ("timeouts: {request: 1m, backendRequest: 59s}", true),
        ("timeouts: {request: 0s, backendRequest: 10s}", true),
        ("timeouts: {request: 10s, backendRequest: 10001ms}", false),
        ("timeouts: {request: -1s}", false),
        ("timeouts: {request: 10}", false),
        ("timeouts: {request: 10s, idle: 1s}", false),
    ] {
        assert_eq!(
            refusals(&policy_group(rule)).is_empty(),
            valid,
            "policy.linkerd.io: {rule}"
        );
        assert_eq!(
            refusals(&gateway(rule)).is_empty(),
            valid,
            "gateway.networking.k8s.io: {rule}"
        );
    }
    for (rule, valid) in [
        ("name: first", true),
        ("retry: {attempts: 2}", true),
        ("sessionPersistence: {}", true),
    ] {
        assert_eq!(refusals(&gateway(rule)).is_empty(), valid, "{rule}");
        assert!(
            !refusals(&policy_group(rule)).is_empty(),
            "{rule} is Gateway API's alone"
        );
    }
}

#[test]
fn filters_are_those_that_an_inbound_proxy_applies() {
    let with = |filter: &str| {
        route("r", "{value: /}").replace("matches:", &format!("filters: [{filter}], matches:"))
    };
    for (filter, valid) in [
        (
            "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}], add: [{name: c, value: d}], remove: [e]}}",
            true,
        ),
        (
            "{type: RequestRedirect, requestRedirect: {scheme: https, hostname: a.example, port: 443, statusCode: 301}}",
            true,
        ),
        (
            "{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /x}}}",
            true,
        ),
        (
            "{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [a]}}",
            true,
        ),
        (
            "{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}}",
            false,
        ),
        (
            "{type: RequestRedirect, requestRedirect: {statusCode: 304}}",
            false,
        ),
        (
            "{type: RequestRedirect, requestRedirect: {hostname: '*.example'}}",
            false,
        ),
        (
            "{type: URLRewrite, urlRewrite: {hostname: a.example}}",
            false,
        ),
        ("{type: RequestMirror, requestMirror: {}}", false),
        ("{type: ExtensionRef, extensionRef: {}}", false),
        ("{type: RequestHeaderModifier}", false),
        (
            "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: mesh-client-id, value: b}]}}",
            false,
        ),
        (
            "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: l5d-client-id, value: b}]}}",
            false,
        ),
        (
            "{type: RequestHeaderModifier, requestHeaderModifier: {remove: [Host]}}",
            false,
        ),
        (
            "{type: RequestHeaderModifier, requestHeaderModifier: {remove: [TE]}}",
            false,
        ),
        ("{requestHeaderModifier: {}}", false),
    ] {
        assert_eq!(refusals(&with(filter)).is_empty(), valid, "{filter}");
    }
}

#[test]
fn rate_limits_name_service_accounts_here_or_in_another_namespace() {
    let whole = |client: &str| {
        format!(
            "apiVersion: policy.linkerd.io/v1alpha1\nkind: HTTPLocalRateLimitPolicy\nmetadata: {{name: l, namespace: shop}}\nspec: {{targetRef: {{group: policy.linkerd.io, kind: Server, name: cart}}, overrides: [{{requestsPerSecond: 1, clientRefs: [{client}]}}]}}\n"
        )
    };
    for (client, want) in [
        (
            "{kind: ServiceAccount, name: web}",
            Some("spiffe://cluster.local/ns/shop/sa/web"),
        ),
        (
            "{group: core, kind: ServiceAccount, name: web, namespace: other}",
            Some("spiffe://cluster.local/ns/other/sa/web"),
        ),
        ("{group: apps, kind: ServiceAccount, name: web}", None),
        ("{kind: ServiceAccount}", None),
        ("{kind: ServiceAccount, name: web, novelty: 1}", None),
        ("{kind: MeshTLSAuthentication, name: web}", None),
    ] {
        let text = whole(client);
        assert_eq!(refusals(&text).is_empty(), want.is_some(), "{client}");
        let limit = World::of(&[SHOP, SERVER, &text])
            .snapshot("shop", "cart")
            .ports
            .get(&8080)
            .unwrap()
            .rate_limit
            .clone()
            .unwrap();
        let first = limit
            .overrides
            .first()
            .and_then(|(ids, _)| ids.first().map(|i| i.as_str().to_owned()));
        assert!(
            want.is_none() || first.as_deref() == want,
            "{client}: {first:?}"
        );
    }
}
