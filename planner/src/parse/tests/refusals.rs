//! What is no statement, and what is one elsewhere: the error, where it points, and that there is a hint.

use super::{check_error, parse};

#[test]
fn syntax_errors_say_where() {
    let syntax = |sql, near, at| check_error(sql, "42601", &format!("syntax error at or near \"{near}\""), at);
    syntax("FOO bar", "FOO", "FOO");
    syntax("SELECT 1; 'é' FOO", "'é'", "'é'");
    syntax("SELECT 'é' FROM t WHERE ) x", ")", ") x");
    syntax("SELECT 1 1", "1", "1");
    syntax("SELECT (1;", ";", ";");
    syntax("CHECKPOINT now", "now", "now");
    syntax("CREATE FEATURE v AS SELECT 1", "FEATURE", "FEATURE");
    syntax("CREATE SOURCE s (a int,)", ")", ")");
    syntax("CREATE SOURCE s (order int)", "order", "order");
    syntax("DROP SOURCE a b", "b", "b");
    syntax("SHOW CREATE a", "a", "a");
    syntax("ROLLBACK TO;", ";", ";");
    syntax("COPY t INTO x", "INTO", "INTO");
    syntax("SELECT * FROM a GLOBAL LEFT JOIN b ON true", "GLOBAL", "GLOBAL");
    syntax("SET x;", ";", ";");
    check_error("SELECT", "42601", "syntax error at end of input", "");
    check_error("SELECT 1 +", "42601", "syntax error at end of input", "");
    check_error("é", "42601", "syntax error at or near \"é\"", "é");
    check_error("CREATE", "42601", "syntax error at end of input", "");
    check_error("ALTER SOURCE s ADVANCE WATERMARK TO", "42601", "syntax error at end of input", "");
    check_error("SELECT 'abc", "42601", "unterminated string literal", "'abc");
    check_error("SELECT \0", "42601", "a statement cannot contain the null character", "\0");
}

