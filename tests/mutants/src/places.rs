//! Where a source file can be made wrong, and the same file with all of these ways in it.
//!
//! A rewritten expression reads `(if crate::mutant_lives(7) { wrong } else { right })`; what stands inside `right` is
//! rewritten in turn. Left alone: tests, macros' arguments, constants (`const fn` too, which cannot ask), and conditions
//! with a `let` in them.

mod values;

use proc_macro2::LineColumn;
use quote::ToTokens as _;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Expr, UnOp};

/// One way to be wrong.
pub(crate) struct Mutant {
    /// Line of the original, from 1.
    pub(crate) line: usize,
    /// Function and change, for people, and which of its like in the file; without a line, so that it stays when lines
    /// move.
    pub(crate) what: String,
    /// The same without the count.
    plain: String,
}

/// The text with all of its mutants in it, and the list of them; the first has number `first`.
pub(crate) fn rewrite(text: &str, first: u32) -> Result<(String, Vec<Mutant>), syn::Error> {
    let file = syn::parse_file(text)?;
    let mut writer = Writer {
        text,
        first,
        mutants: Vec::new(),
        insertions: Vec::new(),
        function: String::new(),
        owner: String::new(),
    };
    writer.visit_file(&file);
    // Stable: at one place what encloses comes first at its start and last at its end, as it was inserted.
    writer.insertions.sort_by_key(|(at, _)| *at);
    let (mut out, mut from) = (String::with_capacity(text.len() * 3), 0);
    for (at, inserted) in &writer.insertions {
        out.push_str(&text[from..*at]);
        out.push_str(inserted);
        from = *at;
    }
    out.push_str(&text[from..]);
    Ok((out, writer.mutants))
}

struct Writer<'t> {
    text: &'t str,
    first: u32,
    mutants: Vec<Mutant>,
    /// Offset and what is to stand there.
    insertions: Vec<(usize, String)>,
    function: String,
    /// Type of the `impl`, with `::`.
    owner: String,
}

impl Writer<'_> {
    fn of<T: Spanned>(&self, node: &T) -> &str {
        &self.text[node.span().byte_range()]
    }

    fn insert(&mut self, at: usize, text: impl Into<String>) {
        self.insertions.push((at, text.into()));
    }

    /// Lists a mutant; what asks whether it lives.
    fn mutant(&mut self, at: LineColumn, change: &str) -> String {
        let change = change.split_whitespace().collect::<Vec<_>>().join(" ");
        let number = self.first + u32::try_from(self.mutants.len()).unwrap_or(u32::MAX);
        let what = format!("{}{}: {change}", self.owner, self.function);
        let before = self
            .mutants
            .iter()
            .filter(|mutant| mutant.plain == what)
            .count();
        let plain = what.clone();
        let what = if before == 0 {
            what
        } else {
            format!("{what} #{}", before + 1)
        };
        self.mutants.push(Mutant {
            line: at.line,
            what,
            plain,
        });
        format!("crate::mutant_lives({number})")
    }

    /// Makes an expression each of `wrong` in turn, where that mutant lives.
    fn instead<T: Spanned>(&mut self, node: &T, wrong: &[String], inside: impl FnOnce(&mut Self)) {
        let (span, original) = (node.span(), self.of(node).to_owned());
        let mut head = String::from("(");
        for wrong in wrong {
            let lives = self.mutant(span.start(), &format!("`{original}` as `{wrong}`"));
            head += &format!("if {lives} {{ {wrong} }} else ");
        }
        self.insert(span.byte_range().start, head + "{ ");
        inside(self);
        self.insert(span.byte_range().end, " })");
    }

    /// Makes a condition always hold, or never.
    fn condition(&mut self, node: &Expr, always: bool) {
        if has_let(node) {
            return self.visit_expr(node);
        }
        let (span, original) = (node.span(), self.of(node).to_owned());
        let holds = always.then(|| self.mutant(span.start(), &format!("`{original}` as `true`")));
        let holds = holds.unwrap_or_else(|| "false".to_owned());
        let fails = self.mutant(span.start(), &format!("`{original}` as `false`"));
        self.insert(span.byte_range().start, format!("(({holds} || ("));
        self.visit_expr(node);
        self.insert(span.byte_range().end, format!(")) && !{fails})"));
    }

    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        if signature.constness.is_some() {
            return;
        }
        let before = std::mem::replace(&mut self.function, signature.ident.to_string());
        if !block.stmts.is_empty() {
            for value in values::of(&signature.output) {
                let lives = self.mutant(signature.span().start(), &format!("returns `{value}`"));
                let start = block.brace_token.span.open().byte_range().end;
                self.insert(start, format!(" if {lives} {{ return {value}; }} "));
            }
        }
        self.visit_block(block);
        self.function = before;
    }

    fn arms(&mut self, arms: &[syn::Arm]) {
        let catches_all =
            |arm: &syn::Arm| arm.guard.is_none() && matches!(arm.pat, syn::Pat::Wild(_));
        let exhausted = arms.iter().any(catches_all);
        for arm in arms {
            match &arm.guard {
                Some((_, guard)) => self.condition(guard, true),
                None if exhausted && !catches_all(arm) => {
                    let pattern = self.of(&arm.pat).to_owned();
                    let lives = self.mutant(
                        arm.pat.span().start(),
                        &format!("without the arm `{pattern}`"),
                    );
                    self.insert(arm.pat.span().byte_range().end, format!(" if !{lives}"));
                }
                None => {}
            }
            self.visit_expr(&arm.body);
        }
    }
}

