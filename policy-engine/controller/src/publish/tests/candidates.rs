//! Candidates beside what is in force: who gets one, and that neither set is changed by the other.

use super::*;
use serde_json::{Value, json};

const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: NAME, namespace: shop, labels: {app: NAME}}, spec: {serviceAccountName: NAME, containers: [{name: app, ports: [{containerPort: 80}]}]}}";
const SERVER: &str = "{apiVersion: policy.linkerd.io/v1beta3, kind: Server, metadata: {name: cart, namespace: shop}, spec: {podSelector: {matchLabels: {app: cart}}, port: 80, accessPolicy: all-authenticated}}";

/// The pods `cart` and `web`, and a Server of `cart` with a value of the annotation; none if empty.
fn shop(value: &str) -> BTreeMap<String, Vec<u8>> {
    let annotation = format!("metadata: {{annotations: {{mesh.internal/shadow: {value}}}, ");
    let server = match value {
        "" => SERVER.to_owned(),
        _ => SERVER.replace("metadata: {", &annotation),
    };
    let texts = [
        ("cart.yaml", POD.replace("NAME", "cart")),
        ("web.yaml", POD.replace("NAME", "web")),
        ("server.yaml", server),
    ];
    texts
        .map(|(name, text)| (name.to_owned(), text.into_bytes()))
        .into()
}

