//! `COPY`, with the options in parentheses and in the order of words that PostgreSQL had before 9.0 and clients still
//! send.

use super::{cursor::Cursor, name::qualified, view::switch};
use crate::{
    PlanError, PlanResult,
    error::sqlstate,
    statement::{CopyCompression, CopyFormat, CopyOptions, CopySource, CopyTarget, Statement},
};
use datafusion::sql::sqlparser::tokenizer::Token;

pub(super) fn copy(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("COPY")?;
    // COPY BINARY name …, from before 7.3
    let binary = c.at("BINARY") && c.peek(1).is_some_and(|next| matches!(next, Token::Word(_))) && c.eat("BINARY");
    let start = *c;
    if c.at_token(&Token::LParen) {
        let mut inside = c.parenthesised()?;
        let text = inside.rest_text().to_string();
        let query = inside.query()?;
        return to(c, CopySource::Query { query, text }, binary);
    }
    let path = c.path()?;
    let columns = if c.at_token(&Token::LParen) { c.names()? } else { vec![] };
    if c.at("TO") {
        let source = match qualified(path) {
            Ok(name) => CopySource::Table { name, columns },
            // the history and the catalog can be copied out: what is copied is what SELECT reads
            Err(_) => select_from(&start, &columns)?,
        };
        return to(c, source, binary);
    }
    let table = qualified(path).map_err(|error| start.place(error))?;
    c.expect("FROM")?;
    let from = *c;
    if c.at("PROGRAM") {
        return Err(from.place(
            PlanError::unsupported("COPY FROM a program is not supported")
                .hint("use COPY … FROM STDIN, in psql: \\copy name FROM PROGRAM '…'"),
        ));
    }
    let file = match c.eat("STDIN") {
        true => None,
        false => Some(c.string()?),
    };
    let options = options(c, binary)?;
    if let (None, Some(name)) = (&file, by_columns(options.format)) {
        return Err(from.place(
            PlanError::unsupported(format!("COPY FROM STDIN in format {name} is not supported")).hint(format!(
                "COPY … FROM 'file' (FORMAT {name}) reads a file of the server; or use csv, text or binary"
            )),
        ));
    }
    if c.at("WHERE") {
        return Err(c.place(
            PlanError::unsupported("COPY FROM … WHERE is not supported").hint("filter the rows where they are read"),
        ));
    }
    Ok(Statement::CopyFrom { table, columns, file, options })
}

/// The name of a format that has its rows by columns.
fn by_columns(format: CopyFormat) -> Option<&'static str> {
    match format {
        CopyFormat::Parquet => Some("parquet"),
        CopyFormat::Arrow => Some("arrow"),
        CopyFormat::Text | CopyFormat::Csv | CopyFormat::Binary => None,
    }
}

fn to(c: &mut Cursor<'_>, source: CopySource, binary: bool) -> PlanResult<Statement> {
    c.expect("TO")?;
    let place = *c;
    let target = if c.eat("STDOUT") {
        CopyTarget::Stdout
    } else if c.at("PROGRAM") {
        return Err(c.place(
            PlanError::unsupported("COPY TO a program is not supported").hint("use psql: \\copy … TO PROGRAM '…'"),
        ));
    } else {
        CopyTarget::File(c.string()?)
    };
    let options = options(c, binary)?;
    if options.format == CopyFormat::Parquet && target == CopyTarget::Stdout {
        return Err(place.place(
            PlanError::unsupported("COPY TO STDOUT in format parquet is not supported")
                .hint("COPY … TO 'file.parquet' (FORMAT parquet)"),
        ));
    }
    Ok(Statement::CopyTo { source, target, options })
}

/// `SELECT columns FROM name` for a name in another schema; `start` stands before the name.
fn select_from(start: &Cursor<'_>, columns: &[String]) -> PlanResult<CopySource> {
    let mut after = *start;
    after.path()?;
    let name = Cursor { end: after.at, ..*start }.rest_text();
    let quoted = |column: &String| format!("\"{}\"", column.replace('"', "\"\""));
    let columns = match columns {
        [] => "*".to_string(),
        columns => columns.iter().map(quoted).collect::<Vec<_>>().join(", "),
    };
    let text = format!("SELECT {columns} FROM {name}");
    match super::parse(&text)?.pop().map(|parsed| parsed.statement) {
        Some(Statement::Query(query)) => Ok(CopySource::Query { query, text }),
        _ => Err(start.unexpected()),
    }
}

/// What was given, before the defaults of its format.
#[derive(Default)]
struct Given {
    format: Option<CopyFormat>,
    delimiter: Option<String>,
    null: Option<String>,
    header: Option<bool>,
    quote: Option<String>,
    escape: Option<String>,
    compression: Option<CopyCompression>,
    compression_level: Option<i32>,
    row_group_rows: Option<usize>,
}

