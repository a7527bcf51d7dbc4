//! YAML and JSON text to trees that know where each value stands.
//!
//! A file is cut into documents at its `---` lines, as Kubernetes does, so that one broken document leaves the others
//! readable. What breaks a document's syntax or its limits ends it there: [`Document::complete`] is false and
//! [`Document::root`] holds what stood before. What only spoils a value (a duplicate key, a tag) leaves [`Value::Bad`] in
//! its place. Either way there is a [`Defect`], and no object with a defect is valid.

mod text;

use crate::finding::Code;
use crate::limits::{
    ALIAS_WEIGHT_MAX, DEPTH_MAX, DOCUMENT_BYTES_MAX, DOCUMENTS_MAX, FINDINGS_EACH_MAX, NODES_MAX,
};
use crate::map::HashMap;
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use text::{as_json, checked_text, chunk_at, chunks, defect, is_marker};

/// A position in a file; both from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: Place,
    /// Last line it takes.
    pub(crate) end_line: u32,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Refused already, with a [`Defect`].
    Bad,
}

/// One key of a mapping. Keys are unique: a repeated one holds [`Value::Bad`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Place,
    pub(crate) value: Node,
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Node {
    fn bad(at: Place) -> Self {
        Self {
            value: Value::Bad,
            at,
            end_line: at.line,
        }
    }

    /// What YAML calls it, for messages.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Bool(b) => format!("the boolean {b}"),
            Value::Int(i) => format!("the number {i}"),
            Value::Float(_) => "a fractional number".into(),
            Value::Text(_) => "a string".into(),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
            Value::Bad => "an unreadable value".into(),
        }
    }

    /// The value of a key, if this is a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.value),
            _ => None,
        }
    }

    /// Its text, if it is a string.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn weight(&self) -> usize {
        1 + match &self.value {
            Value::Text(text) => text.len() / 32,
            Value::List(items) => items.iter().map(Self::weight).sum(),
            Value::Map(entries) => entries
                .iter()
                .map(|e| e.key.len() / 32 + e.value.weight())
                .sum(),
            _ => 0,
        }
    }

    fn depth(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Self::depth).max().unwrap_or(0),
            Value::Map(entries) => entries.iter().map(|e| e.value.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }
}

/// Something wrong with the text itself.
#[derive(Clone, Debug)]
pub(crate) struct Defect {
    pub(crate) at: Place,
    pub(crate) code: Code,
    pub(crate) message: String,
}

/// One document of a file.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) root: Node,
    pub(crate) defects: Vec<Defect>,
    /// False if the text could not be read to its end.
    pub(crate) complete: bool,
    /// Whether the text, where it is faulty, names a Cedar kind: if not, the document was none.
    pub(crate) names_cedar: bool,
    /// Whether the text, where it is faulty, names an EgressNetwork.
    pub(crate) names_egress: bool,
}

impl Document {
    /// Text that is not looked at any further.
    fn refused(defect: Defect, text: &[u8]) -> Self {
        Self {
            root: Node::bad(defect.at),
            defects: vec![defect],
            complete: false,
            names_cedar: names_cedar(text),
            names_egress: names_egress(text),
        }
    }

    /// Keeps so many defects that one text cannot fill the memory with them; the last one counts the rest.
    fn limit_defects(mut self) -> Self {
        let rest = self
            .defects
            .split_off(self.defects.len().min(FINDINGS_EACH_MAX));
        if let Some(first) = rest.first() {
            let message = format!("and {} more in this document", rest.len());
            self.defects.push(Defect {
                at: first.at,
                code: first.code,
                message,
            });
        }
        self
    }
}

/// Reads a file; documents without content are left out.
pub(crate) fn read(bytes: &[u8]) -> Vec<Document> {
    let text = match checked_text(bytes) {
        Ok(text) => text,
        Err(defect) => return vec![Document::refused(defect, bytes)],
    };
    if let Some(json) = as_json(text) {
        return read_chunk(&json, 0);
    }
    let documents = read_documents(text, 0);
    if documents.len() > DOCUMENTS_MAX {
        let at = documents
            .get(DOCUMENTS_MAX)
            .map_or(1, |one| one.root.at.line);
        let message = format!("more than {DOCUMENTS_MAX} documents in one file");
        let defect = defect(at, 1, Code::Limit, message);
        return vec![Document::refused(defect, bytes)];
    }
    documents
}

