//! Values of random conditions: literals, facts, arithmetic, sets.

use super::super::choices::Choices;
use super::{Maker, Type, binary, path, text, uid, unary};
use cedar_policy::pst::{BinaryOp, EntityUID, Expr, Literal, UnaryOp};
use std::sync::Arc;

/// Words of policies, and of questions.
pub(crate) const TEXTS: [&str; 18] = [
    "a",
    "",
    "shop",
    "web",
    "cart",
    "GET",
    "/a",
    "/a/b",
    "/shop.Cart/Add",
    "shop.Cart",
    "cart:8080",
    "default",
    "cluster.local",
    "HTTPRoute",
    "/é/aab",
    "aab",
    "a*b",
    "spiffe://cluster.local/ns/shop/sa/web",
];

/// Header names that policies mention; no header can have the last.
pub(crate) const HEADERS: [&str; 3] = ["x-a", "x-b", "X-A"];

/// Addresses and blocks of policies; Cedar refuses the last three.
pub(crate) const IPS: [&str; 21] = [
    "10.0.0.0/8",
    "10.1.2.3",
    "10.1.2.3/8",
    "0.0.0.0/0",
    "127.0.0.1",
    "127.0.0.0/7",
    "127.0.0.0/8",
    "224.0.0.0/4",
    "224.0.0.0/3",
    "239.255.255.255/32",
    "::/0",
    "::1",
    "::1/127",
    "ff00::/8",
    "ff00::/7",
    "fe80::1/10",
    "2001:db8::/32",
    "2001:db8::/128",
    "10.0.0.0/33",
    "::ffff:10.1.2.3",
    "10.0.0.0/08",
];

/// Times of policies; Cedar refuses the last four.
pub(crate) const DATETIMES: [&str; 13] = [
    "2026-11-21T11:29:00Z",
    "2026-11-21T11:29:00.001Z",
    "2026-11-21T11:29:00+0100",
    "1970-01-01",
    "1969-12-31T23:59:59.999Z",
    "9998-12-31",
    "0000-01-01",
    "2024-02-29",
    "2026-11-21T23:59:59.999-2359",
    "2026-02-29",
    "2026-11-21T24:00:00Z",
    "2026-11-21T11:29:60Z",
    "2026-11-21T11:29:00",
];

/// Durations of policies; Cedar refuses the last three.
pub(crate) const DURATIONS: [&str; 15] = [
    "1h",
    "0ms",
    "1ms",
    "-1ms",
    "-1h",
    "1d",
    "59s",
    "1d2h3m4s5ms",
    "-1d2h3m4s5ms",
    "-999ms",
    "9223372036854775807ms",
    "-9223372036854775808ms",
    "9223372036854775808ms",
    "1ms1h",
    "",
];

const LONGS: [i64; 13] = [
    0,
    1,
    80,
    8080,
    443,
    -1,
    3,
    10,
    65_535,
    4_294_967_295,
    3_600,
    i64::MAX,
    i64::MIN,
];

