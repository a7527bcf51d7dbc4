//! A proxy that is told of changes has, each time it is told that it has all, one whole state that there was; whatever comes
//! meanwhile, however slowly it reads, and wherever its stream breaks.

use super::*;
use mesh_api::discovery::PodAddress;
use mesh_api::slices::{Receiver, Slices};
use mesh_policy_trials::random::Random;

/// Pods of one mesh: address and name.
fn mesh(pods: &[(u16, u8)]) -> Discovery {
    let pod = |(at, name): &(u16, u8)| PodAddress {
        ip: [10, 0, (at >> 8) as u8, *at as u8].into(),
        workload: format!("shop/{name}"),
        identity: None,
        proxy: None,
    };
    Discovery {
        pods: pods.iter().map(pod).collect(),
        ..Discovery::default()
    }
}

/// What a proxy has once all was read that there is to say.
fn read_on(teller: &mut Teller, receiver: &mut Receiver, current: &Arc<Sliced>) -> Option<Slices> {
    let mut whole = None;
    while let Some(message) = teller.next(current) {
        whole = receiver.take(&message).unwrap();
    }
    whole
}

fn fresh() -> (Teller, Receiver) {
    (
        Teller::New(vec![None; usize::from(SLICES)]),
        Receiver::new(Slices::default()),
    )
}

/// So many pods that a state takes several messages.
fn large(pods: u16, name: u8) -> Vec<(u16, u8)> {
    (0..pods).map(|at| (at, name)).collect()
}

#[test]
fn whoever_reads_however_slowly_has_always_a_state_that_there_was() {
    let (mut told, mut resumed, mut passed_by) = (0, 0, 0);
    for seed in 0..12 {
        let mut random = Random::new(seed).bytes(4_000).into_iter();
        let mut draw = move || random.next().unwrap_or(1);
        let mut pods = large(2_000, 0);
        let recent = Recent::default();
        let mut current = Sliced::of(mesh(&pods), None);
        let mut there_were = vec![current.digest];
        let (mut teller, mut receiver) = fresh();
        let mut last = (0, Slices::default());
        for _ in 0..400 {
            match draw() % 16 {
                // Something changes: pods go, come, or are others.
                0..4 => {
                    for _ in 0..draw() % 200 {
                        let at = usize::from(draw()) * 8 % pods.len();
                        match draw() % 3 {
                            0 if pods.len() > 500 => drop(pods.remove(at)),
                            _ => pods[at].1 = draw(),
                        }
                    }
                    current = Sliced::of(mesh(&pods), Some(&current));
                    recent.keep(&current);
                    there_were.push(current.digest);
                    // As if many had passed.
                    if draw().is_multiple_of(4) {
                        *recent.0.lock().unwrap() = VecDeque::from([Arc::clone(&current)]);
                        passed_by += 1;
                    }
                }
                // The stream breaks wherever it is.
                4 => {
                    let has = mesh_api::slices::read_digests(&last.1.has()).unwrap();
                    (teller, receiver) = (Teller::New(has), Receiver::new(last.1.clone()));
                    resumed += 1;
                }
                _ => {
                    let Some(message) = teller.next(&current) else {
                        continue;
                    };
                    let Some(whole) = receiver.take(&message).unwrap() else {
                        continue;
                    };
                    let known = there_were.iter().rposition(|was| was == whole.digest());
                    let known = known.expect("a state that there was");
                    assert!(known >= last.0, "{seed}: back to an older state");
                    last = (known, whole);
                    told += 1;
                }
            }
        }
        let whole = read_on(&mut teller, &mut receiver, &current).unwrap_or(last.1);
        assert_eq!(whole.discovery(), current.discovery(), "{seed}");
        assert_eq!(whole.digest(), Slices::from(mesh(&pods)).digest());
    }
    assert!(
        told > 100 && resumed > 40 && passed_by > 30,
        "{told} {resumed} {passed_by}"
    );
}

#[test]
fn a_state_is_encoded_once_for_all_and_what_stays_is_shared() {
    let pods = large(3_000, 0);
    let first = Sliced::of(mesh(&pods), None);
    let same = Sliced::of(mesh(&pods), Some(&first));
    assert!(Arc::ptr_eq(&first, &same), "nothing changed");
    let mut more = pods;
    more.push((9_000, 1));
    let second = Sliced::of(mesh(&more), Some(&first));
    let pairs = first.slices.iter().zip(&second.slices);
    let kept = pairs.filter(|(one, other)| match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    });
    assert_eq!(kept.count(), usize::from(SLICES) - 1);
    assert!(second.replaced_bytes < 1_000, "{}", second.replaced_bytes);

    let (mut one, mut other) = (fresh().0, fresh().0);
    let place = |teller: &mut Teller| teller.next(&second).unwrap().slices[0].json.as_ptr();
    assert_eq!(place(&mut one), place(&mut other));
}

