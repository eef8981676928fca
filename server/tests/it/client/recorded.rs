//! What psql 15 printed for the same rows and errors, recorded.

use tidemark_server::client::report::Report;
use tidemark_server::client::table::{Heading, aligned};

fn check(headings: &[(&str, u32)], rows: &[&[Option<&str>]], expected: &str) {
    let headings: Vec<Heading> = headings.iter().map(|(name, oid)| Heading::new(*name, *oid)).collect();
    let rows: Vec<Vec<Option<String>>> =
        rows.iter().map(|row| row.iter().map(|cell| cell.map(str::to_string)).collect()).collect();
    assert_eq!(aligned(&headings, &rows), expected, "\n{expected}");
}

#[test]
fn numbers_stand_right_and_null_is_nothing() {
    check(
        &[("a", 23), ("name", 25), ("long_heading", 701), ("nothing", 25), ("b", 16)],
        &[&[Some("1"), Some("x"), Some("2.5"), None, Some("t")]],
        concat!(
            " a | name | long_heading | nothing | b \n",
            "---+------+--------------+---------+---\n",
            " 1 | x    |          2.5 |         | t\n",
            "(1 row)\n",
            "\n",
        ),
    );
}

#[test]
fn a_column_is_as_wide_as_its_widest_value() {
    check(
        &[("origin", 25), ("n", 23), ("mean", 1700)],
        &[&[Some("JFK"), Some("12"), None], &[Some("a longer one"), Some("-3"), Some("17.25")]],
        concat!(
            "    origin    | n  | mean  \n",
            "--------------+----+-------\n",
            " JFK          | 12 |      \n",
            " a longer one | -3 | 17.25\n",
            "(2 rows)\n",
            "\n",
        ),
    );
}

#[test]
fn lines_of_a_value_are_marked() {
    check(
        &[("text", 25), ("n", 23), ("last", 25)],
        &[&[Some("one\ntwo lines\n"), Some("7"), Some("a\nb")]],
        concat!(
            "   text    | n | last \n",
            "-----------+---+------\n",
            " one      +| 7 | a   +\n",
            " two lines+|   | b\n",
            "           |   | \n",
            "(1 row)\n",
            "\n",
        ),
    );
}

#[test]
fn what_is_not_a_plain_letter_takes_its_room() {
    check(
        &[("tab", 25), ("cr", 25), ("ctl", 25), ("umlaut", 25), ("wide", 25), ("comb", 25)],
        &[&[Some("a\tb"), Some("c\rd"), Some("x\u{1}y"), Some("grüß"), Some("東京"), Some("e\u{301}x")]],
        concat!(
            "    tab    |  cr  |  ctl   | umlaut | wide | comb \n",
            "-----------+------+--------+--------+------+------\n",
            " a       b | c\\rd | x\\x01y | grüß   | 東京 | e\u{301}x\n",
            "(1 row)\n",
            "\n",
        ),
    );
}

#[test]
fn no_rows() {
    check(&[("x", 23)], &[], concat!(" x \n", "---\n", "(0 rows)\n", "\n",));
}

#[test]
fn no_columns() {
    check(&[], &[&[]], concat!("--\n", "(1 row)\n", "\n",));
}

#[test]
fn a_heading_has_lines_too() {
    check(
        &[("two\nlines", 23), ("plain", 25)],
        &[&[Some("1"), Some("v")]],
        concat!("  two +| plain \n", " lines |       \n", "-------+-------\n", "     1 | v\n", "(1 row)\n", "\n",),
    );
}

#[test]
fn control_characters_are_shown_by_their_code() {
    check(
        &[("t", 25), ("c1", 25)],
        &[&[Some("\ty"), Some("\u{85}z")]],
        concat!("     t     |   c1    \n", "-----------+---------\n", "         y | \\u0085z\n", "(1 row)\n", "\n",),
    );
}

/// `nope` is the wrong word of each statement.
fn place(sql: &str, expected: &[&str]) {
    let before = sql.find("nope").map(|at| sql[..at].chars().count());
    let report = Report {
        severity: "ERROR".to_string(),
        message: "column \"nope\" does not exist".to_string(),
        position: before.map(|before| before + 1),
        ..Report::default()
    };
    let expected = format!("ERROR:  column \"nope\" does not exist\n{}\n{}\n", expected[0], expected[1]);
    assert_eq!(report.show(sql), expected, "{sql}");
}

#[test]
fn the_place_of_an_error_is_shown_and_long_lines_are_cut() {
    place("SELECT nope FROM pg_class;", &["LINE 1: SELECT nope FROM pg_class;", "               ^"]);
    place("SELECT 1,\n\tnope,\n  2;", &["LINE 2:  nope,", "         ^"]);
    place(
        "SELECT 1111111111, 2222222222, 3333333333, 4444444444, 5555555555, nope, 6666666666, 7777777777, 8888888888, 9999999999, 10;",
        &[
            "LINE 1: ..., 2222222222, 3333333333, 4444444444, 5555555555, nope, 6666...",
            "                                                             ^",
        ],
    );
    place(
        "SELECT nope, 1111111111, 2222222222, 3333333333, 4444444444, 5555555555, 6666666666, 7777777777, 8888888888, 9999999999, 10;",
        &["LINE 1: SELECT nope, 1111111111, 2222222222, 3333333333, 4444444444,...", "               ^"],
    );
    place(
        "SELECT 1111111111, 2222222222, 3333333333, 4444444444, 5555555555, 6666666666, 7777777777, 8888888888, 9999999999, nope;",
        &[
            "LINE 1: ...55555, 6666666666, 7777777777, 8888888888, 9999999999, nope;",
            "                                                                  ^",
        ],
    );
    place(
        "SELECT '東京東京東京東京東京東京東京東京', nope, 1;",
        &[
            "LINE 1: SELECT '東京東京東京東京東京東京東京東京', nope, 1;",
            "                                                   ^",
        ],
    );
    place("SELECT /* in */ nope;", &["LINE 1: SELECT /* in */ nope;", "                        ^"]);
}

#[test]
fn detail_hint_and_context_follow_in_this_order_and_a_notice_has_no_context() {
    let mut report = Report {
        severity: "ERROR".to_string(),
        message: "bad".to_string(),
        detail: Some("d".to_string()),
        hint: Some("h".to_string()),
        context: Some("COPY flights, line 17".to_string()),
        ..Report::default()
    };
    assert_eq!(report.show(""), "ERROR:  bad\nDETAIL:  d\nHINT:  h\nCONTEXT:  COPY flights, line 17\n");
    report.severity = "NOTICE".to_string();
    assert_eq!(report.show(""), "NOTICE:  bad\nDETAIL:  d\nHINT:  h\n");
}

#[test]
fn a_place_outside_the_statement_is_not_shown() {
    for position in [Some(0), Some(100), None] {
        let report =
            Report { severity: "ERROR".to_string(), message: "bad".to_string(), position, ..Report::default() };
        assert_eq!(report.show("SELECT 1"), "ERROR:  bad\n");
    }
}
