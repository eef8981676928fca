//! Logs in memory. A crash may tear off what was not synced, group by group; after an append of which nobody could tell whether
//! it happened a log takes nothing more until it is opened again, as the embedded one does.

use super::faults::{Fate, Faults, Kind, Part, unknown};
use arrow::{compute::concat_batches, datatypes::SchemaRef};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};
use tidemark_catalog::ObjectId;
use tidemark_engine::{
    runtime::Logs,
    seam::{Origin, Positions, SeamError, SeamResult, Source, SourceBatch},
};

/// What the disk has of one log.
#[derive(Default)]
struct Disk {
    /// What can be read.
    records: Vec<SourceBatch>,
    /// How many records there are after each group.
    groups: Vec<usize>,
    /// So many records are there after a crash for certain.
    synced: usize,
    /// Appended by a call that could not say so: there when the log is opened again.
    hidden: Vec<SourceBatch>,
    is_broken: bool,
}

impl Disk {
    fn end(&self) -> u64 {
        self.records.last().map_or(0, SourceBatch::end_offset)
    }

    /// The records of a group at their offsets.
    fn placed(&self, mut group: Vec<SourceBatch>) -> Vec<SourceBatch> {
        let mut offset = self.end();
        for record in &mut group {
            (record.partition, record.base_offset) = (0, offset);
            offset = record.end_offset();
        }
        group
    }

    fn add(&mut self, group: Vec<SourceBatch>) {
        self.records.extend(group);
        self.groups.push(self.records.len());
    }
}

pub struct SimLogs {
    faults: Arc<Faults>,
    /// Every append is synced before it returns.
    syncs: bool,
    disks: Mutex<BTreeMap<ObjectId, Arc<Mutex<Disk>>>>,
}

struct SimLog {
    faults: Arc<Faults>,
    syncs: bool,
    disk: Arc<Mutex<Disk>>,
}

impl SimLogs {
    pub fn new(faults: Arc<Faults>, syncs: bool) -> SimLogs {
        SimLogs { faults, syncs, disks: Mutex::default() }
    }

    /// These records and no others.
    pub fn with(faults: Arc<Faults>, logs: impl IntoIterator<Item = (ObjectId, Vec<SourceBatch>)>) -> SimLogs {
        let disk = |records: Vec<SourceBatch>| Arc::new(Mutex::new(Disk { records, ..Disk::default() }));
        let disks = logs.into_iter().map(|(id, records)| (id, disk(records))).collect();
        SimLogs { faults, syncs: true, disks: Mutex::new(disks) }
    }

    fn disk(&self, id: ObjectId) -> Arc<Mutex<Disk>> {
        self.disks.lock().entry(id).or_default().clone()
    }

    /// What a reader finds.
    pub fn records(&self, id: ObjectId) -> Vec<SourceBatch> {
        self.disk(id).lock().records.clone()
    }

    /// Whether some log is to be opened again before it takes anything.
    pub fn is_broken(&self) -> bool {
        self.disks.lock().values().any(|disk| disk.lock().is_broken)
    }

    /// The process ends; whether an append that had succeeded is lost.
    pub fn crash(&self) -> bool {
        let mut is_lossy = false;
        for disk in self.disks.lock().values() {
            let mut disk = disk.lock();
            let synced = disk.synced;
            let unsynced = disk.groups.iter().filter(|end| **end > synced).count();
            let torn = self.faults.below(unsynced + 1);
            let groups = disk.groups.len() - torn;
            disk.groups.truncate(groups);
            let records = disk.groups.last().copied().unwrap_or(0);
            disk.records.truncate(records);
            if torn > 0 {
                is_lossy = true;
                disk.hidden.clear();
            }
        }
        is_lossy
    }
}

impl Logs for SimLogs {
    fn open(&self, id: ObjectId, _: SchemaRef) -> SeamResult<Arc<dyn Source>> {
        self.faults.call_now(Part::Log, Kind::Read, || {
            let disk = self.disk(id);
            let mut opened = disk.lock();
            let hidden = std::mem::take(&mut opened.hidden);
            if !hidden.is_empty() {
                opened.add(hidden);
            }
            opened.synced = opened.records.len();
            opened.is_broken = false;
            drop(opened);
            Ok(Arc::new(SimLog { faults: self.faults.clone(), syncs: self.syncs, disk }) as Arc<dyn Source>)
        })
    }

    fn remove(&self, id: ObjectId) -> SeamResult<()> {
        self.faults.call_now(Part::Log, Kind::Write, || {
            self.disks.lock().remove(&id);
            Ok(())
        })
    }
}