#[test]
fn a_change_reaches_who_has_all_with_no_more_than_its_slices() {
    let (mut teller, mut receiver) = fresh();
    let mut pods = large(3_000, 0);
    let first = Sliced::of(mesh(&pods), None);
    let sizes = std::iter::from_fn(|| {
        let message = teller.next(&first)?;
        receiver.take(&message).unwrap();
        Some(message.slices.iter().map(|one| one.json.len()).sum())
    });
    let sizes: Vec<usize> = sizes.collect();
    assert!(sizes.len() > 3, "in several messages: {sizes:?}");
    assert!(
        sizes
            .iter()
            .all(|size| *size < DISCOVERY_MESSAGE_BYTES + 8_192)
    );

    pods[7].1 = 1;
    pods.pop();
    let second = Sliced::of(mesh(&pods), Some(&first));
    let message = teller.next(&second).unwrap();
    assert_eq!((message.slices.len(), message.digest.len()), (2, 32));
    let whole = receiver.take(&message).unwrap().unwrap();
    assert_eq!(whole.discovery(), second.discovery());
    assert!(teller.next(&second).is_none());

    // As does a stream that begins with what another one had.
    let has = mesh_api::slices::read_digests(&whole.has()).unwrap();
    let third = Sliced::of(mesh(&pods[1..]), Some(&second));
    let message = Teller::New(has.clone()).next(&third).unwrap();
    assert_eq!((message.slices.len(), message.digest.len()), (1, 32));
    // And if nothing changed it says that.
    let message = Teller::New(has).next(&second).unwrap();
    assert_eq!((message.slices.len(), message.digest.len()), (0, 32));
}

#[test]
fn an_empty_mesh_is_told_as_such() {
    let empty = Sliced::of(Discovery::default(), None);
    let (mut teller, mut receiver) = fresh();
    let whole = read_on(&mut teller, &mut receiver, &empty).expect("whole, and nothing in it");
    assert_eq!(whole.discovery(), Discovery::default());
    assert!(teller.next(&empty).is_none());
}

#[test]
fn who_does_not_read_keeps_no_states_alive() {
    let recent = Recent::default();
    let mut current = Sliced::of(mesh(&large(3_000, 0)), None);
    recent.keep(&current);
    let (mut teller, mut receiver) = fresh();
    receiver.take(&teller.next(&current).unwrap()).unwrap();
    let reading = Arc::downgrade(&current);
    for change in 1..=u8::try_from(RECENT_MAX).unwrap() {
        assert!(reading.upgrade().is_some(), "{change}");
        let mut pods = large(3_000, 0);
        pods[usize::from(change)].1 = change;
        current = Sliced::of(mesh(&pods), Some(&current));
        recent.keep(&current);
    }
    assert!(reading.upgrade().is_none());
    assert_eq!(recent.0.lock().unwrap().len(), RECENT_MAX);
    let whole = read_on(&mut teller, &mut receiver, &current).expect("the newest");
    assert_eq!(whole.discovery(), current.discovery());
}

#[test]
fn states_that_have_much_of_their_own_are_kept_for_less_long() {
    let recent = Recent::default();
    let mut current = Sliced::of(mesh(&large(40_000, 0)), None);
    recent.keep(&current);
    for change in 1..30 {
        current = Sliced::of(mesh(&large(40_000, change)), Some(&current));
        recent.keep(&current);
    }
    let kept = recent.0.lock().unwrap();
    let own: usize = kept.iter().skip(1).map(|state| state.replaced_bytes).sum();
    assert!(
        own <= RECENT_BYTES_MAX && kept.len() > 1,
        "{own} {}",
        kept.len()
    );
    assert!(Arc::ptr_eq(kept.back().unwrap(), &current));
}

#[test]
fn in_one_piece_it_is_the_same_and_zones_are_left_out_for_those_who_know_none() {
    let text = r#"{"services":[{"namespace":"shop","name":"cart","port":80,"protocol":"detect",
        "endpoints":[{"proxy":"10.0.0.7:15008","port":80,"identity":"spiffe://cluster.local/ns/shop/sa/cart","workload":"cart"}],
        "zones":[["east"]]}]}"#;
    let discovery: Discovery = serde_json::from_str(text).unwrap();
    let sliced = Sliced::of(discovery.clone(), None);
    let in_one_piece = InOnePiece::default();
    let read = |json: &Bytes| -> Discovery { serde_json::from_slice(json).unwrap() };
    assert_eq!(read(in_one_piece.whole(&sliced)), discovery);
    let mut older = discovery;
    older.services[0].zones.clear();
    assert_eq!(read(in_one_piece.zoneless(&sliced)), older);
}

#[test]
fn what_is_next_is_made_in_advance_in_the_forms_that_proxies_asked_for() {
    let (first, second) = (
        Sliced::of(mesh(&large(10, 0)), None),
        Sliced::of(mesh(&large(10, 1)), None),
    );
    for (whole, zoneless) in [(false, false), (true, false), (false, true), (true, true)] {
        let asked = InOnePiece::default();
        if whole {
            asked.whole(&first);
        }
        if zoneless {
            asked.zoneless(&first);
        }
        let next = asked.next(&second);
        let made = (next.whole.get().is_some(), next.zoneless.get().is_some());
        assert_eq!(made, (whole, zoneless));
        assert_eq!(*next.whole(&second), json(&second.discovery()));
    }
}

#[test]
fn what_is_gone_counts_as_what_the_state_before_keeps_alive() {
    let first = Sliced::of(mesh(&large(40_000, 0)), None);
    assert_eq!(first.replaced_bytes, 0, "nothing was before it");
    let all: usize = first
        .slices
        .iter()
        .flatten()
        .map(|one| one.json.len())
        .sum();
    let empty = Sliced::of(Discovery::default(), Some(&first));
    assert_eq!(empty.replaced_bytes, all);
    let again = Sliced::of(mesh(&large(40_000, 0)), Some(&empty));
    assert_eq!(again.replaced_bytes, 0, "nothing was there");
}
