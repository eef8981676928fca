//! Properties: what is written is read back, chunking does not show, nothing that arrives makes us panic.

use super::session;
use crate::wire::{
    CopyDecoder, CopyEncoder, CopyError, FieldFormat, RowEncoder, SessionFormat, SessionZone, decode_param, pg_type,
    types,
};
use arrow::{array::*, datatypes::*};
use bytes::BytesMut;
use proptest::prelude::*;
use std::sync::Arc;
use tidemark_planner::statement::{CopyFormat, CopyOptions};

const ZONES: [&str; 4] = ["UTC", "America/New_York", "Asia/Kolkata", "+05:30"];

/// A column of every type, made from the same seeds.
fn columns(ints: &[Option<i64>], strings: &[Option<String>]) -> Vec<ArrayRef> {
    let n = ints.len();
    let int = |i: usize| ints[i];
    let of = |i: usize| strings[i].as_deref();
    // Times between the years -4000 and 290000, so that a zone's offset cannot leave the range.
    let time = |v: i64| v.clamp(-180_000_000_000_000_000, 9_000_000_000_000_000_000);
    let mut lists = ListBuilder::new(StringBuilder::new());
    let mut numbers = ListBuilder::new(Int64Builder::new());
    for i in 0..n {
        match of(i) {
            Some(s) => {
                lists.append_value([Some(s), None, Some("")]);
                numbers.append_value([int(i), Some(1)]);
            }
            None => {
                lists.append_null();
                numbers.append_value([] as [Option<i64>; 0]);
            }
        }
    }
    let DataType::List(item) = tidemark_catalog::vector::arrow(None) else { unreachable!("vectors are lists") };
    let mut vectors = ListBuilder::new(Float32Builder::new()).with_field(item);
    for i in 0..n {
        // Of any finite number, and as long as the text.
        let number = |v: i64| Some(f32::from_bits(v as u32)).filter(|x| x.is_finite()).unwrap_or(0.5);
        match int(i) {
            Some(v) => vectors.append_value(vec![Some(number(v)); of(i).map_or(1, |s| s.len() + 1)]),
            None => vectors.append_null(),
        }
    }
    let zoned = TimestampMicrosecondArray::from_iter(ints.iter().map(|v| v.map(time))).with_timezone("+00:00");
    vec![
        Arc::new(BooleanArray::from_iter(ints.iter().map(|v| v.map(|v| v & 1 == 1)))),
        Arc::new(Int16Array::from_iter(ints.iter().map(|v| v.map(|v| v as i16)))),
        Arc::new(Int32Array::from_iter(ints.iter().map(|v| v.map(|v| v as i32)))),
        Arc::new(Int64Array::from_iter(ints.iter().copied())),
        Arc::new(Float32Array::from_iter(ints.iter().map(|v| v.map(|v| canonical32(f32::from_bits(v as u32)))))),
        Arc::new(Float64Array::from_iter(ints.iter().map(|v| v.map(|v| canonical64(f64::from_bits(v as u64)))))),
        Arc::new(
            Decimal128Array::from_iter(ints.iter().map(|v| v.map(|v| v as i128 * 1_000_003)))
                .with_precision_and_scale(38, 7)
                .expect("decimal"),
        ),
        Arc::new(StringArray::from_iter(strings.iter().map(|s| s.as_deref()))),
        Arc::new(BinaryArray::from_iter(strings.iter().map(|s| s.as_deref().map(|s| s.as_bytes())))),
        Arc::new(Date32Array::from_iter(ints.iter().map(|v| v.map(|v| (v % 2_000_000) as i32)))),
        Arc::new(Time64MicrosecondArray::from_iter(ints.iter().map(|v| v.map(|v| v.rem_euclid(86_400_000_001))))),
        Arc::new(TimestampMicrosecondArray::from_iter(ints.iter().map(|v| v.map(time)))),
        Arc::new(zoned),
        Arc::new(IntervalMonthDayNanoArray::from_iter(ints.iter().map(|v| {
            v.map(|v| IntervalMonthDayNanoType::make_value((v >> 40) as i32, (v >> 20) as i32, v / 1000 * 1000))
        }))),
        Arc::new(lists.finish()),
        Arc::new(numbers.finish()),
        Arc::new(vectors.finish()),
    ]
}

