//! What the server tells Prometheus: the engine's counts and its own, put into families at each scrape (docs/metrics.md).

use crate::{database::Database, stats::EngineStats, system::Stats};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet, text},
    metrics::{MetricType, exemplar::Exemplar},
    registry::{Registry, Unit},
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tidemark_catalog::Object;
use tidemark_engine::{
    histogram::{BOUNDS_US, Counted, Histogram},
    runtime::Action,
};

/// What the front door counts.
#[derive(Debug, Default)]
pub struct Front {
    /// Point lookups, from the bound message to the encoded rows.
    pub lookups: Histogram,
    pub lookups_failed: AtomicU64,
    /// All other statements, until their rows begin to come.
    pub statements: Histogram,
    pub statements_failed: AtomicU64,
}

/// The registry of a server: what [`text`] reads.
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    pub fn new(database: Arc<Database>) -> Metrics {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Families { database }));
        Metrics { registry }
    }

    /// In the OpenMetrics text format.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

struct Families {
    database: Arc<Database>,
}

impl fmt::Debug for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Families")
    }
}

/// Names of labels with their values.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Labels(Vec<(&'static str, String)>);

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        use prometheus_client::encoding::EncodeLabel;
        self.0.iter().try_for_each(|(name, value)| (*name, value.as_str()).encode(encoder.encode_label()))
    }
}

