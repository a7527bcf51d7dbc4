//! The value of a program on a question, as Cedar's evaluator has it: operands from left to right, `&&`, `||` and `if`
//! no further than needed, and an operator's operands all evaluated before their types are looked at.

use super::EvalError;
use super::entity::{Kind, is, is_request, kind_of};
use super::literal::Block;
use super::node::{AddressTest, Arithmetic, Entity, Field, Operator, Term, Test, Value};
use super::set::has_header;
use crate::question::{Question, millis};
use std::cmp::Ordering;

const DAY_MILLIS: i64 = 24 * 60 * 60 * 1_000;

impl Test {
    pub(super) fn holds(&self, question: &Question<'_>) -> Result<bool, EvalError> {
        Ok(match self {
            Self::Known(truth) => *truth,
            Self::Truth(term) => match term.value(question)? {
                Value::Bool(truth) => truth,
                _ => return Err(EvalError::Type),
            },
            Self::Not(test) => !test.holds(question)?,
            Self::All(tests) => {
                for test in tests {
                    if !test.holds(question)? {
                        return Ok(false);
                    }
                }
                true
            }
            Self::Any(tests) => {
                for test in tests {
                    if test.holds(question)? {
                        return Ok(true);
                    }
                }
                false
            }
            Self::If(branches) => {
                let (condition, then, otherwise) = &**branches;
                let branch = if condition.holds(question)? {
                    then
                } else {
                    otherwise
                };
                branch.holds(question)?
            }
            Self::TextIs(field, text) => match fact(*field, question)? {
                Value::Text(fact) => fact == &**text,
                _ => false,
            },
            Self::Has(field) => fact(*field, question).is_ok(),
            Self::Operator(operator) => operator.holds(question)?,
            Self::IsRequest => is_request(question),
            Self::Requested if is_request(question) => true,
            Self::Requested => return Err(EvalError::Absent("context.req")),
            Self::Itself(var, uid) => is(*var, uid, question),
            Self::PrincipalIn(groups) => groups.iter().any(|group| group.has_principal(question)),
            Self::ResourceIn(groups) => groups.iter().any(|group| group.has_resource(question)),
            Self::InNetworkSet(place) => question.asker.network_sets.binary_search(place).is_ok(),
            Self::ClientIn(range) => Block::of(question.asker.ip).range().is_in(*range),
            Self::HasHeader(name) => has_header(name, question)?,
            Self::Contains(both) => both.0.contains(&both.1, question)?,
            Self::Compare(comparison) => comparison.holds(question)?,
            Self::IsEmpty(bag) => bag.is_empty(question)?,
        })
    }
}

impl Operator {
    fn holds(&self, question: &Question<'_>) -> Result<bool, EvalError> {
        Ok(match self {
            Self::Equal(left, right) => {
                let (left, right) = values(left, right, question)?;
                same(left, right, question)
            }
            Self::Less(left, right) => order(left, right, question)?.is_lt(),
            Self::LessOrEqual(left, right) => order(left, right, question)?.is_le(),
            Self::Like(term, pattern) => match term.value(question)? {
                Value::Text(text) => pattern.matches(text),
                _ => return Err(EvalError::Type),
            },
            Self::IsA(term, kind) => match term.value(question)? {
                Value::Entity(entity) => entity.kind(question) == *kind,
                _ => return Err(EvalError::Type),
            },
            Self::IsInRange(inner, outer) => {
                let (inner, outer) = values(inner, outer, question)?;
                inner.ip()?.range().is_in(outer.ip()?.range())
            }
            Self::Address(test, term) => {
                let block = term.value(question)?.ip()?;
                match test {
                    AddressTest::IsIpv4 => block.is_ipv4(),
                    AddressTest::IsIpv6 => !block.is_ipv4(),
                    AddressTest::IsLoopback => block.is_loopback(),
                    AddressTest::IsMulticast => block.is_multicast(),
                }
            }
        })
    }
}

