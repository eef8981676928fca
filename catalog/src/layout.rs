//! What `ALTER … ADD, DROP` and `RENAME COLUMN` have made of a table's columns. Its log only grows: it has every column that
//! there ever was, in the order in which they came, and rows that were appended before one came do not have it.
//!
//! ```text
//! log       a  b  c  d        b is dropped: NULL from then on; c is called e now; d came later, with a default
//! table     a     e  d        rows from before d show its default
//! ```

use crate::{Column, Relation, SqlType};
use arrow_schema::{Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Layout {
    /// The columns of the log; empty: they are the table's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stored: Vec<Stored>,
    /// What a row has in a column that it is put in without, by the column's name, as text that reads as the column's type in
    /// every time zone; NULL where there is none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub defaults: BTreeMap<String, String>,
}

/// One column of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// What it was called when it came.
    pub name: String,
    pub ty: SqlType,
    pub not_null: bool,
    /// Its place among the table's columns; `None`: dropped.
    pub column: Option<usize>,
    /// What rows have that were appended before it came, as [`Layout::defaults`] has it; `None`: NULL.
    pub missing: Option<String>,
}

impl Relation {
    /// The columns of its log.
    pub fn stored(&self) -> Vec<Stored> {
        if !self.layout.stored.is_empty() {
            return self.layout.stored.clone();
        }
        let as_they_are = |(i, column): (usize, &Column)| Stored {
            name: column.name.clone(),
            ty: column.ty.clone(),
            not_null: column.not_null,
            column: Some(i),
            missing: None,
        };
        self.columns.iter().enumerate().map(as_they_are).collect()
    }

    /// The columns of its log, as it is opened with. One that was dropped may be NULL, whatever it was before.
    pub fn stored_schema(&self) -> SchemaRef {
        if self.layout.stored.is_empty() {
            return self.schema();
        }
        let field =
            |stored: &Stored| Field::new(&stored.name, stored.ty.arrow(), !stored.not_null || stored.column.is_none());
        Arc::new(Schema::new(self.layout.stored.iter().map(field).collect::<Vec<_>>()))
    }

    /// A further column, behind the others. `default` is what rows have that are there, and those that come without a value.
    pub fn add_column(&mut self, column: Column, default: Option<String>) {
        self.layout.stored = self.stored();
        self.layout.stored.push(Stored {
            name: column.name.clone(),
            ty: column.ty.clone(),
            not_null: column.not_null,
            column: Some(self.columns.len()),
            missing: default.clone(),
        });
        if let Some(default) = default {
            self.layout.defaults.insert(column.name.clone(), default);
        }
        self.columns.push(column);
    }

    /// The column goes; it is not in the primary key, nor the event time.
    pub fn drop_column(&mut self, at: usize) {
        self.layout.stored = self.stored();
        for stored in &mut self.layout.stored {
            stored.column = match stored.column {
                Some(column) if column == at => None,
                Some(column) if column > at => Some(column - 1),
                other => other,
            };
        }
        let dropped = self.columns.remove(at);
        self.layout.defaults.remove(&dropped.name);
        let moved = |column: usize| if column > at { column - 1 } else { column };
        self.primary_key.iter_mut().for_each(|column| *column = moved(*column));
        self.event_time = self.event_time.map(moved);
    }

    pub fn rename_column(&mut self, at: usize, to: &str) {
        self.layout.stored = self.stored();
        let from = std::mem::replace(&mut self.columns[at].name, to.to_string());
        if let Some(default) = self.layout.defaults.remove(&from) {
            self.layout.defaults.insert(to.to_string(), default);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, ty: SqlType) -> Column {
        Column { name: name.to_string(), ty, not_null: false, comment: None }
    }

    #[test]
    fn a_log_keeps_every_column_that_there_ever_was() {
        let columns = vec![column("a", SqlType::Int8), column("b", SqlType::Text), column("c", SqlType::Bool)];
        let mut relation = Relation::plain(columns, String::new());
        relation.primary_key = vec![2];
        relation.event_time = Some(2);
        assert_eq!(relation.stored_schema(), relation.schema());
        relation.columns[1].not_null = true;
        relation.drop_column(1);
        assert_eq!((&relation.primary_key, relation.event_time), (&vec![1], Some(1)));
        relation.add_column(column("d", SqlType::Int4), Some("7".to_string()));
        relation.rename_column(2, "e");
        // The name of a dropped one again.
        relation.add_column(column("b", SqlType::Date), None);
        let named: Vec<&str> = relation.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(named, ["a", "c", "e", "b"]);
        assert_eq!(relation.layout.defaults, [("e".to_string(), "7".to_string())].into());
        let stored: Vec<_> = relation.stored().into_iter().map(|s| (s.name, s.column, s.missing)).collect();
        let expected = [
            ("a", Some(0), None),
            ("b", None, None),
            ("c", Some(1), None),
            ("d", Some(2), Some("7")),
            ("b", Some(3), None),
        ];
        let expected = expected.map(|(name, at, missing)| (name.to_string(), at, missing.map(str::to_string)));
        assert_eq!(stored, expected);
        assert!(relation.stored_schema().field(1).is_nullable(), "a dropped column is NULL from then on");
    }
}
