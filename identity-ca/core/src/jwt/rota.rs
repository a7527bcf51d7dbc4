//! Which key signs JWT-SVIDs when, which is published when, and when a key goes. The clock is an argument.
//!
//! ```text
//! published --a day later--> signs --successor signs--> published --no token of it left--> gone
//! ```
//! A key is published well before it signs, because verifiers look for new keys only every few minutes (rule F5), and
//! stays published until the last token that it signed is over. A CA that slept signs with the old key until the new
//! one has been published for its time: there is always one that signs.

use crate::limits::{
    JWT_KEY_GRACE_SECS, JWT_KEY_LIFE_SECS, JWT_KEY_PREPARE_SECS, JWT_KEYS_MAX,
    JWT_LIFETIME_SECS_MAX,
};
use mesh_trust::Timestamp;

/// A key, as far as its turn is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// When it came into the bundle.
    pub published: Timestamp,
    /// From when on it signs, until a later one does.
    pub signs: Timestamp,
    /// Whether its private half is still there.
    pub can_sign: bool,
}

/// What is to be done with the keys, by their place in the list that was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// A key is to be made and published, for this turn.
    pub make: Option<Turn>,
    /// Private halves to destroy: later keys sign.
    pub retire: Vec<usize>,
    /// Keys to take out of the bundle: no token of theirs counts any more.
    pub remove: Vec<usize>,
}

/// The place of the key that signs at `now`: the latest of those whose time has come and who still can.
pub fn signing(keys: &[Turn], now: Timestamp) -> Option<usize> {
    let begun = keys
        .iter()
        .enumerate()
        .filter(|(_, key)| key.can_sign && key.signs <= now);
    begun
        .max_by_key(|(place, key)| (key.signs, *place))
        .map(|(place, _)| place)
}

/// What is due at `now`.
pub fn due(keys: &[Turn], now: Timestamp) -> Due {
    let mut due = Due::default();
    let Some(current) = signing(keys, now) else {
        // The first start, or a clock set back before all of them: somebody must sign now.
        due.make = room(keys).then_some(Turn {
            published: now,
            signs: now,
            can_sign: true,
        });
        return due;
    };
    let current_signs = keys.get(current).map_or(now, |key| key.signs);
    let newest = keys.iter().map(|key| key.signs).max().unwrap_or(now);
    if newest.plus_secs(JWT_KEY_LIFE_SECS - JWT_KEY_PREPARE_SECS) <= now && room(keys) {
        due.make = Some(Turn {
            published: now,
            signs: now.plus_secs(JWT_KEY_PREPARE_SECS),
            can_sign: true,
        });
    }
    for (place, key) in keys.iter().enumerate() {
        if place == current || key.signs > current_signs {
            continue;
        }
        if key.can_sign {
            due.retire.push(place);
        }
        // Its tokens ended at the latest a token's life after the next key began to sign.
        let next = keys
            .iter()
            .map(|other| other.signs)
            .filter(|signs| *signs > key.signs)
            .min()
            .unwrap_or(current_signs);
        let last = i64::try_from(JWT_LIFETIME_SECS_MAX).unwrap_or(0) + JWT_KEY_GRACE_SECS;
        if next.plus_secs(last) <= now {
            due.remove.push(place);
        }
    }
    due
}

