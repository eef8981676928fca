//! Single values: text in, text out, binary both ways.

use super::{
    hex,
    recorded::{FLOAT4, FLOAT8, NUMERIC_5_2, RECORDED, Recorded},
    session, shown, shown_text, unhex,
};
use crate::wire::{
    FieldFormat, SessionFormat, SessionZone, WireError, decode_param,
    number::{write_float4, write_float8, write_numeric_text},
    parse_text::{parse_decimal128, parse_time, parse_timestamp},
    types::{self, PG_TYPE, by_name, oid, pg_type},
};
use arrow::{array::*, buffer::OffsetBuffer, datatypes::*};
use bytes::BytesMut;
use datafusion::common::ScalarValue;
use std::sync::Arc;

fn matches_error(error: &WireError, recorded: (&str, &str, &str, &str)) -> bool {
    let (sqlstate, message, detail, hint) = recorded;
    error.sqlstate == sqlstate
        && error.message == message
        && error.detail.as_deref().unwrap_or("") == detail
        && error.hint.as_deref().unwrap_or("") == hint
}

/// Where we differ on purpose.
fn deviates(ty: u32, input: &str) -> bool {
    // A decimal has no NaN; PostgreSQL's timestamps reach further back; `-0` of an oid and the like are not here.
    matches!((ty, input), (oid::NUMERIC, "NaN"))
}

