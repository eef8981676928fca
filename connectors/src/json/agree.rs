//! What is read at one go (`row.rs`) is what is read token by token, and what is refused is refused with the same words: on messages of one
//! writer and of several, shuffled, with fields missing, twice or unknown, and broken somewhere.

use super::*;
use proptest::prelude::*;

/// Columns of every type, with values that are read as theirs.
fn columns() -> Vec<(Field, Vec<&'static str>)> {
    use SqlType::*;
    let field = |path: &str, ty: SqlType, epoch: Option<Epoch>, values: &[&'static str]| {
        let path: Vec<String> = path.split('.').map(str::to_string).collect();
        let column = Column { name: path.concat(), ty, not_null: path[0] == "user_id", comment: None };
        (Field { column, path, epoch }, values.to_vec())
    };
    let times = [
        "\"2026-11-01T12:00:00Z\"",
        "\"2026-11-01 12:00:00.123456789\"",
        "\"1969-02-28T23:59:59.5-08:00\"",
        "\"2026-11-01\"",
        "\" 2026-11-01T12:00:00Z \"",
        "\"2026-11-01T12:00:60Z\"",
        "\"2026-11-01T12:00:00+01\"",
        "\"2026-02-29T12:00:00Z\"",
    ];
    let numbers =
        ["1767225600000", "0", "-1.5", "1.5", "1e3", "9223372036854775807", "17672256000001234", "\"17\"", "0.0001"];
    let of_time = [&times[..], &numbers].concat();
    let real = [
        "0",
        "-0",
        "0.1",
        "253.1875",
        "-12.5",
        "1e-7",
        "3.141592653589793",
        "0.30000000000000004",
        "123456789012345678",
        "99999999.99999999",
        "\"NaN\"",
        "1E400",
        "12345678901234567890.5",
        "5",
        "0.0000000000000000000001",
    ];
    vec![
        field(
            "user_id",
            Int8,
            None,
            &[
                "0",
                "-1",
                "77",
                "1234567",
                "12345678",
                "123456789012345",
                "9223372036854775807",
                "-9223372036854775808",
                "9223372036854775808",
                "1.0",
                "1e2",
                "\"5\"",
                "1234567890123456789",
                "12345678901234567",
            ],
        ),
        field("a_rather_long_name_of_a_column", Int4, None, &["1", "-2147483648", "2147483648", "2.0"]),
        field("n2", Int2, None, &["1", "-32768", "32768"]),
        field("price", Float8, None, &real),
        field("score", Float4, None, &real),
        field(
            "cents",
            Numeric { precision: 10, scale: 2 },
            None,
            &[
                "1",
                "12.34",
                "12.345",
                "-12.34",
                "-7",
                "-0.005",
                "99999999.99",
                "100000000",
                "1e3",
                "\"7.5\"",
                "-0",
                "0.1",
            ],
        ),
        field(
            "wide",
            Numeric { precision: 38, scale: 20 },
            None,
            &["1", "123456789.12345678901234567890", "0.00000000000000000001", "-5.5"],
        ),
        field(
            "page",
            Text,
            None,
            &[
                "\"\"",
                "\"a\"",
                "\"/catalog/shoes/17\"",
                "\"1234567\"",
                "\"12345678\"",
                "\"a\\nb\"",
                "\"\\u00e9\"",
                "\"é\"",
                "\"日本語日本語\"",
                "\"\\ud83d\\ude00\"",
                "\"a\\u0000\"",
                "17",
                "1.50",
                "true",
                "{\"b\": [1, 2]}",
                "[\"\\u0000\"]",
            ],
        ),
        field("is_new", Bool, None, &["true", "false", "\"t\"", "1"]),
        field(
            "day",
            Date,
            None,
            &["\"2026-11-01\"", "\"2024-02-29\"", "\"2026-11-1\"", "\"2025-02-29\"", "\"2026-11-01T12:00:00Z\""],
        ),
        field("hour", Time, None, &["\"12:30:00.5\"", "\"25:00\""]),
        field("at_ms", TimestampTz, Some(Epoch::Millis), &of_time),
        field("at_s", Timestamp, Some(Epoch::Seconds), &of_time),
        field("at", TimestampTz, None, &of_time),
        field("blob", Bytea, None, &["\"\\\\x00ff\"", "\"\""]),
        field("tags", Array(Box::new(Text)), None, &["[]", "[\"a\", null]", "[1, {}]", "\"a\""]),
        field("item.price", Float8, None, &real),
        field("item.by.name", Text, None, &["\"ann\"", "\"b\\tb\""]),
        field("größe", Int8, None, &["1", "44"]),
        field("q\"uote", Int8, None, &["1"]),
    ]
}

