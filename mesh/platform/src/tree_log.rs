//! A log on disk: lines that only grow, the Merkle tree over them, and signed checkpoints.
//!
//! ```text
//! shop.cart.jsonl                    the segment that is written
//! shop.cart+000000065536.jsonl       closed segments, by the place of their first line
//! shop.cart.tlog/checkpoint          the newest checkpoint, a signed note
//! shop.cart.tlog/tile/…              hashes, as tlog-tiles lays them out; entries too, if asked for
//! shop.cart.tlog/sealed/…            the checkpoint at the end of each closed segment, by size
//! shop.cart.key, shop.cart.pub       the key that signs (0600), and its public half
//! ```
//! Order at a checkpoint: lines are flushed, tiles written, the checkpoint replaced. So a checkpoint never covers what a
//! power cut could take, and what a crash leaves behind it are lines, which are put into the tree when the log is opened.
//! A tree is never made shorter than what was signed: if lines are missing then, their hashes stay in it.
//!
//! Nothing here decides *when*; see [`crate::audit_log`] for a log with a thread of its own.

use crate::files::{self, AppendFile};
use crate::lock::LockFile;
use crate::log_files::{self, LogFiles};
use crate::tiles::TileDirectory;
use crate::{PlatformError, audit_log::AuditLogError};
use mesh_audits::line::{Encoded, Parts};
use mesh_tlog::checkpoint::{Checkpoint, TreeHead};
use mesh_tlog::note::{KeyType, SigningKey};
use mesh_tlog::tile::TILE_WIDTH;
use mesh_tlog::{Edge, Tile, bundle};
use mesh_trust::Timestamp;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Lines of a segment. At about 700 bytes each a segment has some 45 MB.
pub const SEGMENT_LINES: u64 = 65_536;

/// Bytes after which a segment is closed, however few lines it has.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// What a line of a checkpoint begins with that says when it was signed.
const TIME: &str = "time ";

/// Bytes of a bundle: 256 entries of the longest kind.
const BUNDLE_BYTES_MAX: u64 = 256 * (64 * 1024 + 2);

/// Bytes of the end of the file that are looked at first when a log is opened.
const TAIL_BYTES: u64 = 1 << 20;

/// Where a log is and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeLogConfig {
    /// Directory of logs, made with mode 0700.
    pub directory: PathBuf,
    /// Whose log: the stem of its files, and the name of its key. Letters, digits, `.`, `_` and `-` only.
    pub origin: String,
    /// Whether entries are written as bundles beside the hashes, for readers of tlog-tiles.
    pub bundles: bool,
}

impl TreeLogConfig {
    /// The segment that is written.
    pub fn lines_path(&self) -> PathBuf {
        self.path(".jsonl")
    }

    /// A closed segment.
    pub fn segment_path(&self, first: u64) -> PathBuf {
        self.path(&format!("+{first:012}.jsonl"))
    }

    /// Directory of hashes and checkpoints.
    pub fn tlog_path(&self) -> PathBuf {
        self.path(".tlog")
    }

    /// The newest signed checkpoint.
    pub fn checkpoint_path(&self) -> PathBuf {
        self.tlog_path().join("checkpoint")
    }

    /// The public key that checkpoints verify with.
    pub fn public_key_path(&self) -> PathBuf {
        self.path(".pub")
    }

    /// The private key, mode 0600.
    pub fn key_path(&self) -> PathBuf {
        self.path(".key")
    }

    fn sealed_path(&self, size: u64) -> PathBuf {
        self.tlog_path().join("sealed").join(format!("{size:012}"))
    }

    fn path(&self, ending: &str) -> PathBuf {
        // Not `with_extension`: an origin has dots.
        self.directory.join(format!("{}{ending}", self.origin))
    }
}

/// How much of a log is kept. Hashes and checkpoints are kept in any case: proofs of deleted lines, of which somebody has
/// a copy, hold for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Age of the last line of a segment beyond which it is deleted; none: never.
    pub age: Option<Duration>,
    /// Bytes of closed segments that are kept at most; none: all.
    pub bytes: Option<u64>,
}

