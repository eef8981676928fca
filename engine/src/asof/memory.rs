//! What an `ASOF JOIN` holds in memory, accounted in the pool of the session.
//!
//! One join has one reservation: a pool that shares fairly counts it once. What a part of the join holds is a [`Claim`]
//! on it, given back when that part goes.

use datafusion::common::DataFusionError;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::physical_plan::metrics::Gauge;
use std::sync::Arc;

/// The reservation of one join.
#[derive(Clone)]
pub struct Memory {
    reservation: Arc<MemoryReservation>,
    peak: Gauge,
    insists: bool,
}

impl Memory {
    /// `peak` is told the most that was held at once, bytes.
    pub fn register(pool: &Arc<dyn MemoryPool>, peak: Gauge) -> Memory {
        let consumer = MemoryConsumer::new("AsofJoinExec").with_can_spill(true);
        Memory { reservation: Arc::new(consumer.register(pool)), peak, insists: false }
    }

    /// The same memory, accounted but never refused: for the little without which a join cannot go on.
    pub fn insisting(&self) -> Memory {
        Memory { insists: true, ..self.clone() }
    }

    /// Bytes that the whole join holds now.
    pub fn held(&self) -> usize {
        self.reservation.size()
    }

    pub fn claim(&self) -> Claim {
        Claim { memory: self.clone(), bytes: 0 }
    }
}

/// Bytes that one part of a join holds.
pub struct Claim {
    memory: Memory,
    bytes: usize,
}

impl Claim {
    /// Errors: the pool's, where it has no more; see [`is_full`].
    pub fn try_grow(&mut self, bytes: usize) -> Result<()> {
        let reservation = &self.memory.reservation;
        match self.memory.insists {
            true => reservation.grow(bytes),
            false => reservation.try_grow(bytes)?,
        }
        self.bytes += bytes;
        self.memory.peak.set_max(reservation.size());
        Ok(())
    }

    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.memory.reservation.shrink(bytes);
        self.bytes -= bytes;
    }

    /// As much as that, more or less than before.
    pub fn try_resize(&mut self, bytes: usize) -> Result<()> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.try_grow(more),
            None => {
                self.shrink(self.bytes - bytes);
                Ok(())
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.memory.reservation.shrink(self.bytes);
    }
}

/// Whether an error says that a limit of memory is reached.
pub fn is_full(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
}
