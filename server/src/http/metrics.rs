//! Every metric there is, with what it means. Numbers are read where they are counted when somebody asks;
//! docs/metrics.md says what to do about them, and a test compares.
//!
//! Labels are names of objects, partitions of topics, reasons and classes of errors: what a user types into a statement
//! is in none of them, so there are only as many series as there are objects.

use super::{
    Phase, Subject,
    exposition::{Exposition, Kind},
    memory,
};
use crate::{database::Owner, meters::LookupPath, serving::Serving};
use std::{borrow::Cow, sync::Arc};
use tidemark_catalog::Snapshot;
use tidemark_connectors::kafka::Status;
use tidemark_engine::{
    runtime::{Engine, SourceRuntime, ViewRuntime},
    seam::RejectReason,
};

const SECOND_US: f64 = 1e6;

pub(super) fn render(phase: &Phase) -> String {
    let mut out = Exposition::default();
    process(&mut out, phase);
    if let Phase::Serving(subject) | Phase::Stopping(subject) = phase {
        // One snapshot and one instant for all of it.
        let snapshot = subject.database.snapshot();
        let now_us = subject.database.clock.now_us();
        if let Some(owner) = subject.database.as_owner() {
            sources(&mut out, &Source::all(owner, &snapshot), now_us);
            views(&mut out, &View::all(&owner.engine, &snapshot), now_us);
            durability(&mut out, &owner.engine);
        }
        serving(&mut out, subject.database.serving().map(AsRef::as_ref), now_us);
        clients(&mut out, subject);
    }
    out.finish()
}

fn process(out: &mut Exposition, phase: &Phase) {
    out.family(Kind::Gauge, "tidemark_build_info", "1, with the version that runs as a label.", |family| {
        family.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    });
    let help = "Whether clients are to be sent here: 0 while the server recovers and while it shuts down. As /readyz.";
    out.family(Kind::Gauge, "tidemark_ready", help, |family| {
        family.sample(&[], u8::from(phase.is_ready()));
    });
    if let Phase::Serving(subject) | Phase::Stopping(subject) = phase {
        let help = "When the server had recovered and began to serve, in seconds since 1970 UTC.";
        out.family(Kind::Gauge, "tidemark_start_time_seconds", help, |family| {
            family.sample(&[], seconds(subject.started_us));
        });
    }
    let help = "Memory of the process that is in RAM, in bytes. Only on Linux.";
    out.family(Kind::Gauge, "process_resident_memory_bytes", help, |family| {
        if let Some(bytes) = memory::resident_bytes() {
            family.sample(&[], bytes);
        }
    });
}

struct Source<'a> {
    name: Cow<'a, str>,
    runtime: Arc<SourceRuntime>,
    /// Of the topic that feeds it.
    feed: Option<Arc<Status>>,
}

impl<'a> Source<'a> {
    fn all(owner: &Owner, snapshot: &'a Snapshot) -> Vec<Source<'a>> {
        let source = |object: &'a Arc<tidemark_catalog::Object>| {
            let runtime = owner.engine.source(object.id)?;
            Some(Source { name: object.shown_name().into(), runtime, feed: owner.feeds.status(object.id) })
        };
        snapshot.objects().filter_map(source).collect()
    }
}

