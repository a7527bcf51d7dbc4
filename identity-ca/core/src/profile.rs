//! Lifetimes: what is asked for, bounded by the profile and by the issuer, which no leaf outlives.

use crate::limits::{
    BACKDATE_SECS, CEREMONY_ISSUER_DAYS_MAX, ISSUER_LIFETIME_SECS, ISSUER_MARGIN_SECS,
    LEAF_LIFETIME_SECS, LEAF_LIFETIME_SECS_MAX, LEAF_LIFETIME_SECS_MIN, ROOT_LIFETIME_SECS,
};
use mesh_trust::Timestamp;

/// Lifetimes that an authority grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    // INVARIANT: min <= default <= max.
    lifetime_secs: u64,
    lifetime_secs_min: u64,
    lifetime_secs_max: u64,
    backdate_secs: u64,
}

/// First and last moment of a certificate, whole seconds, both inclusive (RFC 5280 §4.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Backdated, for late clocks.
    pub not_before: Timestamp,
    /// Never after the issuer's.
    pub not_after: Timestamp,
}

/// Why no lifetime can be granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum ProfileError {
    /// A configured lifetime outside the bounds.
    #[error(
        "a lifetime of {secs} s for SVIDs; it must be from {LEAF_LIFETIME_SECS_MIN} s to {LEAF_LIFETIME_SECS_MAX} s"
    )]
    #[diagnostic(
        code("MESH-0207"),
        help("choose another `--svid-ttl`, for instance 24h")
    )]
    Lifetime {
        /// The lifetime asked for.
        secs: u64,
    },
    /// The issuer ends too soon for any certificate.
    #[error(
        "the issuer ends at {issuer_not_after}: too soon for a certificate of {secs_min} s or more"
    )]
    #[diagnostic(
        code("MESH-0208"),
        help(
            "the CA renews its issuer by itself; if this stays, look at its log and at the clock"
        )
    )]
    IssuerEnds {
        /// When it ends.
        issuer_not_after: Timestamp,
        /// Shortest life that the profile grants.
        secs_min: u64,
    },
    /// The clock stands before the issuer's first moment.
    #[error("the issuer is not valid before {issuer_not_before}, and it is {now}")]
    #[diagnostic(
        code("MESH-0209"),
        help("the clock of this machine was set back; set it right")
    )]
    IssuerNotYet {
        /// When it starts.
        issuer_not_before: Timestamp,
        /// The clock.
        now: Timestamp,
    },
}

impl Profile {
    /// Leaves of `lifetime_secs`.
    ///
    /// # Errors
    /// [`ProfileError::Lifetime`] outside of [`LEAF_LIFETIME_SECS_MIN`]..=[`LEAF_LIFETIME_SECS_MAX`].
    pub fn leaf(lifetime_secs: u64) -> Result<Self, ProfileError> {
        if !(LEAF_LIFETIME_SECS_MIN..=LEAF_LIFETIME_SECS_MAX).contains(&lifetime_secs) {
            return Err(ProfileError::Lifetime {
                secs: lifetime_secs,
            });
        }
        Ok(Self {
            lifetime_secs,
            lifetime_secs_min: LEAF_LIFETIME_SECS_MIN,
            lifetime_secs_max: LEAF_LIFETIME_SECS_MAX,
            backdate_secs: BACKDATE_SECS,
        })
    }

    /// Issuers of [`ISSUER_LIFETIME_SECS`]; at the end of the root's life shorter ones, but at least a day.
    pub const fn issuer() -> Self {
        Self {
            lifetime_secs: ISSUER_LIFETIME_SECS,
            lifetime_secs_min: LEAF_LIFETIME_SECS,
            lifetime_secs_max: ISSUER_LIFETIME_SECS,
            backdate_secs: BACKDATE_SECS,
        }
    }