fn key(name: &str) -> WorkloadKey {
    WorkloadKey {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

fn read(encoded: &Encoded) -> Option<SnapshotData> {
    Some(serde_json::from_slice(&encoded.json()).unwrap())
}

/// Whether a named Server speaks for the port of `cart`: in what is in force, and in the candidate.
fn speaks(published: &Published) -> (bool, Option<bool>) {
    let update = &published.workloads[&key("cart")].update;
    let named = |data: SnapshotData| !data.ports[&80].server.default;
    let candidate = update.candidate.as_ref().and_then(read);
    (
        read(&update.policy).is_some_and(named),
        candidate.map(named),
    )
}

#[test]
fn only_whom_the_candidate_concerns_gets_it_and_only_while_there_is_one() {
    let plain = publish(&sources(&shop("")), 1, None);
    assert_eq!(speaks(&plain), (true, None));
    let removed = publish(&sources(&shop("remove")), 2, Some(&plain));
    assert_eq!(speaks(&removed), (true, Some(false)));
    assert_eq!(removed.changed_workloads(Some(&plain)), 1);
    let web = |published: &Published| Arc::clone(&published.workloads[&key("web")].update);
    assert_eq!(web(&plain).candidate, None);
    assert!(Arc::ptr_eq(&web(&plain), &web(&removed)));
    let candidate = &removed.workloads[&key("cart")].update.candidate;
    let candidate = read(candidate.as_ref().unwrap());
    assert_eq!(candidate.unwrap().generation, Generation(2));
    let added = publish(&sources(&shop("add")), 3, Some(&removed));
    assert_eq!(speaks(&added), (false, Some(true)));
    let gone = publish(&sources(&shop("")), 4, Some(&added));
    assert_eq!(speaks(&gone), (true, None));
}

#[test]
fn a_change_of_the_candidate_alone_is_sent_and_leaves_the_policy_as_it_was() {
    let mut files = shop("add");
    files.remove("server.yaml");
    let before = publish(&sources(&files), 1, None);
    let after = publish(&sources(&shop("add")), 2, Some(&before));
    let (old, new) = (
        &before.workloads[&key("cart")],
        &after.workloads[&key("cart")],
    );
    assert_eq!(old.policy_digest, new.policy_digest);
    assert!(!Arc::ptr_eq(&old.update, &new.update));
    assert_eq!(
        old.carried, new.carried,
        "what is not in force is carried by nobody"
    );
}

#[test]
fn what_is_wrong_in_the_candidate_alone_is_a_finding_and_closes_nothing() {
    let mut files = shop("");
    let dangling = "{apiVersion: policy.linkerd.io/v1alpha1, kind: AuthorizationPolicy, metadata: {name: p, namespace: shop, annotations: {mesh.internal/shadow: add}}, spec: {targetRef: {group: policy.linkerd.io, kind: Server, name: ghost}, requiredAuthenticationRefs: [{kind: ServiceAccount, name: web}]}}";
    let before = publish(&sources(&files), 1, None);
    files.insert("p.yaml".to_owned(), dangling.as_bytes().to_vec());
    let after = publish(&sources(&files), 2, Some(&before));
    let found = after
        .findings
        .iter()
        .find(|found| found.code == "MESH-0364");
    let message = &found.unwrap().message;
    assert!(message.starts_with("in the candidate: "), "{message}");
    assert_eq!(
        after.changed_workloads(Some(&before)),
        0,
        "it grants nothing there either"
    );
}

#[test]
fn a_candidate_without_room_is_left_out_and_the_policy_sent() {
    let published = publish(&sources(&shop("remove")), 1, None);
    let update = &published.workloads[&key("cart")].update;
    let (policy, candidate) = (&update.policy, update.candidate.as_ref().unwrap());
    let whole = |discovery: usize| update.message(&key("cart"), vec![b'x'; discovery].into());
    let room = CANDIDATE_UPDATE_BYTES_MAX - policy.len() - candidate.len();
    for (discovery, sent) in [(0, true), (room, true), (room + 1, false)] {
        let message = whole(discovery);
        assert_eq!(message.snapshot_json, policy.json());
        assert_eq!(message.discovery_json.len(), discovery);
        assert_eq!(
            message.candidate_json,
            if sent { candidate.json() } else { Vec::new() }
        );
    }
    assert!(fits(&key("cart"), CANDIDATE_UPDATE_BYTES_MAX, 0));
    assert!(!fits(&key("cart"), CANDIDATE_UPDATE_BYTES_MAX, 1));
    assert!(!fits(&key("cart"), usize::MAX, 1));
}

/// Kinds that may be annotated.
const KINDS: &[&str] = &[
    "Server",
    "AuthorizationPolicy",
    "ServerAuthorization",
    "MeshTLSAuthentication",
    "NetworkAuthentication",
    "HTTPRoute",
    "GRPCRoute",
    "HTTPLocalRateLimitPolicy",
    "CedarPolicy",
    "ClusterCedarPolicy",
];

/// What is published of objects, each in a file of its own, so that what is left out moves no other.
fn published(objects: &[(Value, Option<&str>)], left_out: &str, annotated: bool) -> Published {
    let mut files = BTreeMap::new();
    for (place, (object, value)) in objects.iter().enumerate() {
        if *value == Some(left_out) {
            continue;
        }
        let mut object = object.clone();
        // Of one length, so that what follows stands where it stood.
        let name = match annotated {
            true => "mesh.internal/shadow",
            false => "example.test/nothing",
        };
        if let Some(value) = value {
            object["metadata"]["annotations"][name] = json!(value);
        }
        files.insert(format!("{place:04}.yaml"), object.to_string().into_bytes());
    }
    publish(&sources(&files), 7, None)
}

/// Policy of a workload without what is only told.
fn policy(published: &Published, key: &WorkloadKey) -> SnapshotData {
    let mut data = read(&published.workloads[key].update.policy).unwrap();
    data.findings.clear();
    data
}

#[test]
fn both_sets_of_random_meshes_are_what_they_would_be_without_the_other() {
    let (mut differing, mut same) = (0, 0);
    for seed in 0..40 {
        let mesh = Mesh::of(
            &Random::new(seed).bytes(2_048),
            Names::default(),
            Make::WithCedar,
            20,
        );
        let draws = Random::new(seed + 1_000).bytes(mesh.objects.len());
        let drawn = mesh.objects.into_iter().zip(draws).map(|(object, draw)| {
            let may = object["kind"]
                .as_str()
                .is_some_and(|kind| KINDS.contains(&kind));
            // In most meshes little differs, so that for some workloads nothing does.
            let value = match draw % if seed % 2 == 0 { 5 } else { 40 } {
                0 if may => Some("add"),
                1 if may => Some("remove"),
                _ => None,
            };
            (object, value)
        });
        let objects: Vec<_> = drawn.collect();
        let both = published(&objects, "", true);
        let live = published(&objects, "add", false);
        let tried = published(&objects, "remove", false);
        assert_eq!(
            both.discovery.discovery(),
            live.discovery.discovery(),
            "{seed}"
        );
        for (key, one) in &both.workloads {
            let (in_force, mut candidate) = (policy(&live, key), policy(&tried, key));
            assert_eq!(policy(&both, key), in_force, "{seed} {key:?}");
            candidate.egress.clone_from(&in_force.egress);
            let sent = one.update.candidate.as_ref().and_then(read);
            let sent = sent.map(|sent| SnapshotData {
                egress: in_force.egress.clone(),
                ..sent
            });
            let want = (candidate != in_force).then_some(candidate);
            assert_eq!(sent, want, "{seed} {key:?}");
            *if want.is_some() {
                &mut differing
            } else {
                &mut same
            } += 1;
        }
    }
    assert!(
        differing > 50 && same > 10,
        "{differing} differing, {same} same"
    );
}