/// What may stand where a value stands, or should not.
const VALUES: [&str; 24] = [
    "null",
    "null",
    "null",
    "true",
    "{}",
    "{\"price\": 1}",
    "[]",
    "{\"a\": [1, {\"b\": \"}\"}]}",
    "\"text\"",
    "-17",
    "1.5",
    "01",
    "-",
    "1.",
    ".5",
    "+1",
    "tru",
    "\"a",
    "\"\\x\"",
    "\"\\ud800\"",
    "\"\t\"",
    "",
    "nul",
    "NaN",
];

/// One field, as JSON.
fn pair(columns: &[(Field, Vec<&str>)], (column, value, odd): (usize, usize, usize)) -> (String, String) {
    let others = ["other", "id", "user", "", "é", "us\\u0065r_id", "item", "more"];
    let any = VALUES[value % VALUES.len()];
    let Some((field, values)) = columns.get(column) else {
        let name = match column - columns.len() {
            at if at < others.len() => others[at].to_string(),
            at => format!("key_{at}"),
        };
        return (name, if odd == 0 { any } else { ["1", "\"x\"", "12.5", "null", "[1]"][value % 5] }.to_string());
    };
    let value = if odd == 0 { any } else { values[value % values.len()] };
    let name = |name: &str| name.replace('"', "\\\"");
    match &field.path[..] {
        [first] => (name(first), value.to_string()),
        [first, second] => (name(first), format!("{{\"{second}\": {value}}}")),
        [first, second, third] => (name(first), format!("{{\"z\":0,\"{second}\":{{\"{third}\":{value}}}}}")),
        _ => unreachable!("paths of up to three names"),
    }
}

/// Bytes of a message: its fields in a style of writing, and perhaps something else put at a place.
type Broken = Option<(prop::sample::Index, usize, Vec<u8>)>;

fn message(columns: &[(Field, Vec<&str>)], style: usize, fields: &[(usize, usize, usize)], broken: &Broken) -> Vec<u8> {
    let (comma, colon) = [(",", ":"), (", ", ": "), (",\n  ", " : "), (" ,\t", ":\r\n")][style];
    let fields: Vec<String> = fields
        .iter()
        .map(|field| pair(columns, *field))
        .map(|(name, value)| format!("\"{name}\"{colon}{value}"))
        .collect();
    let blank = if style == 2 { "\n" } else { "" };
    let mut bytes = format!("{blank}{{{blank}{}{blank}}}{blank}", fields.join(comma)).into_bytes();
    if let Some((at, length, put)) = broken {
        let at = at.index(bytes.len() + 1);
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, put.iter().copied());
    }
    bytes
}

/// Both readers on the same messages.
fn check(columns: &[(Field, Vec<&str>)], messages: &[Vec<u8>]) -> usize {
    let fields = || columns.iter().map(|(field, _)| field.clone()).collect();
    let (mut quick, mut slow) = (JsonRows::new(fields()).expect("columns"), JsonRows::new(fields()).expect("columns"));
    let mut taken = 0;
    for message in messages {
        let expected = slow.push_tokens(message);
        assert_eq!(quick.push(message), expected, "{}", String::from_utf8_lossy(message));
        taken += usize::from(expected.is_ok());
        assert_eq!(quick.len(), taken);
    }
    let shown = |rows: &mut JsonRows| format!("{:?}", rows.finish().expect("arrays"));
    assert_eq!(
        shown(&mut quick),
        shown(&mut slow),
        "{:?}",
        messages.iter().map(|m| String::from_utf8_lossy(m)).collect::<Vec<_>>()
    );
    taken
}