fn options(c: &mut Cursor<'_>, binary: bool) -> PlanResult<CopyOptions> {
    let start = *c;
    let mut given = Given { format: binary.then_some(CopyFormat::Binary), ..Given::default() };
    c.eat("WITH");
    if c.at_token(&Token::LParen) {
        c.list(|option| in_parentheses(option, &mut given))?;
    } else {
        while in_words(c, &mut given)? {}
    }
    checked(given).map_err(|error| start.place(error))
}

fn set<T>(c: &Cursor<'_>, slot: &mut Option<T>, value: T) -> PlanResult<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(c.place(PlanError::syntax("conflicting or redundant options"))),
    }
}

fn in_parentheses(c: &mut Cursor<'_>, given: &mut Given) -> PlanResult<()> {
    let start = *c;
    match c.label()?.as_str() {
        "format" => {
            let format = match c.option_value()?.to_lowercase().as_str() {
                "text" => CopyFormat::Text,
                "csv" => CopyFormat::Csv,
                "binary" => CopyFormat::Binary,
                "parquet" => CopyFormat::Parquet,
                "arrow" => CopyFormat::Arrow,
                other => {
                    return Err(start.place(
                        PlanError::new(sqlstate::INVALID_PARAMETER, format!("COPY format \"{other}\" not recognized"))
                            .hint("the formats are text, csv, binary, arrow and, to a file, parquet"),
                    ));
                }
            };
            set(&start, &mut given.format, format)
        }
        "delimiter" => set(&start, &mut given.delimiter, c.option_value()?),
        "null" => set(&start, &mut given.null, c.option_value()?),
        "header" => {
            if c.at("MATCH") {
                return Err(c.place(PlanError::unsupported("HEADER MATCH is not supported").hint("use HEADER true")));
            }
            let header = switch(c)?;
            set(&start, &mut given.header, header)
        }
        "quote" => set(&start, &mut given.quote, c.option_value()?),
        "escape" => set(&start, &mut given.escape, c.option_value()?),
        "compression" => {
            let compression = compression(c).map_err(|error| start.place(error))?;
            set(&start, &mut given.compression, compression)
        }
        "compression_level" => {
            let level = whole(c, &start, "compression_level", 1..=22)?;
            set(&start, &mut given.compression_level, level as i32)
        }
        "row_group_size" => {
            let rows = whole(c, &start, "row_group_size", 1..=ROW_GROUP_ROWS_MAX)?;
            set(&start, &mut given.row_group_rows, rows)
        }
        "encoding" => encoding(c),
        "freeze" => switch(c).map(|_| ()),
        name @ ("force_quote" | "force_not_null" | "force_null") => {
            Err(start.place(PlanError::unsupported(format!("COPY option {name} is not supported"))))
        }
        name => Err(start.place(PlanError::syntax(format!("option \"{name}\" not recognized")))),
    }
}

/// One of the old options, if there is one here.
fn in_words(c: &mut Cursor<'_>, given: &mut Given) -> PlanResult<bool> {
    let start = *c;
    if c.eat("CSV") {
        set(&start, &mut given.format, CopyFormat::Csv)?;
    } else if c.eat("BINARY") {
        set(&start, &mut given.format, CopyFormat::Binary)?;
    } else if c.eat("HEADER") {
        set(&start, &mut given.header, true)?;
    } else if c.eat("DELIMITER") || c.eat("DELIMITERS") || c.eat_all(&["USING", "DELIMITERS"]) {
        set(&start, &mut given.delimiter, word_value(c)?)?;
    } else if c.eat("NULL") {
        set(&start, &mut given.null, word_value(c)?)?;
    } else if c.eat("QUOTE") {
        set(&start, &mut given.quote, word_value(c)?)?;
    } else if c.eat("ESCAPE") {
        set(&start, &mut given.escape, word_value(c)?)?;
    } else if c.eat("ENCODING") {
        encoding(c)?;
    } else if c.at("FORCE") {
        return Err(c.place(PlanError::unsupported("COPY … FORCE is not supported")));
    } else {
        return Ok(c.eat("FREEZE"));
    }
    Ok(true)
}

/// A row group is put together in memory.
const ROW_GROUP_ROWS_MAX: usize = 10_000_000;

fn compression(c: &mut Cursor<'_>) -> PlanResult<CopyCompression> {
    match c.option_value()?.to_lowercase().as_str() {
        "none" | "uncompressed" => Ok(CopyCompression::Uncompressed),
        "snappy" => Ok(CopyCompression::Snappy),
        "zstd" => Ok(CopyCompression::Zstd(3)),
        other => Err(PlanError::unsupported(format!("COPY compression \"{other}\" is not supported"))
            .hint("snappy, which it is by default, zstd, or none")),
    }
}

