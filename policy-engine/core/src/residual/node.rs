//! What a program is made of: tests, which are true or false, and terms, which have a value of some type.
//!
//! Terms carry their type with them, as Cedar's values do: an operator that gets another type than it takes is an error
//! and not a wrong answer, even in a policy that was never validated.

use super::EvalError;
use super::entity::{Group, Kind, Uid, Var};
use super::literal::{Block, Range};
use super::pattern::Pattern;
use super::set::{Bag, Comparison};

/// An expression that is true or false.
#[derive(Debug)]
pub(super) enum Test {
    Known(bool),
    /// A term that must be a Boolean.
    Truth(Term),
    Not(Box<Test>),
    /// `&&`: stops at the first that is false.
    All(Box<[Test]>),
    /// `||`: stops at the first that is true.
    Any(Box<[Test]>),
    If(Box<(Test, Test, Test)>),
    /// `is` of a variable.
    IsA(Var, Kind),
    Operator(Box<Operator>),
    /// A text fact and a literal, equal: the commonest test of all.
    TextIs(TextField, Box<str>),
    /// `==` with a literal entity.
    Itself(Var, Uid),
    /// `in`; any of the groups.
    PrincipalIn(Box<[Group]>),
    ResourceIn(Box<[Group]>),
    /// Whether an optional fact is there.
    Has(Field),
    /// `context has req`
    IsRequest,
    /// True, or [`EvalError::Absent`] where there is no `context.req`.
    Requested,
    HasHeader(Box<str>),
    /// `context.conn.nets.contains` of a known set.
    InNetworkSet(u32),
    Contains(Box<(Bag, Term)>),
    Compare(Box<Comparison>),
    IsEmpty(Bag),
    /// `context.conn.ip.isInRange` of a literal.
    ClientIn(Range),
}

/// An operator on terms of any type.
#[derive(Debug)]
pub(super) enum Operator {
    Equal(Term, Term),
    Less(Term, Term),
    LessOrEqual(Term, Term),
    Like(Term, Pattern),
    /// `is` of anything else.
    IsA(Term, Kind),
    IsInRange(Term, Term),
    Address(AddressTest, Term),
}

/// An expression with a value; see [`Value`].
#[derive(Debug)]
pub(super) enum Term {
    Literal(Literal),
    Entity(Var),
    Field(Field),
    Test(Box<Test>),
    If(Box<(Test, Term, Term)>),
    Negate(Box<Term>),
    Arithmetic(Arithmetic, Box<(Term, Term)>),
    Offset(Box<(Term, Term)>),
    DurationSince(Box<(Term, Term)>),
    ToDate(Box<Term>),
    ToTime(Box<Term>),
    /// A duration in whole units of so many milliseconds.
    InUnits(i64, Box<Term>),
    /// An extension call that can only fail.
    Fails(EvalError),
}

/// A value that stands in the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Literal {
    Bool(bool),
    Long(i64),
    /// Milliseconds since the epoch.
    Datetime(i64),
    /// Milliseconds.
    Duration(i64),
    Text(Box<str>),
    Ip(Block),
    Entity(Uid),
}

/// A value during evaluation, borrowed from the program or the question.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Bool(bool),
    Long(i64),
    Datetime(i64),
    Duration(i64),
    Text(&'a str),
    Ip(Block),
    Entity(Entity<'a>),
}

/// An entity during evaluation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entity<'a> {
    Var(Var),
    /// Its place in [`crate::question::SetNames::network`].
    NetworkSet(u32),
    Literal(&'a Uid),
}

/// A fact of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Text(TextField),
    ResourceIsDefault,
    ResourceRule,
    Ip,
    Port,
    Tls,
    CertNotAfter,
    Now,
    Grpc,
}

/// A fact that is a String.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextField {
    PrincipalId,
    PrincipalTrustDomain,
    PrincipalNamespace,
    PrincipalAccount,
    ResourceNamespace,
    ResourceName,
    ResourceKind,
    Method,
    Path,
    Host,
    GrpcService,
    GrpcMethod,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum AddressTest {
    IsIpv4,
    IsIpv6,
    IsLoopback,
    IsMulticast,
}

impl Field {
    /// As the policy writes it.
    pub(super) fn written(self) -> &'static str {
        match self {
            Self::Text(field) => field.written(),
            Self::ResourceIsDefault => "resource.isDefault",
            Self::ResourceRule => "resource.rule",
            Self::Ip => "context.conn.ip",
            Self::Port => "context.conn.port",
            Self::Tls => "context.conn.tls",
            Self::CertNotAfter => "context.conn.certNotAfter",
            Self::Now => "context.now",
            Self::Grpc => "context.req.grpc",
        }
    }

    /// Whether it is of the request, beyond the route that took it.
    pub(super) fn is_of_request(self) -> bool {
        self.written().starts_with("context.req.")
    }
}

impl TextField {
    /// As the policy writes it.
    pub(super) fn written(self) -> &'static str {
        match self {
            Self::PrincipalId => "principal.id",
            Self::PrincipalTrustDomain => "principal.trustDomain",
            Self::PrincipalNamespace => "principal.ns",
            Self::PrincipalAccount => "principal.sa",
            Self::ResourceNamespace => "resource.ns",
            Self::ResourceName => "resource.name",
            Self::ResourceKind => "resource.kind",
            Self::Method => "context.req.method",
            Self::Path => "context.req.path",
            Self::Host => "context.req.host",
            Self::GrpcService => "context.req.grpcService",
            Self::GrpcMethod => "context.req.grpcMethod",
        }
    }
}

impl Literal {
    pub(super) fn value(&self) -> Value<'_> {
        match self {
            Self::Bool(truth) => Value::Bool(*truth),
            Self::Long(number) => Value::Long(*number),
            Self::Datetime(millis) => Value::Datetime(*millis),
            Self::Duration(millis) => Value::Duration(*millis),
            Self::Text(text) => Value::Text(text),
            Self::Ip(block) => Value::Ip(*block),
            Self::Entity(uid) => Value::Entity(Entity::Literal(uid)),
        }
    }
}
