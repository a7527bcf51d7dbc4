//! Sealed files that are changed, cut, renamed, put back or opened with another key, and disks that stop half-way.

use super::*;
use miette::Diagnostic;

const LIMIT: u64 = 4096;
const KEYS: [&[u8; 32]; 2] = [
    b"0123456789abcdef0123456789abcdef",
    b"0123456789abcdef0123456789abcdeF",
];

struct Folder {
    _top: tempfile::TempDir,
    dir: PathBuf,
    keys: [SealKey; 2],
}

fn folder() -> Folder {
    let top = tempfile::tempdir().unwrap();
    let keys = [0, 1].map(|n| {
        let path = top.path().join(format!("key{n}"));
        files::write_atomic(&path, KEYS[n], 0o600).unwrap();
        SealKey::File(path)
    });
    let dir = top.path().join("node");
    files::create_dir_private(&dir).unwrap();
    Folder {
        dir,
        keys,
        _top: top,
    }
}

fn text(text: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text.as_bytes().to_vec())
}

fn code<T>(outcome: Result<T, SealError>) -> String {
    let error = outcome.err().expect("it is refused");
    error.code().expect("a code").to_string()
}

fn is(sealed: &Sealed, name: &str, want: &str) -> bool {
    sealed
        .read(name, LIMIT)
        .unwrap()
        .is_some_and(|text| *text == want.as_bytes())
}

#[test]
fn what_is_sealed_is_read_again_after_a_restart_and_no_two_files_are_alike() {
    let folder = folder();
    let sealed = Sealed::begin(&folder.dir, &folder.keys[0]).unwrap();
    for (name, content) in [
        ("a.sealed", "one"),
        ("svids/b.sealed", "two"),
        ("c.sealed", ""),
    ] {
        sealed.write(name, text(content)).unwrap();
        assert!(is(&sealed, name, content));
    }
    let first = files::read(&folder.dir.join("a.sealed")).unwrap();
    assert!(!first.windows(3).any(|part| part == b"one"));
    sealed.write("a.sealed", text("one")).unwrap();
    let second = files::read(&folder.dir.join("a.sealed")).unwrap();
    assert_ne!(first[HEAD_BYTES..], second[HEAD_BYTES..], "the nonce");
    let sealed = Sealed::open(&folder.dir, &folder.keys[0]).unwrap();
    assert!(is(&sealed, "a.sealed", "one") && is(&sealed, "svids/b.sealed", "two"));
    assert!(sealed.read("absent.sealed", LIMIT).unwrap().is_none());
}

#[test]
fn f7_every_changed_bit_and_every_cut_is_refused() {
    let folder = folder();
    let sealed = Sealed::begin(&folder.dir, &folder.keys[0]).unwrap();
    sealed.write("a.sealed", text("a short text")).unwrap();
    let path = folder.dir.join("a.sealed");
    let good = files::read(&path).unwrap();
    let refused = |bad: &[u8], what: String| {
        files::write_atomic(&path, bad, 0o600).unwrap();
        let code = code(sealed.read("a.sealed", LIMIT));
        assert!(code.starts_with("MESH-087"), "{what}: {code}");
    };
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        refused(&bad, format!("bit {bit}"));
    }
    for length in 0..good.len() {
        refused(&good[..length], format!("{length} octets"));
    }
    refused(&[&good[..], &[0]].concat(), "an octet more".to_owned());
    files::write_atomic(&path, &good, 0o600).unwrap();
    assert!(is(&sealed, "a.sealed", "a short text"));
}

#[test]
fn another_files_content_another_key_another_form_and_no_seal_have_codes_of_their_own() {
    let folder = folder();
    let sealed = Sealed::begin(&folder.dir, &folder.keys[0]).unwrap();
    sealed.write("svids/a.sealed", text("of a")).unwrap();
    sealed.write("svids/b.sealed", text("of b")).unwrap();
    let (a, b) = (
        folder.dir.join("svids/a.sealed"),
        folder.dir.join("svids/b.sealed"),
    );
    let good = files::read(&a).unwrap();
    files::write_atomic(&b, &good, 0o600).unwrap();
    assert_eq!(code(sealed.read("svids/b.sealed", LIMIT)), "MESH-0874");
    let mut next_form = good.clone();
    next_form[MAGIC.len()] = FORM + 1;
    files::write_atomic(&a, &next_form, 0o600).unwrap();
    assert_eq!(code(sealed.read("svids/a.sealed", LIMIT)), "MESH-0875");
    files::write_atomic(&a, b"{\"chain\":[],\"key\":\"\"}", 0o600).unwrap();
    assert_eq!(code(sealed.read("svids/a.sealed", LIMIT)), "MESH-0875");
    files::write_atomic(&a, &good, 0o644).unwrap();
    assert_eq!(code(sealed.read("svids/a.sealed", LIMIT)), "MESH-0232");
    files::write_atomic(&a, &good, 0o600).unwrap();
    assert_eq!(code(sealed.read("svids/a.sealed", 16)), "MESH-0806");
    assert_eq!(
        code(Sealed::open(&folder.dir, &folder.keys[1])),
        "MESH-0873"
    );
}

