//! All that the command prints: data on stdout, talk on stderr, plain unless a person watches.

use crate::fault::Fault;
use clap::ValueEnum;
use mesh_api::terminal;
pub(crate) use mesh_api::terminal::printable;
use serde::Serialize;
use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal, Write};

/// Columns that a text table keeps to; `-o wide` lifts it.
const TEXT_COLUMNS_MAX: usize = 100;

/// Form of the data on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people, at most 100 columns wide.
    #[default]
    Text,
    /// For people with a wide screen.
    Wide,
    /// For programs.
    Json,
    /// The same as `json`, as YAML.
    Yaml,
}

/// How a piece of text stands out where colour is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// It is well.
    Good,
    /// It needs a look.
    Doubtful,
    /// It is broken or refused.
    Bad,
    /// A heading.
    Strong,
}

/// Whether `NO_COLOR`, `TERM` and the streams ask for plain text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings {
    /// A person watches stdout, on a terminal that can move its cursor.
    pub(crate) terminal: bool,
    /// stdout may be coloured.
    pub(crate) stdout_colour: bool,
    /// stderr may be coloured.
    pub(crate) stderr_colour: bool,
}

impl Surroundings {
    /// Reads `NO_COLOR`, `TERM` and what the streams are.
    pub(crate) fn read() -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = io::stdout().is_terminal() && !dumb;
        let stderr_colour = io::stderr().is_terminal() && !dumb && !no_colour;
        Self {
            terminal,
            stdout_colour: terminal && !no_colour,
            stderr_colour,
        }
    }
}

/// stdout and stderr of the command. A reader that went away (`| head`) is no error: what is left is not written.
pub(crate) struct Output {
    out: io::BufWriter<Box<dyn Write>>,
    surroundings: Surroundings,
    closed: bool,
    /// Lines of the picture that [`Output::redraw`] drew last.
    drawn: usize,
}

impl Output {
    /// The process's own stdout and stderr.
    pub(crate) fn standard(surroundings: Surroundings) -> Self {
        Self {
            out: io::BufWriter::new(Box::new(io::stdout())),
            surroundings,
            closed: false,
            drawn: 0,
        }
    }

    /// Whether stdout is a terminal that [`Output::redraw`] works on.
    pub(crate) fn is_terminal(&self) -> bool {
        self.surroundings.terminal
    }

    /// Draws `picture` over the one drawn before.
    pub(crate) fn redraw(&mut self, picture: &str) -> Result<(), Fault> {
        let above = self.drawn;
        if above > 0 {
            // Up by so many lines, then clear to the end of the screen.
            self.text(format_args!("\u{1b}[{above}A\u{1b}[J"))?;
        }
        self.drawn = picture.lines().count();
        self.line(picture.trim_end_matches('\n'))?;
        self.flush()
    }

    /// Whether the reader of stdout went away: what streams may stop.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// `text` in the colour of `tone`, if stdout may be coloured.
    pub(crate) fn toned(&self, tone: Tone, text: &str) -> String {
        coloured(self.surroundings.stdout_colour, tone, text)
    }

    /// Writes one line of data.
    pub(crate) fn line(&mut self, text: impl Display) -> Result<(), Fault> {
        self.text(format_args!("{text}\n"))
    }

    /// Writes data as it is.
    pub(crate) fn text(&mut self, text: impl Display) -> Result<(), Fault> {
        if self.closed {
            return Ok(());
        }
        let written = write!(self.out, "{text}");
        self.settle(written)
    }

    /// Hands everything over to the reader now.
    pub(crate) fn flush(&mut self) -> Result<(), Fault> {
        if self.closed {
            return Ok(());
        }
        let flushed = self.out.flush();
        self.settle(flushed)
    }

    /// Writes `value` as one line of JSON.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> Result<(), Fault> {
        let text = serde_json::to_string(value).map_err(|error| OutputError::Encode {
            why: error.to_string(),
        })?;
        self.line(terminal::json(&text))
    }

    /// Writes `value` in `format`; `text` writes it for people.
    pub(crate) fn value<T: Serialize>(
        &mut self,
        format: Format,
        value: &T,
        text: impl FnOnce(&mut Self, &T) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        match format {
            Format::Text | Format::Wide => text(self, value),
            Format::Json => {
                let json =
                    serde_json::to_string_pretty(value).map_err(|error| OutputError::Encode {
                        why: error.to_string(),
                    })?;
                self.line(terminal::json(&json))
            }
            Format::Yaml => {
                // Through JSON, so that both forms have the same names and the same order.
                let json = serde_json::to_value(value).map_err(|error| OutputError::Encode {
                    why: error.to_string(),
                })?;
                let yaml = serde_saphyr::to_string(&json).map_err(|error| OutputError::Encode {
                    why: error.to_string(),
                })?;
                self.text(yaml)
            }
        }
    }

    /// Writes a table; under `text` it keeps to 100 columns.
    pub(crate) fn table(&mut self, table: &Table, format: Format) -> Result<(), Fault> {
        self.text(table.in_form(format))
    }

    /// Says something on stderr. A closed stderr is no reason to stop.
    pub(crate) fn talk(&mut self, text: impl Display) {
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Says an error on stderr, in the form that was asked for.
    pub(crate) fn fault(&mut self, fault: &Fault, format: Format) {
        let text = match format {
            Format::Text | Format::Wide => fault.text(self.surroundings.stderr_colour),
            Format::Json | Format::Yaml => fault.json(),
        };
        self.talk(text.trim_end());
    }

    fn settle(&mut self, result: io::Result<()>) -> Result<(), Fault> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(error) => Err(OutputError::Write {
                why: error.to_string(),
            }
            .into()),
            Ok(()) => Ok(()),
        }
    }
}

