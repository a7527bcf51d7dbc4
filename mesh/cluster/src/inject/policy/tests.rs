//! The template of the policies: what it adds is what the webhook adds, what it refuses has every code, and nothing in it can
//! end a literal. Whether an API server reads it so, `tests/cluster/suites/injection-policy` says.

use super::cel::filled;
use super::checks::TEXT_CHARS_MAX;
use super::*;
use crate::inject::{Namespace, Outcome, decide};
use crate::install::{Values, objects};
use std::collections::BTreeSet;

/// What the chart renders with these values.
fn rendered(sets: &[&str]) -> Vec<Value> {
    let values = Values::default().set_all(sets).expect("allowed");
    objects(&values).expect("objects")
}

fn find<'o>(objects: &'o [Value], kind: &str, name: &str) -> &'o Value {
    objects
        .iter()
        .find(|o| o["kind"] == kind && o["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {kind} {name}"))
}

const BY_POLICY: &str = "injector.by=policy";

/// All expressions of a policy, each with a name.
fn expressions(policy: &Value) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    for variable in policy["spec"]["variables"].as_array().expect("variables") {
        out.push((text(&variable["name"]), text(&variable["expression"])));
    }
    for one in policy["spec"]["mutations"].as_array().into_iter().flatten() {
        out.push(("mutation".to_owned(), text(&one["jsonPatch"]["expression"])));
    }
    for one in policy["spec"]["validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        out.push(("validation".to_owned(), text(&one["expression"])));
        out.push(("message".to_owned(), text(&one["messageExpression"])));
    }
    out
}

fn policies() -> Vec<Value> {
    rendered(&[BY_POLICY])
        .into_iter()
        .filter(|o| {
            o["kind"]
                .as_str()
                .is_some_and(|kind| kind.ends_with("AdmissionPolicy"))
        })
        .filter(|o| {
            o["metadata"]["name"]
                .as_str()
                .is_some_and(|n| n.starts_with(POLICY))
        })
        .collect()
}

