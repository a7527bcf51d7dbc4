//! Policies written in Cedar: whom they bear on, and what of them holds when something is wrong.

use crate::world::{MESHED, SERVER, SHOP, World};
use mesh_policy::snapshot::{CedarText, Effect, Source};
use mesh_policy_index::WorkloadKey;

const BANK: &str = "
apiVersion: v1
kind: Pod
metadata: {name: ledger, namespace: bank, labels: {app: ledger}}
spec: {containers: [{name: app, ports: [{containerPort: 8080}]}]}
";

pub(crate) const PERMIT: &str = "permit(principal, action, resource);";
pub(crate) const FORBID: &str = "forbid(principal, action, resource);";

/// An object of a Cedar kind; `spec` is its spec without the text.
pub(crate) fn object(kind: &str, meta: &str, spec: &str, text: &str) -> String {
    let lines: String = text.lines().map(|l| format!("    {l}\n")).collect();
    format!(
        "apiVersion: mesh.internal/v1alpha1\nkind: {kind}\nmetadata: {{{meta}}}\nspec:\n{spec}  cedar: |\n{lines}"
    )
}

pub(crate) fn cedar(text: &str) -> String {
    object("CedarPolicy", "name: x, namespace: shop", "", text)
}

fn cluster(text: &str) -> String {
    object("ClusterCedarPolicy", "name: rails", "", text)
}

/// The Cedar texts of a workload.
pub(crate) fn texts(world: &World, namespace: &str, name: &str) -> Vec<CedarText> {
    world.snapshot(namespace, name).cedar_policies
}

/// Id, effect and whether each can be evaluated.
fn short(world: &World, namespace: &str, name: &str) -> Vec<String> {
    let one = |t: &CedarText| {
        let effect = match t.effect {
            Effect::Permit => "permit",
            Effect::Forbid if t.invalid.is_some() => "CLOSED",
            Effect::Forbid => "forbid",
        };
        assert!(
            t.effect == Effect::Forbid || t.invalid.is_none(),
            "a permit that is invalid is not sent"
        );
        format!("{} {effect}", t.id)
    };
    texts(world, namespace, name).iter().map(one).collect()
}

/// What workloads of `shop` and of `bank` get.
fn both(objects: &[&str]) -> (Vec<String>, Vec<String>) {
    let mut parts = vec![SHOP, SERVER, MESHED, BANK];
    parts.extend(objects);
    let world = World::of(&parts);
    (
        short(&world, "shop", "cart"),
        short(&world, "bank", "ledger"),
    )
}

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn a_workload_gets_the_policies_of_its_namespace_and_the_cluster_wide_ones_by_id() {
    let own = cedar(&format!("@id(\"zero\")\n{PERMIT}\n{FORBID}"));
    let rails = cluster(FORBID);
    let other = object("CedarPolicy", "name: x, namespace: bank", "", PERMIT);
    let (shop, bank) = both(&[&own, &rails, &other]);
    assert_eq!(
        shop,
        [
            "CedarPolicy/shop/x/1 forbid",
            "CedarPolicy/shop/x/zero permit",
            "ClusterCedarPolicy//rails/0 forbid"
        ]
    );
    assert_eq!(
        bank,
        [
            "CedarPolicy/bank/x/0 permit",
            "ClusterCedarPolicy//rails/0 forbid"
        ]
    );
}

#[test]
fn a_text_goes_as_it_was_written_with_its_boundary_beside_it() {
    let world = World::of(&[
        SHOP,
        &cedar(
            "// first\n@audit(\"true\")\npermit(\n  principal,\n  action,\n  resource\n) when { context.conn.tls };",
        ),
        &cluster(FORBID),
    ]);
    let found = texts(&world, "shop", "cart");
    let [own, rails] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(
        own.text,
        "@audit(\"true\")\npermit(\n  principal,\n  action,\n  resource\n) when { context.conn.tls };"
    );
    assert!(own.audit && !rails.audit);
    assert_eq!(own.confined_to.as_deref(), Some("shop"));
    assert_eq!(rails.confined_to, None);
    let Source::File { line, end_line, .. } = own.source else {
        panic!("a file")
    };
    assert_eq!(end_line - line, 5);
    assert_eq!(world.errors(), Vec::<&str>::new());
}

