//! Fingerprints against the parser: cases by hand, and a cache filled at random that may never differ from it.

use super::*;
use crate::statement::Parsed;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::HashMap;
use tidemark_catalog::{Body, Column, FeatureView, Object, ObjectId, SqlType};

fn view(id: u32, name: &str, key: Vec<usize>) -> Object {
    let column = |(name, ty): (&str, SqlType)| Column { name: name.into(), ty, not_null: false, comment: None };
    let columns = [("k", SqlType::Int8), ("item", SqlType::Text), ("at", SqlType::TimestampTz), ("n", SqlType::Int8)];
    let view = FeatureView {
        sql: String::new(),
        query: String::new(),
        relation: ObjectId(1),
        columns: columns.map(column).into(),
        key,
        time: 2,
        features: vec![],
        ttl_us: None,
        time_zone: "UTC".into(),
        owner: None,
        tags: vec![],
        options: Default::default(),
        version: 1,
        through: vec![],
        history_start_us: None,
        others: vec![],
    };
    Object {
        id: ObjectId(id),
        name: name.into(),
        created_us: 0,
        comment: None,
        place: Default::default(),
        body: Body::FeatureView(view),
    }
}

fn snapshot() -> Snapshot {
    Snapshot::new(1, [view(2, "v", vec![0]), view(3, "pairs", vec![0, 1]), view(4, "items", vec![1])])
}

/// What the parser says.
fn parsed(sql: &str, snapshot: &Snapshot) -> Option<Lookup> {
    match parse(sql).ok()?.as_slice() {
        [only] => match &only.statement {
            Statement::Query(query) => recognise(query, snapshot),
            _ => None,
        },
        _ => None,
    }
}

/// As the server uses it.
#[derive(Default)]
struct Cache(HashMap<Vec<u8>, Option<(Lookup, Template)>>);

impl Cache {
    fn recall(&self, sql: &str) -> Option<Lookup> {
        let fingerprint = Fingerprint::of(sql)?;
        let (lookup, template) = self.0.get(&fingerprint.template)?.as_ref()?;
        Some(Lookup { keys: template.keys(&fingerprint), ..lookup.clone() })
    }

    fn learn(&mut self, sql: &str, snapshot: &Snapshot) {
        let Some(fingerprint) = Fingerprint::of(sql) else { return };
        if self.0.contains_key(&fingerprint.template) {
            return;
        }
        let lookup = parsed(sql, snapshot);
        let Ok(statements) = parse(sql) else { return };
        let [Parsed { statement: Statement::Query(query), .. }] = statements.as_slice() else { return };
        let learnt =
            Template::learn(&fingerprint, query, snapshot).zip(lookup).map(|(template, lookup)| (lookup, template));
        self.0.insert(fingerprint.template.clone(), learnt);
    }
}

#[test]
fn a_fingerprint_is_the_text_without_its_literals() {
    let cases = [
        ("SELECT n FROM v WHERE k = 7", "SELECT n FROM v WHERE k = ①", "7"),
        ("  select n from v where k=-7 ;\n", "select n from v where k=②", "-7"),
        ("SELECT n FROM v WHERE k = 7 - 3", "SELECT n FROM v WHERE k = ① - ①", "7|3"),
        ("SELECT n FROM v WHERE k = 7 -3", "SELECT n FROM v WHERE k = ① -①", "7|3"),
        ("SELECT n2 FROM v1 WHERE \"k 3\" = '4'", "SELECT n2 FROM v1 WHERE \"k 3\" = ③", "4"),
        ("SELECT n FROM v WHERE k IN (1,-2 , '3')", "SELECT n FROM v WHERE k IN (④)", "1|-2|3"),
        ("SELECT n FROM v WHERE k IN (1)", "SELECT n FROM v WHERE k IN (①)", "1"),
        ("SELECT n FROM v WHERE k = ANY (ARRAY[1, 2])", "SELECT n FROM v WHERE k = ANY (ARRAY[④])", "1|2"),
        ("SELECT n FROM v WHERE k = ANY('{1,2}'::bigint[])", "SELECT n FROM v WHERE k = ANY(③::bigint[])", "{1,2}"),
        ("SELECT n FROM v WHERE item = 'a -- /* $ b; é'", "SELECT n FROM v WHERE item = ③", "a -- /* $ b; é"),
        ("SELECT n FROM v WHERE item = ''", "SELECT n FROM v WHERE item = ③", ""),
    ];
    for (sql, template, literals) in cases {
        let fingerprint = Fingerprint::of(sql).unwrap_or_else(|| panic!("{sql}"));
        let shown = String::from_utf8(fingerprint.template.clone()).unwrap();
        let marks = ['①', '②', '③', '④'];
        let shown: String =
            shown.chars().map(|c| marks.get((c as usize).wrapping_sub(1)).copied().unwrap_or(c)).collect();
        assert_eq!(shown, template, "{sql}");
        assert_eq!(fingerprint.values().collect::<Vec<_>>().join("|"), literals, "{sql}");
    }
}

