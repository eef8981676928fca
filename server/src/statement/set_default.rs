//! `ALTER FEATURE VIEW … ALTER COLUMN … SET DEFAULT | DROP DEFAULT`, and the options `default.<feature>`: what an outer join
//! shows of an entity without a row (`tidemark_planner::defaults`).

use super::done;
use crate::{
    blocks,
    database::{Database, find},
    pg::{Outcome, PgError},
    session::Session,
    wire::{SessionZone, value_from_text},
};
use arrow::datatypes::DataType;
use std::{collections::BTreeMap, sync::Arc};
use tidemark_catalog::{Body, Change, FeatureView, ObjectKind, QualifiedName, SqlType, uuid};
use tidemark_planner::{defaults, feature::DEFAULT_OPTION, json_text};

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    if_exists: bool,
    name: &QualifiedName,
    column: &str,
    value: Option<&str>,
) -> Result<Outcome, PgError> {
    let mut catalog = database.owner()?.catalog.lock().await;
    let snapshot = session.lasting(database);
    let object = match find(&snapshot, ObjectKind::FeatureView, name) {
        Ok(object) => object,
        Err(error) if if_exists && error.sqlstate == "42P01" => {
            blocks::skip(database, session, &catalog, ObjectKind::FeatureView, name)?;
            return done("ALTER FEATURE VIEW");
        }
        Err(error) => return Err(error.into()),
    };
    let mut changed = object.as_ref().clone();
    if let Body::FeatureView(view) = &mut changed.body {
        set(view, &name.name, column, value, &session.format.time_zone)?;
    }
    database.commit(&mut catalog, session, &[Change::Put(changed)]).await?;
    done("ALTER FEATURE VIEW")
}

/// Takes the defaults out of the options and gives them to the view.
///
/// # Errors
/// As [`set`].
pub fn take_options(
    view: &mut FeatureView,
    name: &str,
    options: &mut BTreeMap<String, String>,
    zone: &SessionZone,
) -> Result<(), PgError> {
    let is_default = |option: &String| option.starts_with(DEFAULT_OPTION);
    for option in options.keys().filter(|option| is_default(option)).cloned().collect::<Vec<_>>() {
        let value = options.remove(&option);
        set(view, name, &option[DEFAULT_OPTION.len()..], value.as_deref(), zone)?;
    }
    Ok(())
}

/// `value` is text as the column's type reads it; `None`: no default.
///
/// # Errors
/// 42703: there is no such column. 0A000: it is none that a default can stand for. 22P02 and its like: the text is no value of
/// the type.
pub fn set(
    view: &mut FeatureView,
    name: &str,
    column: &str,
    value: Option<&str>,
    zone: &SessionZone,
) -> Result<(), PgError> {
    let at = view.columns.iter().position(|known| known.name == column).ok_or_else(|| {
        let names: Vec<_> =
            view.features.iter().filter_map(|f| Some(view.columns.get(f.column)?.name.as_str())).collect();
        PgError::error("42703", format!("column \"{column}\" of feature view \"{name}\" does not exist"))
            .hint(format!("its features are {}", names.join(", ")))
    })?;
    let ty = view.columns[at].ty.clone();
    let Some(feature) = view.features.iter_mut().find(|feature| feature.column == at) else {
        let role = if view.time == at { "time column" } else { "entity key" };
        return Err(PgError::error("0A000", format!("column \"{column}\" of feature view \"{name}\" has no default"))
            .detail(format!("it is the view's {role}, which is there only where a row is"))
            .hint("set defaults of features; show the key of the other side of the join"));
    };
    let text = value.map(|text| kept(&ty, text, zone)).transpose();
    feature.default =
        text.map_err(|error| error.context(format!("default of column \"{column}\" of feature view \"{name}\"")))?;
    Ok(())
}

/// The text as the catalog has it: it says the same to every session.
pub(super) fn kept(ty: &SqlType, text: &str, zone: &SessionZone) -> Result<String, PgError> {
    match ty {
        SqlType::Uuid => return uuid::read(text).map_err(|message| PgError::error("22P02", message)),
        SqlType::Json | SqlType::Jsonb => return Ok(json_text::read_one(text, *ty == SqlType::Jsonb)?),
        _ => {}
    }
    let arrow = ty.arrow();
    let value = value_from_text(&arrow, text, zone)?;
    if let SqlType::Array(item) = ty
        && matches!(**item, SqlType::TimestampTz)
        && text.trim() != "{}"
    {
        return Err(PgError::error("0A000", format!("a default of type {ty} can only be the empty array"))
            .hint("SET DEFAULT '{}'"));
    }
    let value = match arrow {
        DataType::List(_) | DataType::Binary => value,
        _ => value.cast_to(&arrow)?,
    };
    let Some(written) = defaults::written(&value)? else { return Ok(text.to_string()) };
    let read = defaults::read(&written, &arrow).ok();
    match read.as_ref().and_then(|read| read.as_literal()) == Some(&value) {
        true => Ok(written),
        false => Err(PgError::error("0A000", format!("the value \"{text}\" of type {ty} cannot be kept as a default"))
            .detail(format!("it would come back from \"{written}\" as another"))
            .hint("choose one nearer to the usual: finite, and of the years 1900 to 2200")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_is_kept_as_a_text_that_reads_the_same_everywhere() {
        let zone = SessionZone::parse("Europe/Berlin").unwrap();
        let numeric = SqlType::Numeric { precision: 10, scale: 2 };
        let cases = [
            (SqlType::Bool, "on", "true"),
            (SqlType::Int8, " 7 ", "7"),
            (SqlType::Float8, "0.1", "0.1"),
            (numeric, "1.5", "1.50"),
            (SqlType::Text, "it's", "it's"),
            (SqlType::Bytea, "\\xff", "\\xff"),
            (SqlType::Date, "2026-03-02", "2026-03-02"),
            (SqlType::TimestampTz, "2026-03-02 10:00:00", "2026-03-02T09:00:00Z"),
            (SqlType::Array(Box::new(SqlType::Int8)), "{}", "{}"),
        ];
        for (ty, text, expected) in cases {
            assert_eq!(kept(&ty, text, &zone).as_deref(), Ok(expected), "{ty} {text}");
        }
        for text in ["1 day", "1 mon 2 days 03:04:05.5", "-00:00:01.25", "00:00:00", "00:00:10"] {
            let written = kept(&SqlType::Interval, text, &zone).unwrap();
            assert_eq!(kept(&SqlType::Interval, &written, &zone).as_ref(), Ok(&written), "{text}");
        }
        assert_eq!(kept(&SqlType::Int8, "one", &zone).unwrap_err().sqlstate, "22P02");
    }
}