#[test]
fn an_object_that_cannot_be_read_whole_closes_all_that_it_might_cover() {
    let sound = cedar(&format!("{PERMIT} {FORBID}"));
    for (broken, what) in [
        (sound.replace("  cedar: |", "  cedra: |"), "no text"),
        (sound.replace("spec:", "spec:\n  newer: 1"), "a field of another version"),
        (sound.replace("spec:", "more: 1\nspec:"), "an unknown field"),
        (sound.replace("v1alpha1", "v1beta9"), "a version that is not read"),
        (sound.replace("spec:", "spec:\n  allowPermits: true"), "a field of the other kind"),
        (cedar("permit(principal, action, resource"), "a text that cannot be cut"),
        (cedar("// permit"), "a text without policy"),
        (cedar(&format!("{PERMIT} \"")), "a string without end"),
        (cedar(&format!("{FORBID} // {}", "x".repeat(70_000))), "a text that is too long"),
        (cedar(&format!("forbid(principal, action, resource) when {{ {} }};", "(".repeat(30_000))), "a bomb"),
        (cedar(&format!("permit(principal, action, resource) when {{ {}true }};", "!(".repeat(20_000))), "another"),
        (sound.replace("namespace: shop}", "namespace: shop, annotations: {a: 1}}"), "annotations that are none"),
        ("apiVersion: mesh.internal/v1alpha1\nkind: CedarPolicy\nmetadata: {name: x, namespace: shop}\nspec: {cedar: [a]}\n".into(), "a list"),
        ("apiVersion: mesh.internal/v1alpha1\nkind: CedarPolicy\nmetadata: {name: x, namespace: shop}\nspec: {cedar: a, cedar: b}\n".into(), "two texts"),
        ("apiVersion: mesh.internal/v1alpha1\nkind: CedarPolicy\nmetadata: {name: x, namespace: shop}\n".into(), "no spec"),
        ("apiVersion: mesh.internal/v1alpha1\nkind: CedarPolicy\nmetadata: {name: x, namespace: shop}\nspec: {cedar: \"\n".into(), "half a document"),
    ] {
        let (shop, bank) = both(&[&broken]);
        assert_eq!(shop, ["CedarPolicy/shop/x/* CLOSED"], "{what}");
        assert_eq!(bank, none(), "{what}");
        let world = World::of(&[SHOP, &broken]);
        assert!(!world.findings("MESH-0329").is_empty(), "{what}");
        let told = world.snapshot("shop", "cart").findings;
        assert!(told.iter().any(|f| f.code == "MESH-0329"), "{what}: explain knows");
    }
    let rails = cluster(FORBID).replace("cedar: |", "cedra: |");
    let (shop, bank) = both(&[&rails]);
    assert_eq!(shop, ["ClusterCedarPolicy//rails/* CLOSED"]);
    assert_eq!(bank, shop);
    let told = World::of(&[SHOP, &rails]).snapshot("shop", "cart").findings;
    assert!(told.iter().any(|f| f.code == "MESH-0329"));
}

#[test]
fn an_object_whose_namespace_cannot_be_read_closes_every_namespace() {
    for meta in [
        "name: x, namespace: [shop]",
        "name: x, namespace: Shop",
        "name: x, namespace: 1",
    ] {
        let broken = object("CedarPolicy", meta, "", FORBID);
        let (shop, bank) = both(&[&broken]);
        assert!(
            shop.iter()
                .any(|t| t.starts_with("document//") && t.ends_with("/* CLOSED")),
            "{meta}: {shop:?}"
        );
        assert!(
            bank.iter().any(|t| t.ends_with("CLOSED")),
            "{meta}: {bank:?}"
        );
    }
}

