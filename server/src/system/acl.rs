//! Privileges as arrays of `aclitem`: what an object has where nothing was granted, and an array taken apart.
//!
//! ```text
//! acldefault('r', 10)                    {tidemark=arwdD/tidemark}
//! aclexplode('{ann=r/tidemark}')         one row (grantor, grantee, privilege_type, is_grantable) for each letter
//! ```
//! A function that makes rows is one that makes a list of them here, and [`super::rewrite`] puts `unnest` around it.

use super::{
    functions::Current,
    inventory::{Inventory, acl_item},
    row_function::RowFunction,
};
use arrow::{
    array::{ArrayRef, BooleanArray, Int64Array, StringArray, StructArray},
    datatypes::{DataType, Field, Fields},
};
use datafusion::{common::ScalarValue, error::Result as DfResult, logical_expr::ScalarUDF};
use std::sync::Arc;
use tidemark_catalog::Privileges;

/// What rewriting makes of `aclexplode`.
pub const EXPLODED: &str = "aclexplode$list";

fn row_fields() -> Fields {
    Fields::from(vec![
        Field::new("grantor", DataType::Int64, true),
        Field::new("grantee", DataType::Int64, true),
        Field::new("privilege_type", DataType::Utf8, true),
        Field::new("is_grantable", DataType::Boolean, true),
    ])
}

pub fn functions(system: &Current) -> Vec<Arc<ScalarUDF>> {
    let texts = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    let tables = system.clone();
    let default = RowFunction::new("acldefault", texts, move |args| {
        let (Some(kind), Some(owner)) = (args.text(0), args.int(1)) else { return list(&[], &DataType::Utf8, true) };
        let system = tables();
        let owner = system.inventory().role_name(owner).map_or_else(|| owner.to_string(), str::to_string);
        let items: Vec<ScalarValue> =
            items(kind, &owner).into_iter().map(|item| ScalarValue::Utf8(Some(item))).collect();
        list(&items, &DataType::Utf8, false)
    });
    let row = DataType::Struct(row_fields());
    let rows = DataType::List(Arc::new(Field::new_list_field(row.clone(), true)));
    let tables = system.clone();
    let exploded = RowFunction::new(EXPLODED, rows, move |args| {
        let Some(ScalarValue::List(items)) = args.0.first().filter(|_| !args.is_null(0)) else {
            return list(&[], &row, true);
        };
        let items = ScalarValue::convert_array_to_scalar_vec(items.as_ref())?;
        let system = tables();
        let mut rows = vec![];
        for item in items.into_iter().flatten().flatten() {
            let Some(written) = item.try_as_str().flatten() else { continue };
            for granted in exploded(written, system.inventory()) {
                rows.push(granted.into_row());
            }
        }
        list(&rows, &row, false)
    });
    vec![default.shown_as("_aclitem").udf(), exploded.udf()]
}

fn list(items: &[ScalarValue], of: &DataType, is_null: bool) -> DfResult<ScalarValue> {
    if is_null {
        return ScalarValue::try_from(&DataType::List(Arc::new(Field::new_list_field(of.clone(), true))));
    }
    Ok(ScalarValue::List(ScalarValue::new_list_nullable(items, of)))
}

/// What an owner and everybody have of an object of this kind, as PostgreSQL's letters for kinds say it.
fn items(kind: &str, owner: &str) -> Vec<String> {
    let letters = |privileges: Privileges| privileges.each().map(|(_, letter)| letter).collect::<String>();
    let (everybody, own) = match kind {
        "r" => (None, letters(Privileges::OF_RELATION)),
        "n" => (None, letters(Privileges::OF_SCHEMA)),
        "s" => (None, "rwU".to_string()),
        "d" => (Some("Tc"), "CTc".to_string()),
        "f" => (Some("X"), "X".to_string()),
        "l" | "T" => (Some("U"), "U".to_string()),
        "L" => (None, "rw".to_string()),
        "t" => (None, "C".to_string()),
        "F" | "S" => (None, "U".to_string()),
        // A column has what its relation has.
        _ => return vec![],
    };
    let everybody = everybody.map(|letters| acl_item("", letters, owner));
    everybody.into_iter().chain([acl_item(owner, &own, owner)]).collect()
}

