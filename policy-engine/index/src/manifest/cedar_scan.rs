//! Cedar text cut into policies, and its depth measured, before Cedar's own parser sees any of it.
//!
//! Cedar's parser has no bound on nesting. This scan has: it takes time in proportion to the text and memory in
//! proportion to [`CEDAR_DEPTH_MAX`]. Its tokens are those of Cedar's lexer, so that both agree where a string or a
//! comment ends; what Cedar's lexer would refuse is refused here. What passes is parsed by Cedar, which has the last word.

use crate::finding::Code;
use crate::limits::{CEDAR_BYTES_MAX, CEDAR_DEPTH_MAX, CEDAR_POLICIES_MAX};

/// One policy of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece<'t> {
    /// From its first token to its `;`.
    pub(crate) text: &'t str,
    /// Lines of the whole text before it.
    pub(crate) line: usize,
    /// It begins as a permit, has its `;`, and the word `forbid` stands nowhere in it, strings and comments included:
    /// even if it cannot be parsed, no forbid is lost with it.
    pub(crate) surely_permit: bool,
    /// It calculates with numbers, which may overflow when it is evaluated.
    pub(crate) calculates: bool,
}

/// Why a text cannot be cut into policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    /// Lines of the text before the place.
    pub(crate) line: usize,
    pub(crate) message: String,
}

/// Cuts a text into its policies.
///
/// # Errors
/// A text over a limit, a character or string that Cedar has no use for, brackets that do not match.
pub(crate) fn policies(text: &str) -> Result<Vec<Piece<'_>>, Refusal> {
    if text.len() > CEDAR_BYTES_MAX {
        let message = format!(
            "the Cedar text has {} bytes; the limit is {CEDAR_BYTES_MAX}",
            text.len()
        );
        return Err(refusal(Code::CedarLimit, 0, message));
    }
    let mut scan = Scan::new(text);
    while let Some(token) = scan.lexer.next()? {
        scan.on_token(token)?;
    }
    scan.finish()
}

fn refusal(code: Code, line: usize, message: impl Into<String>) -> Refusal {
    Refusal {
        code,
        line,
        message: message.into(),
    }
}

/// What the scan tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Word, number, string: an operand or a keyword.
    Word,
    Text,
    Slot,
    Open(char),
    Close(char),
    Semicolon,
    /// `,` and `:`, which part expressions.
    Part,
    And,
    Or,
    /// Every operator that binds closer, `!` and `.` too.
    Operator,
    /// `::` and `@`.
    Joint,
}

#[derive(Clone, Copy, Debug)]
struct Token<'t> {
    kind: Kind,
    text: &'t str,
    /// Byte of the text where it begins.
    at: usize,
    line: usize,
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    line: usize,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn next(&mut self) -> Result<Option<Token<'t>>, Refusal> {
        self.skip();
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(None);
        };
        let (kind, length) = match first {
            '"' => (Kind::Text, self.string(rest)?),
            'a'..='z' | 'A'..='Z' | '_' => (Kind::Word, word(rest)),
            '0'..='9' => (
                Kind::Word,
                rest.bytes().take_while(u8::is_ascii_digit).count(),
            ),
            '?' => (Kind::Slot, 1 + word(rest.get(1..).unwrap_or_default())),
            '(' | '[' | '{' => (Kind::Open(first), 1),
            ')' | ']' | '}' => (Kind::Close(first), 1),
            _ => symbol(rest).ok_or_else(|| {
                let message = format!("`{}` has no meaning in Cedar", first.escape_default());
                refusal(Code::CedarSyntax, self.line, message)
            })?,
        };
        let token = Token {
            kind,
            text: rest.get(..length).unwrap_or_default(),
            at: self.at,
            line: self.line,
        };
        self.take(length);
        Ok(Some(token))
    }

    fn take(&mut self, length: usize) {
        let taken = self.rest().get(..length).unwrap_or_default();
        self.line += taken.bytes().filter(|b| *b == b'\n').count();
        self.at += length;
    }

    /// White space and comments.
    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            let comment = if blank == 0 && rest.starts_with("//") {
                rest.find(['\n', '\r']).unwrap_or(rest.len())
            } else {
                0
            };
            if blank + comment == 0 {
                return;
            }
            self.take(blank + comment);
        }
    }

    /// Bytes of the string at the head of `rest`, quotes included.
    fn string(&self, rest: &str) -> Result<usize, Refusal> {
        let mut escaped = false;
        for (at, c) in rest.char_indices().skip(1) {
            match (escaped, c) {
                (true, '\n') => break,
                (true, _) => escaped = false,
                (false, '\\') => escaped = true,
                (false, '"') => return Ok(at + 1),
                (false, _) => {}
            }
        }
        let message = "a string has no end, or a line break behind a backslash";
        Err(refusal(Code::CedarSyntax, self.line, message))
    }
}

