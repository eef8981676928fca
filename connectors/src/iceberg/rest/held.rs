//! Tags and branches, which hold snapshots that a commit would forget.
//!
//! A catalog takes a snapshot away together with whatever tags are on it, and can be asked to compare a tag whose name is
//! known, but not whether there are others. So right before snapshots are forgotten it is asked once more what holds any, and
//! what is known is required to be as it was. Between that look and the commit lies one request; before, there were the
//! files that the commit writes, which may take seconds.
//! <https://github.com/apache/iceberg/blob/main/open-api/rest-catalog-open-api.yaml>, `AssertRefSnapshotId`.

use iceberg::{TableRequirement, spec::MAIN_BRANCH};
use serde_json::Value;
use std::collections::BTreeMap;

/// The snapshot that each tag or branch of a table's metadata holds, without the main branch, which every commit compares.
pub fn references(metadata: &Value) -> BTreeMap<String, i64> {
    let all = metadata.get("refs").and_then(Value::as_object).into_iter().flatten();
    let others = all.filter(|(name, _)| *name != MAIN_BRANCH);
    others.filter_map(|(name, held)| Some((name.clone(), held.get("snapshot-id")?.as_i64()?))).collect()
}

/// That each of them is what it was.
pub fn requirements(known: BTreeMap<String, i64>) -> impl Iterator<Item = TableRequirement> {
    let requirement = |(name, id)| TableRequirement::RefSnapshotIdMatch { r#ref: name, snapshot_id: Some(id) };
    known.into_iter().map(requirement)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_holds_a_snapshot_is_required_to_hold_it_and_the_main_branch_is_left_to_the_commit() {
        let metadata = json!({ "refs": {
            "main": { "snapshot-id": 3, "type": "branch" },
            "audit": { "snapshot-id": 1, "type": "tag" },
            "work": { "snapshot-id": 2, "type": "branch" },
        }});
        let known = references(&metadata);
        assert_eq!(known, BTreeMap::from([("audit".to_string(), 1), ("work".to_string(), 2)]));
        let required = serde_json::to_value(requirements(known).collect::<Vec<_>>()).expect("JSON");
        let asserts = |name: &str, id: i64| json!({ "type": "assert-ref-snapshot-id", "ref": name, "snapshot-id": id });
        assert_eq!(required, json!([asserts("audit", 1), asserts("work", 2)]));
        assert!(references(&json!({ "refs": null })).is_empty() && references(&json!({})).is_empty());
    }
}
