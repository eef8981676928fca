//! The commit tag as table properties, the only place it is read from: a foreign engine's commit (a compaction) makes
//! a newest snapshot without our summary, and leaves the properties alone.

use arrow::temporal_conversions::timestamp_us_to_datetime;
use std::collections::HashMap;
use tidemark_catalog::ObjectId;
use tidemark_engine::seam::{CommitTag, Positions, SeamError, SeamResult};

/// The feature view that a table belongs to.
pub const VIEW: &str = "tidemark.view";
/// The training set that a table belongs to.
pub const TRAINING_SET: &str = "tidemark.training-set";
/// Which computation of the training set its rows are of.
pub const COMPUTATION: &str = "tidemark.computation";
/// The columns of a training set's table, as they were declared.
pub const COLUMNS: &str = "tidemark.columns";
/// The data directory that a table belongs to, in a catalog that several may share.
pub const DIRECTORY: &str = "tidemark.directory";
/// The frontier for people, ISO 8601.
const FRONTIER: &str = "tidemark.frontier";
const FRONTIER_US: &str = "tidemark.frontier-us";
const POSITIONS: &str = "tidemark.positions";
const VIEW_VERSION: &str = "tidemark.view-version";
const WRITER_EPOCH: &str = "tidemark.writer-epoch";
const SEQUENCE: &str = "tidemark.sequence";

pub fn to_properties(tag: &CommitTag) -> SeamResult<HashMap<String, String>> {
    let positions = serde_json::to_string(&tag.positions).map_err(SeamError::not_done)?;
    Ok(HashMap::from(
        [
            (FRONTIER, iso(tag.frontier_us)),
            (FRONTIER_US, tag.frontier_us.to_string()),
            (POSITIONS, positions),
            (VIEW_VERSION, tag.view_version.to_string()),
            (WRITER_EPOCH, tag.writer_epoch.to_string()),
            (SEQUENCE, tag.sequence.to_string()),
        ]
        .map(|(name, value)| (name.to_string(), value)),
    ))
}

/// `None` where no commit of ours was made yet.
pub fn from_properties(table: &str, properties: &HashMap<String, String>) -> SeamResult<Option<CommitTag>> {
    if !properties.contains_key(SEQUENCE) {
        return Ok(None);
    }
    let positions: Positions = serde_json::from_str(text(table, properties, POSITIONS)?)
        .map_err(|error| bad(table, POSITIONS, &error.to_string()))?;
    Ok(Some(CommitTag {
        frontier_us: number(table, properties, FRONTIER_US)?,
        positions,
        view_version: number(table, properties, VIEW_VERSION)?,
        writer_epoch: number(table, properties, WRITER_EPOCH)?,
        sequence: number(table, properties, SEQUENCE)?,
    }))
}

/// The view or training set that a table with these properties belongs to.
pub fn owner(properties: &HashMap<String, String>) -> Option<ObjectId> {
    properties.get(VIEW).or_else(|| properties.get(TRAINING_SET))?.parse().ok().map(ObjectId)
}

/// Whether its rows can be written again: they are in the log of a training set.
pub fn is_of_training_set(properties: &HashMap<String, String>) -> bool {
    properties.contains_key(TRAINING_SET) && !properties.contains_key(VIEW)
}

fn text<'a>(table: &str, properties: &'a HashMap<String, String>, name: &str) -> SeamResult<&'a str> {
    properties.get(name).map(String::as_str).ok_or_else(|| bad(table, name, "it is missing"))
}

fn number<T: std::str::FromStr<Err: std::fmt::Display>>(
    table: &str,
    properties: &HashMap<String, String>,
    name: &str,
) -> SeamResult<T> {
    text(table, properties, name)?.parse().map_err(|error: T::Err| bad(table, name, &error.to_string()))
}

fn bad(table: &str, property: &str, why: &str) -> SeamError {
    SeamError::NotDone(format!("property \"{property}\" of history table \"{table}\" cannot be read: {why}"))
}

fn iso(us: i64) -> String {
    match timestamp_us_to_datetime(us) {
        Some(instant) => format!("{}Z", instant.format("%Y-%m-%dT%H:%M:%S%.6f")),
        None if us < 0 => "-infinity".to_string(),
        None => "infinity".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_survives_the_properties_and_extreme_frontiers() {
        for frontier_us in [i64::MIN, -1, 0, 1_357_034_400_000_001, i64::MAX] {
            let mut positions = Positions::default();
            positions.set(0, u64::MAX);
            positions.set(7, 0);
            let tag = CommitTag { frontier_us, positions, view_version: 3, writer_epoch: u64::MAX, sequence: 9 };
            let properties = to_properties(&tag).unwrap();
            assert_eq!(from_properties("t", &properties).unwrap(), Some(tag));
        }
        assert_eq!(iso(1_357_034_400_000_001), "2013-01-01T10:00:00.000001Z");
        assert_eq!(iso(i64::MAX), "infinity");
    }

    #[test]
    fn no_tag_is_not_an_error_and_half_a_tag_is() {
        let mut properties = HashMap::from([(VIEW.to_string(), "16384".to_string())]);
        assert_eq!(from_properties("t", &properties).unwrap(), None);
        assert_eq!(owner(&properties), Some(ObjectId(16384)));
        properties.insert(SEQUENCE.to_string(), "1".to_string());
        let error = from_properties("t", &properties).unwrap_err().to_string();
        assert_eq!(error, "property \"tidemark.positions\" of history table \"t\" cannot be read: it is missing");
    }
}
