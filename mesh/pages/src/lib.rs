//! Gives pages of the program's own file back to the kernel.
//!
//! What a program touches once, at its start, stays mapped, and counts as its memory as long as it lives: of a proxy at
//! rest that is two thirds. The kernel takes such pages back only when memory is short. Given back, they are mapped again
//! where they are touched, from the page cache, without reading the disk.
//!
//! This is the one crate of the mesh with `unsafe` code, and it has one line of it.

use std::io;
use std::ops::Range;
use std::path::Path;

/// Unmaps the pages of the executable that were only read. Threads may run meanwhile; they find everything as it was.
/// Returns the bytes of address space that this was done for.
///
/// # Errors
/// What the kernel says, also if it has no `/proc`; whatever was given back until then is.
pub fn give_back() -> io::Result<usize> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let mappings = std::fs::read_to_string("/proc/self/smaps")?;
    let mut bytes = 0;
    for range in only_read(&mappings, &program) {
        give_back_range(&range)?;
        bytes += range.len();
    }
    Ok(bytes)
}

#[expect(unsafe_code, reason = "there is no safe form of madvise")]
fn give_back_range(range: &Range<usize>) -> io::Result<()> {
    let start = std::ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: `range` is a whole mapping of this program's own file, private, not writable, and without a page that was
    // ever written (`only_read`). Such a mapping is never unmapped, so nothing else can have taken its place since it was
    // read; it is not writable, so no page of it can have been written since. MADV_DONTNEED forgets the pages, and the
    // next access maps the same bytes of the file again: no reference into it sees a change.
    match unsafe { libc::madvise(start, range.len(), libc::MADV_DONTNEED) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The mappings of `program` that nobody can write or ever wrote, as `/proc/PID/smaps` (proc(5)) lists them. What was
/// relocated and made read-only afterwards has anonymous pages, and is not among them.
fn only_read(smaps: &str, program: &Path) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut mapping = None;
    for line in smaps.lines() {
        if let Some(next) = Mapping::of(line) {
            mapping = Some(next).filter(|next| next.is_only_read_of(program));
        } else if let Some(amount) = line.strip_prefix("Anonymous:")
            && let Some(mapping) = mapping.take()
            && amount.trim() == "0 kB"
        {
            found.push(mapping.range);
        }
    }
    found
}

/// The first line of a mapping: `55e6-55ff r-xp 00000000 fe:00 42    /usr/bin/program`.
struct Mapping<'a> {
    range: Range<usize>,
    rights: &'a str,
    path: &'a str,
}

impl<'a> Mapping<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let mut words = line.splitn(6, ' ');
        let (start, end) = words.next()?.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        let rights = words.next()?;
        // Offset, device and inode come before the path.
        let path = words.nth(3).unwrap_or_default().trim_start();
        Some(Self {
            range,
            rights,
            path,
        })
    }

    fn is_only_read_of(&self, program: &Path) -> bool {
        matches!(self.rights, "r-xp" | "r--p") && Path::new(self.path) == program
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(head: &str, anonymous_kb: u32) -> String {
        format!("{head}\nSize: 8 kB\nRss: 8 kB\nAnonymous: {anonymous_kb:>8} kB\nVmFlags: rd ex\n")
    }

    #[test]
    fn what_was_written_or_can_be_or_is_of_others_is_kept() {
        let smaps = [
            mapping("10000-12000 r--p 00000000 fe:00 42       /bin/a program", 0),
            mapping("12000-14000 r-xp 00002000 fe:00 42       /bin/a program", 0),
            mapping("14000-16000 r--p 00004000 fe:00 42       /bin/a program", 8),
            mapping("16000-18000 rw-p 00006000 fe:00 42       /bin/a program", 0),
            mapping("18000-1a000 r-xs 00006000 fe:00 42       /bin/a program", 0),
            mapping("1a000-1c000 r-xp 00000000 fe:00 43       /lib/libc.so.6", 0),
            mapping("1c000-1e000 r-xp 00000000 fe:00 42       /bin/a", 0),
            mapping("1e000-20000 r--p 00000000 00:00 0 ", 0),
            mapping("20000-22000 r-xp 00000000 00:00 0        [vdso]", 0),
        ];
        let found = only_read(&smaps.concat(), Path::new("/bin/a program"));
        assert_eq!(found, [0x10000..0x12000, 0x12000..0x14000]);
    }

    #[test]
    fn lines_in_another_form_are_nobodys() {
        for head in [
            "",
            "10000 r-xp 00000000 fe:00 42 /bin/a",
            "10000-zz r-xp 00000000 fe:00 42 /bin/a",
            "10000-12000",
            "10000-12000 r-xp",
        ] {
            let smaps = mapping(head, 0);
            assert_eq!(only_read(&smaps, Path::new("/bin/a")), [], "{head}");
        }
        assert_eq!(only_read("Anonymous: 0 kB\n", Path::new("/bin/a")), []);
    }

    /// Bytes of this program's text that are mapped.
    fn mapped_text() -> usize {
        let program = std::fs::read_link("/proc/self/exe").unwrap();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = smaps.lines();
        lines
            .by_ref()
            .find(|line| {
                Mapping::of(line)
                    .is_some_and(|one| one.rights == "r-xp" && one.is_only_read_of(&program))
            })
            .unwrap();
        let mapped = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
        mapped.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    #[test]
    fn what_is_given_back_is_there_again_when_it_is_needed() {
        let before = mapped_text();
        // Looking needs pages too, and other tests run meanwhile: whatever is fetched again at once, not all is each time.
        let after = (0..50).map(|_| (give_back().unwrap(), mapped_text()));
        let (bytes, after) = after.min_by_key(|(_, after)| *after).unwrap();
        assert!(
            bytes > 0 && after < before,
            "{bytes}: {before} to {after} kB"
        );
        // Code that is not in use runs as before, also in threads that ran all the time.
        let threads = (0..4).map(|number| {
            std::thread::spawn(move || {
                (0..100).fold(0, |sum, _| {
                    give_back().unwrap();
                    sum + format!("{number:>9}").trim().parse::<usize>().unwrap()
                })
            })
        });
        let sums: Vec<usize> = threads.map(|thread| thread.join().unwrap()).collect();
        assert_eq!(sums.iter().sum::<usize>(), 600);
    }
}