#[test]
fn a_document_of_unknown_kind_closes_if_it_may_have_been_a_cedar_policy() {
    let all = |text: &str| -> (usize, usize) {
        let (shop, bank) = both(&[text]);
        (shop.len(), bank.len())
    };
    for (text, want, what) in [
        (
            "apiVersion: mesh.internal/v1alpha1\nmetadata: {namespace: shop}\nspec: {}\n",
            (1, 0),
            "no kind, in a namespace",
        ),
        (
            "apiVersion: mesh.internal/v1alpha1\nmetadata: {name: x}\n",
            (1, 1),
            "no kind and no namespace",
        ),
        (
            "apiVersion: mesh.internal/v1alpha1\nkind: CedarPolcy\nmetadata: {name: x, namespace: shop}\n",
            (1, 0),
            "a misspelt kind",
        ),
        (
            "apiVersion: mesh.internal/v1alpha1\nkind: ClusterCedarPolicies\nmetadata: {name: x}\n",
            (1, 1),
            "a plural",
        ),
        (
            "apiVersion: mesh.internal/v1alpha1\nkind: [CedarPolicy]\nmetadata: {name: x, namespace: shop}\n",
            (1, 0),
            "a kind that is none",
        ),
        (
            "apiVersion: [\nkind: CedarPolicy\nspec: {cedar: 'forbid'}\n",
            (1, 1),
            "broken from the first line on",
        ),
        (
            "kind: CedarPolicy\nkind: Server\nmetadata: {name: x}\n",
            (1, 1),
            "two kinds",
        ),
        (
            "apiVersion: policy.linkerd.io/v1beta3\nkind: [Server]\nmetadata: {name: x}\nspec: [\n",
            (0, 0),
            "a Server that is none",
        ),
        (
            "apiVersion: [\nkind: ConfigMap\n",
            (0, 0),
            "broken, and no Cedar in it",
        ),
        (
            "apiVersion: mesh.internal/v1alpha1\nkind: Federation\nmetadata: {name: x}\nspec: {trustDomain: b.example}\n",
            (0, 0),
            "another kind of ours",
        ),
        (
            "apiVersion: other.example/v1\nkind: CedarPolicy\nmetadata: {name: x}\nspec: {cedar: 'forbid'}\n",
            (0, 0),
            "a kind of others",
        ),
    ] {
        assert_eq!(all(text), want, "{what}");
    }
    let utf16: Vec<u8> = "kind: CedarPolicy\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let loaded = mesh_policy_index::load([
        ("a.yaml".to_owned(), SHOP.as_bytes().to_vec()),
        (
            "b.yaml".to_owned(),
            [&[0xff, 0xfe], utf16.as_slice()].concat(),
        ),
    ]);
    let index = mesh_policy_index::Index::build(&loaded, &crate::world::config());
    let key = WorkloadKey {
        namespace: "shop".into(),
        name: "cart".into(),
    };
    let snapshot = index.snapshot(&key, Default::default()).unwrap();
    assert_eq!(snapshot.cedar_policies.len(), 1, "another encoding");
}

#[test]
fn lists_of_cedar_policies_are_read_and_a_broken_one_closes() {
    let list = "apiVersion: mesh.internal/v1alpha1\nkind: CedarPolicyList\nitems:\n- metadata: {name: x, namespace: shop}\n  spec: {cedar: 'forbid(principal, action, resource);'}\n";
    assert_eq!(both(&[list]).0, ["CedarPolicy/shop/x/0 forbid"]);
    let (shop, bank) = both(&[&format!("{list}- metadata: [\n")]);
    assert!(shop.iter().any(|t| t.ends_with("CLOSED")), "{shop:?}");
    assert!(bank.iter().any(|t| t.ends_with("CLOSED")), "{bank:?}");
}

