//! A program as a Cedar expression again.
//!
//! The expression is made from the program alone, from what [`super::eval`] would do, and not from the policy that the
//! program was compiled from: so a solver that finds the two equal has found the compiler right about that policy.

use super::entity::{Group, Kind, Uid, Var};
use super::literal;
use super::node::{AddressTest, Arithmetic, Field, Literal, Operator, Term, Test};
use super::pattern::Pattern;
use super::set::{Bag, Comparison, Constant, Relation};
use crate::cedar::rfc3339_millis;
use crate::cedar::tree::{
    Tree, any, binary, choice, contains, context, eq, every, get, has, is_a, is_in, like, not,
    number, principal, resource, set, text, truth, uid_of, unary, variable,
};
use crate::question::SetNames;
use cedar_policy::pst::{self, BinaryOp, EntityType, EntityUID, Name, UnaryOp};
use mesh_trust::TrustDomain;

/// The questions that an expression is for.
#[derive(Clone, Copy)]
pub(crate) struct Kinds<'a> {
    /// What the program's places of sets stand for.
    pub(crate) names: &'a SetNames,
    /// Ours.
    pub(crate) trust_domain: &'a TrustDomain,
    /// Whether they are about requests, not bytes.
    pub(crate) requests: bool,
}

/// A part of a program that no expression says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no Cedar expression says {0}")]
pub(crate) struct Unwritten(&'static str);

type Written = Result<Tree, Unwritten>;

impl Test {
    pub(super) fn written(&self, kinds: &Kinds<'_>) -> Written {
        Ok(match self {
            Self::Known(known) => truth(*known),
            Self::Truth(term) => term.written(kinds)?,
            Self::Not(test) => not(test.written(kinds)?),
            Self::All(tests) => every(all(tests, |test| test.written(kinds))?),
            Self::Any(tests) => any(all(tests, |test| test.written(kinds))?),
            Self::If(branches) => {
                let (condition, then, otherwise) = &**branches;
                choice(
                    condition.written(kinds)?,
                    then.written(kinds)?,
                    otherwise.written(kinds)?,
                )
            }
            Self::IsA(var, kind) => is_a(var.written(), kind.written()?),
            Self::Operator(operator) => operator.written(kinds)?,
            Self::TextIs(field, is) => eq(Field::Text(*field).tree()?, text(is)),
            Self::Itself(var, uid) => eq(var.written(), uid.written()?),
            Self::PrincipalIn(groups) => {
                any(all(groups, |group| group.holding(principal(), kinds))?)
            }
            Self::ResourceIn(groups) => any(all(groups, |group| group.holding(resource(), kinds))?),
            Self::Has(field) => {
                let (base, attribute) = field.path()?;
                has(base, attribute)
            }
            Self::IsRequest => truth(kinds.requests),
            Self::Requested if kinds.requests => truth(true),
            Self::Requested => fails(),
            Self::HasHeader(name) => binary(BinaryOp::HasTag, headers(), text(name)),
            Self::InNetworkSet(place) => contains(networks(), network_set(*place, kinds)?),
            Self::Contains(both) => contains(both.0.written(kinds)?, both.1.written(kinds)?),
            Self::Compare(comparison) => comparison.written(kinds)?,
            Self::IsEmpty(bag) => unary(UnaryOp::IsEmpty, bag.written(kinds)?),
            Self::ClientIn(range) => binary(
                BinaryOp::IsInRange,
                Field::Ip.tree()?,
                unary(UnaryOp::Ip, text(&range.text())),
            ),
        })
    }
}

impl Operator {
    fn written(&self, kinds: &Kinds<'_>) -> Written {
        let two = |op, left: &Term, right: &Term| {
            Ok(binary(op, left.written(kinds)?, right.written(kinds)?))
        };
        match self {
            Self::Equal(left, right) => two(BinaryOp::Eq, left, right),
            Self::Less(left, right) => two(BinaryOp::Less, left, right),
            Self::LessOrEqual(left, right) => two(BinaryOp::LessEq, left, right),
            Self::IsInRange(inner, outer) => two(BinaryOp::IsInRange, inner, outer),
            Self::Like(term, pattern) => Ok(like(term.written(kinds)?, elements(pattern)?)),
            Self::IsA(term, kind) => Ok(is_a(term.written(kinds)?, kind.written()?)),
            Self::Address(test, term) => {
                let op = match test {
                    AddressTest::IsIpv4 => UnaryOp::IsIPv4,
                    AddressTest::IsIpv6 => UnaryOp::IsIPV6,
                    AddressTest::IsLoopback => UnaryOp::IsLoopback,
                    AddressTest::IsMulticast => UnaryOp::IsMulticast,
                };
                Ok(unary(op, term.written(kinds)?))
            }
        }
    }
}

impl Term {
    fn written(&self, kinds: &Kinds<'_>) -> Written {
        let two = |op, both: &(Term, Term)| {
            Ok(binary(op, both.0.written(kinds)?, both.1.written(kinds)?))
        };
        Ok(match self {
            Self::Literal(literal) => literal.written()?,
            Self::Entity(var) => var.written(),
            Self::Field(field) => field.tree()?,
            Self::Test(test) => test.written(kinds)?,
            Self::If(branches) => {
                let (condition, then, otherwise) = &**branches;
                choice(
                    condition.written(kinds)?,
                    then.written(kinds)?,
                    otherwise.written(kinds)?,
                )
            }
            Self::Negate(term) => unary(UnaryOp::Neg, term.written(kinds)?),
            Self::Arithmetic(arithmetic, both) => {
                let op = match arithmetic {
                    Arithmetic::Add => BinaryOp::Add,
                    Arithmetic::Subtract => BinaryOp::Sub,
                    Arithmetic::Multiply => BinaryOp::Mul,
                };
                two(op, both)?
            }
            Self::Offset(both) => two(BinaryOp::Offset, both)?,
            Self::DurationSince(both) => two(BinaryOp::DurationSince, both)?,
            Self::ToDate(term) => unary(UnaryOp::ToDate, term.written(kinds)?),
            Self::ToTime(term) => unary(UnaryOp::ToTime, term.written(kinds)?),
            Self::InUnits(millis, term) => unary(units(*millis)?, term.written(kinds)?),
            Self::Fails(_) => return Err(Unwritten("a literal that cannot be read")),
        })
    }
}

impl Literal {
    fn written(&self) -> Written {
        Ok(match self {
            Self::Bool(known) => truth(*known),
            Self::Long(long) => number(*long),
            Self::Text(literal) => text(literal),
            Self::Entity(uid) => uid.written()?,
            Self::Ip(block) => unary(UnaryOp::Ip, text(&block.text())),
            Self::Datetime(millis) => {
                let said = rfc3339_millis(*millis);
                same(literal::datetime(&said), *millis)?;
                unary(UnaryOp::Datetime, text(&said))
            }
            Self::Duration(millis) => {
                let said = format!("{millis}ms");
                same(literal::duration(&said), *millis)?;
                unary(UnaryOp::Duration, text(&said))
            }
        })
    }
}

impl Bag {
    fn written(&self, kinds: &Kinds<'_>) -> Written {
        Ok(match self {
            Self::Constant(constant) => constant.written()?,
            Self::Items(items) => set(all(items, |item| item.written(kinds))?),
            Self::Header(name) => binary(BinaryOp::GetTag, headers(), text(name)),
            Self::Networks => networks(),
        })
    }
}

impl Constant {
    fn written(&self) -> Written {
        Ok(set(match self {
            Self::Texts(texts) => texts.iter().map(|literal| text(literal)).collect(),
            Self::Longs(longs) => longs.iter().map(|long| number(*long)).collect(),
            Self::Others(others) => all(others, Literal::written)?,
        }))
    }
}

impl Comparison {
    fn written(&self, kinds: &Kinds<'_>) -> Written {
        let (bag, constant) = (self.bag.written(kinds)?, self.constant.written()?);
        Ok(match self.relation {
            Relation::Covers => binary(BinaryOp::ContainsAll, bag, constant),
            Relation::Within => binary(BinaryOp::ContainsAll, constant, bag),
            Relation::Meets => binary(BinaryOp::ContainsAny, bag, constant),
            Relation::Equals => eq(bag, constant),
        })
    }
}

impl Var {
    fn written(self) -> Tree {
        variable(match self {
            Self::Principal => pst::Var::Principal,
            Self::Action => pst::Var::Action,
            Self::Resource => pst::Var::Resource,
        })
    }
}

impl Kind {
    fn written(self) -> Result<EntityType, Unwritten> {
        let name = self.name().ok_or(Unwritten("an entity type"))?;
        let name = Name::qualified(["Mesh"], name).map_err(|_| Unwritten("an entity type"))?;
        Ok(EntityType::from_name(name))
    }

    fn entity(self, id: &str) -> Written {
        Ok(uid_of(EntityUID {
            ty: self.written()?,
            eid: id.into(),
        }))
    }
}

impl Uid {
    fn written(&self) -> Written {
        self.kind().entity(self.id())
    }
}

impl Group {
    /// Whether `member` is in it.
    fn holding(&self, member: Tree, kinds: &Kinds<'_>) -> Written {
        let domain = kinds.trust_domain;
        let group = match self {
            Self::Itself(uid) => return Ok(eq(member, uid.written()?)),
            Self::IdentitySet(place) => {
                let name = usize::try_from(*place).ok();
                let name = name.and_then(|place| kinds.names.identity.get(place));
                Kind::IdentitySet.entity(name.ok_or(Unwritten("an unknown identity set"))?)
            }
            Self::TrustDomain(name) => Kind::TrustDomain.entity(name),
            Self::Namespace(whole) => Kind::Namespace.entity(whole),
            Self::OurNamespace(name) => Kind::Namespace.entity(&format!("{domain}/{name}")),
            Self::NamedServers(name) => Kind::NamedServers.entity(name),
            Self::Server(id) => Kind::Server.entity(id),
            Self::RouteObject(id) => Kind::RouteObj.entity(id),
        };
        Ok(is_in(member, group?))
    }
}

impl Field {
    fn tree(self) -> Written {
        let (base, attribute) = self.path()?;
        Ok(get(base, attribute))
    }

    /// What has it, and what it is called there.
    fn path(self) -> Result<(Tree, &'static str), Unwritten> {
        let mut names = self.written().split('.');
        let start = match names.next() {
            Some("principal") => principal(),
            Some("resource") => resource(),
            _ => context(&[]),
        };
        let last = names.next_back().ok_or(Unwritten("a fact"))?;
        Ok((names.fold(start, get), last))
    }
}

fn all<T>(items: &[T], each: impl Fn(&T) -> Written) -> Result<Vec<Tree>, Unwritten> {
    items.iter().map(each).collect()
}

fn headers() -> Tree {
    context(&["req", "headers"])
}

fn networks() -> Tree {
    context(&["conn", "nets"])
}

fn network_set(place: u32, kinds: &Kinds<'_>) -> Written {
    let name = usize::try_from(place).ok();
    let name = name.and_then(|place| kinds.names.network.get(place));
    Kind::NetSet.entity(name.ok_or(Unwritten("an unknown network set"))?)
}

fn elements(pattern: &Pattern) -> Result<Vec<pst::PatternElem>, Unwritten> {
    pattern.elements().ok_or(Unwritten("a pattern"))
}

/// A truth value that cannot be had, of the right type.
fn fails() -> Tree {
    let too_much = binary(BinaryOp::Add, number(i64::MAX), number(1));
    eq(too_much, number(0))
}

/// Whether what was written is read as what was meant.
fn same(read: Option<i64>, meant: i64) -> Result<(), Unwritten> {
    match read == Some(meant) {
        true => Ok(()),
        false => Err(Unwritten("a time out of range")),
    }
}

fn units(millis: i64) -> Result<UnaryOp, Unwritten> {
    Ok(match millis {
        1 => UnaryOp::ToMilliseconds,
        1_000 => UnaryOp::ToSeconds,
        60_000 => UnaryOp::ToMinutes,
        3_600_000 => UnaryOp::ToHours,
        86_400_000 => UnaryOp::ToDays,
        _ => return Err(Unwritten("a unit of time")),
    })
}
