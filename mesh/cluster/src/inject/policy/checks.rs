//! What is refused, as variables and validations in CEL: the switch, the settings, the pod.
//!
//! This is [`super::super::decide`] a second time, in another language: the order of its questions and its words are the same,
//! and the words are made by the same code.

use super::cel::{Filling, Hole, elided, filled, literal, literals, token};
use crate::admission::sentence;
use crate::inject::refusal::{OTHER_MESHES, PRIVILEGED, RIGHTS, Refusal, VOLUMES};
use crate::inject::settings::{CPU, LOG, MEMORY, NOT_ADMIN, NOT_OURS, PORTS, SUBNETS, UID};
use crate::install::values::UID_MAX;
use crate::names::{CAPTURE, INJECT, LINKERD_CONFIG, LINKERD_INJECT, PREFIX, PROXY, ports};

/// Characters of a setting that a policy reads: what an expression may cost is limited, and longer ones are refused.
pub(super) const TEXT_CHARS_MAX: usize = 1024;

/// A user that no code has, for placeholders.
pub(super) const UID_TOKEN: u32 = 2_147_480_019;

/// A variable of a policy: its name, and its expression.
pub(super) type Variable = (String, String);

/// Something that must hold, of a pod that asks for a proxy.
pub(super) struct Check {
    /// Name of the variable that says whether it does.
    pub(super) name: String,
    /// That variable.
    pub(super) holds: String,
    /// What is said if not, where the expression cannot say it.
    pub(super) message: String,
    /// What is said if not, as an expression.
    pub(super) said: String,
}

impl Check {
    fn new(name: &str, holds: String, refusal: &Refusal, holes: &[Hole]) -> Self {
        Self::saying(name, holds, &sentence(refusal), holes)
    }

    /// The same with a text that has placeholders.
    pub(super) fn saying(name: &str, holds: String, text: &str, holes: &[Hole]) -> Self {
        Self {
            name: format!("fits_{name}"),
            holds,
            message: elided(text, holes),
            said: filled(text, holes),
        }
    }
}

/// What must hold, in the order in which it is asked, and the variables by which it is asked.
#[derive(Default)]
struct Gathered {
    variables: Vec<Variable>,
    checks: Vec<Check>,
}

impl Gathered {
    /// A check is a variable too: what is added rests on all of them.
    fn must(&mut self, check: Check) {
        self.variables
            .push((check.name.clone(), check.holds.clone()));
        self.checks.push(check);
    }
}

/// The annotations, and what they say of a proxy.
pub(super) fn asking() -> Vec<Variable> {
    let keys = [INJECT.to_owned(), LINKERD_INJECT.to_owned()];
    let variable = |name: &str, expression: String| (name.to_owned(), expression);
    let switch_at = |level: &str| {
        format!(
            "{} in {level} || {} in {level}",
            literal(INJECT),
            literal(LINKERD_INJECT)
        )
    };
    vec![
        variable("pod", "object.metadata.?annotations.orValue({})".to_owned()),
        variable(
            // Its namespace's; that word is not to be had in CEL.
            "home",
            "namespaceObject.metadata.?annotations.orValue({})".to_owned(),
        ),
        variable("switch_key", first_key(&keys)),
        variable("switch_text", first_text(&keys)),
        variable(
            "switch_whose",
            format!(
                "{} ? \"the pod\" : \"its namespace\"",
                switch_at("variables.pod")
            ),
        ),
        // Linkerd's mode for ingress controllers means the same here.
        variable(
            "asks",
            format!(
                "variables.switch_key != \"\" && (variables.switch_text == \"enabled\" || (variables.switch_key == {} && variables.switch_text == \"ingress\"))",
                literal(LINKERD_INJECT)
            ),
        ),
        variable(
            "inits",
            "dyn(object.spec.?initContainers.orValue([]))".to_owned(),
        ),
        variable(
            "proxies",
            format!("variables.inits.filter(c, c.name == {})", literal(PROXY)),
        ),
        variable(
            "meshed",
            format!(
                "variables.inits.exists(c, c.name == {}) && size(variables.proxies) > 0 && variables.proxies[0].?restartPolicy.orValue(\"\") == \"Always\"",
                literal(CAPTURE)
            ),
        ),
        // What is not ours: before the proxy was added as after it.
        variable(
            "others",
            format!(
                "dyn(object.spec.?containers.orValue([])) + variables.inits.filter(c, !(variables.meshed && c.name in {}))",
                literals([CAPTURE, PROXY])
            ),
        ),
    ]
}

