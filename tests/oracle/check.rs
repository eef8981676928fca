//! One case against the definition, through every way of reading a feature view.

use crate::admission;
use crate::coverage::{Before, Coverage};
use crate::model::{Case, Probe, Row, Ty};
use crate::postgres::{Expected, Postgres};
use crate::under_test::{Named, Step, UnderTest};
use crate::value::{Answer, compare};
use anyhow::{Context, Result, anyhow, bail};
use std::collections::BTreeSet;

/// `AS OF` lookups of all keys for each view; the spine and history take every probe.
const AS_OF_INSTANTS: usize = 2;

/// A disagreement, or an error where there should be an answer. `view` is the number in the case.
#[derive(Debug)]
pub struct Failure {
    pub view: Option<usize>,
    pub error: anyhow::Error,
}

/// The first disagreement of each view, at most. `name` prefixes all objects of the case.
pub async fn check(
    case: &Case,
    name: &str,
    postgres: &Postgres,
    system: &mut dyn UnderTest,
    coverage: &mut Coverage,
) -> Vec<Failure> {
    let mut failures = Vec::new();
    if let Err(error) = stream(case, name, postgres, system, coverage, &mut failures).await {
        failures.push(Failure { view: None, error });
    }
    if let Err(error) = system.drop_case(name, case).await {
        failures.push(Failure { view: None, error });
    }
    failures
}

