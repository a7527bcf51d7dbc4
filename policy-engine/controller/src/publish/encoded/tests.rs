//! Joined, pieces are the text that was cut, whatever it is; and what can be in common is.

use super::*;
use mesh_policy_trials::random::Random;

fn cut(text: &str, known: &mut Pieces) -> Encoded {
    let cut = Encoded::cut(text.as_bytes(), known);
    assert_eq!(cut.json(), text.as_bytes());
    assert_eq!(cut.len(), text.len());
    cut
}

fn large(byte: char) -> String {
    byte.to_string().repeat(FIELD_BYTES_MIN)
}

fn texts(encoded: &Encoded) -> Vec<String> {
    let text = |piece: &Arc<[u8]>| String::from_utf8(piece.to_vec()).unwrap();
    encoded.pieces().iter().map(text).collect()
}

#[test]
fn large_fields_are_pieces_and_what_stands_between_them_is_too() {
    let (a, b) = (large('a'), large('b'));
    let text = format!(r#"{{"small":1,"a":"{a}","b":["{b}"],"end":{{}}}}"#);
    let want = [
        r#"{"small":1"#.to_owned(),
        format!(r#","a":"{a}""#),
        format!(r#","b":["{b}"]"#),
        r#","end":{}}"#.to_owned(),
    ];
    assert_eq!(texts(&cut(&text, &mut Pieces::default())), want);
}

#[test]
fn the_fields_of_ports_are_pieces_and_elements_of_lists_are_not() {
    let (a, b) = (large('a'), large('b'));
    let text = format!(
        r#"{{"ports":{{"80":{{"server":{{"x":1}},"routes":[["{a}"],["{b}"]],"probes":[2]}},"81":{{"routes":["{a}"]}}}},"grants":["{a}","{b}"]}}"#
    );
    let want = [
        r#"{"ports":{"80":{"server":{"x":1}"#.to_owned(),
        format!(r#","routes":[["{a}"],["{b}"]]"#),
        r#","probes":[2]},"81":{"#.to_owned(),
        format!(r#""routes":["{a}"]"#),
        "}}".to_owned(),
        format!(r#","grants":["{a}","{b}"]"#),
        "}".to_owned(),
    ];
    assert_eq!(texts(&cut(&text, &mut Pieces::default())), want);
}

#[test]
fn what_looks_like_the_end_of_a_field_within_a_text_is_none() {
    let a = large('a');
    for inside in [
        r#"},"b":{"#.replace('"', r#"\""#),
        r"\\".to_owned(),
        r#"\\\","#.to_owned(),
        r#"\"ports\":{"#.to_owned(),
        "]]]]}}}},,,,".to_owned(),
    ] {
        let text = format!(r#"{{"x":1,"a":"{a}{inside}{a}","b":2}}"#);
        let found = texts(&cut(&text, &mut Pieces::default()));
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[1], format!(r#","a":"{a}{inside}{a}""#));
    }
}

#[test]
fn whatever_is_cut_nothing_is_lost() {
    let alphabet = b"{}[],\":\\ap";
    for seed in 0..2_000 {
        let random = Random::new(seed).bytes(4_000);
        let letters = random
            .iter()
            .map(|byte| alphabet[usize::from(*byte) % alphabet.len()]);
        let bytes: Vec<u8> = letters.take(seed as usize * 2).collect();
        let found = Encoded::cut(&bytes, &mut Pieces::default());
        assert_eq!(found.json(), bytes);
        assert!(found.pieces().iter().all(|piece| !piece.is_empty()));
    }
}

#[test]
fn equal_pieces_are_one_and_small_ones_cost_no_look_up() {
    let a = large('a');
    let mut known = Pieces::default();
    let one = cut(&format!(r#"{{"n":1,"a":"{a}","z":0}}"#), &mut known);
    let other = cut(&format!(r#"{{"n":2,"a":"{a}","z":0}}"#), &mut known);
    let shared = |at: usize| Arc::ptr_eq(&one.pieces()[at], &other.pieces()[at]);
    assert_eq!([0, 1, 2].map(shared), [false, true, false]);
    assert_eq!(known.count(), (1, 0));
    let names = || BTreeSet::from(["x".to_owned()]);
    assert!(Arc::ptr_eq(&known.names(names()), &known.names(names())));
}

#[test]
fn what_nobody_has_is_forgotten_and_what_is_needed_is_not() {
    let text = |byte| format!(r#"{{"n":1,"a":"{}"}}"#, large(byte));
    let mut before = Pieces::default();
    let kept = cut(&text('a'), &mut before);
    let gone = cut(&text('b'), &mut before);
    let names = before.names(BTreeSet::from(["x".to_owned()]));
    let mut after = before.clone();
    let new = cut(&text('c'), &mut after);
    drop(cut(&text('d'), &mut after));
    drop(gone);
    after.forget_unused(Some(&before));
    assert_eq!(after.count(), (2, 1), "those of `kept` and `new`");
    before = after;
    let mut after = before.clone();
    drop((new, names));
    after.forget_unused(Some(&before));
    drop(before);
    assert_eq!(after.count(), (1, 0));
    let again = cut(&text('a'), &mut after);
    assert!(Arc::ptr_eq(&kept.pieces()[1], &again.pieces()[1]));
}
