//! ExternalWorkload: read and checked, but not enforced by this version. Each gets a finding that says so.

use super::identity::{is_port_name, is_subdomain};
use super::read::{Fields, Reading};
use crate::finding::Code;

/// Bytes of an ExternalWorkload's identity, as its CRD has it.
const IDENTITY_BYTES_MAX: usize = 253;

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
        check_external_tls(reading, &mut tls);
        tls.finish(reading);
    }
    let mut names: Vec<&str> = Vec::new();
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
        if let Some(name) = port.optional_text(reading, "name") {
            if !is_port_name(name) {
                let message = format!("`{path}.name: {name}` is not the name of a port");
                reading.problem(item.at, Code::BadValue, message);
            } else if names.contains(&name) {
                let message = format!("`{path}.name: {name}` stands twice");
                reading.problem(item.at, Code::Conflict, message);
            }
            names.push(name);
        }
        port.choice(reading, "protocol", &["TCP"]);
        port.required(reading, "port")
            .and_then(|n| reading.port(n, &format!("{path}.port")));
        port.finish(reading);
    }
    check_workload_ips(reading, &mut spec);
    spec.finish(reading);
}

fn check_external_tls(reading: &mut Reading, tls: &mut Fields<'_>) {
    let at = tls.at;
    if let Some(id) = tls.required_text(reading, "identity") {
        if id.len() > IDENTITY_BYTES_MAX {
            let message = format!(
                "the identity has {} bytes; the limit is {IDENTITY_BYTES_MAX}",
                id.len()
            );
            reading.problem(at, Code::Limit, message);
        } else if let Err(error) = mesh_trust::SpiffeId::parse_config(id) {
            reading.problem(at, Code::BadValue, error.to_string());
        }
    }
    if let Some(name) = tls.required_text(reading, "serverName")
        && !is_subdomain(name)
    {
        let message = format!("`serverName: {name}` is not a DNS name");
        reading.problem(at, Code::BadValue, message);
    }
}

fn check_workload_ips(reading: &mut Reading, spec: &mut Fields<'_>) {
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
}
