//! COPY in both directions, against what PostgreSQL 15 said to the same bytes.

use crate::wire::{CopyDecoder, CopyEncoder, CopyError, SessionFormat, SessionZone};
use arrow::{
    array::{ArrayRef, Float64Array, Int32Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
    util::display::array_value_to_string,
};
use bytes::BytesMut;
use std::sync::Arc;
use tidemark_planner::statement::{CopyFormat, CopyOptions};

fn options(format: CopyFormat) -> CopyOptions {
    CopyOptions::of(format)
}

fn text() -> CopyOptions {
    options(CopyFormat::Text)
}

fn csv() -> CopyOptions {
    options(CopyFormat::Csv)
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int32, false),
        Field::new("b", DataType::Utf8, true),
        Field::new("dep_delay", DataType::Float64, true),
    ]))
}

/// Every row as `a|b|c`, NULL as `~`, for `chunk` bytes at a time.
fn read(options: &CopyOptions, input: &[u8], chunk: usize, batch_rows: usize) -> Result<Vec<String>, CopyError> {
    let mut decoder =
        CopyDecoder::new("flights", options, schema(), &[0, 1, 2], SessionZone::UTC, batch_rows).expect("decoder");
    let mut batches = vec![];
    for piece in input.chunks(chunk.max(1)) {
        batches.extend(decoder.feed(piece)?);
    }
    batches.extend(decoder.finish()?);
    Ok(batches.iter().flat_map(rows).collect())
}

fn rows(batch: &RecordBatch) -> Vec<String> {
    let cell = |column: &ArrayRef, row: usize| {
        if column.is_null(row) { "~".into() } else { array_value_to_string(column, row).expect("text") }
    };
    (0..batch.num_rows())
        .map(|row| batch.columns().iter().map(|c| cell(c, row)).collect::<Vec<_>>().join("|"))
        .collect()
}

/// At every chunk size up to 7 and whole: the same rows.
fn check(options: &CopyOptions, input: &[u8], expected: &[&str]) {
    for chunk in [1, 2, 3, 5, 7, input.len()] {
        let shown = String::from_utf8_lossy(input);
        assert_eq!(
            read(options, input, chunk, 2).as_deref(),
            Ok(expected.iter().map(|s| s.to_string()).collect::<Vec<_>>().as_slice()),
            "{shown:?} by {chunk}"
        );
    }
}

fn check_error(options: &CopyOptions, input: &[u8], sqlstate: &str, message: &str, context: &str) {
    for chunk in [1, 3, input.len()] {
        let error = read(options, input, chunk, 10).expect_err("an error");
        assert_eq!((error.sqlstate, error.message.as_str()), (sqlstate, message));
        assert_eq!(error.context.as_deref(), Some(context));
    }
}

#[test]
fn text_rows_are_read_as_postgresql_does() {
    check(&text(), b"1\tx\t2.5\n2\t\\N\t\\N\n", &["1|x|2.5", "2|~|~"]);
    check(&text(), b"1\ta\\tb\\\\c\\x41\\101\\n\t1\n", &["1|a\tb\\cAA\n|1.0"]);
    check(&text(), b"1\tx\t1\r\n2\ty\t2\r\n", &["1|x|1.0", "2|y|2.0"]);
    check(&text(), b"1\tx\t1\r2\ty\t2\r", &["1|x|1.0", "2|y|2.0"]);
    check(&text(), b"1\tx\t1\n2\ty\\\nz\t2", &["1|x|1.0", "2|y\nz|2.0"]);
    check(&text(), b"1\tx\t1\n\\.\nzzz\n", &["1|x|1.0"]);
    check(&text(), "1\té😀\t1\n".as_bytes(), &["1|é😀|1.0"]);
    check(&text(), b"", &[]);
    let header = CopyOptions { header: true, delimiter: Some(b'|'), ..text() };
    check(&header, b"a|b|c\n1|x|2\n", &["1|x|2.0"]);
}

