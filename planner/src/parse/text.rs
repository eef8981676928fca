//! The text of a request and where its tokens are in it. sqlparser places a token by line and column (in characters);
//! slices need bytes and PostgreSQL reports characters.

use super::dialect::DIALECT;
use crate::{PlanError, PlanResult};
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

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

    /// The tokens without white space and comments.
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
        tokens.retain(|token| !matches!(token.token, Token::Whitespace(_)));
        Ok(tokens)
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