    /// Issuers below a root that is used rarely, of `days`, 1 to [`CEREMONY_ISSUER_DAYS_MAX`]; at the end of the root's
    /// life shorter ones, but at least a day. `None` outside of that.
    pub fn issuer_of_days(days: u32) -> Option<Self> {
        let secs = u64::from(days) * 24 * 3_600;
        (1..=CEREMONY_ISSUER_DAYS_MAX)
            .contains(&days)
            .then_some(Self {
                lifetime_secs: secs,
                lifetime_secs_max: secs,
                ..Self::issuer()
            })
    }

    /// Roots of [`ROOT_LIFETIME_SECS`].
    pub const fn root() -> Self {
        Self {
            lifetime_secs: ROOT_LIFETIME_SECS,
            lifetime_secs_min: ROOT_LIFETIME_SECS,
            lifetime_secs_max: ROOT_LIFETIME_SECS,
            backdate_secs: BACKDATE_SECS,
        }
    }

    /// The same, which backdates by no more than `secs_max`; none changes nothing.
    pub fn backdated_by_at_most(self, secs_max: Option<u64>) -> Self {
        Self {
            backdate_secs: self.backdate_secs.min(secs_max.unwrap_or(u64::MAX)),
            ..self
        }
    }

    /// What this profile grants unless something else is asked for, seconds.
    pub fn lifetime_secs(&self) -> u64 {
        self.lifetime_secs
    }

    /// Longest validity that a certificate of this profile can have, backdating included, seconds.
    pub fn validity_secs_max(&self) -> u64 {
        self.lifetime_secs_max.saturating_add(self.backdate_secs)
    }

    /// Grants a validity: what was `requested` (or the default), within the profile and within `issuer` (none for a
    /// root, which signs itself).
    ///
    /// A wish beyond the bounds is clamped, never refused by surprise: the caller reads what it got. The backdating is
    /// at most a tenth of the lifetime, so that who renews at half of the *validity* does not find itself past it.
    ///
    /// # Errors
    /// [`ProfileError::IssuerEnds`], [`ProfileError::IssuerNotYet`].
    pub fn validity(
        &self,
        requested_secs: Option<u64>,
        issuer: Option<Validity>,
        now: Timestamp,
    ) -> Result<Validity, ProfileError> {
        let mut secs = requested_secs
            .unwrap_or(self.lifetime_secs)
            .clamp(self.lifetime_secs_min, self.lifetime_secs_max);
        let now = Timestamp::from_unix_secs(now.unix_secs());
        let backdate = self.backdate_secs.min(secs / 10);
        let mut not_before = now.plus_secs(-signed(backdate));
        if let Some(issuer) = issuer {
            if now < issuer.not_before {
                return Err(ProfileError::IssuerNotYet {
                    issuer_not_before: issuer.not_before,
                    now,
                });
            }
            secs = secs.min(
                now.secs_until(issuer.not_after)
                    .saturating_sub(ISSUER_MARGIN_SECS),
            );
            if secs < self.lifetime_secs_min {
                return Err(ProfileError::IssuerEnds {
                    issuer_not_after: issuer.not_after,
                    secs_min: self.lifetime_secs_min,
                });
            }
            not_before = not_before.max(issuer.not_before);
        }
        Ok(Validity {
            not_before,
            not_after: now.plus_secs(signed(secs)),
        })
    }
}

impl Validity {
    /// Seconds between its ends.
    pub fn secs(&self) -> u64 {
        self.not_before.secs_until(self.not_after)
    }

    /// Whether it lies within `outer`.
    pub fn is_within(&self, outer: &Self) -> bool {
        self.not_before >= outer.not_before && self.not_after <= outer.not_after
    }

    /// Whether `now` lies in it; the whole second of `notAfter` does.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.not_before <= now && now.unix_secs() <= self.not_after.unix_secs()
    }
}

