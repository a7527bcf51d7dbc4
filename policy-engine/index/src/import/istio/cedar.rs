//! Conditions as Cedar policies, built through the syntax tree and then printed for people.

use super::condition::{Ask, Cond, Glob};
use super::pattern::Text;
use crate::manifest::cedar_judge::validator;
use cedar_policy::pst::{self, SmolStr};
use cedar_policy::{Policy, PolicySet, ValidationMode, ValidationWarning};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Columns that printed policies keep to.
const COLUMNS: usize = 100;

/// One policy of a CedarPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    /// `@id`, unique in its object.
    pub(crate) id: String,
    pub(crate) effect: pst::Effect,
    pub(crate) action: Action,
    /// The Servers that it is about: `<namespace>/<name>`.
    pub(crate) servers: BTreeSet<String>,
    /// Whether only clients with an identity are meant, whatever the condition says.
    pub(crate) verified: bool,
    pub(crate) cond: Cond,
}

/// What a policy is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Requests and bytes.
    Any,
    Requests,
    Bytes,
}

type Expr = Arc<pst::Expr>;

impl Statement {
    /// Whether it differs from another in Servers, condition and id at most.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        (self.effect, self.action, self.verified) == (other.effect, other.action, other.verified)
    }

    /// Whether any request could meet it. What none can meet is left out: it allows and denies nothing.
    pub(crate) fn is_possible(&self) -> bool {
        let Ok(policy) = self.policy() else {
            // Whoever prints it is told why.
            return true;
        };
        let set = PolicySet::from_policies([policy]).ok();
        let Some((validator, set)) = validator().ok().zip(set) else {
            return true;
        };
        let result = validator.validate(&set, ValidationMode::Strict);
        let impossible =
            |w: &ValidationWarning| matches!(w, ValidationWarning::ImpossiblePolicy(_));
        !result.validation_warnings().any(impossible)
    }

    /// The policy as text.
    ///
    /// # Errors
    /// What Cedar says of it; no input leads there.
    pub(crate) fn text(&self) -> Result<String, String> {
        let text = self.policy()?.to_cedar().ok_or("it is a template")?;
        let config = cedar_policy_formatter::Config {
            line_width: COLUMNS,
            indent_width: 2,
        };
        cedar_policy_formatter::policies_str_to_pretty(&text, &config).map_err(|e| e.to_string())
    }

    fn policy(&self) -> Result<Policy, String> {
        let why = |error: pst::PstConstructionError| error.to_string();
        let verified = self.verified || self.cond.implies_identity();
        let cond = if verified {
            self.cond.of_identities()
        } else {
            self.cond.clone()
        };
        let principal = if verified {
            pst::PrincipalConstraint::Is(entity_type("Workload").map_err(why)?)
        } else {
            pst::PrincipalConstraint::Any
        };
        let action = match self.action {
            Action::Any => pst::ActionConstraint::Any,
            Action::Requests => {
                pst::ActionConstraint::Eq(entity("Action", "request").map_err(why)?)
            }
            Action::Bytes => pst::ActionConstraint::Eq(entity("Action", "connect").map_err(why)?),
        };
        let (resource, within) = self.resource().map_err(why)?;
        let printer = Printer { guarded: !verified };
        let mut clauses: Vec<pst::Clause> = within.map(pst::Clause::When).into_iter().collect();
        if cond != Cond::Always {
            clauses.push(pst::Clause::When(printer.cond(&cond).map_err(why)?));
        }
        let template =
            pst::Template::new(self.id.as_str(), self.effect, principal, action, resource)
                .try_with_clauses(clauses)
                .map_err(why)?
                .with_annotations(BTreeMap::from([(
                    "id".to_owned(),
                    SmolStr::from(self.id.as_str()),
                )]));
        let fixed = pst::StaticPolicy::try_from(template).map_err(|e| e.to_string())?;
        Policy::from_pst(pst::Policy::Static(fixed)).map_err(|error| error.to_string())
    }

    /// The Servers, in the scope if it is one, else as a condition.
    fn resource(
        &self,
    ) -> Result<(pst::ResourceConstraint, Option<Expr>), pst::PstConstructionError> {
        let mut servers = Vec::new();
        for server in &self.servers {
            servers.push(entity("Server", server)?);
        }
        if let [only] = servers.as_slice() {
            let only = pst::EntityOrSlot::Entity(only.clone());
            return Ok((pst::ResourceConstraint::In(only), None));
        }
        let servers = servers
            .into_iter()
            .map(|server| literal(pst::Literal::EntityUID(server)));
        let set = Arc::new(pst::Expr::Set(servers.collect()));
        let within = binary(pst::BinaryOp::In, var(pst::Var::Resource), set);
        Ok((pst::ResourceConstraint::Any, Some(within)))
    }
}

fn entity_type(name: &str) -> Result<pst::EntityType, pst::PstConstructionError> {
    Ok(pst::EntityType::from_name(pst::Name::qualified(
        ["Mesh"],
        name,
    )?))
}