fn word(rest: &str) -> usize {
    let of_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    rest.bytes().take_while(of_word).count()
}

fn symbol(rest: &str) -> Option<(Kind, usize)> {
    const SYMBOLS: &[(&str, Kind)] = &[
        ("&&", Kind::And),
        ("||", Kind::Or),
        ("::", Kind::Joint),
        ("==", Kind::Operator),
        ("!=", Kind::Operator),
        ("<=", Kind::Operator),
        (">=", Kind::Operator),
        ("<", Kind::Operator),
        (">", Kind::Operator),
        ("=", Kind::Operator),
        ("+", Kind::Operator),
        ("-", Kind::Operator),
        ("*", Kind::Operator),
        ("/", Kind::Operator),
        ("%", Kind::Operator),
        ("!", Kind::Operator),
        (".", Kind::Operator),
        ("@", Kind::Joint),
        (",", Kind::Part),
        (":", Kind::Part),
        (";", Kind::Semicolon),
    ];
    let found = SYMBOLS.iter().find(|(text, _)| rest.starts_with(text));
    found.map(|(text, kind)| (*kind, text.len()))
}

/// Depth of what stands between two brackets, as it grows: never less than that of its syntax tree, to which the head of
/// a policy adds a few levels.
///
/// Operators of one chain nest to the left, each one level; of the members of a chain the deepest counts.
#[derive(Default)]
struct Level {
    /// The bracket that ends it.
    closer: Option<char>,
    /// `if`, and the clauses of a policy.
    branches: usize,
    /// Deepest expression that has ended.
    whole: usize,
    or_operators: usize,
    deepest_and: usize,
    and_operators: usize,
    deepest_relation: usize,
    /// Operators of the relation that is open, and its deepest bracket.
    operators: usize,
    inner: usize,
}

impl Level {
    fn relation_ends(&mut self) {
        self.deepest_relation = self.deepest_relation.max(self.operators + self.inner);
        (self.operators, self.inner) = (0, 0);
    }

    fn and_chain_ends(&mut self) {
        self.relation_ends();
        self.deepest_and = self
            .deepest_and
            .max(self.and_operators + self.deepest_relation);
        (self.and_operators, self.deepest_relation) = (0, 0);
    }

    fn expression_ends(&mut self) {
        self.and_chain_ends();
        self.whole = self.whole.max(self.or_operators + self.deepest_and);
        (self.or_operators, self.deepest_and) = (0, 0);
    }

    fn depth(&mut self) -> usize {
        self.expression_ends();
        self.branches + self.whole
    }
}

struct Scan<'t> {
    lexer: Lexer<'t>,
    pieces: Vec<Piece<'t>>,
    levels: Vec<Level>,
    /// Where the open policy begins: byte and lines before it.
    start: Option<(usize, usize)>,
    before: Option<Token<'t>>,
    /// First word of the open policy that is not in an annotation.
    effect: Option<&'t str>,
    calculates: bool,
}

