//! Sums that fade: an event counts half after one half-life. Events come in order and none leaves, so the sum is carried from
//! one to the next.

use crate::value::Value;
use serde::{Deserialize, Serialize};
use tidemark_planner::feature::Aggregate;

/// As they are at the time of the latest event.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Decayed {
    at_us: Option<i64>,
    sum: f64,
    count: f64,
}

impl Decayed {
    /// Adds `x` of an event that is no earlier than those before.
    pub fn add(&mut self, x: f64, at_us: i64, half_life_us: i64) {
        let age_us = at_us.saturating_sub(self.at_us.unwrap_or(at_us));
        // libm's exp2 and not the platform's: the same bits everywhere.
        let faded = if age_us == 0 { 1.0 } else { libm::exp2(-(age_us as f64 / half_life_us as f64)) };
        self.sum = self.sum * faded + x;
        self.count = self.count * faded + 1.0;
        self.at_us = Some(at_us);
    }

    /// The value at the time of the latest event, or that time.
    pub fn evaluate(&self, function: Aggregate) -> (Value, bool) {
        let Some(at_us) = self.at_us else { return (Value::Null, false) };
        let value = match function {
            Aggregate::DecayAnchor => return (Value::Int(at_us), false),
            Aggregate::DecaySum => self.sum,
            Aggregate::DecayCount => self.count,
            _ => self.sum / self.count,
        };
        (Value::float(value), false)
    }
}