impl SimLog {
    /// `None`: nobody hears of it any more.
    fn append_now(&self, batches: Vec<SourceBatch>, fate: Fate) -> Option<SeamResult<Positions>> {
        let mut disk = self.disk.lock();
        let (group, is_broken) = (disk.placed(batches), disk.is_broken);
        match fate {
            Fate::Crash(happens) => {
                if happens && !is_broken {
                    disk.hidden = group;
                }
                None
            }
            _ if is_broken => Some(Err(broken())),
            Fate::Fine => {
                disk.add(group);
                if self.syncs {
                    disk.synced = disk.records.len();
                }
                Some(Ok(Positions([(0, disk.end())].into())))
            }
            Fate::Refused(error) => Some(Err(error)),
            Fate::Unknown(happens) => {
                disk.is_broken = true;
                disk.hidden = if happens { group } else { vec![] };
                Some(Err(unknown()))
            }
        }
    }
}

fn broken() -> SeamError {
    SeamError::NotDone("it takes no more records until it is opened again".to_string())
}

#[async_trait]
impl Source for SimLog {
    async fn append(&self, batches: Vec<SourceBatch>) -> SeamResult<Positions> {
        let fate = self.faults.fate(Part::Log, Kind::Write).await;
        match self.append_now(batches, fate) {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    async fn poll(&self, from: &Positions, rows_max: usize) -> SeamResult<Vec<SourceBatch>> {
        self.faults
            .call(Part::Log, Kind::Read, || {
                let disk = self.disk.lock();
                let begin = disk.records.partition_point(|record| record.end_offset() <= from.get(0));
                let some = 1 + self.faults.below(disk.records.len());
                let mut rows = 0;
                let is_room = |record: &&SourceBatch| {
                    rows += record.rows.num_rows();
                    rows <= rows_max.max(record.rows.num_rows())
                };
                Ok(disk.records[begin..].iter().take(some).take_while(is_room).cloned().collect())
            })
            .await
    }

    async fn range(&self) -> SeamResult<(Positions, Positions)> {
        let end = || Ok((Positions([(0, 0)].into()), Positions([(0, self.disk.lock().end())].into())));
        self.faults.call(Part::Log, Kind::Read, end).await
    }

    async fn kept_from(&self, _: &Positions, _: Option<i64>) -> SeamResult<Positions> {
        Ok(Positions([(0, 0)].into()))
    }

    async fn commit(&self, _: &Positions, _: Option<i64>) -> SeamResult<()> {
        Ok(())
    }

    async fn sync(&self) -> SeamResult<()> {
        match self.faults.fate(Part::Log, Kind::Write).await {
            Fate::Fine if !self.disk.lock().is_broken => {
                let mut disk = self.disk.lock();
                disk.synced = disk.records.len();
                Ok(())
            }
            Fate::Fine => Err(broken()),
            Fate::Refused(error) => Err(error),
            Fate::Unknown(_) => {
                self.disk.lock().is_broken = true;
                Err(unknown())
            }
            Fate::Crash(_) => std::future::pending().await,
        }
    }
}

/// The same records, those between two control records as one: how rows were batched must not show.
pub fn merged(records: &[SourceBatch]) -> Vec<SourceBatch> {
    let mut all: Vec<SourceBatch> = vec![];
    for record in records {
        let is_control = |record: &SourceBatch| record.rows.num_rows() == 0;
        match all.last_mut().filter(|last| !is_control(last) && !is_control(record)) {
            Some(last) => join(last, record),
            None => all.push(record.clone()),
        }
    }
    all
}

fn join(last: &mut SourceBatch, record: &SourceBatch) {
    let rows_before = last.rows.num_rows() as u32;
    let (Some(all), Some(next)) = (&mut last.admission, record.admission.clone()) else { panic!("it was admitted") };
    all.rejected.extend(next.rejected.into_iter().map(|mut reject| {
        reject.row += rows_before;
        reject
    }));
    all.effective_us.extend(next.effective_us);
    all.deletes.extend(next.deletes.into_iter().map(|row| row + rows_before));
    (all.frontier_us, all.max_event_us) = (next.frontier_us, next.max_event_us);
    if let (Some(all), Some(next)) = (&mut all.origin, next.origin) {
        join_origins(all, next, rows_before);
    }
    last.append_time_us = record.append_time_us;
    last.rows = concat_batches(&last.rows.schema(), [&last.rows, &record.rows]).expect("rows of one source");
}

fn join_origins(all: &mut Origin, next: Origin, rows_before: u32) {
    all.runs.extend(next.runs.into_iter().map(|mut run| {
        run.row += rows_before;
        run
    }));
    all.undecoded.extend(next.undecoded);
    all.taken.retain(|taken| next.taken.iter().all(|later| later.partition != taken.partition));
    all.taken.extend(next.taken);
}
