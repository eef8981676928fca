//! Names: unquoted ones fold to lower case. An object's is `name`, `schema.name` or `tidemark.schema.name`; there is one database.

use super::cursor::Cursor;
use crate::{PlanError, PlanResult, error::sqlstate};
use datafusion::sql::sqlparser::tokenizer::{Token, Word};
use std::collections::BTreeMap;
use tidemark_catalog::{NameRef, QualifiedName, is_read_only};

/// Words that PostgreSQL does not take as a name without quotes (appendix C, "reserved").
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];

/// The name in a word token, folded.
pub(super) fn fold(word: &Word) -> String {
    match word.quote_style {
        Some(_) => word.value.clone(),
        None => word.value.to_lowercase(),
    }
}

/// The name as it has to be written: in quotes where without them it would be folded or read as a word of the language.
pub(crate) fn quoted(name: &str) -> String {
    let mut letters = name.chars();
    let plain = letters.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !RESERVED.contains(&name);
    if plain { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// The same of a name with or without schema.
pub(crate) fn quoted_name(name: NameRef<'_>) -> String {
    match name.schema {
        None => quoted(name.name),
        Some(schema) => format!("{}.{}", quoted(schema), quoted(name.name)),
    }
}

impl Cursor<'_> {
    /// A name of one part.
    pub fn identifier(&mut self) -> PlanResult<String> {
        match self.peek(0) {
            Some(Token::Word(word)) => {
                let name = fold(word);
                if name.is_empty() {
                    return Err(self.place(PlanError::syntax("zero-length delimited identifier")));
                }
                if word.quote_style.is_none() && RESERVED.contains(&name.as_str()) {
                    return Err(self
                        .unexpected()
                        .hint(format!("\"{name}\" is a reserved word: quote it to use it as a name")));
                }
                self.skip();
                Ok(name)
            }
            _ => Err(self.unexpected()),
        }
    }

    /// A word in any spelling, reserved or not, folded: the name of an option or a setting.
    pub fn label(&mut self) -> PlanResult<String> {
        match self.peek(0) {
            Some(Token::Word(word)) => {
                self.skip();
                Ok(fold(word))
            }
            _ => Err(self.unexpected()),
        }
    }

    /// `a.b.c`
    pub fn path(&mut self) -> PlanResult<Vec<String>> {
        let mut parts = vec![self.identifier()?];
        while self.eat_token(&Token::Period) {
            // behind a dot PostgreSQL takes reserved words too
            parts.push(self.label()?);
        }
        Ok(parts)
    }

    /// The name of an object of ours: `x`, `schema.x` or `tidemark.schema.x`.
    pub fn object_name(&mut self) -> PlanResult<QualifiedName> {
        let start = *self;
        let parts = self.path()?;
        qualified(parts).map_err(|error| start.place(error))
    }

    /// `( name, … )`
    pub fn names(&mut self) -> PlanResult<Vec<String>> {
        let mut names = vec![];
        self.list(|c| {
            let start = *c;
            let name = c.identifier()?;
            if names.contains(&name) {
                return Err(start.place(PlanError::new(
                    sqlstate::DUPLICATE_COLUMN,
                    format!("column \"{name}\" specified more than once"),
                )));
            }
            names.push(name);
            Ok(())
        })?;
        Ok(names)
    }

    pub fn if_not_exists(&mut self) -> bool {
        self.eat_all(&["IF", "NOT", "EXISTS"])
    }

    pub fn if_exists(&mut self) -> bool {
        self.eat_all(&["IF", "EXISTS"])
    }

    /// `( name.part = value, … )`; a name alone means `true`, and `SECRET name` is kept as a reference.
    pub fn options(&mut self) -> PlanResult<BTreeMap<String, String>> {
        let mut options = BTreeMap::new();
        self.list(|c| {
            let start = *c;
            let mut name = c.label()?.to_lowercase();
            while c.eat_token(&Token::Period) {
                name = format!("{name}.{}", c.label()?.to_lowercase());
            }
            let value = match c.eat_token(&Token::Eq) {
                false => "true".to_string(),
                true => match c.secret_value()? {
                    Some(reference) => reference,
                    None => c.option_value()?,
                },
            };
            match options.insert(name.clone(), value) {
                None => Ok(()),
                Some(_) => Err(start.place(PlanError::syntax(format!("option \"{name}\" is given more than once")))),
            }
        })?;
        Ok(options)
    }

    /// A string, a number with or without sign, or a word.
    pub fn option_value(&mut self) -> PlanResult<String> {
        if let Some(value) = self.at_string() {
            self.skip();
            return Ok(value);
        }
        let sign = if self.eat_token(&Token::Minus) {
            "-"
        } else {
            self.eat_token(&Token::Plus);
            ""
        };
        match self.peek(0) {
            Some(Token::Number(digits, _)) => {
                self.skip();
                Ok(format!("{sign}{digits}"))
            }
            Some(Token::Word(_)) if sign.is_empty() => self.label(),
            _ => Err(self.unexpected()),
        }
    }
}

/// The name of an object that a user made, or is to make.
pub(super) fn qualified(mut parts: Vec<String>) -> PlanResult<QualifiedName> {
    let written = parts.join(".");
    let name = parts.pop().unwrap_or_default();
    if parts.len() > 2 {
        return Err(PlanError::syntax(format!("improper qualified name (too many dotted names): {written}")));
    }
    let schema = parts.pop();
    match parts.pop() {
        Some(database) if database != "tidemark" => {
            return Err(PlanError::unsupported(format!(
                "cross-database references are not implemented: \"{written}\""
            ))
            .hint("the database is called tidemark"));
        }
        _ => {}
    }
    match schema {
        Some(schema) if is_read_only(&schema) => {
            Err(PlanError::new(sqlstate::INVALID_SCHEMA, format!("schema \"{schema}\" is read-only"))
                .hint("the server maintains it; your own objects live in public and in schemas of your own"))
        }
        schema => Ok(QualifiedName { schema, name }),
    }
}
