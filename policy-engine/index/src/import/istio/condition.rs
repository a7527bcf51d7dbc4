//! What a rule asks, as a condition over the attributes that a policy in Cedar sees.
//!
//! Not everything that Istio asks can be asked here, and not all of it in the same words. So a condition is made for a
//! side: what allows is never wider than the original, what denies never narrower. Wherever the two differ there is a
//! [`Doubt`].

use super::identity;
use super::model::{Attribute, Clause, Mtls, Want};
use super::pattern::{PathText, Piece, Text, canonical_path};
use crate::import::report::Status;
use ipnet::IpNet;
use mesh_policy::snapshot::Source;
use mesh_trust::TrustDomain;

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cond {
    Always,
    Never,
    All(Vec<Cond>),
    Any(Vec<Cond>),
    Not(Box<Cond>),
    Ask(Ask),
}

/// One question that Cedar can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The client's SPIFFE ID, without its scheme.
    Principal(Text),
    /// The client's SPIFFE ID in full.
    Identity(Vec<Glob>),
    Namespace(Text),
    Account {
        namespace: String,
        name: String,
    },
    SourceIn(IpNet),
    Method(Text),
    Path(Text),
    /// Texts with any text between them.
    PathLike(Vec<Glob>),
    Host(Text),
    HeaderStands(String),
    /// There is a value, and none is empty.
    HeaderFilled(String),
    /// There is a value, and every value is this one.
    HeaderIs {
        name: String,
        value: String,
    },
    /// Some value is this one.
    HeaderHas {
        name: String,
        value: String,
    },
}

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Glob {
    Text(String),
    /// Any text, slashes too.
    Star,
}

/// Which way a condition may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// It may hold less often: for what allows.
    Under,
    /// It may hold more often: for what denies.
    Over,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Under => Self::Over,
            Self::Over => Self::Under,
        }
    }

    /// The condition that is never wrong on this side.
    pub(crate) fn safe(self) -> Cond {
        match self {
            Self::Under => Cond::Never,
            Self::Over => Cond::Always,
        }
    }
}

/// Where a condition is not what Istio asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doubt {
    pub(crate) part: String,
    pub(crate) source: Source,
    pub(crate) status: Status,
    pub(crate) message: String,
}

/// What conditions are made for.
#[derive(Clone, Copy)]
pub(crate) struct Setting<'a> {
    pub(crate) trust_domain: &'a TrustDomain,
    pub(crate) mode: Mtls,
    pub(crate) port: u16,
    /// For bytes: what only requests have is not looked at.
    pub(crate) bytes: bool,
}

impl Cond {
    pub(crate) fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut out = Vec::new();
        for part in parts {
            match part {
                Self::Always => {}
                Self::Never => return Self::Never,
                Self::All(inner) => out.extend(inner),
                other => out.push(other),
            }
        }
        match out.len() {
            0 => Self::Always,
            1 => out.remove(0),
            _ => Self::All(out),
        }
    }

    pub(crate) fn any(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut out: Vec<Self> = Vec::new();
        for part in parts {
            match part {
                Self::Never => {}
                Self::Always => return Self::Always,
                Self::Any(inner) => out.extend(inner),
                other => out.push(other),
            }
        }
        match out.len() {
            0 => Self::Never,
            1 => out.remove(0),
            _ => Self::Any(out),
        }
    }

    pub(crate) fn not(part: Self) -> Self {
        match part {
            Self::Always => Self::Never,
            Self::Never => Self::Always,
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }

    /// The same for clients that are known to have an identity.
    pub(crate) fn of_identities(&self) -> Self {
        match self {
            Self::All(parts) => Self::all(parts.iter().map(Self::of_identities)),
            Self::Any(parts) => Self::any(parts.iter().map(Self::of_identities)),
            Self::Not(part) => Self::not(part.of_identities()),
            Self::Ask(Ask::Principal(Text::Present)) => Self::Always,
            other => other.clone(),
        }
    }

    /// Whether it can only hold for clients with an identity.
    pub(crate) fn implies_identity(&self) -> bool {
        match self {
            Self::Always | Self::Not(_) => false,
            Self::Never => true,
            Self::All(parts) => parts.iter().any(Self::implies_identity),
            Self::Any(parts) => parts.iter().all(Self::implies_identity),
            Self::Ask(ask) => matches!(
                ask,
                Ask::Principal(_) | Ask::Identity(_) | Ask::Namespace(_) | Ask::Account { .. }
            ),
        }
    }
}

