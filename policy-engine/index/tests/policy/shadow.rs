//! The candidate beside what is in force: `mesh.internal/shadow` on every kind, and what it may never open.

use crate::raw_cedar::{FORBID, PERMIT, object};
use crate::world::{
    Ask, DENIED, MESHED, NETWORK, SERVER, SHOP, World, config, join, policy, route,
    server_authorization,
};
use mesh_policy_index::index::beside;
use mesh_policy_index::{Index, Reach, load};

/// A kind of object: the others, one of it, a question, and the answers without and with it.
struct Case {
    kind: &'static str,
    others: Vec<String>,
    one: String,
    ask: Ask,
    without: &'static str,
    with: &'static str,
    /// A question that an invalid one closes, and how.
    closed: (Ask, &'static str),
}

/// One object with a value of the annotation.
fn annotated(one: &str, name: &str, value: &str) -> String {
    one.replacen(
        "metadata: {",
        &format!("metadata: {{annotations: {{{name}: {value}}}, "),
        1,
    )
}

fn shadowed(one: &str, value: &str) -> String {
    annotated(one, "mesh.internal/shadow", value)
}

/// The candidate of a mesh; `None` if nothing says that there is one.
fn candidate(parts: &[&str]) -> Option<World> {
    let loaded = load([("all.yaml".to_owned(), join(parts).into_bytes())]);
    Index::candidate(&loaded, &config()).map(|index| World { index })
}

fn granted() -> String {
    policy("p", "Server cart", &["MeshTLSAuthentication meshed"])
}

fn cedar(kind: &str, text: &str) -> String {
    let meta = match kind {
        "CedarPolicy" => "name: x, namespace: shop",
        _ => "name: x",
    };
    object(kind, meta, "", text)
}

fn cases() -> Vec<Case> {
    let web = || Ask::meshed("shop/web");
    let own = |parts: &[&str]| {
        parts
            .iter()
            .map(|part| (*part).to_owned())
            .collect::<Vec<_>>()
    };
    let grant = |kind, others: Vec<String>, one: String, ask: Ask| Case {
        kind,
        others,
        one,
        closed: (ask.clone(), DENIED),
        ask,
        without: DENIED,
        with: "allow",
    };
    let forbid = |kind| Case {
        kind,
        others: own(&[SERVER, MESHED, &granted()]),
        one: cedar(kind, FORBID),
        ask: web().path("/admin"),
        without: "allow",
        with: "forbid 403",
        closed: (web().path("/admin"), "forbid 403"),
    };
    let open = SERVER.replace("HTTP/1", "HTTP/1, accessPolicy: all-unauthenticated");
    let grpc_route = route("r", "{value: /x}")
        .replace(
            "policy.linkerd.io/v1beta3\nkind: HTTPRoute",
            "gateway.networking.k8s.io/v1\nkind: GRPCRoute",
        )
        .replace("path: {value: /x}", "method: {service: a.B, method: C}");
    let either = SERVER.replace(", proxyProtocol: HTTP/1", "");
    let federated = "apiVersion: mesh.internal/v1alpha1\nkind: Federation\nmetadata: {name: other}\nspec: {trustDomain: other.example, includeInWildcards: true}\n";
    let limit = "apiVersion: policy.linkerd.io/v1alpha1\nkind: HTTPLocalRateLimitPolicy\nmetadata: {name: l, namespace: shop}\nspec: {targetRef: {group: policy.linkerd.io, kind: Server, name: cart}, total: {requestsPerSecond: 5}}\n";
    vec![
        Case {
            kind: "Server",
            others: Vec::new(),
            one: open,
            ask: web(),
            without: DENIED,
            with: "allow",
            closed: (web(), "server 403"),
        },
        grant(
            "AuthorizationPolicy",
            own(&[SERVER, MESHED]),
            granted(),
            web(),
        ),
        grant(
            "ServerAuthorization",
            own(&[SERVER]),
            server_authorization("{name: cart}", "{meshTLS: {identities: ['*']}}"),
            web(),
        ),
        grant(
            "MeshTLSAuthentication",
            own(&[SERVER, &granted()]),
            MESHED.to_owned(),
            web(),
        ),
        grant(
            "NetworkAuthentication",
            own(&[
                SERVER,
                &policy("p", "Server cart", &["NetworkAuthentication near"]),
            ]),
            NETWORK.to_owned(),
            Ask::plain(),
        ),
        grant(
            "Federation",
            own(&[SERVER, MESHED, &granted()]),
            federated.to_owned(),
            Ask::identity("spiffe://other.example/ns/shop/sa/web"),
        ),
        grant(
            "CedarPolicy (permit)",
            own(&[SERVER]),
            cedar("CedarPolicy", PERMIT),
            web(),
        ),
        forbid("CedarPolicy"),
        forbid("ClusterCedarPolicy"),
        Case {
            kind: "HTTPRoute",
            others: own(&[SERVER, MESHED, &granted()]),
            one: route("r", "{value: /x}"),
            ask: web(),
            without: "allow",
            with: "route 404",
            closed: (web().path("/x"), "route 403"),
        },
        Case {
            kind: "GRPCRoute",
            others: own(&[&SERVER.replace("HTTP/1", "gRPC"), MESHED, &granted()]),
            one: grpc_route,
            ask: web().grpc("/a.B/D"),
            without: "allow",
            with: "route 404",
            closed: (web().grpc("/a.B/C"), "route 403"),
        },
        Case {
            kind: "HTTPLocalRateLimitPolicy",
            others: own(&[&either, MESHED, &granted()]),
            one: limit.to_owned(),
            ask: web().tcp(),
            without: "allow",
            with: "server -",
            closed: (web().tcp(), "server -"),
        },
    ]
}

impl Case {
    fn parts(&self, one: &str) -> Vec<String> {
        let mut parts = vec![SHOP.to_owned()];
        parts.extend(self.others.iter().cloned());
        parts.push(one.to_owned());
        parts
    }