/// Half of the views live through the stream from its start, the others are born in its middle. Every view is looked up at
/// three nows: there or later in the stream, at its end (when the last event, of a key of its own, has carried the clock past
/// every window and TTL), and when all is final and now is the frontier. As-of reads above the frontier and history, which is
/// final; of the spines every other view has one above the frontier, the others have theirs over final history.
async fn stream(
    case: &Case,
    name: &str,
    postgres: &Postgres,
    system: &mut dyn UnderTest,
    coverage: &mut Coverage,
    failures: &mut Vec<Failure>,
) -> Result<()> {
    let source = &case.source;
    // A case that is being shrunk has hardly any views, whose place in it must not matter.
    let asks_all = case.views.len() < 4;
    let admitted = admission::admitted(source);
    let admitted_rows = |upto: usize| admitted[..upto].iter().flatten();
    let named: Vec<Named<'_>> = case
        .views
        .iter()
        .enumerate()
        .map(|(i, (view, _))| Named { name: format!("{name}_v{i}"), source, view })
        .collect();
    let mut fail = |view: usize, error: anyhow::Error| {
        if !failures.iter().any(|f| f.view == Some(view)) {
            failures.push(Failure { view: Some(view), error });
        }
    };

    system.create_source(name, source).await?;
    let middle = source.rows.len() / 2;
    let early = case.views.len() / 2;
    let mut made = vec![true; named.len()];
    for (i, view) in named.iter().enumerate().take(early) {
        if let Err(error) = system.create_view(name, view).await {
            made[i] = false;
            fail(i, error);
        }
    }
    let later = middle + (source.rows.len() - middle) / 2;
    for (turn, (from, to)) in [(0, middle), (middle, later)].into_iter().enumerate() {
        for batch in batches(&source.rows[from..to]) {
            system.ingest(name, source, batch).await?;
        }
        for (i, view) in named.iter().enumerate().skip(early).filter(|_| from == 0) {
            if let Err(error) = system.create_view(name, view).await {
                made[i] = false;
                fail(i, error);
            }
        }
        // Now is the greatest event time admitted so far.
        let Some(now_us) = admitted_rows(to).map(|row| row.event_time_us).max() else { continue };
        postgres.load(source, admitted_rows(to)).await?;
        // Of those that live from the start and of those that were just born, half of each now.
        for (i, view) in named.iter().enumerate().filter(|(i, _)| made[*i] && (asks_all || i % 2 == turn)) {
            let questions = at(now_us, &case.views[i].1);
            let expected = postgres.expected(source, view.view, &questions).await?;
            coverage.probes += questions.len();
            if let Err(error) = looked_up("lookup", view, &questions, &expected, system, coverage).await {
                fail(i, error);
            }
        }
    }

    for batch in batches(&source.rows[later..]) {
        system.ingest(name, source, batch).await?;
    }
    let count = system.admitted(name, source).await?;
    let expected = match &source.primary_key {
        Some(key) => {
            let key = source.column(key);
            admitted.iter().flatten().map(|row| &row.cells[key]).collect::<BTreeSet<_>>().len()
        }
        None => admitted.iter().flatten().count(),
    };
    if count != expected {
        bail!("{count} rows of {} admitted, by definition {expected}", source.rows.len());
    }

    let rows: Vec<&Row> = admitted_rows(source.rows.len()).collect();
    let ends_us = admission::until(source, &rows);
    let now_us = rows.iter().map(|row| row.event_time_us).max().unwrap_or(0);
    // An hour after everything: every step that a probe can see is final.
    let final_us = now_us + 3_600_000_000;
    postgres.load(source, admitted_rows(source.rows.len())).await?;
    let mut all_expected = Vec::new();
    for (i, (view, probes)) in case.views.iter().enumerate() {
        let (at_end, at_last) = (at(now_us, probes), at(final_us, probes));
        let instants: Vec<i64> = every(probes, AS_OF_INSTANTS).map(|probe| probe.t_us).collect();
        let as_of: Vec<Vec<Probe>> = instants.iter().map(|t_us| at(*t_us, probes)).collect();
        let questions = [&probes[..], &at_end[..], &at_last[..], &as_of.concat()[..]].concat();
        coverage.probes += questions.len();
        let expected = postgres.expected(source, view, &questions).await?;
        if expected.len() != questions.len() {
            bail!("PostgreSQL gives {} answers to {} questions", expected.len(), questions.len());
        }
        for (probe, expected) in questions.iter().zip(&expected) {
            coverage.count(view, expected, what_became(case, &admitted, &ends_us, &view.key, probe));
        }
        let mut rest = expected;
        let mut expected_as_of = rest.split_off(probes.len() + at_end.len() + at_last.len());
        let expected_at_last = rest.split_off(probes.len() + at_end.len());
        let expected_at_end = rest.split_off(probes.len());
        let expected = rest;
        if made[i] {
            let looked_up =
                looked_up("lookup at the end", &named[i], &at_end, &expected_at_end, system, coverage).await;
            if let Err(error) = looked_up {
                fail(i, error);
            }
            let text = system.probes_sql(name, &named[i]).await;
            let answers = match text {
                Ok(text) => postgres.by_probes_sql(view, &text).await,
                Err(error) => Err(error),
            };
            let answers = answers.map(|mut answers| {
                answers.truncate(probes.len());
                answers
            });
            let mut checks = vec![agree("EXPLAIN (FORMAT PROBES)", probes, &expected, answers, coverage)];
            if asks_all || spine_is_early(i) {
                let spine = system.spine(&named[i], probes).await;
                checks.push(agree("ASOF JOIN above the frontier", probes, &expected, spine, coverage));
            }
            for questions in &as_of {
                let later = expected_as_of.split_off(questions.len());
                let Some(first) = questions.first() else { continue };
                let keys: Vec<Vec<String>> = questions.iter().map(|question| question.key.clone()).collect();
                let answers = system.lookup_as_of(&named[i], &keys, first.t_us).await;
                checks.push(agree("AS OF above the frontier", questions, &expected_as_of, answers, coverage));
                expected_as_of = later;
            }
            for error in checks.into_iter().filter_map(Result::err) {
                fail(i, error);
            }
        }
        all_expected.push((expected, at_last, expected_at_last));
    }

    system.finish(name, source, final_us).await?;
    for (i, (_, probes)) in case.views.iter().enumerate().filter(|(i, _)| made[*i]) {
        let (expected, at_last, expected_at_last) = &all_expected[i];
        let looked_up =
            looked_up("lookup of what is final", &named[i], at_last, expected_at_last, system, coverage).await;
        if let Err(error) = looked_up {
            fail(i, error);
        }
        if asks_all || !spine_is_early(i) {
            let spine = system.spine(&named[i], probes).await;
            if let Err(error) = agree("ASOF JOIN over final history", probes, expected, spine, coverage) {
                fail(i, error);
            }
        }
        let checked = match system.history(&named[i]).await {
            Ok(steps) => history_agrees(&named[i], probes, expected, &steps, coverage),
            Err(error) => Err(error),
        };
        if let Err(error) = checked {
            fail(i, error.context("history"));
        }
    }
    Ok(())
}

/// Two views of four, so that there are both kinds among those looked up in the middle and among those looked up later.
fn spine_is_early(view: usize) -> bool {
    matches!(view % 4, 0 | 3)
}

/// One question for each key that the probes ask about.
fn at(now_us: i64, probes: &[Probe]) -> Vec<Probe> {
    let keys: BTreeSet<&Vec<String>> = probes.iter().map(|probe| &probe.key).collect();
    keys.into_iter().map(|key| Probe { key: key.clone(), t_us: now_us }).collect()
}

async fn looked_up(
    reader: &str,
    view: &Named<'_>,
    questions: &[Probe],
    expected: &[Expected],
    system: &mut dyn UnderTest,
    coverage: &mut Coverage,
) -> Result<()> {
    let keys: Vec<Vec<String>> = questions.iter().map(|question| question.key.clone()).collect();
    let answers = system.lookup_now(view, &keys).await;
    agree(reader, questions, expected, answers, coverage)
}

