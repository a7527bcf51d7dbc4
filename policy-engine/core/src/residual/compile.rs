//! From Cedar's public syntax tree to a program.
//!
//! Records and sets exist here alone: a path such as `context.req.method` becomes one fact, a set one prepared operand.
//! An operator whose operands fall outside that is [`Unsupported`].

use super::entity::{Group, Kind, Uid, Var};
use super::node::{AddressTest, Arithmetic, Field, Literal, Operator, Term, Test};
use super::pattern::Pattern;
use super::set::{Bag, Comparison, Constant, Relation};
use super::{EvalError, Program, Unsupported, literal};
use crate::limits::PROGRAM_DEPTH_MAX;
use crate::question::SetNames;
use cedar_policy::pst::{self, BinaryOp, Clause, Expr, UnaryOp};
use mesh_trust::TrustDomain;
use std::collections::BTreeSet;

mod path;
mod scope;

use path::{Place, place};

/// What is known while one policy is compiled.
struct Compiler<'n> {
    names: &'n SetNames,
    trust_domain: &'n TrustDomain,
    headers: BTreeSet<Box<str>>,
    looks_at_request: bool,
    looks_at_time: bool,
}

pub(super) fn program(
    policy: &pst::Template,
    names: &SetNames,
    trust_domain: &TrustDomain,
) -> Result<Program, Unsupported> {
    let mut compiler = Compiler {
        names,
        trust_domain,
        headers: BTreeSet::new(),
        looks_at_request: false,
        looks_at_time: false,
    };
    let mut tests = compiler.scope(policy)?;
    for clause in policy.clauses() {
        tests.push(match clause {
            Clause::When(condition) => compiler.test(condition, PROGRAM_DEPTH_MAX)?,
            Clause::Unless(condition) => not(compiler.test(condition, PROGRAM_DEPTH_MAX)?),
        });
    }
    Ok(Program {
        test: all(tests),
        headers: compiler.headers.into_iter().collect(),
        looks_at_request: compiler.looks_at_request,
        looks_at_time: compiler.looks_at_time,
    })
}

