//! A name that nothing has, and what the writer may have meant.

use super::{PlanError, sqlstate};
use datafusion::common::utils::datafusion_strsim::levenshtein;
use tidemark_catalog::{NameRef, Object, Snapshot};

/// As many letters of three may be wrong in a name that is still suggested.
const LETTERS_PER_MISTAKE: usize = 3;

/// 42P01 for `kind "name"`, with the likeliest of the `others` as hint, or where to look.
pub fn missing<'a>(kind: &str, name: &str, others: impl Iterator<Item = &'a str>) -> PlanError {
    let error = PlanError::new(sqlstate::UNDEFINED_TABLE, format!("{kind} \"{name}\" does not exist"));
    let wrong = |other: &str| levenshtein(&name.to_lowercase(), &other.to_lowercase());
    let nearest = others.map(|other| (wrong(other), other)).min();
    match nearest {
        Some((wrong, other)) if wrong <= name.chars().count().div_ceil(LETTERS_PER_MISTAKE) => {
            error.hint(format!("perhaps you meant \"{other}\""))
        }
        _ => error.hint("\\d lists what there is; so do tidemark.sources and tidemark.feature_views"),
    }
}

/// The same among the names of the catalog that are in schemas which may be used; of one that is there in a schema where it was
/// not looked for, where.
pub fn missing_object<'n>(
    snapshot: &Snapshot,
    kind: &str,
    name: impl Into<NameRef<'n>>,
    fits: impl Fn(&Object) -> bool,
) -> PlanError {
    let name: NameRef<'_> = name.into();
    if snapshot.is_system(name) {
        return system(snapshot, name);
    }
    // Who may not use a schema is not told what is in it.
    let is_open = |object: &Object| !snapshot.closed().contains(object.schema_name());
    let others = || snapshot.objects().filter(|object| fits(object) && is_open(object));
    let elsewhere = others().find(|object| name.schema.is_none() && object.name == name.name);
    if let Some(found) = elsewhere {
        let found = found.full_name();
        return PlanError::new(sqlstate::UNDEFINED_TABLE, format!("{kind} \"{name}\" does not exist"))
            .hint(format!("there is \"{found}\": write its schema, or SET search_path"));
    }
    let shown = |object: &Object| match (name.schema, snapshot.get(object.name.as_str())) {
        (None, Some(visible)) if visible.id == object.id => object.name.clone(),
        _ => object.full_name().to_string(),
    };
    let others: Vec<String> = others().map(|object| shown(object)).collect();
    missing(kind, &name.to_string(), others.iter().map(String::as_str))
}

/// 42809: it is the server's own, and what was wanted is not done to it.
fn system(snapshot: &Snapshot, name: NameRef<'_>) -> PlanError {
    let error = PlanError::new(sqlstate::WRONG_OBJECT_TYPE, format!("\"{name}\" is a table of the server's own"));
    let is_open = |object: &Object| !snapshot.closed().contains(object.schema_name());
    let is_meant = |object: &Object| name.schema.is_none() && object.name == name.name && is_open(object);
    let hidden = snapshot.objects().find(|object| is_meant(object));
    match hidden {
        Some(object) => error.hint(format!("there is \"{}\" too: write its schema", object.full_name())),
        None => error.hint("it can be read, and nothing else"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_suggested_if_few_of_its_letters_are_wrong() {
        let hint = |name, others: &[&str]| missing("relation", name, others.iter().copied()).hint;
        assert_eq!(hint("flihgts", &["planes", "flights"]).as_deref(), Some("perhaps you meant \"flights\""));
        assert_eq!(hint("Weather", &["weather"]).as_deref(), Some("perhaps you meant \"weather\""));
        for (name, others) in [("flights", &["planes"][..]), ("x", &[]), ("ab", &["xyz"])] {
            assert!(hint(name, others).is_some_and(|hint| hint.starts_with("\\d lists")), "{name}");
        }
    }
}