/// The switch says yes or no.
pub(super) fn switch() -> Check {
    let holes = [
        Hole::new(INJECT, Filling::Text("variables.switch_key".to_owned())),
        Hole::new(
            token("value"),
            Filling::Text("variables.switch_text".to_owned()),
        ),
        Hole::new(
            "the pod",
            Filling::Text("variables.switch_whose".to_owned()),
        ),
    ];
    let refusal = Refusal::Switch {
        annotation: INJECT,
        value: token("value"),
        whose: "the pod",
    };
    let holds =
        "variables.switch_key == \"\" || variables.asks || variables.switch_text == \"disabled\"";
    Check::new("switch", holds.to_owned(), &refusal, &holes)
}

/// The annotation that counts of several, the first level first; empty if there is none.
fn first_key(keys: &[String]) -> String {
    first(keys, |_, key| key.to_owned())
}

/// What it says.
fn first_text(keys: &[String]) -> String {
    first(keys, |level, key| format!("string({level}[{key}])"))
}

fn first(keys: &[String], then: impl Fn(&str, &str) -> String) -> String {
    let mut out = String::new();
    for level in ["variables.pod", "variables.home"] {
        for key in keys {
            let key = literal(key);
            out.push_str(&format!("{key} in {level} ? {} :\n", then(level, &key)));
        }
    }
    out + "\"\""
}

/// How a setting is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A text of that form; without the annotation the installation's, which the chart names.
    Form {
        pattern: &'static str,
        chart: &'static str,
    },
    User,
    Ports,
    Subnets,
}

const CPU_FORM: &str = "^([0-9]+([.][0-9]+)?m?)?$";
const MEMORY_FORM: &str = "^([0-9]+([.][0-9]+)?(Ki|Mi|Gi|k|M|G)?)?$";
const LOG_FORM: &str = "^[a-z_]+(=[a-z_]+)?(,[a-z_]+(=[a-z_]+)?)*$";
/// A whole number as Rust reads one, of so few digits that it is none that CEL cannot hold.
const WHOLE_FORM: &str = "^[+]?0*[0-9]{1,10}$";

/// Settings in the order in which they are read, with what each must be.
const SETTINGS: [(&str, &str, Kind); 10] = [
    (
        "proxy-cpu-request",
        CPU,
        Kind::Form {
            pattern: CPU_FORM,
            chart: "{{ .Values.proxy.cpuRequest }}",
        },
    ),
    (
        "proxy-cpu-limit",
        CPU,
        Kind::Form {
            pattern: CPU_FORM,
            chart: "{{ .Values.proxy.cpuLimit }}",
        },
    ),
    (
        "proxy-memory-request",
        MEMORY,
        Kind::Form {
            pattern: MEMORY_FORM,
            chart: "{{ .Values.proxy.memoryRequest }}",
        },
    ),
    (
        "proxy-memory-limit",
        MEMORY,
        Kind::Form {
            pattern: MEMORY_FORM,
            chart: "{{ .Values.proxy.memoryLimit }}",
        },
    ),
    (
        "proxy-log-level",
        LOG,
        Kind::Form {
            pattern: LOG_FORM,
            chart: "{{ .Values.proxy.logLevel }}",
        },
    ),
    ("proxy-uid", UID, Kind::User),
    ("skip-inbound-ports", PORTS, Kind::Ports),
    ("skip-outbound-ports", PORTS, Kind::Ports),
    ("skip-subnets", SUBNETS, Kind::Subnets),
    ("skip-udp-ports", PORTS, Kind::Ports),
];

/// The variable that has what a setting is for this pod.
pub(super) fn setting(name: &str) -> String {
    format!("variables.{}", identifier(name))
}

fn identifier(name: &str) -> String {
    name.replace('-', "_")
}