impl<'t> Scan<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            lexer: Lexer {
                text,
                at: 0,
                line: 0,
            },
            pieces: Vec::new(),
            levels: vec![Level::default()],
            start: None,
            before: None,
            effect: None,
            calculates: false,
        }
    }

    fn on_token(&mut self, token: Token<'t>) -> Result<(), Refusal> {
        let before = self.before.replace(token);
        self.start.get_or_insert((token.at, token.line));
        match token.kind {
            Kind::Open(bracket) => return self.open(bracket, before, token.line),
            Kind::Close(bracket) => return self.close(bracket, token.line),
            Kind::Semicolon => return self.end(token),
            Kind::Word => self.word(token.text, before),
            Kind::Operator => self.operator(token.text, before),
            Kind::Text | Kind::Slot | Kind::Part | Kind::And | Kind::Or | Kind::Joint => {}
        }
        let Some(level) = self.levels.last_mut() else {
            return Ok(());
        };
        match token.kind {
            Kind::Part => level.expression_ends(),
            Kind::Or => {
                level.and_chain_ends();
                level.or_operators += 1;
            }
            Kind::And => {
                level.relation_ends();
                level.and_operators += 1;
            }
            _ => {}
        }
        Ok(())
    }

    fn word(&mut self, word: &'t str, before: Option<Token<'t>>) {
        let named = before.is_some_and(|b| matches!(b.text, "." | "has" | "::"));
        let outside = self.levels.len() == 1;
        if outside && self.effect.is_none() && before.is_none_or(|b| b.text != "@") {
            self.effect = Some(word);
        }
        let Some(level) = self.levels.last_mut() else {
            return;
        };
        match word {
            _ if named => {}
            "in" | "has" | "like" | "is" => level.operators += 1,
            "if" => level.branches += 1,
            "then" | "else" => level.expression_ends(),
            "when" | "unless" if outside => level.branches += 1,
            _ => {}
        }
    }

    fn operator(&mut self, operator: &str, before: Option<Token<'t>>) {
        // A minus with nothing before it is a sign.
        let operand = before.is_some_and(|b| {
            matches!(b.kind, Kind::Word | Kind::Text | Kind::Close(_))
                && !matches!(b.text, "in" | "if" | "then" | "else")
        });
        self.calculates |= matches!(operator, "+" | "*") || operator == "-" && operand;
        if let Some(level) = self.levels.last_mut() {
            level.operators += 1;
        }
    }

    fn open(
        &mut self,
        bracket: char,
        before: Option<Token<'t>>,
        line: usize,
    ) -> Result<(), Refusal> {
        let applied = before.is_some_and(|b| match b.kind {
            Kind::Close(_) | Kind::Text => true,
            Kind::Word => bracket == '[',
            _ => false,
        });
        if let Some(level) = self.levels.last_mut() {
            level.operators += usize::from(applied);
        }
        if self.levels.len() > CEDAR_DEPTH_MAX {
            return Err(too_deep(line));
        }
        let closer = match bracket {
            '(' => ')',
            '[' => ']',
            _ => '}',
        };
        self.levels.push(Level {
            closer: Some(closer),
            ..Level::default()
        });
        Ok(())
    }

    fn close(&mut self, bracket: char, line: usize) -> Result<(), Refusal> {
        let ended = self
            .levels
            .pop_if(|level| level.closer == Some(bracket))
            .ok_or_else(|| {
                let message = format!("`{bracket}` closes what is not open");
                refusal(Code::CedarSyntax, line, message)
            });
        let depth = ended?.depth() + 1;
        if let Some(outer) = self.levels.last_mut() {
            outer.inner = outer.inner.max(depth);
        }
        Ok(())
    }

    /// A policy ends at its `;`.
    fn end(&mut self, semicolon: Token<'t>) -> Result<(), Refusal> {
        let end = semicolon.at + semicolon.text.len();
        self.piece(end, true)
    }

    fn piece(&mut self, end: usize, whole: bool) -> Result<(), Refusal> {
        let Some((start, line)) = self.start.take() else {
            return Ok(());
        };
        if self.levels.len() > 1 {
            let message = "a bracket is not closed before the end of its policy";
            return Err(refusal(Code::CedarSyntax, line, message));
        }
        let depth = self
            .levels
            .pop()
            .map_or(0, |mut outermost| outermost.depth());
        self.levels.push(Level::default());
        if depth > CEDAR_DEPTH_MAX {
            return Err(too_deep(line));
        }
        if self.pieces.len() >= CEDAR_POLICIES_MAX {
            let message = format!("the object has more than {CEDAR_POLICIES_MAX} policies");
            return Err(refusal(Code::CedarLimit, line, message));
        }
        let text = self.lexer.text.get(start..end).unwrap_or_default();
        let surely_permit = self.effect.take() == Some("permit")
            && whole
            && !text.to_ascii_lowercase().contains("forbid");
        self.pieces.push(Piece {
            text,
            line,
            surely_permit,
            calculates: std::mem::take(&mut self.calculates),
        });
        self.before = None;
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Piece<'t>>, Refusal> {
        let end = self.lexer.text.trim_end().len();
        // Without its `;` the text may have been cut off.
        self.piece(end, false)?;
        Ok(self.pieces)
    }
}

fn too_deep(line: usize) -> Refusal {
    let message = format!(
        "a policy is nested deeper than {CEDAR_DEPTH_MAX} levels, brackets and chained operators together"
    );
    refusal(Code::CedarLimit, line, message)
}

#[cfg(test)]
mod tests;
