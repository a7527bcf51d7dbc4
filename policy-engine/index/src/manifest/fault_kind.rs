//! HTTPFault: faults that a Server's proxies inject into requests of named clients, until a time.

use super::identity::Identity;
use super::read::{Fields, Reading};
use super::refs::read_server_target;
use super::resource::{Created, HttpFault};
use super::route_backend::read_duration_of;
use super::term::instant;
use super::tree::Node;
use crate::finding::Code;
use crate::limits::FAULT_SECS_MAX;
use mesh_policy::limits::{FAULT_CLIENTS_MAX, FAULT_DELAY_MS_MAX};
use mesh_policy::snapshot::{FaultAbort, FaultBandwidth, FaultDelay};
use mesh_trust::Timestamp;

/// Reads an HTTPFault. An invalid one injects nothing.
pub(crate) fn read_fault(
    reading: &mut Reading,
    root: &mut Fields<'_>,
    created: Created,
) -> HttpFault {
    let mut out = HttpFault::default();
    let Some(mut spec) = root.required_fields(reading, "spec") else {
        return out;
    };
    out.server = read_server_target(reading, &mut spec);
    out.clients = read_clients(reading, &mut spec);
    out.until = read_end(reading, &mut spec, created);
    if let Some(mut fields) = spec.optional_fields(reading, "delay") {
        out.delay = read_delay(reading, &mut fields);
        fields.finish(reading);
    }
    if let Some(mut fields) = spec.optional_fields(reading, "abort") {
        out.abort = read_abort(reading, &mut fields);
        fields.finish(reading);
    }
    if let Some(mut fields) = spec.optional_fields(reading, "bandwidth") {
        out.bandwidth = read_bandwidth(reading, &mut fields);
        fields.finish(reading);
    }
    if !["delay", "abort", "bandwidth"]
        .iter()
        .any(|key| spec.stands(key))
    {
        let message = "`spec` injects nothing: one of `delay`, `abort` and `bandwidth` must stand";
        reading.problem(spec.at, Code::Missing, message);
    }
    spec.finish(reading);
    out
}

/// Whose requests: workloads one by one. A pattern would reach whoever joins it later.
fn read_clients(reading: &mut Reading, spec: &mut Fields<'_>) -> Vec<Identity> {
    let at = spec.at;
    let Some(items) = spec.required_list(reading, "identities") else {
        return Vec::new();
    };
    if items.is_empty() || items.len() > FAULT_CLIENTS_MAX {
        let message = format!("`spec.identities` must name 1 to {FAULT_CLIENTS_MAX} clients");
        reading.problem(at, Code::BadValue, message);
        return Vec::new();
    }
    let client = |(index, item): (usize, &Node)| {
        let path = format!("spec.identities[{index}]");
        let text = reading.text(item, &path)?;
        let why = match Identity::parse(text) {
            Ok(identity @ (Identity::Exact(_) | Identity::Dns(_))) if !text.contains('*') => {
                return Some(identity);
            }
            Ok(_) => "it names more than one client".to_owned(),
            Err(why) => why,
        };
        reading.problem(item.at, Code::BadValue, format!("`{path}: {text}`: {why}"));
        None
    };
    items.iter().enumerate().filter_map(client).collect()
}

/// When it is over. It always is, and soon: a fault that was forgotten looks like a failure that nobody can explain.
fn read_end(reading: &mut Reading, spec: &mut Fields<'_>, created: Created) -> Option<Timestamp> {
    let node = spec.required(reading, "until")?;
    let text = reading.text(node, "spec.until")?;
    let Some(end) = instant(text) else {
        let message = format!(
            "`spec.until: {text}` is not an RFC 3339 time since 1970 with at most milliseconds"
        );
        reading.problem(node.at, Code::BadValue, message);
        return None;
    };
    if let Created::At(created) = created
        && end > created.plus_secs(FAULT_SECS_MAX)
    {
        let message = format!(
            "`spec.until: {text}` is more than {} days after the object was created: {} at the latest",
            FAULT_SECS_MAX / 86_400,
            created.plus_secs(FAULT_SECS_MAX)
        );
        reading.problem(node.at, Code::BadValue, message);
        return None;
    }
    Some(end)
}

fn read_percent(reading: &mut Reading, fields: &mut Fields<'_>) -> Option<u8> {
    let path = fields.path("percent");
    let node = fields.required(reading, "percent")?;
    u8::try_from(reading.integer(node, &path, 1..=100)?).ok()
}

fn read_delay(reading: &mut Reading, fields: &mut Fields<'_>) -> Option<FaultDelay> {
    let percent = read_percent(reading, fields);
    let path = fields.path("duration");
    let node = fields.required(reading, "duration")?;
    let longest = format!("{}m", FAULT_DELAY_MS_MAX / 60_000);
    let ms = read_duration_of(
        reading,
        node,
        &path,
        1..=FAULT_DELAY_MS_MAX,
        ("1ms", &longest),
    );
    Some(FaultDelay {
        percent: percent?,
        ms: ms?,
    })
}

fn read_abort(reading: &mut Reading, fields: &mut Fields<'_>) -> Option<FaultAbort> {
    let percent = read_percent(reading, fields);
    let (status_path, grpc_path) = (fields.path("httpStatus"), fields.path("grpcStatus"));
    // Nothing but an error: an answer that says that all went well would be a lie that nobody can test for.
    let status = fields
        .optional(reading, "httpStatus")
        .and_then(|node| reading.integer(node, &status_path, 400..=599));
    let grpc = fields
        .optional(reading, "grpcStatus")
        .and_then(|node| reading.integer(node, &grpc_path, 1..=16));
    if !fields.stands("httpStatus") && !fields.stands("grpcStatus") {
        let message = format!("`{status_path}`, `{grpc_path}` or both must stand");
        reading.problem(fields.at, Code::Missing, message);
    }
    Some(FaultAbort {
        percent: percent?,
        status: status.and_then(|status| u16::try_from(status).ok()),
        grpc_status: grpc.and_then(|code| u8::try_from(code).ok()),
    })
}

fn read_bandwidth(reading: &mut Reading, fields: &mut Fields<'_>) -> Option<FaultBandwidth> {
    let percent = read_percent(reading, fields);
    let path = fields.path("bytesPerSecond");
    let node = fields.required(reading, "bytesPerSecond")?;
    let rate = reading.integer(node, &path, 1..=i64::from(u32::MAX));
    Some(FaultBandwidth {
        percent: percent?,
        bytes_per_second: u32::try_from(rate?).ok()?,
    })
}