/// The settings: their variables, and what must hold of them.
pub(super) fn settings() -> (Vec<Variable>, Vec<Check>) {
    let mut out = Gathered::default();
    for (name, what, kind) in SETTINGS {
        let id = identifier(name);
        let keys = [format!("{PREFIX}{name}"), format!("{LINKERD_CONFIG}{name}")];
        out.variables.extend([
            (format!("key_{id}"), first_key(&keys)),
            (
                format!("text_{id}"),
                format!("({}).trim()", first_text(&keys)),
            ),
        ]);
        let (key, text) = (
            format!("variables.key_{id}"),
            format!("variables.text_{id}"),
        );
        let reading = match kind {
            Kind::Form { pattern, chart } => Reading {
                parts: None,
                fits: format!("{text}.matches({})", literal(pattern)),
                ranges: None,
                value: format!("{key} == \"\" ? \"{chart}\" : {text}"),
            },
            Kind::User => Reading {
                parts: None,
                fits: format!(
                    "{text}.matches({}) && int({text}) >= 1 && int({text}) <= {UID_MAX}",
                    literal(WHOLE_FORM)
                ),
                ranges: None,
                // Total: checks of the pod look at it even where the annotation is refused.
                value: format!(
                    "{key} == \"\" || !variables.fits_{id} ? {{{{ .Values.proxy.uid | int }}}} : int({text})"
                ),
            },
            Kind::Ports => port_list(&id, &text),
            Kind::Subnets => subnet_list(&id, &text),
        };
        let fits = reading.fits;
        out.variables.extend(reading.parts);
        // `what` is a `&'static str` in the refusal: its own words, and those of this variant.
        let said = sentence(&Refusal::Setting {
            annotation: token("key"),
            value: token("value"),
            what,
        });
        let besides = match kind {
            Kind::Subnets => {
                format!(", none of them IPv4 in IPv6, in at most {TEXT_CHARS_MAX} characters")
            }
            _ => format!(", in at most {TEXT_CHARS_MAX} characters"),
        };
        let check = Check::saying(
            &id,
            format!("{key} == \"\" || (size({text}) <= {TEXT_CHARS_MAX} && {fits})"),
            &said.replace(what, &format!("{what}{besides}")),
            &[
                Hole::new(token("key"), Filling::Text(key.clone())),
                Hole::new(token("value"), Filling::Text(text.clone())),
            ],
        );
        out.must(check);
        out.variables.extend(reading.ranges);
        out.variables.push((id, reading.value));
    }
    for check in own_ports() {
        out.must(check);
    }
    (out.variables, out.checks)
}

/// How a setting is read: expressions, each of which may use those before it.
struct Reading {
    /// A variable with its parts.
    parts: Option<Variable>,
    /// Whether it is what it must be.
    fits: String,
    /// A variable with what its parts mean, if it is.
    ranges: Option<Variable>,
    /// What it is for the proxy.
    value: String,
}

/// `80, 9000-9010`.
fn port_list(id: &str, text: &str) -> Reading {
    let parts = format!("variables.parts_{id}");
    let port = format!(
        "p.matches({}) && int(p) >= 1 && int(p) <= 65535",
        literal(WHOLE_FORM)
    );
    let fits = format!(
        "{parts}.all(r, size(r) <= 2 && r.all(p, {port}) && int(r[0]) <= int(r[size(r) - 1]))"
    );
    Reading {
        parts: Some((
            format!("parts_{id}"),
            format!("{}.map(t, t.split(\"-\").map(p, p.trim()))", entries(text)),
        )),
        fits,
        ranges: Some((
            format!("ranges_{id}"),
            format!("variables.fits_{id} ? {parts}.map(r, [int(r[0]), int(r[size(r) - 1])]) : []"),
        )),
        value: format!(
            "variables.ranges_{id}.map(r, r[0] == r[1] ? string(r[0]) : string(r[0]) + \"-\" + string(r[1])).join(\",\")"
        ),
    }
}

fn subnet_list(id: &str, text: &str) -> Reading {
    let parts = format!("variables.parts_{id}");
    let bits = format!(
        "s[1].matches({}) && int(s[1]) <= (ip(s[0]).family() == 4 ? 32 : 128)",
        literal(WHOLE_FORM)
    );
    let fits = format!(
        "{parts}.all(b, [b.split(\"/\")].all(s, size(s) <= 2 && isIP(s[0]) && (size(s) == 1 || ({bits}))))"
    );
    Reading {
        parts: Some((format!("parts_{id}"), entries(text))),
        fits,
        ranges: None,
        value: format!("variables.fits_{id} ? {parts}.join(\",\") : \"\""),
    }
}

/// What stands between commas, without spaces and empty ones. What is too long is not looked at.
fn entries(text: &str) -> String {
    format!(
        "(size({text}) > {TEXT_CHARS_MAX} ? [] : {text}.split(\",\").map(t, t.trim()).filter(t, t != \"\"))"
    )
}

/// Ports of the proxy itself, the first that is among those that traffic should enter past it.
fn own_ports() -> impl Iterator<Item = Check> {
    let name = "skip-inbound-ports";
    let id = identifier(name);
    let first = format!(
        "{:?}.filter(p, variables.ranges_{id}.exists(r, r[0] <= p && p <= r[1]))",
        ports::PROXY
    );
    let is_admin = format!("{first}[0] == {}", ports::ADMIN);
    let checks = [(NOT_OURS, "own", false), (NOT_ADMIN, "admin", true)];
    checks.into_iter().map(move |(what, suffix, admin)| {
        let refusal = Refusal::Setting {
            annotation: format!("{PREFIX}{name}"),
            value: token("value"),
            what,
        };
        let no = if admin { "!" } else { "" };
        Check::new(
            &format!("{id}_{suffix}"),
            format!("size({first}) == 0 || {no}({is_admin})"),
            &refusal,
            &[Hole::new(
                token("value"),
                Filling::Text(format!("variables.{id}")),
            )],
        )
    })
}

