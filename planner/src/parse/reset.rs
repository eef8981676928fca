//! `ALTER SOURCE s RESET TO …`: where the reading of a topic goes on.

use super::cursor::Cursor;
use crate::{
    PlanError, PlanResult,
    statement::{ResetTo, Statement},
};
use datafusion::sql::sqlparser::ast;
use tidemark_catalog::{ObjectKind, QualifiedName};

/// Behind `RESET TO`.
pub(super) fn reset_topic(
    c: &mut Cursor<'_>,
    kind: ObjectKind,
    if_exists: bool,
    name: QualifiedName,
) -> PlanResult<Statement> {
    let hint = "RESET TO EARLIEST, LATEST, OFFSETS 'partition:0,offset:42;…' or timestamptz '…'";
    let mut place = *c;
    // An expression takes all there is.
    let tail = Cursor { at: c.end.saturating_sub(2).max(c.at), ..*c };
    let allow_duplicates = tail.at_all(&["ALLOW", "DUPLICATES"]);
    if allow_duplicates {
        place.end = tail.at;
    }
    let to = if place.eat("EARLIEST") {
        ResetTo::Earliest
    } else if place.eat("LATEST") {
        ResetTo::Latest
    } else if place.eat("OFFSETS") {
        ResetTo::Offsets(place.string().map_err(|error| error.hint(hint))?)
    } else {
        let expr = place.expr().map_err(|error| error.hint(hint))?;
        if let ast::Expr::Identifier(word) = &expr {
            return Err(c.place(PlanError::syntax(format!("a topic is not reset to {}", word.value)).hint(hint)));
        }
        ResetTo::Instant(Box::new(expr))
    };
    place.finish()?;
    c.at = c.end;
    Ok(Statement::ResetTopic { kind, if_exists, name, to, allow_duplicates })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn one(sql: &str) -> PlanResult<Statement> {
        parse(sql).map(|mut parsed| parsed.remove(0).statement)
    }

    #[test]
    fn every_place_to_go_on_from_is_read() {
        let offsets = || ResetTo::Offsets("partition:0,offset:4".into());
        let cases = [
            ("EARLIEST", ResetTo::Earliest, false),
            ("latest", ResetTo::Latest, false),
            ("Earliest Allow Duplicates", ResetTo::Earliest, true),
            ("OFFSETS 'partition:0,offset:4'", offsets(), false),
            ("OFFSETS 'partition:0,offset:4' ALLOW DUPLICATES", offsets(), true),
        ];
        for (text, to, allow_duplicates) in cases {
            for (word, kind) in [("SOURCE", ObjectKind::Source), ("TABLE", ObjectKind::Table)] {
                let (name, to) = ("s".into(), to.clone());
                let expected = Statement::ResetTopic { kind, if_exists: false, name, to, allow_duplicates };
                assert_eq!(one(&format!("ALTER {word} s RESET TO {text}")), Ok(expected), "{text}");
            }
        }
        for (text, allowed) in [
            ("timestamptz '2026-12-01 00:00:00Z'", false),
            ("now() - INTERVAL '1 hour' ALLOW DUPLICATES", true),
            ("$1", false),
        ] {
            let parsed = one(&format!("ALTER SOURCE IF EXISTS s RESET TO {text}"));
            let Ok(Statement::ResetTopic { to: ResetTo::Instant(_), allow_duplicates, if_exists: true, .. }) = parsed
            else {
                panic!("{text}: {parsed:?}");
            };
            assert_eq!(allow_duplicates, allowed, "{text}");
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        let cases = [
            ("ALTER SOURCE s RESET TO soonest", "a topic is not reset to soonest"),
            ("ALTER SOURCE s RESET TO LATEST EARLIEST", "syntax error at or near \"EARLIEST\""),
            ("ALTER SOURCE s RESET TO OFFSETS 5", "syntax error at or near \"5\""),
            ("ALTER SOURCE s RESET TO", "syntax error at end of input"),
            ("ALTER FEATURE VIEW v RESET TO LATEST", "ALTER FEATURE VIEW … RESET is not supported in this form"),
        ];
        for (sql, message) in cases {
            assert_eq!(one(sql).map_err(|error| error.message), Err(message.to_string()), "{sql}");
        }
    }
}