#[test]
fn values_are_read_and_shown_as_postgresql_does() {
    let mut wrong = vec![];
    for (ty, zone, input, expected) in RECORDED {
        if deviates(*ty, input) {
            continue;
        }
        let session = session(zone);
        let got = decode_param(*ty, FieldFormat::Text, Some(input.as_bytes()), &session.time_zone);
        match (got, expected) {
            (Ok(value), Recorded::Ok(text, binary)) => {
                let array = value.to_array().expect("array");
                let field = |array: &ArrayRef| {
                    let mut field = Field::new("c", array.data_type().clone(), true);
                    if *ty == oid::OID {
                        field = field.with_metadata([(PG_TYPE.to_owned(), "oid".to_owned())].into());
                    }
                    field
                };
                let as_text = shown(field(&array), array.clone(), FieldFormat::Text, &session).expect("text");
                let as_text = String::from_utf8(as_text).expect("utf-8");
                if as_text != *text {
                    wrong.push(format!("{ty} {input:?} in {zone}: text {as_text:?}, PostgreSQL {text:?}"));
                }
                let as_binary = hex(&shown(field(&array), array, FieldFormat::Binary, &session).expect("binary"));
                if as_binary != *binary {
                    wrong.push(format!("{ty} {input:?} in {zone}: binary {as_binary}, PostgreSQL {binary}"));
                }
                let back = decode_param(*ty, FieldFormat::Binary, Some(&unhex(binary)), &session.time_zone);
                if back.as_ref() != Ok(&value) {
                    wrong.push(format!("{ty} {input:?} in {zone}: from binary {back:?}, from text {value:?}"));
                }
            }
            (Err(error), Recorded::Err(sqlstate, message, detail, hint)) => {
                if !matches_error(&error, (sqlstate, message, detail, hint)) {
                    wrong.push(format!(
                        "{ty} {input:?} in {zone}: {error:?}, PostgreSQL {sqlstate} {message} ({detail}) ({hint})"
                    ));
                }
            }
            (Ok(value), Recorded::Err(_, message, _, _)) => {
                wrong.push(format!("{ty} {input:?} in {zone}: accepted as {value:?}, PostgreSQL: {message}"))
            }
            (Err(error), Recorded::Ok(text, _)) => {
                wrong.push(format!("{ty} {input:?} in {zone}: refused ({error}), PostgreSQL {text:?}"))
            }
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_declared_numeric_rounds_and_overflows_as_postgresql_does() {
    for (input, expected) in NUMERIC_5_2 {
        match (parse_decimal128(input, 5, 2), expected) {
            (Ok(value), Recorded::Ok(text, _)) => {
                let mut out = BytesMut::new();
                write_numeric_text(value.to_string().as_bytes(), 2, &mut out);
                assert_eq!(std::str::from_utf8(&out), Ok(*text), "{input}");
            }
            (Err(error), Recorded::Err(sqlstate, message, detail, hint)) => {
                assert!(matches_error(&error, (sqlstate, message, detail, hint)), "{input}: {error:?}");
            }
            (got, _) => panic!("{input}: {got:?}"),
        }
    }
    assert_eq!(parse_decimal128("nan", 5, 2).map_err(|e| e.sqlstate), Err("22003"));
}

#[test]
fn floats_have_the_shortest_digits_that_postgresql_prints() {
    for (bits, text) in FLOAT8 {
        let mut out = BytesMut::new();
        write_float8(f64::from_bits(*bits), 1, &mut out);
        assert_eq!(std::str::from_utf8(&out), Ok(*text), "{bits:x}");
    }
    for (bits, text) in FLOAT4 {
        let mut out = BytesMut::new();
        write_float4(f32::from_bits(*bits), 1, &mut out);
        assert_eq!(std::str::from_utf8(&out), Ok(*text), "{bits:x}");
    }
}

#[test]
fn extra_float_digits_of_zero_and_below_give_significant_digits() {
    let float8 = |v: f64, digits: i32| {
        let mut out = BytesMut::new();
        write_float8(v, digits, &mut out);
        String::from_utf8(out.to_vec()).expect("utf-8")
    };
    let float4 = |v: f32, digits: i32| {
        let mut out = BytesMut::new();
        write_float4(v, digits, &mut out);
        String::from_utf8(out.to_vec()).expect("utf-8")
    };
    for (value, expected) in [
        (1e20, "1e+20"),
        (0.1, "0.1"),
        (0.3, "0.3"),
        (123456789012345678.0, "1.23456789012346e+17"),
        (1e15, "1e+15"),
        (1e14, "100000000000000"),
        (0.00001, "1e-05"),
        (100.0, "100"),
    ] {
        assert_eq!(float8(value, 0), expected);
    }
    assert_eq!(float8(123456789.1234567, -3), "123456789.123");
    assert_eq!(float4(1234567.0, 0), "1.23457e+06");
    assert_eq!(float4(123456.0, 0), "123456");
    assert_eq!(float8(0.5, -15), "0.5");
}

#[test]
fn digits_beyond_microseconds_are_cut() {
    assert_eq!(parse_time("10:20:30.1234567"), parse_time("10:20:30.123456"));
    assert_eq!(parse_time("23:59:59.9999999"), parse_time("23:59:59.999999"));
    assert_eq!(parse_timestamp("1969-12-31 23:59:59.9999999"), Ok(-1));
}

#[test]
fn words_that_need_a_clock_are_refused() {
    for word in ["now", "today", "TOMORROW", "yesterday"] {
        assert_eq!(parse_timestamp(word).map_err(|e| e.sqlstate), Err("22007"));
    }
}

#[test]
fn every_arrow_relative_of_a_type_is_shown_alike() {
    let cases: Vec<(ArrayRef, &str)> = vec![
        (Arc::new(Int8Array::from(vec![-7])), "-7"),
        (Arc::new(UInt8Array::from(vec![200])), "200"),
        (Arc::new(UInt16Array::from(vec![60000])), "60000"),
        (Arc::new(UInt32Array::from(vec![4_000_000_000])), "4000000000"),
        (Arc::new(UInt64Array::from(vec![u64::MAX])), "18446744073709551615"),
        (Arc::new(LargeStringArray::from(vec!["x y"])), "x y"),
        (Arc::new(StringViewArray::from(vec!["a view"])), "a view"),
        (Arc::new(DictionaryArray::<Int32Type>::from_iter(["JFK"])), "JFK"),
        (Arc::new(LargeBinaryArray::from(vec![&b"\x00\xff"[..]])), "\\x00ff"),
        (Arc::new(Date64Array::from(vec![-1])), "1969-12-31"),
        (Arc::new(Time32SecondArray::from(vec![3723])), "01:02:03"),
        (Arc::new(TimestampSecondArray::from(vec![0])), "1970-01-01 00:00:00"),
        (Arc::new(TimestampMillisecondArray::from(vec![-1])), "1969-12-31 23:59:59.999"),
        (Arc::new(TimestampNanosecondArray::from(vec![-1])), "1969-12-31 23:59:59.999999"),
        (Arc::new(DurationMicrosecondArray::from(vec![93_600_000_000])), "1 day 02:00:00"),
        (Arc::new(DurationMicrosecondArray::from(vec![-93_600_500_000])), "-1 days -02:00:00.5"),
        (Arc::new(DurationSecondArray::from(vec![0])), "00:00:00"),
        (Arc::new(IntervalYearMonthArray::from(vec![14])), "1 year 2 mons"),
        (Arc::new(Decimal128Array::from(vec![-150]).with_precision_and_scale(5, 2).expect("decimal")), "-1.50"),
        (
            Arc::new(
                Decimal256Array::from(vec![arrow::datatypes::i256::MAX])
                    .with_precision_and_scale(76, 70)
                    .expect("decimal"),
            ),
            "5789604.4618658097711785492504343953926634992332820282019728792003956564819967",
        ),
        (Arc::new(Decimal128Array::from(vec![5]).with_precision_and_scale(5, -2).expect("decimal")), "500"),
    ];
    for (array, text) in cases {
        assert_eq!(shown_text(array.clone()), text, "{}", array.data_type());
    }
    let null: ArrayRef = Arc::new(NullArray::new(1));
    let field = Field::new("c", DataType::Null, true);
    assert_eq!(shown(field, null, FieldFormat::Text, &SessionFormat::default()), None);
    let dictionary = DictionaryArray::new(Int8Array::from(vec![0]), Arc::new(StringArray::from(vec![None::<&str>])));
    let field = Field::new("c", dictionary.data_type().clone(), true);
    assert_eq!(shown(field, Arc::new(dictionary), FieldFormat::Binary, &SessionFormat::default()), None);
}

#[test]
fn unsigned_bigints_are_numerics_in_binary() {
    let array: ArrayRef = Arc::new(UInt64Array::from(vec![123456789]));
    let field = Field::new("c", DataType::UInt64, true);
    let bytes = shown(field, array, FieldFormat::Binary, &SessionFormat::default()).expect("bytes");
    assert_eq!(hex(&bytes), "0003000200000000000109291a85");
}

#[test]
fn arrays_are_quoted_where_a_reader_would_misread_them() {
    let strings = vec![
        Some("a"),
        Some("b c"),
        Some("d\"e"),
        Some(""),
        None,
        Some("NULL"),
        Some("f,g"),
        Some("x\\y"),
        Some("{z}"),
        Some("null"),
        Some("tab\there"),
        Some("nl\n"),
        Some("é"),
    ];
    let expected =
        "{a,\"b c\",\"d\\\"e\",\"\",NULL,\"NULL\",\"f,g\",\"x\\\\y\",\"{z}\",\"null\",\"tab\there\",\"nl\n\",é}";
    let list = |values: ArrayRef| -> ArrayRef {
        let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths([values.len()]);
        Arc::new(ListArray::new(field, offsets, values, None))
    };
    assert_eq!(shown_text(list(Arc::new(StringArray::from(strings)))), expected);
    let decimals =
        Decimal128Array::from(vec![Some(150), None, Some(-5)]).with_precision_and_scale(9, 2).expect("decimal");
    assert_eq!(shown_text(list(Arc::new(decimals))), "{1.50,NULL,-0.05}");
    let empty = list(Arc::new(Int32Array::from(Vec::<i32>::new())));
    assert_eq!(shown_text(empty.clone()), "{}");
    let field = Field::new("c", empty.data_type().clone(), true);
    let bytes = shown(field, empty, FieldFormat::Binary, &SessionFormat::default()).expect("bytes");
    assert_eq!(hex(&bytes), "000000000000000000000017");
}

#[test]
fn types_without_a_counterpart_are_shown_as_json() {
    let inner: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    let name: ArrayRef = Arc::new(StringArray::from(vec!["a\"b"]));
    let array = StructArray::from(vec![
        (Arc::new(Field::new("n", DataType::Int32, true)), inner),
        (Arc::new(Field::new("s", DataType::Utf8, true)), name),
    ]);
    assert_eq!(pg_type(array.data_type()).oid, oid::TEXT);
    assert_eq!(shown_text(Arc::new(array)), "{\"n\":1,\"s\":\"a\\\"b\"}");
    let nested = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1), None]), None]);
    let field = Arc::new(Field::new_list_field(nested.data_type().clone(), true));
    let outer = ListArray::new(field, OffsetBuffer::from_lengths([2]), Arc::new(nested), None);
    assert_eq!(shown_text(Arc::new(outer)), "[[1,null],null]");
}

