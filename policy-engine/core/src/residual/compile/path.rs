//! Paths from a variable through attributes, and `has` along them.

use super::super::Unsupported;
use super::super::entity::Var;
use super::super::node::{Field, Test, TextField};
use super::{Compiler, all};
use cedar_policy::pst::{self, Expr, SmolStr};

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Entity(Var),
    Context,
    Connection,
    Request,
    Headers,
    Networks,
    Field(Field),
}

/// The place of a variable with attributes; `None` for any other expression, and for an attribute that the schema does
/// not have.
pub(super) fn place(expr: &Expr) -> Option<Place> {
    let (mut attributes, mut rest) = (Vec::new(), expr);
    while let Expr::GetAttr { expr, attr } = rest {
        attributes.push(attr);
        rest = expr;
    }
    let Expr::Var(variable) = rest else {
        return None;
    };
    let start = match variable {
        pst::Var::Principal => Place::Entity(Var::Principal),
        pst::Var::Action => Place::Entity(Var::Action),
        pst::Var::Resource => Place::Entity(Var::Resource),
        pst::Var::Context => Place::Context,
    };
    attributes
        .into_iter()
        .rev()
        .try_fold(start, |place, attribute| place.attribute(attribute))
}

impl Place {
    fn attribute(self, name: &str) -> Option<Self> {
        Some(match (self, name) {
            (Self::Context, "conn") => Self::Connection,
            (Self::Context, "req") => Self::Request,
            (Self::Request, "headers") => Self::Headers,
            (Self::Connection, "nets") => Self::Networks,
            _ => Self::Field(self.field(name)?),
        })
    }

    fn field(self, name: &str) -> Option<Field> {
        Some(match (self, name) {
            (Self::Entity(Var::Principal), "id") => Field::Text(TextField::PrincipalId),
            (Self::Entity(Var::Principal), "trustDomain") => {
                Field::Text(TextField::PrincipalTrustDomain)
            }
            (Self::Entity(Var::Principal), "ns") => Field::Text(TextField::PrincipalNamespace),
            (Self::Entity(Var::Principal), "sa") => Field::Text(TextField::PrincipalAccount),
            (Self::Entity(Var::Resource), "ns") => Field::Text(TextField::ResourceNamespace),
            (Self::Entity(Var::Resource), "name") => Field::Text(TextField::ResourceName),
            (Self::Entity(Var::Resource), "isDefault") => Field::ResourceIsDefault,
            (Self::Entity(Var::Resource), "kind") => Field::Text(TextField::ResourceKind),
            (Self::Entity(Var::Resource), "rule") => Field::ResourceRule,
            (Self::Context, "now") => Field::Now,
            (Self::Connection, "ip") => Field::Ip,
            (Self::Connection, "port") => Field::Port,
            (Self::Connection, "tls") => Field::Tls,
            (Self::Connection, "certNotAfter") => Field::CertNotAfter,
            (Self::Request, "method") => Field::Text(TextField::Method),
            (Self::Request, "path") => Field::Text(TextField::Path),
            (Self::Request, "host") => Field::Text(TextField::Host),
            (Self::Request, "grpc") => Field::Grpc,
            (Self::Request, "grpcService") => Field::Text(TextField::GrpcService),
            (Self::Request, "grpcMethod") => Field::Text(TextField::GrpcMethod),
            _ => return None,
        })
    }
}

impl Compiler<'_> {
    /// `has`, along one attribute or several: true if each is there.
    pub(super) fn has<'e>(
        &mut self,
        base: &Expr,
        attributes: impl Iterator<Item = &'e SmolStr>,
    ) -> Result<Test, Unsupported> {
        let Some(mut at) = place(base) else {
            return Err(Unsupported("`has` of something else than a path"));
        };
        let mut tests = Vec::new();
        if matches!(at, Place::Request | Place::Headers) {
            tests.push(Test::Requested);
        }
        for attribute in attributes {
            if matches!(at, Place::Field(_) | Place::Networks) {
                return Err(Unsupported("`has` of a value without attributes"));
            }
            let Some(next) = at.attribute(attribute) else {
                tests.push(Test::Known(false));
                break;
            };
            tests.push(self.is_there(next));
            at = next;
        }
        Ok(all(tests))
    }

    /// Whether an attribute is there, in a record or entity that is.
    fn is_there(&mut self, place: Place) -> Test {
        match place {
            Place::Field(field) if is_optional(field) => {
                self.looks_at_request |= field.is_of_request();
                Test::Has(field)
            }
            Place::Request => Test::IsRequest,
            _ => Test::Known(true),
        }
    }
}

/// Whether a question may lack it: by the schema, or because the principal or resource is of a type without it.
fn is_optional(field: Field) -> bool {
    !matches!(
        field,
        Field::Text(TextField::ResourceNamespace)
            | Field::Text(TextField::ResourceName)
            | Field::Ip
            | Field::Port
            | Field::Tls
            | Field::Now
            | Field::Text(TextField::Method)
            | Field::Text(TextField::Path)
            | Field::Grpc
    )
}
