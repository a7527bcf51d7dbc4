//! The report as one HTML file that loads nothing: no script, no font, no image from elsewhere, and a policy in it that
//! forbids them. What others chose (names, paths of files, identities) is escaped.

use super::document::{Bar, Block, Cell, Document, Grid, Tone, document};
use crate::judge::Status;
use crate::report::Report;
use data_encoding::BASE64;
use ring::digest::{SHA256, digest};
use std::fmt::Write as _;

const STYLE: &str = include_str!("html/style.css");

/// The report as HTML.
pub fn write(report: &Report) -> String {
    let document = document(report);
    let hash = BASE64.encode(digest(&SHA256, STYLE.as_bytes()).as_ref());
    let mut out = String::new();
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
        escaped(&document.title)
    );
    contents(&mut out, &document);
    let _ = write!(
        out,
        "<main>\n<header><h1>{}</h1><p class=\"sub\">{}</p></header>\n",
        escaped(&document.title),
        escaped(&document.subtitle)
    );
    for one in &document.blocks {
        block(&mut out, one);
    }
    let _ = write!(
        out,
        "<footer>mesh {}</footer>\n</main>\n</body>\n</html>\n",
        escaped(&report.generator)
    );
    out
}

/// Links to all headings.
fn contents(out: &mut String, document: &Document) {
    out.push_str("<nav aria-label=\"Contents\"><ul>\n");
    for one in &document.blocks {
        if let Block::Heading(level, text, link) = one {
            let _ = writeln!(
                out,
                "<li class=\"l{level}\"><a href=\"#{}\">{}</a></li>",
                escaped(link),
                escaped(text)
            );
        }
    }
    out.push_str("</ul></nav>\n");
}

fn block(out: &mut String, block: &Block) {
    match block {
        Block::Heading(level, text, link) => {
            let level = level + 1;
            let _ = writeln!(
                out,
                "<h{level} id=\"{}\">{}</h{level}>",
                escaped(link),
                escaped(text)
            );
        }
        Block::Paragraph(text) => {
            let _ = writeln!(out, "<p>{}</p>", code(text));
        }
        Block::Facts(facts) => {
            out.push_str("<dl>\n");
            for (name, value) in facts {
                let _ = writeln!(out, "<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(value));
            }
            out.push_str("</dl>\n");
        }
        Block::Bars(bars) => bars_of(out, bars),
        Block::Grid(grid) => table(out, grid),
    }
}

/// One bar for each framework, and numbers beside it.
fn bars_of(out: &mut String, bars: &[Bar]) {
    out.push_str(
        "<div class=\"scroll\"><table class=\"bars\"><thead><tr><th>framework</th><th></th>",
    );
    for status in Status::ALL {
        let _ = write!(out, "<th class=\"n\">{}</th>", status.text());
    }
    out.push_str("</tr></thead><tbody>\n");
    for bar in bars {
        let total: usize = bar.counts.iter().map(|(_, count)| count).sum();
        let _ = write!(
            out,
            "<tr><td><a href=\"#{}\">{}</a></td><td><svg class=\"bar\" viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{} controls\">",
            escaped(&bar.link),
            escaped(&bar.name),
            total
        );
        let mut from = 0;
        for (status, count) in &bar.counts {
            let width = count * 1_000 / total.max(1);
            let _ = write!(
                out,
                "<rect class=\"f-{}\" x=\"{from}\" y=\"0\" width=\"{width}\" height=\"10\"/>",
                status.text()
            );
            from += width;
        }
        out.push_str("</svg></td>");
        for (_, count) in &bar.counts {
            let _ = write!(out, "<td class=\"n\">{count}</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

fn table(out: &mut String, grid: &Grid) {
    out.push_str("<div class=\"scroll\"><table><thead><tr>");
    for (name, _) in &grid.columns {
        let _ = write!(out, "<th>{}</th>", escaped(name));
    }
    out.push_str("</tr></thead><tbody>\n");
    for row in &grid.rows {
        out.push_str("<tr>");
        row.iter().for_each(|one| cell(out, one));
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    if grid.more > 0 {
        let _ = writeln!(
            out,
            "<p class=\"more\">and {} more rows; report.json and `mesh audit evidence` have them</p>",
            grid.more
        );
    }
}

fn cell(out: &mut String, cell: &Cell) {
    let lines: Vec<String> = cell.text.lines().map(code).collect();
    let _ = match cell.tone {
        Tone::Plain => write!(out, "<td>{}</td>", lines.join("<br>")),
        Tone::Quiet => write!(out, "<td class=\"quiet\">{}</td>", lines.join("<br>")),
        Tone::Strong => {
            let (first, rest) = lines
                .split_first()
                .map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
            let rest: String = rest
                .iter()
                .map(|line| format!("<br><span class=\"quiet\">{line}</span>"))
                .collect();
            write!(out, "<td><b>{first}</b>{rest}</td>")
        }
        Tone::Status(status) => badge(out, status.text(), &lines),
        Tone::Severity(severity) => badge(out, severity.text(), &lines),
    };
}

fn badge(out: &mut String, class: &str, lines: &[String]) -> std::fmt::Result {
    let (first, rest) = lines
        .split_first()
        .map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let rest: String = rest.iter().map(|line| format!("<br>{line}")).collect();
    write!(
        out,
        "<td><span class=\"badge b-{class}\">{first}</span>{rest}</td>"
    )
}

/// Text with what stands between backticks set as code.
fn code(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return escaped(text);
    }
    parts
        .iter()
        .enumerate()
        .map(|(at, part)| {
            let part = escaped(part);
            if at % 2 == 1 {
                format!("<code>{part}</code>")
            } else {
                part
            }
        })
        .collect()
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_chose_stays_text() {
        let hostile = "<script>alert(1)</script>\" onload='x' `<b>` &amp;";
        assert_eq!(
            code(hostile),
            "&lt;script&gt;alert(1)&lt;/script&gt;&quot; onload=&#39;x&#39; <code>&lt;b&gt;</code> &amp;amp;"
        );
        assert_eq!(code("one ` alone <"), "one ` alone &lt;");
    }
}
