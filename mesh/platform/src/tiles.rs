//! A log's tiles in a directory, laid out as they would be served ([tlog-tiles](https://c2sp.org/tlog-tiles)).
//!
//! Tiles are not flushed when they are written: until a segment is deleted they can be made again from its lines, and
//! whoever reads them checks what comes of it against a signed root.

use crate::PlatformError;
use mesh_tlog::tile::{ReadTile, Tile, TileError};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A directory with `tile/…` below it.
#[derive(Clone, Debug)]
pub struct TileDirectory {
    root: PathBuf,
}

/// Why a tile cannot be read.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum TilesError {
    /// The system refused.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Platform(#[from] PlatformError),
    /// The file is no tile.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Tile(#[from] TileError),
}

impl TileDirectory {
    /// The tiles below `root`.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Writes a tile, or a bundle of entries, at its path below the root.
    ///
    /// # Errors
    /// [`PlatformError`] naming the path.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<(), PlatformError> {
        let path = self.root.join(path);
        let create = || File::create(&path).and_then(|mut file| file.write_all(bytes));
        let written = match create() {
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => path
                .parent()
                .map_or(Ok(()), fs::create_dir_all)
                .and_then(|()| create()),
            outcome => outcome,
        };
        written.map_err(|source| PlatformError::from_io("write", &path, source))
    }

    /// Removes the partial tile or bundle at `path`, and its directory if nothing else is in it. What is left behind by
    /// a failure harms nobody.
    pub fn remove_partial(&self, path: &str) {
        let path = self.root.join(path);
        if fs::remove_file(&path).is_ok()
            && let Some(parent) = path.parent()
        {
            // Refused while another width is in it.
            let _ = fs::remove_dir(parent);
        }
    }

    /// Flushes a file to the device.
    ///
    /// # Errors
    /// [`PlatformError`] naming the path.
    pub fn flush(&self, path: &str) -> Result<(), PlatformError> {
        let path = self.root.join(path);
        File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(|source| PlatformError::from_io("flush", &path, source))
    }
}

impl ReadTile for TileDirectory {
    type Error = TilesError;

    fn read_tile(&self, tile: Tile) -> Result<Vec<u8>, TilesError> {
        let limit = u64::from(mesh_tlog::tile::TILE_WIDTH) * 32;
        let read = |tile: Tile| crate::files::read_limited(&self.root.join(tile.path()), limit);
        match read(tile) {
            // A reader may hold a checkpoint that is older than the files: wider ones begin alike.
            Err(absent) if absent.is_not_found() && !tile.is_full() => match self.wider(tile) {
                Some(wider) => Ok(read(wider).or_else(|_| read(tile.full()))?),
                None => Ok(read(tile.full())?),
            },
            outcome => Ok(outcome?),
        }
    }
}

impl TileDirectory {
    /// The widest partial tile at the place of `tile`, if there is one that is wide enough.
    fn wider(&self, tile: Tile) -> Option<Tile> {
        let path = self.root.join(tile.path());
        let names = fs::read_dir(path.parent()?).ok()?;
        let widths = names.filter_map(|name| name.ok()?.file_name().to_str()?.parse().ok());
        let widest: u16 = widths.max()?;
        Tile::new(tile.level(), tile.index(), widest).filter(|_| widest >= tile.width())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_tlog::{Edge, leaf_hash};

    #[test]
    fn tiles_are_read_as_written_and_a_full_one_serves_for_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let tiles = TileDirectory::new(dir.path());
        let mut edge = Edge::default();
        (0..300u32).for_each(|number| edge.push(leaf_hash(&number.to_be_bytes())));
        for (tile, bytes) in edge.take_full().into_iter().chain(edge.partial()) {
            tiles.write(&tile.path(), &bytes).unwrap();
        }
        assert_eq!(Edge::load(&tiles, 300).unwrap().root(), edge.root());
        assert!(Edge::load(&tiles, 100).is_ok(), "from the full tile");
        assert!(matches!(
            Edge::load(&tiles, 301),
            Err(TilesError::Platform(_))
        ));
        assert!(Edge::load(&tiles, 280).is_ok(), "from a wider one");
        tiles.remove_partial("tile/0/001.p/44");
        assert!(!dir.path().join("tile/0/001.p").exists());
        tiles.remove_partial("tile/0/001.p/44");
        tiles.write("tile/0/000", &[0; 8_193]).unwrap();
        assert!(matches!(
            tiles.read_tile(Tile::new(0, 0, 256).unwrap()),
            Err(TilesError::Platform(PlatformError::TooLarge { .. }))
        ));
    }
}
