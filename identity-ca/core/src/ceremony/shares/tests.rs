//! Every choice of enough shares restores the secret; fewer, wrong and foreign ones do not.

use super::*;
use ring::rand::{SecureRandom, SystemRandom};

fn set(shares: u8, threshold: u8) -> Set {
    Set {
        id: [0x5d; SET_BYTES],
        domain: TrustDomain::parse("prod.example").unwrap(),
        root: [9; 32],
        shares,
        threshold,
    }
}

fn drawn() -> Secret {
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    SystemRandom::new().fill(&mut *secret).unwrap();
    secret
}

fn random(out: &mut [u8]) -> Result<(), CeremonyError> {
    SystemRandom::new().fill(out).unwrap();
    Ok(())
}

fn named(shares: &[Share]) -> Vec<(String, Share)> {
    let name = |share: &Share| (share.file_name(), share.clone());
    shares.iter().map(name).collect()
}

#[test]
fn every_choice_of_k_shares_restores_the_secret_for_all_small_k_and_n() {
    for shares in 2..=7u8 {
        for threshold in 2..=shares {
            let secret = drawn();
            let all = split(&secret, &set(shares, threshold), random).unwrap();
            for choice in 0u32..1 << shares {
                let chosen: Vec<_> = (0..shares)
                    .filter(|at| choice >> at & 1 == 1)
                    .map(|at| all[usize::from(at)].clone())
                    .collect();
                let restored = restore(&named(&chosen));
                if chosen.len() >= usize::from(threshold) {
                    assert_eq!(restored.unwrap(), secret, "{choice:b} of {shares}");
                } else {
                    assert!(matches!(restored, Err(CeremonyError::TooFew { .. })));
                }
            }
        }
    }
}

#[test]
fn the_largest_set_restores_its_secret_in_any_order() {
    let secret = drawn();
    let all = split(&secret, &set(SHARES_MAX, SHARES_MAX), random).unwrap();
    let mut backwards = named(&all);
    backwards.reverse();
    assert_eq!(restore(&backwards).unwrap(), secret);
}

#[test]
fn fewer_shares_fit_every_secret() {
    // One octet, two of two: for each value of one share and each secret there is exactly one coefficient.
    let mut seen = BTreeSet::new();
    for coefficient in 0..=u8::MAX {
        let fill = |out: &mut [u8]| {
            out.fill(coefficient);
            Ok(())
        };
        let all = split(&Zeroizing::new([0x42; 32]), &set(2, 2), fill).unwrap();
        seen.insert(all[0].value[0]);
    }
    assert_eq!(seen.len(), 256, "a share's octet is as likely as any other");
}

#[test]
fn numbers_that_make_no_shares_are_refused() {
    for (shares, threshold) in [(5, 0), (5, 1), (1, 1), (2, 3), (0, 0), (101, 3), (255, 255)] {
        let refused = split(&drawn(), &set(shares, threshold), random);
        assert!(
            matches!(refused, Err(CeremonyError::Numbers { .. })),
            "{shares} {threshold}"
        );
    }
}

#[test]
fn a_text_is_read_back_and_every_changed_bit_of_it_is_found() {
    let all = split(&drawn(), &set(3, 2), random).unwrap();
    let text = all[1].to_text();
    assert_eq!(Share::parse("s", text.as_bytes()).unwrap(), all[1]);
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut changed = text.as_bytes().to_vec();
            changed[at] ^= 1 << bit;
            // The end of a line may be written otherwise; what is read is then the same.
            match Share::parse("s", &changed) {
                Err(CeremonyError::Share { .. }) => {}
                Ok(share) => assert_eq!(share, all[1], "octet {at}, bit {bit}"),
                Err(other) => panic!("octet {at}, bit {bit}: {other}"),
            }
        }
    }
    for cut in 0..text.len() - 1 {
        assert!(Share::parse("s", &text.as_bytes()[..cut]).is_err(), "{cut}");
    }
    let windows = text.replace('\n', "\r\n");
    assert_eq!(Share::parse("s", windows.as_bytes()).unwrap(), all[1]);
    let more = format!("{}x\n", *text);
    assert!(Share::parse("s", more.as_bytes()).is_err());
}

#[test]
fn a_share_that_was_changed_and_summed_anew_does_not_agree_with_the_others() {
    let all = split(&drawn(), &set(5, 3), random).unwrap();
    let mut changed = named(&all[..4]);
    changed[1].1.value[7] ^= 1;
    assert!(matches!(
        restore(&changed),
        Err(CeremonyError::Share { .. })
    ));
}

#[test]
fn shares_of_another_set_and_the_same_share_twice_are_refused() {
    let secret = drawn();
    let ours = split(&secret, &set(3, 2), random).unwrap();
    let other = Set {
        id: [1; SET_BYTES],
        ..set(3, 2)
    };
    // The same secret, divided again.
    let theirs = split(&secret, &other, random).unwrap();
    let mixed = named(&[ours[0].clone(), theirs[1].clone()]);
    assert!(matches!(
        restore(&mixed),
        Err(CeremonyError::OtherSet { .. })
    ));
    let twice = named(&[ours[0].clone(), ours[0].clone()]);
    assert!(matches!(
        restore(&twice),
        Err(CeremonyError::SameShare { number: 1, .. })
    ));
    assert!(matches!(
        restore(&[]),
        Err(CeremonyError::TooFew { have: 0, .. })
    ));
}

#[test]
fn nothing_of_a_share_is_shown() {
    let all = split(&drawn(), &set(3, 2), random).unwrap();
    assert_eq!(format!("{:?}", all[0]), "Share(1 of 3)");
}
