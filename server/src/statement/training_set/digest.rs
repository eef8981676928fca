//! A number for rows in whatever order: two results have the same one if they have the same rows, each as often.
//!
//! The sum of the rows' hashes. What encodes a row is what keys are stored by, so a digest outlives the server that made it.

use arrow::{array::RecordBatch, error::ArrowError};
use ring::digest::{SHA256, digest};
use tidemark_engine::value::{Value, values_of};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest(u128);

impl Digest {
    pub fn add(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let columns: Vec<Vec<Value>> = batch.columns().iter().map(values_of).collect::<Result<_, _>>()?;
        let mut row_bytes = vec![];
        for row in 0..batch.num_rows() {
            row_bytes.clear();
            columns.iter().for_each(|column| column[row].encode(&mut row_bytes));
            let hash = digest(&SHA256, &row_bytes);
            let half = hash.as_ref().iter().take(16).fold(0u128, |half, byte| half << 8 | u128::from(*byte));
            self.0 = self.0.wrapping_add(half);
        }
        Ok(())
    }

    pub fn hex(self) -> String {
        format!("{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Float64Array, Int64Array};
    use std::sync::Arc;

    fn of(batches: &[(&[Option<i64>], &[f64])]) -> Digest {
        let mut digest = Digest::default();
        for (keys, values) in batches {
            let keys: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
            let values: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
            digest
                .add(&RecordBatch::try_from_iter_with_nullable([("k", keys, true), ("v", values, true)]).unwrap())
                .unwrap();
        }
        digest
    }

    #[test]
    fn the_same_rows_in_any_order_and_batches_have_one_digest_and_others_another() {
        let rows = of(&[(&[Some(1), None, Some(1)], &[0.5, 2.0, 0.5])]);
        assert_eq!(rows, of(&[(&[Some(1)], &[0.5]), (&[Some(1), None], &[0.5, 2.0])]));
        for other in [
            of(&[(&[Some(1), None], &[0.5, 2.0])]),
            of(&[(&[Some(1), None, None], &[0.5, 2.0, 0.5])]),
            of(&[(&[Some(1), None, Some(1)], &[0.5, 0.5, 2.0])]),
            of(&[]),
        ] {
            assert_ne!(rows, other);
        }
        // Hexadecimal, and stable: it is kept in the catalog.
        assert_eq!(of(&[]).hex(), "0".repeat(32));
        assert_eq!(rows.hex().len(), 32);
    }
}
