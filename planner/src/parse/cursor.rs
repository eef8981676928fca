//! A place in a statement's tokens: look, take, expect, and say what was not expected.

use super::text::Text;
use crate::{PlanError, PlanResult};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

/// Cheap to copy, so looking ahead is copying.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    pub text: &'a Text<'a>,
    pub tokens: &'a [TokenWithSpan],
    pub at: usize,
    pub end: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a Text<'a>, tokens: &'a [TokenWithSpan], at: usize, end: usize) -> Self {
        Cursor { text, tokens, at, end }
    }

    pub fn done(&self) -> bool {
        self.at >= self.end
    }

    pub fn peek(&self, ahead: usize) -> Option<&'a Token> {
        let at = self.at + ahead;
        if at < self.end { self.tokens.get(at).map(|token| &token.token) } else { None }
    }

    pub fn skip(&mut self) {
        self.at = (self.at + 1).min(self.end);
    }

    /// The unquoted word that many tokens ahead, in upper case.
    pub fn keyword(&self, ahead: usize) -> Option<String> {
        self.word(ahead).map(|word| word.to_uppercase())
    }

    fn word(&self, ahead: usize) -> Option<&'a str> {
        match self.peek(ahead) {
            Some(Token::Word(Word { value, quote_style: None, .. })) => Some(value),
            _ => None,
        }
    }

    pub fn at_ahead(&self, ahead: usize, keyword: &str) -> bool {
        self.word(ahead).is_some_and(|word| word.eq_ignore_ascii_case(keyword))
    }

    pub fn at(&self, keyword: &str) -> bool {
        self.at_ahead(0, keyword)
    }

    pub fn at_all(&self, keywords: &[&str]) -> bool {
        keywords.iter().enumerate().all(|(ahead, keyword)| self.at_ahead(ahead, keyword))
    }

    pub fn eat(&mut self, keyword: &str) -> bool {
        self.eat_all(&[keyword])
    }

    pub fn eat_all(&mut self, keywords: &[&str]) -> bool {
        let found = self.at_all(keywords);
        if found {
            self.at += keywords.len();
        }
        found
    }

    pub fn expect(&mut self, keyword: &str) -> PlanResult<()> {
        if self.eat(keyword) { Ok(()) } else { Err(self.unexpected()) }
    }

    pub fn at_token(&self, token: &Token) -> bool {
        self.peek(0) == Some(token)
    }

    pub fn eat_token(&mut self, token: &Token) -> bool {
        let found = self.at_token(token);
        if found {
            self.skip();
        }
        found
    }

    pub fn expect_token(&mut self, token: &Token) -> PlanResult<()> {
        if self.eat_token(token) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// A string constant in any of PostgreSQL's notations.
    pub fn string(&mut self) -> PlanResult<String> {
        let value = self.at_string().ok_or_else(|| self.unexpected())?;
        self.skip();
        Ok(value)
    }

    pub fn at_string(&self) -> Option<String> {
        match self.peek(0)? {
            Token::SingleQuotedString(value)
            | Token::EscapedStringLiteral(value)
            | Token::UnicodeStringLiteral(value)
            | Token::NationalStringLiteral(value) => Some(value.clone()),
            Token::DollarQuotedString(quoted) => Some(quoted.value.clone()),
            _ => None,
        }
    }

    /// A whole number without a sign.
    pub fn number<N: std::str::FromStr>(&mut self) -> PlanResult<N> {
        let number = match self.peek(0) {
            Some(Token::Number(digits, _)) => digits.parse().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| self.unexpected())?;
        self.skip();
        Ok(number)
    }

    /// What lies inside the parentheses that open here; this cursor moves behind them.
    pub fn parenthesised(&mut self) -> PlanResult<Cursor<'a>> {
        self.expect_token(&Token::LParen)?;
        let start = self.at;
        let mut depth = 1;
        while let Some(token) = self.peek(0) {
            match token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let inside = Cursor { at: start, end: self.at, ..*self };
                self.skip();
                return Ok(inside);
            }
            self.skip();
        }
        Err(self.unexpected())
    }

    /// `( item, … )`: calls `item` once for each, each of which must be read to its comma.
    pub fn list(&mut self, mut item: impl FnMut(&mut Cursor<'a>) -> PlanResult<()>) -> PlanResult<()> {
        let mut inside = self.parenthesised()?;
        loop {
            item(&mut inside)?;
            if !inside.eat_token(&Token::Comma) {
                return inside.finish();
            }
        }
    }

    pub fn finish(&self) -> PlanResult<()> {
        if self.done() { Ok(()) } else { Err(self.unexpected()) }
    }

    /// The text from here to the end.
    pub fn rest_text(&self) -> &'a str {
        if self.done() {
            return "";
        }
        self.text.slice(self.tokens[self.at].span, self.tokens[self.end - 1].span)
    }

    /// PostgreSQL's words for a token that does not belong here.
    pub fn unexpected(&self) -> PlanError {
        match self.tokens.get(self.at) {
            Some(token) => {
                let near = self.text.slice(token.span, token.span);
                self.place(PlanError::syntax(format!("syntax error at or near \"{near}\"")))
            }
            None => self.place(PlanError::syntax("syntax error at end of input")),
        }
    }

    /// Adds the position of this place to an error.
    pub fn place(&self, error: PlanError) -> PlanError {
        let offset = self.tokens.get(self.at).map_or(self.text.sql.len(), |token| self.text.offset(token.span.start));
        error.at(self.text.position(offset))
    }
}
