//! The report as a PDF of A4 pages: set by this program alone, with a font that every reader has, an outline, and nothing
//! in it that varies: the same report has the same bytes.

mod font;
mod page;

use super::document::{Bar, Block, Cell, Document, Grid, Tone, document};
use crate::evidence::Severity;
use crate::judge::Status;
use crate::report::Report;
use font::Font;
use page::{BOTTOM, Colour, LEFT, Pages, TOP, WIDTH};

const INK: Colour = [0.11, 0.12, 0.14];
const QUIET: Colour = [0.35, 0.39, 0.45];
const LINE: Colour = [0.85, 0.87, 0.90];
const WHITE: Colour = [1.0, 1.0, 1.0];
/// Size of the text of tables, and the distance of its lines.
const CELL: f32 = 7.6;
const CELL_LINE: f32 = 9.6;
const GAP: f32 = 7.0;

/// The report as PDF.
pub fn write(report: &Report) -> Vec<u8> {
    let document = document(report);
    let mut pages = Pages::new(&document.subtitle);
    title(&mut pages, &document);
    for one in &document.blocks {
        block(&mut pages, one);
    }
    pages.finish(&document.title, &report.generator)
}

fn title(pages: &mut Pages, document: &Document) {
    pages.down(18.0);
    pages.text(LEFT, 22.0, Font::Bold, INK, &document.title);
    pages.down(20.0);
    pages.text(LEFT, 11.0, Font::Regular, QUIET, &document.subtitle);
    pages.down(8.0);
    pages.rule(LEFT, WIDTH, 1.6, INK);
    pages.down(14.0);
}

fn block(pages: &mut Pages, block: &Block) {
    match block {
        Block::Heading(level, text, _) => heading(pages, *level, text),
        Block::Paragraph(text) => paragraph(pages, text),
        Block::Facts(facts) => {
            for (name, value) in facts {
                fact(pages, name, value);
            }
            pages.down(6.0);
        }
        Block::Bars(bars) => bars_of(pages, bars),
        Block::Grid(grid) => table(pages, grid),
    }
}

fn heading(pages: &mut Pages, level: u8, text: &str) {
    let (size, before, after) = if level == 1 {
        (15.0, 26.0, 9.0)
    } else {
        (11.0, 20.0, 6.0)
    };
    // Never alone at the foot of a page.
    pages.need(before + after + 60.0);
    pages.down(if pages.is_fresh() { size } else { before });
    pages.bookmark(level, text);
    pages.text(LEFT, size, Font::Bold, INK, text);
    pages.down(after);
}

fn paragraph(pages: &mut Pages, text: &str) {
    for line in Font::Regular.wrap(&text.replace('`', ""), 9.0, WIDTH) {
        pages.need(12.0);
        pages.down(12.0);
        pages.text(LEFT, 9.0, Font::Regular, INK, &line);
    }
    pages.down(5.0);
}

fn fact(pages: &mut Pages, name: &str, value: &str) {
    const NAME: f32 = 96.0;
    for (at, line) in Font::Regular
        .wrap(value, 9.0, WIDTH - NAME)
        .iter()
        .enumerate()
    {
        pages.need(12.5);
        pages.down(12.5);
        if at == 0 {
            pages.text(LEFT, 9.0, Font::Regular, QUIET, name);
        }
        pages.text(LEFT + NAME, 9.0, Font::Regular, INK, line);
    }
}

/// One bar for each framework, with its numbers, and what the colours mean.
fn bars_of(pages: &mut Pages, bars: &[Bar]) {
    const NAME: f32 = 176.0;
    const BAR: f32 = 170.0;
    pages.need(30.0);
    pages.down(10.0);
    let column = (WIDTH - NAME - BAR - 14.0) / 5.0;
    let first = LEFT + NAME + BAR + 14.0;
    for (at, status) in Status::ALL.iter().enumerate() {
        let name = match status {
            Status::Satisfied => "satisf.",
            Status::Partial => "partial",
            Status::NotSatisfied => "not sat.",
            Status::InsufficientData => "no data",
            Status::NotApplicable => "n/a",
        };
        pages.text(
            first + at as f32 * column,
            7.0,
            Font::Bold,
            status_colour(*status),
            name,
        );
    }
    for bar in bars {
        let names = Font::Regular.wrap(&bar.name, 8.5, NAME - 8.0);
        pages.need(15.0 * names.len() as f32);
        pages.down(15.0);
        let total: usize = bar.counts.iter().map(|(_, count)| count).sum();
        let mut from = LEFT + NAME;
        for (at, (status, count)) in bar.counts.iter().enumerate() {
            let width = BAR * *count as f32 / total.max(1) as f32;
            if *count > 0 {
                pages.fill(from, -1.5, width, 9.0, status_colour(*status));
            }
            from += width;
            pages.text(
                first + at as f32 * column,
                8.5,
                Font::Regular,
                INK,
                &count.to_string(),
            );
        }
        for (at, name) in names.iter().enumerate() {
            if at > 0 {
                pages.down(10.5);
            }
            pages.text(LEFT, 8.5, Font::Regular, INK, name);
        }
    }
    pages.down(8.0);
}

/// A cell, set: its lines, and whether the first is a badge.
struct Set {
    lines: Vec<(String, Font, Colour)>,
    badge: Option<Colour>,
}

