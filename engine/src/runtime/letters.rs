//! Dead letters: records that were not admitted, or that a view could not use, kept with all there is to know.

use super::Engine;
use crate::{
    seam::{Keyspace, RejectReason, SeamError, SeamResult, StateStore, WriteBatch},
    value::{Value, values_of},
};
use arrow::{datatypes::DataType, record_batch::RecordBatch};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidemark_catalog::ObjectId;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadLetter {
    pub source: ObjectId,
    /// The feature view that could not use the record; `None`: it was not admitted at all.
    pub view: Option<ObjectId>,
    pub partition: u32,
    pub offset: u64,
    pub append_us: i64,
    pub reason: RejectReason,
    pub error: String,
    /// The row as a JSON object in text.
    pub payload: String,
}

impl DeadLetter {
    /// Source, view (0 for the source itself), partition, offset: a replay writes the same key again.
    fn key(&self) -> Vec<u8> {
        let mut key = self.source.0.to_be_bytes().to_vec();
        key.extend(self.view.map_or(0, |v| v.0).to_be_bytes());
        key.extend(self.partition.to_be_bytes());
        key.extend(self.offset.to_be_bytes());
        key
    }
}

/// How many entries one read of the store brings.
const PAGE: usize = 4096;

/// Makes letters durable; a letter that is there already stays as it is.
pub(super) async fn keep(state: &dyn StateStore, letters: &[DeadLetter]) -> SeamResult<()> {
    if letters.is_empty() {
        return Ok(());
    }
    let mut batch = WriteBatch::default();
    for letter in letters {
        let bytes = postcard::to_stdvec(letter).map_err(SeamError::not_done)?;
        batch.puts.push((Keyspace::DeadLetters, letter.key(), bytes));
    }
    state.checkpoint(batch).await
}

impl Engine {
    pub(super) async fn keep_letters(&self, letters: Vec<DeadLetter>) -> SeamResult<()> {
        keep(self.seams.state.as_ref(), &letters).await
    }

    /// All dead letters, by source, view, partition and offset.
    pub async fn dead_letters(&self) -> SeamResult<Vec<DeadLetter>> {
        // By key: one that waits may be written meanwhile, or have been, where the store could not say so.
        let mut letters: BTreeMap<Vec<u8>, DeadLetter> = BTreeMap::new();
        for source in self.sources() {
            letters.extend(source.waiting().await.into_iter().map(|letter| (letter.key(), letter)));
        }
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.seams.state.page(Keyspace::DeadLetters, &[], after.as_deref(), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, bytes) in page {
                letters.insert(key, postcard::from_bytes(&bytes).map_err(SeamError::not_done)?);
            }
        }
        Ok(letters.into_values().collect())
    }

    /// Removes the dead letters of sources with a retention that are older than it.
    pub async fn expire_letters(&self) -> SeamResult<usize> {
        let now = self.seams.clock.now_us();
        let mut batch = WriteBatch::default();
        let retention: std::collections::HashMap<_, _> = self
            .sources()
            .into_iter()
            .filter_map(|s| s.relation.read().dead_letter_retention_us.map(|r| (s.id, r)))
            .collect();
        if retention.is_empty() {
            return Ok(0);
        }
        for letter in self.dead_letters().await? {
            if retention.get(&letter.source).is_some_and(|r| letter.append_us < now - r) {
                batch.deletes.push((Keyspace::DeadLetters, letter.key()));
            }
        }
        let expired = batch.deletes.len();
        if expired > 0 {
            self.seams.state.checkpoint(batch).await?;
        }
        Ok(expired)
    }
}

/// One row as a JSON object: numbers as numbers, arrays as arrays, what JSON has no notation for as text that SQL reads
/// back, times in ISO 8601. `payload ->> 'column'`, cast to the column's type, is the value again.
pub fn payload(rows: &RecordBatch, row: usize) -> String {
    let one = rows.slice(row, 1);
    let mut object = serde_json::Map::new();
    for (field, column) in rows.schema().fields().iter().zip(one.columns()) {
        // Every type that a column can be declared with is kept as values.
        let value = values_of(column).ok().and_then(|mut values| values.pop()).unwrap_or_default();
        object.insert(field.name().clone(), json(&value, field.data_type()));
    }
    serde_json::Value::Object(object).to_string()
}

fn json(value: &Value, ty: &DataType) -> serde_json::Value {
    use serde_json::Value as J;
    match (value, ty) {
        (Value::Null, _) => J::Null,
        (Value::Bool(b), _) => J::Bool(*b),
        (Value::Text(t), _) => J::String(t.to_string()),
        (Value::Float(x), _) => serde_json::Number::from_f64(*x).map_or_else(|| J::String(special(*x)), J::Number),
        (Value::Int(i), DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::UInt64) => J::from(*i),
        (Value::Bytes(b), _) => J::String(b.iter().fold("\\x".to_string(), |text, byte| text + &format!("{byte:02x}"))),
        (Value::List(items), DataType::List(item)) => {
            J::Array(items.iter().map(|value| json(value, item.data_type())).collect())
        }
        // The ends of time: no calendar has them.
        (Value::Int(i64::MAX), DataType::Timestamp(..)) => J::String("infinity".into()),
        (Value::Int(i64::MIN), DataType::Timestamp(..)) => J::String("-infinity".into()),
        // Dates, times, decimals and intervals as Arrow writes them.
        (value, ty) => crate::value::array_of(ty, std::iter::once(value))
            .and_then(|array| arrow::util::display::array_value_to_string(&array, 0))
            .map_or(J::Null, J::String),
    }
}

fn special(x: f64) -> String {
    if x.is_nan() {
        "NaN".into()
    } else if x > 0.0 {
        "Infinity".into()
    } else {
        "-Infinity".into()
    }
}
