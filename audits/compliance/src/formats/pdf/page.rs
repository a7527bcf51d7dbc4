//! Pages as they are filled from the top, and the file that they make.

use super::font::{Font, plain};
use pdf_writer::types::PageMode;
use pdf_writer::{Content, Finish, Name, Pdf, Rect, Ref, Str, TextStr};

/// Red, green, blue, each 0 to 1.
pub(super) type Colour = [f32; 3];

/// A4, points.
const PAGE: (f32, f32) = (595.0, 842.0);
/// Left edge of the text.
pub(super) const LEFT: f32 = 42.0;
/// Width of the text.
pub(super) const WIDTH: f32 = PAGE.0 - 2.0 * LEFT;
/// Where the text of a page begins.
pub(super) const TOP: f32 = PAGE.1 - 46.0;
/// Where it ends.
pub(super) const BOTTOM: f32 = 48.0;

const REGULAR: Name<'static> = Name(b"R");
const BOLD: Name<'static> = Name(b"B");

/// An entry of the outline.
struct Bookmark {
    level: u8,
    title: String,
    page: usize,
    y: f32,
}

/// Pages, the last of which is being filled.
pub(super) struct Pages {
    done: Vec<Vec<u8>>,
    content: Content,
    y: f32,
    running: String,
    bookmarks: Vec<Bookmark>,
}

impl Pages {
    /// The first page, empty. `running` stands at the foot of each.
    pub(super) fn new(running: &str) -> Self {
        Self {
            done: Vec::new(),
            content: Content::new(),
            y: TOP,
            running: running.to_owned(),
            bookmarks: Vec::new(),
        }
    }

    /// Moves down.
    pub(super) fn down(&mut self, by: f32) {
        self.y -= by;
    }

    /// What is left of the page.
    pub(super) fn left(&self) -> f32 {
        self.y - BOTTOM
    }

