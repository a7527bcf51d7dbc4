//! Many texts in one piece of memory, sorted, each once: ids of grants, identities. A text's place is its number.
//!
//! Ids and identities of one workload begin alike (`AuthorizationPolicy/shop/…`, `spiffe://cluster.local/ns/shop/sa/…`).
//! So texts stand in blocks, and a block stores the beginning that all of its texts share once: some 10 bytes are left of
//! 40, where an `Arc<str>` of each would take 72.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Texts of one block. More of them share less; fewer store their beginnings more often.
const BLOCK: usize = 16;

/// Sorted texts.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    /// For each block its beginning, then what follows it in each text.
    bytes: Box<str>,
    blocks: Box<[Block]>,
    /// Where each text ends in `bytes`.
    ends: Box<[u32]>,
}

/// Where the beginning of a block's texts stands.
#[derive(Clone, Copy, Debug)]
struct Block {
    start: u32,
    end: u32,
}

/// One text, in the two pieces that it is stored in. Prints and compares as the whole.
#[derive(Clone, Copy, Debug)]
pub struct Reason<'a> {
    head: &'a str,
    rest: &'a str,
}

/// More text than 4 GiB; limits of a snapshot stay far below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl Texts {
    /// Stores texts; their order, and how often each comes, does not matter.
    ///
    /// # Errors
    /// [`TooLong`].
    pub(crate) fn of(mut texts: Vec<&str>) -> Result<Self, TooLong> {
        texts.sort_unstable();
        texts.dedup();
        let (mut bytes, mut blocks) = (String::new(), Vec::new());
        let mut ends = Vec::with_capacity(texts.len());
        let place = |bytes: &String| u32::try_from(bytes.len()).map_err(|_| TooLong);
        for block in texts.chunks(BLOCK) {
            let (first, last) = (block.first(), block.last());
            // Sorted: what the first and the last share, all between them do.
            let shared = first.zip(last).map_or("", |(a, b)| shared_beginning(a, b));
            let start = place(&bytes)?;
            bytes.push_str(shared);
            let end = place(&bytes)?;
            blocks.push(Block { start, end });
            for text in block {
                bytes.push_str(text.get(shared.len()..).unwrap_or_default());
                ends.push(place(&bytes)?);
            }
        }
        Ok(Self {
            bytes: bytes.into(),
            blocks: blocks.into(),
            ends: ends.into(),
        })
    }

    /// How many texts there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The text of a number.
    pub(crate) fn get(&self, number: u32) -> Option<Reason<'_>> {
        let number = usize::try_from(number).ok()?;
        let block = self.blocks.get(number / BLOCK)?;
        let end = *self.ends.get(number)?;
        let start = match number % BLOCK {
            0 => block.end,
            _ => *self.ends.get(number.checked_sub(1)?)?,
        };
        Some(Reason {
            head: self.piece(block.start, block.end)?,
            rest: self.piece(start, end)?,
        })
    }

    /// The number of a text, if it is there.
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        let (mut low, mut high) = (0, u32::try_from(self.len()).ok()?);
        while low < high {
            let middle = low.midpoint(high);
            match self.get(middle)?.cmp_text(text) {
                Ordering::Less => low = middle.checked_add(1)?,
                Ordering::Equal => return Some(middle),
                Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn piece(&self, start: u32, end: u32) -> Option<&str> {
        let (start, end) = (usize::try_from(start).ok()?, usize::try_from(end).ok()?);
        self.bytes.get(start..end)
    }
}

/// The longest text that both begin with.
fn shared_beginning<'a>(a: &'a str, b: &str) -> &'a str {
    let differs = a.char_indices().zip(b.chars()).find(|((_, a), b)| a != b);
    let end = differs.map_or(a.len().min(b.len()), |((at, _), _)| at);
    a.get(..end).unwrap_or_default()
}

impl<'a> Reason<'a> {
    /// A text that is in one piece.
    pub fn whole(text: &'a str) -> Self {
        Self {
            head: text,
            rest: "",
        }
    }

    fn bytes(self) -> impl Iterator<Item = u8> + 'a {
        self.head.bytes().chain(self.rest.bytes())
    }

    fn cmp_text(self, text: &str) -> Ordering {
        let text = text.as_bytes();
        match text.split_at_checked(self.head.len()) {
            None => self.head.as_bytes().cmp(text).then(Ordering::Greater),
            Some((head, rest)) => self
                .head
                .as_bytes()
                .cmp(head)
                .then_with(|| self.rest.as_bytes().cmp(rest)),
        }
    }
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.head)?;
        f.write_str(self.rest)
    }
}

impl Hash for Reason<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // As a text, whatever its pieces are.
        state.write(self.head.as_bytes());
        state.write(self.rest.as_bytes());
        state.write_u8(0xff);
    }
}

impl PartialEq<str> for Reason<'_> {
    fn eq(&self, text: &str) -> bool {
        text.strip_prefix(self.head) == Some(self.rest)
    }
}

impl PartialEq for Reason<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Reason<'_> {}

impl PartialOrd for Reason<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Reason<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl From<Reason<'_>> for Arc<str> {
    fn from(reason: Reason<'_>) -> Self {
        [reason.head, reason.rest].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_stored_is_found_and_nothing_else(
            texts in prop::collection::vec("(a/|a/b|é|éa){0,4}[a-cé]{0,3}", 0..80),
            others in prop::collection::vec("(a/|a/b|é|éa){0,4}[a-cé]{0,3}", 0..20),
        ) {
            let stored = Texts::of(texts.iter().map(String::as_str).collect()).unwrap();
            let mut sorted: Vec<&str> = texts.iter().map(String::as_str).collect();
            sorted.sort_unstable();
            sorted.dedup();
            prop_assert_eq!(stored.len(), sorted.len());
            for (number, text) in (0u32..).zip(&sorted) {
                let kept = stored.get(number).unwrap();
                prop_assert_eq!(kept.to_string(), *text);
                prop_assert_eq!(&*Arc::<str>::from(kept), *text);
                prop_assert!(kept == **text);
                prop_assert_eq!(stored.find(text), Some(number));
            }
            prop_assert!(stored.get(u32::try_from(sorted.len()).unwrap()).is_none());
            for text in &others {
                let place = sorted.binary_search(&text.as_str()).ok();
                prop_assert_eq!(stored.find(text), place.map(|at| u32::try_from(at).unwrap()));
            }
        }

        #[test]
        fn pieces_compare_as_the_texts_that_they_make(
            a in ("[a-c]{0,3}", "[a-c]{0,3}"),
            b in ("[a-c]{0,3}", "[a-c]{0,3}"),
        ) {
            let (one, other) = (
                Reason { head: &a.0, rest: &a.1 },
                Reason { head: &b.0, rest: &b.1 },
            );
            let (text, other_text) = (format!("{}{}", a.0, a.1), format!("{}{}", b.0, b.1));
            prop_assert_eq!(one.cmp(&other), text.cmp(&other_text));
            prop_assert_eq!(one.cmp_text(&other_text), text.cmp(&other_text));
            prop_assert_eq!(one == *other_text.as_str(), text == other_text);
            prop_assert_eq!(one == other, text == other_text);
        }
    }

    #[test]
    fn ids_that_begin_alike_store_that_once() {
        let ids: Vec<String> = (0..10_000)
            .map(|n| format!("AuthorizationPolicy/shop/grant-{n:04}/0"))
            .collect();
        let stored = Texts::of(ids.iter().map(String::as_str).collect()).unwrap();
        assert!(stored.bytes.len() < 10_000 * 8, "{}", stored.bytes.len());
    }
}
