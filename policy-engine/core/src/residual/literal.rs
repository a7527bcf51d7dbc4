//! Addresses, times and durations that stand in a policy, read once.
//!
//! Cedar reads them, so that there is no second grammar: each text becomes an attribute of a throw-away context, and an
//! expression takes the number out of it.

use cedar_policy::{
    Context, Entities, EntityUid, EvalResult, Expression, Request, RestrictedExpression,
    eval_expression,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What Cedar calls an `ipaddr`: an address, or a block with the host bits that it was written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    address: IpAddr,
    prefix: u8,
}

/// First and last address of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    V4(u32, u32),
    V6(u128, u128),
}

/// Reads the text of an `ip`; `None` if Cedar does not take it.
pub(super) fn ip(text: &str) -> Option<Block> {
    context(RestrictedExpression::new_ip(text))?;
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address.parse().ok()?, prefix.parse().ok()?),
        None => (text.parse().ok()?, u8::MAX),
    };
    let block = Block::of(address);
    Some(Block {
        prefix: prefix.min(block.prefix),
        ..block
    })
}

/// Milliseconds since the epoch of the text of a `datetime`; `None` if Cedar does not take it.
pub(super) fn datetime(text: &str) -> Option<i64> {
    long(
        RestrictedExpression::new_datetime(text),
        r#"context.it.durationSince(datetime("1970-01-01")).toMilliseconds()"#,
    )
}

/// Milliseconds of the text of a `duration`; `None` if Cedar does not take it.
pub(super) fn duration(text: &str) -> Option<i64> {
    long(
        RestrictedExpression::new_duration(text),
        "context.it.toMilliseconds()",
    )
}

fn context(it: RestrictedExpression) -> Option<Context> {
    Context::from_pairs([("it".to_owned(), it)]).ok()
}

fn long(it: RestrictedExpression, expression: &str) -> Option<i64> {
    let nobody: EntityUid = r#"Mesh::Anonymous::"plaintext""#.parse().ok()?;
    let request = Request::new(nobody.clone(), nobody.clone(), nobody, context(it)?, None);
    let expression: Expression = expression.parse().ok()?;
    match eval_expression(&request.ok()?, &Entities::empty(), &expression) {
        Ok(EvalResult::Long(number)) => Some(number),
        _ => None,
    }
}

impl Block {
    /// One address.
    pub(super) fn of(address: IpAddr) -> Self {
        let prefix = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        Self { address, prefix }
    }

    pub(super) fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }

    /// Whether all of it is in 127.0.0.0/8 or `::1`.
    pub(super) fn is_loopback(self) -> bool {
        let prefix_min = if self.is_ipv4() { 8 } else { 128 };
        self.address.is_loopback() && self.prefix >= prefix_min
    }

    /// Whether all of it is in 224.0.0.0/4 or `ff00::/8`.
    pub(super) fn is_multicast(self) -> bool {
        let prefix_min = if self.is_ipv4() { 4 } else { 8 };
        self.address.is_multicast() && self.prefix >= prefix_min
    }

    /// As Cedar reads it.
    pub(super) fn text(self) -> String {
        format!("{}/{}", self.address, self.prefix)
    }

    pub(super) fn range(self) -> Range {
        let prefix = u32::from(self.prefix);
        match self.address {
            IpAddr::V4(address) => {
                let host = u32::MAX.checked_shr(prefix).unwrap_or(0);
                let address = u32::from(address);
                Range::V4(address & !host, address | host)
            }
            IpAddr::V6(address) => {
                let host = u128::MAX.checked_shr(prefix).unwrap_or(0);
                let address = u128::from(address);
                Range::V6(address & !host, address | host)
            }
        }
    }
}

impl Range {
    /// The block of these addresses, as Cedar reads it.
    pub(super) fn text(self) -> String {
        let block = |address: IpAddr, bits: u32| format!("{address}/{bits}");
        match self {
            Self::V4(first, last) => {
                block(Ipv4Addr::from(first).into(), (first ^ last).leading_zeros())
            }
            Self::V6(first, last) => {
                block(Ipv6Addr::from(first).into(), (first ^ last).leading_zeros())
            }
        }
    }

    /// Whether all of it is in `outer`; never across address families.
    pub(super) fn is_in(self, outer: Self) -> bool {
        match (self, outer) {
            (Self::V4(first, last), Self::V4(outer_first, outer_last)) => {
                outer_first <= first && last <= outer_last
            }
            (Self::V6(first, last), Self::V6(outer_first, outer_last)) => {
                outer_first <= first && last <= outer_last
            }
            _ => false,
        }
    }
}
