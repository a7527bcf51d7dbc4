//! Random policies: typed, so that most pass strict validation, with a mistake now and then.
//!
//! Words and numbers come from small lists that random questions share.

use super::choices::Choices;
use cedar_policy::pst::{
    ActionConstraint, BinaryOp, Clause, Effect, EntityOrSlot, EntityType, EntityUID, Expr, Literal,
    Name, NonEmpty, PatternElem, PolicyID, PrincipalConstraint, ResourceConstraint, SmolStr,
    Template, UnaryOp, Var,
};
use std::sync::Arc;

mod values;

pub(crate) use values::{HEADERS, TEXTS};

/// Nesting of random conditions.
const DEPTH: u32 = 5;

/// What the scope of the policy under construction leaves open, and the choices it is made with.
struct Maker<'c, 'd> {
    choices: &'c mut Choices<'d>,
    /// Whether the principal is a Workload.
    workload: bool,
    /// Whether the action is `request`.
    request: bool,
    /// Whether the action is `connect`.
    connect: bool,
}

/// The types of Cedar's language that the schema uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Bool,
    Text,
    Long,
    Datetime,
    Duration,
    Ip,
}

const TYPES: [Type; 6] = [
    Type::Bool,
    Type::Text,
    Type::Long,
    Type::Datetime,
    Type::Duration,
    Type::Ip,
];

/// A random policy; `None` only if a name here were no name.
pub(crate) fn policy(choices: &mut Choices<'_>) -> Option<Template> {
    let effect = choices.pick(&[Effect::Permit, Effect::Forbid])?;
    let mut maker = Maker {
        choices,
        workload: false,
        request: false,
        connect: false,
    };
    let (principal, action) = (maker.principal()?, maker.action()?);
    let resource = maker.resource()?;
    let mut clauses = Vec::new();
    for _ in 0..=maker.choices.below(2) {
        let condition = Arc::new(maker.boolean(DEPTH)?);
        clauses.push(match maker.choices.once_in(4) {
            true => Clause::Unless(condition),
            false => Clause::When(condition),
        });
    }
    Template::new(
        PolicyID(SmolStr::from("p")),
        effect,
        principal,
        action,
        resource,
    )
    .try_with_clauses(clauses)
    .ok()
}

/// `Mesh::<kind>`
fn kind(kind: &str) -> Option<EntityType> {
    Name::qualified(["Mesh"], kind).ok().map(EntityType)
}

fn uid(ty: &str, id: &str) -> Option<EntityUID> {
    Some(EntityUID {
        ty: kind(ty)?,
        eid: SmolStr::from(id),
    })
}

fn unary(op: UnaryOp, expr: Expr) -> Expr {
    Expr::UnaryOp {
        op,
        expr: Arc::new(expr),
    }
}

fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp {
        op,
        left: Arc::new(left),
        right: Arc::new(right),
    }
}

fn and(left: Expr, right: Expr) -> Expr {
    binary(BinaryOp::And, left, right)
}

fn text(text: &str) -> Expr {
    Expr::Literal(Literal::String(SmolStr::from(text)))
}

/// `a.b.c`
fn path(path: &str) -> Expr {
    let mut names = path.split('.');
    let variable = match names.next() {
        Some("principal") => Var::Principal,
        Some("action") => Var::Action,
        Some("resource") => Var::Resource,
        _ => Var::Context,
    };
    names.fold(Expr::Var(variable), |expr, name| Expr::GetAttr {
        expr: Arc::new(expr),
        attr: SmolStr::from(name),
    })
}

/// `a.b has c`, or with all of it after the variable: `a has b.c`.
fn has(whole: &str, nested: bool) -> Option<Expr> {
    let (base, names) = match nested {
        true => whole.split_once('.')?,
        false => whole.rsplit_once('.')?,
    };
    Some(Expr::HasAttr {
        expr: Arc::new(path(base)),
        attrs: NonEmpty::collect(names.split('.').map(SmolStr::from))?,
    })
}

impl Maker<'_, '_> {
    fn principal(&mut self) -> Option<PrincipalConstraint> {
        use PrincipalConstraint as P;
        self.workload = true;
        Some(match self.choices.below(6) {
            0 | 1 => P::Is(kind("Workload")?),
            2 => P::IsIn(
                kind("Workload")?,
                EntityOrSlot::Entity(self.principal_group()?),
            ),
            3 => P::Eq(EntityOrSlot::Entity(self.entity(&[
                "Workload",
                "Workload",
                "Anonymous",
            ])?)),
            4 => P::In(EntityOrSlot::Entity(self.principal_group()?)),
            _ => {
                self.workload = false;
                P::Any
            }
        })
    }

    fn action(&mut self) -> Option<ActionConstraint> {
        Some(match self.choices.below(6) {
            0..=2 => {
                self.request = true;
                ActionConstraint::Eq(uid("Action", "request")?)
            }
            3 => {
                self.connect = true;
                ActionConstraint::Eq(uid("Action", "connect")?)
            }
            4 => ActionConstraint::In(vec![uid("Action", "request")?, uid("Action", "connect")?]),
            _ => ActionConstraint::Any,
        })
    }