#[test]
fn csv_rows_are_read_as_postgresql_does() {
    check(
        &csv(),
        b"1,x,2.5\n2,,\n3,\"\",1\n4,\" \"\"q\"\" \",\n5,a\"b,c\"d,5\n",
        &["1|x|2.5", "2|~|~", "3||1.0", "4| \"q\" |~", "5|ab,cd|5.0"],
    );
    check(&CopyOptions { header: true, ..csv() }, b"a,b,c\n1,x,2\n", &["1|x|2.0"]);
    check(
        &CopyOptions { null: Some("NA".into()), ..csv() },
        b"1,NA,NA\n2,\"NA\",3\n3,,1\n",
        &["1|~|~", "2|NA|3.0", "3||1.0"],
    );
    check(&csv(), b"1,x,1\r\n2,y,2\r\n", &["1|x|1.0", "2|y|2.0"]);
    let odd = CopyOptions { quote: Some(b'\''), escape: Some(b'\\'), delimiter: Some(b';'), ..csv() };
    check(&odd, b"1;'a\\'b';2\n", &["1|a'b|2.0"]);
    check(&csv(), b"1,x,1\n\\.\nzz\n", &["1|x|1.0"]);
    check(&csv(), b"1,x, 2.5 \n", &["1|x|2.5"]);
    check(&csv(), b"1,\"a\nb\r\nc\",2", &["1|a\nb\r\nc|2.0"]);
}

#[test]
fn bad_rows_name_the_line_the_column_and_the_value() {
    let column =
        |line: u32, column: &str, value: &str| format!("COPY flights, line {line}, column {column}: \"{value}\"");
    let double = "invalid input syntax for type double precision";
    check_error(&text(), b"1\tx\tabc\n", "22P02", &format!("{double}: \"abc\""), &column(1, "dep_delay", "abc"));
    check_error(
        &csv(),
        b"1,\"a\nb\",2\n2,x,bad\n",
        "22P02",
        &format!("{double}: \"bad\""),
        &column(2, "dep_delay", "bad"),
    );
    check_error(&csv(), b",x,\"\"\n", "22P02", &format!("{double}: \"\""), &column(1, "dep_delay", ""));
    let range = "value \"99999999999\" is out of range for type integer";
    check_error(&csv(), b"99999999999,x,1\n", "22003", range, &column(1, "a", "99999999999"));
    let integer = "invalid input syntax for type integer: \"\"";
    check_error(&text(), b"\n", "22P02", integer, &column(1, "a", ""));

    let missing = "missing data for column \"dep_delay\"";
    let extra = "extra data after last expected column";
    check_error(&text(), b"1\tx\n", "22P04", missing, "COPY flights, line 1: \"1\tx\"");
    check_error(&text(), b"1\tx\t1\t2\n", "22P04", extra, "COPY flights, line 1: \"1\tx\t1\t2\"");
    check_error(&csv(), b"1,x\n", "22P04", missing, "COPY flights, line 1: \"1,x\"");
    check_error(&csv(), b"1,x,1,2\n", "22P04", extra, "COPY flights, line 1: \"1,x,1,2\"");
    let long = format!("1,\"{}\"\n", "x".repeat(120));
    let context = format!("COPY flights, line 1: \"1,\"{}...\"", "x".repeat(97));
    check_error(&csv(), long.as_bytes(), "22P04", missing, &context);

    let unterminated = "unterminated CSV quoted field";
    check_error(&csv(), b"1,\"a\n", "22P04", unterminated, "COPY flights, line 1: \"1,\"a\n\"");
    check_error(&text(), b"1\tx\\.y\t1\n", "22P04", "end-of-copy marker corrupt", "COPY flights, line 1");
    let encoding = "invalid byte sequence for encoding \"UTF8\": 0xff";
    check_error(&text(), b"1\t\xff\t1\n", "22021", encoding, "COPY flights, line 1");
    check_error(&text(), b"1\t\\xff\t1\n", "22021", encoding, "COPY flights, line 1: \"1\t\\xff\t1\"");
    let at_2 = "COPY flights, line 2";
    check_error(&text(), b"1\tx\t1\r\n2\ty\t2\n", "22P04", "literal newline found in data", at_2);
    check_error(&text(), b"1\tx\t1\n2\ty\t2\r\n", "22P04", "literal carriage return found in data", at_2);
    check_error(&csv(), b"1,x,1\r\n2,y,2\n", "22P04", "unquoted newline found in data", at_2);
    check_error(&csv(), b"1,x,1\n2,y,2\r\n", "22P04", "unquoted carriage return found in data", at_2);
}

