//! `CREATE SOURCE` and `CREATE TABLE`: columns, key, watermark, options, format.

use super::{cursor::Cursor, duration_us};
use crate::{
    PlanError, PlanResult,
    error::sqlstate,
    statement::{ColumnDef, CreateRelation, Statement},
};
use datafusion::sql::sqlparser::tokenizer::Token;
use std::collections::BTreeMap;
use tidemark_catalog::{Encode, Include, ObjectKind, QualifiedName, Relation, SqlType};

/// Behind `CREATE TEMPORARY TABLE`: as any other, with `ON COMMIT` before `AS` or at the end.
pub(super) fn create_temporary(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    let at = (c.at..c.end).find(|at| Cursor { at: *at, ..*c }.at_all(&["ON", "COMMIT"]));
    let mut ends_with_transaction = false;
    let create = match at {
        None => create(c, ObjectKind::Table)?,
        Some(at) => {
            let mut clause = Cursor { at, ..*c };
            clause.expect("ON")?;
            clause.expect("COMMIT")?;
            if clause.at("DELETE") {
                return Err(clause.place(
                    PlanError::unsupported("ON COMMIT DELETE ROWS is not supported")
                        .hint("ON COMMIT DROP, or TRUNCATE"),
                ));
            }
            ends_with_transaction = clause.eat("DROP");
            if !ends_with_transaction {
                clause.expect("PRESERVE")?;
                clause.expect("ROWS")?;
            }
            let clause = at..clause.at;
            // Read as if the clause were not there.
            let tokens = [&c.tokens[..clause.start], &c.tokens[clause.end..]].concat();
            let mut without = Cursor { tokens: &tokens, end: c.end - clause.len(), ..*c };
            let created = create(&mut without, ObjectKind::Table)?;
            without.finish()?;
            c.at = c.end;
            created
        }
    };
    Ok(Statement::CreateTemporary { create: Box::new(create), ends_with_transaction })
}

/// Behind `CREATE SOURCE | TABLE`.
pub(super) fn create(c: &mut Cursor<'_>, kind: ObjectKind) -> PlanResult<Statement> {
    let if_not_exists = c.if_not_exists();
    let start = *c;
    let name = c.object_name()?;
    if kind == ObjectKind::Table && c.eat("AS") {
        return create_table_as(c, name, if_not_exists);
    }
    let mut relation = CreateRelation {
        kind,
        name,
        if_not_exists,
        columns: vec![],
        defaults: BTreeMap::new(),
        includes: vec![],
        primary_key: vec![],
        watermark: None,
        options: Default::default(),
        upsert: false,
        encode: Encode::default(),
    };
    // A table of files may leave its columns to them.
    let has_list = !(kind == ObjectKind::Table && c.at("WITH"));
    if has_list {
        let columns = *c;
        c.list(|item| element(item, &mut relation)).map_err(|error| columns_missing(columns, kind, error))?;
    }
    if kind == ObjectKind::Table && c.at("AS") {
        return Err(c.place(
            PlanError::unsupported("a column list in CREATE TABLE AS is not supported")
                .hint("name the columns in the query: SELECT … AS name"),
        ));
    }
    while c.at("INCLUDE") {
        include(c, &mut relation)?;
        c.eat_token(&Token::Comma);
    }
    if has_list {
        resolve(&mut relation, start)?;
    }
    let mut has_options = false;
    let mut has_format = false;
    loop {
        if !has_options && c.eat("WITH") {
            let start = *c;
            let options = c.options()?;
            add_options(&mut relation, options).map_err(|error| start.place(error))?;
            has_options = true;
        } else if !has_format && c.at("FORMAT") {
            format(c, &mut relation)?;
            has_format = true;
        } else {
            break;
        }
    }
    let is_files = |connector: &String| Relation::FILES.contains(&connector.as_str());
    if !has_list && !relation.options.get("connector").is_some_and(is_files) {
        let message = format!("{kind} \"{}\" has no columns", relation.name);
        return Err(start.place(PlanError::new(sqlstate::INVALID_DEFINITION, message).hint(
            "name them: ( name type, … ); only connector = 'parquet', 'csv' and 'iceberg' find them themselves",
        )));
    }
    if relation.upsert && relation.primary_key.is_empty() {
        return Err(start.place(
            PlanError::new(
                sqlstate::INVALID_DEFINITION,
                format!("{kind} \"{}\" has FORMAT UPSERT and no primary key", relation.name),
            )
            .hint("add PRIMARY KEY (column, …)"),
        ));
    }
    Ok(Statement::CreateRelation(relation))
}

