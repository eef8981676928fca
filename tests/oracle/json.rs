//! JSON, expression by expression: the same SQL here and in PostgreSQL, over documents with everything that a document may have.

use crate::postgres::Postgres;
use anyhow::{Context, Result, bail, ensure};
use datafusion::{arrow::array::AsArray, prelude::SessionContext};
use tidemark_catalog::Snapshot;
use tidemark_planner::{
    PlanError, Statement,
    bind::{Binder, NoSystemTables},
    functions::planning_state,
    parse::parse,
};
use tokio_postgres::SimpleQueryMessage;

/// `JSON` and `JSONB` become the document as such.
///
/// Not here, as they are PostgreSQL's alone: `jsonb -> 0` of a scalar is that scalar, and `json #> '{}'` of one keeps the white
/// space before it.
const EXPRESSIONS: &[&str] = &[
    "JSON",
    "JSONB",
    "JSON -> 'a'",
    "JSON ->> 'a'",
    "JSONB -> 'a'",
    "JSONB ->> 'a'",
    "JSON -> 0",
    "JSON ->> -1",
    "JSON -> 7",
    "JSON -> -7",
    "JSON -> 'a' -> 'b' ->> 1",
    "JSONB -> 'a' -> 'b' ->> 1",
    "JSON #> '{a,b,-1}'",
    "JSON #>> '{a,b,-1}'",
    "JSONB #> '{a,b, +1}'",
    "JSONB #>> '{1,a}'",
    "JSON #> '{}'",
    "JSON #>> '{}'",
    "JSONB #>> '{}'",
    "JSON #> '{a,null}'",
    "JSON #>> ARRAY['0','x']",
    "json_typeof(JSON)",
    "jsonb_typeof(JSONB)",
    "json_typeof(JSON -> 'a')",
    "json_array_length(JSON)",
    "jsonb_array_length(JSONB)",
    "json_array_length(JSON -> 'a' -> 'b')",
    "json_extract_path(JSON, 'a')",
    "json_extract_path(JSON, 'a', 'b', '0')",
    "json_extract_path(JSON, 'a', NULL)",
    "json_extract_path(JSON, ' 1')",
    "json_extract_path(JSON, '1 ')",
    "json_extract_path(JSON, '01')",
    "json_extract_path(JSON, '')",
    "json_extract_path_text(JSON, 'a')",
    "json_extract_path_text(JSON, 'a', 'b', '-2')",
    "json_extract_path_text(JSON, '99999999999')",
    "jsonb_extract_path(JSONB, 'a', 'b')",
    "jsonb_extract_path(JSONB, '-1')",
    "jsonb_extract_path_text(JSONB, 'a', 'b', '-2')",
    "jsonb_extract_path_text(JSONB, '0')",
    "JSONB ? 'a'",
    "JSONB ? ''",
    "JSONB ? 'é'",
    "JSONB ? '1'",
    "JSONB ? 'null'",
    "JSONB -> 'a' ? 'b'",
    "JSONB ? NULL::text",
    "JSONB ?| ARRAY['x', 'a']",
    "JSONB ?& ARRAY['x', 'a']",
    "JSONB ?& ARRAY['a', NULL]",
    "JSONB ?| '{}'",
    "JSONB ?& '{}'",
];

const DOCUMENTS: &[&str] = &[
    r#"{"a": {"b": [1, 2.50, {"c": null}]}, "x": "y"}"#,
    r#" {"a":1,"a":{"b":"last"} , "A":0} "#,
    r#"{"a": null}"#,
    r#"{"a": "null", "b": true}"#,
    r#"{"\u0061": "\u00e9\n\"\\\/", "é": 1, "": []}"#,
    r#"{"bb": 1, "b": 2, "aaa": 3, "a": [ ], "é": {} }"#,
    r#"["a", "b", 1, null, true, ["a"]]"#,
    r#"[{"a": 1}, {"a": "x"}]"#,
    r#"[1.10, 1e2, -0, -0.0, 12e-1, 1.0e2, 1.50e1, 0e5, 0.00e1, 1E+2, 123456789012345678901234567890.5]"#,
    "[]",
    "{}",
    "[ [ ] , { } ]",
    "7",
    "-1.5e-3 ",
    "1e400",
    r#""a""#,
    r#""""#,
    r#""1""#,
    r#""\ud83d\ude00 \u001f \b\f\r\t""#,
    "true",
    "false",
    "null ",
    // Of these only what takes no part out is told.
    r#"{"a": "x\u0000"}"#,
    r#"["\ud800", "a"]"#,
    // These are no JSON.
    "",
    " ",
    "{",
    "{'a': 1}",
    "[1,]",
    "nul",
    "01",
    "1 2",
    "\"\t\"",
    r#""\x""#,
];

#[tokio::test]
async fn json_is_read_as_postgresql_reads_it() -> Result<()> {
    let postgres = Postgres::start().await?;
    let mut different = vec![];
    for document in DOCUMENTS {
        for expression in EXPRESSIONS {
            let sql = format!("SELECT ({})::text", over(expression, document));
            let (ours, theirs) = (here(&sql).await?, there(&postgres, &sql).await?);
            if ours != theirs {
                different.push(format!("{sql}\n  here {ours:?}\n  there {theirs:?}"));
            }
        }
    }
    ensure!(different.is_empty(), "{} are different\n{}", different.len(), different.join("\n"));
    Ok(())
}

/// The expression with the document in it.
fn over(expression: &str, document: &str) -> String {
    let quoted = document.replace('\'', "''");
    expression.replace("JSONB", &format!("'{quoted}'::jsonb")).replace("JSON", &format!("'{quoted}'::json"))
}

/// A text, NULL, or the SQLSTATE of the error.
type Answer = Result<Option<String>, String>;

async fn there(postgres: &Postgres, sql: &str) -> Result<Answer> {
    match postgres.client.simple_query(sql).await {
        Ok(messages) => {
            let row = messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_string)),
                _ => None,
            });
            Ok(Ok(row.with_context(|| format!("no row of {sql}"))?))
        }
        Err(error) => match error.code() {
            Some(code) => Ok(Err(code.code().to_string())),
            None => Err(error.into()),
        },
    }
}

async fn here(sql: &str) -> Result<Answer> {
    let Some(Statement::Query(query)) = parse(sql)?.into_iter().next().map(|parsed| parsed.statement) else {
        bail!("{sql} is no query");
    };
    let (snapshot, state) = (Snapshot::default(), planning_state("UTC"));
    let context = SessionContext::new_with_state(state.clone());
    let answered = async {
        let bound = Binder::new(&snapshot, &state, &NoSystemTables, 0).query(&query, &[])?;
        let rows = context.execute_logical_plan(bound.plan).await?.collect().await?;
        Ok::<_, PlanError>(
            rows.iter().find_map(|rows| rows.column(0).as_string::<i32>().iter().next()?.map(str::to_string)),
        )
    };
    Ok(answered.await.map_err(|error| error.sqlstate.to_string()))
}
