//! The tree in files of at most 256 hashes each ([tlog-tiles](https://c2sp.org/tlog-tiles)): which files there are, what
//! stands in them, and proofs from them.
//!
//! Tile `n` of level `l` holds the hashes of 256 consecutive subtrees of `256^l` leaves each. Full tiles never change;
//! the last of a level may be partial and is then named by its width too.

use crate::hash::{Hash, node_hash};
use crate::proof::Nodes;
use crate::tree::Frontier;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

/// Hashes of a full tile.
pub const TILE_WIDTH: u16 = 256;

/// Levels of the tree that one level of tiles spans.
const HEIGHT: u8 = 8;

/// Levels of tiles that a tree can have.
const LEVELS_MAX: u8 = 8;

const HASH_BYTES: usize = 32;

/// A tile's place, and how many hashes it has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tile {
    level: u8,
    index: u64,
    width: u16,
}

/// What is wrong with a tile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum TileError {
    /// It holds another number of hashes than it should.
    #[error("`{tile}` has {bytes} bytes, not {}", usize::from(tile.width) * HASH_BYTES)]
    #[diagnostic(
        code("MESH-0523"),
        help(
            "the file was cut or damaged; it can be made again from the entries that it stands for"
        )
    )]
    Length {
        /// Which.
        tile: Tile,
        /// How long it is.
        bytes: usize,
    },
}

/// Where tiles come from.
pub trait ReadTile {
    /// Why one cannot be had.
    type Error: From<TileError>;

    /// The bytes of a tile. Of a partial one, those of any wider one will do: only its beginning is read.
    ///
    /// # Errors
    /// As the source has them.
    fn read_tile(&self, tile: Tile) -> Result<Vec<u8>, Self::Error>;
}

impl Tile {
    /// The tile at this place; `None` if there cannot be one.
    pub fn new(level: u8, index: u64, width: u16) -> Option<Self> {
        let fits = level < LEVELS_MAX && (1..=TILE_WIDTH).contains(&width);
        fits.then_some(Self {
            level,
            index,
            width,
        })
    }

    /// The level: 0 holds hashes of leaves.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// The place in its level.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes it has, 1 to 256.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Whether it will never change.
    pub fn is_full(&self) -> bool {
        self.width == TILE_WIDTH
    }

    /// The full tile at the same place.
    pub fn full(&self) -> Self {
        Self {
            width: TILE_WIDTH,
            ..*self
        }
    }

    /// Where it stands below a log's directory or address: `tile/0/x001/x234/067.p/8`.
    pub fn path(&self) -> String {
        format!("tile/{}/{}", self.level, place(self.index, self.width))
    }

    /// Where the bundle of entries stands whose leaves a tile of level 0 holds: `tile/entries/x001/x234/067.p/8`.
    pub fn entries_path(&self) -> String {
        format!("tile/entries/{}", place(self.index, self.width))
    }

    /// Reads what [`Tile::path`] writes; `None` for anything else.
    pub fn parse(path: &str) -> Option<Self> {
        let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let level = canonical(level)?;
        let (digits, width) = match rest.split_once(".p/") {
            Some((digits, width)) => (digits, canonical(width).filter(|width| *width < 256)?),
            None => (rest, u64::from(TILE_WIDTH)),
        };
        let mut index: u64 = 0;
        for part in digits.split('/') {
            let part = part.strip_prefix('x').unwrap_or(part);
            index = index.checked_mul(1_000)?.checked_add(part.parse().ok()?)?;
        }
        let tile = Self::new(u8::try_from(level).ok()?, index, u16::try_from(width).ok()?)?;
        // What is written in another way is another file.
        (tile.path() == path).then_some(tile)
    }

    /// All tiles of a tree of `size` leaves that a tree of `old` leaves has not, or has narrower: by level, then index.
    pub fn new_between(old: u64, size: u64) -> Vec<Self> {
        let mut tiles = Vec::new();
        for level in 0..LEVELS_MAX {
            let shift = u32::from(level * HEIGHT);
            let (had, has) = (old >> shift, size >> shift);
            if has == had {
                break;
            }
            let first = had / u64::from(TILE_WIDTH);
            for index in first..=(has - 1) / u64::from(TILE_WIDTH) {
                tiles.extend(Self::in_tree(level, index, size));
            }
        }
        tiles
    }

    /// The tile at this place as a tree of `size` leaves has it; `None` if it has none there.
    pub fn in_tree(level: u8, index: u64, size: u64) -> Option<Self> {
        if level >= LEVELS_MAX {
            return None;
        }
        let hashes = size >> (u32::from(level) * u32::from(HEIGHT));
        let before = index.checked_mul(u64::from(TILE_WIDTH))?;
        let width = hashes.checked_sub(before)?.min(u64::from(TILE_WIDTH));
        Self::new(level, index, u16::try_from(width).ok()?)
    }
}