impl Compiler<'_> {
    /// An expression that must be a Boolean.
    fn test(&mut self, expr: &Expr, depth: u32) -> Result<Test, Unsupported> {
        let depth = deeper(depth)?;
        match expr {
            Expr::Literal(pst::Literal::Bool(truth)) => Ok(Test::Known(*truth)),
            Expr::IfThenElse {
                cond,
                then_expr,
                else_expr,
            } => {
                let condition = self.test(cond, depth)?;
                let then = self.test(then_expr, depth)?;
                let otherwise = self.test(else_expr, depth)?;
                Ok(Test::If(Box::new((condition, then, otherwise))))
            }
            _ => match self.boolean(expr, depth)? {
                Some(test) => Ok(test),
                None => self.other_term(expr, depth).map(Test::Truth),
            },
        }
    }

    /// An expression with a value.
    fn term(&mut self, expr: &Expr, depth: u32) -> Result<Term, Unsupported> {
        let depth = deeper(depth)?;
        match expr {
            Expr::IfThenElse {
                cond,
                then_expr,
                else_expr,
            } => {
                let condition = self.test(cond, depth)?;
                let then = self.term(then_expr, depth)?;
                let otherwise = self.term(else_expr, depth)?;
                Ok(Term::If(Box::new((condition, then, otherwise))))
            }
            _ => match self.boolean(expr, depth)? {
                Some(test) => Ok(Term::Test(Box::new(test))),
                None => self.other_term(expr, depth),
            },
        }
    }

    /// An operator whose result is a Boolean; `None`: it is none.
    fn boolean(&mut self, expr: &Expr, depth: u32) -> Result<Option<Test>, Unsupported> {
        Ok(Some(match expr {
            Expr::UnaryOp { op, expr } => match op {
                UnaryOp::Not => not(self.test(expr, depth)?),
                UnaryOp::IsEmpty => Test::IsEmpty(self.bag(expr, depth)?),
                _ => match address_test(*op) {
                    Some(test) => operator(Operator::Address(test, self.term(expr, depth)?)),
                    None => return Ok(None),
                },
            },
            Expr::BinaryOp { op, left, right } => {
                return self.binary(*op, expr, (left, right), depth);
            }
            Expr::HasAttr { expr, attrs } => self.has(expr, attrs.iter())?,
            Expr::Like { expr, pattern } => {
                let term = self.term(expr, depth)?;
                operator(Operator::Like(term, Pattern::new(pattern)))
            }
            Expr::Is {
                expr,
                entity_type,
                in_expr,
            } => {
                let kind = Kind::of(entity_type).ok_or(Unsupported("an unknown entity type"))?;
                let is = is_a(self.term(expr, depth)?, kind);
                match in_expr {
                    Some(group) => all(vec![is, self.membership(expr, group)?]),
                    None => is,
                }
            }
            _ => return Ok(None),
        }))
    }

    fn binary(
        &mut self,
        op: BinaryOp,
        whole: &Expr,
        (left, right): (&Expr, &Expr),
        depth: u32,
    ) -> Result<Option<Test>, Unsupported> {
        Ok(Some(match op {
            BinaryOp::And => all(self.chain(op, whole, depth)?),
            BinaryOp::Or => Test::Any(self.chain(op, whole, depth)?.into()),
            BinaryOp::Eq => self.equality(left, right, depth)?,
            BinaryOp::NotEq => not(self.equality(left, right, depth)?),
            BinaryOp::Less | BinaryOp::GreaterEq => {
                let (left, right) = (self.term(left, depth)?, self.term(right, depth)?);
                let less = operator(Operator::Less(left, right));
                if op == BinaryOp::Less {
                    less
                } else {
                    not(less)
                }
            }
            BinaryOp::LessEq | BinaryOp::Greater => {
                let (left, right) = (self.term(left, depth)?, self.term(right, depth)?);
                let less = operator(Operator::LessOrEqual(left, right));
                if op == BinaryOp::LessEq {
                    less
                } else {
                    not(less)
                }
            }
            BinaryOp::In => self.membership(left, right)?,
            BinaryOp::Contains => self.contains(left, right, depth)?,
            BinaryOp::ContainsAll => {
                self.comparison((Relation::Covers, Relation::Within), left, right, depth)?
            }
            BinaryOp::ContainsAny => {
                self.comparison((Relation::Meets, Relation::Meets), left, right, depth)?
            }
            BinaryOp::HasTag => match self.header(left, right)? {
                Some(name) => Test::HasHeader(name),
                None => all(vec![Test::Requested, Test::Known(false)]),
            },
            BinaryOp::IsInRange => {
                let (inner, outer) = (self.term(left, depth)?, self.term(right, depth)?);
                match (inner, outer) {
                    (Term::Field(Field::Ip), Term::Literal(Literal::Ip(block))) => {
                        Test::ClientIn(block.range())
                    }
                    (inner, outer) => operator(Operator::IsInRange(inner, outer)),
                }
            }
            _ => return Ok(None),
        }))
    }

    /// The operands of a chain of `&&` or of `||`, in order. The parser nests them to the left.
    fn chain(&mut self, op: BinaryOp, whole: &Expr, depth: u32) -> Result<Vec<Test>, Unsupported> {
        let (mut operands, mut rest) = (Vec::new(), whole);
        while let Expr::BinaryOp {
            op: inner,
            left,
            right,
        } = rest
            && *inner == op
        {
            operands.push(&**right);
            rest = left;
        }
        operands.push(rest);
        operands
            .into_iter()
            .rev()
            .map(|operand| self.test(operand, depth))
            .collect()
    }

    fn equality(&mut self, left: &Expr, right: &Expr, depth: u32) -> Result<Test, Unsupported> {
        if is_set(left) || is_set(right) {
            return self.comparison((Relation::Equals, Relation::Equals), left, right, depth);
        }
        let (left, right) = (self.term(left, depth)?, self.term(right, depth)?);
        Ok(match (left, right) {
            (Term::Field(Field::Text(field)), Term::Literal(Literal::Text(text)))
            | (Term::Literal(Literal::Text(text)), Term::Field(Field::Text(field))) => {
                Test::TextIs(field, text)
            }
            (Term::Entity(var), Term::Literal(Literal::Entity(uid)))
            | (Term::Literal(Literal::Entity(uid)), Term::Entity(var)) => Test::Itself(var, uid),
            (left, right) => operator(Operator::Equal(left, right)),
        })
    }

    /// `in`: of the principal, action or resource, in a literal entity or in one of several.
    fn membership(&mut self, left: &Expr, right: &Expr) -> Result<Test, Unsupported> {
        let Some(Place::Entity(var)) = place(left) else {
            return Err(Unsupported("`in` of something else than a variable"));
        };
        let uids = match right {
            Expr::Set(items) => items.iter().map(|item| self.uid(item)).collect(),
            one => self.uid(one).map(|uid| vec![uid]),
        };
        Ok(self.is_in(var, uids?))
    }

    fn is_in(&self, var: Var, uids: Vec<Uid>) -> Test {
        let uids = uids.into_iter();
        match var {
            Var::Principal => Test::PrincipalIn(
                uids.filter_map(|uid| Group::of_principals(&uid, self.names))
                    .collect(),
            ),
            Var::Action => Test::Any(uids.map(|uid| Test::Itself(var, uid)).collect()),
            Var::Resource => Test::ResourceIn(
                uids.filter_map(|uid| Group::of_resources(&uid, self.trust_domain))
                    .collect(),
            ),
        }
    }

    fn uid(&self, expr: &Expr) -> Result<Uid, Unsupported> {
        match expr {
            Expr::Literal(pst::Literal::EntityUID(uid)) => self.known_uid(uid),
            _ => Err(Unsupported("`in` something else than literal entities")),
        }
    }

    fn known_uid(&self, uid: &pst::EntityUID) -> Result<Uid, Unsupported> {
        Uid::of(uid, self.names).ok_or(Unsupported("an unknown entity type"))
    }

    fn contains(&mut self, set: &Expr, item: &Expr, depth: u32) -> Result<Test, Unsupported> {
        let (bag, item) = (self.bag(set, depth)?, self.term(item, depth)?);
        Ok(match (bag, item) {
            (Bag::Networks, Term::Literal(Literal::Entity(uid))) if uid.kind() == Kind::NetSet => {
                uid.network_set()
                    .map_or(Test::Known(false), Test::InNetworkSet)
            }
            (bag, item) => Test::Contains(Box::new((bag, item))),
        })
    }

    /// Two sets, of which one is literal. The relation depends on whether that is the right one or the left one.
    fn comparison(
        &mut self,
        (if_right, if_left): (Relation, Relation),
        left: &Expr,
        right: &Expr,
        depth: u32,
    ) -> Result<Test, Unsupported> {
        let comparison = match (self.bag(left, depth)?, self.bag(right, depth)?) {
            (bag, Bag::Constant(constant)) => Comparison::new(if_right, bag, constant),
            (Bag::Constant(constant), bag) => Comparison::new(if_left, bag, constant),
            _ => Err(Unsupported("a comparison of two sets that are not literal")),
        };
        Ok(Test::Compare(Box::new(comparison?)))
    }

    fn bag(&mut self, expr: &Expr, depth: u32) -> Result<Bag, Unsupported> {
        let depth = deeper(depth)?;
        match expr {
            Expr::Set(items) => {
                let mut terms = Vec::with_capacity(items.len());
                for item in items {
                    terms.push(self.term(item, depth)?);
                }
                literals(&terms).map_or_else(
                    || Ok(Bag::Items(terms.into())),
                    |literals| Constant::new(literals).map(Bag::Constant),
                )
            }
            Expr::BinaryOp {
                op: BinaryOp::GetTag,
                left,
                right,
            } => Ok(match self.header(left, right)? {
                Some(name) => Bag::Header(name),
                None => Bag::Items(Box::new([
                    Term::Test(Box::new(Test::Requested)),
                    Term::Fails(EvalError::NoHeader),
                ])),
            }),
            _ if place(expr) == Some(Place::Networks) => Ok(Bag::Networks),
            _ => Err(Unsupported("a set that is computed")),
        }
    }

    /// The header that `hasTag` or `getTag` asks for; `None`: no header has such a name, as it is not in lower case.
    fn header(&mut self, entity: &Expr, name: &Expr) -> Result<Option<Box<str>>, Unsupported> {
        let (Some(Place::Headers), Expr::Literal(pst::Literal::String(name))) =
            (place(entity), name)
        else {
            return Err(Unsupported("a tag whose name is computed"));
        };
        self.looks_at_request = true;
        if name.chars().any(|char| char.is_ascii_uppercase()) {
            return Ok(None);
        }
        self.headers.insert(name.as_str().into());
        Ok(Some(name.as_str().into()))
    }

    /// What is neither an operator with a Boolean result nor a choice.
    fn other_term(&mut self, expr: &Expr, depth: u32) -> Result<Term, Unsupported> {
        match expr {
            Expr::Literal(literal) => self.literal(literal).map(Term::Literal),
            Expr::Var(_) | Expr::GetAttr { .. } => match place(expr) {
                Some(Place::Entity(var)) => Ok(Term::Entity(var)),
                Some(Place::Field(field)) => {
                    self.looks_at_request |= field.is_of_request();
                    self.looks_at_time |= field == Field::Now;
                    Ok(Term::Field(field))
                }
                Some(_) => Err(Unsupported("a record or a set as a value")),
                None => Err(Unsupported("an unknown attribute")),
            },
            Expr::UnaryOp { op, expr } => self.unary(*op, expr, depth),
            Expr::BinaryOp { op, left, right } => {
                let arithmetic = match op {
                    BinaryOp::Add => Arithmetic::Add,
                    BinaryOp::Sub => Arithmetic::Subtract,
                    BinaryOp::Mul => Arithmetic::Multiply,
                    BinaryOp::Offset => return Ok(Term::Offset(self.both(left, right, depth)?)),
                    BinaryOp::DurationSince => {
                        return Ok(Term::DurationSince(self.both(left, right, depth)?));
                    }
                    BinaryOp::GetTag => return Err(Unsupported("a set as a value")),
                    _ => return Err(Unsupported("an operator on decimals")),
                };
                Ok(Term::Arithmetic(arithmetic, self.both(left, right, depth)?))
            }
            Expr::Set(_) => Err(Unsupported("a set as a value")),
            Expr::Record(_) => Err(Unsupported("a literal record")),
            _ => Err(Unsupported("an expression of a kind unknown here")),
        }
    }

    fn both(
        &mut self,
        left: &Expr,
        right: &Expr,
        depth: u32,
    ) -> Result<Box<(Term, Term)>, Unsupported> {
        Ok(Box::new((
            self.term(left, depth)?,
            self.term(right, depth)?,
        )))
    }

    fn unary(&mut self, op: UnaryOp, expr: &Expr, depth: u32) -> Result<Term, Unsupported> {
        let millis = match op {
            UnaryOp::Ip => return extension(expr, "no such `ip`", literal::ip, Literal::Ip),
            UnaryOp::Datetime => {
                let wrap = Literal::Datetime;
                return extension(expr, "no such `datetime`", literal::datetime, wrap);
            }
            UnaryOp::Duration => {
                let wrap = Literal::Duration;
                return extension(expr, "no such `duration`", literal::duration, wrap);
            }
            UnaryOp::Neg => return Ok(Term::Negate(Box::new(self.term(expr, depth)?))),
            UnaryOp::ToDate => return Ok(Term::ToDate(Box::new(self.term(expr, depth)?))),
            UnaryOp::ToTime => return Ok(Term::ToTime(Box::new(self.term(expr, depth)?))),
            UnaryOp::ToMilliseconds => 1,
            UnaryOp::ToSeconds => 1_000,
            UnaryOp::ToMinutes => 60_000,
            UnaryOp::ToHours => 3_600_000,
            UnaryOp::ToDays => 86_400_000,
            _ => return Err(Unsupported("a decimal")),
        };
        Ok(Term::InUnits(millis, Box::new(self.term(expr, depth)?)))
    }

    fn literal(&self, literal: &pst::Literal) -> Result<Literal, Unsupported> {
        Ok(match literal {
            pst::Literal::Bool(truth) => Literal::Bool(*truth),
            pst::Literal::Long(number) => Literal::Long(*number),
            pst::Literal::String(text) => Literal::Text(text.as_str().into()),
            pst::Literal::EntityUID(uid) => Literal::Entity(self.known_uid(uid)?),
            _ => return Err(Unsupported("a literal of a kind unknown here")),
        })
    }
}