fn sources(out: &mut Exposition, sources: &[Source<'_>], now_us: i64) {
    let help = "Rows admitted into the source or table and applied to every view since the server started.";
    out.family(Kind::Counter, "tidemark_source_rows_total", help, |family| {
        for source in sources {
            family.sample(&[("source", source.name.as_ref())], source.runtime.meters.rows.get());
        }
    });
    let help = "Bytes appended to the log of the source or table since the server started.";
    out.family(Kind::Counter, "tidemark_source_appended_bytes_total", help, |family| {
        for source in sources {
            family.sample(&[("source", source.name.as_ref())], source.runtime.log().appended_bytes());
        }
    });
    let help = "Records that became dead letters since the server started, by why. They are in tidemark.dead_letters.";
    out.family(Kind::Counter, "tidemark_dead_letters_total", help, |family| {
        for source in sources {
            for reason in RejectReason::ALL {
                let labels = [("source", source.name.as_ref()), ("reason", reason.as_str())];
                family.sample(&labels, source.runtime.meters.dead_letters(reason));
            }
        }
    });
    let help = "Time from when an admitted row came (was appended to its topic, or its statement began) to when every \
                view had it and lookups saw it, in seconds.";
    out.family(Kind::Histogram, "tidemark_event_to_readable_seconds", help, |family| {
        for source in sources {
            family.histogram(&[("source", source.name.as_ref())], &source.runtime.meters.readable_us.read(), SECOND_US);
        }
    });
    let help = "How far the frontier of the source or table lies behind its now, in seconds: what is older is late. \
                None before the first event.";
    out.family(Kind::Gauge, "tidemark_source_watermark_delay_seconds", help, |family| {
        for source in sources {
            if let Some(frontier_us) = instant(source.runtime.frontier_us()) {
                let delay_us = source.runtime.now_us(now_us).saturating_sub(frontier_us);
                family.sample(&[("source", source.name.as_ref())], seconds(delay_us.max(0)));
            }
        }
    });
    topics(out, sources);
}

fn topics(out: &mut Exposition, sources: &[Source<'_>]) {
    let fed = || sources.iter().filter_map(|source| Some((source.name.as_ref(), source.feed.as_deref()?)));
    let help = "Whether the topic of the source is not read any more until somebody does something: 1, and last_error \
                in tidemark.pipelines says what.";
    out.family(Kind::Gauge, "tidemark_source_failed", help, |family| {
        for (name, feed) in fed() {
            family.sample(&[("source", name)], u8::from(feed.has_failed()));
        }
    });
    let help = "Whether the topic of the source cannot be read just now (1), for whatever reason; it is tried again.";
    out.family(Kind::Gauge, "tidemark_source_in_trouble", help, |family| {
        for (name, feed) in fed() {
            family.sample(&[("source", name)], u8::from(feed.error().is_some()));
        }
    });
    let help = "Records of a partition of the source's topic that have not been taken yet.";
    out.family(Kind::Gauge, "tidemark_source_lag_records", help, |family| {
        for (name, feed) in fed() {
            for (partition, next, end) in feed.partitions() {
                if let Some(end) = end {
                    let partition = partition.to_string();
                    family.sample(&[("source", name), ("partition", &partition)], end.saturating_sub(next));
                }
            }
        }
    });
}

struct View<'a> {
    name: Cow<'a, str>,
    has_failed: bool,
    /// `None`: it has failed, or is only being made.
    runtime: Option<Arc<ViewRuntime>>,
}

impl<'a> View<'a> {
    fn all(engine: &Engine, snapshot: &'a Snapshot) -> Vec<View<'a>> {
        let views = snapshot.objects().filter(|object| object.feature_view().is_some());
        views
            .map(|object| {
                let (name, has_failed) = (object.shown_name().into(), engine.failure(object.id).is_some());
                View { name, has_failed, runtime: engine.view(object.id) }
            })
            .collect()
    }

    /// The age of the newest event of its sources that it has, by its own clock.
    fn freshness_us(runtime: &ViewRuntime, now_us: i64) -> Option<i64> {
        let newest = runtime.sources.iter().filter_map(|reading| instant(reading.source.max_event_us())).max()?;
        Some(runtime.now_us(now_us).saturating_sub(newest).max(0))
    }
}

/// A metric of every view that runs.
fn of_views<T: std::fmt::Display>(
    out: &mut Exposition,
    views: &[View<'_>],
    kind: Kind,
    (name, help): (&'static str, &str),
    value: impl Fn(&ViewRuntime) -> Option<T>,
) {
    out.family(kind, name, help, |family| {
        for view in views {
            if let Some(value) = view.runtime.as_deref().and_then(&value) {
                family.sample(&[("view", view.name.as_ref())], value);
            }
        }
    });
}

fn views(out: &mut Exposition, views: &[View<'_>], now_us: i64) {
    use Kind::{Counter, Gauge};
    let help =
        "Whether the feature view stands still until it is resumed (1); last_error in tidemark.pipelines says why.";
    out.family(Gauge, "tidemark_view_failed", help, |family| {
        for view in views {
            family.sample(&[("view", view.name.as_ref())], u8::from(view.has_failed));
        }
    });
    let metric = (
        "tidemark_view_freshness_seconds",
        "Age of the newest event that lookups of the view see, in seconds. It grows too while no events come.",
    );
    of_views(out, views, Gauge, metric, |view| View::freshness_us(view, now_us).map(seconds));
    let metric = (
        "tidemark_view_history_age_seconds",
        "How far the committed history of the view lies behind its now, in seconds: what readers of its Iceberg table \
         lack.",
    );
    of_views(out, views, Gauge, metric, |view| {
        let committed_us = instant(view.state.committed_us())?;
        Some(seconds(view.now_us(now_us).saturating_sub(committed_us).max(0)))
    });
    let metric = ("tidemark_view_keys", "Entity keys of the view, in memory or not.");
    of_views(out, views, Gauge, metric, |view| Some(view.state.count(|counters| &counters.keys)));
    let metric = (
        "tidemark_view_keys_in_memory",
        "Entity keys of the view that are in memory; lookups of others read the disk.",
    );
    of_views(out, views, Gauge, metric, |view| Some(view.state.in_memory().0));
    let metric = ("tidemark_view_state_memory_bytes", "What the keys of the view take in memory, in bytes.");
    of_views(out, views, Gauge, metric, |view| Some(view.state.in_memory().1));
    let metric =
        ("tidemark_view_steps_waiting", "Steps of the view that wait in memory for the next commit of its history.");
    of_views(out, views, Gauge, metric, |view| Some(view.state.steps_waiting()));
    let metric =
        ("tidemark_view_online_keys_waiting", "Keys of the view whose change the online store has not seen yet.");
    of_views(out, views, Gauge, metric, |view| Some(view.state.waiting_online()));
    let metric = (
        "tidemark_view_rows_failed_total",
        "Rows that the view could not use: they are dead letters. Those that a start replayed count again.",
    );
    of_views(out, views, Counter, metric, |view| Some(view.state.count(|counters| &counters.rows_failed)));
    let metric = (
        "tidemark_view_values_failed_total",
        "Values of the view that became NULL because an expression failed or left its type's range. Those that a start \
         replayed count again.",
    );
    of_views(out, views, Counter, metric, |view| Some(view.state.count(|counters| &counters.values_failed)));
    let metric = (
        "tidemark_view_online_flush_failures_total",
        "Times that the online store could not be brought level with the view since the server started. It is tried \
         again.",
    );
    of_views(out, views, Counter, metric, |view| Some(view.meters.flush_failures.get()));
    let metric =
        ("tidemark_view_history_commits_total", "Commits to the history of the view since the server started.");
    of_views(out, views, Counter, metric, |view| Some(view.meters.commits.get()));
    let metric = (
        "tidemark_view_history_commit_failures_total",
        "Commits to the history of the view that failed since the server started. They are tried again.",
    );
    of_views(out, views, Counter, metric, |view| Some(view.meters.commit_failures.get()));
    let metric =
        ("tidemark_view_history_steps_total", "Steps appended to the history of the view since the server started.");
    of_views(out, views, Counter, metric, |view| Some(view.meters.steps_committed.get()));
    files(out, views);
}

/// The files of history, and what is done for them.
fn files(out: &mut Exposition, views: &[View<'_>]) {
    use Kind::{Counter, Gauge};
    let survey = |view: &ViewRuntime| view.maintenance.read().survey.map(|(_, survey)| survey);
    let metric = (
        "tidemark_view_history_files",
        "Data files of the view's history when they were last looked at. None before the first look.",
    );
    of_views(out, views, Gauge, metric, |view| Some(survey(view)?.files));
    let metric = (
        "tidemark_view_history_manifests",
        "Manifests of the view's history when they were last looked at. None before the first look.",
    );
    of_views(out, views, Gauge, metric, |view| Some(survey(view)?.manifests));
    let metric = (
        "tidemark_view_history_snapshots",
        "Snapshots of the view's history when they were last looked at. None before the first look.",
    );
    of_views(out, views, Gauge, metric, |view| Some(survey(view)?.snapshots));
    let metric = (
        "tidemark_view_maintenance_runs_total",
        "Things done for the files of the view's history since the server started, asked for or not; also those that \
         failed.",
    );
    of_views(out, views, Counter, metric, |view| Some(view.meters.maintenance_runs.get()));
    let metric = (
        "tidemark_view_maintenance_failures_total",
        "Times that the files of the view's history could not be looked at or cared for since the server started. It is \
         tried again.",
    );
    of_views(out, views, Counter, metric, |view| Some(view.meters.maintenance_failures.get()));
    let metric = (
        "tidemark_view_maintenance_bytes_total",
        "Bytes of data files of the view's history that were written again since the server started.",
    );
    of_views(out, views, Counter, metric, |view| Some(view.meters.maintenance_bytes.get()));
}

fn durability(out: &mut Exposition, engine: &Engine) {
    let (memory, meters) = (&engine.seams.memory, &engine.meters);
    let help = "What the keys of all feature views take in memory, in bytes.";
    out.family(Kind::Gauge, "tidemark_state_memory_bytes", help, |family| family.sample(&[], memory.used()));
    let help = "What they may take: the setting state_memory, in bytes. Beyond it keys leave memory.";
    out.family(Kind::Gauge, "tidemark_state_memory_limit_bytes", help, |family| family.sample(&[], memory.limit()));
    for (name, help, histogram, per_unit) in [
        (
            "tidemark_online_flush_keys",
            "Keys that one flush of a view put into the online store; flushes with nothing to put do not count.",
            &meters.flushed_keys,
            1.0,
        ),
        (
            "tidemark_online_flush_duration_seconds",
            "How long such a flush took, in seconds; those that failed are not among them.",
            &meters.flush_us,
            SECOND_US,
        ),
        (
            "tidemark_online_put_duration_seconds",
            "How long the online store took for one call that puts rows, of which a flush makes one or more, in seconds; \
             those that failed are not among them.",
            &meters.put_us,
            SECOND_US,
        ),
        (
            "tidemark_history_commit_duration_seconds",
            "How long a commit to the history of a view took, in seconds; those that failed are not among them.",
            &meters.commit_us,
            SECOND_US,
        ),
        (
            "tidemark_checkpoint_duration_seconds",
            "How long a checkpoint took, its history commits included, in seconds; also those that failed.",
            &meters.checkpoint_us,
            SECOND_US,
        ),
    ] {
        out.family(Kind::Histogram, name, help, |family| family.histogram(&[], &histogram.read(), per_unit));
    }
    let traffic = engine.seams.online.traffic();
    let help = "Times that commands went out together to the server behind the online store (Redis) and their answers \
                were waited for, since the server started. None with the embedded store.";
    let round_trips = traffic.round_trips;
    out.family(Kind::Counter, "tidemark_online_round_trips_total", help, |family| family.sample(&[], round_trips));
    let help = "Commands sent to the server behind the online store (Redis) since the server started. None with the \
                embedded store.";
    out.family(Kind::Counter, "tidemark_online_commands_total", help, |family| family.sample(&[], traffic.commands));
    let help = "Bytes of keys and their state that checkpoints wrote since the server started.";
    let bytes = meters.checkpoint_bytes.get();
    out.family(Kind::Counter, "tidemark_checkpoint_bytes_total", help, |family| family.sample(&[], bytes));
    let help =
        "Checkpoints that failed, wholly or for some view, since the server started. The next one makes up for it.";
    let failures = meters.checkpoint_failures.get();
    out.family(Kind::Counter, "tidemark_checkpoint_failures_total", help, |family| family.sample(&[], failures));
}

/// `None`: this server is no serving node.
fn serving(out: &mut Exposition, serving: Option<&Serving>, now_us: i64) {
    let help =
        "Keys that lookups on this serving node asked for, by where they were found: in its own cache, or in Redis.";
    out.family(Kind::Counter, "tidemark_serving_keys_total", help, |family| {
        if let Some(Serving { meters, .. }) = serving {
            family.sample(&[("path", "cache")], meters.from_cache.get());
            family.sample(&[("path", "redis")], meters.from_redis.get());
        }
    });
    let help = "Rows of the view that this serving node had for lookups when they did not hold any more: each was \
                answered with a warning, or refused, as the setting serving_stale says.";
    out.family(Kind::Counter, "tidemark_lookups_stale_total", help, |family| {
        for view in serving.map(Serving::views).unwrap_or_default() {
            family.sample(&[("view", view.name.as_str())], view.stale.get());
        }
    });
    let help = "How long ago all changes were in Redis, as its owner last said there and by two clocks, in seconds. None \
                on the owner.";
    out.family(Kind::Gauge, "tidemark_serving_behind_seconds", help, |family| {
        if let Some(level_us) = serving.and_then(Serving::level_us) {
            family.sample(&[], seconds(now_us.saturating_sub(level_us).max(0)));
        }
    });
    let help = "Whether this serving node cannot read Redis, or the catalog there, just now (1); it is tried again. None \
                on the owner.";
    out.family(Kind::Gauge, "tidemark_serving_in_trouble", help, |family| {
        if let Some(serving) = serving {
            family.sample(&[], u8::from(serving.trouble().is_some()));
        }
    });
}

fn clients(out: &mut Exposition, subject: &Subject) {
    let (meters, counters) = (&subject.database.meters, subject.server.counters());
    let help = "How long a point lookup took from its bound statement to its rows in the connection's buffer, in \
                seconds, by whether its statement was found by the fingerprint of its text or was prepared.";
    out.family(Kind::Histogram, "tidemark_lookup_duration_seconds", help, |family| {
        for path in LookupPath::ALL {
            family.histogram(&[("path", path.as_str())], &meters.lookups_us(path).read(), SECOND_US);
        }
    });
    let help = "Keys that lookups did not get within tidemark.lookup_deadline: they were answered without, or refused.";
    out.family(Kind::Counter, "tidemark_lookups_late_total", help, |family| {
        let of_redis = subject.database.serving().map_or(0, |serving| serving.meters.late.get());
        family.sample(&[], meters.lookups_late.get() + of_redis);
    });
    let help = "How long every other statement took, from its start to its last row sent, in seconds; also those that \
                failed. BEGIN, COMMIT and their like do not count.";
    out.family(Kind::Histogram, "tidemark_statement_duration_seconds", help, |family| {
        family.histogram(&[], &counters.statements_us.read(), SECOND_US);
    });
    let help =
        "Statements that are being read, planned or run now. Point lookups are over before they could be seen here.";
    out.family(Kind::Gauge, "tidemark_statements_running", help, |family| family.sample(&[], counters.running()));
    let help = "Errors that clients were told since the server started, by the class of their SQLSTATE (its first two \
                characters): XX is a bug, 53 a limit, 57 a cancellation or shutdown, 42 a wrong statement.";
    out.family(Kind::Counter, "tidemark_errors_total", help, |family| {
        for (class, count) in counters.errors() {
            family.sample(&[("class", class)], count);
        }
    });
    let help = "Client connections that are open.";
    out.family(Kind::Gauge, "tidemark_connections", help, |family| family.sample(&[], subject.server.sessions()));
    let help = "Client connections that may be open at once: the setting max_connections.";
    let limit = subject.max_connections;
    out.family(Kind::Gauge, "tidemark_connections_limit", help, |family| family.sample(&[], limit));
}

fn seconds(us: i64) -> f64 {
    us as f64 / SECOND_US
}

/// Before the first event a clock stands at one of the ends of time.
fn instant(us: i64) -> Option<i64> {
    (us != i64::MIN && us != i64::MAX).then_some(us)
}