#[test]
fn of_a_faulty_policy_a_permit_grants_nothing_and_a_forbid_closes() {
    for (condition, code) in [
        ("principal.ns == \"shop\"", "MESH-0323"),
        ("false", "MESH-0324"),
        ("resource in Mesh::Server::\"cart\"", "MESH-0335"),
        (
            "principal in Mesh::IdentitySet::\"MeshTLSAuthentication/shop/ghost\"",
            "MESH-0326",
        ),
        (
            "context.conn.nets.contains(Mesh::NetSet::\"NetworkAuthentication/shop/ghost\")",
            "MESH-0326",
        ),
    ] {
        let permit = cedar(&format!(
            "permit(principal, action, resource) when {{ {condition} }};"
        ));
        assert_eq!(both(&[&permit]).0, none(), "{condition}");
        let forbid = permit.replace("permit(", "forbid(");
        let (shop, bank) = both(&[&forbid]);
        assert_eq!(shop, ["CedarPolicy/shop/x/0 CLOSED"], "{condition}");
        assert_eq!(bank, none(), "{condition}");
        for text in [&permit, &forbid] {
            let world = World::of(&[SHOP, text]);
            assert_eq!(
                world.errors(),
                vec![code; world.errors().len()],
                "{condition}"
            );
            assert!(!world.errors().is_empty());
        }
    }
}

#[test]
fn a_policy_that_cannot_be_parsed_closes_unless_it_surely_is_a_permit() {
    for (text, want) in [
        ("permit(principal action, resource);", none()),
        ("permit(principal == ?principal, action, resource);", none()),
        (
            "forbid(principal action, resource);",
            vec!["CedarPolicy/shop/x/0 CLOSED".to_owned()],
        ),
        (
            "fobid(principal, action, resource);",
            vec!["CedarPolicy/shop/x/0 CLOSED".to_owned()],
        ),
        (
            "forbid(principal == ?principal, action, resource);",
            vec!["CedarPolicy/shop/x/0 CLOSED".to_owned()],
        ),
        (
            "permit(principal, action, resource)\nforbid(principal, action, resource);",
            vec!["CedarPolicy/shop/x/0 CLOSED".to_owned()],
        ),
        (
            "permit(principal, action, resource) when { \"a\" == \"b };\nforbid(principal, action, resource) when { \"a\" == \"b };",
            vec!["CedarPolicy/shop/x/0 CLOSED".to_owned()],
        ),
    ] {
        assert_eq!(both(&[&cedar(text)]).0, want, "{text}");
    }
}

#[test]
fn one_faulty_policy_takes_the_permits_of_its_object_and_leaves_its_forbids() {
    for (bad, also) in [
        (
            "permit(principal, action, resource) when { context.nothing };",
            None,
        ),
        ("permit(principal action, resource);", None),
        ("@id(\"A\") permit(principal, action, resource);", None),
        ("@audit(\"x\") permit(principal, action, resource);", None),
        (
            "@id(\"A\") forbid(principal, action, resource);",
            Some("CedarPolicy/shop/x/#2 forbid"),
        ),
        (
            "forbid(principal, action, resource) when { context.nothing };",
            Some("CedarPolicy/shop/x/2 CLOSED"),
        ),
    ] {
        let mut want = vec!["CedarPolicy/shop/x/1 forbid"];
        want.extend(also);
        want.sort_unstable();
        assert_eq!(
            both(&[&cedar(&format!("{PERMIT}\n{FORBID}\n{bad}"))]).0,
            want,
            "{bad}"
        );
    }
}

#[test]
fn an_update_that_breaks_an_object_takes_away_what_it_granted() {
    assert_eq!(both(&[&cedar(PERMIT)]).0, ["CedarPolicy/shop/x/0 permit"]);
    let broken = cedar(&PERMIT.replace("resource)", "resource) when { context.x }"));
    assert_eq!(both(&[&broken]).0, none());
}

