//! Tiles against the document's examples and against a whole tree in memory.

use super::*;
use crate::hash::leaf_hash;
use crate::proof::{
    prove_consistency, prove_inclusion, root, verify_consistency, verify_inclusion,
};
use crate::tree::MemoryTree;
use proptest::prelude::*;

/// Tiles in memory, as a disk would have them.
#[derive(Default)]
struct Disk(BTreeMap<String, Vec<u8>>);

#[derive(Debug, PartialEq)]
enum DiskError {
    Absent(String),
    Tile(TileError),
}

impl From<TileError> for DiskError {
    fn from(error: TileError) -> Self {
        Self::Tile(error)
    }
}

impl ReadTile for Disk {
    type Error = DiskError;

    fn read_tile(&self, tile: Tile) -> Result<Vec<u8>, DiskError> {
        let found = self
            .0
            .get(&tile.path())
            .or_else(|| self.0.get(&tile.full().path()));
        found.cloned().ok_or(DiskError::Absent(tile.path()))
    }
}

fn leaf(number: u64) -> Hash {
    leaf_hash(&number.to_be_bytes())
}

fn write(disk: &mut Disk, edge: &mut Edge) {
    for (tile, bytes) in edge.take_full().into_iter().chain(edge.partial()) {
        assert_eq!(bytes.len(), usize::from(tile.width()) * HASH_BYTES);
        disk.0.insert(tile.path(), bytes);
    }
}

fn grown(size: u64) -> (Disk, Edge, MemoryTree) {
    let (mut disk, mut edge) = (Disk::default(), Edge::default());
    let tree: MemoryTree = (0..size).map(leaf).collect();
    (0..size).for_each(|number| edge.push(leaf(number)));
    write(&mut disk, &mut edge);
    (disk, edge, tree)
}

#[test]
fn paths_are_those_of_the_document() {
    let path = |level, index, width| Tile::new(level, index, width).unwrap().path();
    assert_eq!(path(0, 1_234_067, 256), "tile/0/x001/x234/067");
    assert_eq!(path(0, 1_234_067, 8), "tile/0/x001/x234/067.p/8");
    assert_eq!(path(3, 0, 1), "tile/3/000.p/1");
    assert_eq!(path(1, 1_000, 256), "tile/1/x001/000");
    let entries = Tile::new(0, 273, 112).unwrap();
    assert_eq!(entries.entries_path(), "tile/entries/273.p/112");
}

#[test]
fn a_tree_of_70000_has_the_tiles_that_the_document_says() {
    let tiles = Tile::new_between(0, 70_000);
    let count = |level: u8, full: bool| {
        tiles
            .iter()
            .filter(|tile| tile.level() == level && tile.is_full() == full)
            .count()
    };
    assert_eq!((count(0, true), count(0, false)), (273, 1));
    assert_eq!((count(1, true), count(1, false)), (1, 1));
    assert_eq!((count(2, true), count(2, false)), (0, 1));
    assert_eq!(tiles.len(), 277);
    let widths: Vec<u16> = tiles
        .iter()
        .filter(|tile| !tile.is_full())
        .map(Tile::width)
        .collect();
    assert_eq!(widths, [112, 17, 1]);
    let of_256: Vec<String> = Tile::new_between(0, 256).iter().map(Tile::path).collect();
    assert_eq!(of_256, ["tile/0/000", "tile/1/000.p/1"]);
}

#[test]
fn only_paths_that_are_written_so_are_read() {
    for tile in Tile::new_between(0, 70_000) {
        assert_eq!(Tile::parse(&tile.path()), Some(tile));
    }
    for bad in [
        "",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/0000",
        "tile/00/000",
        "tile/8/000",
        "tile/-1/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/07",
        "tile/0/000.p/",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001/x002",
        "tile/0/../000",
        "tile/0/+01",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "/tile/0/000",
        "tile/entries/000",
    ] {
        assert_eq!(Tile::parse(bad), None, "{bad}");
    }
}

#[test]
fn an_edge_writes_exactly_the_tiles_of_its_size_and_is_loaded_from_them() {
    for size in [
        0, 1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 70_000,
    ] {
        let (disk, edge, tree) = grown(size);
        let mut wanted: Vec<String> = Tile::new_between(0, size).iter().map(Tile::path).collect();
        wanted.sort();
        assert_eq!(disk.0.keys().cloned().collect::<Vec<_>>(), wanted, "{size}");
        assert_eq!(edge.root(), tree.root());
        let loaded = Edge::load(&disk, size).unwrap();
        assert_eq!(
            (loaded.size(), loaded.root()),
            (size, tree.root()),
            "{size}"
        );
        assert_eq!(loaded.partial(), edge.partial(), "{size}");
    }
}

#[test]
fn missing_cut_and_ragged_tiles_are_told() {
    let (mut disk, ..) = grown(70_000);
    let partial = "tile/0/273.p/112";
    let bytes = disk.0.remove(partial).unwrap();
    assert_eq!(
        Edge::load(&disk, 70_000).err(),
        Some(DiskError::Absent(partial.to_owned()))
    );
    for bytes in [&bytes[..111 * 32], &bytes[..bytes.len() - 1], &[]] {
        disk.0.insert(partial.to_owned(), bytes.to_vec());
        let error = Edge::load(&disk, 70_000).err();
        assert!(matches!(
            error,
            Some(DiskError::Tile(TileError::Length { .. }))
        ));
    }
}

#[test]
fn a_log_goes_on_from_its_tiles() {
    let (mut disk, ..) = grown(300);
    let mut edge = Edge::load(&disk, 300).unwrap();
    (300..1_000).for_each(|number| edge.push(leaf(number)));
    write(&mut disk, &mut edge);
    let tree: MemoryTree = (0..1_000).map(leaf).collect();
    assert_eq!(Edge::load(&disk, 1_000).unwrap().root(), tree.root());
    assert_eq!(root(&TileNodes::new(&disk, 300), 300), root_of(&tree, 300));
}

fn root_of(tree: &MemoryTree, size: u64) -> Result<Hash, crate::proof::ProveError<DiskError>> {
    Ok(root(tree, size).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn proofs_from_tiles_are_those_of_the_tree(
        size in prop_oneof![1u64..600, 65_000u64..66_500],
        place in any::<prop::sample::Index>(),
        older in any::<prop::sample::Index>(),
    ) {
        let (disk, _, tree) = grown(size);
        let nodes = TileNodes::new(&disk, size);
        let (index, old) = (place.index(size as usize) as u64, older.index(size as usize) as u64 + 1);
        let inclusion = prove_inclusion(&nodes, index, size).unwrap();
        prop_assert_eq!(&inclusion, &prove_inclusion(&tree, index, size).unwrap());
        prop_assert_eq!(verify_inclusion(leaf(index), index, size, &inclusion, tree.root()), Ok(()));
        let consistency = prove_consistency(&nodes, old, size).unwrap();
        prop_assert_eq!(&consistency, &prove_consistency(&tree, old, size).unwrap());
        let older = (old, root(&nodes, old).unwrap());
        prop_assert_eq!(verify_consistency(older, (size, tree.root()), &consistency), Ok(()));
    }

    #[test]
    fn tiles_between_two_sizes_are_those_that_the_older_lacks(old in 0u64..70_000, more in 0u64..70_000) {
        let size = old + more;
        let had = Tile::new_between(0, old);
        let lacking: Vec<Tile> = Tile::new_between(0, size).into_iter().filter(|tile| !had.contains(tile)).collect();
        prop_assert_eq!(Tile::new_between(old, size), lacking);
    }
}