/// A query where the column list belongs, or none: say what is missing.
fn columns_missing(c: Cursor<'_>, kind: ObjectKind, error: PlanError) -> PlanError {
    if c.at_token(&Token::LParen) {
        return error;
    }
    error.hint(format!("a {kind} needs its columns: ( name type, … )"))
}

fn create_table_as(c: &mut Cursor<'_>, name: QualifiedName, if_not_exists: bool) -> PlanResult<Statement> {
    let mut query = *c;
    // sqlparser does not know the closing WITH [NO] DATA
    for (words, data) in [(&["WITH", "NO", "DATA"][..], false), (&["WITH", "DATA"][..], true)] {
        let Some(at) = c.end.checked_sub(words.len()).filter(|at| *at > c.at) else { continue };
        let tail = Cursor { at, ..*c };
        if tail.at_all(words) {
            if !data {
                return Err(tail.place(
                    PlanError::unsupported("CREATE TABLE AS … WITH NO DATA is not supported").hint("use LIMIT 0"),
                ));
            }
            query.end = at;
            break;
        }
    }
    let query = query.query()?;
    c.at = c.end;
    Ok(Statement::CreateTableAs { name, if_not_exists, query })
}

/// One element of the list in parentheses.
fn element(c: &mut Cursor<'_>, relation: &mut CreateRelation) -> PlanResult<()> {
    if c.at_all(&["WATERMARK", "FOR"]) {
        let start = *c;
        let watermark = watermark(c)?;
        if relation.watermark.replace(watermark).is_some() {
            return Err(start.place(PlanError::syntax("more than one WATERMARK")));
        }
        return Ok(());
    }
    let start = *c;
    let mut constraint = None;
    if c.eat("CONSTRAINT") {
        constraint = Some(c.identifier()?);
    }
    if c.at("EXPECT") && (constraint.is_some() || c.peek(1) == Some(&Token::LParen)) {
        return Err(start.place(
            PlanError::unsupported("expectations come later").hint("filter the rows in the feature view's WHERE"),
        ));
    }
    if c.eat_all(&["PRIMARY", "KEY"]) {
        let key = c.names()?;
        return set_primary_key(relation, key, start);
    }
    refuse_constraint(c)?;
    if constraint.is_some() {
        return Err(c.unexpected());
    }
    column(c, relation)
}

