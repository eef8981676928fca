//! The engine alone under the oracle: planner, admission and running feature views in this process, without server,
//! log or stores. What fails here is a matter of meaning; what fails only over the wire is not.

use crate::coverage::Coverage;
use crate::model::{Case, Probe, Row, Source, Ty};
use crate::postgres::Postgres;
use crate::under_test::{Named, Step, UnderTest};
use crate::value::{Answer, Value};
use crate::{check, generate, plan, shrink};
use anyhow::{Context, Result, bail};
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Float64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Decimal128Type, DecimalType, DurationMicrosecondType, Float32Type, Float64Type, Int64Type,
    IntervalMonthDayNanoType, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use arrow::util::display::array_value_to_string;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_catalog::{Body, Column, FeatureView, Object, ObjectId, SqlType};
use tidemark_engine::admission::{Admission, event_times};
use tidemark_engine::compiled::{BatchRows, CompiledView};
use tidemark_engine::current::{CurrentRows, Replaced};
use tidemark_engine::seam::{AdmittedBatch, RejectReason, SourceBatch};
use tidemark_engine::value::{encode_row, values_of};
use tidemark_engine::view::{self, ViewState};

const CASES: u64 = 12;
const VIEWS: usize = 10;
/// Whatever the machine has: how work is spread must not show.
const THREADS: usize = 3;

/// One source: its log with the decisions on it, and the views that read it.
struct Running {
    object: Object,
    admission: Admission,
    log: Vec<(RecordBatch, AdmittedBatch)>,
    /// Of a table: its rows, and what each batch of the log has replaced.
    current: CurrentRows,
    replaced: Vec<Replaced>,
    views: BTreeMap<String, ViewState>,
    /// The effective time of the last change of each key, where rows replace one another.
    changed_us: BTreeMap<String, i64>,
    /// Whether steps are finished after every batch, or only at the end: readers must not be able to tell.
    eager: bool,
}

#[derive(Default)]
struct InProcess {
    sources: BTreeMap<String, Running>,
    created: usize,
}

impl Running {
    fn take(&self, view: &ViewState, batch: usize) -> Result<()> {
        let base_offset = self.log[..batch].iter().map(|(rows, _)| rows.num_rows() as u64).sum();
        let (rows, decision) = &self.log[batch];
        let event_time = self.object.relation().and_then(|r| r.event_time).context("no event time")?;
        let times_us: Vec<i64> = match decision.effective_us.is_empty() {
            true => event_times(rows, event_time)?.into_iter().map(Option::unwrap_or_default).collect(),
            false => decision.effective_us.clone(),
        };
        let rejected: Vec<u32> = decision.rejected.iter().map(|r| r.row).collect();
        let replaced = self.replaced.get(batch);
        let taken = BatchRows {
            branch: 0,
            from: None,
            rows,
            base_offset,
            times_us: &times_us,
            rejected: &rejected,
            deletes: &[],
            replaced,
        };
        let failures = view.apply(&taken)?;
        // Generated expressions cannot fail on a row.
        if let Some(failure) = failures.iter().find(|failure| failure.reason == RejectReason::Expression) {
            bail!("row {} of batch {batch} is excluded: {}", failure.row, failure.error);
        }
        if self.eager {
            view.finish(decision.frontier_us, usize::MAX)?;
        }
        Ok(())
    }

    fn now_us(&self) -> i64 {
        self.admission.max_event_us.max(self.admission.frontier_us)
    }
}

impl InProcess {
    fn running(&self, view: &Named<'_>) -> Result<(&Running, &ViewState)> {
        let (source, _) = view.name.rsplit_once("_v").context("a view's name")?;
        let running = self.sources.get(source).context("no such source")?;
        Ok((running, running.views.get(&view.name).context("no such view")?))
    }

    fn encoded(view: &Named<'_>, key: &[String]) -> Result<Vec<u8>> {
        let mut values = Vec::new();
        for (text, name) in key.iter().zip(&view.view.key) {
            let array = column(view.source.columns[view.source.column(name)].1, vec![Some(text)])?;
            values.extend(values_of(&array)?);
        }
        Ok(encode_row(&values))
    }

