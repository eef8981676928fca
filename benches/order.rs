//! Ordering the steps of a commit: by packed keys, and by `lexsort_to_indices` and `take` as before (docs/benchmarks.md, "What a step costs
//! in a file"). Built by rustc alone, so it is no part of the workspace.

#[path = "../connectors/src/iceberg/order.rs"]
mod order;

use arrow::{array::*, compute::*, datatypes::*, record_batch::RecordBatch};
use std::{sync::Arc, time::Instant};
fn main() {
    let n = 500_000usize;
    let keys = 50_000u64;
    for (what, by_key) in [("as the engine makes them (runs of a key)", true), ("in no order", false)] {
        let mut s = 88172645463325252u64;
        let mut r = || {
            s ^= s << 13;
            s ^= s >> 7;
            s ^= s << 17;
            s
        };
        for kind in ["text", "uuid", "int"] {
            let batches: Vec<RecordBatch> = (0..8)
                .map(|b| {
                    let m = n / 8;
                    let ids: Vec<u64> = (0..m)
                        .map(|i| {
                            if by_key { ((b * m + i) as u64 / 10).wrapping_mul(2654435761) % keys } else { r() % keys }
                        })
                        .collect();
                    let ts: Vec<i64> = (0..m)
                        .map(|i| {
                            1_700_000_000_000_000
                                + if by_key {
                                    (i % 10) as i64 * 7_000_000 + (r() % 1_000_000) as i64
                                } else {
                                    (r() % 2_000_000_000_000) as i64
                                }
                        })
                        .collect();
                    let key: ArrayRef = match kind {
                        "text" => Arc::new(StringArray::from_iter_values(ids.iter().map(|i| format!("user_{i:06}")))),
                        "uuid" => Arc::new(StringArray::from_iter_values(
                            ids.iter().map(|i| format!("{:08x}-4444-5555-6666-{i:012x}", (i * 2654435761) as u32)),
                        )),
                        _ => Arc::new(Int64Array::from_iter_values(ids.iter().map(|i| *i as i64))),
                    };
                    let month: ArrayRef = Arc::new(Int32Array::from(vec![640; m]));
                    let f = |_| -> ArrayRef {
                        Arc::new(Float64Array::from_iter_values(ids.iter().map(|i| *i as f64 / 3.0)))
                    };
                    let tsa: ArrayRef = Arc::new(TimestampMicrosecondArray::from(ts));
                    let op: ArrayRef = Arc::new(StringArray::from(vec!["upsert"; m]));
                    RecordBatch::try_from_iter([
                        ("month", month),
                        ("key", key),
                        ("ts", tsa.clone()),
                        ("a", f(0)),
                        ("b", f(1)),
                        ("c", f(2)),
                        ("d", f(3)),
                        ("op", op),
                        ("e", tsa.clone()),
                        ("rec", tsa),
                    ])
                    .unwrap()
                })
                .collect();
            let t = Instant::now();
            let all = concat_batches(&batches[0].schema(), &batches).unwrap();
            let by: Vec<SortColumn> =
                (0..3).map(|i| SortColumn { values: all.column(i).clone(), options: None }).collect();
            let o = lexsort_to_indices(&by, None).unwrap();
            let a = t.elapsed();
            let sorted = take_record_batch(&all, &o).unwrap();
            let b = t.elapsed();
            let t = Instant::now();
            let by = batches.iter().map(|b| b.columns()[..3].to_vec()).collect();
            let ord = order::Ordered::new(batches, by).unwrap();
            let c = t.elapsed();
            let parts: Vec<_> = (0..n).step_by(65536).map(|i| ord.gather(i..n.min(i + 65536)).unwrap()).collect();
            let d = t.elapsed();
            let _ = ord.at(0);
            assert_eq!(ord.len(), n);
            let again = concat_batches(&parts[0].schema(), &parts).unwrap();
            assert_eq!(again.project(&[0, 1, 2]).unwrap(), sorted.project(&[0, 1, 2]).unwrap());
            let ns = |d: std::time::Duration| d.as_nanos() as f64 / n as f64;
            println!(
                "{what:42} {kind:5} before: order {:6.1} all {:6.1}   after: order {:6.1} all {:6.1} ns/step",
                ns(a),
                ns(b),
                ns(c),
                ns(d)
            );
        }
    }
}
