//! A feature view's definition as it is written: what can be refused, and shown, without binding anything.

use super::recognise::refused;
use crate::{PlanError, PlanResult, error::sqlstate};
use datafusion::sql::sqlparser::ast::{self, Visit};
use std::{collections::BTreeMap, ops::ControlFlow};

/// The options a feature view takes.
const OPTIONS: [&str; 9] =
    ["key", "ttl", "owner", "tags", "slide", "online", "deprecated", "history_partition", "maintenance"];

/// `default.<feature> = 'literal'`
pub const DEFAULT_OPTION: &str = "default.";

pub(super) fn check_options(name: &str, options: &BTreeMap<String, String>) -> PlanResult<()> {
    for option in options.keys() {
        if !OPTIONS.contains(&option.as_str()) && !option.starts_with(DEFAULT_OPTION) {
            return Err(PlanError::new(
                sqlstate::INVALID_PARAMETER,
                format!("feature view \"{name}\" has no option \"{option}\""),
            )
            .hint(format!("options are {} and default.<feature>", OPTIONS.join(", "))));
        }
    }
    for (option, words) in [("history_partition", ["month", "day"]), ("maintenance", ["on", "off"])] {
        options.get(option).map_or(Ok(()), |value| check_word(name, option, value, words))?;
    }
    options.get("online").map_or(Ok(()), |online| check_online(name, online))
}

/// Whether the server cares for the history of a view unasked.
///
/// # Errors
/// The value is neither on nor off.
pub fn check_maintenance(name: &str, maintenance: &str) -> PlanResult<()> {
    check_word(name, "maintenance", maintenance, ["on", "off"])
}

fn check_word(name: &str, option: &str, value: &str, [one, other]: [&str; 2]) -> PlanResult<()> {
    if value == one || value == other {
        return Ok(());
    }
    let what = format!("{option} of feature view \"{name}\" is \"{value}\"");
    Err(PlanError::new(sqlstate::INVALID_PARAMETER, what).hint(format!("it is '{one}' or '{other}'")))
}

/// Where the online values of a view may be; whether there is such a Redis is seen when it is asked.
///
/// # Errors
/// The value is none of the words, and no address of a Redis. It is not repeated: it may have a password in it.
pub fn check_online(name: &str, online: &str) -> PlanResult<()> {
    let is_redis = online.split_once("://").is_some_and(|(scheme, _)| scheme.starts_with("redis"));
    if is_redis || matches!(online, "default" | "embedded" | "none") {
        return Ok(());
    }
    let what = format!("online of feature view \"{name}\" is neither a Redis nor embedded, none or default");
    Err(PlanError::new(sqlstate::INVALID_PARAMETER, what).hint("online = 'redis://host:6379' names a Redis"))
}

/// What no binding is needed to refuse.
pub(super) fn check_syntax(name: &str, query: &ast::Query) -> PlanResult<()> {
    let ast::SetExpr::Select(select) = query.body.as_ref() else {
        return Err(refused(name, "it is not a plain SELECT").hint(
            "write one SELECT; UNION ALL of sources goes into its FROM: SELECT … FROM (SELECT … UNION ALL SELECT …) e",
        ));
    };
    if query.order_by.is_some() || query.limit_clause.is_some() || query.fetch.is_some() {
        return Err(
            refused(name, "ORDER BY and LIMIT have no meaning for it").hint("order the rows where you read the view")
        );
    }
    if select.distinct.is_some() {
        return Err(refused(name, "DISTINCT has no meaning for it").hint("a feature view has one row per entity key"));
    }
    if select.having.is_some() {
        return Err(refused(name, "HAVING has no meaning for it")
            .hint("a key stays, whatever its values; put conditions on values where you read"));
    }
    if select.from.len() != 1 {
        return Err(refused(name, "it reads more than one relation").hint(
            "put sources together by UNION ALL, take a table as of each event by ASOF JOIN, or join views where you look up or train",
        ));
    }
    check_frames(name, query)
}

