//! The text of a request and where its tokens are in it. sqlparser places a token by line and column (in characters);
//! slices need bytes and PostgreSQL reports characters.

use super::dialect::DIALECT;
use crate::{PlanError, PlanResult};
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, Whitespace};

pub(super) struct Text<'a> {
    pub sql: &'a str,
    lines: Vec<Line>,
}

struct Line {
    /// Byte offset of the line's first character.
    start: usize,
    /// One byte per character: the column is the offset.
    ascii: bool,
}

impl<'a> Text<'a> {
    pub fn new(sql: &'a str) -> Self {
        let mut lines = vec![];
        let mut start = 0;
        for line in sql.split_inclusive('\n') {
            lines.push(Line { start, ascii: line.is_ascii() });
            start += line.len();
        }
        lines.push(Line { start, ascii: true });
        Text { sql, lines }
    }

    /// The tokens without white space and comments, and literals that go on in the next line as one.
    pub fn tokens(&self) -> PlanResult<Vec<TokenWithSpan>> {
        if let Some(nul) = self.sql.find('\0') {
            return Err(PlanError::syntax("a statement cannot contain the null character").at(self.position(nul)));
        }
        let mut tokens = vec![];
        Tokenizer::new(&DIALECT, self.sql).tokenize_with_location_into_buf(&mut tokens).map_err(|error| {
            let message = error.message.trim_end_matches([' ', '.', ':']).to_string();
            let mut first = message.chars();
            let message = first.next().map_or(String::new(), |c| c.to_lowercase().chain(first).collect());
            PlanError::syntax(message).at(self.position(self.offset(error.location)))
        })?;
        Ok(joined(tokens))
    }

    /// The byte offset of a location; the end of the text for one that lies outside.
    pub fn offset(&self, location: Location) -> usize {
        let line = (location.line as usize).checked_sub(1).and_then(|line| self.lines.get(line));
        let (Some(line), Some(column)) = (line, (location.column as usize).checked_sub(1)) else {
            return self.sql.len();
        };
        if line.ascii {
            return (line.start + column).min(self.sql.len());
        }
        self.sql[line.start..].char_indices().nth(column).map_or(self.sql.len(), |(at, _)| line.start + at)
    }

    pub fn slice(&self, from: Span, to: Span) -> &'a str {
        self.sql.get(self.offset(from.start)..self.offset(to.end)).unwrap_or_default()
    }

    /// PostgreSQL's position of a byte offset: 1-based, in characters.
    pub fn position(&self, offset: usize) -> usize {
        self.sql.get(..offset).unwrap_or(self.sql).chars().count() + 1
    }
}

/// Without white space; `'a'` and `'b'` with nothing but that and a line's end between them are `'ab'`.
fn joined(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut joined: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    // Whether a line ended since the last token; `None`: behind a comment that is none of a line's end.
    let mut ended = Some(false);
    for token in tokens {
        match &token.token {
            Token::Whitespace(Whitespace::Newline | Whitespace::SingleLineComment { .. }) => {
                ended = ended.map(|_| true);
                continue;
            }
            Token::Whitespace(Whitespace::MultiLineComment(_)) => {
                ended = None;
                continue;
            }
            Token::Whitespace(_) => continue,
            Token::SingleQuotedString(more) if ended == Some(true) => {
                if let Some(TokenWithSpan { token: Token::SingleQuotedString(text), span }) = joined.last_mut() {
                    text.push_str(more);
                    span.end = token.span.end;
                    ended = Some(false);
                    continue;
                }
            }
            _ => {}
        }
        ended = Some(false);
        joined.push(token);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_goes_on_in_the_next_line() {
        for (sql, expected) in [
            ("'a'\n'b'", "'ab'"),
            ("'a' -- so\n\n  'b'\n'c' 'd'", "'abc' 'd'"),
            ("'a' 'b'", "'a' 'b'"),
            ("'a' /* so\n */ 'b'", "'a' 'b'"),
            ("x\n'b'", "x 'b'"),
        ] {
            let tokens = Text::new(sql).tokens().expect(sql);
            let shown: Vec<String> = tokens.iter().map(|token| token.token.to_string()).collect();
            assert_eq!(shown.join(" "), expected);
        }
        let text = Text::new("SELECT 'a'\n 'b' AS c");
        let tokens = text.tokens().expect("it is read");
        assert_eq!(text.slice(tokens[1].span, tokens[1].span), "'a'\n 'b'");
    }
}
