//! A topic that feeds a source: whoever reads it says from where, may be told the same again, and must take each message once.

use super::rows::numbers;
use arrow::{compute::concat_batches, datatypes::SchemaRef, record_batch::RecordBatch};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use tidemark_engine::seam::{Origin, Run, SourceBatch, Taken, Undecoded};

pub const PARTITIONS: usize = 3;

#[derive(Clone)]
struct Message {
    append_us: i64,
    /// One row; `None`: nobody can decode it.
    row: Option<RecordBatch>,
}

/// Messages stay for ever, and a restart of the reader is nothing to it.
#[derive(Default)]
pub struct SimTopic(Mutex<[Vec<Message>; PARTITIONS]>);

impl SimTopic {
    /// Each row is a message; before the first there is one that is broken, if so asked.
    pub fn send(&self, partition: usize, append_us: i64, rows: &RecordBatch, is_first_broken: bool) {
        let mut partitions = self.0.lock();
        if is_first_broken {
            partitions[partition].push(Message { append_us, row: None });
        }
        let messages = (0..rows.num_rows()).map(|row| Message { append_us, row: Some(rows.slice(row, 1)) });
        partitions[partition].extend(messages);
    }

    /// Where its partitions begin.
    pub fn beginning(schema: SchemaRef) -> (RecordBatch, Origin) {
        let taken = (0..PARTITIONS as u32).map(|partition| Taken { partition, next: 0, watermark_us: i64::MIN });
        (RecordBatch::new_empty(schema), Origin { taken: taken.collect(), ..Origin::default() })
    }

    /// The next messages of each partition, at most so many of each; `None`: there are none.
    pub fn read(&self, schema: SchemaRef, from: &BTreeMap<u32, u64>, most: usize) -> Option<(RecordBatch, Origin)> {
        let (mut rows, mut origin) = (vec![], Origin::default());
        for (partition, messages) in (0..).zip(self.0.lock().iter()) {
            let begin = from.get(&partition).copied().unwrap_or(0);
            let mut offset = begin;
            let mut is_run = false;
            for message in messages.iter().skip(begin as usize).take(most) {
                let append_us = message.append_us;
                match &message.row {
                    Some(row) => {
                        let goes_on = is_run && origin.runs.last().is_some_and(|run: &Run| run.append_us == append_us);
                        if !goes_on {
                            origin.runs.push(Run { row: rows.len() as u32, partition, offset, append_us });
                        }
                        rows.push(row.clone());
                    }
                    None => {
                        let (error, payload) = ("not JSON".to_string(), "{".to_string());
                        origin.undecoded.push(Undecoded { partition, offset, append_us, error, payload });
                    }
                }
                is_run = message.row.is_some();
                offset += 1;
            }
            if offset > begin {
                origin.taken.push(Taken { partition, next: offset, watermark_us: i64::MIN });
            }
        }
        if origin.taken.is_empty() {
            return None;
        }
        Some((concat_batches(&schema, &rows).expect("rows of one source"), origin))
    }

    /// The log has the messages of each partition from its first on, each once and in order.
    pub fn check(&self, records: &[SourceBatch]) -> Result<(), String> {
        let partitions = self.0.lock();
        let mut next = [0u64; PARTITIONS];
        for record in records {
            let Some(origin) = record.admission.as_ref().and_then(|admission| admission.origin.as_ref()) else {
                match record.rows.num_rows() {
                    0 => continue,
                    rows => return Err(format!("{rows} rows came from nowhere")),
                }
            };
            let mut found: BTreeMap<(u32, u64), Option<i64>> = BTreeMap::new();
            for (row, no) in numbers(&record.rows).into_iter().enumerate() {
                let (partition, offset, _) = record.place(row);
                found.insert((partition, offset), Some(no));
            }
            found.extend(origin.undecoded.iter().map(|message| ((message.partition, message.offset), None)));
            if found.len() != record.rows.num_rows() + origin.undecoded.len() {
                return Err("two records say that they are the same message".to_string());
            }
            for ((partition, offset), no) in found {
                let next = &mut next[partition as usize];
                let message = partitions[partition as usize].get(offset as usize);
                let sent = message.map(|message| message.row.as_ref().map(|row| numbers(row)[0]));
                if offset != *next || sent != Some(no) {
                    return Err(format!(
                        "partition {partition} of the topic goes on with {next}, the log with {offset}: {no:?}, sent was {sent:?}"
                    ));
                }
                *next += 1;
            }
            if let Some(taken) = origin.taken.iter().find(|taken| taken.next != next[taken.partition as usize]) {
                return Err(format!("{taken:?} is noted, {next:?} were taken"));
            }
        }
        Ok(())
    }
}