/// Decimal digits without leading zeros.
fn canonical(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn place(index: u64, width: u16) -> String {
    let mut parts = vec![format!("{:03}", index % 1_000)];
    let mut rest = index / 1_000;
    while rest > 0 {
        parts.push(format!("x{:03}", rest % 1_000));
        rest /= 1_000;
    }
    parts.reverse();
    let mut text = parts.join("/");
    if width < TILE_WIDTH {
        text.push_str(&format!(".p/{width}"));
    }
    text
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

/// The right edge of a tree as tiles: takes leaves, gives the tiles to write. At most 8 tiles of 8 KiB are in memory,
/// beside full ones that were not taken yet.
#[derive(Clone, Debug, Default)]
pub struct Edge {
    frontier: Frontier,
    // By level, the hashes of the last tile: always fewer than 256.
    levels: Vec<Vec<Hash>>,
    full: Vec<(Tile, Vec<u8>)>,
}

impl Edge {
    /// The edge of the tree of `size` leaves that `reader` has the tiles of.
    ///
    /// # Errors
    /// Those of the reader, and [`TileError`].
    pub fn load<R: ReadTile>(reader: &R, size: u64) -> Result<Self, R::Error> {
        let mut levels = Vec::new();
        for level in 0..LEVELS_MAX {
            let hashes = size >> (u32::from(level) * u32::from(HEIGHT));
            if hashes == 0 {
                break;
            }
            let (index, width) = (
                hashes / u64::from(TILE_WIDTH),
                hashes % u64::from(TILE_WIDTH),
            );
            let tile = u16::try_from(width)
                .ok()
                .and_then(|width| Tile::new(level, index, width));
            levels.push(match tile {
                Some(tile) => hashes_of(tile, &reader.read_tile(tile)?)?,
                None => Vec::new(),
            });
        }
        let peaks = levels.iter().rev().flat_map(|level| peaks(level)).collect();
        Ok(Self {
            // One peak for each bit of the size, by the widths above.
            frontier: Frontier::from_peaks(size, peaks).unwrap_or_default(),
            levels,
            full: Vec::new(),
        })
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        self.frontier.push(leaf);
        let mut hash = leaf;
        let mut index = self.frontier.size() - 1;
        for level in 0..LEVELS_MAX {
            let at = usize::from(level);
            if self.levels.len() <= at {
                self.levels.push(Vec::new());
            }
            index /= u64::from(TILE_WIDTH);
            let Some(hashes) = self.levels.get_mut(at) else {
                return;
            };
            hashes.push(hash);
            if hashes.len() < usize::from(TILE_WIDTH) {
                return;
            }
            if let Some(tile) = Tile::new(level, index, TILE_WIDTH) {
                self.full.push((tile, bytes_of(hashes)));
            }
            hash = merge(hashes);
            hashes.clear();
        }
    }

    /// Takes the tiles that have become full since the last time.
    pub fn take_full(&mut self) -> Vec<(Tile, Vec<u8>)> {
        std::mem::take(&mut self.full)
    }

    /// The partial tiles, at most one a level.
    pub fn partial(&self) -> Vec<(Tile, Vec<u8>)> {
        let size = self.frontier.size();
        let levels = (0u8..).zip(&self.levels);
        levels
            .filter_map(|(level, hashes)| {
                let index = size >> (u32::from(level) * u32::from(HEIGHT) + u32::from(HEIGHT));
                let tile = Tile::new(level, index, u16::try_from(hashes.len()).ok()?)?;
                Some((tile, bytes_of(hashes)))
            })
            .collect()
    }

    /// Leaves.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// As much as it takes to go on without tiles.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }
}

/// Nodes of a tree of known size, from its tiles. Each tile is read once.
pub struct TileNodes<'a, R> {
    reader: &'a R,
    size: u64,
    read: RefCell<BTreeMap<Tile, Vec<Hash>>>,
}

impl<'a, R: ReadTile> TileNodes<'a, R> {
    /// The nodes of the tree of the first `size` leaves.
    pub fn new(reader: &'a R, size: u64) -> Self {
        Self {
            reader,
            size,
            read: RefCell::default(),
        }
    }
}

impl<R: ReadTile> Nodes for TileNodes<'_, R> {
    type Error = R::Error;

    fn node(&self, level: u8, index: u64) -> Result<Option<Hash>, R::Error> {
        let (tile_level, height) = (level / HEIGHT, level % HEIGHT);
        let first = index << height;
        let (tile_index, offset) = (first / u64::from(TILE_WIDTH), first % u64::from(TILE_WIDTH));
        let Some(tile) = Tile::in_tree(tile_level, tile_index, self.size) else {
            return Ok(None);
        };
        let mut read = self.read.borrow_mut();
        let hashes = match read.entry(tile) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(unknown) => {
                unknown.insert(hashes_of(tile, &self.reader.read_tile(tile)?)?)
            }
        };
        // An offset is below 256.
        let (from, count) = (offset as usize, 1usize << height);
        Ok(hashes.get(from..from + count).map(merge))
    }
}

/// The first hashes of a tile's bytes.
fn hashes_of(tile: Tile, bytes: &[u8]) -> Result<Vec<Hash>, TileError> {
    let (wanted, (chunks, rest)) = (usize::from(tile.width), bytes.as_chunks::<HASH_BYTES>());
    match chunks.get(..wanted) {
        Some(hashes) if rest.is_empty() => Ok(hashes.iter().copied().map(Hash).collect()),
        _ => Err(TileError::Length {
            tile,
            bytes: bytes.len(),
        }),
    }
}

fn bytes_of(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// The root over a power of two of hashes.
fn merge(hashes: &[Hash]) -> Hash {
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        let (pairs, _) = row.as_chunks::<2>();
        row = pairs
            .iter()
            .map(|[left, right]| node_hash(left, right))
            .collect();
    }
    row.first().copied().unwrap_or_default()
}

/// The roots of the perfect subtrees of these hashes, the largest first.
fn peaks(mut hashes: &[Hash]) -> Vec<Hash> {
    let mut peaks = Vec::new();
    while !hashes.is_empty() {
        let largest = 1 << hashes.len().ilog2();
        let (subtree, rest) = hashes.split_at(largest);
        peaks.push(merge(subtree));
        hashes = rest;
    }
    peaks
}

#[cfg(test)]
mod tests;
