//! The statement that would create a table as it is, for one whose columns have been altered since it was created.

use super::name::{quoted, quoted_name};
use tidemark_catalog::{NameRef, ObjectKind, Relation};

/// `CREATE {SOURCE | TABLE} name (…) [WITH (…)] [FORMAT UPSERT]` of a relation that is fed by statements.
pub fn definition<'n>(kind: ObjectKind, name: impl Into<NameRef<'n>>, relation: &Relation) -> String {
    let name = quoted_name(name.into());
    let text = |value: &str| format!("'{}'", value.replace('\'', "''"));
    let mut elements = vec![];
    for column in &relation.columns {
        let not_null = if column.not_null { " NOT NULL" } else { "" };
        let default = relation.layout.defaults.get(&column.name);
        let default = default.map_or_else(String::new, |default| format!(" DEFAULT {}", text(default)));
        elements.push(format!("{} {}{not_null}{default}", quoted(&column.name), column.ty));
    }
    let called = |at: &usize| quoted(&relation.columns[*at].name);
    if let Some(time) = &relation.event_time {
        let (time, delay_us) = (called(time), relation.delay_us);
        let delay = match delay_us {
            0 => String::new(),
            delay_us => format!(" - INTERVAL '{delay_us} microseconds'"),
        };
        elements.push(format!("WATERMARK FOR {time} AS {time}{delay}"));
    }
    if !relation.primary_key.is_empty() {
        let key: Vec<String> = relation.primary_key.iter().map(called).collect();
        elements.push(format!("PRIMARY KEY ({})", key.join(", ")));
    }
    let mut sql = format!("CREATE {} {} ({})", kind.to_string().to_uppercase(), name, elements.join(", "));
    if !relation.options.is_empty() {
        let options: Vec<String> =
            relation.options.iter().map(|(option, value)| format!("{option} = {}", text(value))).collect();
        sql.push_str(&format!(" WITH ({})", options.join(", ")));
    }
    if relation.upsert {
        sql.push_str(" FORMAT UPSERT");
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Statement, parse::parse};
    use tidemark_catalog::{Column, SqlType};

    #[test]
    fn the_statement_says_what_the_table_is() {
        let column = |name: &str, ty| Column { name: name.to_string(), ty, not_null: false, comment: None };
        let mut relation = Relation::plain(
            vec![column("id", SqlType::Int8), column("At", SqlType::TimestampTz), column("n", SqlType::Text)],
            String::new(),
        );
        relation.columns[0].not_null = true;
        relation.primary_key = vec![0];
        (relation.event_time, relation.delay_us) = (Some(1), 5_000_000);
        relation.upsert = true;
        relation.options.insert("clock".to_string(), "event".to_string());
        relation.layout.defaults.insert("n".to_string(), "it's".to_string());
        let sql = definition(ObjectKind::Table, ("s", "a b"), &relation);
        let parsed = parse(&sql).unwrap();
        let Some(Statement::CreateRelation(create)) = parsed.first().map(|parsed| &parsed.statement) else {
            panic!("{sql}");
        };
        assert_eq!((create.name.to_string(), create.columns.len(), create.upsert), ("s.a b".to_string(), 3, true));
        assert_eq!(create.watermark, Some(("At".to_string(), 5_000_000)));
        assert_eq!(create.primary_key, ["id"]);
        assert_eq!(create.defaults.get("n").map(String::as_str), Some("it's"));
        assert_eq!(create.options.get("clock").map(String::as_str), Some("event"));
    }
}
