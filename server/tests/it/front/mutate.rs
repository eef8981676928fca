//! Statements that nobody would write, made from those that somebody did.

/// SplitMix64: the same numbers from the same seed, everywhere.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Words, numbers, quoted texts, white space and marks: together they are the text.
pub fn tokens(sql: &str) -> Vec<String> {
    let mut tokens = vec![];
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let until = |fits: fn(char) -> bool| rest.find(|c| !fits(c)).unwrap_or(rest.len());
        let length = match first {
            '\'' | '"' => rest[1..].find(first).map_or(rest.len(), |end| end + 2),
            c if c.is_alphanumeric() || c == '_' => until(|c| c.is_alphanumeric() || c == '_' || c == '.'),
            c if c.is_whitespace() => until(char::is_whitespace),
            c => {
                match ["::", "->>", "->", "#>>", "#>", "||", "<=", ">=", "<>"].iter().find(|m| rest.starts_with(**m)) {
                    Some(mark) => mark.len(),
                    None => c.len_utf8(),
                }
            }
        };
        tokens.push(rest[..length].to_string());
        rest = &rest[length..];
    }
    tokens
}

/// What stands where nobody expects it.
const ODD: &[&str] = &[
    "NULL",
    "''",
    "'",
    "\"",
    "\"\"",
    "-1",
    "0",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "1e400",
    "1e-400",
    "0.1e",
    ".",
    "..",
    "1.",
    "NaN",
    "'NaN'",
    "'infinity'",
    "'-infinity'",
    "true",
    "$1",
    "$0",
    "$65536",
    "$99999999999",
    "*",
    "t.*",
    "(",
    ")",
    "()",
    "(NULL)",
    "[",
    "]",
    "[1]",
    "[-1]",
    "[1:2]",
    "{",
    "}",
    ",",
    ";",
    "::",
    "::int",
    "::json",
    "::jsonb",
    "::text[]",
    "::numeric(38,38)",
    "::numeric(1,0)",
    "::interval",
    "::timestamptz",
    "::regclass",
    "::bytea",
    "::date",
    "::nothing",
    "-",
    "+",
    "/ 0",
    "%",
    "^",
    "||",
    "->",
    "->>",
    "#>>",
    "?",
    "?|",
    "@>",
    "~",
    "!~*",
    "LIKE",
    "ILIKE '\\'",
    "IN ()",
    "IN (1)",
    "= ANY",
    "= ANY ($1)",
    "IS",
    "IS NOT DISTINCT FROM",
    "BETWEEN",
    "AND",
    "OR",
    "NOT",
    "CASE",
    "END",
    "WHEN",
    "EXISTS",
    "(SELECT 1)",
    "(SELECT)",
    "ARRAY[]",
    "ARRAY[NULL]",
    "ARRAY[1, 'a']",
    "ROW(1)",
    "INTERVAL '1 month'",
    "INTERVAL '-1 day'",
    "INTERVAL '178000000 years'",
    "TIMESTAMPTZ '9999-12-31 23:59:59+00'",
    "TIMESTAMPTZ '-4713-01-01'",
    "DATE '0001-01-01 BC'",
    "FILTER (WHERE true)",
    "FILTER (WHERE NULL)",
    "OVER ()",
    "OVER w",
    "OVER (ORDER BY 1)",
    "OVER (PARTITION BY 1 ORDER BY 1 ROWS 0 PRECEDING)",
    "RANGE 1 PRECEDING",
    "RANGE INTERVAL '1 day' PRECEDING",
    "ROWS 18446744073709551615 PRECEDING",
    "ROWS -1 PRECEDING",
    "GROUPS 1 PRECEDING",
    "UNBOUNDED FOLLOWING",
    "EXCLUDE TIES",
    "DISTINCT",
    "DISTINCT ON (1)",
    "ALL",
    "WITHIN GROUP (ORDER BY 1)",
    "IGNORE NULLS",
    "GROUP BY 1",
    "GROUP BY ()",
    "GROUP BY ROLLUP (1)",
    "HAVING true",
    "ORDER BY 99",
    "ORDER BY NULL",
    "LIMIT -1",
    "LIMIT NULL",
    "LIMIT ALL",
    "OFFSET 1e9",
    "FETCH FIRST 1 ROW ONLY",
    "UNION",
    "UNION ALL SELECT 1",
    "EXCEPT SELECT NULL",
    "INTERSECT",
    "WITH",
    "WITH RECURSIVE r AS (SELECT 1 UNION ALL SELECT * FROM r) ",
    "LATERAL",
    "ASOF",
    "ASOF LEFT JOIN",
    "MATCH_CONDITION (1 >= 1)",
    "FOR SYSTEM_TIME AS OF now()",
    "FOR SYSTEM_TIME AS OF NULL",
    "FOR SYSTEM_TIME AS OF $1",
    "FOR UPDATE",
    "TABLESAMPLE SYSTEM (1)",
    "JOIN",
    "NATURAL JOIN",
    "CROSS JOIN",
    "FULL JOIN",
    "USING (k)",
    "ON true",
    "WINDOW w AS ()",
    "WINDOW w AS (w)",
    "AT TIME ZONE 'Mars'",
    "AT TIME ZONE interval '1 h'",
    "COLLATE \"C\"",
    "AS",
    "AS \"\"",
    "AS é",
    "AS t (a, b)",
    "AS \"A b\"",
    "now()",
    "current_date",
    "random()",
    "count(*)",
    "count(DISTINCT *)",
    "sum(1)",
    "sum('a')",
    "sum(sum(1))",
    "max(NULL)",
    "min(ARRAY[1])",
    "rate(*)",
    "lag(1, -1)",
    "lag(1, 1, 1)",
    "nth_value(1, 0)",
    "percentile_cont(1, 2)",
    "top_k(1, 99999)",
    "decay_sum(1, INTERVAL '0')",
    "string_agg('a')",
    "generate_series(1, 3)",
    "generate_series(1, 2, 0)",
    "coalesce()",
    "nullif(1)",
    "greatest()",
    "extract(epoch FROM 1)",
    "extract(nothing FROM now())",
    "substring('a' FROM -1 FOR -1)",
    "position('' IN NULL)",
    "to_char(1, '')",
    "to_timestamp('', '')",
    "date_trunc('', now())",
    "json_extract_path('{', 'a')",
    "json_array_length('{}')",
    "window_start()",
    "TUMBLE(1, 1)",
    "HOP(now(), INTERVAL '0', INTERVAL '0')",
    "SESSION(at, NULL)",
    "unnest(ARRAY[1])",
    "(1, 2)",
    "é",
    "漢字",
    "\u{202e}",
    "\u{0}",
    "--",
    "/*",
    "*/",
    "/* /* */",
    "$$",
    "$a$ $a$",
    "E'\\xZZ'",
    "E'\\u0000'",
    "U&'\\+110000'",
    "B'2'",
    "X'G'",
    "1_000",
    "0x1F",
    "0b2",
];

