//! A bundle is read whole or not at all, with the place of the first fault.

use super::*;
use crate::testing::{allowed, at, bundle, workload};

#[test]
fn what_is_written_is_read() {
    let bundle = bundle();
    let bytes = write(&bundle).expect("bytes");
    assert_eq!(read(&bytes).as_ref(), Ok(&bundle));
    assert_eq!(write(&bundle).expect("bytes"), bytes);
}

#[test]
fn every_flipped_byte_is_found_at_its_line_or_before() {
    let bytes = write(&bundle()).expect("bytes");
    for at in 0..bytes.len() {
        let line = bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        for flip in [0x01, 0x20, 0x80] {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            let error = read(&changed).expect_err("a change");
            let named = match error {
                BundleError::Form { line, .. } | BundleError::Altered { line } => line,
                BundleError::Version { .. } => 1,
                // A changed number in the head.
                BundleError::Lines { .. } if line == 1 => 1,
                error => panic!("byte {at}: {error}"),
            };
            // A line feed that comes or goes joins or splits the line.
            assert!(
                named.abs_diff(line) <= 1 || named == 1 && line == 1,
                "byte {at} of line {line}: named {named}"
            );
        }
    }
}

#[test]
fn lines_that_are_missing_moved_or_doubled_are_found() {
    let bytes = write(&bundle()).expect("bytes");
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    for at in 1..lines.len() {
        let mut fewer = lines.clone();
        fewer.remove(at);
        assert!(read(&fewer.concat()).is_err(), "without line {}", at + 1);
        let mut more = lines.clone();
        more.insert(at, lines[at]);
        assert!(read(&more.concat()).is_err(), "line {} twice", at + 1);
        if at + 1 < lines.len() {
            let mut moved = lines.clone();
            moved.swap(at, at + 1);
            assert_eq!(
                read(&moved.concat()),
                Err(BundleError::Altered { line: at + 1 })
            );
        }
    }
    for end in 0..bytes.len() {
        assert!(read(&bytes[..end]).is_err(), "the first {end} bytes");
    }
}

#[test]
fn another_version_is_refused_by_its_number() {
    let text = String::from_utf8(write(&bundle()).expect("bytes")).expect("text");
    let later = text.replacen("\"version\":2", "\"version\":3", 1);
    assert_eq!(
        read(later.as_bytes()),
        Err(BundleError::Version { found: 3 })
    );
    let other = text.replacen("audit-bundle", "audit-crate", 1);
    assert!(matches!(
        read(other.as_bytes()),
        Err(BundleError::Form { line: 1, .. })
    ));
}

#[test]
fn facts_that_cannot_be_are_neither_written_nor_read() {
    type Change = fn(&mut Bundle);
    let contradictions: [(&str, Change); 11] = [
        ("actions", |b| {
            let act = |secs| crate::bundle::Action {
                time: at(secs),
                kind: crate::bundle::ActionKind::Admin,
                action: "start".to_owned(),
                subject: "supervisor".to_owned(),
                by: "uid 0".to_owned(),
                detail: String::new(),
                until: None,
            };
            b.actions = vec![act(-1), act(-2)];
        }),
        ("no name of a namespace", |b| {
            b.traffic[0].namespace = "shop\u{1b}".to_owned()
        }),
        ("no name of a namespace", |b| {
            b.workloads[0].name = String::new()
        }),
        ("window", |b| b.scope.since = at(1)),
        ("default policy", |b| {
            b.scope.default_policy = "open".to_owned()
        }),
        ("not after the one before", |b| b.workloads.reverse()),
        ("not after the one before", |b| {
            b.workloads.push(workload("shop", "web"))
        }),
        ("more than all", |b| {
            b.workloads[0].allow_sample_ppm = 1_000_001
        }),
        ("counts nothing", |b| b.traffic[0].count = 0),
        ("not of the window", |b| b.traffic[0].last = Some(at(1))),
        ("no TLS", |b| {
            b.traffic.push(crate::bundle::Traffic {
                tls: false,
                ..allowed(1)
            })
        }),
    ];
    for (why, spoil) in contradictions {
        let mut bundle = bundle();
        spoil(&mut bundle);
        let error = write(&bundle).expect_err(why);
        assert!(
            matches!(error, BundleError::Contradiction { .. }) && error.to_string().contains(why),
            "{error}"
        );
    }
}

#[test]
fn unknown_fields_are_refused() {
    let text = String::from_utf8(write(&bundle()).expect("bytes")).expect("text");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    // Hashed again by somebody who knows how.
    let item = r#""kind":"workload","item":{"namespace":"a","name":"b","service_account":"c","meshed":true,"allow_sample_ppm":0,"more":1}"#;
    let before: Hash = HEXLOWER
        .decode(&lines[3].as_bytes()[9..73])
        .expect("hex")
        .try_into()
        .expect("a hash");
    let hash = HEXLOWER.encode(&next_hash(&before, item.as_bytes()));
    lines[4] = format!("{{\"hash\":\"{hash}\",{item}}}");
    let error = read((lines.join("\n") + "\n").as_bytes()).expect_err("a field");
    assert!(
        matches!(&error, BundleError::Form { line: 5, why } if why.contains("more")),
        "{error}"
    );
}
