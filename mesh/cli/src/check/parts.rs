//! Checks of controller and proxies: what their admin sockets answer.

use super::item::Item;
use super::machine::life;
use crate::fault::Fault;
use crate::live::{self, Live};
use mesh_api::admin::{ControllerStatus, IdentityStatus, ProxyStatus, WorkloadStatus};
use mesh_platform::{Platform, System};
use mesh_policy::equivalence::Assurance;
use mesh_policy::snapshot::{Finding, Severity};

/// Findings that are listed; the rest is counted.
const FINDINGS_MAX: usize = 20;

/// Everything that answers on an admin socket.
pub(super) async fn check(live: &Live) -> Vec<Item> {
    let (mut items, generation) = controller(live).await;
    items.extend(proxies(live, generation).await);
    items.extend(findings(live).await);
    items
}

async fn controller(live: &Live) -> (Vec<Item>, Option<u64>) {
    const CATEGORY: &str = "controller";
    let log = live.state.join("log/controller.log");
    let fix = format!("tail -n 20 {}", log.display());
    let status: ControllerStatus =
        match live::answer(&live.running.controller.socket, "/status").await {
            Ok(status) => status,
            Err(fault) => {
                return (
                    vec![Item::broken(CATEGORY, "MESH-0625", words(&fault), fix)],
                    None,
                );
            }
        };
    let mut items = Vec::new();
    if status.ready {
        let says = format!(
            "serves generation {} to {} proxies",
            status.generation, status.watchers
        );
        items.push(Item::ok(CATEGORY, says));
    } else {
        let why = status
            .why_not_ready
            .unwrap_or_else(|| "no reason given".to_owned());
        items.push(Item::broken(
            CATEGORY,
            "MESH-0625",
            format!("is not ready: {why}"),
            fix.clone(),
        ));
    }
    if let Some(why) = status.held_back {
        items.push(Item::broken(
            CATEGORY,
            "MESH-0625",
            format!("the newest manifests are not in force: {why}"),
            fix,
        ));
    }
    items.extend(held_against_cedar_by_proxies(live).await);
    (items, Some(status.generation))
}

/// What the controller was told by proxies of the policy that they hold.
async fn held_against_cedar_by_proxies(live: &Live) -> Vec<Item> {
    const CATEGORY: &str = "controller";
    let socket = &live.running.controller.socket;
    // That it does not answer was said already.
    let Ok(workloads) = live::answer::<Vec<WorkloadStatus>>(socket, "/workloads").await else {
        return Vec::new();
    };
    let reports = workloads
        .iter()
        .filter_map(|it| Some((it, it.equivalence.as_ref()?)));
    let mut items = Vec::new();
    let mut equal = 0_u64;
    for (workload, report) in reports {
        if let Assurance::Differs { port, grant, case } = &report.found {
            let says = format!(
                "a proxy of {}/{} found at generation {} that the compiled form of {grant} on port {port} is not what Cedar says ({case})",
                workload.namespace, workload.name, report.generation
            );
            let fix = format!(
                "mesh policy verify {}/{}",
                workload.namespace, workload.name
            );
            items.push(Item::broken(CATEGORY, "MESH-0429", says, fix));
        } else if report.generation == workload.generation {
            equal += 1;
        }
    }
    let watched = workloads.iter().filter(|it| it.watchers > 0).count();
    if watched > 0 {
        let says = format!(
            "knows of {equal} of {watched} workloads that their proxies hold the newest policy, equal to Cedar"
        );
        items.push(Item::ok(CATEGORY, says));
    }
    items
}

async fn proxies(live: &Live, generation: Option<u64>) -> Vec<Item> {
    const CATEGORY: &str = "proxies";
    let now = System::new().wall_clock();
    let mut items = Vec::new();
    for (workload, proxy) in live.proxies() {
        let name = format!("{}/{}", workload.namespace, workload.name);
        let log = live.state.join("log").join(format!(
            "proxy {}.{}.log",
            workload.namespace, workload.name
        ));
        let fix = format!("tail -n 20 '{}'", log.display());
        let status: ProxyStatus = match live::answer(&proxy.socket, "/status").await {
            Ok(status) => status,
            Err(fault) => {
                items.push(Item::broken(
                    CATEGORY,
                    "MESH-0626",
                    format!("{name}: {}", words(&fault)),
                    fix,
                ));
                continue;
            }
        };
        items.push(readiness(CATEGORY, &name, &status, generation, &fix));
        if let Some(snapshot) = &status.snapshot
            && let Some(Assurance::Differs { port, grant, case }) = &snapshot.equivalence
        {
            let says = format!(
                "{name} denies everything on port {port}: the compiled form of {grant} is not what Cedar says ({case})"
            );
            items.push(Item::broken(CATEGORY, "MESH-0429", says, fix.clone()));
        }
        if let Some(why) = status
            .snapshot
            .as_ref()
            .and_then(|it| it.unchecked.as_ref())
        {
            let says = format!("{name} does not compare its decisions with Cedar any more: {why}");
            items.push(Item::broken(CATEGORY, "MESH-0336", says, fix.clone()));
        }
        if let Some(why) = &status.audit.failing {
            let says = format!("{name} cannot write its decision log: {why}");
            items.push(Item::broken(
                CATEGORY,
                "MESH-0629",
                says,
                format!("df -h {}", live.state.display()),
            ));
        } else if status.audit.lost > 0 {
            let says = format!(
                "{name} has lost {} decision records, and noted it in its log",
                status.audit.lost
            );
            items.push(Item::doubtful(
                CATEGORY,
                "MESH-0629",
                says,
                format!("mesh audit verify {}", proxy.audit_log.display()),
            ));
        }
        match live::answer::<IdentityStatus>(&proxy.socket, "/identity").await {
            Ok(identity) => {
                let says = format!("SVID of {name}");
                items.push(life(
                    CATEGORY,
                    &says,
                    identity.not_before,
                    identity.not_after,
                    now,
                ));
            }
            Err(fault) => {
                items.push(Item::broken(
                    CATEGORY,
                    "MESH-0628",
                    format!("{name} has no SVID: {}", words(&fault)),
                    fix,
                ));
            }
        }
    }
    items
}

