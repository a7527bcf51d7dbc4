//! The table of who talks to whom, made of what the proxies answer on `/edges`.

use super::state::Running;
use mesh_api::admin::{self, DeniedCount, Direction, Edge, EdgeStats};
use std::fmt::Write as _;

/// Widest table line.
const COLUMNS: usize = 100;

/// One row: an inbound edge as the server's proxy saw it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    from: String,
    to: String,
    identity: String,
    verdict: String,
    requests: u64,
    p50_us: u64,
    p99_us: u64,
}

/// Asks all proxies; those that do not answer are left out.
pub(crate) async fn rows(running: &Running) -> Vec<Row> {
    let mut rows = Vec::new();
    for workload in &running.workloads {
        let Some(proxy) = &workload.proxy else { continue };
        let Ok(body) = admin::get(&proxy.socket, "/edges").await else { continue };
        let Ok(stats) = serde_json::from_slice::<EdgeStats>(&body) else { continue };
        rows.extend(stats.edges.iter().filter(|edge| edge.direction == Direction::Inbound).map(row));
    }
    rows.sort_by(|a, b| (&a.to, &a.from).cmp(&(&b.to, &b.from)));
    rows
}

fn row(edge: &Edge) -> Row {
    let denied: u64 = edge.denied.iter().map(|denial| denial.count).sum();
    let verdict = match (edge.allowed, edge.denied.iter().max_by_key(|denial| denial.count)) {
        (_, None) => "allowed".to_owned(),
        (0, Some(most)) => format!("DENIED {}", describe(most)),
        (_, Some(most)) => format!("{denied} DENIED {}", describe(most)),
    };
    Row {
        from: short(&edge.peer),
        to: format!("{} {:?}", edge.target, edge.protocol).to_ascii_lowercase(),
        identity: edge.peer.clone(),
        verdict,
        requests: edge.requests,
        p50_us: edge.p50_us.unwrap_or(0),
        p99_us: edge.p99_us.unwrap_or(0),
    }
}

/// `grpc:7 no grant` of a denial.
fn describe(denial: &DeniedCount) -> String {
    match (denial.grpc_status, denial.status) {
        (Some(grpc), _) => format!("grpc:{grpc} {}", denial.reason),
        (None, Some(status)) => format!("{status} {}", denial.reason),
        (None, None) => format!("closed {}", denial.reason),
    }
}

/// `web` of `spiffe://td/ns/shop/sa/web`; other names as they are.
fn short(identity: &str) -> String {
    match mesh_trust::SpiffeId::parse(identity) {
        Ok(id) => id.service_account().map_or_else(|| identity.to_owned(), |(_, name)| name.to_owned()),
        Err(_) => identity.to_owned(),
    }
}

/// The table as text, with its heading, each line at most 100 columns.
pub(crate) fn render(rows: &[Row]) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{:<34} {:<26} {:<18} {:>6} {:>6} {:>6}", "IDENTITY SEEN", "TO", "VERDICT", "COUNT", "P50", "P99");
    for row in rows {
        let line = format!(
            "{:<34} {:<26} {:<18} {:>6} {:>6} {:>6}",
            cut(&row.identity.replace("spiffe://", ""), 34),
            cut(&row.to, 26),
            cut(&row.verdict, 18),
            row.requests,
            latency(row.p50_us),
            latency(row.p99_us),
        );
        let _ = writeln!(text, "{}", cut(&line, COLUMNS));
    }
    text
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

fn latency(us: u64) -> String {
    match us {
        0 => "-".to_owned(),
        1..1_000 => format!("{us}us"),
        1_000..1_000_000 => format!("{:.1}ms", us as f64 / 1_000.0),
        _ => format!("{:.1}s", us as f64 / 1_000_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let row = Row {
            from: "x".repeat(300),
            to: "ns/name:80 http".repeat(20),
            identity: format!("spiffe://{}", "y".repeat(300)),
            verdict: "DENIED 403 no permit".repeat(9),
            requests: u64::MAX,
            p50_us: u64::MAX,
            p99_us: 1,
        };
        assert!(render(&[row]).lines().all(|line| line.chars().count() <= COLUMNS));
    }
}