#[test]
fn what_is_refused_says_so() {
    let never = |sql, message, at| check_error(sql, "0A000", message, at);
    never("SELECT 1 INTO t", "SELECT INTO is not supported", "SELECT");
    never("SELECT * FROM t FOR UPDATE", "FOR UPDATE and FOR SHARE are not supported", "SELECT");
    never("WITH x AS (DELETE FROM t) SELECT 1", "a statement that changes data cannot be part of a query", "WITH");
    never(
        "UPDATE t SET (a, b) = (SELECT 1, 2)",
        "SET (…) = takes as many values in parentheses as there are columns",
        "UPDATE",
    );
    never(
        "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE RETURNING *",
        "MERGE … RETURNING is not supported, as in PostgreSQL 15",
        "RETURNING",
    );
    never(
        "MERGE INTO t USING s ON true WHEN NOT MATCHED BY SOURCE THEN DELETE",
        "WHEN NOT MATCHED BY is not supported, as in PostgreSQL 15",
        "BY",
    );
    never("CREATE TEMP VIEW t AS SELECT 1", "only tables can be temporary", "TEMP");
    never("CREATE TEMP TABLE t (a int) ON COMMIT DELETE ROWS", "ON COMMIT DELETE ROWS is not supported", "DELETE");
    never("CREATE OR REPLACE VIEW v AS SELECT 1", "CREATE OR REPLACE VIEW is not supported", "CREATE");
    never("ALTER INDEX i RENAME TO j", "ALTER INDEX is not supported", "INDEX");
    never("ALTER TABLE t ADD PRIMARY KEY (a)", "constraints of a table cannot be changed", "PRIMARY");
    never("ALTER TABLE t ALTER a TYPE int", "a column of a table can only be given a default", "TYPE");
    never("ALTER TABLE t ADD a int DEFAULT now()", "the default of a column is not a literal", "now");
    never("CREATE TABLE t (a numeric)", "numeric without precision and scale is not supported", "numeric");
    never("CREATE TABLE t (a int DEFAULT 1 + 1)", "the default of a column is not a literal", "1 + 1");
    never("CREATE TABLE t (a int, CHECK (a > 1))", "CHECK is not supported in a definition", "CHECK");
    never(
        "CREATE SOURCE t (a int, CONSTRAINT c EXPECT (a > 1) ON VIOLATION DROP)",
        "expectations come later",
        "CONSTRAINT",
    );
    never("CREATE SOURCE t (a int) FORMAT DEBEZIUM ENCODE JSON", "FORMAT DEBEZIUM is not supported", "DEBEZIUM");
    never("CREATE TABLE t AS SELECT 1 WITH NO DATA", "CREATE TABLE AS … WITH NO DATA is not supported", "WITH");
    never("COPY t FROM PROGRAM 'f'", "COPY FROM a program is not supported", "PROGRAM");
    never("COPY t FROM STDIN (FORMAT parquet)", "COPY FROM STDIN in format parquet is not supported", "STDIN");
    never("COPY t FROM STDIN (FORMAT arrow)", "COPY FROM STDIN in format arrow is not supported", "STDIN");
    never("COPY t TO 'f' (COMPRESSION zstd)", "COPY compression available only in PARQUET mode", "(");
    never(
        "COPY t TO 'f' (FORMAT parquet, COMPRESSION brotli)",
        "COPY compression \"brotli\" is not supported",
        "COMPRESSION",
    );
    never("COPY t TO STDOUT (FORMAT parquet)", "COPY TO STDOUT in format parquet is not supported", "STDOUT");
    never("COPY t FROM STDIN (DELIMITER 'ab')", "COPY delimiter must be a single one-byte character", "(");
    never(
        "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET b = 2",
        "ON CONFLICT DO UPDATE can only replace the whole row",
        "ON CONFLICT",
    );
    never("DROP TABLE other.public.t", "cross-database references are not implemented: \"other.public.t\"", "other");
    never("EXPLAIN (FORMAT YAML) SELECT 1", "EXPLAIN (FORMAT YAML) is not supported", "YAML");
    check_error("CREATE TABLE history_x.t (a int)", "3F000", "schema \"history_x\" is read-only", "history_x.t");
    check_error("DROP TABLE history.t", "3F000", "schema \"history\" is read-only", "history");
    check_error("CREATE TABLE t (a foo)", "42704", "type \"foo\" does not exist", "foo");
    check_error(
        "CREATE TABLE t (a numeric(39,2))",
        "22023",
        "numeric precision 39 must be between 1 and 38",
        "numeric",
    );
    check_error("CREATE TABLE t (a int, A int)", "42701", "column \"a\" specified more than once", "A int");
    check_error(
        "CREATE TABLE t (a int, PRIMARY KEY (b))",
        "42703",
        "column \"b\" named in the primary key of table \"t\" does not exist",
        "t (",
    );
    check_error(
        "CREATE SOURCE s (a int, WATERMARK FOR a AS a)",
        "42804",
        "column \"a\" of source \"s\" is not a timestamp",
        "s (",
    );
    check_error(
        "CREATE SOURCE s (a timestamptz, WATERMARK FOR a AS a - INTERVAL '1 month')",
        "22023",
        "duration \"1 month\" has no fixed length",
        "'1 month'",
    );
    check_error(
        "CREATE SOURCE s (a timestamptz, WATERMARK FOR a AS a - INTERVAL '-1 s')",
        "22023",
        "duration \"-1 s\" is negative",
        "'-1 s'",
    );
    check_error(
        "CREATE TABLE t (a int) FORMAT UPSERT",
        "42P17",
        "table \"t\" has FORMAT UPSERT and no primary key",
        "t (",
    );
    check_error("CREATE SOURCE s ()", "42601", "syntax error at or near \")\"", ")");
    check_error("COPY t FROM STDIN (FORMAT xml)", "22023", "COPY format \"xml\" not recognized", "FORMAT");
    check_error(
        "CREATE SOURCE s (a int) WITH (a = 1, A = 2)",
        "42601",
        "option \"a\" is given more than once",
        "A = 2",
    );
}

#[test]
fn every_refusal_of_something_meant_has_a_hint() {
    for sql in [
        "SELECT 1 INTO t",
        "CREATE TABLE t (a numeric)",
        "CREATE SOURCE s (a int, CONSTRAINT c EXPECT (a > 1))",
        "CREATE TABLE x.y.t (a int)",
        "CREATE SOURCE s (a timestamptz, WATERMARK FOR a AS a - INTERVAL '1 year')",
        "SELECT * FROM a GLOBAL JOIN b ON true",
        "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE RETURNING *",
        "DECLARE c SCROLL CURSOR FOR SELECT 1",
    ] {
        assert!(parse(sql).is_err_and(|error| error.hint.is_some()), "{sql}");
    }
}