#[test]
fn a_file_that_is_put_back_is_refused_also_when_it_was_deleted_first() {
    let folder = folder();
    let sealed = Sealed::begin(&folder.dir, &folder.keys[0]).unwrap();
    let path = folder.dir.join("svids/a.sealed");
    sealed.write("svids/a.sealed", text("first")).unwrap();
    let first = files::read(&path).unwrap();
    sealed.write("svids/a.sealed", text("second")).unwrap();
    let second = files::read(&path).unwrap();
    files::write_atomic(&path, &first, 0o600).unwrap();
    assert_eq!(code(sealed.read("svids/a.sealed", LIMIT)), "MESH-0876");
    let sealed = Sealed::open(&folder.dir, &folder.keys[0]).unwrap();
    assert_eq!(code(sealed.read("svids/a.sealed", LIMIT)), "MESH-0876");
    // Gone, looked at, and back.
    files::remove(&path).unwrap();
    assert_eq!(sealed.inspect("svids", LIMIT, |_, _| true).unwrap(), 0);
    for file in [&first, &second] {
        files::write_atomic(&path, file, 0o600).unwrap();
        assert_eq!(code(sealed.read("svids/a.sealed", LIMIT)), "MESH-0876");
    }
}

#[test]
fn a_file_of_an_earlier_joining_is_refused_with_the_same_key_given() {
    let folder = folder();
    let path = folder.dir.join("a.sealed");
    let sealed = Sealed::begin(&folder.dir, &folder.keys[0]).unwrap();
    sealed
        .write("a.sealed", text("what is denied since"))
        .unwrap();
    let before = files::read(&path).unwrap();
    let sealed = Sealed::begin(&folder.dir, &folder.keys[0]).unwrap();
    files::write_atomic(&path, &before, 0o600).unwrap();
    assert_eq!(code(sealed.read("a.sealed", LIMIT)), "MESH-0873");
    sealed.write("a.sealed", text("new")).unwrap();
    let sealed = Sealed::open(&folder.dir, &folder.keys[0]).unwrap();
    assert!(is(&sealed, "a.sealed", "new"));
    files::write_atomic(&path, &before, 0o600).unwrap();
    assert_eq!(code(sealed.read("a.sealed", LIMIT)), "MESH-0873");
    // The secret in the folder is of no use without the key, nor the key without it.
    let machine = SealKey::Machine(Vec::new());
    assert_eq!(code(Sealed::open(&folder.dir, &machine)), "MESH-0871");
    files::remove(&folder.dir.join("seal.json")).unwrap();
    assert_eq!(
        code(Sealed::open(&folder.dir, &folder.keys[0])),
        "MESH-0871"
    );
    // And a machine that joined without a key does not go on with one.
    let sealed = Sealed::begin(&folder.dir, &machine).unwrap();
    sealed.write("a.sealed", text("new")).unwrap();
    assert_eq!(
        code(Sealed::open(&folder.dir, &folder.keys[0])),
        "MESH-0873"
    );
}

#[test]
fn a_list_of_versions_that_is_put_back_or_taken_away_is_given_away_by_the_other_files() {
    let folder = folder();
    let sealed = Sealed::begin(&folder.dir, &folder.keys[0]).unwrap();
    let list = folder.dir.join(VERSIONS);
    sealed.write("a.sealed", text("first")).unwrap();
    let first = files::read(&list).unwrap();
    sealed.write("a.sealed", text("second")).unwrap();
    sealed.write("a.sealed", text("third")).unwrap();
    files::write_atomic(&list, &first, 0o600).unwrap();
    let sealed = Sealed::open(&folder.dir, &folder.keys[0]).unwrap();
    assert_eq!(code(sealed.read("a.sealed", LIMIT)), "MESH-0876");
    files::remove(&list).unwrap();
    let sealed = Sealed::open(&folder.dir, &folder.keys[0]).unwrap();
    assert_eq!(code(sealed.read("a.sealed", LIMIT)), "MESH-0876");
}

