//! `LIKE … ESCAPE 'c'` in the one form that DataFusion runs: escaped by backslashes.

use crate::{PlanError, PlanResult, error::sqlstate};
use datafusion::sql::sqlparser::ast::{Expr, Query, Value, ValueWithSpan, visit_expressions_mut};
use std::ops::ControlFlow;

/// Rewrites the patterns of the query.
///
/// # Errors
/// 22025 for an escape of more than one character, 0A000 for a pattern that is no literal.
pub fn escape_by_backslash(query: &mut Query) -> PlanResult<()> {
    let done = visit_expressions_mut(query, |expr| {
        let (Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. }) = expr else {
            return ControlFlow::Continue(());
        };
        let Some(escape) = escape_char.take() else { return ControlFlow::Continue(()) };
        match rewrite(pattern, &escape) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    });
    match done {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn rewrite(pattern: &mut Expr, escape: &ValueWithSpan) -> PlanResult<()> {
    let escape = escape_letter(escape)?;
    if escape == Some('\\') {
        return Ok(());
    }
    match pattern {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => {
            *text = translated(text, escape);
            Ok(())
        }
        _ => Err(PlanError::new(sqlstate::FEATURE_NOT_SUPPORTED, "LIKE with ESCAPE takes a literal pattern")
            .hint("escape the pattern by backslashes and leave ESCAPE out")),
    }
}

/// The letter behind ESCAPE; `None`: there is to be none.
pub(crate) fn escape_letter(escape: &ValueWithSpan) -> PlanResult<Option<char>> {
    let escape = match &escape.value {
        Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => text,
        other => return Err(PlanError::syntax(format!("{other} is not an escape character"))),
    };
    let mut letters = escape.chars();
    let (escape, None) = (letters.next(), letters.next()) else {
        return Err(PlanError::new("22025", format!("invalid escape string: '{escape}'"))
            .hint("escape string must be empty or one character"));
    };
    Ok(escape)
}

/// The pattern with its escapes by backslash; `None`: it has none.
fn translated(pattern: &str, escape: Option<char>) -> String {
    let mut text = String::with_capacity(pattern.len());
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        if Some(letter) == escape {
            // A pattern that ends with its escape character matches nothing, as one that ends with a backslash.
            text.push('\\');
            text.extend(letters.next());
        } else {
            if letter == '\\' {
                text.push('\\');
            }
            text.push(letter);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_letter_stands_for_itself_and_a_backslash_is_one() {
        for (pattern, escape, expected) in [
            ("x!%", Some('!'), "x\\%"),
            ("!!_", Some('!'), "\\!_"),
            ("a\\b%", Some('!'), "a\\\\b%"),
            ("a\\%", None, "a\\\\%"),
            ("end!", Some('!'), "end\\"),
        ] {
            assert_eq!(translated(pattern, escape), expected, "{pattern}");
        }
    }
}