    /// A plain as-of join on all steps, then read at the probe's instant.
    fn as_of(&self, view: &Named<'_>, probes: &[Probe]) -> Result<Vec<Answer>> {
        let (running, state) = self.running(view)?;
        let (_, steps) = state.steps_above_history(running.now_us(), None)?;
        let mut answers = Vec::new();
        for probe in probes {
            let encoded = Self::encoded(view, &probe.key)?;
            let of_key = steps.iter().filter(|s| encode_row(s.key) == encoded && s.instant_us <= probe.t_us);
            let holding = of_key.max_by_key(|s| s.instant_us).filter(|s| s.op != view::Op::Delete);
            answers.push(match holding {
                Some(step) => Some(outputs(view, &state.compiled.visible(&[&step.row()], probe.t_us)?, 0)?),
                None => None,
            });
        }
        Ok(answers)
    }
}

/// The view's outputs in one row of a batch that names them.
fn outputs(view: &Named<'_>, batch: &RecordBatch, row: usize) -> Result<Vec<Value>> {
    let numbered = view.view.outputs.iter().enumerate();
    let kept = numbered.filter(|(i, _)| batch.column_by_name(&format!("o{i}")).is_some());
    kept.map(|(i, output)| {
        let array = batch.column_by_name(&format!("o{i}")).context("no such output")?;
        value(array, row, output.ty)
    })
    .collect()
}

fn value(array: &ArrayRef, row: usize, ty: Ty) -> Result<Value> {
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    let text = match (ty, array.data_type()) {
        (Ty::Int2 | Ty::Int4 | Ty::Int8, _) => {
            return Ok(Value::Int(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().value(row)));
        }
        (Ty::Float4, DataType::Float32) => {
            let bits = array.as_primitive::<Float32Type>().value(row);
            return crate::value::parse(Some(&format!("{bits:?}")), ty);
        }
        (Ty::Bytea, DataType::Binary) => array
            .as_binary::<i32>()
            .value(row)
            .iter()
            .fold("\\x".to_owned(), |text, byte| text + &format!("{byte:02x}")),
        (Ty::Date, DataType::Date32) => array_value_to_string(array, row)?,
        (Ty::Time, DataType::Time64(TimeUnit::Microsecond)) => {
            return Ok(Value::Interval(array.as_primitive::<Time64MicrosecondType>().value(row)));
        }
        (Ty::Timestamp, DataType::Timestamp(TimeUnit::Microsecond, None)) => {
            return Ok(Value::Instant(array.as_primitive::<TimestampMicrosecondType>().value(row)));
        }
        (Ty::Float8, DataType::Float64) => {
            let bits = array.as_primitive::<Float64Type>().value(row);
            return crate::value::parse(Some(&format!("{bits:?}")), ty);
        }
        (Ty::Numeric, DataType::Decimal128(precision, scale)) => {
            Decimal128Type::format_decimal(array.as_primitive::<Decimal128Type>().value(row), *precision, *scale)
        }
        (Ty::Text, DataType::Utf8) => array.as_string::<i32>().value(row).to_owned(),
        (Ty::Bool, DataType::Boolean) => return Ok(Value::Bool(array.as_boolean().value(row))),
        (Ty::Instant, DataType::Timestamp(TimeUnit::Microsecond, _)) => {
            return Ok(Value::Instant(array.as_primitive::<TimestampMicrosecondType>().value(row)));
        }
        (Ty::Interval, DataType::Duration(TimeUnit::Microsecond)) => {
            return Ok(Value::Interval(array.as_primitive::<DurationMicrosecondType>().value(row)));
        }
        (Ty::Interval, DataType::Interval(_)) => {
            let interval = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            return Ok(Value::Interval(i64::from(interval.days) * 86_400_000_000 + interval.nanoseconds / 1_000));
        }
        (ty, other) => bail!("{ty:?} is held as {other}"),
    };
    crate::value::parse(Some(&text), ty)
}

