//! Slices that travel come out as the discovery that they are of, or not at all.

use super::*;
use crate::discovery::Endpoint;
use proptest::prelude::*;
use std::collections::BTreeSet;

const ID: &str = "spiffe://cluster.local/ns/shop/sa/db";

fn service(name: &str, port: u16, pods: &[u8]) -> ServicePort {
    let text = format!(
        r#"{{"namespace":"shop","name":"{name}","port":{port},"protocol":"detect","endpoints":[]}}"#
    );
    let mut service: ServicePort = serde_json::from_str(&text).unwrap();
    let endpoint = |at: &u8| Endpoint {
        proxy: ([10, 0, 0, *at], 15_008).into(),
        port: 80,
        identity: SpiffeId::parse(ID).unwrap(),
        workload: format!("{name}-{at}"),
    };
    service.endpoints = pods.iter().map(endpoint).collect();
    service
}

fn pod(ip: &str, workload: &str, meshed: bool) -> PodAddress {
    PodAddress {
        ip: ip.parse().unwrap(),
        workload: workload.to_owned(),
        identity: meshed.then(|| SpiffeId::parse(ID).unwrap()),
        proxy: None,
    }
}

fn mesh() -> Discovery {
    Discovery {
        services: vec![
            service("cart", 80, &[1, 2]),
            service("cart", 81, &[1]),
            service("db", 5_432, &[7]),
        ],
        pods: vec![pod("10.0.0.1", "shop/cart-1", true)],
        zone: None,
    }
}

/// The messages that make `to` of `from`, as a controller says them: a few slices in each.
fn news(from: &Slices, to: &Discovery, in_each: usize) -> Vec<DiscoveryUpdate> {
    let had = read_digests(&from.has()).unwrap();
    let is = Slice::all_of(to.clone());
    let is: Vec<Option<Encoded>> = is.iter().map(Encoded::of).collect();
    let all = (0..).zip(is.iter().zip(&had));
    let changed: Vec<DiscoverySlice> = all
        .filter(|(_, (is, had))| is.as_ref().map(|is| is.digest) != **had)
        .map(|(number, (is, _))| DiscoverySlice {
            number,
            json: is.as_ref().map_or_else(Bytes::new, |is| is.json.clone()),
        })
        .collect();
    let mut messages: Vec<DiscoveryUpdate> = changed
        .chunks(in_each)
        .map(|some| DiscoveryUpdate {
            slices: some.to_vec(),
            digest: Vec::new(),
        })
        .collect();
    let digest = digest_over(is.iter().map(|is| Some(&is.as_ref()?.digest)));
    messages.push(DiscoveryUpdate {
        slices: Vec::new(),
        digest: digest.to_vec(),
    });
    messages
}

fn one(number: u16, json: &[u8]) -> DiscoveryUpdate {
    DiscoveryUpdate {
        slices: vec![DiscoverySlice {
            number: number.into(),
            json: json.to_vec().into(),
        }],
        digest: Vec::new(),
    }
}

#[test]
fn ten_thousand_are_spread_over_all_slices() {
    let mut held = vec![0; usize::from(SLICES)];
    for at in 0..10_000_u32 {
        let ip = IpAddr::from([10, 0, (at / 250) as u8, (at % 250) as u8]);
        held[usize::from(slice_of_address(ip))] += 1;
    }
    assert!(held.iter().all(|held| *held < 40), "{held:?}");
    let names: BTreeSet<u16> = (0..10_000)
        .map(|at| slice_of_service("shop", &format!("app-{at}")))
        .collect();
    assert_eq!(names.len(), usize::from(SLICES));
    assert_ne!(slice_of_service("a", "bc"), slice_of_service("ab", "c"));
    let mapped = slice_of_address("::ffff:10.0.0.1".parse().unwrap());
    assert_eq!(mapped, slice_of_address("10.0.0.1".parse().unwrap()));
}

#[test]
fn what_is_looked_up_is_what_was_said() {
    let mut mesh = mesh();
    for (first, second) in [
        ("10.0.0.8", "::ffff:10.0.0.8"),
        ("::ffff:10.0.0.9", "10.0.0.9"),
    ] {
        mesh.pods.push(pod(first, "shop/old", false));
        mesh.pods.push(pod(second, "shop/new", true));
    }
    mesh.pods.push(pod("10.0.0.10", "shop/out", false));
    let slices = Slices::from(mesh.clone());
    assert_eq!(slices.service("shop", "cart", 81), Some(&mesh.services[1]));
    assert_eq!(slices.service("shop", "cart", 82), None);
    assert_eq!(slices.service("evil", "cart", 81), None);
    let at = |ip: &str| Some(&*slices.pod(ip.parse().unwrap())?.workload);
    assert_eq!(at("10.0.0.1"), Some("shop/cart-1"));
    assert_eq!(at("10.0.0.8"), Some("shop/new"), "the one in the mesh");
    assert_eq!(at("10.0.0.9"), Some("shop/new"), "the one in the mesh");
    assert_eq!(at("10.0.0.10"), Some("shop/out"));
    assert_eq!(at("10.0.0.2"), None);
    mesh.pods
        .sort_by(|a, b| (a.ip, &a.workload).cmp(&(b.ip, &b.workload)));
    assert_eq!(slices.discovery(), mesh);
}

