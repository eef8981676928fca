//! The oracle's own test: a system that answers by the definition must pass, one that is a microsecond off must be
//! caught and its case shrunk. An oracle that cannot fail proves nothing.

use crate::coverage::Coverage;
use crate::model::{Case, Probe, Row, Source};
use crate::postgres::{Expected, Postgres};
use crate::under_test::{Named, Step, UnderTest};
use crate::value::{Answer, Value};
use crate::{admission, check, generate, plan, shrink};
use anyhow::{Context, Result};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};

/// Answers from a PostgreSQL of its own, for `t + shift_us` instead of `t`.
struct StandIn {
    postgres: Postgres,
    sources: BTreeMap<String, Source>,
    /// Where watermarks were moved to.
    finished_us: BTreeMap<String, i64>,
    shift_us: i64,
}

impl StandIn {
    async fn expected(&self, view: &Named<'_>, probes: &[Probe]) -> Result<Vec<Expected>> {
        let (source, _) = view.name.split_once("_v").context("a view's name")?;
        let source = self.sources.get(source).context("no such source")?;
        let admitted = admission::admitted(source);
        self.postgres.load(source, admitted.iter().flatten()).await?;
        let shifted: Vec<Probe> =
            probes.iter().map(|p| Probe { key: p.key.clone(), t_us: p.t_us + self.shift_us }).collect();
        self.postgres.expected(source, view.view, &shifted).await
    }

    async fn answers(&self, view: &Named<'_>, probes: &[Probe]) -> Result<Vec<Answer>> {
        Ok(self.expected(view, probes).await?.into_iter().map(|e| e.answer).collect())
    }
}

#[async_trait]
impl UnderTest for StandIn {
    async fn create_source(&mut self, name: &str, source: &Source) -> Result<()> {
        self.sources.insert(name.to_owned(), Source { rows: vec![], ..source.clone() });
        Ok(())
    }

    async fn create_view(&mut self, _: &str, _: &Named<'_>) -> Result<()> {
        Ok(())
    }

    async fn probes_sql(&mut self, _: &str, view: &Named<'_>) -> Result<String> {
        plan::probes_text(view.source, view.view)
    }

    async fn ingest(&mut self, name: &str, _: &Source, rows: &[Row]) -> Result<()> {
        self.sources.get_mut(name).context("no such source")?.rows.extend_from_slice(rows);
        Ok(())
    }

    async fn admitted(&mut self, name: &str, _: &Source) -> Result<usize> {
        let source = self.sources.get(name).context("no such source")?;
        let admitted = admission::admitted(source);
        Ok(match &source.primary_key {
            Some(key) => {
                let key = source.column(key);
                admitted.iter().flatten().map(|row| &row.cells[key]).collect::<BTreeSet<_>>().len()
            }
            None => admitted.iter().flatten().count(),
        })
    }

    async fn lookup_now(&mut self, view: &Named<'_>, keys: &[Vec<String>]) -> Result<Vec<Answer>> {
        let (name, _) = view.name.split_once("_v").context("a view's name")?;
        let source = self.sources.get(name).context("no such source")?;
        let now_us = source.rows.iter().map(|row| row.event_time_us).max().unwrap_or(0);
        let now_us = now_us.max(self.finished_us.get(name).copied().unwrap_or(i64::MIN));
        let probes: Vec<Probe> = keys.iter().map(|key| Probe { key: key.clone(), t_us: now_us }).collect();
        self.answers(view, &probes).await
    }

    async fn lookup_as_of(&mut self, view: &Named<'_>, keys: &[Vec<String>], t_us: i64) -> Result<Vec<Answer>> {
        let probes: Vec<Probe> = keys.iter().map(|key| Probe { key: key.clone(), t_us }).collect();
        self.answers(view, &probes).await
    }

    async fn spine(&mut self, view: &Named<'_>, probes: &[Probe]) -> Result<Vec<Answer>> {
        self.answers(view, probes).await
    }

    async fn finish(&mut self, name: &str, _: &Source, to_us: i64) -> Result<()> {
        self.finished_us.insert(name.to_owned(), to_us);
        Ok(())
    }

    /// V at every instant where it may change, without the rows that repeat the one before.
    async fn history(&mut self, view: &Named<'_>) -> Result<Vec<Step>> {
        let columns: Vec<usize> = view.view.key.iter().map(|name| view.source.column(name)).collect();
        let mut probes = BTreeSet::new();
        let admitted = admission::admitted(view.source);
        for row in admitted.iter().flatten() {
            let key: Option<Vec<String>> = columns.iter().map(|i| row.cells[*i].clone()).collect();
            let Some(key) = key else { continue };
            let changes = view.view.changes(row.event_time_us).into_iter();
            // Any row that comes may end one of this key.
            let ends = admitted.iter().flatten().filter(|_| view.source.primary_key.is_some());
            let ends = ends.map(|row| row.event_time_us);
            probes.extend(changes.chain(ends).map(|t_us| Probe { key: key.clone(), t_us }));
        }
        let probes: Vec<Probe> = probes.into_iter().collect();
        let mut steps: Vec<Step> = Vec::new();
        for (probe, expected) in probes.iter().zip(self.expected(view, &probes).await?) {
            let key = check::canonical_key(view, &probe.key);
            let before = steps.last().filter(|step| step.key == key);
            let kept = |values: Vec<Value>| -> Vec<Value> {
                let kept = values.into_iter().zip(&view.view.outputs).filter(|(_, output)| !output.is_continuous());
                kept.map(|(value, _)| value).collect()
            };
            let was_absent = before.is_none_or(|step| step.op == "delete");
            let (op, values) = match expected.answer {
                Some(values) => ("upsert", kept(values)),
                None if was_absent => continue,
                None => ("delete", vec![]),
            };
            let same = before.is_some_and(|b| b.values == values && b.event_time_us == expected.event_time_us);
            if op == "upsert" && !was_absent && same {
                continue;
            }
            let op = op.to_owned();
            steps.push(Step { key, instant_us: probe.t_us, op, event_time_us: expected.event_time_us, values });
        }
        steps.sort_by_key(|step| step.instant_us);
        Ok(steps)
    }

    async fn drop_case(&mut self, source_name: &str, _: &Case) -> Result<()> {
        self.sources.remove(source_name);
        self.finished_us.remove(source_name);
        Ok(())
    }

    fn is_alive(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn the_oracle_accepts_the_definition_and_catches_one_microsecond() -> Result<()> {
    let postgres = Postgres::start().await?;
    let mut system = StandIn {
        postgres: Postgres::start().await?,
        sources: BTreeMap::new(),
        finished_us: BTreeMap::new(),
        shift_us: 0,
    };
    let case = generate::case(3, 6).in_one();
    let failures = check::check(&case, "right", &postgres, &mut system, &mut Coverage::default()).await;
    assert!(failures.is_empty(), "{failures:?}");

    system.shift_us = 1;
    let failures = check::check(&case, "wrong", &postgres, &mut system, &mut Coverage::default()).await;
    let view = failures.iter().find_map(|f| f.view).context("a microsecond went unnoticed")?;
    let small = shrink::shrink(&case, view, &postgres, &mut system).await;
    assert!(small.source.rows.len() < case.source.rows.len() / 4, "{} rows left", small.source.rows.len());
    let failures = check::check(&small, "small", &postgres, &mut system, &mut Coverage::default()).await;
    assert!(!failures.is_empty(), "the small case does not fail");
    Ok(())
}