fn column(ty: Ty, cells: Vec<Option<&String>>) -> Result<ArrayRef> {
    if matches!(ty, Ty::Float4 | Ty::Float8) {
        let numbers: Result<Vec<Option<f64>>, _> =
            cells.into_iter().map(|c| c.map(|c| c.parse()).transpose()).collect();
        return Ok(cast(&Float64Array::from(numbers?), &plan::sql_type(ty).arrow())?);
    }
    if ty == Ty::Bytea {
        let byte = |pair: &[u8]| -> Result<u8> { Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?) };
        let bytes = |cell: &String| cell.as_bytes()[2..].chunks(2).map(byte).collect::<Result<Vec<u8>>>();
        let bytes: Vec<Option<Vec<u8>>> = cells.into_iter().map(|c| c.map(bytes).transpose()).collect::<Result<_>>()?;
        return Ok(Arc::new(BinaryArray::from_iter(bytes)));
    }
    let texts: ArrayRef =
        Arc::new(StringArray::from(cells.into_iter().map(|c| c.map(String::as_str)).collect::<Vec<_>>()));
    Ok(cast(&texts, &plan::sql_type(ty).arrow())?)
}

#[async_trait]
impl UnderTest for InProcess {
    async fn create_source(&mut self, name: &str, source: &Source) -> Result<()> {
        let object = plan::object(source);
        let admission = Admission::new(object.relation().context("not a relation")?);
        self.created += 1;
        let eager = self.created.is_multiple_of(2);
        let (views, changed_us) = (BTreeMap::new(), BTreeMap::new());
        let current = CurrentRows::new(object.relation().map_or(&[], |relation| &relation.primary_key));
        let running = Running { object, admission, log: vec![], current, replaced: vec![], views, changed_us, eager };
        self.sources.insert(name.to_owned(), running);
        Ok(())
    }

    async fn create_view(&mut self, source_name: &str, view: &Named<'_>) -> Result<()> {
        let plan = plan::feature_plan(view.source, view.view)?;
        let columns = plan.outputs.iter().map(|output| {
            let ty = SqlType::from_arrow(&output.ty).context("a type without a name")?;
            Ok(Column { name: output.name.clone(), ty, not_null: false, comment: None })
        });
        let body = FeatureView {
            sql: String::new(),
            query: String::new(),
            relation: plan.relations()[0],
            others: plan.relations()[1..].to_vec(),
            columns: columns.collect::<Result<_>>()?,
            key: plan.key_outputs(),
            time: plan.time_output(),
            features: vec![],
            ttl_us: plan.ttl_us,
            time_zone: "UTC".to_owned(),
            owner: None,
            tags: vec![],
            options: BTreeMap::new(),
            version: 1,
            through: vec![],
            history_start_us: None,
        };
        let id = ObjectId(ObjectId::FIRST.0 + 1);
        let object = Object {
            id,
            name: view.name.clone(),
            created_us: 0,
            comment: None,
            place: Default::default(),
            body: Body::FeatureView(body),
        };
        let running = self.sources.get_mut(source_name).context("no such source")?;
        let state = ViewState::new(id, Arc::new(CompiledView::new(&object, plan)?), i64::MIN, THREADS, None, vec![]);
        for batch in 0..running.log.len() {
            running.take(&state, batch)?;
        }
        running.views.insert(view.name.clone(), state);
        Ok(())
    }

    async fn probes_sql(&mut self, _: &str, view: &Named<'_>) -> Result<String> {
        plan::probes_text(view.source, view.view)
    }

    async fn ingest(&mut self, name: &str, source: &Source, rows: &[Row]) -> Result<()> {
        let running = self.sources.get_mut(name).context("no such source")?;
        let columns = source.columns.iter().enumerate();
        let columns = columns.map(|(i, (_, ty))| column(*ty, rows.iter().map(|row| row.cells[i].as_ref()).collect()));
        let schema = running.object.schema();
        let batch = RecordBatch::try_new(schema, columns.collect::<Result<_>>()?)?;
        let key = source.primary_key.as_ref().map(|name| source.column(name));
        let decision = running.admission.decide(&batch, 0, None, |row, time| {
            let Some(key) = key.and_then(|key| rows[row].cells[key].clone()) else { return time };
            let changed_us = running.changed_us.entry(key).or_insert(time);
            *changed_us = time.max(*changed_us);
            *changed_us
        })?;
        if key.is_some() {
            let base_offset = running.log.iter().map(|(rows, _)| rows.num_rows() as u64).sum();
            let rows = batch.clone();
            let stored = SourceBatch { partition: 0, base_offset, append_time_us: 0, rows, admission: None };
            running.replaced.push(running.current.take(&stored, &decision, true)?);
        }
        running.log.push((batch, decision));
        let last = running.log.len() - 1;
        for view in running.views.values() {
            running.take(view, last)?;
        }
        Ok(())
    }

