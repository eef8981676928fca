//! Prometheus' text format, version 0.0.4: <https://prometheus.io/docs/instrumenting/exposition_formats/>.
//!
//! ```text
//! # HELP tidemark_source_rows_total Rows admitted into the source or table since the server started.
//! # TYPE tidemark_source_rows_total counter
//! tidemark_source_rows_total{source="clicks"} 17
//! ```
//!
//! Written here and not by a library: all numbers are there already when somebody asks, so what a library would add, a
//! registry of its own, would be a second place for each; and this is the version that `promtool check metrics` reads.

use std::fmt::{Display, Write};
use tidemark_engine::meter::Counts;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// The text so far.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

/// One metric, with all its series.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Exposition {
    /// A metric: told what it is even where it has no series just now.
    pub fn family(&mut self, kind: Kind, name: &'static str, help: &str, series: impl FnOnce(&mut Family<'_>)) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str());
        series(&mut Family { text: &mut self.text, name });
    }

    pub fn finish(self) -> String {
        self.text
    }
}

impl Family<'_> {
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, None, value);
    }

    /// `per_unit`: how many of what was counted make one of the metric's unit, 1,000,000 for seconds.
    pub fn histogram(&mut self, labels: &[(&str, &str)], counted: &Counts, per_unit: f64) {
        let mut below = 0;
        for (bound, count) in counted.bounds.iter().zip(&counted.counts) {
            below += count;
            let le = (*bound as f64 / per_unit).to_string();
            self.line("_bucket", labels, Some(le.as_str()), below);
        }
        let all = counted.count();
        self.line("_bucket", labels, Some("+Inf"), all);
        self.line("_sum", labels, None, counted.sum as f64 / per_unit);
        self.line("_count", labels, None, all);
    }

    /// Writing to a String cannot fail.
    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], le: Option<&str>, value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        let mut open = '{';
        for (name, value) in labels.iter().copied().chain(le.map(|le| ("le", le))) {
            let _ = write!(self.text, "{open}{name}=\"{}\"", escaped(value));
            open = ',';
        }
        if open == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// The name of an object may have anything in it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_help_with_anything_in_them_stay_on_their_line() {
        let mut exposition = Exposition::default();
        exposition.family(Kind::Counter, "a_total", "back\\slash\nand line", |family| {
            family.sample(&[("source", "we\"ird\\\nname"), ("partition", "0")], 3);
        });
        exposition.family(Kind::Gauge, "b", "nothing yet", |_| ());
        assert_eq!(
            exposition.finish(),
            "# HELP a_total back\\\\slash\\nand line\n# TYPE a_total counter\n\
             a_total{source=\"we\\\"ird\\\\\\nname\",partition=\"0\"} 3\n# HELP b nothing yet\n# TYPE b gauge\n"
        );
    }

    #[test]
    fn buckets_add_up_to_the_count() {
        let mut exposition = Exposition::default();
        let counted = Counts { bounds: &[1, 250_000], counts: vec![2, 0, 5], sum: 9_000_002 };
        exposition.family(Kind::Histogram, "c_seconds", "c", |family| {
            family.histogram(&[("path", "x")], &counted, 1e6);
            family.histogram(&[], &counted, 1.0);
        });
        let text = exposition.finish();
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "c_seconds_bucket{path=\"x\",le=\"0.000001\"} 2",
                "c_seconds_bucket{path=\"x\",le=\"0.25\"} 2",
                "c_seconds_bucket{path=\"x\",le=\"+Inf\"} 7",
                "c_seconds_sum{path=\"x\"} 9.000002",
                "c_seconds_count{path=\"x\"} 7",
                "c_seconds_bucket{le=\"1\"} 2",
                "c_seconds_bucket{le=\"250000\"} 2",
                "c_seconds_bucket{le=\"+Inf\"} 7",
                "c_seconds_sum 9000002",
                "c_seconds_count 7",
            ]
        );
    }
}