fn entity(kind: &str, id: &str) -> Result<pst::EntityUID, pst::PstConstructionError> {
    Ok(pst::EntityUID {
        ty: entity_type(kind)?,
        eid: SmolStr::from(id),
    })
}

struct Printer {
    /// Whether each look at the identity must first ask whether there is one.
    guarded: bool,
}

impl Printer {
    fn cond(&self, cond: &Cond) -> Result<Expr, pst::PstConstructionError> {
        Ok(match cond {
            Cond::Always => literal(pst::Literal::Bool(true)),
            Cond::Never => literal(pst::Literal::Bool(false)),
            Cond::All(parts) => self.join(pst::BinaryOp::And, parts)?,
            Cond::Any(parts) => self.any(parts)?,
            Cond::Not(part) => unary(pst::UnaryOp::Not, self.cond(part)?),
            Cond::Ask(ask) => self.ask(ask)?,
        })
    }

    fn join(&self, op: pst::BinaryOp, parts: &[Cond]) -> Result<Expr, pst::PstConstructionError> {
        let parts: Result<Vec<Expr>, _> = parts.iter().map(|part| self.cond(part)).collect();
        Ok(joined(op, parts?))
    }

    /// Alternatives; exact values of one attribute as a set.
    fn any(&self, parts: &[Cond]) -> Result<Expr, pst::PstConstructionError> {
        let exact = |part: &Cond| match part {
            Cond::Ask(Ask::Method(Text::Exact(text))) => Some((Attribute::Method, text.clone())),
            Cond::Ask(Ask::Path(Text::Exact(text))) => Some((Attribute::Path, text.clone())),
            Cond::Ask(Ask::Host(Text::Exact(text))) => Some((Attribute::Host, text.clone())),
            Cond::Ask(Ask::Namespace(Text::Exact(text))) => {
                Some((Attribute::Namespace, text.clone()))
            }
            Cond::Ask(Ask::Principal(Text::Exact(text))) => {
                Some((Attribute::Principal, format!("spiffe://{text}")))
            }
            _ => None,
        };
        let mut sets: BTreeMap<Attribute, Vec<String>> = BTreeMap::new();
        for (attribute, text) in parts.iter().filter_map(exact) {
            sets.entry(attribute).or_default().push(text);
        }
        sets.retain(|_, texts| texts.len() > 1);
        let mut out = Vec::new();
        for part in parts {
            match exact(part).map(|(attribute, _)| (attribute, sets.get_mut(&attribute))) {
                // The whole set stands where its first value stood.
                Some((attribute, Some(texts))) if !texts.is_empty() => {
                    out.push(self.one_of(attribute, &std::mem::take(texts))?);
                }
                Some((_, Some(_))) => {}
                _ => out.push(self.cond(part)?),
            }
        }
        Ok(joined(pst::BinaryOp::Or, out))
    }

    fn one_of(
        &self,
        attribute: Attribute,
        texts: &[String],
    ) -> Result<Expr, pst::PstConstructionError> {
        let set = Arc::new(pst::Expr::Set(
            texts.iter().map(|text| string(text)).collect(),
        ));
        let among = |expr| binary(pst::BinaryOp::Contains, Arc::clone(&set), expr);
        match attribute {
            Attribute::Method => Ok(among(request("method"))),
            Attribute::Path => Ok(among(request("path"))),
            Attribute::Host => Ok(and(has(context("req"), "host"), among(request("host")))),
            Attribute::Namespace => {
                self.identity(&[has(var(pst::Var::Principal), "ns"), among(principal("ns"))])
            }
            Attribute::Principal => self.identity(&[among(principal("id"))]),
        }
    }

    fn ask(&self, ask: &Ask) -> Result<Expr, pst::PstConstructionError> {
        Ok(match ask {
            Ask::Principal(text) => {
                let text = match text {
                    Text::Present => return self.identity(&[]),
                    Text::Suffix(_) => text.clone(),
                    other => other.map(|principal| format!("spiffe://{principal}")),
                };
                self.identity(&[matches(principal("id"), &text)])?
            }
            Ask::Identity(globs) => self.identity(&[like(principal("id"), globs)])?,
            Ask::Namespace(text) => {
                let mut parts = vec![has(var(pst::Var::Principal), "ns")];
                if *text != Text::Present {
                    parts.push(matches(principal("ns"), text));
                }
                self.identity(&parts)?
            }
            Ask::Account { namespace, name } => self.identity(&[
                has(var(pst::Var::Principal), "ns"),
                is(principal("ns"), namespace),
                has(var(pst::Var::Principal), "sa"),
                is(principal("sa"), name),
            ])?,
            Ask::SourceIn(block) => in_range(block),
            Ask::Method(text) => matches(request("method"), text),
            Ask::Path(text) => matches(request("path"), text),
            Ask::PathLike(globs) => like(request("path"), globs),
            Ask::Host(text) => {
                let stands = has(context("req"), "host");
                if *text == Text::Present {
                    stands
                } else {
                    and(stands, matches(request("host"), text))
                }
            }
            Ask::HeaderStands(name) => header_stands(name),
            Ask::HeaderFilled(name) => and(
                header_stands(name),
                unary(pst::UnaryOp::Not, header_has(name, "")),
            ),
            Ask::HeaderHas { name, value } => and(header_stands(name), header_has(name, value)),
            Ask::HeaderIs { name, value } => {
                let only = Arc::new(pst::Expr::Set(vec![string(value)]));
                and(
                    header_stands(name),
                    binary(pst::BinaryOp::Eq, header_values(name), only),
                )
            }
        })
    }

