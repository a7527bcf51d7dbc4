//! The files of a log as a reader sees them, also while it is written: segments, hashes, checkpoints.

use crate::PlatformError;
use crate::files;
use crate::tiles::{TileDirectory, TilesError};
use mesh_audits::line::Parts;
use mesh_audits::verify::{self, FirstBad, LogSource, Place, Trust, Verified, Why};
use mesh_tlog::checkpoint::Checkpoint;
use mesh_tlog::note::VerifierKey;
use mesh_tlog::tile::{ReadTile, Tile, TileNodes};
use mesh_tlog::{Nodes, ProveError, TlogProof, prove_inclusion, verify_inclusion};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes of a checkpoint file with all its cosignatures.
const CHECKPOINT_BYTES_MAX: u64 = mesh_tlog::limits::NOTE_BYTES_MAX as u64;

/// How often the list of segments is read anew because one was closed meanwhile.
const TRIES: usize = 8;

/// The files of one log. Segments are held open: what is deleted or renamed later is read all the same.
#[derive(Debug)]
pub struct LogFiles {
    lines: PathBuf,
    tlog: PathBuf,
    tiles: TileDirectory,
    checkpoint: Option<Vec<u8>>,
    segments: Vec<Segment>,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: File,
}

impl LogFiles {
    /// The log whose newest lines are in `lines`, a file `<origin>.jsonl`. The checkpoint is read first, so that all the
    /// lines that it covers are found.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub fn open(lines: &Path) -> Result<Self, PlatformError> {
        let tlog = lines.with_extension("tlog");
        let directory = match lines.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let stem = lines
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        let checkpoint = match files::read_limited(&tlog.join("checkpoint"), CHECKPOINT_BYTES_MAX) {
            Ok(bytes) => Some(bytes),
            Err(absent) if absent.is_not_found() => None,
            Err(error) => return Err(error),
        };
        for _ in 0..TRIES {
            let before = closed_segments(directory, stem)?;
            let mut paths: Vec<PathBuf> = before.iter().map(|(_, path)| path.clone()).collect();
            paths.push(lines.to_owned());
            let opened: Result<Vec<Segment>, PlatformError> =
                paths.into_iter().map(Segment::open).collect();
            // A segment that was closed or deleted in between would be missed, or missing.
            if closed_segments(directory, stem)? != before {
                continue;
            }
            return Ok(Self {
                lines: lines.to_owned(),
                tiles: TileDirectory::new(&tlog),
                tlog,
                checkpoint,
                segments: opened?,
            });
        }
        Err(PlatformError::from_io(
            "read",
            lines,
            io::Error::other("its segments change all the time"),
        ))
    }

    /// The newest checkpoint, as it was when the log was opened.
    ///
    /// # Errors
    /// None today; a source that reads later may have some.
    pub fn checkpoint(&self) -> Result<Option<&[u8]>, PlatformError> {
        Ok(self.checkpoint.as_deref())
    }

    /// The public key that lies beside the log. Who could edit the log could edit it too.
    pub fn public_key_path(&self) -> PathBuf {
        self.lines.with_extension("pub")
    }

    /// Checkpoints at the ends of closed segments that `key` signed, by size.
    pub fn sealed(&self, key: &VerifierKey) -> Vec<Checkpoint> {
        let Ok(names) = std::fs::read_dir(self.tlog.join("sealed")) else {
            return Vec::new();
        };
        let mut sealed: Vec<Checkpoint> = names
            .filter_map(|name| {
                let bytes = files::read_limited(&name.ok()?.path(), CHECKPOINT_BYTES_MAX).ok()?;
                Checkpoint::open(&bytes, key).ok()
            })
            .collect();
        sealed.sort_by_key(|checkpoint| checkpoint.head().size);
        sealed
    }

    /// Size of the newest checkpoint at the end of a closed segment.
    pub(crate) fn last_sealed(&self, key: &VerifierKey) -> Option<u64> {
        self.sealed(key)
            .last()
            .map(|checkpoint| checkpoint.head().size)
    }

    /// Place of the first line of the segment that is written; none if it has no whole line.
    pub(crate) fn first_of_active(&self) -> Result<Option<u64>, PlatformError> {
        match self.segments.last() {
            Some(active) => active.first(),
            None => Ok(None),
        }
    }

    /// The line at this place, without its line feed; none if it is not there.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub fn line(&self, seq: u64) -> Result<Option<Vec<u8>>, PlatformError> {
        for segment in self.segments.iter().rev() {
            if segment.first()?.is_some_and(|first| first <= seq) {
                return segment.find(seq);
            }
        }
        Ok(None)
    }

    /// Proves that the line at place `seq` is in the tree of `checkpoint`, from the stored hashes alone. The proof is
    /// verified before it is given out. `extra` goes with it, unproved.
    ///
    /// # Errors
    /// [`NotProved`].
    pub fn prove(
        &self,
        seq: u64,
        checkpoint: &Checkpoint,
        extra: Option<Vec<u8>>,
    ) -> Result<TlogProof, NotProved> {
        let (size, root) = (checkpoint.head().size, checkpoint.head().root);
        let nodes = TileNodes::new(&self.tiles, size);
        let hashes = prove_inclusion(&nodes, seq, size).map_err(|error| match error {
            ProveError::Source(error) => NotProved::Tiles(error),
            _ => NotProved::Beyond { seq, size },
        })?;
        let leaf = nodes.node(0, seq).map_err(NotProved::Tiles)?;
        let leaf = leaf.ok_or(NotProved::Beyond { seq, size })?;
        verify_inclusion(leaf, seq, size, &hashes, root).map_err(|_| NotProved::Damaged)?;
        Ok(TlogProof {
            extra,
            index: seq,
            hashes,
            checkpoint: checkpoint.note().clone(),
        })
    }

    /// Proves the whole log, with its own checkpoints that `key` signed and those that somebody else kept; see
    /// [`mesh_audits::verify::walk`] for what `each` gets.
    ///
    /// # Errors
    /// [`FirstBad`], also for a checkpoint that `key` did not sign.
    pub fn walk(
        &self,
        key: &VerifierKey,
        witnessed: Vec<Checkpoint>,
        each: &mut dyn FnMut(&Place, &[u8]),
    ) -> Result<Verified, FirstBad> {
        let newest = match &self.checkpoint {
            None => None,
            Some(bytes) => Some(Checkpoint::open(bytes, key).map_err(|error| FirstBad {
                place: Place {
                    file: self.tlog.join("checkpoint").display().to_string(),
                    line: 0,
                    seq: 0,
                },
                why: Why::Checkpoint(error),
                proven: 0,
            })?),
        };
        let trust = Trust {
            newest,
            older: self.sealed(key),
            witnessed,
        };
        verify::walk(self, &trust, each)
    }

    /// The hashes.
    pub fn tiles(&self) -> &TileDirectory {
        &self.tiles
    }
}