/// A literal that Cedar takes, now and then one that it does not.
fn literal<'t>(choices: &mut Choices<'_>, from: &[&'t str], refused: usize) -> Option<&'t str> {
    let sound = from.len().checked_sub(refused)?;
    match choices.once_in(24) {
        true => choices.pick(from.get(sound..)?),
        false => choices.pick(from.get(..sound)?),
    }
}

impl Maker<'_, '_> {
    pub(super) fn value(&mut self, ty: Type, depth: u32) -> Option<Expr> {
        match ty {
            Type::Bool => self.boolean(depth),
            Type::Text => self.text(),
            Type::Long => self.long(depth),
            Type::Datetime => self.datetime(depth),
            Type::Duration => self.duration(depth),
            Type::Ip => Some(match self.choices.below(2) {
                0 => path("context.conn.ip"),
                _ => unary(UnaryOp::Ip, text(literal(self.choices, &IPS, 3)?)),
            }),
        }
    }

    fn text(&mut self) -> Option<Expr> {
        let any = self.choices.once_in(30);
        let of_request = ["context.req.method", "context.req.path", "resource.kind"];
        let optional = [
            "principal.ns",
            "principal.sa",
            "context.req.host",
            "context.req.grpcService",
            "context.req.grpcMethod",
        ];
        Some(match self.choices.below(5) {
            0 => text(self.choices.pick(&TEXTS)?),
            1 if self.workload || any => path(
                self.choices
                    .pick(&["principal.id", "principal.trustDomain"])?,
            ),
            2 if any => path(self.choices.pick(&optional)?),
            1..=3 if self.request || any => path(self.choices.pick(&of_request)?),
            _ => path(self.choices.pick(&["resource.ns", "resource.name"])?),
        })
    }

    fn long(&mut self, depth: u32) -> Option<Expr> {
        let Some(depth) = depth.checked_sub(1) else {
            return Some(Expr::Literal(Literal::Long(self.choices.pick(&LONGS)?)));
        };
        Some(match self.choices.below(8) {
            0 | 1 => Expr::Literal(Literal::Long(self.choices.pick(&LONGS)?)),
            2 => path("context.conn.port"),
            3 if self.request || self.choices.once_in(16) => path("resource.rule"),
            4 => unary(UnaryOp::Neg, self.of(Type::Long, depth)?),
            5 => {
                let op = self.choices.pick(&[
                    UnaryOp::ToMilliseconds,
                    UnaryOp::ToSeconds,
                    UnaryOp::ToMinutes,
                    UnaryOp::ToHours,
                    UnaryOp::ToDays,
                ])?;
                unary(op, self.of(Type::Duration, depth)?)
            }
            _ => {
                let op = self
                    .choices
                    .pick(&[BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul])?;
                let left = self.of(Type::Long, depth)?;
                binary(op, left, self.of(Type::Long, depth)?)
            }
        })
    }

    fn datetime(&mut self, depth: u32) -> Option<Expr> {
        let simple = depth == 0 || self.choices.below(3) > 0;
        let depth = depth.saturating_sub(1);
        Some(match (simple, self.choices.below(2)) {
            (true, 0) => path("context.now"),
            (true, _) => {
                let word = literal(self.choices, &DATETIMES, 4)?;
                unary(UnaryOp::Datetime, text(word))
            }
            (false, 0) => {
                let time = self.of(Type::Datetime, depth)?;
                binary(BinaryOp::Offset, time, self.of(Type::Duration, depth)?)
            }
            (false, _) => unary(UnaryOp::ToDate, self.of(Type::Datetime, depth)?),
        })
    }

    fn duration(&mut self, depth: u32) -> Option<Expr> {
        let simple = depth == 0 || self.choices.below(2) == 0;
        let depth = depth.saturating_sub(1);
        Some(match (simple, self.choices.below(2)) {
            (true, _) => {
                let word = literal(self.choices, &DURATIONS, 3)?;
                unary(UnaryOp::Duration, text(word))
            }
            (false, 0) => unary(UnaryOp::ToTime, self.of(Type::Datetime, depth)?),
            (false, _) => {
                let later = self.of(Type::Datetime, depth)?;
                binary(
                    BinaryOp::DurationSince,
                    later,
                    self.of(Type::Datetime, depth)?,
                )
            }
        })
    }

    /// A literal entity of one of the types, often one that a question has.
    pub(super) fn entity(&mut self, types: &[&str]) -> Option<EntityUID> {
        let ty = self.choices.pick(types)?;
        let ids: &[&str] = match ty {
            "Workload" => &[
                "spiffe://cluster.local/ns/shop/sa/web",
                "spiffe://partner.example/web",
                "web",
            ],
            "Anonymous" => &["plaintext", "tls-no-cert"],
            "TrustDomain" => &["cluster.local", "partner.example", "cluster"],
            "Namespace" => &[
                "cluster.local/shop",
                "partner.example/shop",
                "cluster.local/pay",
                "cluster.local",
                "shop",
            ],
            "IdentitySet" => &["a", "shop", "web", "nobody"],
            "NetSet" => &["lan", "cluster", "cart", "nowhere"],
            "NamedServers" => &["shop", "pay", "cart"],
            "Server" => &["shop/cart", "shop/http", "default", "shop/default", "pay/"],
            "RouteObj" => &["HTTPRoute/shop/cart", "GRPCRoute/pay/cart", "default//"],
            "Route" => &[
                "shop/cart HTTPRoute/shop/cart/0",
                "shop/cart HTTPRoute/shop/cart/10",
                "shop/cart HTTPRoute/shop/cart/+1",
                "shop/cart HTTPRoute/shop/cart/01",
                "default default//probe/0",
                "shop/http GRPCRoute/pay/cart/4294967295",
                "default HTTPRoute/shop/cart/0",
            ],
            _ => &["request", "connect"],
        };
        uid(ty, self.choices.pick(ids)?)
    }

    /// A set literal, of literals more often than not.
    pub(super) fn set(&mut self, ty: Type, depth: u32) -> Option<Expr> {
        let computed = self.choices.once_in(4);
        let mut items = Vec::new();
        for _ in 0..=self.choices.below(4) {
            items.push(Arc::new(match (computed, ty) {
                (true, _) => self.of(ty, depth)?,
                (false, Type::Text) => text(self.choices.pick(&TEXTS)?),
                (false, Type::Bool) => Expr::Literal(Literal::Bool(self.choices.below(2) == 0)),
                (false, Type::Long) => Expr::Literal(Literal::Long(self.choices.pick(&LONGS)?)),
                (false, Type::Datetime) => {
                    let word = literal(self.choices, &DATETIMES, 4)?;
                    unary(UnaryOp::Datetime, text(word))
                }
                (false, Type::Duration) => {
                    let word = literal(self.choices, &DURATIONS, 3)?;
                    unary(UnaryOp::Duration, text(word))
                }
                (false, Type::Ip) => unary(UnaryOp::Ip, text(literal(self.choices, &IPS, 3)?)),
            }));
        }
        Some(Expr::Set(items))
    }

    fn entity_set(&mut self, types: &[&str]) -> Option<Expr> {
        let mut items = Vec::new();
        for _ in 0..=self.choices.below(3) {
            let uid = self.entity(types)?;
            items.push(Arc::new(Expr::Literal(Literal::EntityUID(uid))));
        }
        Some(Expr::Set(items))
    }

    /// A set and a member, or two sets.
    pub(super) fn set_test(&mut self, depth: u32) -> Option<Expr> {
        if self.choices.once_in(6) {
            let (types, variable) = self.choices.pick(&[
                ("Workload", "principal"),
                ("Route", "resource"),
                ("Action", "action"),
            ])?;
            let set = self.entity_set(&[types])?;
            return Some(binary(BinaryOp::Contains, set, path(variable)));
        }
        let ty = self.choices.pick(&super::TYPES)?;
        let set = self.set(ty, depth)?;
        Some(match self.choices.below(3) {
            0 | 1 => binary(BinaryOp::Contains, set, self.of(ty, depth)?),
            _ => {
                let other = self.set(ty, depth)?;
                self.relation(set, other)?
            }
        })
    }

    fn relation(&mut self, left: Expr, right: Expr) -> Option<Expr> {
        let op = self.choices.pick(&[
            BinaryOp::ContainsAll,
            BinaryOp::ContainsAny,
            BinaryOp::Eq,
            BinaryOp::NotEq,
        ])?;
        Some(match self.choices.below(4) {
            0 => binary(op, right, left),
            1 => unary(UnaryOp::IsEmpty, left),
            _ => binary(op, left, right),
        })
    }

    pub(super) fn networks(&mut self) -> Option<Expr> {
        let nets = path("context.conn.nets");
        match self.choices.below(2) {
            0 => {
                let set = Expr::Literal(Literal::EntityUID(self.entity(&["NetSet"])?));
                Some(binary(BinaryOp::Contains, nets, set))
            }
            _ => {
                let sets = self.entity_set(&["NetSet"])?;
                self.relation(nets, sets)
            }
        }
    }

    /// `hasTag`, and mostly a test of the values.
    pub(super) fn header(&mut self, depth: u32) -> Option<Expr> {
        let name = self.choices.pick(&HEADERS)?;
        let tag = |op| binary(op, path("context.req.headers"), text(name));
        let there = tag(BinaryOp::HasTag);
        if self.choices.once_in(4) {
            return Some(there);
        }
        let values = tag(BinaryOp::GetTag);
        let test = match self.choices.below(2) {
            0 => binary(BinaryOp::Contains, values, self.of(Type::Text, depth)?),
            _ => {
                let texts = self.set(Type::Text, depth)?;
                self.relation(values, texts)?
            }
        };
        match self.choices.once_in(12) {
            true => Some(test),
            false => Some(super::and(there, test)),
        }
    }
}
