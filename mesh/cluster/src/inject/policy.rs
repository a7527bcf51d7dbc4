//! The injection as admission policies: what [`super::decide`] says, in CEL, carried out by the API server itself.
//!
//! [`template`] makes a template of the chart, `mesh charts` writes it. What is added is taken from [`super::Addition`] of a pod
//! whose values are placeholders, so what the webhook adds the policy adds. What is refused is written again in CEL
//! ([`checks`]); `tests/cluster/suites/injection-policy` holds both against each other on a real API server.
//!
//! Three policies: one adds; one refuses what the webhook would refuse, and every pod that asks for a proxy and has none,
//! whatever became of the first; one warns.
//!
//! - [`cel`]: CEL as text, and placeholders
//! - [`patch`]: an addition as an expression
//! - [`checks`]: switch, settings and pod

mod cel;
mod checks;
mod patch;

use super::settings::{KNOWN, OF_POLICY, Ports, Proxy, Settings, unknown, warn_of_gaps};
use super::{Addition, Refusal, label_warning};
use crate::admission::sentence;
use crate::install::values::ProxyValues;
use crate::names::{
    INJECT, INJECTED_BY, LINKERD_CONFIG, LINKERD_INJECT, PART_OF, PART_OF_LABEL, PREFIX, WEBHOOKS,
};
use cel::{Filling, Hole, literal, literals, token};
use checks::{Check, UID_TOKEN, Variable, setting};
use patch::Operation;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Name of the policies that add and refuse, and of their bindings.
pub const POLICY: &str = WEBHOOKS;

/// Name of the policy that warns.
pub const WARNINGS: &str = "mesh-injector-warnings";

/// `apiVersion` of all of them: Kubernetes 1.36 serves it.
pub const API_VERSION: &str = "admissionregistration.k8s.io/v1";

/// The template whose selector of namespaces the policies share.
const WEBHOOKS_TEMPLATE: &str = include_str!("../../../../charts/mesh/templates/webhooks.yaml");

/// The template `policies.yaml` of the chart.
pub fn template() -> String {
    let (settings, setting_checks) = checks::settings();
    let (of_pod, pod_checks) = checks::pod();
    let switch = checks::switch();
    let mut variables = checks::asking();
    variables.push((switch.name.clone(), switch.holds.clone()));
    variables.extend(settings);
    variables.extend(of_pod);
    variables.push((
        "service".to_owned(),
        // What a label may be; what else somebody writes there is nobody's name.
        "[object.metadata.?labels.orValue({})].map(l, \"app.kubernetes.io/name\" in l ? l[\"app.kubernetes.io/name\"] : \"app\" in l ? l[\"app\"] : \"\")\n  .map(n, n.matches(\"^[A-Za-z0-9_.-]+$\") ? n : \"$(SERVICE_ACCOUNT)\")[0]".to_owned(),
    ));
    let needed: Vec<Check> = setting_checks.into_iter().chain(pod_checks).collect();
    let fits: Vec<String> = needed
        .iter()
        .map(|check| format!("variables.{}", check.name))
        .collect();
    let adds = format!(
        "variables.asks && !variables.meshed &&\n{}",
        fits.join(" &&\n")
    );
    let mut out = String::from("{{- if eq .Values.injector.by \"policy\" }}\n");
    out.push_str("# Made by `mesh charts`; a test compares. Who asks for a proxy gets it, by the API server alone.\n");
    head(&mut out, "MutatingAdmissionPolicy", POLICY);
    out.push_str("  failurePolicy: Fail\n  reinvocationPolicy: Never\n");
    constraints(&mut out);
    let mut all = variables.clone();
    all.push(("adds".to_owned(), adds));
    list(&mut out, &all);
    out.push_str("  mutations:\n  - patchType: JSONPatch\n    jsonPatch:\n      expression: |-\n");
    out.push_str("        !variables.adds ? [] :\n");
    let tracing = [Traces::Service, Traces::Address, Traces::None];
    for traces in tracing {
        out.push_str(match traces {
            Traces::Service => "{{- if .Values.proxy.tracesService }}\n",
            Traces::Address => "{{- else }}\n{{- if .Values.proxy.tracesAddress }}\n",
            Traces::None => "{{- else }}\n",
        });
        indented(&mut out, 8, &mutation(traces));
    }
    out.push_str("{{- end }}\n{{- end }}\n---\n");
    binding(&mut out, "MutatingAdmissionPolicyBinding", POLICY, "");
    out.push_str("---\n# Refuses what cannot be meshed, and whoever asks for a proxy and has none, whatever became of the policy that adds it.\n");
    validating(&mut out, POLICY, "Fail", &variables);
    validation(&mut out, &format!("variables.{}", switch.name), &switch);
    for check in &needed {
        validation(
            &mut out,
            &format!("!variables.asks || variables.{}", check.name),
            check,
        );
    }
    let missing = Check::saying("proxy", String::new(), &sentence(&Refusal::NotAdded), &[]);
    validation(&mut out, "!variables.asks || variables.meshed", &missing);
    out.push_str("---\n");
    binding(
        &mut out,
        "ValidatingAdmissionPolicyBinding",
        POLICY,
        "  validationActions: [Deny]\n",
    );
    out.push_str("---\n# What is reported and refuses nothing.\n");
    validating(&mut out, WARNINGS, "Ignore", &variables);
    for check in warnings() {
        validation(&mut out, &check.holds, &check);
    }
    out.push_str("---\n");
    binding(
        &mut out,
        "ValidatingAdmissionPolicyBinding",
        WARNINGS,
        "  validationActions: [Warn]\n",
    );
    out.push_str("{{- end }}\n");
    out
}

