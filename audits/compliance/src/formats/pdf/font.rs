//! Helvetica, one of the fonts that every reader of PDF has: widths of its characters, and text set to a width.

/// Which cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Font {
    /// Upright.
    Regular,
    /// Bold.
    Bold,
}

/// Widths of the characters from blank to tilde, thousandths of the size (Adobe's metrics of Helvetica).
const REGULAR: [u16; 95] = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556,
    556, 556, 556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667,
    611, 778, 722, 278, 500, 667, 556, 833, 722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667,
    667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500,
    222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584,
];

/// The same of Helvetica-Bold.
const BOLD: [u16; 95] = [
    278, 333, 474, 556, 556, 889, 722, 238, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556,
    556, 556, 556, 556, 556, 556, 556, 333, 333, 584, 584, 584, 611, 975, 722, 722, 722, 722, 667,
    611, 778, 722, 278, 556, 722, 611, 833, 722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667,
    667, 611, 333, 278, 333, 584, 556, 333, 556, 611, 556, 611, 556, 333, 611, 611, 278, 278, 556,
    278, 889, 611, 611, 611, 611, 389, 556, 333, 611, 556, 778, 556, 556, 500, 389, 280, 389, 584,
];

/// Text of printable ASCII alone; every other character is written as its number. The font has no others.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if (' '..='~').contains(&c) {
            out.push(c);
        } else {
            out.extend(c.escape_unicode());
        }
    }
    out
}

impl Font {
    /// Width of a text of printable ASCII, points.
    pub(super) fn width(self, text: &str, size: f32) -> f32 {
        let widths = match self {
            Self::Regular => &REGULAR,
            Self::Bold => &BOLD,
        };
        let sum: u32 = text
            .bytes()
            .map(|byte| widths.get(usize::from(byte.wrapping_sub(b' '))))
            .map(|width| u32::from(width.copied().unwrap_or(600)))
            .sum();
        sum as f32 * size / 1_000.0
    }

    /// Lines of at most this width. Words are kept whole where they fit a line; longer ones are broken, where they can be
    /// behind a `/`, `.`, `-`, `_` or `:`.
    pub(super) fn wrap(self, text: &str, size: f32, width: f32) -> Vec<String> {
        let mut out = Vec::new();
        for paragraph in text.lines() {
            let mut line = String::new();
            for word in plain(paragraph).split(' ').filter(|word| !word.is_empty()) {
                let joined = if line.is_empty() {
                    word.to_owned()
                } else {
                    format!("{line} {word}")
                };
                if self.width(&joined, size) <= width {
                    line = joined;
                    continue;
                }
                if !line.is_empty() {
                    out.push(std::mem::take(&mut line));
                }
                let mut rest = word;
                while self.width(rest, size) > width {
                    let (head, tail) = rest.split_at(self.fitting(rest, size, width));
                    out.push(head.to_owned());
                    rest = tail;
                }
                line = rest.to_owned();
            }
            out.push(line);
        }
        if out.is_empty() {
            out.push(String::new());
        }
        out
    }

    /// How many bytes of a word fit, at least one; behind a mark if one is in the second half.
    fn fitting(self, word: &str, size: f32, width: f32) -> usize {
        let mut most = 1;
        for at in 1..word.len() {
            let head = word.get(..at).unwrap_or_default();
            if self.width(head, size) > width {
                break;
            }
            most = at;
        }
        let head = word.get(..most).unwrap_or_default();
        let mark = head.rfind(['/', '.', '-', '_', ':']).map(|at| at + 1);
        mark.filter(|at| at * 2 > most).unwrap_or(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_it_may_be_and_nothing_is_lost() {
        let text = "spiffe://cluster.local/ns/shop/sa/web may reach shop/orders:8080 by AuthorizationPolicy/shop/orders-read/0";
        for width in [10.0, 30.0, 80.0, 200.0] {
            let lines = Font::Regular.wrap(text, 8.0, width);
            assert!(
                lines
                    .iter()
                    .all(|line| Font::Regular.width(line, 8.0) <= width),
                "{width}: {lines:?}"
            );
            let joined: String = lines.concat();
            assert_eq!(joined.replace(' ', ""), text.replace(' ', ""));
        }
    }

    #[test]
    fn what_the_font_lacks_is_written_as_numbers() {
        assert_eq!(plain("a\u{e4}\u{202e}\n"), "a\\u{e4}\\u{202e}\\u{a}");
    }
}