#[test]
fn a_field_may_name_the_type_it_is_shown_as() {
    let named = |data_type: DataType, name: &str| {
        Field::new("c", data_type, true).with_metadata([(PG_TYPE.to_owned(), name.to_owned())].into())
    };
    let typed = |field: &Field| types::pg_type_of_field(field);
    assert_eq!(typed(&named(DataType::Int32, "oid")).oid, oid::OID);
    assert_eq!(typed(&named(DataType::Utf8, "name")).typlen, 64);
    assert_eq!(typed(&named(DataType::Utf8, "varchar(10)")).typmod, 14);
    assert_eq!(typed(&named(DataType::Utf8, "no such type")).oid, oid::TEXT);
    // A bigint column shown as oid has four bytes in binary.
    let session = SessionFormat::default();
    let bytes =
        shown(named(DataType::Int64, "oid"), Arc::new(Int64Array::from(vec![16384])), FieldFormat::Binary, &session);
    assert_eq!(bytes, Some(vec![0, 0, 0x40, 0]));
    let vector = ListArray::from_iter_primitive::<Int16Type, _, _>(vec![Some(vec![Some(1), Some(3)])]);
    let field = named(vector.data_type().clone(), "int2vector");
    assert_eq!(shown(field, Arc::new(vector), FieldFormat::Text, &session), Some(b"1 3".to_vec()));
    let oids = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(5)])]);
    let field = named(oids.data_type().clone(), "_oid");
    let bytes = shown(field, Arc::new(oids), FieldFormat::Binary, &session).expect("bytes");
    assert_eq!(hex(&bytes), "00000001000000000000001a00000001000000010000000400000005");
}