/// An extension's constructor: its text is read now. What Cedar does not take fails at evaluation, as with Cedar.
fn extension<T>(
    text: &Expr,
    error: &'static str,
    read: fn(&str) -> Option<T>,
    wrap: fn(T) -> Literal,
) -> Result<Term, Unsupported> {
    match text {
        Expr::Literal(pst::Literal::String(text)) => Ok(match read(text) {
            Some(value) => Term::Literal(wrap(value)),
            None => Term::Fails(EvalError::Extension(error)),
        }),
        Expr::Literal(_) => Ok(Term::Fails(EvalError::Type)),
        _ => Err(Unsupported("an address or a time from a computed text")),
    }
}

/// The terms, if all are literal.
fn literals(terms: &[Term]) -> Option<Vec<Literal>> {
    let literals = terms.iter().map(|term| match term {
        Term::Literal(literal) => Some(literal.clone()),
        _ => None,
    });
    literals.collect()
}

fn is_set(expr: &Expr) -> bool {
    let tag = |op: &BinaryOp| *op == BinaryOp::GetTag;
    matches!(expr, Expr::Set(_))
        || matches!(expr, Expr::BinaryOp { op, .. } if tag(op))
        || place(expr) == Some(Place::Networks)
}

fn address_test(op: UnaryOp) -> Option<AddressTest> {
    Some(match op {
        UnaryOp::IsIPv4 => AddressTest::IsIpv4,
        UnaryOp::IsIPV6 => AddressTest::IsIpv6,
        UnaryOp::IsLoopback => AddressTest::IsLoopback,
        UnaryOp::IsMulticast => AddressTest::IsMulticast,
        _ => return None,
    })
}

fn is_a(term: Term, kind: Kind) -> Test {
    match term {
        Term::Entity(var) => Test::IsA(var, kind),
        term => operator(Operator::IsA(term, kind)),
    }
}

fn operator(operator: Operator) -> Test {
    Test::Operator(Box::new(operator))
}

fn not(test: Test) -> Test {
    match test {
        Test::Known(truth) => Test::Known(!truth),
        test => Test::Not(Box::new(test)),
    }
}

fn all(mut tests: Vec<Test>) -> Test {
    tests.retain(|test| !matches!(test, Test::Known(true)));
    if tests.len() > 1 {
        return Test::All(tests.into());
    }
    tests.pop().unwrap_or(Test::Known(true))
}

fn deeper(depth: u32) -> Result<u32, Unsupported> {
    depth
        .checked_sub(1)
        .ok_or(Unsupported("a deeply nested condition"))
}