/// Where spans go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traces {
    Service,
    Address,
    None,
}

/// Settings and a proxy that are all placeholders.
fn placeholders(traces: Traces) -> (Settings, Proxy, Vec<Hole>) {
    let mut holes = Vec::new();
    let mut hole = |name: &str, filling: Filling| {
        holes.push(Hole::new(token(name), filling));
        token(name)
    };
    let chart = |value| Filling::Chart(value);
    let of = |name: &str| Filling::Text(setting(name));
    let optional = |name: &str| Filling::Optional(setting(name));
    let mut resources = ProxyValues {
        uid: UID_TOKEN,
        log_level: hole("log", of("proxy-log-level")),
        cpu_request: hole("cpurequest", optional("proxy-cpu-request")),
        cpu_limit: hole("cpulimit", optional("proxy-cpu-limit")),
        memory_request: hole("memoryrequest", optional("proxy-memory-request")),
        memory_limit: hole("memorylimit", optional("proxy-memory-limit")),
        traces_service: String::new(),
        traces_address: String::new(),
        traces_protocol: hole("protocol", chart("{{ .Values.proxy.tracesProtocol }}")),
        traces_sample: hole("sample", chart("{{ .Values.proxy.tracesSample }}")),
        // Refused beside policies, as the plugin is below.
        metrics_interval_secs: 0,
    };
    match traces {
        Traces::Service => {
            resources.traces_service = hole("service", chart("{{ .Values.proxy.tracesService }}"));
        }
        Traces::Address => {
            resources.traces_address = hole("address", chart("{{ .Values.proxy.tracesAddress }}"));
        }
        Traces::None => {}
    }
    let settings = Settings {
        image: hole(
            "image",
            chart("{{ .Values.image.name }}:{{ .Values.image.tag | default .Chart.AppVersion }}"),
        ),
        image_pull_policy: hole("pull", chart("{{ .Values.image.pullPolicy }}")),
        trust_domain: hole("domain", chart("{{ .Values.trustDomain }}")),
        proxy: resources.clone(),
        cni: false,
    };
    hole("label", Filling::Text("variables.service".to_owned()));
    let skip_subnets = hole("subnets", optional("skip-subnets"));
    let mut ports = |number: &str, name: &str| {
        holes.push(Hole::new(number, optional(name)));
        Ports::parse(number).unwrap_or_default()
    };
    let proxy = Proxy {
        uid: UID_TOKEN,
        log_level: resources.log_level.clone(),
        resources,
        skip_inbound: ports("59991", "skip-inbound-ports"),
        skip_outbound: ports("59992", "skip-outbound-ports"),
        skip_subnets,
        skip_udp: ports("59993", "skip-udp-ports"),
    };
    holes.push(Hole::new(
        UID_TOKEN.to_string(),
        Filling::Number(setting("proxy-uid")),
    ));
    (settings, proxy, holes)
}

/// A pod in which everything stands that is added to, with these annotations.
fn template_pod(annotations: &BTreeMap<String, String>) -> Value {
    json!({
        "metadata": { "annotations": annotations, "labels": { "app": token("label") } },
        "spec": { "containers": [], "volumes": [], "initContainers": [] },
    })
}

/// The expression that makes the patch.
fn mutation(traces: Traces) -> String {
    let (settings, proxy, holes) = placeholders(traces);
    patch::expression(&operations(&settings, &proxy), &holes)
}