fn table(pages: &mut Pages, grid: &Grid) {
    let sum: f32 = grid
        .columns
        .iter()
        .map(|(_, width)| f32::from(*width))
        .sum();
    let space = WIDTH - GAP * grid.columns.len().saturating_sub(1) as f32;
    let widths: Vec<f32> = grid
        .columns
        .iter()
        .map(|(_, width)| f32::from(*width) * space / sum.max(1.0))
        .collect();
    pages.need(44.0);
    head(pages, grid, &widths);
    for row in &grid.rows {
        let cells: Vec<Set> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| set(cell, *width))
            .collect();
        row_of(pages, grid, &widths, &cells);
    }
    if grid.more > 0 {
        pages.need(14.0);
        pages.down(12.0);
        let text = format!("and {} more rows; report.json has them", grid.more);
        pages.text(LEFT, CELL, Font::Regular, QUIET, &text);
    }
    pages.down(12.0);
}

fn head(pages: &mut Pages, grid: &Grid, widths: &[f32]) {
    let names: Vec<Vec<String>> = grid
        .columns
        .iter()
        .zip(widths)
        .map(|((name, _), width)| Font::Bold.wrap(name, CELL, *width))
        .collect();
    let lines = names.iter().map(Vec::len).max().unwrap_or(1);
    for line in 0..lines {
        pages.down(CELL_LINE + 1.0);
        let mut x = LEFT;
        for (name, width) in names.iter().zip(widths) {
            if let Some(text) = name.get(line) {
                pages.text(x, CELL, Font::Bold, QUIET, text);
            }
            x += width + GAP;
        }
    }
    pages.down(4.0);
    pages.rule(LEFT, WIDTH, 0.9, QUIET);
}

/// A row, line by line: one that is longer than a page goes on below a new head.
fn row_of(pages: &mut Pages, grid: &Grid, widths: &[f32], cells: &[Set]) {
    let lines = cells.iter().map(|cell| cell.lines.len()).max().unwrap_or(1);
    let height = lines as f32 * CELL_LINE + 7.0;
    if pages.left() < height && height < (TOP - BOTTOM) / 3.0 {
        pages.turn();
        head(pages, grid, widths);
    }
    pages.down(3.0);
    for line in 0..lines {
        if pages.left() < CELL_LINE {
            pages.turn();
            head(pages, grid, widths);
            pages.down(3.0);
        }
        pages.down(CELL_LINE);
        let mut x = LEFT;
        for (cell, width) in cells.iter().zip(widths) {
            if let Some((text, font, colour)) = cell.lines.get(line) {
                match cell.badge.filter(|_| line == 0) {
                    Some(fill) => {
                        let wide = font.width(text, CELL) + 6.0;
                        pages.fill(x, -2.2, wide.min(*width), CELL_LINE, fill);
                        pages.text(x + 3.0, CELL, *font, WHITE, text);
                    }
                    None => pages.text(x, CELL, *font, *colour, text),
                }
            }
            x += width + GAP;
        }
    }
    pages.down(4.0);
    pages.rule(LEFT, WIDTH, 0.4, LINE);
}

fn set(cell: &Cell, width: f32) -> Set {
    let text = cell.text.replace('`', "");
    let all = |font: Font, colour: Colour| {
        let lines = font.wrap(&text, CELL, width);
        lines
            .into_iter()
            .map(|line| (line, font, colour))
            .collect::<Vec<_>>()
    };
    let badge = |colour: Colour| {
        let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
        let mut lines: Vec<(String, Font, Colour)> = Font::Bold
            .wrap(first, CELL, width - 6.0)
            .into_iter()
            .map(|line| (line, Font::Bold, colour))
            .collect();
        if !rest.is_empty() {
            let rest = Font::Regular.wrap(rest, CELL, width);
            lines.extend(rest.into_iter().map(|line| (line, Font::Regular, INK)));
        }
        Set {
            lines,
            badge: Some(colour),
        }
    };
    match cell.tone {
        Tone::Plain => Set {
            lines: all(Font::Regular, INK),
            badge: None,
        },
        Tone::Quiet => Set {
            lines: all(Font::Regular, QUIET),
            badge: None,
        },
        Tone::Strong => {
            let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
            let mut lines: Vec<_> = Font::Bold
                .wrap(first, CELL, width)
                .into_iter()
                .map(|line| (line, Font::Bold, INK))
                .collect();
            if !rest.is_empty() {
                let rest = Font::Regular.wrap(rest, CELL, width);
                lines.extend(rest.into_iter().map(|line| (line, Font::Regular, QUIET)));
            }
            Set { lines, badge: None }
        }
        Tone::Status(status) => badge(status_colour(status)),
        Tone::Severity(severity) => badge(severity_colour(severity)),
    }
}

fn status_colour(status: Status) -> Colour {
    match status {
        Status::Satisfied => [0.10, 0.50, 0.29],
        Status::Partial => [0.60, 0.40, 0.0],
        Status::NotSatisfied => [0.71, 0.14, 0.09],
        Status::InsufficientData => [0.34, 0.38, 0.42],
        Status::NotApplicable => [0.55, 0.58, 0.63],
    }
}

fn severity_colour(severity: Severity) -> Colour {
    match severity {
        Severity::High => [0.71, 0.14, 0.09],
        Severity::Medium => [0.60, 0.40, 0.0],
        Severity::Low => [0.55, 0.58, 0.63],
    }
}