impl Term {
    pub(super) fn value<'a>(&'a self, question: &Question<'a>) -> Result<Value<'a>, EvalError> {
        Ok(match self {
            Self::Literal(literal) => literal.value(),
            Self::Entity(var) => Value::Entity(Entity::Var(*var)),
            Self::Field(field) => return fact(*field, question),
            Self::Test(test) => Value::Bool(test.holds(question)?),
            Self::If(branches) => {
                let (condition, then, otherwise) = &**branches;
                let branch = if condition.holds(question)? {
                    then
                } else {
                    otherwise
                };
                return branch.value(question);
            }
            Self::Negate(term) => {
                let number = term.value(question)?.long()?;
                Value::Long(number.checked_neg().ok_or(EvalError::Overflow)?)
            }
            Self::Arithmetic(operator, both) => {
                let (left, right) = values(&both.0, &both.1, question)?;
                let (left, right) = (left.long()?, right.long()?);
                let result = match operator {
                    Arithmetic::Add => left.checked_add(right),
                    Arithmetic::Subtract => left.checked_sub(right),
                    Arithmetic::Multiply => left.checked_mul(right),
                };
                Value::Long(result.ok_or(EvalError::Overflow)?)
            }
            Self::Offset(both) => {
                let (time, by) = values(&both.0, &both.1, question)?;
                let sum = time.datetime()?.checked_add(by.duration()?);
                Value::Datetime(sum.ok_or(EvalError::Extension("`offset` is out of range"))?)
            }
            Self::DurationSince(both) => {
                let (later, earlier) = values(&both.0, &both.1, question)?;
                let difference = later.datetime()?.checked_sub(earlier.datetime()?);
                let error = EvalError::Extension("`durationSince` is out of range");
                Value::Duration(difference.ok_or(error)?)
            }
            Self::ToDate(term) => {
                let time = term.value(question)?.datetime()?;
                let day = time.checked_sub(time.rem_euclid(DAY_MILLIS));
                Value::Datetime(day.ok_or(EvalError::Extension("`toDate` is out of range"))?)
            }
            Self::ToTime(term) => {
                Value::Duration(term.value(question)?.datetime()?.rem_euclid(DAY_MILLIS))
            }
            Self::InUnits(millis, term) => Value::Long(
                term.value(question)?
                    .duration()?
                    .checked_div(*millis)
                    .ok_or(EvalError::Overflow)?,
            ),
            Self::Fails(error) => return Err(*error),
        })
    }
}

/// Both values, the left one first.
fn values<'a>(
    left: &'a Term,
    right: &'a Term,
    question: &Question<'a>,
) -> Result<(Value<'a>, Value<'a>), EvalError> {
    Ok((left.value(question)?, right.value(question)?))
}

/// `<` and `<=` are for two Longs, two datetimes or two durations.
fn order(left: &Term, right: &Term, question: &Question<'_>) -> Result<Ordering, EvalError> {
    match values(left, right, question)? {
        (Value::Long(left), Value::Long(right))
        | (Value::Datetime(left), Value::Datetime(right))
        | (Value::Duration(left), Value::Duration(right)) => Ok(left.cmp(&right)),
        _ => Err(EvalError::Type),
    }
}

/// `==`: values of different types are different.
pub(super) fn same(left: Value<'_>, right: Value<'_>, question: &Question<'_>) -> bool {
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Long(left), Value::Long(right))
        | (Value::Datetime(left), Value::Datetime(right))
        | (Value::Duration(left), Value::Duration(right)) => left == right,
        (Value::Text(left), Value::Text(right)) => left == right,
        (Value::Ip(left), Value::Ip(right)) => left == right,
        (Value::Entity(left), Value::Entity(right)) => left.is(right, question),
        _ => false,
    }
}