impl<'ast> Visit<'ast> for Writer<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            self.function(&item.sig, &item.block);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            self.function(&item.sig, &item.block);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let of_trait = item
            .trait_
            .as_ref()
            .and_then(|(_, path, _)| path.segments.last());
        if is_test(&item.attrs) || of_trait.is_some_and(|name| name.ident == "Debug") {
            return;
        }
        let name = item.self_ty.to_token_stream().to_string().replace(' ', "");
        let before = std::mem::replace(&mut self.owner, name + "::");
        item.items
            .iter()
            .for_each(|item| self.visit_impl_item(item));
        self.owner = before;
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_stmt(&mut self, statement: &'ast syn::Stmt) {
        match statement {
            syn::Stmt::Expr(
                inner @ (Expr::MethodCall(_) | Expr::Call(_) | Expr::Assign(_)),
                Some(semicolon),
            ) => {
                let original = self.of(inner).to_owned();
                let lives = self.mutant(inner.span().start(), &format!("without `{original};`"));
                self.insert(inner.span().byte_range().start, format!("if !{lives} {{ "));
                self.visit_expr(inner);
                self.insert(semicolon.span().byte_range().end, " }");
            }
            _ => visit::visit_stmt(self, statement),
        }
    }

    fn visit_expr(&mut self, expr: &'ast Expr) {
        match expr {
            Expr::Binary(binary) if !has_let(expr) => {
                let (left, right) = (
                    self.of(&*binary.left).to_owned(),
                    self.of(&*binary.right).to_owned(),
                );
                let wrong: Vec<String> = match binary.op {
                    BinOp::And(_) | BinOp::Or(_) => vec![left, right],
                    op => others(op)
                        .iter()
                        .map(|op| format!("{left} {op} {right}"))
                        .collect(),
                };
                if wrong.is_empty() {
                    return visit::visit_expr(self, expr);
                }
                self.instead(expr, &wrong, |inside| visit::visit_expr(inside, expr));
            }
            Expr::Unary(unary) if matches!(unary.op, UnOp::Not(_)) => {
                let inner = self.of(&*unary.expr).to_owned();
                self.instead(expr, &[inner], |inside| visit::visit_expr(inside, expr));
            }
            Expr::If(choice) => {
                match &*choice.cond {
                    // Their own mutants make these hold and fail.
                    Expr::Binary(_) | Expr::Unary(_) => self.visit_expr(&choice.cond),
                    other => self.condition(other, true),
                }
                self.visit_block(&choice.then_branch);
                if let Some((_, other)) = &choice.else_branch {
                    self.visit_expr(other);
                }
            }
            Expr::While(turn) => {
                // One that holds for ever would only show that tests have a time limit.
                self.condition(&turn.cond, false);
                self.visit_block(&turn.body);
            }
            Expr::Match(choice) => {
                self.visit_expr(&choice.expr);
                self.arms(&choice.arms);
            }
            Expr::Repeat(repeat) => self.visit_expr(&repeat.expr),
            Expr::Const(_) => {}
            other => visit::visit_expr(self, other),
        }
    }

    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_item_enum(&mut self, _: &'ast syn::ItemEnum) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
    fn visit_macro(&mut self, _: &'ast syn::Macro) {}
    fn visit_generic_argument(&mut self, _: &'ast syn::GenericArgument) {}
}

/// Operators that are easily taken for one.
fn others(op: BinOp) -> &'static [&'static str] {
    match op {
        BinOp::Eq(_) => &["!="],
        BinOp::Ne(_) => &["=="],
        BinOp::Lt(_) => &["<=", ">"],
        BinOp::Le(_) => &["<", ">"],
        BinOp::Gt(_) => &[">=", "<"],
        BinOp::Ge(_) => &[">", "<"],
        BinOp::Add(_) => &["-"],
        BinOp::Sub(_) => &["+"],
        BinOp::Mul(_) => &["+"],
        BinOp::Div(_) | BinOp::Rem(_) => &["*"],
        BinOp::BitAnd(_) => &["|"],
        BinOp::BitOr(_) => &["&", "^"],
        BinOp::BitXor(_) => &["|"],
        BinOp::Shl(_) => &[">>"],
        BinOp::Shr(_) => &["<<"],
        BinOp::AddAssign(_) => &["-="],
        BinOp::SubAssign(_) => &["+="],
        BinOp::MulAssign(_) => &["+="],
        BinOp::BitOrAssign(_) => &["&="],
        BinOp::BitAndAssign(_) => &["|="],
        _ => &[],
    }
}

/// Whether an expression is a condition that binds names.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        Expr::Paren(inner) => has_let(&inner.expr),
        _ => false,
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_cfg = attribute.path().is_ident("cfg");
        attribute.path().is_ident("test")
            || is_cfg
                && attribute
                    .meta
                    .to_token_stream()
                    .to_string()
                    .contains("test")
    })
}