/// Why data could not be printed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum OutputError {
    /// stdout refuses.
    #[error("stdout cannot be written: {why}")]
    #[diagnostic(
        code("MESH-0611"),
        help("look at where stdout goes: a full disk, most often")
    )]
    Write {
        /// What the system says.
        why: String,
    },
    /// A value has no text form.
    #[error("the answer cannot be written in this format: {why}")]
    #[diagnostic(
        code("MESH-0612"),
        help("ask for another `-o` format, and report this as a bug")
    )]
    Encode {
        /// What the encoder says.
        why: String,
    },
}

/// `text` between the escape codes of `tone`, or as it is.
pub(crate) fn coloured(allowed: bool, tone: Tone, text: &str) -> String {
    let code = match tone {
        Tone::Good => "32",
        Tone::Doubtful => "33",
        Tone::Bad => "31",
        Tone::Strong => "1",
    };
    if allowed {
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

/// Rows under headings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self::titled(headings.iter().map(|heading| (*heading).to_owned()))
    }

    /// A table whose headings are data themselves.
    pub(crate) fn titled(headings: impl IntoIterator<Item = String>) -> Self {
        Self {
            headings: headings
                .into_iter()
                .map(|heading| printable(&heading))
                .collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; control characters in cells are shown escaped, so that nothing in them reaches the terminal.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows
            .push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }

    /// The table for people, at most 100 columns wide.
    pub(crate) fn text(&self) -> String {
        self.render(TEXT_COLUMNS_MAX)
    }

    /// The table as it is printed in a form for people.
    pub(crate) fn in_form(&self, format: Format) -> String {
        self.render(match format {
            Format::Wide => usize::MAX,
            _ => TEXT_COLUMNS_MAX,
        })
    }

    fn render(&self, columns_max: usize) -> String {
        let mut widths: Vec<usize> = self
            .headings
            .iter()
            .map(|heading| heading.chars().count())
            .collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        shrink(&mut widths, columns_max);
        let mut text = String::new();
        for row in std::iter::once(&self.headings).chain(&self.rows) {
            let cells = row.iter().zip(&widths).map(|(cell, width)| {
                let cell = shortened(cell, *width);
                let pad = width.saturating_sub(cell.chars().count());
                format!("{cell}{}", " ".repeat(pad))
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

/// Takes from the widest column until all fit, two blanks between columns counted.
fn shrink(widths: &mut [usize], columns_max: usize) {
    const NARROWEST: usize = 6;
    let gaps = widths.len().saturating_sub(1).saturating_mul(2);
    while widths.iter().sum::<usize>().saturating_add(gaps) > columns_max {
        match widths.iter_mut().max() {
            Some(widest) if *widest > NARROWEST => *widest -= 1,
            _ => return,
        }
    }
}

/// `cell`, or its beginning and `..` if it is longer than `width`.
fn shortened(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    cell.chars()
        .take(width.saturating_sub(2))
        .chain("..".chars())
        .collect()
}

/// `secs` for people: `45s`, `12m`, `23h 10m`, `6d 4h`.
pub(crate) fn duration(secs: u64) -> String {
    let (days, hours, minutes) = (secs / 86_400, secs / 3_600 % 24, secs / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs}s"),
        (0, 0, _) => format!("{minutes}m {}s", secs % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// Text for XML. Characters that XML cannot have, escaped or not, become U+FFFD.
pub(crate) fn xml_escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_can_leave_its_attribute() {
        let text = xml_escaped("a\" onload=\"<x>&\u{0}\u{1b}\u{ffff}");
        assert_eq!(
            text,
            "a&quot; onload=&quot;&lt;x&gt;&amp;\u{fffd}\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn a_text_table_keeps_to_its_columns() {
        let mut table = Table::new(&["FROM", "TO", "ID"]);
        table.row([
            "web".to_owned(),
            "orders".to_owned(),
            "spiffe://cluster.local/".repeat(9),
        ]);
        assert!(
            table
                .render(TEXT_COLUMNS_MAX)
                .lines()
                .all(|line| line.chars().count() <= TEXT_COLUMNS_MAX)
        );
        assert!(
            table
                .render(usize::MAX)
                .lines()
                .any(|line| line.len() > TEXT_COLUMNS_MAX)
        );
    }

    #[test]
    fn cells_cannot_steer_the_terminal() {
        let mut table = Table::new(&["PATH"]);
        table.row(["/\u{1b}[31m\n\u{202e}\u{2028}".to_owned()]);
        let steers = |c: char| c != '\n' && terminal::steers(c);
        assert!(!table.render(TEXT_COLUMNS_MAX).contains(steers));
        assert_eq!(table.render(TEXT_COLUMNS_MAX).lines().count(), 2);
    }

    #[test]
    fn durations_read_well() {
        for (secs, text) in [
            (45, "45s"),
            (725, "12m 5s"),
            (83_400, "23h 10m"),
            (532_800, "6d 4h"),
        ] {
            assert_eq!(duration(secs), text);
        }
    }
}