    /// Whether nothing stands on the page yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.y >= TOP
    }

    /// Turns the page if less than this is left.
    pub(super) fn need(&mut self, height: f32) {
        if self.left() < height && !self.is_fresh() {
            self.turn();
        }
    }

    /// Goes on on a new page.
    pub(super) fn turn(&mut self) {
        let content = std::mem::replace(&mut self.content, Content::new());
        self.done.push(content.finish().to_vec());
        self.y = TOP;
    }

    /// Names this place in the outline.
    pub(super) fn bookmark(&mut self, level: u8, title: &str) {
        self.bookmarks.push(Bookmark {
            level,
            title: plain(title),
            page: self.done.len(),
            y: self.y + 20.0,
        });
    }

    /// Text on the present line.
    pub(super) fn text(&mut self, x: f32, size: f32, font: Font, colour: Colour, text: &str) {
        let y = self.y;
        show(&mut self.content, (x, y), size, font, colour, text);
    }

    /// A horizontal line here.
    pub(super) fn rule(&mut self, x: f32, width: f32, thick: f32, colour: Colour) {
        let [r, g, b] = colour;
        self.content.save_state();
        self.content.set_stroke_rgb(r, g, b).set_line_width(thick);
        self.content
            .move_to(x, self.y)
            .line_to(x + width, self.y)
            .stroke();
        self.content.restore_state();
    }

    /// A filled rectangle, whose lower edge is `above` the present line.
    pub(super) fn fill(&mut self, x: f32, above: f32, width: f32, height: f32, colour: Colour) {
        let [r, g, b] = colour;
        self.content.save_state();
        self.content.set_fill_rgb(r, g, b);
        self.content
            .rect(x, self.y + above, width, height)
            .fill_nonzero();
        self.content.restore_state();
    }

    /// The file.
    pub(super) fn finish(mut self, title: &str, generator: &str) -> Vec<u8> {
        self.turn();
        let total = self.done.len();
        let mut refs = Refs(0);
        let (catalog, tree, regular, bold, info) = (
            refs.next(),
            refs.next(),
            refs.next(),
            refs.next(),
            refs.next(),
        );
        let pages: Vec<(Ref, Ref)> = (0..total).map(|_| (refs.next(), refs.next())).collect();
        let mut pdf = Pdf::new();
        let outline = self.outline(&mut pdf, &mut refs, &pages);
        let mut root = pdf.catalog(catalog);
        root.pages(tree);
        if let Some(outline) = outline {
            root.outlines(outline).page_mode(PageMode::UseOutlines);
        }
        root.lang(TextStr("en"));
        root.finish();
        let count = i32::try_from(total).unwrap_or(i32::MAX);
        pdf.pages(tree)
            .kids(pages.iter().map(|(page, _)| *page))
            .count(count);
        for (number, ((id, stream), content)) in pages.iter().zip(&self.done).enumerate() {
            let mut page = pdf.page(*id);
            page.media_box(Rect::new(0.0, 0.0, PAGE.0, PAGE.1))
                .parent(tree)
                .contents(*stream);
            let mut resources = page.resources();
            resources.fonts().pair(REGULAR, regular).pair(BOLD, bold);
            resources.finish();
            page.finish();
            let mut all = content.clone();
            all.push(b'\n');
            all.extend_from_slice(&self.foot(number + 1, total));
            pdf.stream(*stream, &all);
        }
        pdf.type1_font(regular)
            .base_font(Name(b"Helvetica"))
            .encoding_predefined(Name(b"WinAnsiEncoding"));
        pdf.type1_font(bold)
            .base_font(Name(b"Helvetica-Bold"))
            .encoding_predefined(Name(b"WinAnsiEncoding"));
        pdf.document_info(info)
            .title(TextStr(title))
            .producer(TextStr(&format!("mesh {generator}")));
        pdf.finish()
    }

    /// What stands at the foot of a page.
    fn foot(&self, number: usize, total: usize) -> Vec<u8> {
        let mut content = Content::new();
        let quiet = [0.45, 0.49, 0.55];
        show(
            &mut content,
            (LEFT, 26.0),
            7.5,
            Font::Regular,
            quiet,
            &self.running,
        );
        let text = format!("page {number} of {total}");
        let x = LEFT + WIDTH - Font::Regular.width(&text, 7.5);
        show(&mut content, (x, 26.0), 7.5, Font::Regular, quiet, &text);
        content.finish().to_vec()
    }

    /// The outline of two levels; none without headings.
    fn outline(&self, pdf: &mut Pdf, refs: &mut Refs, pages: &[(Ref, Ref)]) -> Option<Ref> {
        let root = refs.next();
        let items: Vec<(&Bookmark, Ref)> = self
            .bookmarks
            .iter()
            .map(|one| (one, refs.next()))
            .collect();
        let chapters: Vec<usize> = items
            .iter()
            .enumerate()
            .filter(|(_, (one, _))| one.level == 1)
            .map(|(at, _)| at)
            .collect();
        let (first, last) = (chapters.first()?, chapters.last()?);
        let id = |at: usize| items.get(at).map(|(_, id)| *id);
        let mut outline = pdf.outline(root);
        outline.first(id(*first)?).last(id(*last)?);
        outline.count(i32::try_from(chapters.len()).ok()?);
        outline.finish();
        for (at, (one, own)) in items.iter().enumerate() {
            // Siblings are the chapters, or the sections between two chapters.
            let before = items.get(..at)?.iter().rev();
            let after = items.get(at + 1..)?;
            let mut item = pdf.outline_item(*own);
            item.title(TextStr(&one.title));
            let page = pages.get(one.page)?.0;
            if one.level == 1 {
                item.parent(root);
                if let Some((_, id)) = before.clone().find(|(b, _)| b.level == 1) {
                    item.prev(*id);
                }
                if let Some((_, id)) = after.iter().find(|(b, _)| b.level == 1) {
                    item.next(*id);
                }
                let sections: Vec<Ref> = after
                    .iter()
                    .take_while(|(b, _)| b.level > 1)
                    .map(|(_, id)| *id)
                    .collect();
                if let (Some(first), Some(last)) = (sections.first(), sections.last()) {
                    item.first(*first).last(*last);
                    // Closed: a negative count.
                    item.count(-i32::try_from(sections.len()).ok()?);
                }
            } else {
                let parent = before
                    .clone()
                    .find(|(b, _)| b.level == 1)
                    .map_or(root, |(_, id)| *id);
                item.parent(parent);
                if let Some((_, id)) = before.clone().next().filter(|(b, _)| b.level > 1) {
                    item.prev(*id);
                }
                if let Some((_, id)) = after.first().filter(|(b, _)| b.level > 1) {
                    item.next(*id);
                }
            }
            item.dest().page(page).xyz(0.0, one.y, None);
        }
        Some(root)
    }
}

fn show(content: &mut Content, at: (f32, f32), size: f32, font: Font, colour: Colour, text: &str) {
    let [r, g, b] = colour;
    let name = match font {
        Font::Regular => REGULAR,
        Font::Bold => BOLD,
    };
    content.begin_text();
    content.set_fill_rgb(r, g, b).set_font(name, size);
    content
        .next_line(at.0, at.1)
        .show(Str(plain(text).as_bytes()));
    content.end_text();
}

/// Numbers of objects, one after the other.
struct Refs(i32);

impl Refs {
    fn next(&mut self) -> Ref {
        self.0 += 1;
        Ref::new(self.0)
    }
}