fn agree<'a>(
    reader: &str,
    probes: &[Probe],
    expected: impl IntoIterator<Item = &'a Expected>,
    answers: Result<Vec<Answer>>,
    coverage: &mut Coverage,
) -> Result<()> {
    let answers = answers.with_context(|| reader.to_owned())?;
    let expected: Vec<&Expected> = expected.into_iter().collect();
    if answers.len() != expected.len() {
        bail!("{reader}: {} answers to {} probes", answers.len(), expected.len());
    }
    for ((probe, expected), actual) in probes.iter().zip(expected).zip(&answers) {
        coverage.comparisons += 1;
        compare(&expected.answer, actual).map_err(|e| anyhow!("{reader} at {}: {e}", describe(probe)))?;
    }
    Ok(())
}

/// A plain as-of join on the instants of the steps, as any reader of the Iceberg table would do it.
fn history_agrees(
    named: &Named<'_>,
    probes: &[Probe],
    expected: &[Expected],
    steps: &[Step],
    coverage: &mut Coverage,
) -> Result<()> {
    let outputs = &named.view.outputs;
    let mut of_key: std::collections::BTreeMap<&[String], Vec<&Step>> = Default::default();
    for step in steps {
        let steps = of_key.entry(&step.key).or_default();
        if let Some(before) = steps.last() {
            let same = before.values == step.values && before.event_time_us == step.event_time_us;
            let unchanged = before.op != "delete" && step.op == "upsert" && same;
            if before.instant_us >= step.instant_us {
                bail!("two steps of {:?} at {}", step.key, crate::model::instant(step.instant_us));
            }
            if unchanged && !outputs.iter().any(|o| o.is_continuous()) {
                bail!("a step of {:?} without a change at {}", step.key, crate::model::instant(step.instant_us));
            }
            if step.op == "carry" && (before.op == "delete" || !same) {
                bail!("a carry of {:?} that repeats nothing at {}", step.key, crate::model::instant(step.instant_us));
            }
        }
        steps.push(step);
    }
    for (probe, expected) in probes.iter().zip(expected) {
        coverage.comparisons += 1;
        let steps = of_key.get(canonical_key(named, &probe.key).as_slice()).map(Vec::as_slice).unwrap_or_default();
        let holding = steps.iter().rev().find(|step| step.instant_us <= probe.t_us).filter(|step| step.op != "delete");
        let kept = |values: &Vec<_>| -> Vec<_> {
            let kept = values.iter().zip(outputs).filter(|(_, output)| !output.is_continuous());
            kept.map(|(value, _): (&crate::value::Value, _)| value.clone()).collect()
        };
        compare(&expected.answer.as_ref().map(kept), &holding.map(|step| step.values.clone()))
            .map_err(|e| anyhow!("as-of join at {}: {e}", describe(probe)))?;
        if holding.is_some_and(|step| step.event_time_us != expected.event_time_us) {
            bail!("_event_time is wrong at {}", describe(probe));
        }
    }
    Ok(())
}

/// The key as query results print it.
pub fn canonical_key(named: &Named<'_>, key: &[String]) -> Vec<String> {
    let types = named.view.key.iter().map(|name| named.source.columns[named.source.column(name)].1);
    key.iter()
        .zip(types)
        .map(|(text, ty)| match ty {
            Ty::Bool => text[..1].to_owned(),
            _ => text.clone(),
        })
        .collect()
}

fn describe(probe: &Probe) -> String {
    format!("({}, {})", probe.key.join(", "), crate::model::instant(probe.t_us))
}

fn every<T>(items: &[T], count: usize) -> impl Iterator<Item = &T> {
    items.iter().step_by(items.len().div_ceil(count).max(1))
}

/// What the probe's key has lost before it: rows that came late, rows of a table that others have replaced. `ends_us` has for
/// each row when it was.
fn what_became(
    case: &Case,
    admitted: &[Option<Row>],
    ends_us: &[Option<i64>],
    key: &[String],
    probe: &Probe,
) -> Before {
    let columns: Vec<usize> = key.iter().map(|name| case.source.column(name)).collect();
    let is_of_key = |row: &Row| columns.iter().zip(&probe.key).all(|(i, k)| row.cells[*i].as_ref() == Some(k));
    let mut rows = case.source.rows.iter().zip(admitted);
    let late = rows.any(|(row, admitted)| admitted.is_none() && row.event_time_us <= probe.t_us && is_of_key(row));
    let mut rows = admitted.iter().flatten().zip(ends_us);
    let delete = rows.any(|(row, end_us)| end_us.is_some_and(|us| us <= probe.t_us) && is_of_key(row));
    Before { late, delete }
}

/// Batches of unequal size, so that steps fall on either side of their borders.
fn batches(rows: &[Row]) -> impl Iterator<Item = &[Row]> {
    let mut rest = rows;
    let mut size = 1;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (batch, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        size = size % 23 + 4;
        Some(batch)
    })
}