#[test]
fn namesakes_grant_nothing_and_both_forbid() {
    let first = cedar(&format!("{PERMIT}\n{FORBID}"));
    let other = cedar(
        &format!("{PERMIT}\n{FORBID}")
            .replace("resource);", "resource) when { context.conn.tls };"),
    );
    assert_eq!(both(&[&first, &first]).0, ["CedarPolicy/shop/x/1 forbid"]);
    assert_eq!(
        both(&[&first, &other]).0,
        [
            "CedarPolicy/shop/x/1 forbid",
            "CedarPolicy/shop/x/1~2 forbid"
        ]
    );
    // Kinds are apart, and so are namespaces.
    let elsewhere = object("CedarPolicy", "name: x, namespace: bank", "", PERMIT);
    let rails = object(
        "ClusterCedarPolicy",
        "name: x",
        "  allowPermits: true\n",
        PERMIT,
    );
    let (shop, bank) = both(&[&first, &elsewhere, &rails]);
    assert_eq!((shop.len(), bank.len()), (3, 2));
}

#[test]
fn a_cluster_wide_permit_must_be_asked_for() {
    let mixed = format!("{PERMIT}\n{FORBID}");
    for (spec, permits) in [
        ("", false),
        ("  allowPermits: false\n", false),
        ("  allowPermits: true\n", true),
    ] {
        let rails = object("ClusterCedarPolicy", "name: rails", spec, &mixed);
        let (shop, bank) = both(&[&rails]);
        let mut want = vec!["ClusterCedarPolicy//rails/1 forbid"];
        if permits {
            want.insert(0, "ClusterCedarPolicy//rails/0 permit");
        }
        assert_eq!(
            (&shop, &bank),
            (&want.iter().map(|s| (*s).to_owned()).collect(), &shop),
            "{spec}"
        );
        let world = World::of(&[SHOP, &rails]);
        assert_eq!(
            world.findings("MESH-0328").len(),
            usize::from(!permits),
            "{spec}"
        );
    }
    // What is no boolean may have been meant as either.
    let unclear = object(
        "ClusterCedarPolicy",
        "name: rails",
        "  allowPermits: 'true'\n",
        &mixed,
    );
    assert_eq!(both(&[&unclear]).0, ["ClusterCedarPolicy//rails/* CLOSED"]);
    // A namespace there confines nothing; who writes it believes that it does.
    let stray = object(
        "ClusterCedarPolicy",
        "name: rails, namespace: shop",
        "  allowPermits: true\n",
        &mixed,
    );
    assert_eq!(both(&[&stray]).1, ["ClusterCedarPolicy//rails/1 forbid"]);
}

#[test]
fn sets_that_a_policy_mentions_travel_with_it() {
    let network = "apiVersion: policy.linkerd.io/v1alpha1\nkind: NetworkAuthentication\nmetadata: {name: n, namespace: shop}\nspec: {networks: [{cidr: 10.0.0.0/8}]}\n";
    let text = "forbid(principal, action, resource) unless {\n  principal in Mesh::IdentitySet::\"MeshTLSAuthentication/shop/meshed\" &&\n  context.conn.nets.contains(Mesh::NetSet::\"NetworkAuthentication/shop/n\")\n};";
    let world = World::of(&[SHOP, BANK, MESHED, network, &cluster(text)]);
    for (namespace, name) in [("shop", "cart"), ("bank", "ledger")] {
        let snapshot = world.snapshot(namespace, name);
        assert_eq!(snapshot.grants.len(), 0);
        assert!(
            snapshot
                .identity_sets
                .contains_key("MeshTLSAuthentication/shop/meshed")
        );
        assert!(
            snapshot
                .network_sets
                .contains_key("NetworkAuthentication/shop/n")
        );
    }
    // The set of an invalid authentication is no set; that of a policy which mentions it closes.
    let invalid = network.replace("10.0.0.0/8", "10.0.0.0/99");
    let world = World::of(&[SHOP, MESHED, &invalid, &cluster(text)]);
    assert_eq!(
        short(&world, "shop", "cart"),
        ["ClusterCedarPolicy//rails/0 CLOSED"]
    );
    assert_eq!(world.findings("MESH-0326").len(), 1);
    let own = World::of(&[SHOP, &cedar(PERMIT)]).snapshot("shop", "cart");
    assert!(
        own.identity_sets.is_empty(),
        "what nothing mentions stays at home"
    );
}