    async fn admitted(&mut self, name: &str, _: &Source) -> Result<usize> {
        let running = self.sources.get(name).context("no such source")?;
        if running.object.relation().is_some_and(|relation| relation.upsert) {
            return Ok(running.changed_us.len());
        }
        Ok(running.log.iter().map(|(rows, decision)| rows.num_rows() - decision.rejected.len()).sum())
    }

    async fn lookup_now(&mut self, view: &Named<'_>, keys: &[Vec<String>]) -> Result<Vec<Answer>> {
        let (running, state) = self.running(view)?;
        let now_us = running.now_us();
        keys.iter()
            .map(|key| match state.lookup(&Self::encoded(view, key)?, now_us)? {
                Some(row) => outputs(view, &state.compiled.visible(&[&row], now_us)?, 0).map(Some),
                None => Ok(None),
            })
            .collect()
    }

    async fn lookup_as_of(&mut self, view: &Named<'_>, keys: &[Vec<String>], t_us: i64) -> Result<Vec<Answer>> {
        let probes: Vec<Probe> = keys.iter().map(|key| Probe { key: key.clone(), t_us }).collect();
        self.as_of(view, &probes)
    }

    async fn spine(&mut self, view: &Named<'_>, probes: &[Probe]) -> Result<Vec<Answer>> {
        self.as_of(view, probes)
    }

    async fn finish(&mut self, source_name: &str, _: &Source, to_us: i64) -> Result<()> {
        let running = self.sources.get_mut(source_name).context("no such source")?;
        let decision = running.admission.advance(to_us);
        for view in running.views.values() {
            view.finish(decision.frontier_us, usize::MAX)?;
        }
        Ok(())
    }

    async fn history(&mut self, view: &Named<'_>) -> Result<Vec<Step>> {
        let (_, state) = self.running(view)?;
        let pending = state.pending();
        let all: Vec<view::Step<'_>> = pending.chunks.iter().flat_map(|chunk| chunk.iter()).collect();
        let batch = state.compiled.steps(&all, None)?;
        let mut steps = Vec::new();
        for (i, step) in all.iter().enumerate() {
            let mut key = Vec::new();
            for name in &view.view.key {
                let ty = view.source.columns[view.source.column(name)].1;
                let array = batch.column_by_name(name).context("no key column")?;
                key.push(match value(array, i, ty)? {
                    Value::Int(number) => number.to_string(),
                    Value::Text(text) => text,
                    Value::Bool(yes) => (if yes { "t" } else { "f" }).to_owned(),
                    other => bail!("a key is {other:?}"),
                });
            }
            let (instant_us, op) = (step.instant_us, step.op.as_str().to_owned());
            let values = outputs(view, &batch, i)?;
            steps.push(Step { key, instant_us, op, event_time_us: Some(step.event_us), values });
        }
        steps.sort_by_key(|step| step.instant_us);
        Ok(steps)
    }

    async fn drop_case(&mut self, source_name: &str, _: &Case) -> Result<()> {
        self.sources.remove(source_name);
        Ok(())
    }

    fn is_alive(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn the_engine_alone_agrees_with_the_definition() -> Result<()> {
    let postgres = Postgres::start().await?;
    let mut system = InProcess::default();
    let mut coverage = Coverage::default();
    let mut wrong = Vec::new();
    for seed in 1000..1000 + CASES {
        let case = generate::case(seed, VIEWS).in_one();
        for failure in check::check(&case, &format!("e{seed}"), &postgres, &mut system, &mut coverage).await {
            wrong.push(crate::report(&case, failure.view, &failure.error));
            if let (Some(view), 1) = (failure.view, wrong.len()) {
                let small = shrink::shrink(&case, view, &postgres, &mut system).await;
                wrong.push(format!("  shrunk into {}", shrink::keep(&small, view)?.display()));
            }
        }
    }
    if !wrong.is_empty() {
        bail!("{} views: {}", wrong.len(), wrong.join("\n\n"));
    }
    Ok(())
}