fn broken() -> impl Strategy<Value = Broken> {
    let put = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..3),
        prop::sample::select(vec!["\"", ",", "}", "{", " ", "\\", "\0", ":", "0", "1e5", ".", "é", "\u{1}"])
            .prop_map(|put| put.as_bytes().to_vec()),
    ];
    prop_oneof![3 => Just(None), 2 => (any::<prop::sample::Index>(), 0usize..4, put).prop_map(Some)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn both_readers_agree_on_any_messages(
        messages in prop::collection::vec((0usize..4, prop::collection::vec((0usize..32, 0usize..40, 0usize..12), 0..9), broken()), 1..9)
    ) {
        let columns = columns();
        let messages: Vec<Vec<u8>> =
            messages.iter().map(|(style, fields, broken)| message(&columns, *style, fields, broken)).collect();
        check(&columns, &messages);
    }

    #[test]
    fn both_readers_agree_on_messages_of_one_writer(
        style in 0usize..4, order in Just((0usize..24).collect::<Vec<_>>()).prop_shuffle(), count in 1usize..24,
        messages in prop::collection::vec((prop::collection::vec((0usize..40, 1usize..20), 24), any::<bool>(), broken()), 1..9)
    ) {
        let columns = columns();
        let messages: Vec<Vec<u8>> = messages.iter().map(|(values, all, broken)| {
            let fields = order[..count].iter().map(|column| (*column, values[*column].0, values[*column].1));
            // Some leave out what they do not have.
            let fields: Vec<_> = fields.filter(|(_, value, _)| *all || value % 4 > 0).collect();
            message(&columns, style, &fields, broken)
        }).collect();
        check(&columns, &messages);
    }
}

#[test]
fn what_is_usual_is_read_at_one_go() {
    let columns = columns();
    let fields: Vec<Field> = columns.iter().map(|(field, _)| field.clone()).collect();
    let mut rows = JsonRows::new(fields).expect("columns");
    let mut reads = |message: &str| {
        let is_read = row::read(message.as_bytes(), &mut rows.expected, &mut rows.columns).is_some();
        if is_read {
            rows.rows += 1;
        } else {
            rows.columns.iter_mut().for_each(|column| column.builder.truncate(rows.rows));
        }
        is_read
    };
    let read = [
        r#"{"user_id":7,"price":1.5,"page":"/catalog","at_ms":1767225600000,"cents":12.34,"day":"2026-11-01","is_new":true}"#,
        r#"{"user_id":8,"page":"a\nb","unknown":"x","at":"2026-11-01T12:00:00Z","item":{"price":2,"by":{"name":"ann"}}}"#,
        r#" { "user_id" : 9 , "page" : null , "tags" : ["a"] , "item" : {} , "hour" : "12:00:00" } "#,
        r#"{"is_new":false,"user_id":1e1,"price":"NaN","more":[{}],"page":"é","größe":17,"item":null}"#,
    ];
    for message in read {
        assert!(reads(message), "{message}");
        assert!(reads(message), "{message} again");
    }
    // What the other reader judges.
    let left = [
        r#"{"user_id":7,"user_id":8}"#,
        r#"{"us\u0065r_id":7}"#,
        r#"{"page":"a"}"#,
        r#"{"user_id":null}"#,
        r#"{"user_id":7}}"#,
        r#"{"user_id":7"#,
        r#"{"user_id":07}"#,
        r#"{"user_id":7,}"#,
        r#"{,"user_id":7}"#,
        "[]",
        "",
        r#"{"user_id":7,"page":"\u0000"}"#,
    ];
    for message in left {
        assert!(!reads(message), "{message}");
    }
    let batch = rows.finish().expect("arrays");
    assert!(batch.iter().all(|column| column.len() == 2 * read.len()), "a half row is left");
}