/// A RANGE frame is measured in time, since a window is in the order of the event time. A bare number would be read as months.
/// Bounds are constants: what else stands there is refused as it is written.
fn check_frames(name: &str, query: &ast::Query) -> PlanResult<()> {
    struct Frames<'a>(&'a str);
    impl Frames<'_> {
        fn check(&self, frame: Option<&ast::WindowFrame>) -> ControlFlow<PlanError> {
            let Some(frame) = frame else { return ControlFlow::Continue(()) };
            let is_range = frame.units == ast::WindowFrameUnits::Range;
            for bound in [Some(&frame.start_bound), frame.end_bound.as_ref()].into_iter().flatten() {
                let (ast::WindowFrameBound::Preceding(Some(offset)) | ast::WindowFrameBound::Following(Some(offset))) =
                    bound
                else {
                    continue;
                };
                if !is_constant(offset) {
                    let (units, name) = (&frame.units, self.0);
                    let message = format!("frame bound {units} {bound} of feature view \"{name}\" is not a constant");
                    let hint = match is_range {
                        true => "write a span of time: RANGE INTERVAL '5 minutes' PRECEDING",
                        false => "write a number of events: ROWS 5 PRECEDING",
                    };
                    return ControlFlow::Break(PlanError::new(sqlstate::WINDOWING_ERROR, message).hint(hint));
                }
                if is_range
                    && let ast::Expr::Value(value) = offset.as_ref()
                    && let ast::Value::Number(number, _) = &value.value
                {
                    let why = format!("its frame RANGE {bound} is a number, and windows are ordered by the event time");
                    return ControlFlow::Break(refused(self.0, &why).hint(format!(
                        "write a span of time, RANGE INTERVAL '{number} seconds' PRECEDING, or ROWS {number} PRECEDING for so many \
                         events"
                    )));
                }
            }
            ControlFlow::Continue(())
        }
    }
    impl ast::Visitor for Frames<'_> {
        type Break = PlanError;

        fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<PlanError> {
            match expr {
                ast::Expr::Function(ast::Function { over: Some(ast::WindowType::WindowSpec(spec)), .. }) => {
                    self.check(spec.window_frame.as_ref())
                }
                _ => ControlFlow::Continue(()),
            }
        }

        fn pre_visit_select(&mut self, select: &ast::Select) -> ControlFlow<PlanError> {
            for ast::NamedWindowDefinition(_, window) in &select.named_window {
                if let ast::NamedWindowExpr::WindowSpec(spec) = window {
                    self.check(spec.window_frame.as_ref())?;
                }
            }
            ControlFlow::Continue(())
        }
    }
    match query.visit(&mut Frames(name)) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// A number, or an interval in quotes (`ROWS '2' PRECEDING` is parsed as one).
fn is_constant(offset: &ast::Expr) -> bool {
    let value = match offset {
        ast::Expr::Interval(interval) => interval.value.as_ref(),
        other => other,
    };
    match value {
        ast::Expr::Value(value) => matches!(&value.value, ast::Value::Number(..) | ast::Value::SingleQuotedString(_)),
        _ => false,
    }
}

/// The text of each select item, unless a wildcard stands among them.
pub(super) fn select_texts(query: &ast::Query) -> Option<Vec<String>> {
    let ast::SetExpr::Select(select) = query.body.as_ref() else { return None };
    select
        .projection
        .iter()
        .map(|item| match item {
            ast::SelectItem::UnnamedExpr(e) => Some(e.to_string()),
            ast::SelectItem::ExprWithAlias { expr, .. } => Some(expr.to_string()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{check_online, check_options};
    use std::collections::BTreeMap;

    #[test]
    fn options_of_history_take_two_words_each() {
        let checked = |option: &str, value: &str| {
            check_options("v", &BTreeMap::from([(option.to_string(), value.to_string())]))
                .map_err(|error| error.message)
        };
        for (option, value) in [
            ("history_partition", "day"),
            ("history_partition", "month"),
            ("maintenance", "on"),
            ("maintenance", "off"),
        ] {
            assert_eq!(checked(option, value), Ok(()));
        }
        let said = "history_partition of feature view \"v\" is \"week\"".to_string();
        assert_eq!(checked("history_partition", "week"), Err(said));
        assert!(checked("maintenance", "").is_err());
    }

    #[test]
    fn online_is_a_word_or_a_redis_and_what_is_wrong_is_not_repeated() {
        for online in ["default", "embedded", "none", "redis://h", "rediss+sentinel://:secret@h/main"] {
            assert_eq!(check_online("v", online), Ok(()), "{online}");
        }
        for online in ["", "Embedded", "secret", "http://secret@h", "redis:secret"] {
            let error = check_online("v", online).expect_err(online);
            assert!(error.message.contains("\"v\"") && !format!("{error:?}").contains("secret"), "{error:?}");
        }
    }
}
