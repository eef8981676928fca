//! Batches on disk, in the session's temporary files. A file has one owner and goes with it.

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::ipc::reader::StreamReader;
use datafusion::error::Result;
use datafusion::execution::disk_manager::RefCountedTempFile;
use datafusion::physical_plan::SpillManager;
use std::fs::File;
use std::io::BufReader;

/// A file that has been written.
pub struct Spilled {
    file: RefCountedTempFile,
    pub rows: usize,
}

impl Spilled {
    /// From the first batch. The file must live as long.
    pub fn read(&self) -> Result<Batches> {
        let reader = StreamReader::try_new(BufReader::new(File::open(self.file.path())?), None)?;
        Ok(Batches { reader, _file: None })
    }

    /// From the first batch; the file goes with the last.
    pub fn into_batches(self) -> Result<Batches> {
        let reader = self.read()?.reader;
        Ok(Batches { reader, _file: Some(self.file) })
    }
}

/// The batches of a file in order.
pub struct Batches {
    reader: StreamReader<BufReader<File>>,
    _file: Option<RefCountedTempFile>,
}

impl Batches {
    /// `None` at the end.
    pub fn next(&mut self) -> Result<Option<RecordBatch>> {
        Ok(self.reader.next().transpose()?)
    }
}

/// Appends a batch, or with `None` ends the file; the type of the file that is being written has no public name.
type Writer = Box<dyn FnMut(Option<&RecordBatch>) -> Result<Option<RefCountedTempFile>> + Send>;

/// Files of one schema that are being written.
pub struct Files {
    manager: SpillManager,
    writers: Vec<Option<Writer>>,
    rows: Vec<usize>,
}

impl Files {
    pub fn new(manager: &SpillManager, count: usize) -> Files {
        Files { manager: manager.clone(), writers: (0..count).map(|_| None).collect(), rows: vec![0; count] }
    }

    /// Errors: of the disk, and that of the disk manager where there would be more than it allows.
    pub fn append(&mut self, file: usize, batch: &RecordBatch) -> Result<()> {
        let writer = match &mut self.writers[file] {
            Some(writer) => writer,
            none => {
                let mut file = self.manager.create_in_progress_file("ASOF JOIN")?;
                none.insert(Box::new(move |batch| match batch {
                    Some(batch) => file.append_batch(batch).map(|_| None),
                    None => file.finish(),
                }))
            }
        };
        writer(Some(batch))?;
        self.rows[file] += batch.num_rows();
        Ok(())
    }

    /// The rows of a batch to the files that they belong to.
    pub fn deal(&mut self, batch: &RecordBatch, rows: Vec<Vec<u32>>) -> Result<()> {
        for (file, rows) in rows.into_iter().enumerate() {
            if rows.len() == batch.num_rows() {
                self.append(file, batch)?;
            } else if !rows.is_empty() {
                self.append(file, &take_record_batch(batch, &UInt32Array::from(rows))?)?;
            }
        }
        Ok(())
    }

    /// `None` where nothing was written.
    pub fn finish(self) -> Result<Vec<Option<Spilled>>> {
        let files = self.writers.into_iter().zip(self.rows).map(|(writer, rows)| {
            let file = writer.map_or(Ok(None), |mut writer| writer(None))?;
            Ok(file.map(|file| Spilled { file, rows }))
        });
        files.collect()
    }

    /// The only one.
    pub fn finish_one(self) -> Result<Option<Spilled>> {
        Ok(self.finish()?.pop().flatten())
    }
}