fn column(c: &mut Cursor<'_>, relation: &mut CreateRelation) -> PlanResult<()> {
    let start = *c;
    let name = c.identifier()?;
    if relation.columns.iter().any(|column| column.name == name) {
        return Err(start
            .place(PlanError::new(sqlstate::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"))));
    }
    let ty = c.sql_type()?;
    let mut not_null = false;
    loop {
        let constraint = *c;
        if c.eat("CONSTRAINT") {
            c.identifier()?;
        }
        if c.eat_all(&["NOT", "NULL"]) {
            not_null = true;
        } else if c.eat("DEFAULT") {
            let default = super::columns::literal(c, "column")?;
            relation.defaults.extend(default.map(|default| (name.clone(), default)));
        } else if c.eat_all(&["PRIMARY", "KEY"]) {
            set_primary_key(relation, vec![name.clone()], constraint)?;
        } else if !c.eat("NULL") {
            refuse_constraint(c)?;
            if c.at != constraint.at {
                return Err(c.unexpected());
            }
            break;
        }
    }
    relation.columns.push(ColumnDef { name, ty, not_null });
    Ok(())
}

/// PostgreSQL's constraints that are not kept here: refused rather than ignored.
pub(super) fn refuse_constraint(c: &Cursor<'_>) -> PlanResult<()> {
    let refused = [
        ("CHECK", "filter the rows in the feature view's WHERE"),
        ("UNIQUE", "use PRIMARY KEY"),
        ("REFERENCES", "leave it out: there are no foreign keys"),
        ("FOREIGN", "leave it out: there are no foreign keys"),
        ("EXCLUDE", "leave it out"),
        ("DEFAULT", "give the value in every INSERT"),
        ("GENERATED", "compute it in the feature view's SELECT"),
        ("COLLATE", "leave it out: text compares by its bytes"),
        ("LIKE", "write the columns out"),
    ];
    for (word, hint) in refused {
        // a column may be called "exclude" or "generated": a constraint has something else than a type behind it
        let is_name = !matches!(word, "CHECK" | "UNIQUE" | "REFERENCES" | "FOREIGN" | "DEFAULT" | "COLLATE" | "LIKE")
            && !["ALWAYS", "BY", "USING"].iter().any(|next| c.at_ahead(1, next));
        if c.at(word) && !is_name {
            return Err(c.place(PlanError::unsupported(format!("{word} is not supported in a definition")).hint(hint)));
        }
    }
    Ok(())
}

/// `INCLUDE KEY [type] | HEADER 'name' [type] | TIMESTAMP | PARTITION | OFFSET AS name`
fn include(c: &mut Cursor<'_>, relation: &mut CreateRelation) -> PlanResult<()> {
    c.expect("INCLUDE")?;
    let start = *c;
    let word = c.keyword(0).ok_or_else(|| c.unexpected())?;
    c.skip();
    let (include, ty) = match word.as_str() {
        "KEY" => (Include::Key, SqlType::Bytea),
        "HEADER" => (Include::Header(c.string()?), SqlType::Bytea),
        "TIMESTAMP" => (Include::Timestamp, SqlType::TimestampTz),
        "PARTITION" => (Include::Partition, SqlType::Int4),
        "OFFSET" => (Include::Offset, SqlType::Int8),
        _ => {
            let error = PlanError::unsupported(format!("INCLUDE {word} is not supported"));
            return Err(start.place(error.hint("KEY, TIMESTAMP, PARTITION, OFFSET and HEADER 'name' are")));
        }
    };
    let bytes = matches!(include, Include::Key | Include::Header(_));
    let typed = *c;
    let ty = if bytes && !c.done() && !["AS", "INCLUDE", "WITH", "FORMAT"].iter().any(|word| c.at(word)) {
        c.sql_type()?
    } else {
        ty
    };
    if bytes && !matches!(ty, SqlType::Bytea | SqlType::Text) {
        let error = PlanError::unsupported(format!("INCLUDE {word} as {ty} is not supported"));
        return Err(typed.place(error.hint("text and bytea are; cast it in the SELECT")));
    }
    c.expect("AS")?;
    let name = c.identifier()?;
    if relation.columns.iter().any(|column| column.name == name) {
        return Err(start
            .place(PlanError::new(sqlstate::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once"))));
    }
    relation.includes.push((relation.columns.len(), include));
    relation.columns.push(ColumnDef { name, ty, not_null: false });
    Ok(())
}

fn set_primary_key(relation: &mut CreateRelation, key: Vec<String>, start: Cursor<'_>) -> PlanResult<()> {
    if !relation.primary_key.is_empty() {
        return Err(start.place(PlanError::new(
            sqlstate::INVALID_DEFINITION,
            format!("multiple primary keys for {} \"{}\" are not allowed", relation.kind, relation.name),
        )));
    }
    relation.primary_key = key;
    Ok(())
}

/// `WATERMARK FOR c AS c [ - INTERVAL '…' [unit] ]`
fn watermark(c: &mut Cursor<'_>) -> PlanResult<(String, i64)> {
    c.expect("WATERMARK")?;
    c.expect("FOR")?;
    let column = c.identifier()?;
    c.expect("AS")?;
    let start = *c;
    let explain =
        |error: PlanError| error.hint(format!("write WATERMARK FOR {column} AS {column} - INTERVAL '5 seconds'"));
    if c.identifier()? != column {
        let message = format!("the watermark for column \"{column}\" must be computed from that column");
        return Err(explain(start.place(PlanError::syntax(message))));
    }
    if c.done() || c.at_token(&Token::Comma) {
        return Ok((column, 0));
    }
    if c.at_token(&Token::Plus) {
        return Err(explain(
            c.place(PlanError::new(sqlstate::INVALID_PARAMETER, "a watermark cannot run ahead of its column")),
        ));
    }
    c.expect_token(&Token::Minus).map_err(explain)?;
    c.expect("INTERVAL").map_err(explain)?;
    let literal = *c;
    let mut text = c.string().map_err(explain)?;
    if let Some(unit) = c.keyword(0) {
        c.skip();
        text = format!("{text} {unit}");
    }
    let delay_us = duration_us(&text).map_err(|error| literal.place(error))?;
    Ok((column, delay_us))
}

/// `FORMAT PLAIN | UPSERT [ENCODE JSON | CSV | BYTES [( option = value, … )]]`
fn format(c: &mut Cursor<'_>, relation: &mut CreateRelation) -> PlanResult<()> {
    c.expect("FORMAT")?;
    relation.upsert = if c.eat("UPSERT") {
        true
    } else if c.eat("PLAIN") {
        false
    } else {
        return Err(match c.keyword(0) {
            Some(word) => c.place(
                PlanError::unsupported(format!("FORMAT {word} is not supported"))
                    .hint("FORMAT PLAIN and FORMAT UPSERT are"),
            ),
            None => c.unexpected(),
        });
    };
    if !c.eat("ENCODE") {
        return Ok(());
    }
    relation.encode = if c.eat("JSON") {
        Encode::Json
    } else if c.eat("CSV") {
        Encode::Csv
    } else if c.eat("BYTES") {
        Encode::Bytes
    } else {
        return Err(match c.keyword(0) {
            Some(word) => c.place(
                PlanError::unsupported(format!("ENCODE {word} is not supported"))
                    .hint("ENCODE JSON, CSV and BYTES are"),
            ),
            None => c.unexpected(),
        });
    };
    if c.at_token(&Token::LParen) {
        let start = *c;
        let prefix = relation.encode.to_string().to_lowercase();
        let options = c.options()?.into_iter().map(|(name, value)| (format!("{prefix}.{name}"), value)).collect();
        add_options(relation, options).map_err(|error| start.place(error))?;
    }
    Ok(())
}

fn add_options(relation: &mut CreateRelation, options: BTreeMap<String, String>) -> PlanResult<()> {
    for (name, value) in options {
        if relation.options.insert(name.clone(), value).is_some() {
            return Err(PlanError::syntax(format!("option \"{name}\" is given more than once")));
        }
    }
    Ok(())
}

/// Names inside the definition: the key's columns and the watermark's exist, and a key's columns are never NULL.
fn resolve(relation: &mut CreateRelation, start: Cursor<'_>) -> PlanResult<()> {
    let (kind, name) = (relation.kind, relation.name.clone());
    let missing = |column: &str, role: &str| {
        PlanError::new(
            sqlstate::UNDEFINED_COLUMN,
            format!("column \"{column}\" named in the {role} of {kind} \"{name}\" does not exist"),
        )
    };
    for key in &relation.primary_key {
        match relation.columns.iter_mut().find(|column| column.name == *key) {
            Some(column) => column.not_null = true,
            None => return Err(start.place(missing(key, "primary key"))),
        }
    }
    if let Some((event_time, _)) = &relation.watermark {
        let column = relation.columns.iter().find(|column| column.name == *event_time);
        let column = column.ok_or_else(|| start.place(missing(event_time, "watermark")))?;
        if !matches!(column.ty, SqlType::TimestampTz | SqlType::Timestamp) {
            return Err(start.place(
                PlanError::new(
                    sqlstate::DATATYPE_MISMATCH,
                    format!("column \"{event_time}\" of {kind} \"{name}\" is not a timestamp"),
                )
                .detail(format!("its type is {}", column.ty))
                .hint("declare it timestamptz, or declare WATERMARK FOR another column"),
            ));
        }
    }
    if relation.columns.is_empty() {
        return Err(
            start.place(PlanError::new(sqlstate::INVALID_DEFINITION, format!("{kind} \"{name}\" has no columns")))
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    #[test]
    fn what_a_message_is_can_have_options_of_its_own() {
        let cases = [
            (
                "FORMAT PLAIN ENCODE CSV (delimiter = ';', null = 'N') WITH (a = 1)",
                Encode::Csv,
                "a,csv.delimiter,csv.null",
            ),
            ("WITH (csv.quote = '|') FORMAT PLAIN ENCODE CSV", Encode::Csv, "csv.quote"),
            ("FORMAT PLAIN ENCODE JSON (timestamp = 'ms', path.x = 'a.b')", Encode::Json, "json.path.x,json.timestamp"),
            ("FORMAT PLAIN ENCODE BYTES", Encode::Bytes, ""),
            ("FORMAT PLAIN", Encode::Json, ""),
        ];
        for (text, encode, options) in cases {
            let parsed = parse(&format!("CREATE SOURCE s (x int) {text}")).map(|mut all| all.remove(0).statement);
            let Ok(Statement::CreateRelation(relation)) = &parsed else { panic!("{text}: {parsed:?}") };
            let names: Vec<&str> = relation.options.keys().map(String::as_str).collect();
            assert_eq!((relation.encode, names.join(",").as_str()), (encode, options), "{text}");
        }
        let refused = [
            (
                "WITH (csv.null = 'a') FORMAT PLAIN ENCODE CSV (null = 'b')",
                "option \"csv.null\" is given more than once",
            ),
            ("FORMAT PLAIN ENCODE AVRO", "ENCODE AVRO is not supported"),
        ];
        for (text, message) in refused {
            let error = parse(&format!("CREATE SOURCE s (x int) {text}")).err().map(|error| error.message);
            assert_eq!(error.as_deref(), Some(message), "{text}");
        }
    }
}
