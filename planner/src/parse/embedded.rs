//! Queries and expressions inside a statement: handed to sqlparser as tokens, and its errors turned into PostgreSQL's.

use super::{cursor::Cursor, dialect::TidemarkDialect, ignored};
use crate::{PlanError, PlanResult, asof, error::sqlstate::TOO_COMPLEX};
use datafusion::sql::sqlparser::{
    ast,
    keywords::Keyword,
    parser::{Parser, ParserError},
    tokenizer::{Location, Span, Token, TokenWithSpan},
};

/// How deep parentheses and the like may nest.
const DEPTH_MAX: usize = 100;
/// How many operators may be chained (`a OR b OR c …`): the tree is as deep as the chain is long, and whoever walks it
/// needs that much stack.
const CHAIN_MAX: usize = 2000;

impl Cursor<'_> {
    /// The query that fills the rest.
    pub fn query(&mut self) -> PlanResult<Box<ast::Query>> {
        let start = *self;
        let mut query = self.embedded(|parser| parser.parse_query())?;
        asof::nest_asof(&mut query)?;
        ignored::check(&mut query).map_err(|error| start.place(error))?;
        Ok(query)
    }

    /// The expression that fills the rest.
    pub fn expr(&mut self) -> PlanResult<ast::Expr> {
        self.embedded(|parser| parser.parse_expr())
    }

    /// Expressions, separated by commas, that fill the rest.
    pub fn exprs(&mut self) -> PlanResult<Vec<ast::Expr>> {
        self.embedded(|parser| parser.parse_comma_separated(Parser::parse_expr))
    }

    pub fn embedded<T>(&mut self, rule: impl FnOnce(&mut Parser) -> Result<T, ParserError>) -> PlanResult<T> {
        if self.done() {
            return Err(self.unexpected());
        }
        self.refuse_global_join()?;
        ignored::refuse_words(self)?;
        self.refuse_long_chain()?;
        let mut tokens = self.tokens[self.at..self.end].to_vec();
        table_as_select(&mut tokens);
        asof::mark_asof_tokens(&mut tokens)?;
        let versioned = (self.at..self.end).any(|at| Cursor { at, ..*self }.at_all(&["FOR", "SYSTEM_TIME"]));
        let dialect = TidemarkDialect::of(versioned, tokens.len());
        let mut parser = Parser::new(&dialect).with_recursion_limit(DEPTH_MAX).with_tokens_with_locations(tokens);
        let parsed = rule(&mut parser);
        let next = parser.peek_token();
        match parsed {
            Ok(parsed) if next.token == Token::EOF => {
                self.at = self.end;
                Ok(parsed)
            }
            Ok(_) => Err(self.at_location(next.span.start).unexpected()),
            Err(error) => Err(self.explain(error, next.span.start)),
        }
    }

    /// The cursor at the token that starts at this location, at the end where there is none.
    fn at_location(&self, location: Location) -> Self {
        let found = self.tokens[self.at..self.end].iter().position(|token| token.span.start >= location);
        let at = match found {
            Some(offset) if location.line > 0 => self.at + offset,
            _ => self.end,
        };
        Cursor { at, ..*self }
    }

    fn explain(&self, error: ParserError, next: Location) -> PlanError {
        let message = match error {
            ParserError::RecursionLimitExceeded => {
                return self.place(PlanError::new(TOO_COMPLEX, "statement is nested too deeply"));
            }
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        };
        let (message, location) = split_location(&message);
        // an error at the end of what was embedded has no location of its own
        let location = if message.ends_with("found: EOF") { Location::new(0, 0) } else { location.unwrap_or(next) };
        let detail = match message.split_once(", found: ") {
            Some((expected, _)) => expected.replacen("Expected: ", "expected ", 1),
            None => message.to_string(),
        };
        self.at_location(location).unexpected().detail(detail.trim())
    }

    /// `GLOBAL` marks an ASOF JOIN on its way through sqlparser, so a user's own must not reach it.
    fn refuse_global_join(&self) -> PlanResult<()> {
        for at in self.at..self.end {
            let here = Cursor { at, ..*self };
            if here.at("GLOBAL")
                && ["JOIN", "LEFT", "RIGHT", "INNER", "FULL", "CROSS"].iter().any(|j| here.at_ahead(1, j))
            {
                return Err(here.unexpected().hint("a join has no GLOBAL prefix here: remove the word"));
            }
        }
        Ok(())
    }

    /// Bounds the depth of the tree before there is one: an estimate from the tokens, never too low.
    fn refuse_long_chain(&self) -> PlanResult<()> {
        // per open parenthesis: the chain since the last comma, and the longest one inside
        let mut open = vec![(0, 0)];
        let mut brackets = 0usize;
        for at in self.at..self.end {
            let Some((chain, longest)) = open.last_mut() else { break };
            match &self.tokens[at].token {
                Token::LBracket => {
                    brackets += 1;
                    if brackets > BRACKETS_MAX {
                        return Err(self.place(PlanError::new(TOO_COMPLEX, "statement is nested too deeply")));
                    }
                }
                Token::RBracket => brackets = brackets.saturating_sub(1),
                _ => {}
            }
            match &self.tokens[at].token {
                Token::LParen => {
                    open.push((0, 0));
                    continue;
                }
                Token::RParen => {
                    let inside = *longest;
                    if open.len() > 1 {
                        open.pop();
                    }
                    // what follows may have all of it as its left side
                    if let Some((chain, longest)) = open.last_mut() {
                        *chain = inside.max(*chain);
                        *longest = inside.max(*longest);
                    }
                    continue;
                }
                Token::Comma => {
                    *chain = 0;
                    continue;
                }
                Token::Word(word) if word.keyword == Keyword::NoKeyword => continue,
                Token::Number(..) | Token::SingleQuotedString(_) | Token::Placeholder(_) | Token::Period => continue,
                // a level of these takes several times the stack of an operator's
                Token::Word(word) if matches!(word.keyword, Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT) => {
                    *chain += 5;
                }
                _ => *chain += 1,
            }
            *longest = (*chain).max(*longest);
            if *chain > CHAIN_MAX {
                return Err(Cursor { at, ..*self }.place(
                    PlanError::new(TOO_COMPLEX, format!("more than {CHAIN_MAX} operators in one expression"))
                        .hint("use IN (…) or = ANY (ARRAY[…]) instead of a chain of OR"),
                ));
            }
        }
        Ok(())
    }
}

/// Arrays in arrays: PostgreSQL's have six dimensions at most, and planning takes time by their depth.
const BRACKETS_MAX: usize = 16;

/// `… at Line: 1, Column: 8`, taken apart.
fn split_location(message: &str) -> (&str, Option<Location>) {
    let parse = || {
        let (message, place) = message.rsplit_once(" at Line: ")?;
        let (line, column) = place.split_once(", Column: ")?;
        Some((message, Location::new(line.trim().parse().ok()?, column.trim().parse().ok()?)))
    };
    match parse() {
        Some((message, location)) => (message, Some(location)),
        None => (message, None),
    }
}

/// `TABLE name` is `SELECT * FROM name`.
fn table_as_select(tokens: &mut Vec<TokenWithSpan>) {
    let Some(first) = tokens.first() else { return };
    if matches!(&first.token, Token::Word(word) if word.keyword == Keyword::TABLE && word.quote_style.is_none()) {
        let span: Span = first.span;
        let select = [Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM")];
        tokens.splice(..1, select.map(|token| TokenWithSpan::new(token, span)));
    }
}
