//! The order of steps in files: (month, entity key, time), and what arrived first first.
//!
//! Of each row the leading columns are packed into 128 bits that compare as the columns do: numbers and times less the
//! least of the commit, in as many bits as their spread needs, and text without what all of it begins with. Most often
//! that is all of the key and the time, and a comparison is one of two integers. What does not fit is compared in Arrow.

use arrow::{
    array::{Array, ArrayRef, AsArray, DynComparator, RecordBatch, StringArray, make_comparator},
    compute::{SortOptions, cast, concat, interleave_record_batch},
    datatypes::{DataType, Int32Type, Int64Type},
    error::ArrowError,
};
use std::{cmp::Ordering, ops::Range};

/// Rows of several batches in one order. They are put together piece by piece, as they are written.
pub struct Ordered {
    batches: Vec<RecordBatch>,
    /// Where each batch begins, had they been put one after another.
    starts: Vec<usize>,
    count: usize,
    /// `None`: as they came.
    rows: Option<Vec<usize>>,
}

impl Ordered {
    /// `by` has, for each batch, the columns to order by, the first before the second; each is of one type throughout.
    pub fn new(batches: Vec<RecordBatch>, by: Vec<Vec<ArrayRef>>) -> Result<Ordered, ArrowError> {
        let mut starts = Vec::with_capacity(batches.len());
        let mut count = 0;
        for batch in &batches {
            starts.push(count);
            count += batch.num_rows();
        }
        let rows = match is_in_order(&by)? {
            true => None,
            false => {
                let width = by.first().map_or(0, Vec::len);
                let column = |i: usize| concat(&by.iter().map(|of_batch| of_batch[i].as_ref()).collect::<Vec<_>>());
                let columns = (0..width).map(column).collect::<Result<Vec<_>, _>>()?;
                Some(order(&columns, count)?)
            }
        };
        Ok(Ordered { batches, starts, count, rows })
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// The rows at these places of the order.
    pub fn gather(&self, places: Range<usize>) -> Result<RecordBatch, ArrowError> {
        if let Some(batch) = self.as_they_came(&places) {
            return Ok(batch);
        }
        let rows: Vec<(usize, usize)> = places.map(|place| self.at(place)).collect();
        interleave_record_batch(&self.batches.iter().collect::<Vec<_>>(), &rows)
    }

    /// Rows that are in order already, of one batch: nothing is copied. What the engine commits is so, but for months.
    fn as_they_came(&self, places: &Range<usize>) -> Option<RecordBatch> {
        if places.is_empty() {
            return None;
        }
        let (batch, from) = self.at(places.start);
        let is_next =
            self.rows.as_ref().is_none_or(|rows| rows[places.clone()].windows(2).all(|pair| pair[1] == pair[0] + 1));
        let batch = &self.batches[batch];
        (is_next && from + places.len() <= batch.num_rows()).then(|| batch.slice(from, places.len()))
    }

    /// The batch and the row in it that comes at this place.
    pub fn at(&self, place: usize) -> (usize, usize) {
        self.find(self.rows.as_ref().map_or(place, |rows| rows[place]))
    }

    fn find(&self, row: usize) -> (usize, usize) {
        let batch = self.starts.partition_point(|start| *start <= row) - 1;
        (batch, row - self.starts[batch])
    }
}

/// Whether the rows of all batches, one after another, are in order already. Then nothing need be packed or moved, which for a million rows
/// is 80 MB less.
fn is_in_order(by: &[Vec<ArrayRef>]) -> Result<bool, ArrowError> {
    let some: Vec<&Vec<ArrayRef>> =
        by.iter().filter(|of_batch| of_batch.first().is_some_and(|first| !first.is_empty())).collect();
    let comparators = |a: &[ArrayRef], b: &[ArrayRef]| -> Result<Vec<DynComparator>, ArrowError> {
        a.iter().zip(b).map(|(a, b)| make_comparator(a, b, SortOptions::default())).collect()
    };
    let is_before = |compare: &[DynComparator], i: usize, j: usize| {
        compare.iter().map(|compare| compare(i, j)).find(|order| order.is_ne()).is_none_or(Ordering::is_lt)
    };
    for (n, of_batch) in some.iter().enumerate() {
        let rows = of_batch[0].len();
        let within = comparators(of_batch, of_batch)?;
        if !(1..rows).all(|row| is_before(&within, row - 1, row)) {
            return Ok(false);
        }
        if let Some(next) = some.get(n + 1)
            && !is_before(&comparators(of_batch, next)?, rows - 1, 0)
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The numbers of the rows, in order; equal ones as they came.
fn order(columns: &[ArrayRef], count: usize) -> Result<Vec<usize>, ArrowError> {
    let mut packed = Packed { values: vec![0; count], left: 128 };
    let mut exact = 0;
    while exact < columns.len() && packed.add(&columns[exact])? {
        exact += 1;
    }
    let comparator = |column: &ArrayRef| make_comparator(column, column, SortOptions::default());
    let rest = columns[exact..].iter().map(comparator).collect::<Result<Vec<DynComparator>, _>>()?;
    let mut rows: Vec<(u128, usize)> = packed.values.into_iter().zip(0..).collect();
    // Stable, and quick where runs are in order already: a key's steps come by time.
    match rest.is_empty() {
        true => rows.sort_by_key(|(packed, _)| *packed),
        false => rows.sort_by(|(a, i), (b, j)| {
            let further =
                || rest.iter().map(|rest| rest(*i, *j)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal);
            a.cmp(b).then_with(further)
        }),
    }
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// The leading columns of each row, the first in the highest bits.
struct Packed {
    values: Vec<u128>,
    /// Bits not taken yet.
    left: u32,
}

impl Packed {
    /// Packs one more column; false if it is still to be compared, and every one after it.
    fn add(&mut self, column: &ArrayRef) -> Result<bool, ArrowError> {
        if column.null_count() > 0 || column.is_empty() {
            return Ok(false);
        }
        match column.data_type() {
            DataType::Int32 | DataType::Date32 => {
                let column = cast(column, &DataType::Int32)?;
                Ok(self.add_ints(column.as_primitive::<Int32Type>().values().iter().map(|value| i64::from(*value))))
            }
            DataType::Int64 | DataType::Timestamp(..) | DataType::Time64(_) => {
                let column = cast(column, &DataType::Int64)?;
                Ok(self.add_ints(column.as_primitive::<Int64Type>().values().iter().copied()))
            }
            DataType::Utf8 => Ok(self.add_text(column.as_string::<i32>())),
            _ => Ok(false),
        }
    }

    fn add_ints(&mut self, values: impl Iterator<Item = i64> + Clone) -> bool {
        let (Some(least), Some(most)) = (values.clone().min(), values.clone().max()) else { return false };
        let bits = u64::BITS - most.abs_diff(least).leading_zeros();
        if bits > self.left {
            return false;
        }
        for (packed, value) in self.values.iter_mut().zip(values) {
            *packed = (*packed << bits) | u128::from(value.abs_diff(least));
        }
        self.left -= bits;
        true
    }

    fn add_text(&mut self, column: &StringArray) -> bool {
        let texts = || (0..column.len()).map(|row| column.value(row).as_bytes());
        let first = texts().next().unwrap_or_default();
        let shared = texts()
            .fold(first.len(), |shared, text| first[..shared].iter().zip(text).take_while(|(a, b)| a == b).count());
        let lengths = || texts().map(|text| text.len() - shared);
        let (longest, shortest) = (lengths().max().unwrap_or(0), lengths().min().unwrap_or(0));
        // `a` and `a` with a zero byte behind it are the same but for their lengths.
        let length_bits = if longest == shortest { 0 } else { u8::BITS };
        let whole = longest <= 16 && longest as u32 * u8::BITS + length_bits <= self.left;
        let (taken, length_bits) = match whole {
            true => (longest, length_bits),
            false => ((self.left / u8::BITS) as usize, 0),
        };
        let bits = taken as u32 * u8::BITS + length_bits;
        for (packed, text) in self.values.iter_mut().zip(texts()) {
            let mut bytes = [0; 16];
            let text = &text[shared..];
            let some = &text[..text.len().min(taken)];
            bytes[16 - taken..16 - taken + some.len()].copy_from_slice(some);
            let begin = u128::from_be_bytes(bytes);
            let begin = if length_bits == 0 { begin } else { (begin << length_bits) | text.len() as u128 };
            *packed = packed.checked_shl(bits).unwrap_or(0) | begin;
        }
        self.left -= bits;
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::{
        array::{Float64Array, Int32Array, Int64Array, TimestampMicrosecondArray, UInt32Array},
        compute::{SortColumn, lexsort_to_indices},
    };
    use proptest::prelude::*;
    use std::sync::Arc;

    /// Texts of one beginning, short and long ones, with zero bytes.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["user_[ab\0]{0,4}", "user_a{18,22}[ab\0]{0,2}", "[ab\0]{0,3}"]
    }

    proptest! {
        #[test]
        fn rows_come_in_arrows_order_and_equal_ones_as_they_came(
            rows in prop::collection::vec(
                (text(), any::<i64>(), -3i32..3, 0i64..1 << 40, prop::option::of(0u8..3), "[0-9]{4}"), 1..80),
            chosen in prop::collection::vec(0usize..6, 1..5),
        ) {
            let all: Vec<ArrayRef> = vec![
                Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.0))),
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))),
                Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.2))),
                Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.3))),
                Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.4.map(f64::from)))),
                Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.5))),
            ];
            let columns: Vec<ArrayRef> = chosen.iter().map(|i| all[*i].clone()).collect();
            let mut by: Vec<SortColumn> =
                columns.iter().map(|values| SortColumn { values: values.clone(), options: None }).collect();
            let arrival = UInt32Array::from_iter_values(0..rows.len() as u32);
            by.push(SortColumn { values: Arc::new(arrival), options: None });
            let expected = lexsort_to_indices(&by, None).expect("an order");
            let expected: Vec<usize> = expected.values().iter().map(|row| *row as usize).collect();
            prop_assert_eq!(order(&columns, rows.len()).expect("an order"), expected);
        }
    }

    #[test]
    fn batches_are_put_together_in_order_with_empty_ones_among_them() {
        let batch = |rows: &[i64]| {
            let column: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().copied()));
            RecordBatch::try_from_iter([("n", column)]).expect("a batch")
        };
        let batches = vec![batch(&[]), batch(&[7, -2]), batch(&[]), batch(&[i64::MAX, i64::MIN, 0])];
        let by = batches.iter().map(|batch| batch.columns().to_vec()).collect();
        let ordered = Ordered::new(batches, by).expect("an order");
        assert_eq!(ordered.len(), 5);
        assert_eq!(ordered.gather(0..5).expect("rows"), batch(&[i64::MIN, -2, 0, 7, i64::MAX]));
        assert_eq!(ordered.gather(3..4).expect("rows"), batch(&[7]));
        assert_eq!(ordered.at(1), (1, 1));
    }

    #[test]
    fn rows_that_are_in_order_stay_where_they_are() {
        let batch = |rows: &[(i64, i64)]| {
            let column = |of: fn(&(i64, i64)) -> i64| -> ArrayRef {
                Arc::new(Int64Array::from_iter_values(rows.iter().map(of)))
            };
            RecordBatch::try_from_iter([("key", column(|row| row.0)), ("time", column(|row| row.1))]).expect("a batch")
        };
        let ordered = |batches: &[RecordBatch]| {
            let by = batches.iter().map(|batch| batch.columns().to_vec()).collect();
            Ordered::new(batches.to_vec(), by).expect("an order")
        };
        let batches = [batch(&[]), batch(&[(1, 5), (1, 5), (1, 7)]), batch(&[]), batch(&[(1, 7), (2, 0)])];
        let in_order = ordered(&batches);
        assert!(in_order.rows.is_none());
        assert_eq!((in_order.len(), in_order.at(3)), (5, (3, 0)));
        assert_eq!(in_order.gather(2..5).expect("rows"), batch(&[(1, 7), (1, 7), (2, 0)]));
        assert_eq!(in_order.gather(1..3).expect("rows"), batches[1].slice(1, 2));
        // One within a batch, one between two.
        for other in [vec![batch(&[(1, 7), (1, 5)])], vec![batch(&[(2, 0)]), batch(&[(1, 9)])]] {
            let sorted = ordered(&other);
            assert!(sorted.rows.is_some());
            assert!(ordered(&[sorted.gather(0..2).expect("rows")]).rows.is_none());
        }
    }
}