#[test]
fn what_is_looked_up_in_a_slice_of_many_is_what_was_said_last_or_is_in_the_mesh() {
    // All ports of a Service are in one slice; they come in no order, some of them twice.
    let ports: Vec<u16> = (0..400_u32).map(|at| (at * 263 % 379) as u16 + 1).collect();
    let pods = |at: usize| [(at % 250) as u8];
    let said = (0..).zip(&ports);
    let services: Vec<ServicePort> = said
        .map(|(at, port)| service("cart", *port, &pods(at)))
        .collect();
    let slices = Slices::from(Discovery {
        services: services.clone(),
        ..Discovery::default()
    });
    for port in 0..400 {
        let last = services.iter().rev().find(|one| one.port == port);
        assert_eq!(slices.service("shop", "cart", port), last, "{port}");
    }
    for (namespace, name) in [
        ("shop", "car"),
        ("shop", "carts"),
        ("a", "cart"),
        ("z", "cart"),
    ] {
        assert_eq!(slices.service(namespace, name, 7), None);
    }
}

#[test]
fn who_begins_anew_keeps_nothing_twice_and_nothing_that_was_not_said() {
    let in_force = Slices::from(mesh());
    let mut other = mesh();
    other.services.remove(2);
    other.pods.push(pod("10.0.0.2", "shop/cart-2", true));
    let mut receiver = Receiver::anew(in_force.clone());
    let mut whole = None;
    for message in news(&Slices::default(), &other, 2) {
        whole = receiver.take(&message).unwrap();
    }
    let whole = whole.expect("whole");
    assert_eq!(whole.digest(), Slices::from(other.clone()).digest());
    assert_eq!(whole.service("shop", "db", 5_432), None, "it was not said");
    let shared = in_force.all.iter().zip(&whole.all);
    let shared = shared.filter(|(had, has)| match (had, has) {
        (Some(had), Some(has)) => Arc::ptr_eq(had, has),
        _ => false,
    });
    assert_eq!(shared.count(), 2, "cart and the first pod");
    assert!(receiver.pool.is_none(), "what was in force is let go");
    let said = one(slice_of_service("shop", "cart") ^ 1, b"{");
    let refused = Receiver::anew(in_force).take(&said);
    assert!(refused.is_err(), "what is not there is read");
}

#[test]
fn equal_identities_are_one_in_memory() {
    let slices = Slices::from(mesh());
    let ids = slices.services().flat_map(|service| &service.endpoints);
    let places: BTreeSet<_> = ids.map(|one| one.identity.as_str().as_ptr()).collect();
    assert_eq!(places.len(), 1);
}

#[test]
fn a_request_says_one_digest_for_each_slice_or_none() {
    let slices = Slices::from(mesh());
    let has = slices.has();
    let read = read_digests(&has).unwrap();
    let cart = usize::from(slice_of_service("shop", "cart"));
    assert!(read[cart].is_some());
    let full = slices.all.iter().flatten().count();
    assert_eq!(read.iter().flatten().count(), full);
    assert_eq!(Slices::default().has(), b"");
    assert_eq!(read_digests(b"").unwrap(), [None; SLICES as usize]);
    for bad in [
        &has[1..],
        &has[32..],
        &[0][..],
        &[&has[..], &[0; 32]].concat(),
    ] {
        assert_eq!(read_digests(bad), None, "{} octets", bad.len());
    }
}

#[test]
fn nothing_is_whole_before_the_digest_not_even_an_empty_mesh() {
    let mut receiver = Receiver::new(Slices::default());
    let empty = news(&Slices::default(), &Discovery::default(), 1);
    assert_eq!(empty.len(), 1);
    let whole = receiver.take(&empty[0]).unwrap().expect("whole");
    assert_eq!(whole.discovery(), Discovery::default());

    let all = news(&whole, &mesh(), 1);
    let (last, first) = all.split_last().unwrap();
    assert!(first.len() > 1);
    for message in first {
        assert!(receiver.take(message).unwrap().is_none());
    }
    let whole = receiver.take(last).unwrap().expect("whole");
    assert_eq!(whole.discovery(), mesh());

    // A service that goes needs no more than its slice.
    let mut less = mesh();
    less.services.remove(2);
    let gone = news(&whole, &less, 1);
    assert_eq!((gone.len(), gone[0].slices[0].json.len()), (2, 0));
    assert!(receiver.take(&gone[0]).unwrap().is_none());
    let whole = receiver.take(&gone[1]).unwrap().expect("whole");
    assert_eq!(whole.service("shop", "db", 5_432), None);
}