/// Reads documents of a file that stand behind so many lines; not many more than a file may have.
pub(crate) fn read_documents(text: &str, lines_before: u32) -> Vec<Document> {
    let mut documents = Vec::new();
    for (first_line, chunk) in chunks(text) {
        documents.extend(read_chunk(chunk, lines_before.saturating_add(first_line)));
        if documents.len() > DOCUMENTS_MAX {
            break;
        }
    }
    documents
}

/// Cuts a file where documents begin, into pieces of about so many bytes, each with the number of lines before it. `None`
/// if it must be read as a whole: it is no text, is JSON, or might have more documents than a file may have.
pub(crate) fn cut(bytes: &[u8], about: usize) -> Option<Vec<(u32, &str)>> {
    let text = checked_text(bytes).ok()?;
    if as_json(text).is_some() {
        return None;
    }
    let mut pieces = Vec::new();
    let (mut start, mut start_line) = (0, 0);
    let (mut offset, mut documents) = (0_usize, 1_usize);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if is_marker(line) {
            documents = documents.saturating_add(1);
            if offset.saturating_sub(start) >= about.max(1) {
                pieces.push((start_line, text.get(start..offset)?));
                (start, start_line) = (offset, narrow(number));
            }
        } else if line.starts_with("...") {
            // A document may end without the next one's marker.
            documents = documents.saturating_add(1);
        }
        offset = offset.saturating_add(line.len());
    }
    pieces.push((start_line, text.get(start..)?));
    (documents <= DOCUMENTS_MAX).then_some(pieces)
}

/// The text of the document of a file that holds a line, and the number of lines before it. A JSON file is one document.
pub(crate) fn document_at(bytes: &[u8], line: u32) -> Option<(u32, &str)> {
    let text = std::str::from_utf8(bytes).ok()?;
    // Columns count from behind a byte order mark; a line of its own has none.
    if text.starts_with('\u{feff}') {
        return None;
    }
    match as_json(text) {
        Some(_) => Some((0, text)),
        None => chunk_at(text, line),
    }
}

/// Reads the text of one document, or of a JSON file, that stands behind so many lines of its file.
pub(crate) fn read_at(text: &str, lines_before: u32) -> Vec<Document> {
    match as_json(text) {
        Some(json) => read_chunk(&json, lines_before),
        None => read_chunk(text, lines_before),
    }
}

fn read_chunk(text: &str, lines_before: u32) -> Vec<Document> {
    if text.len() > DOCUMENT_BYTES_MAX {
        let message = format!(
            "the document has {} bytes; the limit is {DOCUMENT_BYTES_MAX}",
            text.len()
        );
        let defect = defect(lines_before + 1, 1, Code::Limit, message);
        return vec![Document::refused(defect, text.as_bytes())];
    }
    let mut documents = Vec::new();
    let mut builder = Builder::new(lines_before);
    for event in Parser::new_from_str(text) {
        let step = match event {
            Ok((event, span)) => builder.on_event(event, span),
            Err(error) => {
                let at = builder.place(error.marker().line(), error.marker().col());
                Err(Defect {
                    at,
                    code: Code::Syntax,
                    message: error.info().to_owned(),
                })
            }
        };
        match step {
            Ok(Some(root)) => {
                let defects = std::mem::take(&mut builder.defects);
                if root.value != Value::Null || !defects.is_empty() {
                    let document = Document {
                        names_cedar: !defects.is_empty() && names_cedar(text.as_bytes()),
                        names_egress: !defects.is_empty() && names_egress(text.as_bytes()),
                        root,
                        defects,
                        complete: true,
                    };
                    documents.push(document.limit_defects());
                    if documents.len() > DOCUMENTS_MAX {
                        break;
                    }
                }
                builder = Builder::new(lines_before);
            }
            Ok(None) => {}
            Err(fatal) => {
                let mut document = builder.broken(fatal);
                document.names_cedar = names_cedar(text.as_bytes());
                document.names_egress = names_egress(text.as_bytes());
                documents.push(document.limit_defects());
                break;
            }
        }
    }
    documents
}

/// A container that is still open.
struct Open {
    node: Node,
    anchor: usize,
    /// Key that waits for its value.
    key: Option<(String, Place)>,
    keys: Keys,
}

/// Keys of one mapping so far, by their place in its entries: an index once there are many, which most mappings never
/// have.
#[derive(Default)]
struct Keys(HashMap<String, usize>);

/// Keys that are compared one after the other.
const PLAIN_KEYS_MAX: usize = 16;

