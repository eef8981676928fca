//! Reads Prometheus' text format, and accepts nothing that it does not have to: what passes here, every scraper reads.

use std::collections::{BTreeMap, BTreeSet};

pub type Labels = BTreeMap<String, String>;

#[derive(Debug)]
pub struct Exposition {
    pub families: Vec<Family>,
}

#[derive(Debug)]
pub struct Family {
    pub name: String,
    pub help: String,
    pub kind: String,
    pub series: Vec<Series>,
}

#[derive(Debug)]
pub struct Series {
    /// What follows the family's name: `_bucket`, `_sum`, `_count` or nothing.
    pub suffix: String,
    pub labels: Labels,
    pub value: f64,
}

#[derive(Debug)]
pub struct Histogram {
    /// Bound and how many values are at most that, in order; the last bound is infinite.
    pub buckets: Vec<(f64, f64)>,
    pub sum: f64,
    pub count: f64,
}

impl Exposition {
    pub fn parse(text: &str) -> Exposition {
        assert!(text.ends_with('\n'), "the last line does not end");
        let mut families: Vec<Family> = vec![];
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let (name, help) = comment(line, "HELP");
            let (typed, kind) = comment(lines.next().unwrap_or_default(), "TYPE");
            assert_eq!(name, typed, "HELP and TYPE are of two metrics");
            assert!(families.iter().all(|family| family.name != name), "{name} is told of twice");
            let mut family =
                Family { name: name.to_string(), help: help.to_string(), kind: kind.to_string(), series: vec![] };
            let mut seen = BTreeSet::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                let series = series(line, &family);
                let is_new = seen.insert((series.suffix.clone(), series.labels.clone()));
                assert!(is_new, "a series is there twice: {line}");
                family.series.push(series);
            }
            families.push(family);
        }
        Exposition { families }
    }

    pub fn family(&self, name: &str) -> &Family {
        let found = self.families.iter().find(|family| family.name == name);
        found.unwrap_or_else(|| panic!("there is no metric {name}"))
    }

    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.family(name).series.iter().find(|series| series.labels == labels_of(labels)).map(|series| series.value)
    }

    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or_else(|| panic!("{name} has no series {labels:?}"))
    }

    pub fn histogram(&self, name: &str, labels: &[(&str, &str)]) -> Histogram {
        let mut all = self.family(name).histograms();
        all.remove(&labels_of(labels)).unwrap_or_else(|| panic!("{name} has no series {labels:?}"))
    }
}

impl Family {
    /// By their labels.
    pub fn histograms(&self) -> BTreeMap<Labels, Histogram> {
        assert_eq!(self.kind, "histogram", "{}", self.name);
        let mut all: BTreeMap<Labels, Histogram> = BTreeMap::new();
        for Series { suffix, labels, value } in &self.series {
            let mut labels = labels.clone();
            let bound = labels.remove("le");
            let histogram = all.entry(labels).or_insert_with(|| Histogram { buckets: vec![], sum: -1.0, count: -1.0 });
            match (suffix.as_str(), bound.as_deref()) {
                ("_bucket", Some("+Inf")) => histogram.buckets.push((f64::INFINITY, *value)),
                ("_bucket", Some(bound)) => histogram.buckets.push((bound.parse().expect("a number"), *value)),
                ("_sum", None) => histogram.sum = *value,
                ("_count", None) => histogram.count = *value,
                other => panic!("{}: {other:?}", self.name),
            }
        }
        all
    }
}

fn labels_of(labels: &[(&str, &str)]) -> Labels {
    labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// `# HELP name text`
fn comment<'a>(line: &'a str, word: &str) -> (&'a str, &'a str) {
    let rest = line.strip_prefix("# ").and_then(|line| line.strip_prefix(word)?.strip_prefix(' '));
    rest.and_then(|rest| rest.split_once(' ')).unwrap_or_else(|| panic!("no {word} of a metric: {line}"))
}

/// `name{label="value",…} 1.5`
fn series(line: &str, family: &Family) -> Series {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
    let (name, rest) = line.split_at(end);
    let suffix = name.strip_prefix(family.name.as_str()).unwrap_or_else(|| panic!("not of {}: {line}", family.name));
    let suffixes: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
    assert!(suffixes.contains(&suffix), "{line}");
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest, line),
        None => (Labels::new(), rest),
    };
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let is_number = value.chars().all(|c| c.is_ascii_digit() || ".-".contains(c));
    assert!(is_number, "{line}");
    Series { suffix: suffix.to_string(), labels, value: value.parse().unwrap_or_else(|_| panic!("no number: {line}")) }
}

/// What stands between the braces, and what follows them.
fn labels<'a>(mut rest: &'a str, line: &str) -> (Labels, &'a str) {
    let mut labels = Labels::new();
    loop {
        let (name, more) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(!name.is_empty() && name.chars().all(is_name), "label {name}: {line}");
        let mut value = String::new();
        let mut characters = more.char_indices();
        let end = loop {
            match characters.next() {
                Some((at, '"')) => break at,
                Some((_, '\\')) => match characters.next() {
                    Some((_, c @ ('\\' | '"'))) => value.push(c),
                    Some((_, 'n')) => value.push('\n'),
                    other => panic!("escaped {other:?}: {line}"),
                },
                Some((_, c)) => value.push(c),
                None => panic!("a value has no end: {line}"),
            }
        };
        assert!(labels.insert(name.to_string(), value).is_none(), "label {name} is there twice: {line}");
        rest = &more[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => break,
        }
    }
    let rest = rest.strip_prefix('}').unwrap_or_else(|| panic!("labels have no end: {line}"));
    (labels, rest)
}
