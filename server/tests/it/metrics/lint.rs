//! Prometheus' conventions for names, units and histograms, as `promtool check metrics` has them and somewhat stricter:
//! <https://prometheus.io/docs/practices/naming/>.

use super::exposition::{Exposition, Family};

/// Units that are not base units, and abbreviations.
const NOT_UNITS: [&str; 16] = [
    "ms",
    "us",
    "ns",
    "s",
    "sec",
    "secs",
    "millis",
    "micros",
    "milliseconds",
    "microseconds",
    "minutes",
    "hours",
    "kb",
    "mb",
    "gb",
    "percent",
];

/// Words that say what a metric is, which its TYPE does.
const NOT_WORDS: [&str; 5] = ["counter", "gauge", "histogram", "summary", "metric"];

/// The names of all metrics, which are as they should be.
pub fn check(exposition: &Exposition) -> Vec<String> {
    for family in &exposition.families {
        name(family);
        unit(family);
        labels(family);
        if family.kind == "histogram" {
            histograms(family);
        }
    }
    exposition.families.iter().map(|family| family.name.clone()).collect()
}

fn name(Family { name, help, kind, .. }: &Family) {
    assert!(["counter", "gauge", "histogram"].contains(&kind.as_str()), "{name} is a {kind}");
    let is_ours = name.starts_with("tidemark_") || name == "process_resident_memory_bytes";
    assert!(is_ours && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
    assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
    for suffix in ["_sum", "_count", "_bucket"] {
        assert!(!name.ends_with(suffix), "{name} looks like a part of a histogram");
    }
    for word in name.split('_') {
        assert!(!NOT_UNITS.contains(&word) && !NOT_WORDS.contains(&word), "{name} says {word}");
    }
    assert!(help.len() > 20 && help.ends_with('.') && !help.contains("  "), "{name}: {help}");
}

/// What is said to be in seconds or bytes says so at the end of its name, and the other way round.
fn unit(Family { name, help, .. }: &Family) {
    let bare = name.strip_suffix("_total").unwrap_or(name);
    for (unit, said) in [("_seconds", "in seconds"), ("_bytes", "ytes")] {
        assert!(!bare.contains(unit) || bare.ends_with(unit), "{name}: the unit is the last word");
        assert!(!bare.ends_with(unit) || help.contains(said), "{name} does not say its unit: {help}");
    }
    assert!(!help.contains("in seconds") || bare.ends_with("_seconds"), "{name}: {help}");
}

fn labels(Family { name, kind, series, .. }: &Family) {
    for series in series {
        let mut labels: Vec<&str> = series.labels.keys().map(String::as_str).collect();
        labels.retain(|label| *label != "le" || kind != "histogram");
        let known = ["class", "partition", "path", "reason", "source", "version", "view"];
        assert!(labels.iter().all(|label| known.contains(label)), "{name} has labels {labels:?}");
        assert!(series.value >= 0.0 && series.value.is_finite(), "{name} is {}", series.value);
    }
}

fn histograms(family: &Family) {
    let all = family.histograms();
    for (labels, histogram) in &all {
        let of = format!("{} {labels:?}", family.name);
        assert!(histogram.buckets.is_sorted_by(|a, b| a.0 < b.0), "{of}: bounds do not ascend");
        assert!(histogram.buckets.is_sorted_by(|a, b| a.1 <= b.1), "{of}: buckets are not cumulative");
        let last = histogram.buckets.last().expect("there is a bucket");
        assert_eq!(*last, (f64::INFINITY, histogram.count), "{of}: the last bucket has all");
        assert!(histogram.sum >= 0.0 && (histogram.count > 0.0 || histogram.sum == 0.0), "{of}: {histogram:?}");
    }
    let bounds = |histogram: &super::exposition::Histogram| -> Vec<f64> {
        histogram.buckets.iter().map(|(bound, _)| *bound).collect()
    };
    let first = all.values().next().map(bounds);
    assert!(all.values().all(|histogram| Some(bounds(histogram)) == first), "{}: bounds differ", family.name);
}