impl Entity<'_> {
    fn kind(self, question: &Question<'_>) -> Kind {
        match self {
            Self::Var(var) => kind_of(var, question),
            Self::NetworkSet(_) => Kind::NetSet,
            Self::Literal(uid) => uid.kind(),
        }
    }

    fn is(self, other: Entity<'_>, question: &Question<'_>) -> bool {
        match (self, other) {
            // Principals, actions and resources are of different types.
            (Self::Var(left), Entity::Var(right)) => left == right,
            (Self::NetworkSet(left), Entity::NetworkSet(right)) => left == right,
            (Self::Literal(left), Entity::Literal(right)) => left == right,
            (Self::Var(var), Entity::Literal(uid)) | (Self::Literal(uid), Entity::Var(var)) => {
                is(var, uid, question)
            }
            (Self::NetworkSet(place), Entity::Literal(uid))
            | (Self::Literal(uid), Entity::NetworkSet(place)) => uid.network_set() == Some(place),
            (Self::Var(_), Entity::NetworkSet(_)) | (Self::NetworkSet(_), Entity::Var(_)) => false,
        }
    }
}

impl Value<'_> {
    fn long(self) -> Result<i64, EvalError> {
        match self {
            Self::Long(number) => Ok(number),
            _ => Err(EvalError::Type),
        }
    }

    fn datetime(self) -> Result<i64, EvalError> {
        match self {
            Self::Datetime(millis) => Ok(millis),
            _ => Err(EvalError::Type),
        }
    }

    fn duration(self) -> Result<i64, EvalError> {
        match self {
            Self::Duration(millis) => Ok(millis),
            _ => Err(EvalError::Type),
        }
    }

    fn ip(self) -> Result<Block, EvalError> {
        match self {
            Self::Ip(block) => Ok(block),
            _ => Err(EvalError::Type),
        }
    }
}

/// A fact, or that it is absent.
fn fact<'a>(field: Field, question: &Question<'a>) -> Result<Value<'a>, EvalError> {
    let (asker, target) = (&question.asker, &question.target);
    let value = match field {
        Field::PrincipalId => asker.id.map(|id| Value::Text(id.as_str())),
        Field::PrincipalTrustDomain => asker.id.map(|id| Value::Text(id.trust_domain().as_str())),
        Field::PrincipalNamespace => account(question).map(|(namespace, _)| Value::Text(namespace)),
        Field::PrincipalAccount => account(question).map(|(_, name)| Value::Text(name)),
        Field::ResourceNamespace => Some(Value::Text(target.namespace)),
        Field::ResourceName => Some(Value::Text(match target.route {
            Some(route) => route.name,
            None => target.server.unwrap_or("default"),
        })),
        Field::ResourceIsDefault => {
            (!is_request(question)).then_some(Value::Bool(target.server.is_none()))
        }
        Field::ResourceKind => target.route.map(|route| Value::Text(route.kind)),
        Field::ResourceRule => target.route.map(|route| Value::Long(route.rule.into())),
        Field::Ip => Some(Value::Ip(Block::of(asker.ip))),
        Field::Port => Some(Value::Long(target.port.into())),
        Field::Tls => Some(Value::Bool(asker.tls)),
        Field::CertNotAfter => asker
            .cert_not_after
            .map(|time| Value::Datetime(millis(time))),
        Field::Now => Some(Value::Datetime(millis(question.now))),
        Field::Method
        | Field::Path
        | Field::Host
        | Field::Grpc
        | Field::GrpcService
        | Field::GrpcMethod => request_fact(field, question),
    };
    value.ok_or(EvalError::Absent(field.text()))
}

fn account<'a>(question: &Question<'a>) -> Option<(&'a str, &'a str)> {
    question.asker.id?.service_account()
}

fn request_fact<'a>(field: Field, question: &Question<'a>) -> Option<Value<'a>> {
    let request = question.request?;
    Some(match field {
        Field::Method => Value::Text(request.method),
        Field::Path => Value::Text(request.path),
        Field::Host => Value::Text(request.host?),
        Field::Grpc => Value::Bool(request.grpc),
        Field::GrpcService => Value::Text(request.grpc_names()?.0),
        Field::GrpcMethod => Value::Text(request.grpc_names()?.1),
        _ => return None,
    })
}