#[test]
fn what_is_lost_doubled_or_of_another_state_is_refused() {
    let before = Slices::from(mesh());
    let mut after = mesh();
    after.services[0].port = 8_080;
    after.services[2].port = 3_306;
    let all = news(&before, &after, 1);
    assert_eq!(all.len(), 3);
    let outcome = |whole: &Slices, which: &[usize]| -> Result<Option<Discovery>, SliceError> {
        let mut receiver = Receiver::new(whole.clone());
        let mut last = None;
        for at in which {
            last = receiver.take(&all[*at])?;
        }
        Ok(last.map(|whole| whole.discovery()))
    };
    for (what, whole, which) in [
        ("the first is lost", &before, &[1, 2][..]),
        ("the second is lost", &before, &[0, 2]),
        ("only the digest", &before, &[2]),
        ("the digest comes too soon", &before, &[0, 2, 1]),
        ("nothing was there before", &Slices::default(), &[0, 1, 2]),
    ] {
        let refused = outcome(whole, which);
        let digest = matches!(refused, Err(SliceError::Digest));
        assert!(digest, "{what}: {refused:?}");
    }
    let sorted = joined(Slice::all_of(after).into_iter());
    for which in [&[0, 1, 2][..], &[1, 0, 2], &[0, 0, 1, 2]] {
        assert_eq!(outcome(&before, which).unwrap(), Some(sorted.clone()));
    }
    assert_eq!(before.discovery(), mesh(), "whatever came");
}

#[test]
fn what_cannot_be_read_or_belongs_elsewhere_is_refused() {
    let cart = slice_of_service("shop", "cart");
    let json = Encoded::of(&Slice {
        services: vec![service("cart", 80, &[1])],
        pods: Vec::new(),
    });
    let json = json.unwrap().json;
    Slice::read(cart, &json).expect("where it belongs");
    let at = slice_of_address("10.0.0.1".parse().unwrap());
    let newer = br#"{"pods":[{"ip":"10.0.0.1","workload":"a/b","plaintext":true}]}"#;
    let misplaced = br#"{"pods":[{"ip":"10.0.0.1","workload":"a/b"}]}"#;
    for (message, want) in [
        (one(SLICES, &json), "there is no slice 1024"),
        (one(cart, &json[1..]), "cannot be read"),
        (one(cart, &json[..json.len() - 1]), "cannot be read"),
        (one(cart, b"{\"nodes\":[]}"), "unknown field `nodes`"),
        (one(at, newer), "unknown field `plaintext`"),
        (one(cart ^ 1, &json), "`shop/cart` is in slice"),
        (one(at ^ 1, misplaced), "`10.0.0.1` is in slice"),
    ] {
        let refused = Receiver::new(Slices::default()).take(&message);
        let why = refused.expect_err(want).to_string();
        assert!(why.contains(want), "{why}");
    }
}

/// A mesh of few services and pods, so that states have much in common.
fn meshes() -> impl Strategy<Value = Discovery> {
    let services =
        prop::collection::btree_map(0..12_u8, prop::collection::vec(0..9_u8, 0..3), 0..9);
    let pods = prop::collection::btree_map(0..40_u8, any::<bool>(), 0..20);
    (services, pods).prop_map(|(services, pods)| Discovery {
        services: services
            .iter()
            .map(|(name, pods)| service(&format!("s{}", name / 2), u16::from(*name) + 1, pods))
            .collect(),
        pods: pods
            .iter()
            .map(|(at, meshed)| pod(&format!("10.0.0.{at}"), "shop/x", *meshed))
            .collect(),
        zone: None,
    })
}

proptest! {
    #[test]
    fn changes_one_after_the_other_come_to_the_whole(
        states in prop::collection::vec((meshes(), 1..5_usize), 1..12)
    ) {
        let mut whole = Slices::default();
        let mut receiver = Receiver::new(Slices::default());
        for (state, in_each) in states {
            let mut said = None;
            for message in news(&whole, &state, in_each) {
                prop_assert!(said.is_none(), "whole before the last message");
                said = receiver.take(&message).unwrap();
            }
            whole = said.expect("whole");
            let anew = Slices::from(state.clone());
            prop_assert_eq!(whole.digest(), anew.digest());
            prop_assert_eq!(whole.has(), anew.has());
            prop_assert_eq!(whole.discovery(), joined(Slice::all_of(state).into_iter()));
        }
    }
}
