//! A definition is kept as it was written, comments and all. After a RENAME its name is another: only that is put in
//! its place.

use super::{cursor::Cursor, name::quoted, object, text::Text};
use crate::PlanResult;

/// The `CREATE` statement `sql` with `name` in the place of the name it gives (qualifiers go: there is one schema).
pub fn under_name(sql: &str, name: &str) -> PlanResult<String> {
    let text = Text::new(sql);
    let tokens = text.tokens()?;
    let mut c = Cursor::new(&text, &tokens, 0, tokens.len());
    c.expect("CREATE")?;
    c.eat_all(&["OR", "REPLACE"]);
    object::kind(&mut c).ok_or_else(|| c.unexpected())?;
    c.if_not_exists();
    let first = c.at;
    c.object_name()?;
    let (from, to) = (text.offset(tokens[first].span.start), text.offset(tokens[c.at - 1].span.end));
    Ok([&sql[..from], quoted(name).as_str(), &sql[to..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_changes() {
        let cases = [
            ("CREATE TABLE a (a BIGINT)", "b", "CREATE TABLE b (a BIGINT)"),
            ("create source if not exists Public.\"a\"(x int) -- a", "b", "create source if not exists b(x int) -- a"),
            (
                "CREATE FEATURE VIEW /* é */ a\nAS SELECT a FROM a",
                "B c",
                "CREATE FEATURE VIEW /* é */ \"B c\"\nAS SELECT a FROM a",
            ),
            ("CREATE VIEW a (a) AS SELECT 1", "select", "CREATE VIEW \"select\" (a) AS SELECT 1"),
            ("CREATE TABLE a AS SELECT 1 AS x", "q\"q", "CREATE TABLE \"q\"\"q\" AS SELECT 1 AS x"),
        ];
        for (sql, name, expected) in cases {
            assert_eq!(under_name(sql, name).as_deref(), Ok(expected));
        }
        assert!(under_name("SELECT 1", "b").is_err());
    }
}
