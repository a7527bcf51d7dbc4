//! Lists that grow and shrink, lists that cannot be read, and chains that are in order and denied all the same.

use super::*;
use crate::forge::{self, Authority, HOUR, NOW, Template, sequence, tlv};
use crate::path::PathError;
use crate::{Svid, TrustBundles};
use std::sync::Arc;

const CART: &str = "spiffe://td/ns/shop/sa/cart";

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).expect("valid")
}

fn denying(entries: &[Denied]) -> Denials {
    let deny =
        |list: Denials, what: &Denied| list.deny(what.clone(), NOW, "a test").expect("valid");
    entries.iter().fold(Denials::default(), deny)
}

#[test]
fn each_change_has_a_number_and_what_changes_nothing_has_none() {
    let empty = Denials::default();
    assert!(empty.is_empty() && empty.generation() == 0);
    let cart = Denied::Identity(id(CART));
    let one = empty
        .deny(cart.clone(), NOW, "stolen\nlaptop")
        .expect("valid");
    assert_eq!((one.generation(), one.contains(&cart)), (1, true));
    assert_eq!(one.iter().next().expect("it").1.reason, "stolenlaptop");
    assert_eq!(one.allow(&Denied::Serial("5a".into())), None);
    let none = one.allow(&cart).expect("it was there");
    assert!(none.is_empty() && none.generation() == 2);
    assert_eq!(one.numbered(7).generation(), 7);
    assert_eq!(one.numbered(0), one, "a number never goes back");
}

#[test]
fn values_that_name_nothing_are_refused() {
    for bad in [
        Denied::Identity(id("spiffe://td")),
        Denied::Serial(String::new()),
        Denied::Serial("5A".into()),
        Denied::Serial("5".into()),
        Denied::Serial("5a".repeat(21)),
        Denied::Key("5a".into()),
        Denied::Key("5a".repeat(33)),
        Denied::Issuer("xy".into()),
        Denied::Issuer("5a".repeat(65)),
    ] {
        let got = Denials::default().deny(bad.clone(), NOW, "");
        assert!(
            matches!(got, Err(DenialError::Value { .. })),
            "{bad}: {got:?}"
        );
    }
}

