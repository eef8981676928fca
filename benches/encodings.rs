//! What each encoding costs a column of steps, in nanoseconds and bytes a step (docs/benchmarks.md, "What a step costs in a file"). Built by
//! rustc alone, so it is no part of the workspace.

use arrow::{array::*, datatypes::*};
use parquet::{arrow::ArrowWriter, basic::*, file::properties::*, schema::types::ColumnPath};
use std::{sync::Arc, time::Instant};
fn main() {
    let n = 500_000usize;
    let keys = 50_000usize;
    let per = n / keys;
    let mut s = 88172645463325252u64;
    let mut r = || {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        s
    };
    let key: StringArray = (0..n).map(|i| Some(format!("user_{:06}", i / per))).collect();
    let mut ts = vec![];
    for _ in 0..keys {
        let mut t = 1_700_000_000_000_000i64;
        for _ in 0..per {
            t += (r() % 100_000_000_000) as i64 / 1000 * 1000;
            ts.push(t);
        }
    }
    let c: Vec<i64> = (0..n).map(|_| (r() % 40) as i64).collect();
    let f1: Vec<f64> = (0..n).map(|_| (r() % 2_000_000) as f64 / 100.0).collect();
    let f2: Vec<f64> = (0..n).map(|_| (r() % 1_000_003) as f64 / 37.0).collect();
    let tsa = TimestampMicrosecondArray::from(ts.clone());
    let cols: Vec<(&str, ArrayRef)> = vec![
        ("key", Arc::new(key)),
        ("ts", Arc::new(tsa.clone())),
        ("cnt", Arc::new(Int64Array::from(c))),
        ("sum", Arc::new(Float64Array::from(f1))),
        ("avg", Arc::new(Float64Array::from(f2))),
        ("op", Arc::new(StringArray::from_iter_values((0..n).map(|i| if i % 50 == 0 { "carry" } else { "upsert" })))),
        ("evt", Arc::new(tsa)),
        ("rec", Arc::new(TimestampMicrosecondArray::from(vec![1_700_000_000_000_000i64; n]))),
    ];
    let schema = Arc::new(Schema::new(
        cols.iter().map(|(n, a)| Field::new(*n, a.data_type().clone(), false)).collect::<Vec<_>>(),
    ));
    let batch = RecordBatch::try_new(schema.clone(), cols.iter().map(|c| c.1.clone()).collect()).unwrap();
    let z = Compression::ZSTD(ZstdLevel::default());
    let run = |name: &str, batch: &RecordBatch, p: WriterProperties| {
        let mut best = f64::MAX;
        let mut len = 0;
        for _ in 0..3 {
            let t = Instant::now();
            let mut w = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(p.clone())).unwrap();
            for at in (0..n).step_by(65536) {
                w.write(&batch.slice(at, 65536.min(n - at))).unwrap();
            }
            let b = w.into_inner().unwrap();
            best = best.min(t.elapsed().as_secs_f64());
            len = b.len();
        }
        println!("{name:34} {:7.1} ns/step {:6.2} bytes/step", best * 1e9 / n as f64, len as f64 / n as f64);
    };
    let base = |z: Compression| {
        WriterProperties::builder()
            .set_compression(z)
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_data_page_row_count_limit(8192)
    };
    run("now zstd1", &batch, base(z).build());
    run("now snappy", &batch, base(Compression::SNAPPY).build());
    run("now none", &batch, base(Compression::UNCOMPRESSED).build());
    let p = |c: &str| ColumnPath::from(vec![c.to_string()]);
    for (i, f) in schema.fields().iter().enumerate() {
        let b = batch.project(&[i]).unwrap();
        let name = f.name();
        run(&format!("{name} dict"), &b, base(z).build());
        run(&format!("{name} dict64k"), &b, base(z).set_dictionary_page_size_limit(65536).build());
        run(&format!("{name} plain"), &b, base(z).set_dictionary_enabled(false).build());
        let e: &[Encoding] = match f.data_type() {
            DataType::Float64 => &[Encoding::BYTE_STREAM_SPLIT],
            DataType::Utf8 => &[Encoding::DELTA_BYTE_ARRAY, Encoding::DELTA_LENGTH_BYTE_ARRAY],
            _ => &[Encoding::DELTA_BINARY_PACKED],
        };
        for e in e {
            run(
                &format!("{name} {e}"),
                &b,
                base(z).set_dictionary_enabled(false).set_column_encoding(p(name), *e).build(),
            );
        }
        run(&format!("{name} dict chunk-stats"), &b, base(z).set_statistics_enabled(EnabledStatistics::Chunk).build());
    }
    let chosen = |z| {
        let mut b = base(z).set_statistics_enabled(EnabledStatistics::Chunk);
        for c in ["key", "ts"] {
            b = b.set_column_statistics_enabled(p(c), EnabledStatistics::Page);
        }
        for c in ["ts", "evt"] {
            b = b.set_column_dictionary_enabled(p(c), false).set_column_encoding(p(c), Encoding::DELTA_BINARY_PACKED);
        }
        for c in ["sum", "avg"] {
            b = b.set_column_dictionary_enabled(p(c), false).set_column_encoding(p(c), Encoding::BYTE_STREAM_SPLIT);
        }
        b
    };
    run("chosen zstd", &batch, chosen(z).build());
    run("chosen snappy", &batch, chosen(Compression::SNAPPY).build());
    let mut b = chosen(z);
    for c in ["sum", "avg"] {
        b = b.set_column_encoding(p(c), Encoding::PLAIN);
    }
    run("chosen zstd, plain doubles", &batch, b.build());
    let mut b = chosen(z);
    for c in ["sum", "avg"] {
        b = b.set_column_compression(p(c), Compression::UNCOMPRESSED).set_column_encoding(p(c), Encoding::PLAIN);
    }
    run("chosen zstd, raw doubles", &batch, b.build());
    let mut b = chosen(z);
    for c in ["ts", "evt"] {
        b = b.set_column_compression(p(c), Compression::UNCOMPRESSED);
    }
    run("chosen zstd, delta uncompressed", &batch, b.build());
    // For another writer to write again.
    let Some(path) = std::env::args().nth(1) else { return };
    let f = std::fs::File::create(path).unwrap();
    let mut w = ArrowWriter::try_new(f, schema, Some(base(z).build())).unwrap();
    w.write(&batch).unwrap();
    w.close().unwrap();
}