/// What was found when a log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Bytes of unfinished lines at its end, which were cut off.
    pub torn_bytes: u64,
    /// The first line that is missing of those that a checkpoint covers.
    pub missing_from: Option<u64>,
    /// Whether what stood there was no log of this key and was moved aside.
    pub moved_aside: bool,
}

/// Segments whose time is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// Their first lines.
    pub segments: Vec<u64>,
    /// The last line of the last of them.
    pub through: u64,
    /// Whether they are too old; else there is too much of them.
    pub by_age: bool,
}

/// An open log, the only writer of it.
#[derive(Debug)]
pub struct TreeLog {
    config: TreeLogConfig,
    key: SigningKey,
    tiles: TileDirectory,
    file: AppendFile,
    edge: Edge,
    entries: Option<Entries>,
    /// Full tiles and bundles that are not on disk yet, by path.
    unwritten: Vec<(String, Vec<u8>)>,
    /// Size of the tree that the newest checkpoint covers.
    sealed: u64,
    /// First line of the segment that is written.
    segment_first: u64,
    _lock: LockFile,
}

/// The bundle that is being filled.
#[derive(Debug, Default)]
struct Entries(Vec<u8>);

impl TreeLog {
    /// Opens a log, or begins it.
    ///
    /// # Errors
    /// [`AuditLogError`]; a log that cannot be opened is the caller's decision: to run unrecorded is never ours.
    pub fn open(config: &TreeLogConfig, now: Timestamp) -> Result<(Self, Found), AuditLogError> {
        check_origin(&config.origin)?;
        files::create_dir_private(&config.directory)?;
        let lock = LockFile::acquire(&config.path(".lock"))?;
        let key = load_or_make_key(config)?;
        files::create_dir_private(&config.tlog_path().join("sealed"))?;
        let mut log = Self {
            tiles: TileDirectory::new(&config.tlog_path()),
            file: AppendFile::open(&config.lines_path(), 0o600)?,
            edge: Edge::default(),
            entries: config.bundles.then(Entries::default),
            unwritten: Vec::new(),
            sealed: 0,
            segment_first: 0,
            config: config.clone(),
            key,
            _lock: lock,
        };
        let mut found = Found::default();
        if !log.resume(&mut found)? {
            log.move_aside(now)?;
            found = Found {
                moved_aside: true,
                ..Found::default()
            };
        }
        Ok((log, found))
    }

    /// Lines ever written; the place of the next one.
    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    /// Lines that the newest checkpoint covers.
    pub fn sealed(&self) -> u64 {
        self.sealed
    }

    /// The segment that is written.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Appends lines, all or none. Not flushed: [`TreeLog::flush`] or [`TreeLog::seal`] does that.
    ///
    /// # Errors
    /// [`PlatformError`]; the log is then as it was.
    pub fn append(&mut self, lines: &[Encoded]) -> Result<(), PlatformError> {
        let bytes: Vec<&[u8]> = lines.iter().map(|line| line.bytes.as_slice()).collect();
        self.file.append(&bytes.concat())?;
        for line in lines {
            let entry = line.bytes.strip_suffix(b"\n").unwrap_or(&line.bytes);
            self.push(line.leaf, entry);
        }
        Ok(())
    }

    /// Flushes what was appended to the device.
    ///
    /// # Errors
    /// [`PlatformError`]: what was appended may be lost in a power cut.
    pub fn flush(&self) -> Result<(), PlatformError> {
        self.file.sync()
    }

    /// Flushes, writes the hashes, and signs a checkpoint over everything. Does nothing if nothing is new.
    ///
    /// # Errors
    /// [`PlatformError`]; the checkpoint before stays in force, and the next attempt does the same again.
    pub fn seal(&mut self, now: Timestamp) -> Result<(), PlatformError> {
        if self.sealed == self.size() && self.config.checkpoint_path().exists() {
            return Ok(());
        }
        self.file.sync()?;
        let note = self.checkpoint(now)?;
        for (path, bytes) in &self.unwritten {
            self.tiles.write(path, bytes)?;
        }
        self.unwritten.clear();
        for (tile, bytes) in self.edge.partial() {
            self.tiles.write(&tile.path(), &bytes)?;
        }
        if let (Some(entries), Some(tile)) = (&self.entries, last_tile(self.size())) {
            self.tiles.write(&tile.entries_path(), &entries.0)?;
        }
        files::write_atomic(&self.config.checkpoint_path(), note.as_bytes(), 0o600)?;
        self.forget_partials(self.sealed);
        self.sealed = self.size();
        Ok(())
    }