#[test]
fn a_literal_is_ended_by_nothing_in_it() {
    for (text, want) in [
        ("", r#""""#),
        ("plain", r#""plain""#),
        (r#"a"b"#, r#""a\"b""#),
        (r"a\b", r#""a\\b""#),
        ("a\nb", r#""a\nb""#),
        ("a\r\t\u{0}b", r#""a\U0000000d\U00000009\U00000000b""#),
        ("é\u{2028}…", r#""\U000000e9\U00002028\U00002026""#),
        ("$(POD_NAME) ${x} `y` 'z'", r#""$(POD_NAME) ${x} `y` 'z'""#),
        // Helm would begin there.
        ("{{ .Values.x }}", r#""{\u007b .Values.x }}""#),
        ("{{{", r#""{\u007b\u007b""#),
    ] {
        assert_eq!(literal(text), want, "{text:?}");
        assert!(!literal(text).contains("{{"));
    }
    assert_eq!(literals(["a", "\""]), r#"["a", "\""]"#);
}

#[test]
fn a_placeholder_becomes_an_expression_and_the_rest_stays_a_literal() {
    let holes = [
        Hole::new("AA", Filling::Text("v.a".to_owned())),
        Hole::new("BB", Filling::Number("v.b".to_owned())),
        Hole::new("CC", Filling::Optional("v.c".to_owned())),
        Hole::new("DD", Filling::Chart("{{ .Values.d }}")),
    ];
    for (text, want) in [
        ("", r#""""#),
        ("AA", "v.a"),
        ("x AA", r#""x " + v.a"#),
        ("AA\nBB\"", r#"v.a + "\n" + string(v.b) + "\"""#),
        ("AAAA", "v.a + v.a"),
        ("DD", r#""{{ .Values.d }}""#),
        ("x DD y DD", r#""x {{ .Values.d }} y {{ .Values.d }}""#),
        ("DDAA", r#""{{ .Values.d }}" + v.a"#),
        ("--c=CC", r#""--c=" + v.c"#),
    ] {
        assert_eq!(filled(text, &holes), want, "{text:?}");
    }
    assert_eq!(cel::condition("x CC", &holes).as_deref(), Some("v.c"));
    for text in ["x AA BB DD", "C C", ""] {
        assert_eq!(cel::condition(text, &holes), None, "{text}");
    }
    assert_eq!(cel::elided("AA and DD", &holes), "… and …");
}

/// A placeholder's value for one pod, in the place of the placeholder; `None` where it makes its element go.
fn instantiated(json: &Value, given: &[(Hole, String)]) -> Option<Value> {
    Some(match json {
        Value::Number(number) => {
            let number = number.to_string();
            match given.iter().find(|(hole, _)| hole.token == number) {
                Some((_, value)) => json!(value.parse::<u64>().expect("a number")),
                None => json.clone(),
            }
        }
        Value::String(text) => {
            let mut text = text.clone();
            for (hole, value) in given
                .iter()
                .filter(|(hole, _)| json.as_str().is_some_and(|t| t.contains(&hole.token)))
            {
                if value.is_empty() && matches!(hole.filling, Filling::Optional(_)) {
                    return None;
                }
                text = text.replace(&hole.token, value);
            }
            text.into()
        }
        Value::Array(items) => items
            .iter()
            .filter_map(|item| instantiated(item, given))
            .collect::<Vec<_>>()
            .into(),
        Value::Object(fields) => {
            let out: serde_json::Map<String, Value> = fields
                .iter()
                .filter_map(|(name, below)| {
                    let value = instantiated(below, given)?;
                    let empty = value.as_object().is_some_and(serde_json::Map::is_empty);
                    // As `optional.ofNonZeroValue` leaves out.
                    let drops = empty && ["requests", "limits"].contains(&name.as_str());
                    (!drops).then(|| (name.clone(), value))
                })
                .collect();
            out.into()
        }
        other => other.clone(),
    })
}

/// What stands in the place of each placeholder for a pod with these annotations, under these settings.
fn given(holes: &[Hole], settings: &Settings, proxy: &Proxy, service: &str) -> Vec<(Hole, String)> {
    let values = &proxy.resources;
    let of = |token_of: &str| -> String {
        let named: [(&str, &str); 14] = [
            ("log", &proxy.log_level),
            ("cpurequest", &values.cpu_request),
            ("cpulimit", &values.cpu_limit),
            ("memoryrequest", &values.memory_request),
            ("memorylimit", &values.memory_limit),
            ("protocol", &settings.proxy.traces_protocol),
            ("sample", &settings.proxy.traces_sample),
            ("service", &settings.proxy.traces_service),
            ("address", &settings.proxy.traces_address),
            ("image", &settings.image),
            ("pull", &settings.image_pull_policy),
            ("domain", &settings.trust_domain),
            ("label", service),
            ("subnets", &proxy.skip_subnets),
        ];
        let by_name = named.iter().find(|(name, _)| token(name) == token_of);
        match (by_name, token_of) {
            (Some((_, value)), _) => (*value).to_owned(),
            (None, "59991") => proxy.skip_inbound.to_string(),
            (None, "59992") => proxy.skip_outbound.to_string(),
            (None, "59993") => proxy.skip_udp.to_string(),
            (None, number) => {
                assert_eq!(
                    number,
                    UID_TOKEN.to_string(),
                    "a placeholder without a value"
                );
                proxy.uid.to_string()
            }
        }
    };
    holes
        .iter()
        .map(|hole| (hole.clone(), of(&hole.token)))
        .collect()
}

/// Each part of the patch is, with a pod's values in it, what the webhook adds to that pod.
#[test]
fn what_is_added_with_placeholders_is_what_the_webhook_adds() {
    let annotations: [&[(&str, &str)]; 6] = [
        &[],
        &[
            ("proxy-uid", "2102"),
            ("proxy-log-level", "info,mesh=debug"),
        ],
        &[
            ("skip-inbound-ports", "25, 9000-9010"),
            ("skip-subnets", "10.0.0.0/8,fd00::1"),
        ],
        &[
            ("skip-outbound-ports", "1"),
            ("skip-udp-ports", "53"),
            ("proxy-cpu-limit", "2"),
        ],
        &[("proxy-cpu-request", ""), ("proxy-memory-request", "")],
        &[("proxy-cpu-request", ""), ("proxy-memory-limit", "1Gi")],
    ];
    let installations: [(&[&str], Traces); 4] = [
        (&[], Traces::None),
        (
            &["proxy.tracesService=observability/collector:4317"],
            Traces::Service,
        ),
        (
            &[
                "proxy.tracesAddress=collector.example:4318",
                "proxy.tracesProtocol=http",
            ],
            Traces::Address,
        ),
        (
            &[
                "proxy.uid=7",
                "trustDomain=prod.example",
                "image.tag=1.30",
                "proxy.cpuLimit=1",
            ],
            Traces::None,
        ),
    ];
    for (sets, traces) in installations {
        let settings = Settings::from(&Values::default().set_all(sets).expect("allowed"));
        for pairs in annotations {
            let own: BTreeMap<String, String> = pairs
                .iter()
                .map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned()))
                .collect();
            let proxy = settings
                .for_pod(&own, &BTreeMap::new(), &mut Vec::new())
                .expect("settings");
            let (all, template, holes) = placeholders(traces);
            let given = given(&holes, &settings, &proxy, "shop");
            let made: Vec<Value> = operations(&all, &template)
                .iter()
                .map(|op| json!({ "op": "add", "path": op.path, "value": instantiated(&op.value, &given) }))
                .collect();
            let mut pod = template_pod(&BTreeMap::new());
            pod["metadata"]["labels"]["app"] = "shop".into();
            let want = Addition::new(&pod, &proxy, &settings).patch();
            assert_eq!(made, want, "{sets:?} {pairs:?}");
        }
    }
}

#[test]
fn what_stands_already_is_not_written_over() {
    let (settings, proxy, _) = placeholders(Traces::None);
    let conditions: Vec<String> = operations(&settings, &proxy)
        .into_iter()
        .filter_map(|op| op.only_if)
        .collect();
    assert_eq!(
        conditions,
        ["!(\"cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes\" in variables.pod)"]
    );
}

#[test]
fn nothing_of_a_placeholder_is_left() {
    let text = template();
    for left in [
        "Xq0",
        "0qX",
        "59991",
        "59992",
        "59993",
        "59999",
        &UID_TOKEN.to_string(),
    ] {
        assert!(!text.contains(left), "{left}");
    }
    // A real addition has none of the numbers that stand for others.
    let pod = json!({ "metadata": { "annotations": { INJECT: "enabled" } }, "spec": { "containers": [{ "name": "a" }] } });
    let Outcome::Inject(addition) = decide(
        &pod,
        &Namespace::default(),
        &Settings::from(&Values::default()),
    )
    .outcome
    else {
        panic!("not injected");
    };
    let real = Value::from(addition.patch()).to_string();
    for number in ["59991", "59992", "59993", "59999", &UID_TOKEN.to_string()] {
        assert!(!real.contains(number), "{number}");
    }
}

#[test]
fn the_template_says_nothing_to_helm_that_it_should_not() {
    for (index, line) in template().lines().enumerate() {
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("{{") {
            let (action, after) = after.split_once("}}").expect("closed on its line");
            let action = action.trim_start_matches('-').trim();
            let known = action.starts_with(".Values.")
                || ["else", "end", "if eq .Values.injector.by \"policy\""].contains(&action)
                || action.starts_with("if .Values.proxy.traces");
            assert!(known, "line {}: {action}", index + 1);
            rest = after;
        }
        assert!(!line.contains('\t'), "line {}", index + 1);
    }
}

#[test]
fn every_code_that_refuses_a_pod_is_said_by_the_policy() {
    let all = policies();
    let refusing = find(&all, "ValidatingAdmissionPolicy", POLICY);
    let mut codes = BTreeSet::new();
    for one in refusing["spec"]["validations"]
        .as_array()
        .expect("validations")
    {
        let message = one["message"].as_str().expect("a message");
        assert!(!message.contains('\n') && message.len() < 1000, "{message}");
        codes.insert(message.split(':').next().unwrap_or_default().to_owned());
    }
    // MESH-0749 is a pod that is none: the API server refuses it itself.
    let want: BTreeSet<String> = (740..=748)
        .chain([754])
        .map(|code| format!("MESH-0{code}"))
        .collect();
    assert_eq!(codes, want);
}

#[test]
fn every_setting_is_read_from_all_four_places_and_refused() {
    let all = policies();
    for kind in ["MutatingAdmissionPolicy", "ValidatingAdmissionPolicy"] {
        let policy = find(&all, kind, POLICY);
        let named: BTreeMap<String, String> = expressions(policy).into_iter().collect();
        for name in KNOWN {
            let id = name.replace('-', "_");
            let text = &named[&format!("text_{id}")];
            let places: Vec<usize> = [
                format!("\"{PREFIX}{name}\" in variables.pod"),
                format!("\"{LINKERD_CONFIG}{name}\" in variables.pod"),
                format!("\"{PREFIX}{name}\" in variables.home"),
                format!("\"{LINKERD_CONFIG}{name}\" in variables.home"),
            ]
            .iter()
            .map(|place| text.find(place.as_str()).expect("the place"))
            .collect();
            assert!(places.is_sorted(), "{name}: {text}");
            let fits = &named[&format!("fits_{id}")];
            let bound = format!("size(variables.text_{id}) <= {TEXT_CHARS_MAX} &&");
            assert!(fits.contains(&bound), "{name}: {fits}");
            assert!(named.contains_key(&id), "{name}");
        }
    }
    // Each is a condition of what is added, and refused by itself.
    let added = find(&all, "MutatingAdmissionPolicy", POLICY);
    let adds = expressions(added)
        .into_iter()
        .find(|(name, _)| name == "adds")
        .expect("adds")
        .1;
    let refusing = expressions(find(&all, "ValidatingAdmissionPolicy", POLICY));
    let checks: Vec<&String> = refusing
        .iter()
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("fits_"))
        .collect();
    assert!(checks.len() > 20);
    for check in checks.iter().filter(|name| **name != "fits_switch") {
        assert!(
            adds.contains(&format!("variables.{check}")),
            "{check} does not keep from adding"
        );
        let validation = format!("!variables.asks || variables.{check}");
        assert!(
            refusing.iter().any(|(_, text)| *text == validation),
            "{check} is refused by nothing"
        );
    }
    assert!(
        refusing
            .iter()
            .any(|(_, text)| text == "variables.fits_switch")
    );
    // The last word: who asks has one.
    let last = refusing
        .iter()
        .rev()
        .find(|(name, _)| name == "validation")
        .expect("a validation");
    assert_eq!(last.1, "!variables.asks || variables.meshed");
}

#[test]
fn variables_are_declared_before_they_are_used() {
    for policy in policies() {
        let mut known: BTreeSet<String> = BTreeSet::new();
        for (name, expression) in expressions(&policy) {
            for part in expression.split("variables.").skip(1) {
                let used: String = part
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                    .collect();
                assert!(known.contains(&used), "{name} uses {used}");
            }
            known.insert(name);
        }
    }
}

#[test]
fn policies_refuse_and_fail_closed_and_only_warnings_are_let_go() {
    let all = rendered(&[BY_POLICY]);
    let of = |kind: &str, name: &str| find(&all, kind, name)["spec"].clone();
    let adds = of("MutatingAdmissionPolicy", POLICY);
    assert_eq!(
        (&adds["failurePolicy"], &adds["reinvocationPolicy"]),
        (&json!("Fail"), &json!("Never"))
    );
    assert_eq!(
        of("ValidatingAdmissionPolicy", POLICY)["failurePolicy"],
        "Fail"
    );
    assert_eq!(
        of("ValidatingAdmissionPolicyBinding", POLICY)["validationActions"],
        json!(["Deny"])
    );
    assert_eq!(
        of("ValidatingAdmissionPolicy", WARNINGS)["failurePolicy"],
        "Ignore"
    );
    assert_eq!(
        of("ValidatingAdmissionPolicyBinding", WARNINGS)["validationActions"],
        json!(["Warn"])
    );
    for (kind, name) in [
        ("MutatingAdmissionPolicyBinding", POLICY),
        ("ValidatingAdmissionPolicyBinding", POLICY),
        ("ValidatingAdmissionPolicyBinding", WARNINGS),
    ] {
        let binding = of(kind, name);
        assert_eq!(binding["policyName"], name);
        // Nothing narrows what the policy matches.
        assert!(binding.get("matchResources").is_none() && binding.get("paramRef").is_none());
    }
}

#[test]
fn policies_look_at_the_namespaces_that_the_webhook_looks_at() {
    let with = rendered(&[]);
    let webhook = &find(&with, "MutatingWebhookConfiguration", WEBHOOKS)["webhooks"][0];
    assert!(
        webhook["namespaceSelector"]["matchExpressions"]
            .as_array()
            .expect("a list")
            .len()
            >= 3
    );
    for policy in policies() {
        let constraints = &policy["spec"]["matchConstraints"];
        assert_eq!(
            constraints["namespaceSelector"],
            webhook["namespaceSelector"]
        );
        assert_eq!(constraints["resourceRules"], webhook["rules"]);
        assert!(policy["spec"].get("matchConditions").is_none());
    }
}

#[test]
fn one_of_both_is_installed_and_policies_of_the_mesh_are_checked_either_way() {
    let kinds = |objects: &[Value]| -> BTreeSet<String> {
        let of_admission = objects.iter().filter(|o| {
            o["apiVersion"] == API_VERSION
                && o["metadata"]["name"]
                    .as_str()
                    .is_some_and(|n| n.starts_with(WEBHOOKS))
        });
        of_admission
            .map(|o| o["kind"].as_str().expect("a kind").to_owned())
            .collect()
    };
    let (by_webhook, by_policy) = (kinds(&rendered(&[])), kinds(&rendered(&[BY_POLICY])));
    assert!(by_webhook.contains("MutatingWebhookConfiguration"));
    assert!(
        !by_webhook
            .iter()
            .any(|kind| kind.contains("AdmissionPolicy")),
        "{by_webhook:?}"
    );
    assert!(!by_policy.contains("MutatingWebhookConfiguration"));
    assert!(by_policy.contains("MutatingAdmissionPolicyBinding"));
    assert!(
        [by_webhook, by_policy]
            .iter()
            .all(|kinds| kinds.contains("ValidatingWebhookConfiguration"))
    );
    // An injector that waits for a webhook that is not there would never be ready.
    let flag = json!("--policies-only");
    for (sets, want) in [(&[][..], false), (&[BY_POLICY][..], true)] {
        let all = rendered(sets);
        let injector = find(&all, "Deployment", "mesh-injector");
        let args = injector["spec"]["template"]["spec"]["containers"][0]["args"].clone();
        assert_eq!(args.as_array().expect("args").contains(&flag), want);
    }
}

#[test]
fn what_a_policy_cannot_be_is_refused() {
    for sets in [
        &["injector.by=Policy"][..],
        &["injector.by="],
        &["injector.by=webhook,policy"],
        &["injector.by=true"],
        &["injector.by=policy", "injector.failurePolicy=Ignore"],
        &["injector.failurePolicy=Ignore", "injector.by=policy"],
        // A value becomes a part of a literal.
        &["injector.by=policy", "image.name=x\" + \"y"],
        &["injector.by=policy", "image.tag=a\\"],
        &["injector.by=policy", "trustDomain=a\"b"],
        &["injector.by=policy", "proxy.logLevel=info\\"],
        &["injector.by=policy", "proxy.logLevel=\"info"],
        &["injector.by=policy", "proxy.cpuLimit=1\""],
        &["injector.by=policy", "proxy.memoryRequest=1\n"],
        &["injector.by=policy", "proxy.tracesAddress=a\":1"],
        &["injector.by=policy", "proxy.tracesService=a/b\":1"],
        &["injector.by=policy", "proxy.tracesSample=0.1\""],
    ] {
        assert!(Values::default().set_all(sets).is_err(), "{sets:?}");
    }
    assert!(Values::default().set(BY_POLICY).is_ok());
}

#[test]
fn objects_are_small_enough_to_be_applied_and_expressions_to_be_read() {
    for policy in policies() {
        let name = &policy["metadata"]["name"];
        // `kubectl apply` writes the whole object into an annotation, of which there may be 256 KiB.
        assert!(
            policy.to_string().len() < 100 << 10,
            "{name}: {}",
            policy.to_string().len()
        );
        for (what, expression) in expressions(&policy) {
            assert!(
                expression.len() < 8 << 10,
                "{name} {what}: {}",
                expression.len()
            );
        }
    }
}

#[test]
fn everything_that_the_webhook_warns_of_is_warned_of() {
    let all = policies();
    let warning = find(&all, "ValidatingAdmissionPolicy", WARNINGS);
    let said: Vec<&str> = warning["spec"]["validations"]
        .as_array()
        .expect("validations")
        .iter()
        .map(|one| one["message"].as_str().expect("a message"))
        .collect();
    let count = |code: &str| said.iter().filter(|text| text.starts_with(code)).count();
    assert_eq!(
        (count("MESH-0737"), count("MESH-0738"), count("MESH-0739")),
        (2, 4, 4)
    );
    assert_eq!(said.len(), 10);
}