fn whole(
    c: &mut Cursor<'_>,
    start: &Cursor<'_>,
    option: &str,
    range: std::ops::RangeInclusive<usize>,
) -> PlanResult<usize> {
    let value = c.option_value()?;
    value.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        let message = format!("invalid value for COPY option {option}: \"{value}\"");
        start.place(PlanError::new(sqlstate::INVALID_PARAMETER, message).hint(format!(
            "a whole number from {} to {}",
            range.start(),
            range.end()
        )))
    })
}

fn word_value(c: &mut Cursor<'_>) -> PlanResult<String> {
    c.eat("AS");
    c.string()
}

fn encoding(c: &mut Cursor<'_>) -> PlanResult<()> {
    let start = *c;
    let encoding = c.option_value()?.to_lowercase().replace(['-', '_'], "");
    match encoding.as_str() {
        "utf8" | "unicode" | "sqlascii" => Ok(()),
        _ => {
            Err(start
                .place(PlanError::unsupported("only encoding UTF8 is supported").hint("convert the file to UTF-8")))
        }
    }
}

/// PostgreSQL's rules for what goes with what (COPY reference, "Parameters").
fn checked(given: Given) -> PlanResult<CopyOptions> {
    let format = given.format.unwrap_or(CopyFormat::Text);
    let is_csv = format == CopyFormat::Csv;
    let has_text = is_csv || format == CopyFormat::Text;
    let name = match format {
        CopyFormat::Parquet => "PARQUET",
        CopyFormat::Arrow => "ARROW",
        _ => "BINARY",
    };
    for (option, given) in [
        ("DELIMITER", given.delimiter.is_some()),
        ("NULL", given.null.is_some()),
        ("HEADER", given.header == Some(true)),
    ] {
        if given && !has_text {
            return Err(PlanError::syntax(format!("cannot specify {option} in {name} mode")));
        }
    }
    for (option, given) in [("quote", given.quote.is_some()), ("escape", given.escape.is_some())] {
        if given && !is_csv {
            return Err(PlanError::unsupported(format!("COPY {option} available only in CSV mode")));
        }
    }
    for (option, given) in [
        ("compression", given.compression.is_some()),
        ("compression_level", given.compression_level.is_some()),
        ("row_group_size", given.row_group_rows.is_some()),
    ] {
        if given && format != CopyFormat::Parquet {
            return Err(PlanError::unsupported(format!("COPY {option} available only in PARQUET mode")));
        }
    }
    let compression = match (given.compression.unwrap_or_default(), given.compression_level) {
        (compression, None) => compression,
        (CopyCompression::Zstd(_), Some(level)) => CopyCompression::Zstd(level),
        _ => return Err(PlanError::unsupported("COPY compression_level available only with compression zstd")),
    };
    let one_byte = |option: &str, value: Option<String>| match value.as_deref().map(str::as_bytes) {
        None => Ok(None),
        Some([byte]) if byte.is_ascii() => Ok(Some(*byte)),
        Some(_) => Err(PlanError::unsupported(format!("COPY {option} must be a single one-byte character"))),
    };
    let delimiter = one_byte("delimiter", given.delimiter)?;
    let quote = one_byte("quote", given.quote)?;
    let escape = one_byte("escape", given.escape)?;
    let invalid = |message: &str| PlanError::new(sqlstate::INVALID_PARAMETER, message);
    if matches!(delimiter, Some(b'\n' | b'\r')) {
        return Err(invalid("COPY delimiter cannot be newline or carriage return"));
    }
    if given.null.as_ref().is_some_and(|null| null.contains(['\n', '\r'])) {
        return Err(invalid("COPY null representation cannot use newline or carriage return"));
    }
    if is_csv && delimiter.unwrap_or(b',') == quote.unwrap_or(b'"') {
        return Err(invalid("COPY delimiter and quote must be different"));
    }
    if format == CopyFormat::Text && delimiter.is_some_and(|d| b"\\.abcdefghijklmnopqrstuvwxyz0123456789".contains(&d))
    {
        let delimiter = delimiter.map(char::from).unwrap_or_default();
        return Err(invalid(&format!("COPY delimiter cannot be \"{delimiter}\"")));
    }
    if let Some(null) = &given.null
        && null.as_bytes().contains(&delimiter.unwrap_or(if is_csv { b',' } else { b'\t' }))
    {
        return Err(invalid("COPY delimiter must not appear in the NULL specification"));
    }
    Ok(CopyOptions {
        format,
        delimiter,
        null: given.null,
        header: given.header.unwrap_or(false),
        quote,
        escape,
        compression,
        row_group_rows: given.row_group_rows.unwrap_or(CopyOptions::ROW_GROUP_ROWS),
    })
}
