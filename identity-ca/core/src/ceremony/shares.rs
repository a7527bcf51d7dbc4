//! A key in n shares of which any k restore it and fewer say nothing about it (Shamir, "How to share a secret", 1979),
//! octet by octet over the field of 256 elements.
//!
//! All coefficients are drawn evenly, zero among them: a library that left zero out let k shares less one say something
//! (RUSTSEC-2024-0398). Each share is a text that people can print, read out and type:
//!
//! ```text
//! mesh share of a root's key, format 1
//! trust-domain: prod.example
//! root: <SHA-256 of the root's certificate>
//! set: 5d0c…            drawn for this division of the key
//! share: 2
//! shares: 5
//! threshold: 3
//! value: <32 octets>
//! checksum: <of all lines above>
//! ```

use super::CeremonyError;
use super::gf256::{add, inverse, mul};
use crate::key::sha256;
use crate::limits::{CEREMONY_TEXT_BYTES_MAX, SHARES_MAX};
use data_encoding::HEXLOWER;
use mesh_trust::TrustDomain;
use std::collections::BTreeSet;
use std::fmt;
use zeroize::Zeroizing;

/// Octets of a private number on P-256.
pub const SECRET_BYTES: usize = 32;
/// Octets of a set's name.
pub const SET_BYTES: usize = 8;
/// Octets of a checksum: a typing error gets by once in 2^64.
const CHECKSUM_BYTES: usize = 8;

/// A private number; wiped when dropped.
pub type Secret = Zeroizing<[u8; SECRET_BYTES]>;

const HEAD: &str = "mesh share of a root's key, format 1";

/// What all shares of one key have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Drawn for each division of a key.
    pub id: [u8; SET_BYTES],
    /// Whose root it is.
    pub domain: TrustDomain,
    /// SHA-256 of the root's certificate.
    pub root: [u8; 32],
    /// How many there are.
    pub shares: u8,
    /// How many restore the key.
    pub threshold: u8,
}

/// One share.
#[derive(Clone, PartialEq, Eq)]
pub struct Share {
    /// Which division it belongs to.
    pub set: Set,
    /// From 1.
    pub number: u8,
    value: Secret,
}

impl Set {
    /// Checks the numbers.
    ///
    /// # Errors
    /// [`CeremonyError::Numbers`]: a threshold of one, above the number of shares, or too many of these.
    pub fn check(&self) -> Result<(), CeremonyError> {
        check_numbers(self.shares, self.threshold)
    }
}

/// Checks how many shares there are to be, and how many restore the key.
///
/// # Errors
/// [`CeremonyError::Numbers`].
pub fn check_numbers(shares: u8, threshold: u8) -> Result<(), CeremonyError> {
    let why = match (shares, threshold) {
        (_, 0 | 1) => "each share alone would be the key",
        (shares, threshold) if threshold > shares => "there are fewer than are needed",
        (shares, _) if shares > SHARES_MAX => "more than 100 shares",
        _ => return Ok(()),
    };
    Err(CeremonyError::Numbers {
        shares,
        threshold,
        why,
    })
}

/// Divides a secret. `random` fills with octets that nobody else knows; it is asked once for each coefficient.
///
/// # Errors
/// [`CeremonyError::Numbers`].
pub fn split(
    secret: &Secret,
    set: &Set,
    mut random: impl FnMut(&mut [u8]) -> Result<(), CeremonyError>,
) -> Result<Vec<Share>, CeremonyError> {
    set.check()?;
    let mut coefficients = Vec::new();
    for _ in 1..set.threshold {
        let mut coefficient: Secret = Zeroizing::new([0; SECRET_BYTES]);
        random(&mut *coefficient)?;
        coefficients.push(coefficient);
    }
    let share = |number: u8| {
        let mut value: Secret = Zeroizing::new([0; SECRET_BYTES]);
        // Horner: the highest coefficient first, the secret last.
        for coefficient in coefficients.iter().rev().chain([secret]) {
            for (octet, next) in value.iter_mut().zip(coefficient.iter()) {
                *octet = add(mul(*octet, number), *next);
            }
        }
        Share {
            set: set.clone(),
            number,
            value,
        }
    };
    Ok((1..=set.shares).map(share).collect())
}

/// Restores the secret from named shares. What more than the threshold are here must agree with the others.
///
/// # Errors
/// [`CeremonyError`]: none or too few, of several sets, one of them twice, one that does not fit. That what is restored is
/// the right key, the caller finds out from the root's certificate.
pub fn restore(shares: &[(String, Share)]) -> Result<Secret, CeremonyError> {
    let Some((_, first)) = shares.first() else {
        return Err(CeremonyError::TooFew { have: 0, need: 2 });
    };
    let mut numbers = BTreeSet::new();
    for (place, share) in shares {
        if share.set != first.set {
            return Err(CeremonyError::OtherSet {
                place: place.clone(),
                found: HEXLOWER.encode(&share.set.id),
                wanted: HEXLOWER.encode(&first.set.id),
            });
        }
        if !numbers.insert(share.number) {
            return Err(CeremonyError::SameShare {
                place: place.clone(),
                number: share.number,
            });
        }
    }
    let need = usize::from(first.set.threshold);
    let Some((base, others)) = shares.split_at_checked(need) else {
        return Err(CeremonyError::TooFew {
            have: shares.len(),
            need: first.set.threshold,
        });
    };
    for (place, share) in others {
        if at(base, share.number) != share.value {
            return Err(CeremonyError::Share {
                place: place.clone(),
                why: "it does not agree with the others",
            });
        }
    }
    Ok(at(base, 0))
}

