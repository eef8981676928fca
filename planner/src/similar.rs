//! `SIMILAR TO` as the regular expression that it stands for; DataFusion takes the pattern for one as it is, and looks
//! for it anywhere in the text.

use crate::{PlanError, PlanResult, like::escape_letter};
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Query, Value, ValueWithSpan, visit_expressions_mut};
use std::ops::ControlFlow;

/// Writes the patterns of the query as regular expressions.
///
/// # Errors
/// 22025 for an escape of more than one character, 0A000 for a pattern that is no literal.
pub fn by_regex(query: &mut Query) -> PlanResult<()> {
    let done = visit_expressions_mut(query, |expr| match rewritten(expr) {
        Ok(None) => ControlFlow::Continue(()),
        Ok(Some(matched)) => {
            *expr = matched;
            ControlFlow::Continue(())
        }
        Err(error) => ControlFlow::Break(error),
    });
    match done {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn rewritten(expr: &Expr) -> PlanResult<Option<Expr>> {
    let Expr::SimilarTo { negated, expr, pattern, escape_char } = expr else { return Ok(None) };
    let escape = escape_char.as_ref().map_or(Ok(Some('\\')), escape_letter)?;
    let pattern = match pattern.as_ref() {
        Expr::Value(ValueWithSpan {
            value: Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text),
            ..
        }) => text,
        Expr::Value(ValueWithSpan { value: Value::Null, .. }) => return Ok(None),
        _ => {
            return Err(PlanError::unsupported("SIMILAR TO takes a literal pattern")
                .hint("x LIKE pattern and x ~ pattern take any expression"));
        }
    };
    let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
    let right = Box::new(Expr::value(Value::SingleQuotedString(regex(pattern, escape))));
    Ok(Some(Expr::BinaryOp { left: expr.clone(), op, right }))
}

/// The regular expression of the whole text.
fn regex(pattern: &str, escape: Option<char>) -> String {
    // As PostgreSQL would read it, too: EXPLAIN (FORMAT PROBES) prints it.
    let mut regex = String::with_capacity(pattern.len() + 10);
    regex.push_str("(?s)^(?:");
    // In `[…]`, and in `[:…:]` in there.
    let (mut in_set, mut in_class) = (false, false);
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        if Some(letter) == escape {
            match letters.next() {
                Some(class @ ('d' | 'D' | 's' | 'S' | 'w' | 'W')) => regex.extend(['\\', class]),
                Some(itself) => push_literal(&mut regex, itself),
                None => {}
            }
            continue;
        }
        match letter {
            ']' if in_class => {
                in_class = false;
                regex.push(']');
            }
            ']' if in_set => {
                in_set = false;
                regex.push(']');
            }
            '[' if in_set && letters.peek() == Some(&':') => {
                in_class = true;
                regex.push('[');
            }
            '-' if in_set => regex.push('-'),
            _ if in_set => push_literal(&mut regex, letter),
            '[' => {
                in_set = true;
                regex.push('[');
                regex.extend(letters.next_if_eq(&'^'));
                if let Some(first) = letters.next_if_eq(&']') {
                    push_literal(&mut regex, first);
                }
            }
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '(' => regex.push_str("(?:"),
            '.' | '^' | '$' | '\\' => push_literal(&mut regex, letter),
            // `| * + ? { } )` mean the same in both.
            _ => regex.push(letter),
        }
    }
    regex.push_str(")$");
    regex
}

fn push_literal(regex: &mut String, letter: char) {
    if "\\.+*?()|[]{}^$#&-~".contains(letter) {
        regex.push('\\');
    }
    regex.push(letter);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_of_the_whole_text_and_has_its_own_signs() {
        for (pattern, escape, expected) in [
            ("b", Some('\\'), "(?s)^(?:b)$"),
            ("%(b|d)_", Some('\\'), "(?s)^(?:.*(?:b|d).)$"),
            ("a.^$", Some('\\'), r"(?s)^(?:a\.\^\$)$"),
            (r"\%\d\(", Some('\\'), r"(?s)^(?:%\d\()$"),
            ("!_+", Some('!'), "(?s)^(?:_+)$"),
            (r"\%", None, r"(?s)^(?:\\.*)$"),
            ("[^]a-z_[:digit:][&]{2}", Some('\\'), r"(?s)^(?:[^\]a-z_[:digit:]\[\&]{2})$"),
        ] {
            assert_eq!(regex(pattern, escape), expected, "{pattern}");
        }
    }
}