#[test]
fn what_needs_thought_has_no_fingerprint() {
    let texts = [
        "",
        "SELECT n FROM v",
        "INSERT INTO v VALUES (1)",
        "SELECT n FROM v WHERE k = $1",
        "SELECT n FROM v WHERE k = 1; SELECT 2",
        "SELECT n FROM v WHERE k = 1 -- last",
        "SELECT n /* all */ FROM v WHERE k = 1",
        "SELECT n FROM v WHERE k = --1\n2",
        "SELECT n FROM v WHERE k = 1.5",
        "SELECT n FROM v WHERE k = .5",
        "SELECT n FROM v WHERE k = 1e3",
        "SELECT n FROM v WHERE k = 1_000",
        "SELECT n FROM v WHERE k = 0x1F",
        "SELECT n FROM v WHERE item = 'it''s'",
        "SELECT n FROM v WHERE item = 'a\\'",
        "SELECT n FROM v WHERE item = E'a'",
        "SELECT n FROM v WHERE item = U&'a'",
        "SELECT n FROM v WHERE item = $$a$$",
        "SELECT n FROM v WHERE item = 'a",
        "SELECT n FROM v WHERE item = 'a\0'",
        "SELECT n FROM v WHERE k = \u{1}",
    ];
    for sql in texts {
        assert!(Fingerprint::of(sql).is_none(), "{sql}");
    }
}

#[test]
fn only_lookups_whose_keys_are_their_literals_are_learnt() {
    let snapshot = snapshot();
    let learnt = |sql: &str| {
        let mut cache = Cache::default();
        cache.learn(sql, &snapshot);
        cache.recall(sql).is_some()
    };
    let yes = [
        "SELECT n FROM v WHERE k = 1",
        "SELECT n FROM v WHERE 1 = k",
        "SELECT * FROM v WHERE k=-1",
        "SELECT x.n AS m FROM public.v AS x WHERE x.k IN (1, 2)",
        "SELECT n FROM v WHERE k = ANY (ARRAY[1, 2])",
        "SELECT n FROM v WHERE k = ANY ('{1,2}')",
        "SELECT n FROM pairs WHERE item = 'a' AND k = 1",
        "SELECT n FROM pairs WHERE (k = 1) AND ('b' = item)",
    ];
    let no = [
        "SELECT n FROM v WHERE k = +1",
        "SELECT n FROM v WHERE k = 1 LIMIT 1",
        "SELECT n, 1 FROM v WHERE k = 1",
        "SELECT n FROM v WHERE k = 1::bigint",
        "SELECT n FROM v WHERE k = - 1",
        "SELECT n FROM v WHERE -1 = k",
        "SELECT n FROM v WHERE k = 1 -1",
        "SELECT n FROM v WHERE k = 1 AND n = 2",
        "SELECT n FROM v WHERE k = (1, 2)",
        "SELECT n FROM v WHERE n = 1",
        "SELECT n AS 'x' FROM v WHERE k = 1",
        "SELECT n FROM pairs WHERE k = 1",
        "SELECT n FROM nothing WHERE k = 1",
    ];
    for sql in yes {
        assert!(learnt(sql), "{sql}");
    }
    for sql in no {
        assert!(!learnt(sql), "{sql}");
    }
}

fn literal() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => any::<i64>().prop_map(|n| n.to_string()),
        2 => (0..10u8).prop_map(|n| n.to_string()),
        1 => "-?[0-9]{1,30}",
        4 => "'[a-z0-9 ;,$()\\[\\]={}\"é\n-]{0,8}'",
        1 => "'[a-z'\\\\]{0,5}'",
        1 => select(vec!["1.5", "-1e3", ".5", "1_000", "0x1F", "- 1", "+1", "--1", "E'a'", "$$a$$", "NULL", "true",
            "'a' 'b'", "'a'\n'b'", "1::bigint", "DATE '2026-01-01'", "k", "/* 1 */ 2", "2 -- x\n", "(1)", "-(1)"]).prop_map(str::to_string),
    ]
}

fn statement() -> impl Strategy<Value = String> {
    let shapes = vec![
        "SELECT n FROM v WHERE k = ?",
        "SELECT n FROM v WHERE k =?",
        "SELECT n FROM v WHERE ? = k ;",
        "SELECT * FROM v WHERE k IN (?)",
        "SELECT * FROM v WHERE k IN (?, ?)",
        "SELECT * FROM v WHERE k IN (?,?,? , ?)",
        "SELECT n FROM v WHERE k = ANY (ARRAY[?, ?])",
        "SELECT n FROM v WHERE k = ANY(?)",
        "SELECT n FROM items WHERE item = ?",
        "SELECT n, at AS a FROM pairs p WHERE p.item = ? AND p.k = ?",
        "SELECT n FROM pairs WHERE k = ? AND item = ?",
        "SELECT n FROM pairs WHERE k = ? AND k = ?",
        "SELECT n AS ? FROM v WHERE k = ?",
        "SELECT n, ? FROM v WHERE k = ?",
        "SELECT n FROM v WHERE k = ? LIMIT ?",
        "SELECT n FROM v WHERE k = ?; SELECT ?",
        "SELECT \"n\" FROM \"v\" WHERE \"k\" = ?",
        "SELECT n FROM v WHERE k = ??",
    ];
    (select(shapes), proptest::collection::vec(literal(), 4)).prop_map(|(shape, literals)| {
        let mut literals = literals.into_iter();
        shape.chars().map(|c| if c == '?' { literals.next().unwrap_or_default() } else { c.to_string() }).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// However the cache was filled, what it recalls is what the parser says.
    #[test]
    fn a_recalled_lookup_is_the_one_that_parsing_finds(statements in proptest::collection::vec(statement(), 1..12)) {
        let snapshot = snapshot();
        let mut cache = Cache::default();
        for sql in &statements {
            let truth = parsed(sql, &snapshot);
            if let Some(recalled) = cache.recall(sql) {
                prop_assert_eq!(Some(recalled), truth, "{}", sql);
            }
            cache.learn(sql, &snapshot);
        }
    }
}