#[test]
fn names_and_oids_agree_in_both_directions() {
    for entry in types::TYPES {
        assert_eq!(by_name(entry.name).map(|t| t.oid), Some(entry.oid), "{}", entry.name);
        assert_eq!(by_name(entry.display).map(|t| t.oid), Some(entry.oid), "{}", entry.display);
        if let Some(array) = types::array_oid(entry.oid) {
            assert_eq!(types::element_oid(array), Some(entry.oid));
            assert_eq!(types::type_name(array), format!("{}[]", entry.display));
        }
        if let Some(data_type) = types::arrow_type(entry.oid) {
            assert!(decode_param(entry.oid, FieldFormat::Binary, None, &SessionZone::UTC).is_ok(), "{data_type}");
        }
    }
    assert_eq!(pg_type(&DataType::Decimal128(10, 2)).typmod, 655366);
    assert_eq!(by_name("numeric(10,2)").map(|t| t.typmod), Some(655366));
}

#[test]
fn parameters_of_unknown_type_are_text_and_unsupported_ones_are_refused() {
    let utc = SessionZone::UTC;
    let text = decode_param(0, FieldFormat::Text, Some(b"abc"), &utc);
    assert_eq!(text, Ok(ScalarValue::Utf8(Some("abc".into()))));
    assert_eq!(decode_param(oid::UNKNOWN, FieldFormat::Binary, None, &utc), Ok(ScalarValue::Utf8(None)));
    let state = |oid: u32, format: FieldFormat, bytes: &[u8]| {
        decode_param(oid, format, Some(bytes), &utc).map_err(|e| e.sqlstate).map(|_| ())
    };
    assert_eq!(state(600, FieldFormat::Text, b"(1,2)"), Err("0A000"));
    assert_eq!(state(oid::INT4, FieldFormat::Binary, &[0, 1]), Err("08P01"));
    assert_eq!(state(oid::INT4, FieldFormat::Binary, &[0; 5]), Err("22P03"));
    assert_eq!(state(oid::TEXT, FieldFormat::Binary, &[0xff]), Err("22021"));
    assert_eq!(state(oid::TEXT, FieldFormat::Text, b"a\0b"), Err("22021"));
    assert_eq!(state(1007, FieldFormat::Text, b"{{1},{2}}"), Err("0A000"));
    let of_text = unhex("00000001000000000000001900000001000000010000000161");
    assert_eq!(state(1007, FieldFormat::Binary, &of_text), Err("42804"));
}