fn signed(secs: u64) -> i64 {
    i64::try_from(secs).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_micros(1_795_260_000_750_000);

    fn issuer(secs_left: i64) -> Option<Validity> {
        Some(Validity {
            not_before: NOW.plus_secs(-100_000),
            not_after: Timestamp::from_unix_secs(NOW.unix_secs() + secs_left),
        })
    }

    #[test]
    fn a_day_backdated_by_five_minutes_is_the_default() {
        let got = Profile::leaf(LEAF_LIFETIME_SECS)
            .unwrap()
            .validity(None, issuer(400_000), NOW)
            .unwrap();
        assert_eq!(got.secs(), 86_400 + 300);
        assert_eq!(
            got.not_after,
            Timestamp::from_unix_secs(NOW.unix_secs() + 86_400)
        );
    }

    #[test]
    fn wishes_are_clamped_and_ten_years_are_not_granted() {
        let profile = Profile::leaf(3_600).unwrap();
        for (wish, granted) in [
            (Some(315_360_000), LEAF_LIFETIME_SECS_MAX),
            (Some(0), 10),
            (Some(60), 60),
            (None, 3_600),
            (Some(u64::MAX), LEAF_LIFETIME_SECS_MAX),
        ] {
            let got = profile.validity(wish, issuer(10_000_000), NOW).unwrap();
            assert_eq!(
                Timestamp::from_unix_secs(NOW.unix_secs()).secs_until(got.not_after),
                granted,
                "{wish:?}"
            );
        }
    }

    #[test]
    fn a_leaf_never_outlives_its_issuer() {
        let profile = Profile::leaf(86_400).unwrap();
        for left in 70..200 {
            let got = profile.validity(None, issuer(left), NOW).unwrap();
            assert!(got.is_within(&issuer(left).unwrap()), "{left}");
            assert_eq!(
                Timestamp::from_unix_secs(NOW.unix_secs()).secs_until(got.not_after),
                left as u64 - ISSUER_MARGIN_SECS
            );
        }
        for left in -5..70 {
            assert!(
                matches!(
                    profile.validity(None, issuer(left), NOW),
                    Err(ProfileError::IssuerEnds { .. })
                ),
                "{left}"
            );
        }
    }

    #[test]
    fn a_leaf_never_starts_before_its_issuer_and_a_clock_set_back_is_refused() {
        let young = Validity {
            not_before: NOW.plus_secs(-5),
            not_after: NOW.plus_secs(600_000),
        };
        let profile = Profile::leaf(86_400).unwrap();
        assert_eq!(
            profile.validity(None, Some(young), NOW).unwrap().not_before,
            young.not_before
        );
        assert!(matches!(
            profile.validity(None, Some(young), NOW.plus_secs(-60)),
            Err(ProfileError::IssuerNotYet { .. })
        ));
    }

    #[test]
    fn a_short_life_is_backdated_by_a_tenth_of_it() {
        for (secs, backdate) in [(10, 1), (60, 6), (3_600, 300), (86_400, 300)] {
            let got = Profile::leaf(secs)
                .unwrap()
                .validity(None, issuer(10_000_000), NOW)
                .unwrap();
            assert_eq!(got.secs(), secs + backdate);
        }
    }

    #[test]
    fn lifetimes_outside_the_bounds_are_refused() {
        for secs in [0, 9, LEAF_LIFETIME_SECS_MAX + 1, u64::MAX] {
            assert_eq!(Profile::leaf(secs), Err(ProfileError::Lifetime { secs }));
        }
    }

    #[test]
    fn the_last_second_belongs_to_the_validity() {
        let validity = Validity {
            not_before: Timestamp::from_unix_secs(10),
            not_after: Timestamp::from_unix_secs(20),
        };
        for (micros, holds) in [
            (9_999_999, false),
            (10_000_000, true),
            (20_999_999, true),
            (21_000_000, false),
        ] {
            assert_eq!(
                validity.holds(Timestamp::from_unix_micros(micros)),
                holds,
                "{micros}"
            );
        }
    }
}