/// The value at `x` of the polynomial through these points (Lagrange).
fn at(points: &[(String, Share)], x: u8) -> Secret {
    let mut sum: Secret = Zeroizing::new([0; SECRET_BYTES]);
    for (_, point) in points {
        let mut weight = 1;
        for (_, other) in points
            .iter()
            .filter(|(_, other)| other.number != point.number)
        {
            let above = add(x, other.number);
            let below = add(point.number, other.number);
            weight = mul(weight, mul(above, inverse(below)));
        }
        for (octet, value) in sum.iter_mut().zip(point.value.iter()) {
            *octet = add(*octet, mul(*value, weight));
        }
    }
    sum
}

impl Share {
    /// Its text.
    pub fn to_text(&self) -> Zeroizing<String> {
        // As large as it gets, at once: a string that grows leaves parts of a share behind.
        let mut text = Zeroizing::new(String::with_capacity(2 * CEREMONY_TEXT_BYTES_MAX / 64));
        let set = &self.set;
        let lines = [
            ("trust-domain", set.domain.to_string()),
            ("root", HEXLOWER.encode(&set.root)),
            ("set", HEXLOWER.encode(&set.id)),
            ("share", self.number.to_string()),
            ("shares", set.shares.to_string()),
            ("threshold", set.threshold.to_string()),
        ];
        text.push_str(HEAD);
        text.push('\n');
        for (key, value) in lines {
            for part in [key, ": ", &value, "\n"] {
                text.push_str(part);
            }
        }
        text.push_str("value: ");
        HEXLOWER.encode_append(&*self.value, &mut text);
        text.push('\n');
        let sum = sha256(text.as_bytes());
        text.push_str("checksum: ");
        HEXLOWER.encode_append(sum.get(..CHECKSUM_BYTES).unwrap_or_default(), &mut text);
        text.push('\n');
        text
    }

    /// Reads a text; `place` is for errors. Ends of lines may be those of other systems, and the last one may be missing.
    ///
    /// # Errors
    /// [`CeremonyError::Share`].
    pub fn parse(place: &str, text: &[u8]) -> Result<Self, CeremonyError> {
        let broken = |why| CeremonyError::Share {
            place: place.to_owned(),
            why,
        };
        if text.len() > CEREMONY_TEXT_BYTES_MAX {
            return Err(broken("it is too long"));
        }
        let text = std::str::from_utf8(text).map_err(|_| broken("it is no text"))?;
        let mut lines = text.lines().map(str::trim_end);
        if lines.next() != Some(HEAD) {
            return Err(broken("it does not begin as a share does"));
        }
        let mut field = |key: &'static str| {
            let line = lines.next().and_then(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.strip_prefix(": "))
                .ok_or(broken("a line is missing, or is not in its place"))
        };
        let domain = TrustDomain::parse(field("trust-domain")?)
            .map_err(|_| broken("its trust domain is none"))?;
        let hex = |what: &str| HEXLOWER.decode(what.as_bytes()).map(Zeroizing::new).ok();
        let root = field("root")?;
        let root = hex(root)
            .and_then(|octets| octets.as_slice().try_into().ok())
            .ok_or(broken("the name of its root is none"))?;
        let id = hex(field("set")?)
            .and_then(|octets| octets.as_slice().try_into().ok())
            .ok_or(broken("the name of its set is none"))?;
        let number = |text: &str| text.parse::<u8>().map_err(|_| broken("a number is none"));
        let share_number = number(field("share")?)?;
        let (shares, threshold) = (number(field("shares")?)?, number(field("threshold")?)?);
        let value: [u8; SECRET_BYTES] = hex(field("value")?)
            .and_then(|octets| octets.as_slice().try_into().ok())
            .ok_or(broken("its value is none"))?;
        let checksum = field("checksum")?;
        let share = Self {
            set: Set {
                id,
                domain,
                root,
                shares,
                threshold,
            },
            number: share_number,
            value: Zeroizing::new(value),
        };
        let again = share.to_text();
        if !again.ends_with(&format!("checksum: {checksum}\n")) {
            return Err(broken("its checksum is wrong: a letter was changed"));
        }
        let plain = text.lines().map(str::trim_end);
        if !again.lines().eq(plain) {
            return Err(broken("it is not in the form in which shares are written"));
        }
        share.set.check()?;
        if share.number == 0 || share.number > shares {
            return Err(broken("its number is not among the shares"));
        }
        Ok(share)
    }

    /// Name of its file.
    pub fn file_name(&self) -> String {
        format!("share-{}-of-{}.txt", self.number, self.set.shares)
    }

    /// SHA-256 of its text, for the transcript. It says nothing about the key: a share alone is as good as drawn.
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(self.to_text().as_bytes())
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({} of {})", self.number, self.set.shares)
    }
}

#[cfg(test)]
mod tests;