/// One privilege of one role.
#[derive(Debug, PartialEq, Eq)]
struct Granted {
    grantor: i64,
    /// 0: everybody.
    grantee: i64,
    privilege: &'static str,
    is_grantable: bool,
}

impl Granted {
    fn into_row(self) -> ScalarValue {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![self.grantor])),
            Arc::new(Int64Array::from(vec![self.grantee])),
            Arc::new(StringArray::from(vec![self.privilege])),
            Arc::new(BooleanArray::from(vec![self.is_grantable])),
        ];
        ScalarValue::Struct(Arc::new(StructArray::new(row_fields(), columns, None)))
    }
}

/// `grantee=letters/grantor`, a star behind a letter that may be granted on; names that need it are in double quotes.
fn exploded(item: &str, inventory: &Inventory) -> Vec<Granted> {
    let oid_of = |written: &str| {
        let name = super::inventory::split_name(written).join(".");
        inventory.roles.iter().find(|(_, known)| *known == name).map_or(0, |(oid, _)| *oid)
    };
    let outside_quotes = |wanted: char| {
        let mut quoted = false;
        item.char_indices().find_map(|(at, c)| {
            quoted ^= c == '"';
            (c == wanted && !quoted).then_some(at)
        })
    };
    let (Some(equals), Some(slash)) = (outside_quotes('='), outside_quotes('/')) else { return vec![] };
    let (Some(grantee), Some(letters), Some(grantor)) =
        (item.get(..equals), item.get(equals + 1..slash), item.get(slash + 1..))
    else {
        return vec![];
    };
    let (grantee, grantor) = (if grantee.is_empty() { 0 } else { oid_of(grantee) }, oid_of(grantor));
    let mut letters = letters.chars().peekable();
    let mut all = vec![];
    while let Some(letter) = letters.next() {
        let is_grantable = letters.next_if_eq(&'*').is_some();
        if let Some(privilege) = word(letter) {
            all.push(Granted { grantor, grantee, privilege, is_grantable });
        }
    }
    all
}

fn word(letter: char) -> Option<&'static str> {
    Some(match letter {
        'a' => "INSERT",
        'r' => "SELECT",
        'w' => "UPDATE",
        'd' => "DELETE",
        'D' => "TRUNCATE",
        'x' => "REFERENCES",
        't' => "TRIGGER",
        'X' => "EXECUTE",
        'U' => "USAGE",
        'C' => "CREATE",
        'T' => "TEMPORARY",
        'c' => "CONNECT",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_catalog::Snapshot;

    #[test]
    fn an_item_is_one_privilege_for_each_letter() {
        let inventory = Inventory {
            roles: vec![(10, "tidemark".into()), (20, "A=n".into())],
            ..Inventory::of(&Snapshot::default(), &|_| None)
        };
        let granted = |grantee, privilege, is_grantable| Granted { grantor: 10, grantee, privilege, is_grantable };
        assert_eq!(
            exploded("\"A=n\"=ar*/tidemark", &inventory),
            [granted(20, "INSERT", false), granted(20, "SELECT", true)]
        );
        assert_eq!(exploded("=c/tidemark", &inventory), [granted(0, "CONNECT", false)]);
        assert!(exploded("nothing", &inventory).is_empty());
    }

    #[test]
    fn owners_have_everything_by_default_and_everybody_what_postgresql_gives() {
        assert_eq!(items("d", "tidemark"), ["=Tc/tidemark", "tidemark=CTc/tidemark"]);
        assert_eq!(items("n", "A b"), ["\"A b\"=UC/\"A b\""]);
        assert!(items("c", "tidemark").is_empty());
    }
}
