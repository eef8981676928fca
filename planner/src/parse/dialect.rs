//! PostgreSQL's dialect, and the same with `FOR SYSTEM_TIME AS OF` behind a table's name, IS DISTINCT FROM as it binds there,
//! and an end to the parser's work.

use datafusion::sql::sqlparser::{
    ast::Expr,
    dialect::{Dialect, PostgreSqlDialect, Precedence},
    keywords::Keyword,
    parser::{Parser, ParserError},
};
use std::{
    any::TypeId,
    sync::atomic::{AtomicUsize, Ordering},
};

pub(super) static DIALECT: PostgreSqlDialect = PostgreSqlDialect {};

/// PostgreSQL with table versions, and with a bound on how often an expression is begun.
///
/// Where something does not parse, sqlparser goes back and tries it as something else, at every level of nesting again: sixty
/// `f(SELECT (SELECT (…` without an end would take it longer than anybody waits.
#[derive(Debug)]
pub struct TidemarkDialect {
    /// Only for statements that have the clause: it also turns `at`, `before`, `changes` and the like into keywords where an alias
    /// may stand.
    versioned: bool,
    /// How many expressions may still be begun.
    left: AtomicUsize,
}

/// For each token, and to begin with; a statement that parses begins few of them twice.
const BEGINNINGS_PER_TOKEN_MAX: usize = 100;

impl TidemarkDialect {
    /// For one statement of so many tokens.
    pub fn of(versioned: bool, tokens: usize) -> Self {
        TidemarkDialect { versioned, left: AtomicUsize::new((tokens + 100).saturating_mul(BEGINNINGS_PER_TOKEN_MAX)) }
    }
}

macro_rules! as_in_postgresql {
    ($($capability:ident)*) => { $(fn $capability(&self) -> bool { DIALECT.$capability() })* };
}

impl Dialect for TidemarkDialect {
    /// sqlparser asks for its own dialects by type in places.
    fn dialect(&self) -> TypeId {
        DIALECT.dialect()
    }

    fn supports_table_versioning(&self) -> bool {
        self.versioned
    }

    fn parse_prefix(&self, _: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let spent = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        // The one error that is not taken for a reason to try something else.
        spent.is_err().then_some(Err(ParserError::RecursionLimitExceeded))
    }

    /// `IS [NOT] DISTINCT FROM` takes what binds tighter than IS; sqlparser would give it the ANDs and ORs behind it, too.
    fn parse_infix(&self, parser: &mut Parser, left: &Expr, precedence: u8) -> Option<Result<Expr, ParserError>> {
        let distinct: fn(Box<Expr>, Box<Expr>) -> Expr =
            if parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]) {
                Expr::IsDistinctFrom
            } else if parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]) {
                Expr::IsNotDistinctFrom
            } else {
                return None;
            };
        let right = parser.parse_subexpr(precedence);
        Some(right.map(|right| distinct(Box::new(left.clone()), Box::new(right))))
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        DIALECT.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        DIALECT.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        DIALECT.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        DIALECT.is_identifier_part(ch)
    }

    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        DIALECT.is_reserved_for_identifier(keyword)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        DIALECT.is_custom_operator_part(ch)
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        DIALECT.get_next_precedence(parser)
    }

    fn prec_value(&self, prec: Precedence) -> u8 {
        DIALECT.prec_value(prec)
    }

    as_in_postgresql! {
        supports_unicode_string_literal
        supports_filter_during_aggregation
        supports_group_by_expr
        allow_extract_custom
        allow_extract_single_quotes
        supports_create_index_with_clause
        supports_explain_with_utility_options
        supports_listen_notify
        supports_factorial_operator
        supports_bitwise_shift_operators
        supports_comment_on
        supports_load_extension
        supports_named_fn_args_with_colon_operator
        supports_named_fn_args_with_expr_name
        supports_empty_projections
        supports_nested_comments
        supports_string_escape_constant
        supports_numeric_literal_underscores
        supports_array_typedef_with_brackets
        supports_geometric_types
        supports_set_names
        supports_alter_column_type_using
        supports_notnull_operator
        supports_interval_options
        supports_insert_table_alias
        supports_create_table_like_parenthesized
        supports_select_wildcard_with_alias
        supports_comma_separated_trim
        supports_xml_expressions
        supports_comment_optimizer_hint
    }
}
