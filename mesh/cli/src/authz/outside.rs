//! What leaves the mesh, as the questions about whole meshes print it.

use super::world::few;
use crate::fault::Fault;
use crate::output::{Output, Tone, printable};
use mesh_policy_analysis::outside::Witness;
use mesh_policy_analysis::outside::access::Outgoing;
use mesh_policy_analysis::outside::change::{OutsideAccess, OutsideChange, OutsideDiff, Said};
use mesh_policy_analysis::outside::sent::Sent;
use mesh_policy_analysis::survey::Reason;

/// Blocks, ports and the like of a list; `any` if it is empty.
pub(super) fn or_any(all: &[String], any: &str) -> String {
    match all.is_empty() {
        true => any.to_owned(),
        false => few(all),
    }
}

/// `203.0.113.0/24 port 443`.
pub(super) fn place(access: &OutsideAccess) -> String {
    format!(
        "{} port {}",
        or_any(&access.to, "any address"),
        or_any(&access.ports, "any")
    )
}

/// What may be sent, in words.
pub(super) fn sent(access: &OutsideAccess) -> String {
    or_any(&access.sent, "anything")
}

/// What lets something out, with its place.
pub(super) fn by(reasons: &[Reason]) -> Vec<String> {
    match reasons {
        [] => vec!["no EgressNetwork speaks for these addresses".to_owned()],
        _ => reasons
            .iter()
            .map(|reason| format!("{}  {}", reason.policy, reason.source))
            .collect(),
    }
}

/// The command that asks about one connection or request.
pub(super) fn command(witness: &Witness) -> String {
    let mut out = format!(
        "mesh authz egress --from {} --to {}",
        witness.from, witness.to
    );
    let mut add = |flag: &str, value: &str| {
        out.push_str(&format!(" --{flag} {}", quoted(value)));
    };
    match &witness.sent {
        Sent::Bytes => {}
        Sent::Tls {
            server_name: Some(name),
        } => add("sni", name),
        Sent::Tls { server_name: None } => out.push_str(" --tls"),
        Sent::Http(request) => {
            if let Some(host) = &request.host {
                add("host", host);
            }
            add("method", &request.method);
            add("path", &request.path);
            for (name, values) in &request.headers {
                for value in values {
                    add("header", &format!("{name}={value}"));
                }
            }
        }
    }
    out
}

/// A word as a shell reads it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// One kind of access to outside.
pub(super) fn print_access(access: &OutsideAccess, output: &mut Output) -> Result<(), Fault> {
    output.line(format_args!("    may  {}", sent(access)))?;
    for reason in by(&access.reasons) {
        output.line(format_args!("    by   {}", printable(&reason)))?;
    }
    Ok(())
}

/// What two policies let out differently.
pub(super) fn print_diff(found: &OutsideDiff, output: &mut Output) -> Result<(), Fault> {
    for (sign, tone, changes) in [
        ("+", Tone::Bad, &found.gained),
        ("-", Tone::Doubtful, &found.lost),
    ] {
        for change in changes {
            let sign = output.toned(tone, sign);
            let who = few(&change.workloads);
            let to = place(&change.access);
            output.line(format_args!("{sign} {who} -> outside {to}"))?;
            print_access(&change.access, output)?;
            output.line(format_args!(
                "    was  {}; is {}",
                said(change.before.as_ref()),
                said(change.after.as_ref())
            ))?;
            let command = command(&change.access.witness);
            output.line(format_args!("    e.g. {}", printable(&command)))?;
        }
    }
    Ok(())
}

fn said(said: Option<&Said>) -> String {
    let Some(said) = said else {
        return "not there".to_owned();
    };
    let cause = printable(&said.cause);
    match said.decision.reasons.as_slice() {
        [] => cause,
        reasons => format!("{cause} ({})", few(reasons)),
    }
}

/// Cells of a table: who, where, what, by.
pub(super) fn cells(change: &OutsideChange) -> [String; 4] {
    let access = &change.access;
    [
        few(&change.workloads),
        format!("outside {}", place(access)),
        sent(access),
        few(&by(&access.reasons)),
    ]
}

/// Where workloads get out.
pub(super) fn print_outgoing(all: &[Outgoing], output: &mut Output) -> Result<(), Fault> {
    for one in all {
        let title = output.toned(Tone::Strong, &few(&one.workloads));
        output.line(title)?;
        for access in &one.access {
            output.line(format_args!("  outside {}", place(access)))?;
            print_access(access, output)?;
            let command = command(&access.witness);
            output.line(format_args!("    e.g. {}", printable(&command)))?;
        }
        for note in &one.notes {
            output.line(format_args!("  note: {}", printable(note)))?;
        }
    }
    if all.is_empty() {
        output.line("nothing gets out")?;
    }
    Ok(())
}