#[test]
fn f5_a_power_cut_between_a_file_and_the_list_of_versions_loses_nothing() {
    let folder = folder();
    let sealed = Sealed::begin(&folder.dir, &folder.keys[0]).unwrap();
    let list = folder.dir.join(VERSIONS);
    // Before there is a list at all.
    sealed.write("a.sealed", text("first")).unwrap();
    let before = files::read(&list).unwrap();
    files::remove(&list).unwrap();
    let again = Sealed::open(&folder.dir, &folder.keys[0]).unwrap();
    assert!(is(&again, "a.sealed", "first"));
    // A file that is changed and one that is new, each ahead of the list.
    files::write_atomic(&list, &before, 0o600).unwrap();
    let sealed = Sealed::open(&folder.dir, &folder.keys[0]).unwrap();
    sealed.put("a.sealed", 2, text("second")).unwrap();
    sealed.put("svids/b.sealed", 2, text("new")).unwrap();
    let sealed = Sealed::open(&folder.dir, &folder.keys[0]).unwrap();
    assert!(is(&sealed, "a.sealed", "second") && is(&sealed, "svids/b.sealed", "new"));
    // Once looked at they are known, and stay good when others are written.
    assert_eq!(sealed.inspect("svids", LIMIT, |_, _| true).unwrap(), 1);
    sealed.write("c.sealed", text("other")).unwrap();
    sealed.write("c.sealed", text("other")).unwrap();
    let sealed = Sealed::open(&folder.dir, &folder.keys[0]).unwrap();
    assert!(is(&sealed, "a.sealed", "second") && is(&sealed, "svids/b.sealed", "new"));
}

#[test]
fn f6_a_list_that_cannot_be_written_costs_nothing_but_the_writing() {
    let folder = folder();
    let sealed = Sealed::begin(&folder.dir, &folder.keys[0]).unwrap();
    sealed.write("a.sealed", text("first")).unwrap();
    let list = folder.dir.join(VERSIONS);
    let kept = files::read(&list).unwrap();
    files::remove(&list).unwrap();
    fs::create_dir(&list).unwrap();
    for content in ["second", "third"] {
        assert!(sealed.write("a.sealed", text(content)).is_err());
        assert!(sealed.write("b.sealed", text(content)).is_err());
        assert!(is(&sealed, "a.sealed", content));
    }
    fs::remove_dir(&list).unwrap();
    files::write_atomic(&list, &kept, 0o600).unwrap();
    let restarted = Sealed::open(&folder.dir, &folder.keys[0]).unwrap();
    assert!(is(&restarted, "a.sealed", "third") && is(&restarted, "b.sealed", "third"));
    sealed.write("c.sealed", text("more")).unwrap();
    let restarted = Sealed::open(&folder.dir, &folder.keys[0]).unwrap();
    for (name, content) in [
        ("a.sealed", "third"),
        ("b.sealed", "third"),
        ("c.sealed", "more"),
    ] {
        assert!(is(&restarted, name, content), "{name}");
    }
}

#[test]
fn many_that_write_at_once_and_one_that_reads_see_whole_files_of_their_own() {
    let folder = folder();
    let sealed = Sealed::begin(&folder.dir, &folder.keys[0]).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let sealed = &sealed;
            scope.spawn(move || {
                for round in 0..20 {
                    let name = format!("svids/{}.sealed", (writer + round) % 5);
                    sealed.write(&name, text(&name)).unwrap();
                    assert!(is(sealed, &name, &name));
                }
            });
        }
    });
    let sealed = Sealed::open(&folder.dir, &folder.keys[0]).unwrap();
    let kept = sealed.inspect("svids", LIMIT, |name, text| name.as_bytes() == text);
    assert_eq!(kept.unwrap(), 5);
}