impl Keys {
    /// The place of a key among the entries, if it is there.
    fn place(&mut self, entries: &[Entry], key: &str) -> Option<usize> {
        if entries.len() <= PLAIN_KEYS_MAX {
            return entries.iter().position(|entry| entry.key == key);
        }
        // No two entries have one key: as many keys are known as entries were looked at.
        for (place, entry) in entries.iter().enumerate().skip(self.0.len()) {
            self.0.insert(entry.key.clone(), place);
        }
        self.0.get(key).copied()
    }
}

struct Builder {
    lines_before: u32,
    stack: Vec<Open>,
    anchors: HashMap<usize, Node>,
    defects: Vec<Defect>,
    nodes: usize,
    alias_weight: usize,
    root: Option<Node>,
    end_line: u32,
}

impl Builder {
    fn new(lines_before: u32) -> Self {
        let (stack, anchors, defects) = (Vec::new(), HashMap::default(), Vec::new());
        Self {
            lines_before,
            stack,
            anchors,
            defects,
            nodes: 0,
            alias_weight: 0,
            root: None,
            end_line: lines_before + 1,
        }
    }

    fn place(&self, line: usize, column: usize) -> Place {
        Place {
            line: narrow(line.max(1)).saturating_add(self.lines_before),
            column: narrow(column + 1),
        }
    }

    /// The finished document, if this event ended it.
    fn on_event(&mut self, event: Event<'_>, span: Span) -> Result<Option<Node>, Defect> {
        let at = self.place(span.start.line(), span.start.col());
        if !matches!(
            event,
            Event::SequenceEnd | Event::MappingEnd | Event::DocumentEnd | Event::StreamEnd
        ) {
            self.end_line = self.place(span.end.line(), 0).line.max(at.line);
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let node = self.scalar(&text, style, tag.is_some(), at);
                self.deliver(node, anchor)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(Value::List(Vec::new()), anchor, tag.is_some(), at)?
            }
            Event::MappingStart(anchor, tag) => {
                self.open(Value::Map(Vec::new()), anchor, tag.is_some(), at)?
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(mut open) = self.stack.pop() {
                    open.node.end_line = self.end_line;
                    self.deliver(open.node, open.anchor)?;
                }
            }
            Event::Alias(anchor) => self.alias(anchor, at)?,
            Event::DocumentEnd => return Ok(self.root.take()),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => {}
        }
        Ok(None)
    }

    fn count(&mut self, weight: usize, at: Place) -> Result<(), Defect> {
        self.nodes += weight;
        if self.nodes > NODES_MAX {
            return Err(Defect {
                at,
                code: Code::Limit,
                message: format!("more than {NODES_MAX} values in one document"),
            });
        }
        Ok(())
    }

    fn open(&mut self, value: Value, anchor: usize, tagged: bool, at: Place) -> Result<(), Defect> {
        if self.stack.len() >= DEPTH_MAX {
            return Err(Defect {
                at,
                code: Code::Limit,
                message: format!("nested deeper than {DEPTH_MAX} levels"),
            });
        }
        if tagged {
            self.defects.push(Defect {
                at,
                code: Code::Refused,
                message: "tags are not supported".into(),
            });
        }
        self.stack.push(Open {
            node: Node {
                value,
                at,
                end_line: at.line,
            },
            anchor,
            key: None,
            keys: Keys::default(),
        });
        Ok(())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tagged: bool, at: Place) -> Node {
        let key_position = self
            .stack
            .last()
            .is_some_and(|open| matches!(open.node.value, Value::Map(_)) && open.key.is_none());
        let value = if tagged {
            self.defects.push(Defect {
                at,
                code: Code::Refused,
                message: "tags are not supported".into(),
            });
            Value::Bad
        } else if key_position || style != ScalarStyle::Plain {
            Value::Text(text.to_owned())
        } else {
            plain(text).unwrap_or_else(|| {
                self.defects.push(Defect {
                    at,
                    code: Code::Refused,
                    message: format!("`{text}` is not a usable number"),
                });
                Value::Bad
            })
        };
        Node {
            value,
            at,
            end_line: self.end_line,
        }
    }

    fn alias(&mut self, anchor: usize, at: Place) -> Result<(), Defect> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(Defect {
                at,
                code: Code::Refused,
                message: "the alias refers to a value that contains it".into(),
            });
        };
        let weight = node.weight();
        self.alias_weight += weight;
        if self.alias_weight > ALIAS_WEIGHT_MAX {
            let message = format!("aliases expand to more than {ALIAS_WEIGHT_MAX} values");
            return Err(Defect {
                at,
                code: Code::Limit,
                message,
            });
        }
        if self.stack.len() + node.depth() > DEPTH_MAX {
            return Err(Defect {
                at,
                code: Code::Limit,
                message: format!("aliases nest deeper than {DEPTH_MAX} levels"),
            });
        }
        self.count(weight, at)?;
        self.deliver(node, 0)
    }

    /// Puts a finished node where it belongs: as root, list item, key or value.
    fn deliver(&mut self, node: Node, anchor: usize) -> Result<(), Defect> {
        self.count(1, node.at)?;
        if anchor != 0 {
            self.count(node.weight(), node.at)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut open.node.value, open.key.take()) {
            (Value::List(items), _) => items.push(node),
            (Value::Map(entries), Some((key, at))) => {
                if let Some(first) = open.keys.place(entries, &key) {
                    let before = entries.get(first).map_or(at, |e| e.at);
                    let message =
                        format!("key `{key}` stands twice, first on line {}", before.line);
                    self.defects.push(Defect {
                        at,
                        code: Code::DuplicateKey,
                        message,
                    });
                    if let Some(entry) = entries.get_mut(first) {
                        entry.value = Node::bad(entry.value.at);
                    }
                } else {
                    entries.push(Entry {
                        key,
                        at,
                        value: node,
                    });
                }
            }
            (Value::Map(_), None) => {
                let refused = match &node.value {
                    Value::Text(key) if key == "<<" => Some("merge keys (`<<`) are not supported"),
                    Value::Text(_) => None,
                    Value::Bad => Some("the key is unreadable"),
                    _ => Some("a key must be a string"),
                };
                if let Some(message) = refused {
                    self.defects.push(Defect {
                        at: node.at,
                        code: Code::Refused,
                        message: message.into(),
                    });
                }
                let key = match node.value {
                    Value::Text(key) => key,
                    _ => format!("<unreadable key at {}:{}>", node.at.line, node.at.column),
                };
                open.key = Some((key, node.at));
            }
            _ => {}
        }
        Ok(())
    }

    /// What stood before the text broke: open containers are closed, a key without value holds [`Value::Bad`].
    fn broken(mut self, fatal: Defect) -> Document {
        let mut inner: Option<Node> = self.root.take();
        while let Some(mut open) = self.stack.pop() {
            open.node.end_line = fatal.at.line;
            let value = inner.take();
            match &mut open.node.value {
                Value::List(items) => items.extend(value),
                Value::Map(entries) => {
                    if let Some((key, at)) = open.key.take()
                        && open.keys.place(entries, &key).is_none()
                    {
                        entries.push(Entry {
                            key,
                            at,
                            value: value.unwrap_or_else(|| Node::bad(at)),
                        });
                    }
                }
                _ => {}
            }
            inner = Some(open.node);
        }
        let root = inner.unwrap_or_else(|| Node::bad(fatal.at));
        self.defects.push(fatal);
        Document {
            root,
            defects: self.defects,
            complete: false,
            names_cedar: false,
            names_egress: false,
        }
    }
}

