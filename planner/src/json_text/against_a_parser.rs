//! Parts of documents (`catalog/src/json`), against a parser.

use proptest::prelude::*;
use serde_json::Value;
use std::borrow::Cow;
use tidemark_catalog::json::Slice;

#[test]
fn values_are_given_as_they_are_written() {
    let document =
        " {\"a\" : 1.10, \"b\":[ {\"c\": \"x\\\"]}\"} ,-2e5,[ ] ], \"\\u0061\": 12345678901234567890123, \"d\":null} ";
    let document = Slice::of(document).expect("it is JSON");
    let field = |name| document.field(name).map(Slice::as_written);
    assert_eq!(field("a"), Some("12345678901234567890123"), "the last of that name");
    assert_eq!(field("b"), Some("[ {\"c\": \"x\\\"]}\"} ,-2e5,[ ] ]"));
    assert_eq!((field("d"), field("e")), (Some("null"), None));
    let array = document.field("b").expect("it is there");
    let item = |place| array.element(place).map(Slice::as_written);
    assert_eq!([item(1), item(2), item(3)], [Some("-2e5"), Some("[ ]"), None]);
    assert_eq!([item(-1), item(-3), item(-4), item(i64::MIN)], [Some("[ ]"), Some("{\"c\": \"x\\\"]}\"}"), None, None]);
    let text = array.element(0).and_then(|item| item.field("c")).expect("it is there").text();
    assert_eq!(text.expect("it is a text").as_deref(), Some("x\"]}"));
    assert_eq!(Slice::of("[]").expect("it is JSON").element(0), None);
    assert_eq!(Slice::of("7").expect("it is JSON").step("0"), None);
    for wrong in ["", "{", "{\"a\" 1}", "[1,]", "nul", "01", "\"\\x\"", "1 2", "event,arrived"] {
        assert!(Slice::of(wrong).is_err(), "{wrong}");
    }
    assert!(Slice::of("\"\\u0000\"").expect("it is JSON").text().is_err());
}

fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a\"\\\\{}\\[\\],: ]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[ab\"\\\\{}]{0,2}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn every_part_of_a_document_is_what_a_parser_finds(document in documents(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) };
        let text = text.expect("it is written");
        let mut left = vec![(Slice::of(&text).expect("it is JSON"), &document)];
        while let Some((slice, value)) = left.pop() {
            prop_assert_eq!(&serde_json::from_str::<Value>(slice.as_written()).expect("it is JSON"), value);
            match value {
                Value::Object(fields) => {
                    for (name, field) in fields {
                        left.push((slice.field(name).expect("it is there"), field));
                    }
                }
                Value::Array(items) => {
                    for (place, item) in items.iter().enumerate() {
                        left.push((slice.element(place as i64).expect("it is there"), item));
                        prop_assert_eq!(slice.element(place as i64), slice.element(place as i64 - items.len() as i64));
                    }
                    prop_assert_eq!(slice.element(items.len() as i64), None);
                }
                Value::Null => prop_assert_eq!(slice.text().expect("a text"), None),
                Value::String(text) => prop_assert_eq!(slice.text().expect("a text"), Some(Cow::Borrowed(text.as_str()))),
                _ => prop_assert_eq!(slice.text().expect("a text"), Some(Cow::Borrowed(slice.as_written()))),
            }
        }
    }
}