/// Why no proof can be made.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum NotProved {
    /// The hashes cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tiles(TilesError),
    /// The checkpoint does not reach the line.
    #[error("line {seq} is beyond the checkpoint, which covers {size} lines")]
    #[diagnostic(
        code("MESH-0545"),
        help("a writer signs a checkpoint within a second: ask again")
    )]
    Beyond {
        /// Its place.
        seq: u64,
        /// Lines that are covered.
        size: u64,
    },
    /// The hashes do not fit together.
    #[error("the stored hashes are damaged: no proof of the line can be made from them")]
    #[diagnostic(
        code("MESH-0546"),
        help("`mesh audit verify` names the damage; the log's lines can be proved without them")
    )]
    Damaged,
}

/// The logs of a folder: of each the file of its newest lines, sorted. Closed segments are parts of theirs.
///
/// # Errors
/// [`PlatformError`] if the folder cannot be read.
pub fn logs_in(folder: &Path) -> Result<Vec<PathBuf>, PlatformError> {
    let failed = |source| PlatformError::from_io("read", folder, source);
    let mut logs = Vec::new();
    for name in std::fs::read_dir(folder).map_err(failed)? {
        let path = name.map_err(failed)?.path();
        let is_log = path.extension().is_some_and(|end| end == "jsonl");
        if is_log && segment_name(&path).is_none() {
            logs.push(path);
        }
    }
    logs.sort();
    Ok(logs)
}