/// Whether a text names `CedarPolicy` or `ClusterCedarPolicy`, in whatever encoding of Unicode.
fn names_cedar(bytes: &[u8]) -> bool {
    names(bytes, b"CedarPolicy")
}

/// Likewise `EgressNetwork`.
fn names_egress(bytes: &[u8]) -> bool {
    names(bytes, b"EgressNetwork")
}

fn names(bytes: &[u8], name: &[u8]) -> bool {
    let plain: Vec<u8> = bytes.iter().copied().filter(|b| *b != 0).collect();
    plain.windows(name.len()).any(|window| window == name)
}

/// A plain scalar by the YAML 1.2 core schema; numbers that YAML 1.1 reads otherwise stay text. `None`: refused.
pub(crate) fn plain(text: &str) -> Option<Value> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => {
            let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
            if matches!(
                unsigned,
                ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN"
            ) {
                return None;
            }
            let digits = !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit());
            if digits && (unsigned == "0" || !unsigned.starts_with('0')) {
                return text.parse().ok().map(Value::Int);
            }
            if let Some(hex) = text.strip_prefix("0x") {
                return i64::from_str_radix(hex, 16)
                    .map(Value::Int)
                    .or(Ok::<_, ()>(Value::Text(text.to_owned())))
                    .ok();
            }
            let floatish = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
                && unsigned
                    .bytes()
                    .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
                && unsigned.bytes().any(|b| matches!(b, b'.' | b'e' | b'E'));
            match text.parse() {
                Ok(number) if floatish => Value::Float(number),
                _ => Value::Text(text.to_owned()),
            }
        }
    })
}

fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