#[test]
fn looking_at_all_sets_the_bad_aside_removes_the_unwanted_and_keeps_the_rest() {
    let folder = folder();
    let sealed = Sealed::begin(&folder.dir, &folder.keys[0]).unwrap();
    for name in ["good", "ended", "bad"] {
        sealed
            .write(&format!("svids/{name}.sealed"), text(name))
            .unwrap();
    }
    let bad = folder.dir.join("svids/bad.sealed");
    files::write_atomic(&bad, b"MESHSEAL", 0o600).unwrap();
    files::write_atomic(&folder.dir.join("svids/other.txt"), b"x", 0o600).unwrap();
    let kept = sealed.inspect("svids", LIMIT, |_, text| text != b"ended");
    assert_eq!(kept.unwrap(), 1);
    let mut names: Vec<_> = fs::read_dir(folder.dir.join("svids"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["bad.refused", "good.sealed", "other.txt"]);
    // Who joins again begins anew, and removes nothing that is not the agent's.
    let others = [
        "registrations.json",
        "seal.json",
        "node.json",
        "node.sealed",
    ];
    for name in others {
        files::write_atomic(&folder.dir.join(name), b"x", 0o600).unwrap();
    }
    Sealed::begin(&folder.dir, &folder.keys[0]).unwrap();
    assert_eq!(fs::read_dir(folder.dir.join("svids")).unwrap().count(), 1);
    let left = others.map(|name| folder.dir.join(name).exists());
    assert_eq!(left, [true, true, false, false]);
    let secret = files::read(&folder.dir.join("seal.json")).unwrap();
    assert_ne!(secret, b"x", "another one");
}

#[test]
fn keys_that_are_none_are_refused() {
    let folder = folder();
    let top = folder.dir.parent().unwrap();
    let given = |name: &str, octets: &[u8], mode: u32| {
        let path = top.join(name);
        files::write_atomic(&path, octets, mode).unwrap();
        SealKey::File(path)
    };
    let good = KEYS[0].as_slice();
    for (key, what) in [
        (given("empty", b"", 0o600), "empty"),
        (given("short", &good[..31], 0o600), "an octet short"),
        (given("long", &[good, b"\n"].concat(), 0o600), "a line end"),
        (given("zeros", &[0; 32], 0o600), "zeros"),
        (given("open", good, 0o640), "others may read it"),
        (given("node/key", good, 0o600), "beside the files"),
    ] {
        assert_eq!(code(check(&folder.dir, &key)), "MESH-0871", "{what}");
        assert_eq!(
            code(Sealed::begin(&folder.dir, &key)),
            "MESH-0871",
            "{what}"
        );
    }
    let absent = SealKey::File(top.join("absent"));
    assert_eq!(code(check(&folder.dir, &absent)), "MESH-0803");
    let own = given("good", good, 0o400);
    check(&folder.dir, &own).unwrap();
    // Only root can give a file away.
    let SealKey::File(path) = &own else {
        unreachable!()
    };
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(4711), None).unwrap();
        assert_eq!(code(check(&folder.dir, &own)), "MESH-0871");
    }
    // systemd lets its service in by other means than the mode.
    assert_eq!(SealKey::credential(top), None);
    given("mesh-seal-key", good, 0o440);
    let credential = SealKey::credential(top).unwrap();
    check(&folder.dir, &credential).unwrap();
    Sealed::begin(&folder.dir, &credential).unwrap();
}

#[test]
fn a_machine_is_told_by_what_it_had_when_it_joined() {
    let folder = folder();
    let top = folder.dir.parent().unwrap();
    let id = top.join("machine-id");
    let machine = SealKey::Machine(vec![
        ("machine-id".to_owned(), id.clone()),
        ("product-uuid".to_owned(), top.join("absent")),
    ]);
    let set =
        |path: &Path, value: &str| files::write_atomic(path, value.as_bytes(), 0o644).unwrap();
    set(&id, "4711\n");
    let sealed = Sealed::begin(&folder.dir, &machine).unwrap();
    sealed.write("a.sealed", text("one")).unwrap();
    // What can be read later and could not then changes nothing.
    set(&top.join("absent"), "5512\n");
    assert!(is(
        &Sealed::open(&folder.dir, &machine).unwrap(),
        "a.sealed",
        "one"
    ));
    for (other, want) in [
        ("4712\n", "MESH-0873"),
        ("\n", "MESH-0872"),
        ("uninitialized\n", "MESH-0872"),
    ] {
        set(&id, other);
        assert_eq!(code(Sealed::open(&folder.dir, &machine)), want, "{other:?}");
    }
    files::remove(&id).unwrap();
    assert_eq!(code(Sealed::open(&folder.dir, &machine)), "MESH-0872");
    set(&id, "4711\n");
    let secret = folder.dir.join("seal.json");
    let good = files::read(&secret).unwrap();
    let good = String::from_utf8(good).unwrap();
    for (bad, want) in [
        (String::new(), "MESH-0871"),
        (good.replace("machine-id", "serial"), "MESH-0871"),
        (good.replace("\"machine-id\"", ""), "MESH-0873"),
        (
            good.replace("\"secret\":\"", "\"secret\":\"AAAA"),
            "MESH-0871",
        ),
    ] {
        files::write_atomic(&secret, bad.as_bytes(), 0o600).unwrap();
        assert_eq!(code(Sealed::open(&folder.dir, &machine)), want, "{bad}");
    }
    files::remove(&secret).unwrap();
    assert_eq!(code(Sealed::open(&folder.dir, &machine)), "MESH-0871");
    files::write_atomic(&secret, good.as_bytes(), 0o600).unwrap();
    assert!(is(
        &Sealed::open(&folder.dir, &machine).unwrap(),
        "a.sealed",
        "one"
    ));
}