fn operations(settings: &Settings, proxy: &Proxy) -> Vec<Operation> {
    let patch = |annotations: &BTreeMap<String, String>| {
        Addition::new(&template_pod(annotations), proxy, settings).patch()
    };
    let all = patch(&BTreeMap::new());
    // An annotation that is not added where it stands already.
    let not_over = |path: &str| {
        let key = path.strip_prefix("/metadata/annotations/")?;
        let key = key.replace("~1", "/").replace("~0", "~");
        let with = patch(&BTreeMap::from([(key.clone(), String::new())]));
        let added = with
            .iter()
            .any(|op| op.get("path").and_then(Value::as_str) == Some(path));
        (!added).then(|| format!("!({} in variables.pod)", literal(&key)))
    };
    all.iter()
        .map(|op| {
            let path = op.get("path").and_then(Value::as_str).unwrap_or_default();
            Operation {
                path: path.to_owned(),
                value: op.get("value").cloned().unwrap_or_default(),
                only_if: not_over(path),
            }
        })
        .collect()
}

/// What is reported, as validations that do not hold then.
fn warnings() -> Vec<Check> {
    let mut out = Vec::new();
    let (_, proxy, holes) = placeholders(Traces::None);
    let mut gaps = Vec::new();
    warn_of_gaps(&proxy, &mut gaps);
    for text in &gaps {
        let condition = cel::condition(text, &holes).unwrap_or_default();
        let holds = format!("!variables.asks || !variables.meshed || {condition} == \"\"");
        out.push(Check::saying("gap", holds, text, &holes));
    }
    for (prefix, linkerd) in [(PREFIX, false), (LINKERD_CONFIG, true)] {
        let mut known: Vec<String> = vec![INJECT.to_owned(), INJECTED_BY.to_owned()];
        known.extend(
            KNOWN
                .iter()
                .chain(OF_POLICY)
                .map(|name| format!("{prefix}{name}")),
        );
        let found = format!(
            "variables.pod.filter(k, k.startsWith({}) && !(k in {}))",
            literal(prefix),
            literals(known.iter().map(String::as_str))
        );
        out.push(Check::saying(
            "unknown",
            format!("!variables.asks || !variables.meshed || size({found}) == 0"),
            &unknown(&token("key"), linkerd),
            &[Hole::new(
                token("key"),
                Filling::Text(format!("{found}.join(\"`, `\")")),
            )],
        ));
    }
    for (of, what) in [("object", "pod"), ("namespaceObject", "namespace")] {
        for name in [INJECT, LINKERD_INJECT] {
            let labels = format!("{of}.metadata.?labels.orValue({{}})");
            let key = literal(name);
            out.push(Check::saying(
                "label",
                format!("variables.switch_key != \"\" || !({key} in {labels})"),
                &label_warning(name, &token("value"), what),
                &[Hole::new(
                    token("value"),
                    Filling::Text(format!("string({labels}[{key}])")),
                )],
            ));
        }
    }
    out
}

/// `apiVersion` up to `spec:`.
fn head(out: &mut String, kind: &str, name: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "apiVersion: {API_VERSION}\nkind: {kind}\nmetadata:\n  name: {name}\n  labels:\n    {PART_OF_LABEL}: {PART_OF}\n    app.kubernetes.io/component: injector\nspec:"
    );
}

/// A policy that validates, up to its validations.
fn validating(out: &mut String, name: &str, on_failure: &str, variables: &[Variable]) {
    head(out, "ValidatingAdmissionPolicy", name);
    let _ = writeln!(out, "  failurePolicy: {on_failure}");
    constraints(out);
    list(out, variables);
    out.push_str("  validations:\n");
}

fn binding(out: &mut String, kind: &str, name: &str, more: &str) {
    head(out, kind, name);
    let _ = write!(out, "  policyName: {name}\n{more}");
}

/// New pods, in the namespaces that the webhook looks at.
fn constraints(out: &mut String) {
    out.push_str("  matchConstraints:\n");
    let selector = WEBHOOKS_TEMPLATE
        .lines()
        .skip_while(|line| *line != "  namespaceSelector:")
        .take_while(|line| *line == "  namespaceSelector:" || line.starts_with("    "));
    for line in selector {
        let _ = writeln!(out, "  {line}");
    }
    out.push_str("    resourceRules:\n    - apiGroups: [\"\"]\n      apiVersions: [v1]\n      operations: [CREATE]\n      resources: [pods]\n      scope: Namespaced\n");
}

fn list(out: &mut String, variables: &[Variable]) {
    out.push_str("  variables:\n");
    for (name, expression) in variables {
        let _ = writeln!(out, "  - name: {name}\n    expression: |-");
        indented(out, 6, expression);
    }
}

fn validation(out: &mut String, expression: &str, check: &Check) {
    out.push_str("  - expression: |-\n");
    indented(out, 6, expression);
    let _ = writeln!(out, "    message: |-\n      {}", check.message);
    out.push_str("    messageExpression: |-\n");
    indented(out, 6, &check.said);
    out.push_str("    reason: Invalid\n");
}

fn indented(out: &mut String, by: usize, text: &str) {
    for line in text.lines() {
        let _ = writeln!(out, "{:by$}{line}", "");
    }
}

#[cfg(test)]
mod tests;
