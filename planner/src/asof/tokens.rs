//! The token rewrite that makes every spelling of `ASOF JOIN` parse.
//!
//! `GLOBAL` is ClickHouse's join prefix: sqlparser accepts it before every join in every dialect and keeps it in
//! `ast::Join::global`, and nothing else uses it. So it is a free mark, once a user's own `GLOBAL JOIN` is refused:
//!
//! ```text
//! ASOF [INNER] JOIN r ON …                    GLOBAL JOIN r ON …          global, Join
//! ASOF LEFT [OUTER] JOIN r ON … | USING …     GLOBAL LEFT JOIN r …        global, Left
//! ASOF [INNER] JOIN r MATCH_CONDITION …       ASOF JOIN r …               AsOf
//! ASOF LEFT [OUTER] JOIN r MATCH_CONDITION …  GLOBAL ASOF JOIN r …        global, AsOf
//! ```
//!
//! Tokens are replaced one for one, so that every position in an error stays right.

use crate::{PlanError, PlanResult};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace, Word};

/// Rewrites the `ASOF JOIN`s in a statement's tokens. Refuses `GLOBAL JOIN` and `ASOF` before other kinds of join.
pub fn mark_asof_tokens(tokens: &mut [TokenWithSpan]) -> PlanResult<()> {
    let words: Vec<usize> = (0..tokens.len()).filter(|&i| !matches!(tokens[i].token, Token::Whitespace(_))).collect();
    for at in 0..words.len() {
        let word = keyword(tokens, &words, at);
        if !matches!(word, Keyword::ASOF | Keyword::GLOBAL) || !ends_operand(tokens, &words, at) {
            continue;
        }
        match (word, keyword(tokens, &words, at + 1)) {
            (Keyword::GLOBAL, next) if starts_join(next) => {
                return Err(PlanError::syntax("GLOBAL JOIN is not supported").hint("leave out GLOBAL"));
            }
            (Keyword::ASOF, next) if starts_join(next) => mark(tokens, &words, at)?,
            _ => {}
        }
    }
    Ok(())
}

/// Rewrites one `ASOF … JOIN`; `at` is the place of `ASOF` in `words`.
fn mark(tokens: &mut [TokenWithSpan], words: &[usize], at: usize) -> PlanResult<()> {
    let kind = keyword(tokens, words, at + 1);
    let join = match kind {
        Keyword::JOIN => at + 1,
        Keyword::INNER => at + 2,
        Keyword::LEFT if keyword(tokens, words, at + 2) == Keyword::OUTER => at + 3,
        Keyword::LEFT => at + 2,
        other => {
            let name = format!("{other:?}");
            return Err(PlanError::unsupported(format!("ASOF {name} JOIN is not supported"))
                .hint("use ASOF JOIN, which drops unmatched left rows, or ASOF LEFT JOIN, which keeps them"));
        }
    };
    if keyword(tokens, words, join) != Keyword::JOIN {
        return Err(PlanError::syntax("expected JOIN after ASOF").hint("use ASOF JOIN or ASOF LEFT JOIN"));
    }
    let left = kind == Keyword::LEFT;
    if !has_match_condition(tokens, words, join + 1) {
        tokens[words[at]].token = word(Keyword::GLOBAL, "GLOBAL");
    } else if left {
        tokens[words[at]].token = word(Keyword::GLOBAL, "GLOBAL");
        tokens[words[at + 1]].token = word(Keyword::ASOF, "ASOF");
        for &between in &words[at + 2..join] {
            tokens[between].token = Token::Whitespace(Whitespace::Space);
        }
    } else {
        for &between in &words[at + 1..join] {
            tokens[between].token = Token::Whitespace(Whitespace::Space);
        }
    }
    Ok(())
}

/// Whether the join whose right side starts at `from` has a `MATCH_CONDITION`: it comes before `ON`, `USING`, the next
/// join and the end of the enclosing parenthesis.
fn has_match_condition(tokens: &[TokenWithSpan], words: &[usize], from: usize) -> bool {
    let mut depth = 0usize;
    for at in from..words.len() {
        match &tokens[words[at]].token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => return false,
            Token::RParen => depth -= 1,
            Token::SemiColon => return false,
            Token::Word(_) if depth == 0 => match keyword(tokens, words, at) {
                Keyword::MATCH_CONDITION => return true,
                Keyword::ON | Keyword::USING | Keyword::JOIN | Keyword::WHERE => return false,
                _ => {}
            },
            _ => {}
        }
    }
    false
}

/// Whether the token before `at` ends a table factor or an expression, so that a join may start here: after `FROM`, a
/// comma or an operator, `asof` is somebody's table or column.
fn ends_operand(tokens: &[TokenWithSpan], words: &[usize], at: usize) -> bool {
    let Some(before) = at.checked_sub(1) else { return false };
    match &tokens[words[before]].token {
        Token::Word(w) => {
            w.quote_style.is_some()
                || !matches!(
                    w.keyword,
                    Keyword::FROM
                        | Keyword::JOIN
                        | Keyword::SELECT
                        | Keyword::DISTINCT
                        | Keyword::ALL
                        | Keyword::AS
                        | Keyword::ON
                        | Keyword::AND
                        | Keyword::OR
                        | Keyword::NOT
                        | Keyword::IS
                        | Keyword::IN
                        | Keyword::LIKE
                        | Keyword::ILIKE
                        | Keyword::BETWEEN
                        | Keyword::CASE
                        | Keyword::WHEN
                        | Keyword::THEN
                        | Keyword::ELSE
                        | Keyword::WHERE
                        | Keyword::HAVING
                        | Keyword::BY
                        | Keyword::LIMIT
                        | Keyword::OFFSET
                        | Keyword::LATERAL
                        | Keyword::ONLY
                        | Keyword::TABLE
                        | Keyword::INTO
                        | Keyword::UPDATE
                )
        }
        Token::RParen | Token::RBracket | Token::Number(..) | Token::SingleQuotedString(_) | Token::Placeholder(_) => {
            true
        }
        _ => false,
    }
}

fn starts_join(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::JOIN
            | Keyword::INNER
            | Keyword::LEFT
            | Keyword::RIGHT
            | Keyword::FULL
            | Keyword::CROSS
            | Keyword::NATURAL
            | Keyword::SEMI
            | Keyword::ANTI
            | Keyword::ASOF
    )
}

/// The unquoted keyword at a place in `words`.
fn keyword(tokens: &[TokenWithSpan], words: &[usize], at: usize) -> Keyword {
    match words.get(at).map(|&i| &tokens[i].token) {
        Some(Token::Word(w)) if w.quote_style.is_none() => w.keyword,
        _ => Keyword::NoKeyword,
    }
}

fn word(keyword: Keyword, value: &str) -> Token {
    Token::Word(Word { value: value.into(), quote_style: None, keyword })
}
