//! The value of a program on a question, as Cedar's evaluator has it: operands from left to right, `&&`, `||` and `if`
//! no further than needed, and an operator's operands all evaluated before their types are looked at.

use super::EvalError;
use super::entity::{Kind, is, is_request, kind_of};
use super::literal::Block;
use super::node::{AddressTest, Arithmetic, Entity, Field, Operator, Term, Test, TextField, Value};
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
            Self::TextIs(field, text) => text_fact(*field, question)? == &**text,
            Self::IsA(var, kind) => kind_of(*var, question) == *kind,
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
            Self::Like(term, pattern) => pattern.matches(term.text(question)?),
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

    /// A value that must be a String.
    fn text<'a>(&'a self, question: &Question<'a>) -> Result<&'a str, EvalError> {
        if let Self::Field(Field::Text(field)) = self {
            return text_fact(*field, question);
        }
        match self.value(question)? {
            Value::Text(text) => Ok(text),
            _ => Err(EvalError::Type),
        }
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
    match field {
        Field::Text(field) => text_fact(field, question).map(Value::Text),
        Field::ResourceIsDefault if is_request(question) => Err(absent(field)),
        Field::ResourceIsDefault => Ok(Value::Bool(target.server.is_none())),
        Field::ResourceRule => match target.route {
            Some(route) => Ok(Value::Long(route.rule.into())),
            None => Err(absent(field)),
        },
        Field::Ip => Ok(Value::Ip(Block::of(asker.ip))),
        Field::Port => Ok(Value::Long(target.port.into())),
        Field::Tls => Ok(Value::Bool(asker.tls)),
        Field::CertNotAfter => match asker.cert_not_after {
            Some(time) => Ok(Value::Datetime(millis(time))),
            None => Err(absent(field)),
        },
        Field::Now => Ok(Value::Datetime(millis(question.now))),
        Field::Grpc => match &question.request {
            Some(request) => Ok(Value::Bool(request.grpc)),
            None => Err(absent(field)),
        },
    }
}

fn absent(field: Field) -> EvalError {
    EvalError::Absent(field.written())
}

/// As [`fact`]; apart, because a text is returned in registers.
fn text_fact<'a>(field: TextField, question: &Question<'a>) -> Result<&'a str, EvalError> {
    let (asker, target, request) = (&question.asker, &question.target, &question.request);
    let account = || asker.id?.service_account();
    let grpc = || request.as_ref()?.grpc_names();
    let text = match field {
        TextField::PrincipalId => asker.id.map(|id| id.as_str()),
        TextField::PrincipalTrustDomain => asker.id.map(|id| id.trust_domain().as_str()),
        TextField::PrincipalNamespace => account().map(|both| both.0),
        TextField::PrincipalAccount => account().map(|both| both.1),
        TextField::ResourceNamespace => Some(target.namespace),
        TextField::ResourceName => Some(match target.route {
            Some(route) => route.name,
            None => target.server.unwrap_or("default"),
        }),
        TextField::ResourceKind => target.route.map(|route| route.kind),
        TextField::Method => request.as_ref().map(|request| request.method),
        TextField::Path => request.as_ref().map(|request| request.path),
        TextField::Host => request.as_ref().and_then(|request| request.host),
        TextField::GrpcService => grpc().map(|both| both.0),
        TextField::GrpcMethod => grpc().map(|both| both.1),
    };
    text.ok_or_else(|| EvalError::Absent(field.written()))
}