#[test]
fn binary_rows_are_read_and_bad_ones_refused() {
    let binary = options(CopyFormat::Binary);
    let head = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
    let with = |tail: &[u8]| [head.as_slice(), tail].concat();
    let row = [&b"\0\x03\0\0\0\x04\0\0\0\x07\0\0\0\x01x"[..], b"\xff\xff\xff\xff"].concat();
    check(&binary, &with(&[row.as_slice(), b"\xff\xff"].concat()), &["7|x|~"]);
    check(&binary, &with(&row), &["7|x|~"]);
    check_error(&binary, b"garbage garbage", "22P04", "COPY file signature not recognized", "COPY flights, line 0");
    let count = "row field count is 2, expected 3";
    check_error(&binary, &with(b"\0\x02\0\0\0\x01x"), "22P04", count, "COPY flights, line 1");
    let short = "insufficient data left in message";
    let row = b"\0\x03\0\0\0\x01x\0\0\0\x01x\xff\xff\xff\xff";
    check_error(&binary, &with(row), "08P01", short, "COPY flights, line 1, column a");
    check_error(&binary, &with(b"\0\x03\0\0\0\x04x"), "22P04", "unexpected EOF in COPY data", "COPY flights, line 0");
    let after = "received copy data after EOF marker";
    check_error(&binary, &with(b"\xff\xff\0"), "22P04", after, "COPY flights, line 0");
}

#[test]
fn unlisted_columns_are_null_and_listed_ones_go_where_they_are_named() {
    let mut decoder = CopyDecoder::new("flights", &csv(), schema(), &[2, 0], SessionZone::UTC, 100).expect("decoder");
    let mut batches = decoder.feed(b"1.5,7\n").expect("rows");
    batches.extend(decoder.finish().expect("rows"));
    assert_eq!(batches.iter().flat_map(rows).collect::<Vec<_>>(), ["7|~|1.5"]);
    assert!(batches[0].schema().fields().iter().all(|f| f.is_nullable()));
}

#[test]
fn batches_have_the_asked_size_and_an_error_is_final() {
    let mut decoder = CopyDecoder::new("t", &csv(), schema(), &[0], SessionZone::UTC, 2).expect("decoder");
    let sizes: Vec<usize> = decoder.feed(b"1\n2\n3\n4\n5\n").expect("rows").iter().map(RecordBatch::num_rows).collect();
    assert_eq!(sizes, [2, 2]);
    let error = decoder.feed(b"x\n").expect_err("an error");
    assert_eq!(decoder.feed(b"1\n").as_ref(), Err(&error));
    assert_eq!(decoder.finish(), Err(error));
}

#[test]
fn impossible_options_are_refused() {
    let refused = |options: CopyOptions| {
        CopyDecoder::new("t", &options, schema(), &[0], SessionZone::UTC, 1).err().map(|e| e.sqlstate)
    };
    assert_eq!(refused(CopyOptions { delimiter: Some(b'\n'), ..csv() }), Some("22023"));
    assert_eq!(refused(CopyOptions { delimiter: Some(0xC3), ..csv() }), Some("0A000"));
    assert_eq!(refused(CopyOptions { delimiter: Some(b'"'), ..csv() }), Some("22023"));
    assert_eq!(refused(CopyOptions { delimiter: Some(b'a'), ..text() }), Some("22023"));
    assert_eq!(refused(CopyOptions { null: Some("a,b".into()), ..csv() }), Some("22023"));
    assert_eq!(refused(options(CopyFormat::Parquet)), Some("0A000"));
    assert_eq!(refused(options(CopyFormat::Arrow)), Some("0A000"));
}

