//! Where statements end.

use tidemark_server::client::script::{Item, Script};

/// Statements as they are, commands as `\name|arguments`.
fn pieces(text: &str) -> Vec<String> {
    let shown = |item| match item {
        Item::Statement { sql, .. } => sql,
        Item::Command { name, arguments, .. } => format!("\\{name}|{arguments}"),
    };
    Script::new(text).map(shown).collect()
}

fn check(text: &str, expected: &[&str]) {
    assert_eq!(pieces(text), expected, "{text}");
}

#[test]
fn a_semicolon_ends_a_statement_and_nothing_is_no_statement() {
    check("", &[]);
    check(" \n -- only words\n /* and more */ ;;", &[]);
    check("SELECT 1; SELECT 2 ;\n", &["SELECT 1;", "SELECT 2 ;"]);
    check("SELECT 1", &["SELECT 1"]);
    check("\u{feff}SELECT 1;", &["SELECT 1;"]);
}

#[test]
fn a_semicolon_inside_something_ends_nothing() {
    check("SELECT ';';", &["SELECT ';';"]);
    check("SELECT 'it''s;';", &["SELECT 'it''s;';"]);
    check(r#"SELECT ";", "a"";b";"#, &[r#"SELECT ";", "a"";b";"#]);
    check("SELECT 1 -- not; here\n, 2;", &["SELECT 1 -- not; here\n, 2;"]);
    check("SELECT 1 /* a; /* b; */ c; */ + 1;", &["SELECT 1 /* a; /* b; */ c; */ + 1;"]);
    check("CREATE RULE r AS (a; b); SELECT 1;", &["CREATE RULE r AS (a; b);", "SELECT 1;"]);
}

#[test]
fn a_backslash_hides_a_quote_only_in_an_escape_string() {
    check(r"SELECT E'\';'; SELECT 2;", &[r"SELECT E'\';';", "SELECT 2;"]);
    check(r"SELECT '\'; SELECT 2;", &[r"SELECT '\';", "SELECT 2;"]);
    check(r"SELECT note'\'; SELECT 2;", &[r"SELECT note'\';", "SELECT 2;"]);
}

#[test]
fn dollar_quotes_end_at_their_own_tag() {
    check("SELECT $$;$$;", &["SELECT $$;$$;"]);
    check("SELECT $a$ $$ ; $b$ $a$; SELECT 2;", &["SELECT $a$ $$ ; $b$ $a$;", "SELECT 2;"]);
    check("SELECT $1; SELECT $2;", &["SELECT $1;", "SELECT $2;"]);
    check("SELECT a$b$; SELECT c$b$;", &["SELECT a$b$;", "SELECT c$b$;"]);
}

#[test]
fn what_does_not_end_ends_with_the_text() {
    for text in ["SELECT ';", "SELECT \";", "SELECT $x$;", "SELECT 1 /* ;", "SELECT E'\\", "SELECT (1;", "SELECT $"] {
        check(text, &[text]);
    }
}

#[test]
fn backslash_commands_are_lines_of_their_own() {
    check("\\copy t FROM 'a;b.csv' CSV\nSELECT 1;", &["\\copy|t FROM 'a;b.csv' CSV", "SELECT 1;"]);
    check("\\timing\r\nSELECT 1;", &["\\timing|", "SELECT 1;"]);
    check("SELECT 1 \\; SELECT 2;", &["SELECT 1 ; SELECT 2;"]);
    check("SELECT 1 \\g\nSELECT 2;", &["SELECT 1", "SELECT 2;"]);
    check("SELECT 1,\n\\echo between\n2;", &["\\echo|between", "SELECT 1,\n\n2;"]);
}

#[test]
fn lines_are_counted_where_a_statement_begins() {
    let lines: Vec<usize> = Script::new("\n-- x\nSELECT\n1;\n\n\\q\n/* \n */ SELECT 2;")
        .map(|item| match item {
            Item::Statement { line, .. } | Item::Command { line, .. } => line,
        })
        .collect();
    assert_eq!(lines, [3, 6, 8]);
}

#[test]
fn the_comments_before_an_item_can_be_read_and_are_not_part_of_it() {
    let mut script = Script::new("-- one\n-- two\nSELECT 1 -- three\n;\nSELECT 2;\n/* four */ \\q");
    let mut comments = Vec::new();
    while script.next().is_some() {
        comments.push(script.comment().to_string());
    }
    assert_eq!(comments, ["-- one\n-- two\n", "", "/* four */\n"]);
}

#[test]
fn data_follows_its_copy_up_to_the_end_mark() {
    let mut script = Script::new("COPY t FROM STDIN;\n1\ta;b\n2\t'\n\\.\nSELECT 1;");
    assert!(matches!(script.next(), Some(Item::Statement { .. })));
    assert_eq!(script.inline_data(), "1\ta;b\n2\t'\n");
    assert_eq!(script.next(), Some(Item::Statement { sql: "SELECT 1;".to_string(), line: 5 }));

    let mut script = Script::new("COPY t FROM STDIN;\n1\n2");
    script.next();
    assert_eq!(script.inline_data(), "1\n2");
    assert_eq!(script.next(), None);
}