#[test]
fn a_row_that_fails_in_its_last_column_leaves_nothing_of_the_others() {
    let columns = columns();
    let good =
        br#"{"user_id":1,"page":"one","price":1.5,"is_new":true,"tags":["a"],"blob":"\\x01","item":{"price":null}}"#;
    let bad =
        br#"{"user_id":2,"page":"two","price":null,"is_new":null,"tags":["b"],"blob":"\\x02","item":{"price":"dear"}}"#;
    let messages: Vec<Vec<u8>> =
        [&bad[..], &good[..], &bad[..], &bad[..], &good[..], &bad[..]].iter().map(|m| m.to_vec()).collect();
    assert_eq!(check(&columns, &messages), 2);
}

#[test]
fn what_is_broken_is_refused_also_where_all_before_it_was_as_expected() {
    let columns = columns();
    let good = br#"{"user_id":12,"page":"one","price":1.5,"other":"x","item":{"price":2.5}}"#;
    let broken: [&[u8]; 22] = [
        b"{\"user_id\":012,\"page\":\"one\"}",
        b"{\"user_id\":-,\"page\":\"one\"}",
        b"{\"user_id\":12 3,\"page\":\"one\"}",
        b"{\"user_id\":12]\"page\":\"one\"}",
        b"{\"user_id\":1234567812345678]}",
        b"{\"user_id\":12,\"page\":\"o\xffe\"}",
        b"{\"user_id\":12,\"page\":\"one\xc3\"}",
        b"{\"user_id\":12,\"page\":\"\xed\xa0\x80\"}",
        b"{\"user_id\":12,\"page\":\"o\te\"}",
        b"{\"user_id\":12,\"page\":\"one",
        b"{\"user_id\":12,\"page\":\"one\",\"price\":1.}",
        b"{\"user_id\":12,\"page\":\"one\",\"price\":.5}",
        b"{\"user_id\":12,\"page\":\"one\",\"price\":01.5}",
        b"{\"user_id\":12,\"page\":\"one\",\"price\":1.5.5}",
        b"{\"user_id\":12,\"page\":\"one\",\"price\":1.5,\"other\":\"\xff\"}",
        b"{\"user_id\":12,\"page\":\"one\",\"price\":1.5,\"other\":\"\\q\"}",
        b"{\"user_id\":12,\"page\":\"one\",\"price\":1.5,\"other\":01}",
        b"{\"user_id\":12,\"page\":\"one\",\"price\":1.5,\"oth\xffer\":1}",
        b"{\"user_id\":12,\"page\":\"one\",\"price\":1.5,\"other\":\"x\",\"item\":{\"price\":2.5}",
        b"{\"user_id\":12,\"page\":\"one\",\"price\":1.5,\"other\":\"x\",\"item\":{\"price\":2.5}}\0",
        b"{\"user_id\":12,\"page\":\"one\",\"price\":1.5,\"other\":\"x\",\"item\":{\"price\":2.5,}}",
        b"{\"user_id\":12,\xc2\xa0\"page\":\"one\"}",
    ];
    for broken in broken {
        let messages = [&good[..], &good[..], broken, &good[..]].map(<[u8]>::to_vec);
        assert_eq!(check(&columns, &messages), 3, "{}", String::from_utf8_lossy(broken));
    }
}

#[test]
fn names_that_are_data_are_read_without_end() {
    let columns = columns();
    let messages: Vec<Vec<u8>> = (0..300)
        .map(|i| {
            format!("{{\"key_{i}\":{i},\"user_id\":{i},\"key_{}\":\"x\",\"page\":\"p\"}}", i * 7 % 50).into_bytes()
        })
        .collect();
    assert_eq!(check(&columns, &messages), 300);
}
