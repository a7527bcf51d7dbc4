//! Bundles of entries: each entry behind its length in two bytes, big-endian
//! ([tlog-tiles](https://c2sp.org/tlog-tiles), "Log entries").

/// Bytes of an entry that a bundle can hold.
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;

/// What is wrong with a bundle or an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[non_exhaustive]
pub enum BundleError {
    /// An entry that has no place in a bundle.
    #[error("an entry has {bytes} bytes; a bundle holds entries of at most {ENTRY_BYTES_MAX}")]
    #[diagnostic(
        code("MESH-0524"),
        help("this is a fault of ours: entries are cut before they are written")
    )]
    TooLong {
        /// Bytes of the entry.
        bytes: usize,
    },
    /// A bundle that ends inside an entry.
    #[error("the bundle ends inside entry {entry}")]
    #[diagnostic(
        code("MESH-0525"),
        help(
            "the file was cut or damaged; whole entries before this one can be checked against their tile"
        )
    )]
    Torn {
        /// Which, from 0.
        entry: usize,
    },
}

/// Appends an entry to a bundle.
///
/// # Errors
/// [`BundleError::TooLong`]; the bundle is then as before.
pub fn append(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), BundleError> {
    let length =
        u16::try_from(entry.len()).map_err(|_| BundleError::TooLong { bytes: entry.len() })?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// The entries of a bundle.
///
/// # Errors
/// [`BundleError::Torn`].
pub fn entries(mut bundle: &[u8]) -> Result<Vec<&[u8]>, BundleError> {
    let mut entries = Vec::new();
    while !bundle.is_empty() {
        let torn = BundleError::Torn {
            entry: entries.len(),
        };
        let (length, rest) = bundle.split_first_chunk().ok_or(torn)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, rest) = rest.split_at_checked(length).ok_or(torn)?;
        entries.push(entry);
        bundle = rest;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_and_torn_bundles_do_not() {
        let long = vec![7; ENTRY_BYTES_MAX];
        let all: [&[u8]; 4] = [b"one", b"", b"\x00\x01", &long];
        let mut bundle = Vec::new();
        all.iter()
            .for_each(|entry| append(&mut bundle, entry).unwrap());
        assert_eq!(entries(&bundle).unwrap(), all);
        assert_eq!(&bundle[..5], b"\x00\x03one");
        for (cut, entry) in [(1, 0), (4, 0), (6, 1), (8, 2), (bundle.len() - 1, 3)] {
            assert_eq!(
                entries(&bundle[..cut]),
                Err(BundleError::Torn { entry }),
                "{cut}"
            );
        }
        let before = bundle.clone();
        let too_long = vec![7; ENTRY_BYTES_MAX + 1];
        assert_eq!(
            append(&mut bundle, &too_long),
            Err(BundleError::TooLong {
                bytes: ENTRY_BYTES_MAX + 1
            })
        );
        assert_eq!(bundle, before);
    }
}