/// Text cannot tell one NaN from another.
fn canonical32(v: f32) -> f32 {
    if v.is_nan() { f32::NAN } else { v }
}

fn canonical64(v: f64) -> f64 {
    if v.is_nan() { f64::NAN } else { v }
}

fn batch(ints: &[Option<i64>], strings: &[Option<String>]) -> RecordBatch {
    let columns = columns(ints, strings);
    let fields: Vec<Field> =
        columns.iter().enumerate().map(|(i, c)| Field::new(format!("c{i}"), c.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("batch")
}

fn seeds() -> impl Strategy<Value = (Vec<Option<i64>>, Vec<Option<String>>)> {
    let int = prop_oneof![
        1 => Just(None),
        2 => any::<i64>().prop_map(Some),
        2 => (-1_000_000i64..1_000_000).prop_map(Some),
        2 => (0i64..2_000_000_000_000_000).prop_map(Some),
    ];
    let string = prop_oneof![
        1 => Just(None),
        2 => "[a-c,\"\\\\{} \t\r\n']{0,6}".prop_map(Some),
        1 => "[^\\x00]{0,8}".prop_map(Some),
        1 => prop_oneof![Just("\\N"), Just("\\."), Just("NULL"), Just(""), Just("NA")].prop_map(|s| Some(s.to_owned())),
    ];
    (1usize..6).prop_flat_map(move |n| {
        (proptest::collection::vec(int.clone(), n), proptest::collection::vec(string.clone(), n))
    })
}

fn copy_options() -> impl Strategy<Value = CopyOptions> {
    let csv = (any::<bool>(), prop_oneof![Just(b'"'), Just(b'\'')], prop_oneof![Just(b'"'), Just(b'\\'), Just(b'\'')]);
    prop_oneof![
        Just(CopyOptions::of(CopyFormat::Text)),
        Just(CopyOptions::of(CopyFormat::Binary)),
        csv.prop_map(|(header, quote, escape)| CopyOptions {
            delimiter: Some(if header { b';' } else { b',' }),
            null: header.then(|| "NA".to_owned()),
            header,
            quote: Some(quote),
            escape: Some(escape),
            ..CopyOptions::of(CopyFormat::Csv)
        }),
    ]
}

fn read_copy(
    options: &CopyOptions,
    schema: &SchemaRef,
    zone: SessionZone,
    input: &[u8],
    cuts: &[usize],
) -> Result<Vec<RecordBatch>, CopyError> {
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    let mut decoder = CopyDecoder::new("t", options, schema.clone(), &all, zone, 3).expect("decoder");
    let mut batches = vec![];
    let mut rest = input;
    for cut in cuts {
        let (piece, after) = rest.split_at((*cut).min(rest.len()));
        batches.extend(decoder.feed(piece)?);
        rest = after;
    }
    batches.extend(decoder.feed(rest)?);
    batches.extend(decoder.finish()?);
    Ok(batches)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases * 3 / 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_value_comes_back_through_text_and_binary((ints, strings) in seeds(), zone in 0..ZONES.len()) {
        let batch = batch(&ints, &strings);
        let session = session(ZONES[zone]);
        for column in 0..batch.num_columns() {
            let one = batch.project(&[column]).expect("column");
            let array = one.column(0);
            let oid = pg_type(array.data_type()).oid;
            for format in [FieldFormat::Text, FieldFormat::Binary] {
                let encoder = RowEncoder::new(&one.schema(), &[format], &session).expect("encoder");
                for row in 0..one.num_rows() {
                    let mut out = BytesMut::new();
                    encoder.encode(&one, row, &mut out);
                    let value = if array.is_null(row) { None } else { Some(&out[6..]) };
                    let back = decode_param(oid, format, value, &session.time_zone).expect("decoded");
                    let back = back.to_array().expect("array");
                    let back = if oid == types::oid::NUMERIC {
                        arrow::compute::cast(&back, array.data_type()).expect("cast")
                    } else {
                        back
                    };
                    prop_assert_eq!(&back, &array.slice(row, 1), "{} {:?}", array.data_type(), format);
                }
            }
        }
    }

    #[test]
    fn a_copy_out_is_copied_in_unchanged_at_any_chunking(
        (ints, strings) in seeds(),
        options in copy_options(),
        cuts in proptest::collection::vec(0usize..40, 0..30),
        zone in 0..ZONES.len(),
    ) {
        let batch = batch(&ints, &strings);
        let session = session(ZONES[zone]);
        let mut encoder = CopyEncoder::new(&batch.schema(), &options, &session).expect("encoder");
        let mut out = BytesMut::new();
        encoder.header(&mut out);
        encoder.encode(&batch, 0..batch.num_rows(), &mut out);
        encoder.trailer(&mut out);
        let back = read_copy(&options, &batch.schema(), session.time_zone, &out, &cuts);
        let back = back.map_err(|e| TestCaseError::fail(format!("{e}: {:?}", String::from_utf8_lossy(&out))))?;
        let back = arrow::compute::concat_batches(&batch.schema(), &back).expect("one batch");
        prop_assert_eq!(back, batch);
    }

    #[test]
    fn chunking_never_changes_what_is_read(
        input in proptest::collection::vec(prop_oneof![Just(b','), Just(b'"'), Just(b'\n'), Just(b'\r'), Just(b'\\'), Just(b'\t'), Just(b'.'), Just(b'1'), Just(0xC3u8), Just(0xA9u8), Just(b'N')], 0..40),
        cuts in proptest::collection::vec(0usize..6, 0..40),
        options in copy_options(),
    ) {
        let schema: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("a", DataType::Utf8, true),
            Field::new("b", DataType::Utf8, true),
        ]));
        let flat = |result: Result<Vec<RecordBatch>, CopyError>| result.map(|batches| {
            batches.iter().map(|b| format!("{b:?}")).collect::<Vec<_>>()
        });
        let whole = flat(read_copy(&options, &schema, SessionZone::UTC, &input, &[]));
        let pieces = flat(read_copy(&options, &schema, SessionZone::UTC, &input, &cuts));
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in "\\PC{0,30}", like in "[-+0-9:./TZPYMDHS eEnaNifybcx{},\"\\\\]{0,24}") {
        let zone = SessionZone::parse("America/New_York").expect("zone");
        let schema = batch(&[], &[]).schema();
        for entry in types::TYPES {
            for oid in [Some(entry.oid), types::array_oid(entry.oid)].into_iter().flatten() {
                let _ = decode_param(oid, FieldFormat::Binary, Some(&bytes), &zone);
                for input in [bytes.as_slice(), text.as_bytes(), like.as_bytes()] {
                    let _ = decode_param(oid, FieldFormat::Text, Some(input), &zone);
                }
            }
        }
        for format in [CopyFormat::Text, CopyFormat::Csv, CopyFormat::Binary] {
            let options = CopyOptions::of(format);
            let _ = read_copy(&options, &schema, zone, &bytes, &[3, 5]);
            let _ = read_copy(&options, &schema, zone, &[b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0", bytes.as_slice()].concat(), &[3]);
        }
        let _ = SessionZone::parse(&text);
    }

    #[test]
    fn what_is_accepted_is_shown_and_accepted_again(like in "[-+0-9:./TZ eagoydhms]{0,20}", ty in prop_oneof![Just(1082u32), Just(1083), Just(1114), Just(1184), Just(1186), Just(701), Just(1700)]) {
        let zone = SessionZone::parse("America/New_York").expect("zone");
        let session = SessionFormat { time_zone: zone, extra_float_digits: 1 };
        if let Ok(value) = decode_param(ty, FieldFormat::Text, Some(like.as_bytes()), &zone) {
            let array = value.to_array().expect("array");
            let schema = Schema::new(vec![Field::new("c", array.data_type().clone(), true)]);
            let batch = RecordBatch::try_new(Arc::new(schema.clone()), vec![array]).expect("batch");
            let mut out = BytesMut::new();
            RowEncoder::new(&schema, &[], &session).expect("encoder").encode(&batch, 0, &mut out);
            let again = decode_param(ty, FieldFormat::Text, Some(&out[6..]), &zone);
            // The repeated hour of autumn is read as its second half.
            if ty != 1184 {
                prop_assert_eq!(again, Ok(value), "{:?}", String::from_utf8_lossy(&out[6..]));
            }
        }
    }
}
