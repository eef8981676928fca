//! Position deletes of an Iceberg table: which rows of a data file are no more, as ranges that a scan leaves out.

use super::{FilesError, Result, iceberg_scan::LakeFile, iceberg_table::local};
use arrow::{
    array::AsArray,
    compute::cast,
    datatypes::{DataType, Int64Type},
};
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use futures::TryStreamExt;
use parquet::arrow::{
    ParquetRecordBatchStreamBuilder,
    arrow_reader::{RowSelection, RowSelector},
};
use std::{collections::HashMap, path::Path};

/// The files of position deletes, with the sequence numbers of their commits.
#[derive(Debug, Default)]
pub(super) struct Deleted(Vec<(String, i64)>);

/// The deleted positions of each data file that has some, ascending and each once.
pub(super) type Positions = HashMap<String, Vec<u64>>;

impl Deleted {
    pub(super) fn add(&mut self, location: &str, sequence: i64) {
        self.0.push((location.to_string(), sequence));
    }

    /// Those of these files. They are in memory while the query is planned: eight bytes for each.
    pub(super) async fn of(&self, files: &[LakeFile]) -> Result<Positions> {
        let sequences: HashMap<&str, i64> = files.iter().map(|file| (file.location.as_str(), file.sequence)).collect();
        let mut positions = Positions::new();
        for (location, sequence) in &self.0 {
            // A delete counts for files that were there when it was committed.
            let concerns = |file: &str| sequences.get(file).is_some_and(|of_file| of_file <= sequence);
            read(&local(location)?, concerns, &mut positions).await?;
        }
        for positions in positions.values_mut() {
            positions.sort_unstable();
            positions.dedup();
        }
        Ok(positions)
    }
}

async fn read(path: &Path, concerns: impl Fn(&str) -> bool, positions: &mut Positions) -> Result<()> {
    let broken = |error: &dyn std::fmt::Display| {
        let message = format!("\"{}\" cannot be read as position deletes of an Iceberg table", path.display());
        FilesError::new("58030", message).detail(error.to_string())
    };
    let file = tokio::fs::File::open(path).await.map_err(|error| FilesError::unreadable(path, &error))?;
    let builder = ParquetRecordBatchStreamBuilder::new(file).await.map_err(|error| broken(&error))?;
    let mut batches = builder.build().map_err(|error| broken(&error))?;
    while let Some(batch) = batches.try_next().await.map_err(|error| broken(&error))? {
        let column = |name: &str, ty: &DataType| {
            let column = batch.column_by_name(name).ok_or_else(|| broken(&format_args!("it has no column {name}")))?;
            cast(column, ty).map_err(|error| broken(&error))
        };
        let (files, at) = (column("file_path", &DataType::Utf8)?, column("pos", &DataType::Int64)?);
        for (file, at) in files.as_string::<i32>().iter().zip(at.as_primitive::<Int64Type>().iter()) {
            let (Some(file), Some(at)) = (file, at.and_then(|at| u64::try_from(at).ok())) else { continue };
            if !concerns(file) {
                continue;
            }
            match positions.get_mut(file) {
                Some(known) => known.push(at),
                None => drop(positions.insert(file.to_string(), vec![at])),
            }
        }
    }
    Ok(())
}

/// How to read a file of row groups with so many rows without the deleted ones, which ascend.
pub(super) fn access(deleted: &[u64], groups: impl IntoIterator<Item = u64>) -> ParquetAccessPlan {
    let (mut begin, mut at) = (0, 0);
    let of_group = |rows: u64| {
        let end = begin + rows;
        let until = at + deleted[at..].partition_point(|position| *position < end);
        let gone = &deleted[at..until];
        let access = match gone.len() as u64 {
            0 => RowGroupAccess::Scan,
            all if all == rows => RowGroupAccess::Skip,
            _ => RowGroupAccess::Selection(without(gone, begin, end)),
        };
        (begin, at) = (end, until);
        access
    };
    ParquetAccessPlan::new(groups.into_iter().map(of_group).collect())
}

fn without(deleted: &[u64], begin: u64, end: u64) -> RowSelection {
    let mut selectors = vec![];
    let mut next = begin;
    for position in deleted {
        if *position > next {
            selectors.push(RowSelector::select((position - next) as usize));
        }
        selectors.push(RowSelector::skip(1));
        next = position + 1;
    }
    if next < end {
        selectors.push(RowSelector::select((end - next) as usize));
    }
    selectors.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The positions that are read, by going through the ranges one by one.
    fn read_by(plan: &ParquetAccessPlan, groups: &[u64]) -> Vec<u64> {
        let (mut begin, mut read) = (0, vec![]);
        for (access, rows) in plan.inner().iter().zip(groups) {
            match access {
                RowGroupAccess::Skip => {}
                RowGroupAccess::Scan => read.extend(begin..begin + rows),
                RowGroupAccess::Selection(selection) => {
                    let mut at = begin;
                    for selector in selection.iter() {
                        let end = at + selector.row_count as u64;
                        if !selector.skip {
                            read.extend(at..end);
                        }
                        at = end;
                    }
                    assert_eq!(at, begin + rows, "a selection is of the whole row group");
                }
            }
            begin += rows;
        }
        read
    }

    #[test]
    fn what_is_read_are_the_rows_that_are_not_deleted() {
        let groups = [4, 1, 3];
        // Every set of deleted rows there is.
        for set in 0u32..256 {
            let deleted: Vec<u64> = (0..8).filter(|row| set & 1 << row != 0).collect();
            let left: Vec<u64> = (0..8).filter(|row| !deleted.contains(row)).collect();
            assert_eq!(read_by(&access(&deleted, groups), &groups), left, "without {deleted:?}");
        }
    }
}