    /// Closes the segment if it is full, and begins the next one. Seals first.
    ///
    /// # Errors
    /// [`PlatformError`]; the segment then goes on.
    pub fn rotate_if_full(&mut self, now: Timestamp) -> Result<bool, PlatformError> {
        let full = self.size() - self.segment_first >= SEGMENT_LINES
            || self.file.length() >= SEGMENT_BYTES;
        if full {
            self.rotate(now)?;
        }
        Ok(full)
    }

    #[cfg(test)]
    pub(crate) fn replace_file(&mut self, path: &Path) {
        self.file = AppendFile::open(path, 0o600).unwrap();
    }

    /// Closes the segment and begins the next one.
    pub(crate) fn rotate(&mut self, now: Timestamp) -> Result<(), PlatformError> {
        self.seal(now)?;
        let size = self.size();
        let checkpoint = files::read(&self.config.checkpoint_path())?;
        files::write_atomic(&self.config.sealed_path(size), &checkpoint, 0o600)?;
        files::rename(
            &self.config.lines_path(),
            &self.config.segment_path(self.segment_first),
        )?;
        self.file = AppendFile::open(&self.config.lines_path(), 0o600)?;
        self.segment_first = size;
        Ok(())
    }

    /// Closed segments that `retention` keeps no longer.
    ///
    /// # Errors
    /// [`PlatformError`] if the directory cannot be read.
    pub fn overdue(
        &self,
        retention: Retention,
        now: Timestamp,
    ) -> Result<Option<Overdue>, PlatformError> {
        if retention == Retention::default() {
            return Ok(None);
        }
        let closed = log_files::closed_segments(&self.config.directory, &self.config.origin)?;
        let ends: Vec<u64> = closed
            .iter()
            .skip(1)
            .map(|(first, _)| *first)
            .chain([self.segment_first])
            .collect();
        let lengths = closed
            .iter()
            .map(|(_, path)| files::length(path))
            .collect::<Result<Vec<_>, _>>()?;
        let mut kept: u64 = lengths
            .iter()
            .fold(0, |sum, length| sum.saturating_add(*length));
        let mut overdue = Overdue {
            segments: Vec::new(),
            through: 0,
            by_age: false,
        };
        for (((first, _), end), length) in closed.iter().zip(ends).zip(lengths) {
            let too_old = retention.age.is_some_and(|age| {
                self.signed_at(end)
                    .is_some_and(|signed| signed.plus_secs(seconds(age)) < now)
            });
            if !too_old && retention.bytes.is_none_or(|bytes| kept <= bytes) {
                break;
            }
            overdue.by_age |= too_old;
            overdue.segments.push(*first);
            overdue.through = end.saturating_sub(1);
            kept = kept.saturating_sub(length);
        }
        Ok((!overdue.segments.is_empty()).then_some(overdue))
    }

    /// Deletes segments, after the log says so. Their hashes are made again from their lines and flushed first; a
    /// segment that is not what was signed stays, for whoever must look into that.
    ///
    /// # Errors
    /// [`PlatformError`], and [`AuditLogError::NotAsSealed`] for a segment that was edited.
    pub fn retire(&self, overdue: &Overdue) -> Result<(), AuditLogError> {
        for first in &overdue.segments {
            self.retire_segment(*first)?;
        }
        Ok(())
    }