#[test]
fn a_uuid_is_a_text_of_one_spelling_and_sixteen_bytes() {
    let session = SessionFormat::default();
    let held = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    let bytes = unhex("a0eebc999c0b4ef8bb6d6bb9bd380a11");
    let read = |oid: u32, format: FieldFormat, bytes: &[u8]| {
        let value = decode_param(oid, format, Some(bytes), &session.time_zone).map_err(|e| e.sqlstate)?;
        Ok::<String, &str>(shown_text(value.to_array().expect("array")))
    };
    assert_eq!(read(oid::UUID, FieldFormat::Binary, &bytes).as_deref(), Ok(held));
    // Who has declared a text sends one.
    assert_eq!(read(oid::UUID, FieldFormat::Binary, held.to_uppercase().as_bytes()).as_deref(), Ok(held));
    assert_eq!(read(oid::UUID, FieldFormat::Text, format!("{{{held}}}").as_bytes()).as_deref(), Ok(held));
    assert_eq!(read(oid::UUID, FieldFormat::Text, b"a0eebc99"), Err("22P02"));
    assert_eq!(read(oid::UUID, FieldFormat::Binary, &bytes[1..]), Err("22021"));
    let upper = format!("{{{},NULL}}", held.to_uppercase());
    let shown_array = format!("{{{held},NULL}}");
    assert_eq!(read(2951, FieldFormat::Text, upper.as_bytes()), Ok(shown_array));
    let array = unhex(&format!("0000000100000000{:08x}000000010000000100000010{}", oid::UUID, hex(&bytes)));
    assert_eq!(read(2951, FieldFormat::Binary, &array), Ok(format!("{{{held}}}")));
    // Sent to where texts are wanted, each is the text.
    assert_eq!(read(1009, FieldFormat::Binary, &array), Ok(format!("{{{held}}}")));

    let column: ArrayRef = Arc::new(StringArray::from(vec![held]));
    let field = Field::new("c", DataType::Utf8, true);
    let field = field.with_metadata([(PG_TYPE.to_owned(), "uuid".to_owned())].into());
    assert_eq!(shown(field.clone(), column.clone(), FieldFormat::Binary, &session), Some(bytes));
    assert_eq!(shown(field, column, FieldFormat::Text, &session), Some(held.as_bytes().to_vec()));
}

#[test]
fn the_integers_of_an_array_may_have_another_width() {
    let utc = SessionZone::UTC;
    let array = |element: u32, items: &[&str]| {
        let items: String = items.iter().map(|item| format!("{:08x}{item}", item.len() / 2)).collect();
        let count = if items.is_empty() { 0 } else { 1 };
        unhex(&format!("{count:08x}00000000{element:08x}0000000100000001{items}"))
    };
    let ints = |oid: u32, bytes: &[u8]| {
        let value = decode_param(oid, FieldFormat::Binary, Some(bytes), &utc).map_err(|e| e.sqlstate)?;
        Ok::<String, &str>(shown_text(value.to_array().expect("array")))
    };
    let cases = [
        // As OIDs they have no sign, as integers they do.
        (1028, array(oid::OID, &["fffffffe"]), Ok("{4294967294}")),
        (1016, array(oid::OID, &["00004000"]), Ok("{16384}")),
        (1016, array(oid::INT4, &["fffffffe"]), Ok("{-2}")),
        (1016, array(oid::INT2, &["fffe"]), Ok("{-2}")),
        (1016, array(oid::INT8, &["fffffffffffffffe"]), Ok("{-2}")),
        (1007, array(oid::INT8, &["0000000000000007"]), Ok("{7}")),
        (1005, array(oid::INT4, &["00010000"]), Err("22003")),
        // Each has the length of the type that the array says.
        (1016, array(oid::INT8, &["fffffffe"]), Err("08P01")),
        (1016, array(oid::INT4, &["0000000000000007"]), Err("22P03")),
        (1016, array(oid::BOOL, &["01"]), Err("42804")),
        (1009, array(oid::VARCHAR, &["61"]), Ok("{a}")),
    ];
    for (oid, bytes, expected) in cases {
        assert_eq!(ints(oid, &bytes), expected.map(str::to_owned), "{oid}: {}", hex(&bytes));
    }
}
