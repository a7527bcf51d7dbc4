//! `sessionPersistence` of a rule (Gateway API, GEP-1619): how clients come back to the endpoint that they had.

use super::read::{Fields, Reading};
use super::route_backend::read_duration_of;
use super::route_match::is_token;
use super::traffic::SessionPersistence;
use super::tree::Node;
use crate::finding::Code;
use mesh_policy::fields::may_carry_session;
use mesh_policy::traffic::SessionCarrier;

/// Bytes of a session's name (Gateway API).
const NAME_BYTES_MAX: usize = 128;

/// Longest session, a year: what is longer outlives every endpoint.
const LIVES_SECS_MAX: u64 = 365 * 24 * 3_600;

/// Reads `sessionPersistence`.
pub(crate) fn read_session(
    reading: &mut Reading,
    node: &Node,
    path: &str,
) -> Option<SessionPersistence> {
    let mut fields = reading.fields(node, path)?;
    let header = fields.choice(reading, "type", &["Cookie", "Header"]) == Some("Header");
    let carrier = match header {
        true => SessionCarrier::Header,
        false => SessionCarrier::Cookie,
    };
    let name = read_name(reading, &mut fields, carrier);
    let lives_secs = read_life(reading, &mut fields);
    if let Some(node) = fields.optional(reading, "idleTimeout") {
        let message = format!("`{path}.idleTimeout` is not applied");
        reading.doubt(node.at, Code::NotEnforced, message);
    }
    let permanent = read_cookie(reading, &mut fields, header);
    if permanent && !fields.stands("absoluteTimeout") {
        let message =
            format!("`{path}.cookieConfig.lifetimeType: Permanent` needs `{path}.absoluteTimeout`");
        reading.problem(fields.at, Code::Conflict, message);
    }
    fields.finish(reading);
    Some(SessionPersistence {
        name,
        carrier,
        lives_secs,
        permanent,
    })
}

fn read_name(
    reading: &mut Reading,
    fields: &mut Fields<'_>,
    carrier: SessionCarrier,
) -> Option<String> {
    let path = fields.path("sessionName");
    let node = fields.optional(reading, "sessionName")?;
    let name = reading.text(node, &path)?;
    let fits = match carrier {
        SessionCarrier::Cookie => true,
        SessionCarrier::Header => may_carry_session(&name.to_ascii_lowercase()),
    };
    if !is_token(name) || name.len() > NAME_BYTES_MAX || !fits {
        let what = match carrier {
            SessionCarrier::Cookie => "a cookie",
            SessionCarrier::Header => "a header that may carry a session",
        };
        let message =
            format!("`{path}: {name}` is no name of {what}, of at most {NAME_BYTES_MAX} bytes");
        reading.problem(node.at, Code::BadValue, message);
        return None;
    }
    Some(name.to_owned())
}

fn read_life(reading: &mut Reading, fields: &mut Fields<'_>) -> Option<u32> {
    let path = fields.path("absoluteTimeout");
    let node = fields.optional(reading, "absoluteTimeout")?;
    let longest = format!("{}h", LIVES_SECS_MAX / 3_600);
    let ms = read_duration_of(
        reading,
        node,
        &path,
        1_000..=LIVES_SECS_MAX * 1_000,
        ("1s", &longest),
    );
    u32::try_from(ms? / 1_000).ok()
}

/// Whether the cookie outlives the client's own session.
fn read_cookie(reading: &mut Reading, fields: &mut Fields<'_>, header: bool) -> bool {
    let path = fields.path("cookieConfig");
    let Some(mut config) = fields.optional_fields(reading, "cookieConfig") else {
        return false;
    };
    if header {
        let message = format!("`{path}` stands beside `type: Header`");
        reading.problem(config.at, Code::Conflict, message);
    }
    let kinds = ["Session", "Permanent"];
    let permanent = config.choice(reading, "lifetimeType", &kinds) == Some("Permanent");
    config.finish(reading);
    permanent
}