    fn retire_segment(&self, first: u64) -> Result<(), AuditLogError> {
        let path = self.config.segment_path(first);
        let bytes = files::read(&path)?;
        let edited = || AuditLogError::NotAsSealed { path: path.clone() };
        let mut edge = self.edge_at(first).ok_or_else(edited)?;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let parts = Parts::of(line).filter(|parts| parts.seq == edge.size());
            edge.push(parts.ok_or_else(edited)?.leaf());
        }
        let signed = self.sealed_root(edge.size());
        if signed.is_none_or(|root| root != edge.root()) {
            return Err(edited());
        }
        for (tile, bytes) in edge.take_full() {
            self.tiles.write(&tile.path(), &bytes)?;
            self.tiles.flush(&tile.path())?;
        }
        Ok(files::remove(&path)?)
    }

    /// When the checkpoint at the end of a segment was signed.
    fn signed_at(&self, size: u64) -> Option<Timestamp> {
        let bytes = files::read_limited(&self.config.sealed_path(size), 65_536).ok()?;
        signed_time(Checkpoint::open(&bytes, self.key.verifier()).ok()?.head())
    }

    fn sealed_root(&self, size: u64) -> Option<mesh_tlog::Hash> {
        let bytes = files::read_limited(&self.config.sealed_path(size), 65_536).ok()?;
        let checkpoint = Checkpoint::open(&bytes, self.key.verifier()).ok()?;
        (checkpoint.head().size == size).then(|| checkpoint.head().root)
    }

    /// The edge of the tree at the beginning of a segment, if its stored hashes are what was signed.
    fn edge_at(&self, size: u64) -> Option<Edge> {
        if size == 0 {
            return Some(Edge::default());
        }
        let edge = Edge::load(&self.tiles, size).ok()?;
        (self.sealed_root(size)? == edge.root()).then_some(edge)
    }

    fn push(&mut self, leaf: mesh_tlog::Hash, entry: &[u8]) {
        self.edge.push(leaf);
        if let Some(entries) = &mut self.entries {
            // Callers write no lines that are longer than a bundle takes.
            if let Err(error) = bundle::append(&mut entries.0, entry) {
                tracing::error!(%error, "an entry is missing in its bundle");
            }
            let size = self.edge.size();
            if size.is_multiple_of(u64::from(TILE_WIDTH))
                && let Some(tile) = Tile::new(0, size / u64::from(TILE_WIDTH) - 1, TILE_WIDTH)
            {
                self.unwritten
                    .push((tile.entries_path(), std::mem::take(&mut entries.0)));
            }
        }
        let full = self.edge.take_full().into_iter();
        self.unwritten
            .extend(full.map(|(tile, bytes)| (tile.path(), bytes)));
    }

    fn checkpoint(&self, now: Timestamp) -> Result<String, PlatformError> {
        let head = TreeHead {
            origin: self.config.origin.clone(),
            size: self.size(),
            root: self.edge.root(),
            extensions: vec![format!("{TIME}{now}")],
        };
        // Name and key belong together since the log was opened.
        Checkpoint::sign(head, &self.key)
            .map(|checkpoint| checkpoint.note().to_string())
            .map_err(|error| PlatformError::Kernel {
                doing: "sign a checkpoint",
                source: std::io::Error::other(error.to_string()),
            })
    }

    /// Removes the partial files of an older checkpoint, unless they are those of the one in force.
    fn forget_partials(&self, old: u64) {
        let in_force = |level: u8, index: u64| Tile::in_tree(level, index, self.size());
        for level in 0..8u8 {
            let hashes = old >> (u32::from(level) * 8);
            let index = hashes / u64::from(TILE_WIDTH);
            let Some(tile) = Tile::in_tree(level, index, old).filter(|tile| !tile.is_full()) else {
                continue;
            };
            if in_force(level, index) == Some(tile) {
                continue;
            }
            self.tiles.remove_partial(&tile.path());
            if level == 0 && self.entries.is_some() {
                self.tiles.remove_partial(&tile.entries_path());
            }
        }
    }

    /// Finds the end of the log. False if what is there is none of this key.
    fn resume(&mut self, found: &mut Found) -> Result<bool, AuditLogError> {
        let files = LogFiles::open(&self.config.lines_path())?;
        let newest = match files.checkpoint()? {
            None => None,
            Some(bytes) => match Checkpoint::open(bytes, self.key.verifier()) {
                Ok(checkpoint) => Some(checkpoint.head().clone()),
                Err(_) => return Ok(false),
            },
        };
        let size = newest.as_ref().map_or(0, |newest| newest.size);
        // An active segment without lines goes on where the last closed one ends.
        self.segment_first = match files.first_of_active()? {
            Some(first) => first,
            None => files.last_sealed(self.key.verifier()).unwrap_or(0),
        };
        let end = if self.load_sealed(newest.as_ref()) {
            self.read_lines(size, None)?
        } else if self.load_segment() {
            self.read_lines(self.segment_first, newest.as_ref())?
        } else {
            None
        };
        let Some(end) = end else {
            return Ok(false);
        };
        self.sealed = size;
        found.torn_bytes = self.file.length().saturating_sub(end.offset);
        if found.torn_bytes > 0 {
            tracing::warn!(log = %self.file.path().display(), bytes = found.torn_bytes, "dropped unfinished lines at the end of a log");
            self.file.truncate(end.offset)?;
        }
        if end.next < size {
            tracing::error!(
                log = %self.file.path().display(),
                lines = end.next,
                sealed = size,
                "the log ends before its signed checkpoint: its tail was cut"
            );
            found.missing_from = Some(end.next);
        }
        Ok(true)
    }

    /// The usual way: the stored hashes are those of the newest checkpoint.
    fn load_sealed(&mut self, newest: Option<&TreeHead>) -> bool {
        let Some(newest) = newest else {
            return false;
        };
        match Edge::load(&self.tiles, newest.size) {
            Ok(edge) if edge.root() == newest.root => {
                self.edge = edge;
                self.load_entries(newest.size)
            }
            _ => false,
        }
    }

    /// The long way, after a power cut or a damage: from the beginning of the segment.
    fn load_segment(&mut self) -> bool {
        match self.edge_at(self.segment_first) {
            Some(edge) => {
                self.edge = edge;
                self.load_entries(self.segment_first)
            }
            None => false,
        }
    }

    /// The bundle that is being filled, as a tree of `size` leaves has it.
    fn load_entries(&mut self, size: u64) -> bool {
        let Some(entries) = &mut self.entries else {
            return true;
        };
        let Some(tile) = last_tile(size) else {
            *entries = Entries::default();
            return true;
        };
        let path = self.config.tlog_path().join(tile.entries_path());
        let Ok(bytes) = files::read_limited(&path, BUNDLE_BYTES_MAX) else {
            return false;
        };
        let whole =
            bundle::entries(&bytes).is_ok_and(|entries| entries.len() == usize::from(tile.width()));
        entries.0 = bytes;
        whole
    }

    /// Puts the lines of the active segment from place `from` on into the tree. `None` if one of them is no line of ours,
    /// or if the tree has another root than `must`, or never becomes so large.
    fn read_lines(
        &mut self,
        from: u64,
        must: Option<&TreeHead>,
    ) -> Result<Option<End>, PlatformError> {
        let (bytes, offset) = self.tail_from(from)?;
        let mut end = End {
            offset,
            next: self.segment_first,
        };
        let mut reached = must.is_none_or(|must| must.size == from);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(text) = line.strip_suffix(b"\n") else {
                break;
            };
            match Parts::of(text) {
                Some(parts) if parts.seq < from => end.next = parts.seq + 1,
                Some(parts) if parts.seq == self.size() => {
                    self.push(parts.leaf(), &parts.entry());
                    end.next = self.size();
                }
                // Damage in what a checkpoint covers is the verifier's to name.
                _ if end.next < from => {}
                // A whole line that nobody of us wrote: another form of log, or somebody's hand.
                _ => return Ok(None),
            }
            end.offset += line.len() as u64;
            if let Some(must) = must.filter(|must| must.size == self.size()) {
                reached = must.root == self.edge.root();
                if !reached {
                    return Ok(None);
                }
            }
        }
        Ok(reached.then_some(end))
    }

    /// The end of the file, from a line before or at place `from` on, and where in the file that is.
    fn tail_from(&self, from: u64) -> Result<(Vec<u8>, u64), PlatformError> {
        let mut want = TAIL_BYTES;
        loop {
            let (bytes, whole) = files::read_tail(self.file.path(), want)?;
            let skip = match bytes.iter().position(|byte| *byte == b'\n') {
                _ if whole => 0,
                Some(feed) => feed + 1,
                None => bytes.len(),
            };
            let lines = bytes.get(skip..).unwrap_or_default();
            let first = lines.split(|byte| *byte == b'\n').find_map(Parts::of);
            if whole || first.is_some_and(|first| first.seq <= from) {
                let offset = self.file.length().saturating_sub(lines.len() as u64);
                return Ok((lines.to_vec(), offset));
            }
            want = want.saturating_mul(8);
        }
    }

    /// Begins anew beside what was found.
    fn move_aside(&mut self, now: Timestamp) -> Result<(), AuditLogError> {
        let aside = |path: &Path| {
            let mut aside = path.as_os_str().to_owned();
            aside.push(format!(".broken-{}", now.unix_micros()));
            PathBuf::from(aside)
        };
        tracing::error!(
            log = %self.file.path().display(),
            "the log is not what was written with its key; it is moved aside and a new one begun"
        );
        let mut paths = vec![self.config.lines_path(), self.config.tlog_path()];
        let closed = log_files::closed_segments(&self.config.directory, &self.config.origin)?;
        paths.extend(closed.into_iter().map(|(_, path)| path));
        for path in paths {
            files::rename(&path, &aside(&path))?;
        }
        files::create_dir_private(&self.config.tlog_path().join("sealed"))?;
        self.file = AppendFile::open(&self.config.lines_path(), 0o600)?;
        self.edge = Edge::default();
        self.entries = self.config.bundles.then(Entries::default);
        self.unwritten.clear();
        (self.sealed, self.segment_first) = (0, 0);
        Ok(())
    }
}