/// The closed segments of a log, oldest first, with the place of the first line of each.
///
/// # Errors
/// [`PlatformError`] if the directory cannot be read.
pub fn closed_segments(directory: &Path, stem: &str) -> Result<Vec<(u64, PathBuf)>, PlatformError> {
    let failed = |source| PlatformError::from_io("read", directory, source);
    let mut closed = Vec::new();
    for name in std::fs::read_dir(directory).map_err(failed)? {
        let path = name.map_err(failed)?.path();
        if let Some((of, first)) = segment_name(&path)
            && of == stem
        {
            closed.push((first, path));
        }
    }
    closed.sort();
    Ok(closed)
}

/// Stem and first line of a closed segment, from its name.
pub fn segment_name(path: &Path) -> Option<(&str, u64)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".jsonl")?;
    let (stem, digits) = name.split_once('+')?;
    let first: u64 = digits.parse().ok()?;
    (format!("{first:012}") == digits).then_some((stem, first))
}

impl Segment {
    fn open(path: PathBuf) -> Result<Self, PlatformError> {
        let file =
            File::open(&path).map_err(|source| PlatformError::from_io("read", &path, source))?;
        Ok(Self { path, file })
    }

    /// A reader of its own from `offset` on.
    fn reader(&self, offset: u64) -> io::Result<BufReader<File>> {
        // Opened again by the descriptor, because its position is shared by all who hold it.
        let mut file = File::open(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&self.file)
        ))
        .or_else(|_| File::open(&self.path))?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(BufReader::with_capacity(1 << 16, file))
    }

    fn first(&self) -> Result<Option<u64>, PlatformError> {
        let failed = |source| PlatformError::from_io("read", &self.path, source);
        let line = line_from(self.reader(0).map_err(failed)?, false).map_err(failed)?;
        Ok(line.and_then(|(line, _)| Some(Parts::of(&line)?.seq)))
    }

    /// Finds a line by halving: lines are in order.
    fn find(&self, seq: u64) -> Result<Option<Vec<u8>>, PlatformError> {
        let failed = |source| PlatformError::from_io("read", &self.path, source);
        let (mut low, mut high) = (0, self.file.metadata().map_err(failed)?.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let reader = self.reader(middle).map_err(failed)?;
            let found = line_from(reader, middle > 0).map_err(failed)?;
            match found.and_then(|(line, read)| Some((Parts::of(&line)?.seq, line, read))) {
                Some((at, line, _)) if at == seq => return Ok(Some(line)),
                Some((at, _, read)) if at < seq => low = middle + read,
                _ => high = middle,
            }
        }
        // What begins exactly at `low`.
        let reader = self.reader(low.saturating_sub(1)).map_err(failed)?;
        let found = line_from(reader, low > 0).map_err(failed)?;
        Ok(found.and_then(|(line, _)| (Parts::of(&line)?.seq == seq).then_some(line)))
    }
}

/// The first whole line, without its line feed, and how many bytes were read up to its end; `skip`s a broken one before.
fn line_from(mut reader: impl BufRead, skip: bool) -> io::Result<Option<(Vec<u8>, u64)>> {
    let limit = mesh_audits::limits::LINE_BYTES_MAX as u64 + 1;
    let mut line = Vec::new();
    let mut read = 0;
    for last in [!skip, true] {
        line.clear();
        let length = Read::take(&mut reader, limit).read_until(b'\n', &mut line)?;
        read += length as u64;
        if line.pop() != Some(b'\n') {
            return Ok(None);
        }
        if last {
            break;
        }
    }
    Ok(Some((line, read)))
}

impl ReadTile for LogFiles {
    type Error = TilesError;

    fn read_tile(&self, tile: Tile) -> Result<Vec<u8>, TilesError> {
        self.tiles.read_tile(tile)
    }
}

impl LogSource for LogFiles {
    fn segments(&self) -> Vec<String> {
        let segments = self.segments.iter();
        segments
            .map(|segment| segment.path.display().to_string())
            .collect()
    }

    fn open(&self, segment: usize) -> io::Result<Box<dyn BufRead + '_>> {
        let segment = self.segments.get(segment).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(segment.reader(0)?))
    }
}