/// A statement made of `sql` by a few changes; `others` are what pieces may come from.
pub fn mutated(sql: &str, other: &str, chance: &mut Chance) -> String {
    let mut tokens = tokens(sql);
    let others = self::tokens(other);
    for _ in 0..1 + chance.below(4) {
        change(&mut tokens, &others, chance);
    }
    tokens.concat()
}

fn change(tokens: &mut Vec<String>, others: &[String], chance: &mut Chance) {
    if tokens.is_empty() {
        tokens.push(chance.pick(ODD).to_string());
    }
    let at = chance.below(tokens.len());
    match chance.below(20) {
        0..=2 => drop(tokens.remove(at)),
        3 => {
            let end = (at + 1 + chance.below(6)).min(tokens.len());
            tokens.drain(at..end);
        }
        4 => tokens.insert(at, tokens[at].clone()),
        5 => {
            let end = (at + 1 + chance.below(12)).min(tokens.len());
            let copied = tokens[at..end].to_vec();
            let to = chance.below(tokens.len());
            tokens.splice(to..to, copied);
        }
        6 => {
            let other = chance.below(tokens.len());
            tokens.swap(at, other);
        }
        7..=9 => tokens.insert(at, format!(" {} ", chance.pick(ODD))),
        10..=12 => tokens[at] = chance.pick(ODD).to_string(),
        13 | 14 if !others.is_empty() => {
            let from = chance.below(others.len());
            let end = (from + 1 + chance.below(10)).min(others.len());
            tokens.splice(at..at + 1, others[from..end].to_vec());
        }
        15 if !others.is_empty() => tokens[at] = chance.pick(others).clone(),
        16 => tokens[at] = nested(&tokens[at], chance),
        17 => tokens[at] = long(&tokens[at], chance),
        18 => tokens.truncate(at),
        _ => tokens[at] = tokens[at].chars().rev().collect(),
    }
}

/// Deep.
fn nested(token: &str, chance: &mut Chance) -> String {
    let depth = *chance.pick(&[2, 20, 60, 120, 1000]);
    let (open, close) = *chance.pick(&[
        ("(", ")"),
        ("(SELECT ", ")"),
        ("CASE WHEN true THEN ", " END"),
        ("NOT ", ""),
        ("- ", ""),
        ("coalesce(", ")"),
        ("ARRAY[", "]"),
        ("CAST(", " AS text)"),
        ("(1 + ", ")"),
        ("sum(", ")"),
        ("(SELECT * FROM ", ") q"),
        ("", "::text"),
        ("", "[1]"),
        ("", ".a"),
        ("", " + 1"),
        ("", " -> 'a'"),
        ("", " OR true"),
        ("", " UNION ALL SELECT 1"),
        ("", " IS NULL"),
        ("", " AT TIME ZONE 'UTC'"),
        ("", ", 1"),
        ("interval ", ""),
    ]);
    format!("{}{token}{}", open.repeat(depth), close.repeat(depth))
}

/// Long.
fn long(token: &str, chance: &mut Chance) -> String {
    let length = *chance.pick(&[63, 64, 300, 10_000]);
    match chance.below(7) {
        0 => "a".repeat(length),
        1 => format!("\"{}\"", "é".repeat(length)),
        2 => "9".repeat(length),
        3 => format!("0.{}", "1".repeat(length)),
        4 => format!("'{}'", "x' '".repeat(length).replace("' '", "''")),
        5 => format!("1e{}", "9".repeat(length.min(300))),
        _ => token.repeat(length.min(300)),
    }
}
