//! Whether the API server vouches for the user names in CertificateRequests.
//!
//! A request says itself who made it (`spec.username`), and cert-manager's webhook puts the truth there. Where that webhook
//! is missing, bypassed or not yet there, anybody could write any name. So the installation has a
//! ValidatingAdmissionPolicy, which the API server evaluates itself: a request for our issuers is stored only if the name
//! in it is the name of whoever sends it, and its spec never changes. Here that policy is held against what it must say;
//! without it, and for requests from before it, nothing is issued.

use mesh_trust::Timestamp;
use serde_json::Value;

/// Name of the policy and of its binding.
pub const POLICY: &str = "mesh-certificate-requests";

/// Seconds after which an API server has certainly taken up a policy that was just made. It watches policies; what is
/// seen is below one second.
pub const SETTLES_SECS: i64 = 10;

/// What must hold for a request to be stored, in CEL: each must be a validation of the policy, letter by letter.
pub const EXPRESSIONS: [&str; 6] = [
    "object.spec.issuerRef.?group.orValue('') != 'mesh.internal' || request.operation != 'CREATE' || object.spec.?username.orValue('') == request.userInfo.username",
    "object.spec.issuerRef.?group.orValue('') != 'mesh.internal' || request.operation != 'CREATE' || object.spec.?uid.orValue('') == request.userInfo.?uid.orValue('')",
    "object.spec.issuerRef.?group.orValue('') != 'mesh.internal' || request.operation != 'CREATE' || object.spec.?groups.orValue([]) == request.userInfo.?groups.orValue([])",
    "object.spec.issuerRef.?group.orValue('') != 'mesh.internal' || request.operation != 'CREATE' || object.spec.?extra.orValue({}) == request.userInfo.?extra.orValue({})",
    "request.operation != 'UPDATE' || (object.spec.issuerRef.?group.orValue('') != 'mesh.internal' && oldObject.spec.issuerRef.?group.orValue('') != 'mesh.internal') || object.spec == oldObject.spec",
    "request.operation != 'UPDATE' || object.spec.issuerRef.?group.orValue('') != 'mesh.internal' || object.metadata.?annotations[?'cert-manager.io/certificate-name'] == oldObject.metadata.?annotations[?'cert-manager.io/certificate-name']",
];

/// Why nobody vouches for user names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum GuardError {
    /// Policy or binding is not there, or says something else.
    #[error("the {object} `{POLICY}` {why}")]
    #[diagnostic(
        code("MESH-0288"),
        help(
            "put it back: `mesh install` with `identity.externalIssuer=true` prints it; without it a request could claim any name"
        )
    )]
    NotInForce {
        /// Which of the two.
        object: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The API server cannot be asked.
    #[error("the API server cannot be asked whether it vouches for names in requests: {why}")]
    #[diagnostic(
        code("MESH-0288"),
        help("nothing is issued meanwhile; it is asked again by itself")
    )]
    Unknown {
        /// In its words.
        why: String,
    },
}

/// From when on requests are vouched for, by policy and binding as the API server has them.
///
/// # Errors
/// [`GuardError::NotInForce`] with what is wrong.
pub fn guarded_since(
    policy: Option<&Value>,
    binding: Option<&Value>,
) -> Result<Timestamp, GuardError> {
    let of = |object: &'static str| move |why: String| GuardError::NotInForce { object, why };
    let (policy_amiss, binding_amiss) = (
        of("ValidatingAdmissionPolicy"),
        of("ValidatingAdmissionPolicyBinding"),
    );
    let policy = policy.ok_or_else(|| policy_amiss("is not there".to_owned()))?;
    let binding = binding.ok_or_else(|| binding_amiss("is not there".to_owned()))?;
    check_policy(policy).map_err(policy_amiss)?;
    check_binding(binding).map_err(binding_amiss)?;
    let since = created(policy)
        .zip(created(binding))
        .map(|(one, other)| one.max(other));
    let since = since.ok_or_else(|| policy_amiss("does not say when it was made".to_owned()))?;
    Ok(since.plus_secs(SETTLES_SECS))
}

fn created(object: &Value) -> Option<Timestamp> {
    let text = object.pointer("/metadata/creationTimestamp")?.as_str()?;
    text.parse().ok()
}

fn check_policy(policy: &Value) -> Result<(), String> {
    let text = |path: &str| policy.pointer(path).and_then(Value::as_str);
    if text("/spec/failurePolicy").is_some_and(|said| said != "Fail") {
        return Err("lets pass what it cannot evaluate".to_owned());
    }
    for (path, what) in [
        ("/spec/matchConditions", "conditions"),
        ("/spec/paramKind", "parameters"),
    ] {
        if !is_empty(policy.pointer(path)) {
            return Err(format!("has {what} that it must not have"));
        }
    }
    let covered = policy.pointer("/spec/matchConstraints");
    if !covered.is_some_and(covers_requests) {
        return Err("does not cover all CertificateRequests".to_owned());
    }
    let validations = policy.pointer("/spec/validations");
    let validations = validations.and_then(Value::as_array);
    let holds = |expression: &str| {
        let mut all = validations.into_iter().flatten();
        all.any(|one| one.get("expression").and_then(Value::as_str) == Some(expression))
    };
    match EXPRESSIONS.iter().find(|expression| !holds(expression)) {
        Some(missing) => Err(format!("does not demand `{missing}`")),
        None => Ok(()),
    }
}

fn check_binding(binding: &Value) -> Result<(), String> {
    if binding.pointer("/spec/policyName").and_then(Value::as_str) != Some(POLICY) {
        return Err("binds another policy".to_owned());
    }
    let actions = binding.pointer("/spec/validationActions");
    let mut actions = actions.and_then(Value::as_array).into_iter().flatten();
    if !actions.any(|action| action == "Deny") {
        return Err("denies nothing".to_owned());
    }
    if !is_empty(binding.pointer("/spec/paramRef")) {
        return Err("has parameters that it must not have".to_owned());
    }
    match binding.pointer("/spec/matchResources") {
        Some(narrowed) if narrows(narrowed) || !is_empty(narrowed.get("resourceRules")) => {
            Err("does not cover all CertificateRequests".to_owned())
        }
        _ => Ok(()),
    }
}

/// Whether constraints match each creation and change of a CertificateRequest, in every namespace.
fn covers_requests(constraints: &Value) -> bool {
    let rules = constraints.get("resourceRules").and_then(Value::as_array);
    let mut rules = rules.into_iter().flatten();
    let has = |rule: &Value, field: &str, wanted: &str| {
        let values = rule.get(field).and_then(Value::as_array);
        let mut values = values.into_iter().flatten();
        values.any(|value| value == wanted)
    };
    let covering = rules.any(|rule| {
        has(rule, "apiGroups", "cert-manager.io")
            && has(rule, "apiVersions", "*")
            && has(rule, "resources", "certificaterequests")
            && has(rule, "operations", "CREATE")
            && has(rule, "operations", "UPDATE")
            && is_empty(rule.get("resourceNames"))
            && rule.get("scope").is_none_or(|scope| scope == "*")
    });
    covering && !narrows(constraints)
}

/// Whether something is taken out again.
fn narrows(constraints: &Value) -> bool {
    let fields = [
        "namespaceSelector",
        "objectSelector",
        "excludeResourceRules",
    ];
    fields.iter().any(|field| !is_empty(constraints.get(field)))
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}