    /// What is asked of an identity, after the question whether there is one.
    fn identity(&self, parts: &[Expr]) -> Result<Expr, pst::PstConstructionError> {
        let mut all = Vec::new();
        if self.guarded {
            all.push(Arc::new(pst::Expr::Is {
                expr: var(pst::Var::Principal),
                entity_type: entity_type("Workload")?,
                in_expr: None,
            }));
        }
        all.extend(parts.iter().cloned());
        let joined = all.into_iter().reduce(and);
        Ok(joined.unwrap_or_else(|| literal(pst::Literal::Bool(true))))
    }
}

/// Attributes whose exact values are asked for as a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Attribute {
    Principal,
    Namespace,
    Method,
    Path,
    Host,
}

/// Parts with an operator between them: a chain if they are few, else a tree, for depth is bounded.
fn joined(op: pst::BinaryOp, parts: Vec<Expr>) -> Expr {
    const CHAIN_MAX: usize = 8;
    if parts.len() > CHAIN_MAX {
        let (first, second) = parts.split_at(parts.len() / 2);
        return binary(op, joined(op, first.to_vec()), joined(op, second.to_vec()));
    }
    let whole = parts
        .into_iter()
        .reduce(|before, part| binary(op, before, part));
    whole.unwrap_or_else(|| literal(pst::Literal::Bool(op == pst::BinaryOp::And)))
}

fn literal(literal: pst::Literal) -> Expr {
    Arc::new(pst::Expr::Literal(literal))
}

fn string(text: &str) -> Expr {
    literal(pst::Literal::String(SmolStr::from(text)))
}

fn var(var: pst::Var) -> Expr {
    Arc::new(pst::Expr::Var(var))
}

fn unary(op: pst::UnaryOp, expr: Expr) -> Expr {
    Arc::new(pst::Expr::UnaryOp { op, expr })
}

fn binary(op: pst::BinaryOp, left: Expr, right: Expr) -> Expr {
    Arc::new(pst::Expr::BinaryOp { op, left, right })
}

fn and(left: Expr, right: Expr) -> Expr {
    binary(pst::BinaryOp::And, left, right)
}

fn is(left: Expr, text: &str) -> Expr {
    binary(pst::BinaryOp::Eq, left, string(text))
}

fn get(expr: Expr, attr: &str) -> Expr {
    Arc::new(pst::Expr::GetAttr {
        expr,
        attr: SmolStr::from(attr),
    })
}

fn has(expr: Expr, attr: &str) -> Expr {
    Arc::new(pst::Expr::HasAttr {
        expr,
        attrs: pst::NonEmpty::new(SmolStr::from(attr)),
    })
}

fn context(attr: &str) -> Expr {
    get(var(pst::Var::Context), attr)
}

fn request(attr: &str) -> Expr {
    get(context("req"), attr)
}

fn principal(attr: &str) -> Expr {
    get(var(pst::Var::Principal), attr)
}

fn header_stands(name: &str) -> Expr {
    binary(pst::BinaryOp::HasTag, request("headers"), string(name))
}

fn header_values(name: &str) -> Expr {
    binary(pst::BinaryOp::GetTag, request("headers"), string(name))
}

fn header_has(name: &str, value: &str) -> Expr {
    binary(pst::BinaryOp::Contains, header_values(name), string(value))
}

fn in_range(block: &IpNet) -> Expr {
    let block = unary(pst::UnaryOp::Ip, string(&block.to_string()));
    binary(pst::BinaryOp::IsInRange, get(context("conn"), "ip"), block)
}

fn matches(expr: Expr, text: &Text) -> Expr {
    match text {
        Text::Present => unary(pst::UnaryOp::Not, is(expr, "")),
        Text::Exact(text) => is(expr, text),
        Text::Prefix(text) => like(expr, &[Glob::Text(text.clone()), Glob::Star]),
        Text::Suffix(text) => like(expr, &[Glob::Star, Glob::Text(text.clone())]),
    }
}

fn like(expr: Expr, globs: &[Glob]) -> Expr {
    let mut pattern = Vec::new();
    for glob in globs {
        match glob {
            Glob::Text(text) => pattern.extend(text.chars().map(pst::PatternElem::Char)),
            Glob::Star => pattern.push(pst::PatternElem::Wildcard),
        }
    }
    Arc::new(pst::Expr::Like { expr, pattern })
}