fn labels<const N: usize>(labels: [(&'static str, &str); N]) -> Labels {
    Labels(labels.into_iter().map(|(name, value)| (name, value.to_string())).collect())
}

type Series<T> = Vec<(Labels, T)>;

/// One family after the other; also those without series are declared, so that their names are known.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn family<T>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        ty: MetricType,
        series: Series<T>,
        mut write: impl FnMut(MetricEncoder<'_>, T) -> fmt::Result,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, ty)?;
        for (labels, value) in series {
            write(family.encode_family(&labels)?, value)?;
        }
        Ok(())
    }

    fn counters(&mut self, name: &str, help: &str, series: Series<u64>) -> fmt::Result {
        self.family(name, help, None, MetricType::Counter, series, |mut encoder, value| {
            encoder.encode_counter::<NoLabelSet, u64, u64>(&value, None::<&Exemplar<NoLabelSet, u64>>)
        })
    }

    fn gauges(&mut self, name: &str, help: &str, unit: Option<&Unit>, series: Series<f64>) -> fmt::Result {
        self.family(name, help, unit, MetricType::Gauge, series, |mut encoder, value| encoder.encode_gauge(&value))
    }

    fn histograms(&mut self, name: &str, help: &str, series: Series<Counted>) -> fmt::Result {
        self.family(name, help, Some(&Unit::Seconds), MetricType::Histogram, series, |mut encoder, counted| {
            let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(counted.counts).collect();
            encoder.encode_histogram::<NoLabelSet>(counted.sum_us as f64 / 1e6, counted.total(), &buckets, None)
        })
    }
}

fn seconds(us: i64) -> f64 {
    us as f64 / 1e6
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Collector for Families {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Writer(encoder);
        let snapshot = self.database.snapshot();
        let objects: Vec<&Object> = snapshot.objects().collect();
        self.sources(&mut out, &objects)?;
        self.views(&mut out, &objects)?;
        self.actions(&mut out)?;
        self.front(&mut out)
    }
}

impl Families {
    fn sources(&self, out: &mut Writer<'_>, objects: &[&Object]) -> fmt::Result {
        let clock_us = self.database.clock.now_us();
        let (mut rows, mut letters, mut delay, mut readable, mut lag, mut up) =
            (vec![], vec![], vec![], vec![], vec![], vec![]);
        for object in objects {
            let Some(source) = self.database.engine.source(object.id) else { continue };
            let of = labels([("source", &object.name)]);
            rows.push((of.clone(), load(&source.metrics.rows)));
            for (reason, count) in source.metrics.letters() {
                letters.push((labels([("source", &object.name), ("reason", reason.as_str())]), count));
            }
            if source.frontier_us() != i64::MIN {
                delay.push((of.clone(), seconds(source.now_us(clock_us).saturating_sub(source.frontier_us()))));
            }
            readable.push((of.clone(), source.metrics.readable.counted()));
            let Some(feed) = self.database.feeds.status(object.id) else { continue };
            for (partition, next, end) in feed.partitions() {
                if let Some(end) = end {
                    let of = labels([("source", &object.name), ("partition", &partition.to_string())]);
                    lag.push((of, end.saturating_sub(next) as f64));
                }
            }
            up.push((of, if feed.error().is_none() { 1.0 } else { 0.0 }));
        }
        out.counters("tidemark_source_rows", "Rows appended to a source or table, admitted or not", rows)?;
        out.counters("tidemark_source_dead_letters", "Rows that went to tidemark.dead_letters, by reason", letters)?;
        out.gauges(
            "tidemark_source_watermark_delay",
            "How far the frontier of a source is behind its now",
            Some(&Unit::Seconds),
            delay,
        )?;
        out.histograms(
            "tidemark_source_readable",
            "From when a row was sent (a message's timestamp; the begin of an INSERT) until every lookup saw it",
            readable,
        )?;
        out.gauges("tidemark_source_lag_messages", "Messages of a partition that are not taken yet", None, lag)?;
        out.gauges("tidemark_source_topic_up", "1 while the topic of a source can be read", None, up)
    }

    fn views(&self, out: &mut Writer<'_>, objects: &[&Object]) -> fmt::Result {
        let clock_us = self.database.clock.now_us();
        let stats = EngineStats {
            engine: self.database.engine.clone(),
            feeds: self.database.feeds.clone(),
            clock: self.database.clock.clone(),
            snapshot: self.database.snapshot(),
        };
        let (mut up, mut fresh, mut history, mut keys, mut resident, mut bytes, mut waiting) =
            (vec![], vec![], vec![], vec![], vec![], vec![], vec![]);
        let (mut events, mut steps, mut rows_failed, mut values_failed, mut stale) =
            (vec![], vec![], vec![], vec![], vec![]);
        for object in objects.iter().filter(|object| object.feature_view().is_some()) {
            let of = labels([("view", &object.name)]);
            let view = self.database.engine.view(object.id);
            up.push((of.clone(), if view.is_some() { 1.0 } else { 0.0 }));
            let (Some(view), Some(seen)) = (view, stats.view(object.id)) else { continue };
            let now_us = view.now_us(clock_us);
            let behind = |us: Option<i64>| us.map(|us| seconds(now_us.saturating_sub(us)));
            // The newest event that any of its sources has: what a lookup can know of.
            let newest = view.sources.iter().map(|reading| reading.source.max_event_us()).max();
            fresh.extend(behind(newest.filter(|us| *us != i64::MIN)).map(|s| (of.clone(), s)));
            history.extend(behind(seen.committed_us).map(|s| (of.clone(), s)));
            keys.push((of.clone(), seen.keys.unwrap_or(0) as f64));
            resident.push((of.clone(), seen.keys_in_memory.unwrap_or(0) as f64));
            bytes.push((of.clone(), seen.memory_bytes.unwrap_or(0) as f64));
            waiting.push((of.clone(), seen.steps_pending.unwrap_or(0) as f64));
            events.push((of.clone(), seen.events.unwrap_or(0)));
            steps.push((of.clone(), load(&view.state.counters.steps)));
            rows_failed.push((of.clone(), seen.rows_failed.unwrap_or(0)));
            values_failed.push((of.clone(), seen.values_failed.unwrap_or(0)));
            stale.push((of, if view.is_level_online() { 1.0 } else { 0.0 }));
        }
        let seconds = Some(&Unit::Seconds);
        out.gauges("tidemark_view_up", "1 while a feature view is maintained, 0 where it has failed", None, up)?;
        out.gauges("tidemark_view_event_age", "How far the newest event of a view is behind its now", seconds, fresh)?;
        out.gauges(
            "tidemark_view_history_delay",
            "How far the committed history of a view is behind its now",
            seconds,
            history,
        )?;
        out.gauges("tidemark_view_keys", "Entity keys of a view", None, keys)?;
        out.gauges("tidemark_view_keys_resident", "Those of them that are in memory", None, resident)?;
        out.gauges("tidemark_view_memory", "What they take", Some(&Unit::Bytes), bytes)?;
        out.gauges("tidemark_view_steps_waiting", "Steps that wait for their history commit", None, waiting)?;
        out.counters("tidemark_view_events", "Events applied to a view", events)?;
        out.counters("tidemark_view_steps", "Steps that a view has taken", steps)?;
        out.counters("tidemark_view_rows_failed", "Rows that a view could not use", rows_failed)?;
        out.counters(
            "tidemark_view_values_failed",
            "Values that are NULL because they could not be computed",
            values_failed,
        )?;
        out.gauges("tidemark_view_online_level", "1 while the online store has all that has changed", None, stale)
    }

    fn actions(&self, out: &mut Writer<'_>) -> fmt::Result {
        let metrics = &self.database.engine.metrics;
        let all: [(&str, &Action); 3] = [
            ("online_flush", &metrics.online),
            ("history_commit", &metrics.history),
            ("checkpoint", &metrics.checkpoint),
        ];
        let took = all.iter().map(|(name, action)| (labels([("action", name)]), action.took.counted())).collect();
        let failures = all.iter().map(|(name, action)| (labels([("action", name)]), load(&action.failures))).collect();
        out.histograms("tidemark_action", "How long what happens in the background takes, by view", took)?;
        out.counters("tidemark_action_failures", "How often it failed; it is tried again", failures)?;
        let none = || Labels(vec![]);
        out.counters(
            "tidemark_online_rows",
            "Rows put into the online store",
            vec![(none(), load(&metrics.online_rows))],
        )?;
        out.counters(
            "tidemark_history_steps",
            "Steps appended to history",
            vec![(none(), load(&metrics.history_steps))],
        )
    }

    fn front(&self, out: &mut Writer<'_>) -> fmt::Result {
        let front = &self.database.front;
        let kinds =
            [("lookup", &front.lookups, &front.lookups_failed), ("other", &front.statements, &front.statements_failed)];
        let took = kinds.iter().map(|(kind, took, _)| (labels([("kind", kind)]), took.counted())).collect();
        let failed = kinds.iter().map(|(kind, _, failed)| (labels([("kind", kind)]), load(failed))).collect();
        out.histograms(
            "tidemark_statement",
            "How long statements take: lookups whole, others until their rows begin",
            took,
        )?;
        out.counters("tidemark_statement_failures", "Statements that ended with an error", failed)?;
        let build = labels([("version", env!("CARGO_PKG_VERSION"))]);
        out.gauges("tidemark_build", "Always 1; the labels say what runs", None, vec![(build, 1.0)])
    }
}