    /// What is in force, and the candidate.
    fn worlds(&self, one: &str) -> (World, Option<World>) {
        let parts = self.parts(one);
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        (World::of(&parts), candidate(&parts))
    }
}

#[test]
fn what_is_to_be_added_is_not_in_force_and_what_is_to_be_removed_is() {
    for case in cases() {
        let kind = case.kind;
        let (plain, none) = case.worlds(&case.one);
        assert_eq!(plain.answer(&case.ask), case.with, "{kind} as it is");
        assert!(none.is_none(), "{kind}: no annotation, no candidate");
        for (value, in_force, candidate) in [
            ("add", case.without, case.with),
            ("remove", case.with, case.without),
        ] {
            let (live, tried) = case.worlds(&shadowed(&case.one, value));
            let tried = tried.unwrap();
            assert_eq!(live.answer(&case.ask), in_force, "{kind} {value}");
            assert_eq!(
                tried.answer(&case.ask),
                candidate,
                "{kind} {value}, candidate"
            );
            assert_eq!(live.findings("MESH-0338").len(), 1, "{kind} {value}");
            let (mine, its) = (
                live.snapshot("shop", "cart"),
                tried.snapshot("shop", "cart"),
            );
            assert!(beside(its, &mine).is_some(), "{kind} {value}");
            let (mine, its) = (live.snapshot("shop", "web"), tried.snapshot("shop", "web"));
            let concerns_all = ["Federation", "CedarPolicy", "ClusterCedarPolicy"];
            let same = beside(its, &mine).is_none();
            assert!(
                same || concerns_all.contains(&kind.split(' ').next().unwrap()),
                "{kind}"
            );
        }
    }
}

#[test]
fn a_value_that_is_none_or_nearly_the_annotation_leaves_the_object_in_force_and_closes() {
    let name = "mesh.internal/shadow";
    for case in cases() {
        for (name, value) in [
            (name, "Add"),
            (name, "'add '"),
            (name, "''"),
            (name, "candidate"),
            (name, "'true'"),
            ("mesh.internal/shadows", "add"),
            ("mesh.internal/Shadow", "add"),
            ("mesh.interal/shadow", "remove"),
        ] {
            let what = format!("{} with {name}: {value}", case.kind);
            let (live, tried) = case.worlds(&annotated(&case.one, name, value));
            let (ask, closed) = &case.closed;
            assert_eq!(live.answer(ask), *closed, "{what}");
            assert!(
                live.errors().contains(&"MESH-0339"),
                "{what}: {:?}",
                live.errors()
            );
            assert!(tried.is_none(), "{what}: nothing is tried");
            let found = live.findings("MESH-0339")[0];
            assert!(found.hint.is_some() && found.object.is_some(), "{found:?}");
        }
    }
}

#[test]
fn a_value_of_another_type_leaves_the_object_in_force_and_closes() {
    for case in cases() {
        for value in ["true", "[add]", "{add: true}", "1"] {
            let what = format!("{} with {value}", case.kind);
            let (live, tried) = case.worlds(&shadowed(&case.one, value));
            // Of a policy in Cedar that is not read whole nobody knows what it forbids: more may close than its own.
            assert_ne!(live.answer(&case.closed.0), "allow", "{what}");
            assert!(!live.errors().is_empty() && tried.is_none(), "{what}");
        }
    }
}

#[test]
fn a_faulty_object_of_the_candidate_closes_there_and_nowhere_else() {
    let open = [SHOP, SERVER, MESHED, &granted()].map(str::to_owned);
    for (what, one, code) in [
        (
            "a Server without selector",
            SERVER
                .replace("podSelector", "podSelektor")
                .replace("{name: cart,", "{name: other,"),
            "MESH-0369",
        ),
        (
            "a policy in Cedar that cannot be read whole",
            cedar("CedarPolicy", PERMIT).replace("spec:", "specs:"),
            "MESH-0329",
        ),
        (
            "a forbid that cannot be evaluated",
            cedar(
                "CedarPolicy",
                "forbid (principal, action, resource) when { context.nothing };",
            ),
            "MESH-0323",
        ),
    ] {
        let one = shadowed(&one, "add");
        let mut parts: Vec<&str> = open.iter().map(String::as_str).collect();
        parts.push(&one);
        let (live, tried) = (World::of(&parts), candidate(&parts).unwrap());
        let ask = Ask::meshed("shop/web");
        assert_eq!(live.answer(&ask), "allow", "{what}");
        assert_eq!(live.findings(code).len(), 0, "{what}");
        let beside = tried.index.findings_beside(&live.index);
        let found = beside.iter().find(|found| found.code == code);
        assert!(
            found.unwrap().message.starts_with("in the candidate: "),
            "{what}"
        );
    }
}

#[test]
fn an_annotation_in_a_document_that_cannot_be_read_whole_counts_for_nothing() {
    let twice = SERVER.replace("HTTP/1", "HTTP/1, proxyProtocol: HTTP/1");
    for value in ["add", "remove"] {
        let one = shadowed(&twice, value);
        let parts = [SHOP, &one, MESHED, &granted()];
        let live = World::of(&parts);
        assert_eq!(
            live.answer(&Ask::meshed("shop/web")),
            "server 403",
            "{value}"
        );
        assert!(candidate(&parts).is_none(), "{value}");
        assert_eq!(live.findings("MESH-0338").len(), 0, "{value}");
    }
}

#[test]
fn what_is_in_force_is_not_granted_by_what_is_not() {
    let meshed = shadowed(MESHED, "add");
    let parts = [SHOP, SERVER, &meshed, &granted()];
    let live = World::of(&parts);
    assert_eq!(live.answer(&Ask::meshed("shop/web")), DENIED);
    assert_eq!(live.errors(), ["MESH-0364"]);
    // A forbid in force that mentions a set of the candidate cannot be evaluated, so it closes.
    let mentions = "forbid(principal in Mesh::IdentitySet::\"MeshTLSAuthentication/shop/meshed\", action, resource);";
    let forbid = cedar("CedarPolicy", mentions);
    let live = World::of(&[SHOP, SERVER, &meshed, &forbid]);
    assert_eq!(live.errors(), ["MESH-0326"]);
    assert_eq!(live.answer(&Ask::meshed("shop/web")), "forbid 403");
}

#[test]
fn two_objects_of_one_name_are_two_whichever_set_they_are_part_of() {
    let narrower = shadowed(&granted(), "add");
    let parts = [SHOP, SERVER, MESHED, &granted(), &narrower];
    let live = World::of(&parts);
    assert_eq!(live.answer(&Ask::meshed("shop/web")), DENIED);
    assert!(live.errors().contains(&"MESH-0361"));
}

#[test]
fn what_is_not_tried_cannot_be_annotated() {
    let egress = "apiVersion: policy.linkerd.io/v1alpha1\nkind: EgressNetwork\nmetadata: {name: e, namespace: shop}\nspec: {trafficPolicy: Allow}\n";
    let denies = |world: &World| {
        let egress = world.snapshot("shop", "cart").egress;
        egress.iter().any(|network| network.invalid.is_some())
    };
    assert!(!denies(&World::of(&[SHOP, egress])));
    for value in ["add", "remove", "other"] {
        let parts = [SHOP, &shadowed(egress, value)];
        let live = World::of(&parts);
        assert!(denies(&live), "{value}");
        assert_eq!(live.errors(), ["MESH-0339"], "{value}");
        assert!(candidate(&parts).is_none(), "{value}");
        // What runs is not a matter of policy: said, and as it is.
        let account = shadowed(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: x, namespace: shop}\n",
            value,
        );
        let live = World::of(&[SHOP, SERVER, MESHED, &granted(), &account]);
        assert_eq!(live.answer(&Ask::meshed("shop/web")), "allow", "{value}");
        assert_eq!(live.errors(), ["MESH-0339"], "{value}");
    }
}

#[test]
fn statuses_of_what_is_the_candidates_alone_say_so() {
    let one = shadowed(&granted(), "add");
    let of_route = shadowed(&route("r", "{value: /x}"), "add");
    let gone = shadowed(MESHED, "remove");
    let parts = [SHOP, SERVER, &gone, &one, &of_route];
    let (live, tried) = (World::of(&parts), candidate(&parts).unwrap());
    let in_force = live.index.object_statuses();
    assert!(in_force.iter().all(|one| one.reach != Reach::Candidate));
    assert_eq!(
        in_force.len(),
        2,
        "the Server, and what is removed in the candidate"
    );
    let (objects, routes) = tried.index.statuses_beside();
    assert_eq!((objects.len(), routes.len()), (2, 1));
    for status in &objects {
        assert_eq!(status.reach, Reach::Candidate);
        assert!(status.accepted.holds, "{status:?}");
        assert!(
            status.doubts.starts_with("it is a candidate only"),
            "{}",
            status.doubts
        );
    }
    assert!(routes[0].parents[0].accepted.holds, "{routes:?}");
    assert!(
        objects.iter().any(|one| !one.resolved.holds),
        "its authentication is removed there"
    );
}
