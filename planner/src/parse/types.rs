//! Column types by PostgreSQL's names.

use super::{cursor::Cursor, dialect::DIALECT};
use crate::{PlanError, PlanResult, error::sqlstate, functions::vector};
use datafusion::sql::sqlparser::{ast, parser::Parser, tokenizer::Token};
use tidemark_catalog::SqlType;

/// Arrow's 128-bit decimals hold this many digits.
const NUMERIC_PRECISION_MAX: u8 = 38;

/// A type as a statement writes it.
pub(crate) fn written_type(ty: &SqlType) -> PlanResult<ast::DataType> {
    let parsed = Parser::new(&DIALECT).try_with_sql(&ty.to_string()).and_then(|mut parser| parser.parse_data_type());
    parsed.map_err(|error| PlanError::new(sqlstate::INTERNAL, format!("type {ty} cannot be written: {error}")))
}

impl Cursor<'_> {
    pub fn sql_type(&mut self) -> PlanResult<SqlType> {
        let start = *self;
        match self.parameter_type()? {
            SqlType::Array(item) if matches!(*item, SqlType::Uuid | SqlType::Json | SqlType::Jsonb) => Err(start
                .place(
                    PlanError::unsupported(format!("arrays of {item} are not supported as columns")).hint("use text[]"),
                )),
            ty => Ok(ty),
        }
    }

    /// The type of a parameter: also arrays of what is held as text, which no column is.
    pub fn parameter_type(&mut self) -> PlanResult<SqlType> {
        let ty = self.scalar_type()?;
        let start = *self;
        let mut dimensions = 0;
        loop {
            if self.eat_token(&Token::LBracket) {
                if !self.at_token(&Token::RBracket) {
                    // PostgreSQL takes a length and ignores it
                    self.number::<u32>()?;
                }
                self.expect_token(&Token::RBracket)?;
            } else if !self.eat("ARRAY") {
                break;
            }
            dimensions += 1;
        }
        match dimensions {
            0 => Ok(ty),
            1 => Ok(SqlType::Array(Box::new(ty))),
            _ => Err(start.place(PlanError::unsupported("arrays of arrays are not supported"))),
        }
    }

    fn scalar_type(&mut self) -> PlanResult<SqlType> {
        let start = *self;
        let mut name = self.label()?;
        if name == "pg_catalog" && self.eat_token(&Token::Period) {
            name = self.label()?;
        }
        Ok(match name.as_str() {
            "bool" | "boolean" => SqlType::Bool,
            "int2" | "smallint" => SqlType::Int2,
            "int" | "int4" | "integer" => SqlType::Int4,
            "int8" | "bigint" => SqlType::Int8,
            "real" | "float4" => SqlType::Float4,
            "float8" => SqlType::Float8,
            "float" => self.float(start)?,
            "double" if self.eat("PRECISION") => SqlType::Float8,
            "numeric" | "decimal" | "dec" => self.numeric(start)?,
            "text" | "bpchar" | "name" => SqlType::Text,
            "varchar" => self.characters()?,
            "char" | "character" | "nchar" => {
                self.eat("VARYING");
                self.characters()?
            }
            "uuid" => SqlType::Uuid,
            "json" => SqlType::Json,
            "jsonb" => SqlType::Jsonb,
            "bytea" => SqlType::Bytea,
            "date" => SqlType::Date,
            "time" => {
                self.microseconds()?;
                if self.zone()? {
                    return Err(start.place(
                        PlanError::unsupported("type \"time with time zone\" is not supported")
                            .hint("use timestamptz, or time"),
                    ));
                }
                SqlType::Time
            }
            "timestamp" => {
                self.microseconds()?;
                if self.zone()? { SqlType::TimestampTz } else { SqlType::Timestamp }
            }
            "timestamptz" => {
                self.microseconds()?;
                SqlType::TimestampTz
            }
            "interval" => SqlType::Interval,
            "vector" => self.vector(start)?,
            _ => {
                let error = PlanError::new(sqlstate::UNDEFINED_OBJECT, format!("type \"{name}\" does not exist"));
                return Err(start.place(match name.as_str() {
                    "string" | "varchar2" | "clob" | "nvarchar" => error.hint("use text"),
                    "datetime" => error.hint("use timestamptz"),
                    "double" => error.hint("use double precision"),
                    "tinyint" => error.hint("use smallint"),
                    "serial" | "bigserial" | "smallserial" => error.hint("use bigint: there are no sequences"),
                    "blob" | "binary" | "varbinary" | "bytes" => error.hint("use bytea"),
                    _ => error,
                }));
            }
        })
    }

    fn float(&mut self, start: Self) -> PlanResult<SqlType> {
        if !self.at_token(&Token::LParen) {
            return Ok(SqlType::Float8);
        }
        let mut inside = self.parenthesised()?;
        let bits: u32 = inside.number()?;
        inside.finish()?;
        match bits {
            1..=24 => Ok(SqlType::Float4),
            25..=53 => Ok(SqlType::Float8),
            _ => Err(start.place(PlanError::new(
                sqlstate::INVALID_PARAMETER,
                "precision for type float must be between 1 and 53 bits",
            ))),
        }
    }

    fn numeric(&mut self, start: Self) -> PlanResult<SqlType> {
        if !self.at_token(&Token::LParen) {
            return Err(start.place(
                PlanError::unsupported("numeric without precision and scale is not supported")
                    .hint("give precision and scale, e.g. numeric(18,2)"),
            ));
        }
        let mut inside = self.parenthesised()?;
        let precision: u32 = inside.number()?;
        let scale: u32 = if inside.eat_token(&Token::Comma) { inside.number()? } else { 0 };
        inside.finish()?;
        if !(1..=NUMERIC_PRECISION_MAX as u32).contains(&precision) {
            let message = format!("numeric precision {precision} must be between 1 and {NUMERIC_PRECISION_MAX}");
            return Err(start.place(PlanError::new(sqlstate::INVALID_PARAMETER, message)));
        }
        if scale > precision {
            let message = format!("numeric scale {scale} must be between 0 and precision {precision}");
            return Err(start.place(PlanError::new(sqlstate::INVALID_PARAMETER, message)));
        }
        Ok(SqlType::Numeric { precision: precision as u8, scale: scale as i8 })
    }

    fn vector(&mut self, start: Self) -> PlanResult<SqlType> {
        if !self.at_token(&Token::LParen) {
            return Ok(SqlType::Vector(None));
        }
        let mut inside = self.parenthesised()?;
        let dimensions: u32 = inside.number()?;
        inside.finish()?;
        vector::sql_type(dimensions).map_err(|error| start.place(error))
    }

    /// `VARCHAR(n)` and `CHAR(n)`: the length is taken and not enforced.
    fn characters(&mut self) -> PlanResult<SqlType> {
        if self.at_token(&Token::LParen) {
            let mut inside = self.parenthesised()?;
            inside.number::<std::num::NonZeroU32>()?;
            inside.finish()?;
        }
        Ok(SqlType::Text)
    }

    /// A precision of six digits, the only one there is.
    fn microseconds(&mut self) -> PlanResult<()> {
        if !self.at_token(&Token::LParen) {
            return Ok(());
        }
        let mut inside = self.parenthesised()?;
        let start = inside;
        let digits: u32 = inside.number()?;
        inside.finish()?;
        match digits {
            6 => Ok(()),
            _ => Err(start.place(
                PlanError::unsupported(format!("a timestamp precision of {digits} digits is not supported"))
                    .hint("leave the precision out: timestamps are held in microseconds"),
            )),
        }
    }

    fn zone(&mut self) -> PlanResult<bool> {
        if self.eat_all(&["WITH", "TIME", "ZONE"]) {
            return Ok(true);
        }
        self.eat_all(&["WITHOUT", "TIME", "ZONE"]);
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Statement, parse::parse};

    #[test]
    fn vectors_are_a_type_and_their_extension_is_there() {
        let types = |sql: &str| match parse(sql).map(|mut parsed| parsed.remove(0).statement) {
            Ok(Statement::CreateRelation(relation)) => {
                Ok(relation.columns.into_iter().map(|column| column.ty).collect::<Vec<_>>())
            }
            Ok(other) => panic!("{sql} is {other:?}"),
            Err(error) => Err(error.message),
        };
        let expected: Vec<SqlType> = vec![
            SqlType::Vector(None),
            SqlType::Vector(Some(3)),
            SqlType::Array(Box::new(SqlType::Vector(Some(16_000)))),
        ];
        assert_eq!(types("CREATE TABLE t (a vector, b VECTOR(3), c vector(16000)[])"), Ok(expected));
        let refused = |message: &str| Err(message.to_string());
        assert_eq!(types("CREATE TABLE t (a vector(0))"), refused("dimensions for type vector must be at least 1"));
        assert_eq!(
            types("CREATE TABLE t (a vector(16001))"),
            refused("dimensions for type vector cannot exceed 16000")
        );
        for sql in ["CREATE EXTENSION vector", "create extension if not exists \"vector\" with schema public cascade"] {
            let parsed = parse(sql).map(|mut parsed| parsed.remove(0).statement);
            assert_eq!(parsed, Ok(Statement::Nothing { tag: "CREATE EXTENSION" }), "{sql}");
        }
        assert!(parse("CREATE EXTENSION postgis").is_err());
    }
}