fn room(keys: &[Turn]) -> bool {
    keys.len() < JWT_KEYS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_secs(1_795_260_000);
    const HOUR: i64 = 3_600;
    const DAY: i64 = 24 * HOUR;

    /// The keys of a CA, kept as [`due`] says.
    #[derive(Default)]
    struct Ring(Vec<(u32, Turn)>, u32);

    impl Ring {
        fn turns(&self) -> Vec<Turn> {
            self.0.iter().map(|(_, turn)| *turn).collect()
        }

        fn keep(&mut self, now: Timestamp) {
            let due = due(&self.turns(), now);
            for place in &due.retire {
                self.0[*place].1.can_sign = false;
            }
            let mut place = 0;
            self.0.retain(|_| {
                place += 1;
                !due.remove.contains(&(place - 1))
            });
            if let Some(turn) = due.make {
                self.1 += 1;
                self.0.push((self.1, turn));
            }
        }

        fn signer(&self, now: Timestamp) -> u32 {
            self.0[signing(&self.turns(), now).expect("somebody signs")].0
        }
    }

    #[test]
    fn in_a_year_of_upkeep_somebody_always_signs_and_every_token_is_verifiable_to_its_end() {
        let (mut ring, mut now) = (Ring::default(), NOW);
        let mut tokens: Vec<(u32, Timestamp)> = Vec::new();
        while now < NOW.plus_secs(365 * DAY) {
            ring.keep(now);
            let signer = ring.signer(now);
            tokens.push((signer, now.plus_secs(300)));
            tokens.retain(|(_, end)| *end >= now);
            for (name, _) in &tokens {
                assert!(
                    ring.0.iter().any(|(known, ..)| known == name),
                    "{name} at {now}"
                );
            }
            assert!((1..=3).contains(&ring.0.len()), "{}", ring.0.len());
            now = now.plus_secs(61);
        }
        assert!((52..=70).contains(&ring.1), "{} keys in a year", ring.1);
    }

    #[test]
    fn a_key_is_published_a_day_before_it_signs_but_for_the_first() {
        let (mut ring, mut now) = (Ring::default(), NOW);
        let mut seen = 0;
        while now < NOW.plus_secs(40 * DAY) {
            ring.keep(now);
            let signer = ring.signer(now);
            if signer != seen {
                let (_, turn) = ring.0.iter().find(|(name, _)| *name == signer).expect("it");
                let wait = turn.published.secs_until(now);
                assert!(
                    signer == 1 || wait >= JWT_KEY_PREPARE_SECS as u64,
                    "{signer}: {wait} s"
                );
                seen = signer;
            }
            now = now.plus_secs(30);
        }
        assert!(seen >= 5);
    }

    #[test]
    fn a_ca_that_slept_for_a_month_signs_at_once_and_still_publishes_first() {
        let mut ring = Ring::default();
        ring.keep(NOW);
        let later = NOW.plus_secs(30 * DAY);
        ring.keep(later);
        assert_eq!(ring.signer(later), 1, "the old key goes on");
        ring.keep(later.plus_secs(DAY - 1));
        assert_eq!(ring.signer(later.plus_secs(DAY - 1)), 1);
        ring.keep(later.plus_secs(DAY));
        assert_eq!(ring.signer(later.plus_secs(DAY)), 2);
        assert_eq!(ring.0.len(), 2, "the old one is published on");
        ring.keep(later.plus_secs(DAY + 2 * HOUR));
        assert_eq!(ring.0.len(), 1);
    }

    #[test]
    fn a_clock_that_jumps_back_and_forth_makes_few_keys_and_leaves_one_that_signs() {
        let mut ring = Ring::default();
        for round in 0..100 {
            let now = NOW.plus_secs(if round % 2 == 0 {
                -round * DAY
            } else {
                round * HOUR
            });
            ring.keep(now);
            let again = due(&ring.turns(), now);
            assert!(ring.0.len() <= JWT_KEYS_MAX && again.retire.is_empty());
        }
        // Whatever happened, an hour of steady time later there is one that signs.
        let end = NOW.plus_secs(200 * DAY);
        ring.keep(end);
        ring.keep(end.plus_secs(HOUR));
        ring.signer(end.plus_secs(HOUR));
    }

    #[test]
    fn nothing_is_due_twice() {
        let keys = [Turn {
            published: NOW,
            signs: NOW,
            can_sign: true,
        }];
        assert_eq!(due(&keys, NOW), Due::default());
        let near = NOW.plus_secs(JWT_KEY_LIFE_SECS - JWT_KEY_PREPARE_SECS);
        let next = due(&keys, near).make.expect("the next");
        assert_eq!(due(&[keys[0], next], near), Due::default());
    }
}