/// What must hold of the pod: variables with the containers (or others) that are not as they must be, and the checks.
pub(super) fn pod() -> (Vec<Variable>, Vec<Check>) {
    let mut out = Gathered::default();
    let ours = format!("{:?}", ports::PROXY);
    let uid = setting("proxy-uid");
    let proxy_user = |container: String| Refusal::ProxyUser {
        container,
        uid: UID_TOKEN,
    };
    let uid_hole = Hole::new(UID_TOKEN.to_string(), Filling::Number(uid.clone()));
    let mut plain = |name: &str, holds: String, refusal: &Refusal, holes: &[Hole]| {
        out.must(Check::new(name, holds, refusal, holes));
    };
    plain(
        "network",
        "!object.spec.?hostNetwork.orValue(false)".to_owned(),
        &Refusal::HostNetwork,
        &[],
    );
    plain(
        "system",
        "object.spec.?os.?name.orValue(\"linux\") == \"linux\"".to_owned(),
        &Refusal::OtherSystem { os: token("os") },
        &[Hole::new(
            token("os"),
            Filling::Text("string(object.spec.os.name)".to_owned()),
        )],
    );
    plain(
        "user",
        format!("object.spec.?securityContext.?runAsUser.orValue(-1) != {uid}"),
        &proxy_user("the pod".to_owned()),
        std::slice::from_ref(&uid_hole),
    );
    let first = |name: &str| format!("variables.{name}[0]");
    let mut of_containers = |name: &str, bad: String, refusal: &Refusal, mut holes: Vec<Hole>| {
        let (list, count) = (
            format!("with_{name}"),
            format!("size(variables.with_{name}) == 0"),
        );
        holes.push(Hole::new(
            token("name"),
            Filling::Text(format!("string({}.name)", first(&list))),
        ));
        let check = Check::new(name, count, refusal, &holes);
        out.variables
            .push((list, format!("variables.others.filter(c, {bad})")));
        out.must(check);
    };
    of_containers(
        "other_mesh",
        format!("c.name in {}", literals(OTHER_MESHES.iter().copied())),
        &Refusal::OtherMesh {
            container: token("name"),
        },
        Vec::new(),
    );
    of_containers(
        "our_name",
        format!("c.name in {}", literals([PROXY, CAPTURE])),
        &Refusal::NameTaken {
            what: "container",
            name: token("name"),
        },
        Vec::new(),
    );
    of_containers(
        "our_user",
        format!("c.?securityContext.?runAsUser.orValue(-1) == {uid}"),
        &proxy_user(format!("container `{}`", token("name"))),
        vec![uid_hole.clone()],
    );
    of_containers(
        "privileges",
        "c.?securityContext.?privileged.orValue(false)".to_owned(),
        &Refusal::Powerful {
            container: token("name"),
            right: PRIVILEGED,
        },
        Vec::new(),
    );
    for (capability, right) in RIGHTS {
        of_containers(
            &capability.to_ascii_lowercase(),
            format!(
                "c.?securityContext.?capabilities.?add.orValue([]).exists(a, a.matches({}))",
                literal(&capability_form(capability))
            ),
            &Refusal::Powerful {
                container: token("name"),
                right,
            },
            Vec::new(),
        );
    }
    let port = 59_999;
    of_containers(
        "our_port",
        format!("c.?ports.orValue([]).exists(p, p.containerPort in {ours})"),
        &Refusal::PortTaken {
            container: token("name"),
            port,
        },
        vec![Hole::new(
            port.to_string(),
            Filling::Number(format!(
                "{}.ports.filter(p, p.containerPort in {ours})[0].containerPort",
                first("with_our_port")
            )),
        )],
    );
    let taken = "variables.with_our_volume";
    let check = Check::new(
        "our_volume",
        format!("size({taken}) == 0"),
        &Refusal::NameTaken {
            what: "volume",
            name: token("name"),
        },
        &[Hole::new(
            token("name"),
            Filling::Text(format!("string({taken}[0].name)")),
        )],
    );
    // Where the proxy was added, they are those that were added.
    out.variables.push((
        "with_our_volume".to_owned(),
        format!(
            "variables.meshed ? [] : object.spec.?volumes.orValue([]).filter(v, v.name in {})",
            literals(VOLUMES)
        ),
    ));
    out.must(check);
    (out.variables, out.checks)
}

/// A capability as runtimes may read it: any case, with or without `CAP_`. Classes, and no flag for case: that would fold
/// letters of other scripts too.
fn capability_form(name: &str) -> String {
    let letters: String = name
        .chars()
        .map(|c| match c.is_ascii_alphabetic() {
            true => format!("[{}{}]", c.to_ascii_uppercase(), c.to_ascii_lowercase()),
            false => c.to_string(),
        })
        .collect();
    format!("^(CAP_)*{letters}$")
}