/// The condition of all clauses together.
pub(crate) fn conjunction(
    clauses: &[&Clause],
    side: Side,
    setting: &Setting<'_>,
    doubts: &mut Vec<Doubt>,
) -> Cond {
    let parts: Vec<Cond> = clauses
        .iter()
        .map(|c| condition(c, side, setting, doubts))
        .collect();
    Cond::all(parts)
}

/// The condition of one clause: one of its values, none of its opposites.
fn condition(clause: &Clause, side: Side, setting: &Setting<'_>, doubts: &mut Vec<Doubt>) -> Cond {
    if setting.bytes && clause.attribute.is_of_requests() {
        // Istio leaves such a rule out where it allows, and the question where it denies: the same.
        return side.safe();
    }
    if let Attribute::Foreign(name, _) = &clause.attribute {
        let (status, consequence) = match side {
            Side::Under => (Status::NotKept, "what depends on it is not allowed"),
            Side::Over => (Status::KeptStricter, "it is denied whatever that is"),
        };
        let message = format!("this mesh cannot ask for `{name}`: {consequence}");
        doubts.push(doubt(clause, status, message));
        return side.safe();
    }
    let values = clause
        .values
        .iter()
        .map(|w| holds(clause, w, side, setting, doubts));
    let yes = if clause.values.is_empty() {
        Cond::Always
    } else {
        Cond::any(values.collect::<Vec<_>>())
    };
    let none = clause
        .not_values
        .iter()
        .map(|w| holds(clause, w, side.other(), setting, doubts));
    Cond::all([yes, Cond::not(Cond::any(none.collect::<Vec<_>>()))])
}

fn doubt(clause: &Clause, status: Status, message: String) -> Doubt {
    Doubt {
        part: clause.path.clone(),
        source: clause.source.clone(),
        status,
        message,
    }
}

/// Whether one value is met.
fn holds(
    clause: &Clause,
    want: &Want,
    side: Side,
    setting: &Setting<'_>,
    doubts: &mut Vec<Doubt>,
) -> Cond {
    if clause.attribute.is_identity() && setting.mode == Mtls::Disable {
        // Without mTLS nobody has an identity.
        return Cond::Never;
    }
    match (&clause.attribute, want) {
        (Attribute::Port, Want::Port(port)) if *port == setting.port => Cond::Always,
        (Attribute::Port, _) => Cond::Never,
        (Attribute::SourceIp, Want::Block(block)) => Cond::Ask(Ask::SourceIn(*block)),
        (Attribute::Principal, Want::Text(text)) => {
            let (cond, why) = identity::principal(text, side, setting.trust_domain);
            doubts.extend(why.map(|why| doubt(clause, Status::KeptStricter, why)));
            cond
        }
        (Attribute::Namespace, Want::Text(text)) => {
            let (cond, why) = identity::namespace(text, side);
            doubts.extend(why.map(|why| doubt(clause, Status::KeptStricter, why)));
            cond
        }
        (Attribute::ServiceAccount, Want::Account { namespace, name }) => {
            identity::account(namespace, name, side)
        }
        (Attribute::Method, Want::Text(Text::Present)) => Cond::Always,
        (Attribute::Method, Want::Text(text)) => Cond::Ask(Ask::Method(text.clone())),
        (Attribute::Host, Want::Text(text)) => Cond::Ask(Ask::Host(text.clone())),
        (Attribute::Header(name), Want::Text(text)) => header(clause, name, text, side, doubts),
        (Attribute::Path, Want::Path(path)) => path_holds(clause, path, side, doubts),
        // No attribute has values of another kind; if one had, nothing would be known of it.
        _ => side.safe(),
    }
}