/// Where the lines end.
struct End {
    /// Bytes of whole lines.
    offset: u64,
    /// Place of the line after the last.
    next: u64,
}

/// The partial tile of leaves of a tree of this size.
fn last_tile(size: u64) -> Option<Tile> {
    Tile::in_tree(0, size / u64::from(TILE_WIDTH), size).filter(|tile| !tile.is_full())
}

/// When a checkpoint of ours was signed.
pub fn signed_time(head: &TreeHead) -> Option<Timestamp> {
    let mut times = head.extensions.iter();
    times.find_map(|line| line.strip_prefix(TIME)?.parse().ok())
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn check_origin(origin: &str) -> Result<(), AuditLogError> {
    let fits = (1..=200).contains(&origin.len())
        && !origin.starts_with('.')
        && origin
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if fits {
        Ok(())
    } else {
        Err(AuditLogError::Origin {
            origin: origin.to_owned(),
        })
    }
}

fn load_or_make_key(config: &TreeLogConfig) -> Result<SigningKey, AuditLogError> {
    let key = load_or_make(&config.key_path(), &config.origin, KeyType::Ed25519)?;
    files::write_atomic(
        &config.public_key_path(),
        format!("{}\n", key.verifier()).as_bytes(),
        0o644,
    )?;
    Ok(key)
}

/// The Ed25519 key in `path`, which is made if there is none; mode 0600.
///
/// # Errors
/// [`AuditLogError`].
pub fn load_or_make(
    path: &Path,
    name: &str,
    key_type: KeyType,
) -> Result<SigningKey, AuditLogError> {
    let der = match files::read_limited(path, 4_096) {
        Ok(der) => der,
        Err(absent) if absent.is_not_found() => {
            let made =
                ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new())
                    .map_err(|_| PlatformError::Kernel {
                    doing: "make a key",
                    source: std::io::Error::other("no random bytes"),
                })?;
            files::write_atomic(path, made.as_ref(), 0o600)?;
            made.as_ref().to_vec()
        }
        Err(error) => return Err(error.into()),
    };
    SigningKey::from_pkcs8(name, key_type, &der).map_err(|source| AuditLogError::Key {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;