fn recorded_batch() -> RecordBatch {
    let b = vec![
        Some("a\tb\\c\nd\re\x08f\x0cg\x0bh"),
        None,
        Some(""),
        Some("a\"b,c"),
        Some("\\."),
        Some("\\N"),
        Some(" x "),
    ];
    let delays = vec![Some(1.5), None, Some(1e20), Some(0.0), Some(1.0), Some(1.0), Some(1.0)];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values(1..=7)),
        Arc::new(StringArray::from(b)),
        Arc::new(Float64Array::from(delays)),
    ];
    RecordBatch::try_new(schema(), columns).expect("batch")
}

fn written(batch: &RecordBatch, options: &CopyOptions) -> Vec<u8> {
    let mut encoder = CopyEncoder::new(&batch.schema(), options, &SessionFormat::default()).expect("encoder");
    let mut out = BytesMut::new();
    encoder.header(&mut out);
    encoder.encode(batch, 0..batch.num_rows(), &mut out);
    encoder.trailer(&mut out);
    out.to_vec()
}

#[test]
fn rows_are_written_as_postgresql_does() {
    let batch = recorded_batch();
    let shown = |options: &CopyOptions, batch: &RecordBatch| String::from_utf8(written(batch, options)).expect("utf-8");
    assert_eq!(
        shown(&text(), &batch),
        "1\ta\\tb\\\\c\\nd\\re\\bf\\fg\\vh\t1.5\n2\t\\N\t\\N\n3\t\t1e+20\n4\ta\"b,c\t0\n5\t\\\\.\t1\n6\t\\\\N\t1\n7\t x \t1\n"
    );
    assert_eq!(
        shown(&CopyOptions { header: true, ..csv() }, &batch),
        "a,b,dep_delay\n1,\"a\tb\\c\nd\re\x08f\x0cg\x0bh\",1.5\n2,,\n3,\"\",1e+20\n4,\"a\"\"b,c\",0\n5,\\.,1\n6,\\N,1\n7, x ,1\n"
    );
    let alone = batch.project(&[1]).expect("column");
    let odd = CopyOptions { null: Some("NA".into()), quote: Some(b'\''), escape: Some(b'\\'), ..csv() };
    assert_eq!(shown(&odd, &alone), "'a\tb\\\\c\nd\re\x08f\x0cg\x0bh'\nNA\n\n'a\"b,c'\n'\\\\.'\n\\N\n x \n");
    assert_eq!(shown(&csv(), &alone.slice(4, 1)), "\"\\.\"\n");
}

#[test]
fn what_is_written_is_read_back() {
    let batch = recorded_batch();
    let expected = rows(&batch);
    for options in [text(), csv(), options(CopyFormat::Binary)] {
        let bytes = written(&batch, &options);
        for chunk in [1, 4, bytes.len()] {
            assert_eq!(read(&options, &bytes, chunk, 3).as_ref(), Ok(&expected), "{:?} by {chunk}", options.format);
        }
    }
}

#[test]
fn messages_carry_one_row_each() {
    let batch = recorded_batch().slice(6, 1);
    let binary = options(CopyFormat::Binary);
    let mut encoder = CopyEncoder::new(&batch.schema(), &binary, &SessionFormat::default()).expect("encoder");
    let mut out = BytesMut::new();
    encoder.header_message(&mut out);
    encoder.encode_messages(&batch, 0..1, &mut out);
    encoder.trailer_message(&mut out);
    let mut rest = &out[..];
    let mut joined = vec![];
    let mut count = 0;
    while let Some((b'd', after)) = rest.split_first() {
        let len = u32::from_be_bytes(after[..4].try_into().expect("length")) as usize;
        joined.extend_from_slice(&after[4..len]);
        rest = &after[len..];
        count += 1;
    }
    // The header comes with the first row.
    assert_eq!((count, joined), (2, written(&batch, &binary)));
}