fn header(clause: &Clause, name: &str, text: &Text, side: Side, doubts: &mut Vec<Doubt>) -> Cond {
    let name = name.to_owned();
    let approximate = |message: String, doubts: &mut Vec<Doubt>| {
        doubts.push(doubt(clause, Status::KeptStricter, message));
    };
    match (text, side) {
        // Istio puts several values together with commas, and cookies that came apart with semicolons: so a value with
        // one may come in pieces that are none of them.
        (Text::Exact(value), Side::Over) if value.contains([',', ';']) || name == "cookie" => {
            approximate(
                format!("header `{name}` may come in several pieces: every value counts"),
                doubts,
            );
            Cond::Ask(Ask::HeaderStands(name))
        }
        (Text::Present, Side::Under) => Cond::Ask(Ask::HeaderFilled(name)),
        (Text::Present, Side::Over) => Cond::Ask(Ask::HeaderStands(name)),
        (Text::Exact(value), Side::Under) => Cond::Ask(Ask::HeaderIs {
            name,
            value: value.clone(),
        }),
        (Text::Exact(value), Side::Over) => Cond::Ask(Ask::HeaderHas {
            name,
            value: value.clone(),
        }),
        (Text::Prefix(_) | Text::Suffix(_), Side::Under) => {
            approximate(
                format!(
                    "a part of the value of header `{name}` cannot be asked for: no value of that form counts"
                ),
                doubts,
            );
            Cond::Never
        }
        (Text::Prefix(_) | Text::Suffix(_), Side::Over) => {
            approximate(
                format!(
                    "a part of the value of header `{name}` cannot be asked for: every value counts"
                ),
                doubts,
            );
            Cond::Ask(Ask::HeaderStands(name))
        }
    }
}

fn path_holds(clause: &Clause, path: &PathText, side: Side, doubts: &mut Vec<Doubt>) -> Cond {
    if path.is_ambiguous() {
        let message = match side {
            Side::Under => {
                "a path that is not in canonical form: no request has it, for paths are judged in that form"
            }
            Side::Over => {
                "a path that is not in canonical form: every path that might have been written so counts"
            }
        };
        doubts.push(doubt(clause, Status::KeptStricter, message.to_owned()));
        return match (path, side) {
            (_, Side::Under) => Cond::Never,
            (PathText::Text(Text::Exact(text)), Side::Over) => match canonical_path(text) {
                Some(canonical) => Cond::Ask(Ask::Path(Text::Exact(canonical))),
                // Every such request is refused with 400 before any policy is asked.
                None => Cond::Never,
            },
            (_, Side::Over) => Cond::Always,
        };
    }
    match path {
        PathText::Text(Text::Present) => Cond::Always,
        PathText::Text(text) => Cond::Ask(Ask::Path(text.clone())),
        PathText::Template(pieces) => template(clause, pieces, side, doubts),
    }
}

/// Characters of canonical paths that no operator of a template takes (Envoy's URI templates).
const NOT_IN_TEMPLATES: &str = "\"*<>[]^`{|}";

/// A template in terms of `*`, which spans slashes: as many slashes as the template has and no more, and no empty segment.
fn template(clause: &Clause, pieces: &[Piece], side: Side, doubts: &mut Vec<Doubt>) -> Cond {
    let like = |doubled: Option<usize>| {
        let globs = pieces
            .iter()
            .enumerate()
            .flat_map(|(at, piece)| match piece {
                Piece::Literal(text) => vec![Glob::Text(text.clone())],
                Piece::One if doubled == Some(at) => {
                    vec![Glob::Star, Glob::Text("/".to_owned()), Glob::Star]
                }
                Piece::One | Piece::Many => vec![Glob::Star],
            });
        Cond::Ask(Ask::PathLike(globs.collect()))
    };
    let one = |piece: &Piece| *piece == Piece::One;
    let exact = !(pieces.contains(&Piece::Many) && pieces.iter().any(one));
    if !exact && side == Side::Over {
        doubts.push(doubt(
            clause,
            Status::KeptStricter,
            "`{*}` before `{**}` counts for several segments too".to_owned(),
        ));
        return like(None);
    }
    if !exact {
        doubts.push(doubt(
            clause,
            Status::KeptStricter,
            "paths that `{*}` and `{**}` could divide between them in two ways are left out"
                .to_owned(),
        ));
    }
    let places = pieces
        .iter()
        .enumerate()
        .filter(|(_, p)| one(p))
        .map(|(at, _)| at);
    let mut parts = vec![like(None)];
    parts.extend(places.map(|at| Cond::not(like(Some(at)))));
    if pieces.last().is_some_and(one) {
        parts.push(Cond::not(Cond::Ask(Ask::Path(Text::Suffix(
            "/".to_owned(),
        )))));
    }
    if side == Side::Under {
        parts.extend(NOT_IN_TEMPLATES.chars().map(|c| {
            let somewhere = vec![Glob::Star, Glob::Text(c.to_string()), Glob::Star];
            Cond::not(Cond::Ask(Ask::PathLike(somewhere)))
        }));
    }
    Cond::all(parts)
}

#[cfg(test)]
mod tests;