    fn resource(&mut self) -> Option<ResourceConstraint> {
        use ResourceConstraint as R;
        let own = if self.connect { "Server" } else { "Route" };
        Some(match self.choices.below(8) {
            0..=3 => R::Any,
            4 => R::Eq(EntityOrSlot::Entity(self.entity(&[own])?)),
            5 => R::In(EntityOrSlot::Entity(self.resource_group()?)),
            6 => R::Is(kind(own)?),
            _ => R::IsIn(kind(own)?, EntityOrSlot::Entity(self.resource_group()?)),
        })
    }

    fn principal_group(&mut self) -> Option<EntityUID> {
        self.entity(&["IdentitySet", "IdentitySet", "Namespace", "TrustDomain"])
    }

    fn resource_group(&mut self) -> Option<EntityUID> {
        match self.choices.below(2) {
            0 => self.entity(&["Server", "NamedServers", "Namespace", "TrustDomain"]),
            _ => self.entity(&["RouteObj", "Route"]),
        }
    }

    /// An expression of the type, or now and then of another.
    fn of(&mut self, ty: Type, depth: u32) -> Option<Expr> {
        let ty = if self.choices.once_in(80) {
            self.choices.pick(&TYPES)?
        } else {
            ty
        };
        if ty == Type::Bool {
            return self.boolean(depth);
        }
        if depth > 0 && self.choices.once_in(10) {
            let depth = depth - 1;
            return Some(Expr::IfThenElse {
                cond: Arc::new(self.boolean(depth)?),
                then_expr: Arc::new(self.of(ty, depth)?),
                else_expr: Arc::new(self.of(ty, depth)?),
            });
        }
        self.value(ty, depth)
    }

    fn boolean(&mut self, depth: u32) -> Option<Expr> {
        let Some(depth) = depth.checked_sub(1) else {
            return self.simple_boolean();
        };
        Some(match self.choices.below(24) {
            0 => self.simple_boolean()?,
            1 => unary(UnaryOp::Not, self.boolean(depth)?),
            2..=4 => {
                let left = self.boolean(depth)?;
                and(left, self.boolean(depth)?)
            }
            5 | 6 => {
                let left = self.boolean(depth)?;
                binary(BinaryOp::Or, left, self.boolean(depth)?)
            }
            7 => Expr::IfThenElse {
                cond: Arc::new(self.boolean(depth)?),
                then_expr: Arc::new(self.boolean(depth)?),
                else_expr: Arc::new(self.boolean(depth)?),
            },
            8..=10 => self.guarded(depth)?,
            11 => self.equality(depth)?,
            12 | 13 => self.order(depth)?,
            14 => self.like(depth)?,
            15 => self.address_test(depth)?,
            16 => self.presence()?,
            17 | 18 => self.membership()?,
            19 => self.entity_equality()?,
            20 => self.networks()?,
            21 => self.header(depth)?,
            _ => self.set_test(depth)?,
        })
    }

    fn simple_boolean(&mut self) -> Option<Expr> {
        Some(match self.choices.below(6) {
            0 | 1 => path("context.conn.tls"),
            2 if self.request => path("context.req.grpc"),
            3 if self.connect => path("resource.isDefault"),
            4 => path(
                self.choices
                    .pick(&["resource.isDefault", "context.req.grpc"])?,
            ),
            _ => Expr::Literal(Literal::Bool(self.choices.below(2) == 0)),
        })
    }

    fn equality(&mut self, depth: u32) -> Option<Expr> {
        let ty = self.choices.pick(&TYPES)?;
        let op = self.choices.pick(&[BinaryOp::Eq, BinaryOp::NotEq])?;
        let left = self.of(ty, depth)?;
        Some(binary(op, left, self.of(ty, depth)?))
    }

    fn order(&mut self, depth: u32) -> Option<Expr> {
        let ty = self
            .choices
            .pick(&[Type::Long, Type::Datetime, Type::Duration])?;
        let op = self.choices.pick(&[
            BinaryOp::Less,
            BinaryOp::LessEq,
            BinaryOp::Greater,
            BinaryOp::GreaterEq,
        ])?;
        let left = self.of(ty, depth)?;
        Some(binary(op, left, self.of(ty, depth)?))
    }

    /// `has` an optional fact, and a test of it; now and then without the `has`.
    fn guarded(&mut self, depth: u32) -> Option<Expr> {
        let fact = self.choices.pick(&[
            "principal.ns",
            "principal.sa",
            "context.req.host",
            "context.req.grpcService",
            "context.req.grpcMethod",
            "context.conn.certNotAfter",
        ])?;
        let test = if fact == "context.conn.certNotAfter" {
            let op = self.choices.pick(&[
                BinaryOp::Less,
                BinaryOp::LessEq,
                BinaryOp::Eq,
                BinaryOp::Greater,
            ])?;
            binary(op, path(fact), self.of(Type::Datetime, depth)?)
        } else {
            self.text_test(path(fact), depth)?
        };
        let fits = match fact.starts_with("context.req") {
            true => self.request,
            false => true,
        };
        // Where there may be no `context.req`, only the nested form asks for both.
        let nested = !fits || self.choices.below(2) == 0;
        match self.choices.once_in(12) {
            true => Some(test),
            false => Some(and(has(fact, nested)?, test)),
        }
    }

