//! Kinds that are read and checked, but that this version does not enforce. Each gets a finding that says so.

use super::network::read_networks;
use super::read::{Fields, Reading};
use crate::finding::Code;

/// Checks an EgressNetwork.
pub(crate) fn check_egress_network(reading: &mut Reading, root: &mut Fields<'_>) {
    reading.doubt(
        root.at,
        Code::NotEnforced,
        "EgressNetwork is checked, but egress is not restricted by it",
    );
    let Some(mut spec) = root.required_fields(reading, "spec") else {
        return;
    };
    let at = spec.at;
    if !spec.stands("trafficPolicy") {
        reading.problem(at, Code::Missing, "`spec.trafficPolicy` is missing");
    }
    spec.choice(reading, "trafficPolicy", &["Allow", "Deny"]);
    let stands = spec.stands("networks");
    let items = spec.optional_list(reading, "networks").unwrap_or_default();
    if stands && items.is_empty() {
        reading.problem(
            at,
            Code::BadValue,
            "`spec.networks` is empty; leave it out to mean everything outside the cluster",
        );
    }
    read_networks(reading, items, "spec.networks");
    spec.finish(reading);
}

/// Checks an ExternalWorkload.
pub(crate) fn check_external_workload(reading: &mut Reading, root: &mut Fields<'_>, alpha: bool) {
    reading.doubt(
        root.at,
        Code::NotEnforced,
        "ExternalWorkload is checked, but no endpoint is made of it",
    );
    let Some(mut spec) = root.required_fields(reading, "spec") else {
        return;
    };
    if let Some(mut tls) = spec.required_fields(reading, if alpha { "meshTls" } else { "meshTLS" })
    {
        let at = tls.at;
        if let Some(id) = tls.required_text(reading, "identity")
            && let Err(error) = mesh_trust::SpiffeId::parse_config(id)
        {
            reading.problem(at, Code::BadValue, error.to_string());
        }
        tls.required_text(reading, "serverName");
        tls.finish(reading);
    }
    for (index, item) in spec
        .optional_list(reading, "ports")
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let path = format!("spec.ports[{index}]");
        let Some(mut port) = reading.fields(item, &path) else {
            continue;
        };
        port.optional_text(reading, "name");
        port.choice(reading, "protocol", &["TCP"]);
        port.required(reading, "port")
            .and_then(|n| reading.port(n, &format!("{path}.port")));
        port.finish(reading);
    }
    let at = spec.at;
    let ips = spec
        .optional_list(reading, "workloadIPs")
        .unwrap_or_default();
    if ips.len() > 2 {
        reading.problem(
            at,
            Code::BadValue,
            "`spec.workloadIPs` may have two entries",
        );
    }
    for item in ips {
        let Some(mut fields) = reading.fields(item, "spec.workloadIPs") else {
            continue;
        };
        if let Some(text) = fields.required_text(reading, "ip")
            && text.parse::<std::net::IpAddr>().is_err()
        {
            reading.problem(
                item.at,
                Code::BadValue,
                format!("`{text}` is not an address"),
            );
        }
        fields.finish(reading);
    }
    spec.finish(reading);
}

/// Checks a ServiceProfile.
pub(crate) fn check_service_profile(reading: &mut Reading, root: &mut Fields<'_>) {
    reading.doubt(
        root.at,
        Code::NotEnforced,
        "ServiceProfile is checked, but its routes and retries are not applied",
    );
    let Some(mut spec) = root.optional_fields(reading, "spec") else {
        return;
    };
    for (index, item) in spec
        .optional_list(reading, "routes")
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let Some(mut route) = reading.fields(item, &format!("spec.routes[{index}]")) else {
            continue;
        };
        route.required_text(reading, "name");
        route.required_fields(reading, "condition");
        route.ignore(&["responseClasses", "isRetryable", "timeout"]);
        route.finish(reading);
    }
    if let Some(mut budget) = spec.optional_fields(reading, "retryBudget") {
        budget.required_text(reading, "ttl");
        budget.ignore(&["retryRatio", "minRetriesPerSecond"]);
        budget.finish(reading);
    }
    spec.ignore(&["dstOverrides", "opaquePorts"]);
    spec.finish(reading);
}