/// Whether a proxy takes traffic, and by which policy.
fn readiness(
    category: &'static str,
    name: &str,
    status: &ProxyStatus,
    wanted: Option<u64>,
    fix: &str,
) -> Item {
    let found = status.snapshot.as_ref().map(|snapshot| snapshot.generation);
    match (status.ready, found, wanted) {
        (false, _, _) => {
            let why = status.why_not_ready.as_deref().unwrap_or("no reason given");
            Item::broken(
                category,
                "MESH-0626",
                format!("{name} is not ready: {why}"),
                fix,
            )
        }
        (true, None, _) => Item::broken(
            category,
            "MESH-0627",
            format!("{name} has no policy and denies everything"),
            fix,
        ),
        (true, Some(found), Some(wanted)) if found != wanted && !status.controller_connected => {
            let says = format!(
                "{name} enforces generation {found}, not {wanted}, and hears nothing of the controller"
            );
            Item::broken(category, "MESH-0627", says, fix)
        }
        (true, Some(found), _) if !status.controller_connected => {
            let says =
                format!("{name} enforces generation {found} and hears nothing of the controller");
            Item::doubtful(category, "MESH-0627", says, fix)
        }
        (true, Some(found), Some(wanted)) if found != wanted => {
            // Generations count changes of all policy; a proxy keeps the number of the last change that concerned it.
            let tried = held_against_cedar(status);
            Item::ok(
                category,
                format!("{name} is ready, generation {found} (newest for others: {wanted}){tried}"),
            )
        }
        (true, Some(found), _) => {
            let tried = held_against_cedar(status);
            Item::ok(
                category,
                format!("{name} is ready, generation {found}{tried}"),
            )
        }
    }
}

/// How far the policy in force was tried against Cedar.
fn held_against_cedar(status: &ProxyStatus) -> String {
    let snapshot = status.snapshot.as_ref();
    match snapshot.and_then(|snapshot| snapshot.equivalence.as_ref()) {
        Some(Assurance::Exhaustive { grants, questions }) => {
            format!(", {grants} grants equal to Cedar in all {questions} cases")
        }
        Some(Assurance::Sampled {
            grants,
            of,
            questions,
        }) => format!(", {grants} of {of} grants equal to Cedar in {questions} cases"),
        Some(Assurance::Differs { .. }) | None => String::new(),
    }
}

async fn findings(live: &Live) -> Vec<Item> {
    const CATEGORY: &str = "policy";
    let findings: Vec<Finding> =
        match live::answer(&live.running.controller.socket, "/findings").await {
            Ok(findings) => findings,
            Err(fault) => {
                return vec![Item::broken(
                    CATEGORY,
                    "MESH-0625",
                    words(&fault),
                    "mesh authz lint <manifests>",
                )];
            }
        };
    let mut items: Vec<Item> = findings.iter().filter_map(finding).collect();
    let more = items.len().saturating_sub(FINDINGS_MAX);
    items.truncate(FINDINGS_MAX);
    if more > 0 {
        let fix = "mesh authz lint <manifests>";
        items.push(Item::doubtful(
            CATEGORY,
            "MESH-0625",
            format!("{more} further findings"),
            fix,
        ));
    }
    if items.is_empty() {
        items.push(Item::ok(CATEGORY, "no findings"));
    }
    items
}

fn finding(finding: &Finding) -> Option<Item> {
    const CATEGORY: &str = "policy";
    let says = format!("{}: {}", finding.source, finding.message);
    let fix = finding
        .hint
        .clone()
        .unwrap_or_else(|| format!("mesh explain {}", finding.code));
    match finding.severity {
        Severity::Error => Some(Item::broken(CATEGORY, &finding.code, says, fix)),
        Severity::Warning => Some(Item::doubtful(CATEGORY, &finding.code, says, fix)),
        Severity::Info => None,
    }
}

/// The first line of a failure.
fn words(fault: &Fault) -> String {
    fault.message().to_owned()
}
