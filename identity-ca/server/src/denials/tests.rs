//! A list that has no room for all that a denied node holds.

use super::*;
use crate::testing::{NOW, World};
use mesh_trust::limits::DENIALS_MAX;
use miette::Diagnostic;

#[test]
fn a_list_that_is_nearly_full_takes_what_it_has_room_for_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let one = Denials::default()
        .deny(Denied::Serial("0a".to_owned()), NOW, "a test")
        .unwrap();
    let mut list: serde_json::Value = serde_json::from_str(&one.to_json()).unwrap();
    let entries = list
        .as_object_mut()
        .unwrap()
        .values_mut()
        .find_map(|value| value.as_array_mut())
        .unwrap();
    let text = serde_json::to_string(&entries[0]).unwrap();
    let others = (0..DENIALS_MAX - 3)
        .map(|n| serde_json::from_str(&text.replace("\"0a\"", &format!("\"ff{n:06x}\""))).unwrap());
    entries.extend(others);
    let text = serde_json::to_vec(&list).unwrap();
    Store::new(dir.path()).write(FILE, &text).unwrap();
    let list = DenyList::open(dir.path(), World::at(NOW)).unwrap();
    assert_eq!(list.current().iter().count(), DENIALS_MAX - 2);
    let serial = |n: u8| format!("ee0{n}");
    let asked = |serials: &[u8]| {
        let serials = serials.iter().map(|n| (serial(*n), "node a: b".to_owned()));
        list.deny_serials(serials.collect())
    };
    let denied = |n: u8| list.current().contains(&Denied::Serial(serial(n)));
    let error = asked(&[1, 2, 3]).unwrap_err();
    assert_eq!(error.code().unwrap().to_string(), "MESH-0271");
    assert_eq!([1, 2, 3].map(denied), [true, true, false]);
    // Again: nothing is new but what finds no room, and the list stays as it is.
    let before = list.current();
    assert!(asked(&[1, 2, 3]).is_err());
    assert_eq!(before.generation(), list.current().generation());
    assert_eq!(asked(&[1, 2]).unwrap(), 0);
    let kept = DenyList::open(dir.path(), World::at(NOW)).unwrap();
    assert_eq!(*kept.current(), *before);
}