#[test]
fn a_list_is_read_as_it_was_written_or_not_at_all() {
    let entries = [
        Denied::Identity(id(CART)),
        Denied::Serial("5a".into()),
        Denied::Key("5a".repeat(32)),
        Denied::Issuer("5a5b".into()),
    ];
    let list = denying(&entries);
    let text = list.to_json();
    assert_eq!(Denials::from_json(text.as_bytes()).expect("read"), list);
    for (from, to) in [
        ("\"generation\":4", "\"generation\":-1"),
        ("\"generation\":4", "\"generations\":6"),
        ("\"kind\":\"serial\"", "\"kind\":\"serials\""),
        ("\"value\":\"5a\"", "\"value\":\"5A\""),
        ("\"value\":\"5a\"", "\"value\":7"),
        ("spiffe://td/ns", "https://td/ns"),
        ("\"generation\":4", "\"generation\":4,\"generation\":7"),
    ] {
        let bad = text.replacen(from, to, 1);
        assert_ne!(bad, text, "{from}");
        assert!(Denials::from_json(bad.as_bytes()).is_err(), "{bad}");
    }
    for cut in 0..text.len() {
        assert!(
            Denials::from_json(&text.as_bytes()[..cut]).is_err(),
            "cut at {cut}"
        );
    }
    let entry = r#"{"kind":"serial","value":"5a","since":"2026-11-21T00:00:00Z","reason":""}"#;
    let twice = format!(r#"{{"generation":1,"entries":[{entry},{entry}]}}"#);
    assert!(Denials::from_json(twice.as_bytes()).is_err());
}

#[test]
fn a_list_has_a_largest_size() {
    let mut list = Denials::default();
    for n in 0..DENIALS_MAX {
        list.entries.insert(
            Denied::Serial(format!("{:08x}", n + 1)),
            Note {
                since: NOW,
                reason: String::new(),
            },
        );
    }
    let one_more = list.deny(Denied::Serial("ff".repeat(9)), NOW, "");
    assert_eq!(one_more, Err(DenialError::TooMany));
    let again = list.deny(Denied::Serial("00000001".into()), NOW, "a better reason");
    assert!(again.is_ok(), "an entry may be replaced");
    assert!(Denials::from_json(list.to_json().as_bytes()).is_ok());
}

/// A root, an issuer with a key identifier, and a leaf that names it.
struct World {
    bundles: TrustBundles,
    svid: Svid,
    key: forge::Key,
    issuer_key: String,
}

impl World {
    fn new() -> Self {
        let root = Authority::root("td");
        let issuer_id = [0x1d; 20];
        let issuer =
            Template::authority("issuer", "spiffe://td", -1).with(14, false, tlv(4, &issuer_id));
        let issuer = root.issue(&issuer);
        let names_issuer = sequence(&[tlv(0x80, &issuer_id)]);
        let key = forge::Key::p256();
        let leaf = Template::leaf(CART).with(35, false, names_issuer);
        let leaf = leaf.sign(&key, &issuer.name, &issuer.key);
        let issuer_key = hex(digest(&SHA256, &issuer.key.info()).as_ref());
        let svid = Svid::parse(vec![leaf, issuer.der]).expect("an SVID");
        Self {
            bundles: TrustBundles::from(root.bundle("td")),
            svid,
            key,
            issuer_key,
        }
    }

    fn verify(&self, denials: &Denials) -> Result<(), PathError> {
        let bundles = self.bundles.clone().with_denials(Arc::new(denials.clone()));
        bundles.verify(&self.svid, NOW).map(drop)
    }
}

#[test]
fn a_chain_in_order_is_denied_by_each_of_its_marks_and_by_no_other() {
    let world = World::new();
    let key = hex(digest(&SHA256, &world.key.info()).as_ref());
    assert_eq!(world.verify(&Denials::default()), Ok(()));
    for (entry, denied) in [
        (Denied::Identity(id(CART)), true),
        (Denied::Identity(id("spiffe://td/ns/shop/sa/web")), false),
        (
            Denied::Identity(id("spiffe://other/ns/shop/sa/cart")),
            false,
        ),
        (Denied::Serial("5a".repeat(16)), true),
        (Denied::Serial("5a".repeat(15)), false),
        (Denied::Key(key), true),
        (Denied::Key(world.issuer_key.clone()), true),
        (Denied::Key("5a".repeat(32)), false),
        (Denied::Issuer("1d".repeat(20)), true),
        (Denied::Issuer("1d".repeat(19)), false),
    ] {
        let list = denying(std::slice::from_ref(&entry));
        let got = world.verify(&list);
        match denied {
            true => assert!(
                matches!(&got, Err(PathError::Denied { by, .. }) if *by == entry),
                "{entry}: {got:?}"
            ),
            false => assert_eq!(got, Ok(()), "{entry}"),
        }
        let allowed = list.allow(&entry).expect("it was there");
        assert_eq!(world.verify(&allowed), Ok(()), "{entry} was allowed again");
    }
}

#[test]
fn a_holder_finds_out_that_its_own_chain_is_denied() {
    let world = World::new();
    let list = denying(&[Denied::Serial("5a".repeat(16))]);
    let by = list.denies_chain(&world.svid);
    assert_eq!(by, Some(Denied::Serial("5a".repeat(16))));
    assert_eq!(Denials::default().denies_chain(&world.svid), None);
}

#[test]
fn a_chain_that_is_not_in_order_is_refused_for_that_first() {
    let world = World::new();
    let list = denying(&[Denied::Identity(id(CART))]);
    let bundles = world.bundles.clone().with_denials(Arc::new(list));
    let late = bundles.verify(&world.svid, NOW.plus_secs(48 * HOUR));
    assert!(matches!(late, Err(PathError::Expired { .. })), "{late:?}");
}
