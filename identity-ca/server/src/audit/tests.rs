//! The copy of the issuance log: whole, whatever ends in between, and proved by a key of its own.

use super::*;
use crate::issuing::Desk;
use crate::testing::{NOW, World, domain, signing};
use mesh_issuance::Profile;
use mesh_platform::log_files::LogFiles;
use mesh_tlog::VerifierKey;
use std::collections::BTreeMap;

fn desk(dir: &Path, world: &Arc<World>, copy: Option<LogCopy>) -> Desk {
    let profile = Profile::leaf(3_600).unwrap();
    let platform: Arc<dyn Platform> = world.clone();
    let signing = signing(dir).unwrap();
    Desk::open_with(dir, &domain(), profile, platform, (&signing, None, copy)).unwrap()
}

/// Lines of the copy by number, proved; and those of the issuance log.
fn both(dir: &Path) -> (BTreeMap<u64, String>, Vec<String>) {
    let key = std::fs::read_to_string(dir.join("issuance.pub")).unwrap();
    let key = VerifierKey::parse(key.trim()).unwrap();
    let files = LogFiles::open(&dir.join("issuance.jsonl")).unwrap();
    let mut copied = BTreeMap::new();
    files
        .walk(&key, Vec::new(), &mut |_, line| {
            if let Entry::Issuance(one) = Line::read(line).unwrap().entry {
                assert_eq!(copied.insert(one.line, one.text), None, "copied twice");
            }
        })
        .unwrap();
    let text = std::fs::read_to_string(dir.join(LOG_FILE)).unwrap();
    (copied, text.lines().map(str::to_owned).collect())
}

fn assert_whole(dir: &Path) {
    let (copied, issued) = both(dir);
    let numbered: BTreeMap<u64, String> = (1..).zip(issued).collect();
    assert!(numbered.len() > 2);
    assert_eq!(copied, numbered);
}

#[test]
fn every_line_is_copied_also_those_of_a_time_without_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    drop(desk(dir.path(), &world, None));
    let open_copy = || open(dir.path(), world.clone()).unwrap();
    let (log, copy) = open_copy();
    let mut ca = desk(dir.path(), &world, Some(copy));
    ca.recorder.flush().unwrap();
    drop((ca, log));
    assert_whole(dir.path());
    // Again without, and again with.
    drop(desk(dir.path(), &world, None));
    let (log, copy) = open_copy();
    drop((desk(dir.path(), &world, Some(copy)), log));
    assert_whole(dir.path());
}

#[test]
fn more_lines_than_the_queue_holds_are_copied_in_turns() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::at(NOW);
    let mut ca = desk(dir.path(), &world, None);
    for _ in 0..mesh_platform::audit_log::QUEUE_ENTRIES_MAX + 10 {
        ca.recorder.start(&domain(), NOW).unwrap();
    }
    drop(ca);
    let (log, copy) = open(dir.path(), world.clone()).unwrap();
    drop((desk(dir.path(), &world, Some(copy)), log));
    assert_whole(dir.path());
}

#[test]
fn what_an_operator_asked_is_recorded_with_who_and_what_came_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (log, copy) = open(dir.path(), World::at(NOW)).unwrap();
    record(&copy, "rotate", "uid 7 (pid 8)", "refused: no".to_owned());
    drop(log);
    let files = LogFiles::open(&dir.path().join("issuance.jsonl")).unwrap();
    let key = std::fs::read_to_string(dir.path().join("issuance.pub")).unwrap();
    let key = VerifierKey::parse(key.trim()).unwrap();
    let mut found = Vec::new();
    files
        .walk(&key, Vec::new(), &mut |_, line| {
            if let Entry::Trust(action) = Line::read(line).unwrap().entry {
                found.push((action.action, action.by, action.detail));
            }
        })
        .unwrap();
    let text = |text: &str| text.to_owned();
    assert_eq!(
        found,
        [(text("rotate"), text("uid 7 (pid 8)"), text("refused: no"))]
    );
}