#[test]
fn what_is_not_there_or_not_ones_own_is_pointed_out() {
    for (mention, found) in [
        ("resource in Mesh::Server::\"shop/cart\"", 0),
        ("resource in Mesh::Server::\"shop/ghost\"", 1),
        ("resource in Mesh::Server::\"bank/ledger\"", 1),
        ("resource in Mesh::Server::\"default\"", 0),
        ("resource in Mesh::NamedServers::\"shop\"", 0),
        ("resource in Mesh::NamedServers::\"bank\"", 1),
    ] {
        let text = cedar(&format!(
            "permit(principal, action, resource) when {{ {mention} }};"
        ));
        let world = World::of(&[SHOP, SERVER, BANK, &text]);
        assert_eq!(world.findings("MESH-0333").len(), found, "{mention}");
        assert_eq!(world.errors(), Vec::<&str>::new(), "{mention}");
    }
    let route = cluster(
        "forbid(principal, action == Mesh::Action::\"request\", resource in Mesh::RouteObj::\"HTTPRoute/shop/ghost\");",
    );
    assert_eq!(World::of(&[SHOP, &route]).findings("MESH-0333").len(), 1);
}

#[test]
fn order_of_files_changes_nothing() {
    let parts = [
        SHOP.to_owned(),
        cedar(FORBID),
        cedar(PERMIT),
        cluster(FORBID),
        BANK.to_owned(),
    ];
    let files =
        |order: [usize; 5]| order.map(|n| (format!("{n}.yaml"), parts[n].clone().into_bytes()));
    let build = |order| {
        let loaded = mesh_policy_index::load(files(order));
        let index = mesh_policy_index::Index::build(&loaded, &crate::world::config());
        let key = WorkloadKey {
            namespace: "shop".into(),
            name: "cart".into(),
        };
        index.snapshot(&key, Default::default()).unwrap()
    };
    assert_eq!(build([0, 1, 2, 3, 4]), build([4, 2, 3, 1, 0]));
}

#[test]
fn more_policies_than_a_proxy_holds_close_in_place_of_being_refused_by_it() {
    let rails = |n: usize| {
        object(
            "ClusterCedarPolicy",
            "name: rails",
            "  allowPermits: true\n",
            &PERMIT.repeat(n),
        )
    };
    let own = cedar(&PERMIT.repeat(200));
    let (shop, bank) = both(&[&own, &rails(56)]);
    assert_eq!((shop.len(), bank.len()), (256, 56));
    let (shop, bank) = both(&[&own, &rails(57)]);
    assert_eq!(
        (shop, bank.len()),
        (vec!["CedarPolicy/shop/*/* CLOSED".to_owned()], 57)
    );
    let second = object(
        "ClusterCedarPolicy",
        "name: more",
        "  allowPermits: true\n",
        PERMIT,
    );
    let (shop, bank) = both(&[&rails(256), &second]);
    assert_eq!(
        (shop, bank),
        (
            vec!["CedarPolicy//*/* CLOSED".to_owned()],
            vec!["CedarPolicy//*/* CLOSED".to_owned()]
        )
    );
    let world = World::of(&[SHOP, &own, &rails(57)]);
    let told = world.snapshot("shop", "cart").findings;
    assert!(
        told.iter()
            .any(|f| f.code == "MESH-0329" && f.message.contains("256"))
    );
}
