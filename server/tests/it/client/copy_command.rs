//! `\copy` taken apart.

use tidemark_server::client::copy_command::CopyCommand;

/// The statement for the server and the file.
fn parsed(arguments: &str) -> (String, Option<String>) {
    let command = CopyCommand::parse(arguments).unwrap_or_else(|error| panic!("{arguments}: {error}"));
    (command.sql(), command.file.map(|file| file.display().to_string()))
}

#[test]
fn the_file_is_the_clients_and_the_rest_the_servers() {
    let cases = [
        ("planes FROM 'out/planes.csv' CSV HEADER", "COPY planes FROM STDIN CSV HEADER", Some("out/planes.csv")),
        ("t(a,b) from 'x y.csv' WITH (FORMAT csv)", "COPY t(a,b) FROM STDIN WITH (FORMAT csv)", Some("x y.csv")),
        ("t (a, \"from\") FROM 'it''s'", "COPY t (a, \"from\") FROM STDIN", Some("it's")),
        ("public.t FROM data.csv", "COPY public.t FROM STDIN", Some("data.csv")),
        ("\"my table\" TO 'o.csv'", "COPY \"my table\" TO STDOUT", Some("o.csv")),
        ("(SELECT ')', 'to' FROM t) TO 'o' CSV", "COPY (SELECT ')', 'to' FROM t) TO STDOUT CSV", Some("o")),
        ("(SELECT (1)) to stdout", "COPY (SELECT (1)) TO STDOUT", None),
        ("t FROM stdin (FORMAT csv)", "COPY t FROM STDIN (FORMAT csv)", None),
        ("\"from\" FROM 'x'", "COPY \"from\" FROM STDIN", Some("x")),
    ];
    for (arguments, sql, file) in cases {
        assert_eq!(parsed(arguments), (sql.to_string(), file.map(str::to_string)), "{arguments}");
    }
}

#[test]
fn what_is_missing_is_said() {
    let cases = [
        ("", "FROM or TO is missing"),
        ("planes", "FROM or TO is missing"),
        ("planes 'out/planes.csv'", "FROM or TO is missing"),
        ("planes FROM", "file's name is missing"),
        ("planes FROM 'open", "no closing quote"),
        ("planes FROM program 'ls'", "PROGRAM is not supported"),
        ("(SELECT 1) FROM 'x'", "only be copied TO"),
    ];
    for (arguments, expected) in cases {
        let error = CopyCommand::parse(arguments).expect_err(arguments);
        assert!(error.contains(expected), "{arguments}: {error}");
    }
}