    fn text_test(&mut self, subject: Expr, depth: u32) -> Option<Expr> {
        Some(match self.choices.below(3) {
            0 => binary(BinaryOp::Eq, subject, self.of(Type::Text, depth)?),
            1 => Expr::Like {
                expr: Arc::new(subject),
                pattern: self.pattern()?,
            },
            _ => binary(BinaryOp::Contains, self.set(Type::Text, depth)?, subject),
        })
    }

    fn like(&mut self, depth: u32) -> Option<Expr> {
        Some(Expr::Like {
            expr: Arc::new(self.of(Type::Text, depth)?),
            pattern: self.pattern()?,
        })
    }

    /// Pieces of the words, with wildcards between some.
    fn pattern(&mut self) -> Option<Vec<PatternElem>> {
        let mut pattern = Vec::new();
        for _ in 0..=self.choices.below(5) {
            match self.choices.below(2) {
                0 => pattern.push(PatternElem::Wildcard),
                _ => {
                    let word = self.choices.pick(&TEXTS)?;
                    let (from, count) = (self.choices.below(4), self.choices.below(4));
                    let whole = self.choices.once_in(3);
                    let chars = word.chars().skip(if whole { 0 } else { from });
                    let count = if whole { usize::MAX } else { count };
                    pattern.extend(chars.take(count).map(PatternElem::Char));
                }
            }
        }
        Some(pattern)
    }

    fn address_test(&mut self, depth: u32) -> Option<Expr> {
        let subject = self.of(Type::Ip, depth)?;
        let property = self.choices.pick(&[
            UnaryOp::IsIPv4,
            UnaryOp::IsIPV6,
            UnaryOp::IsLoopback,
            UnaryOp::IsMulticast,
        ])?;
        match self.choices.below(3) {
            0 => Some(unary(property, subject)),
            _ => Some(binary(
                BinaryOp::IsInRange,
                subject,
                self.of(Type::Ip, depth)?,
            )),
        }
    }

    fn presence(&mut self) -> Option<Expr> {
        let paths = [
            "principal.ns",
            "principal.id",
            "resource.rule",
            "resource.isDefault",
            "resource.ns",
            "action.ns",
            "context.req",
            "context.conn.certNotAfter",
            "context.conn.nets",
            "context.conn.nothing",
            "context.req.host",
            "context.req.path",
            "context.req.headers",
            "context.req.headers.ns",
            "context.now",
        ];
        let nested = self.choices.below(2) == 0;
        has(self.choices.pick(&paths)?, nested)
    }

    fn membership(&mut self) -> Option<Expr> {
        let variable = self.choices.pick(&["principal", "resource", "action"])?;
        let group = |maker: &mut Self| match variable {
            "principal" => maker.principal_group(),
            "resource" => maker.resource_group(),
            _ => maker.entity(&["Action"]),
        };
        let right = if self.choices.below(2) == 0 {
            Expr::Literal(Literal::EntityUID(group(self)?))
        } else {
            // A set of one type, as validation demands.
            let first = group(self)?;
            let mut all = vec![first.clone()];
            for _ in 0..self.choices.below(3) {
                all.extend(group(self).filter(|uid| uid.ty == first.ty));
            }
            let literal = |uid| Arc::new(Expr::Literal(Literal::EntityUID(uid)));
            Expr::Set(all.into_iter().map(literal).collect())
        };
        let subject = path(variable);
        if self.choices.once_in(3) {
            let types = ["Workload", "Anonymous", "Server", "Route", "Action"];
            let inside = self.choices.below(2) == 0;
            return Some(Expr::Is {
                expr: Arc::new(subject),
                entity_type: kind(self.choices.pick(&types)?)?,
                in_expr: inside.then(|| Arc::new(right)),
            });
        }
        Some(binary(BinaryOp::In, subject, right))
    }

    fn entity_equality(&mut self) -> Option<Expr> {
        let (variable, types): (_, &[&str]) = match self.choices.below(3) {
            0 => ("principal", &["Workload", "Anonymous"]),
            1 => ("resource", &["Server", "Route"]),
            _ => ("action", &["Action"]),
        };
        let mut other = Expr::Literal(Literal::EntityUID(self.entity(types)?));
        if self.choices.once_in(6) {
            other = path(self.choices.pick(&["principal", "action", "resource"])?);
        }
        let op = self.choices.pick(&[BinaryOp::Eq, BinaryOp::NotEq])?;
        Some(match self.choices.below(2) {
            0 => binary(op, path(variable), other),
            _ => binary(op, other, path(variable)),
        })
    }
}
