//! `random()`, `gen_random_uuid()` and `clock_timestamp()`: chance and time are the server's clock's, anew for each row.

use arrow::{
    array::{ArrayRef, Float64Array, StringArray, TimestampMicrosecondArray},
    datatypes::DataType,
};
use datafusion::{
    error::Result as DfResult,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};
use tidemark_catalog::UTC;
use tidemark_engine::seam::Clock;
use tidemark_planner::table::instant_type;

pub fn of_chance(clock: &Arc<dyn Clock>) -> impl Iterator<Item = Arc<ScalarUDF>> {
    [Asked::Random, Asked::Uuid, Asked::Clock].into_iter().map(move |asked| {
        let signature = Signature::nullary(Volatility::Volatile);
        Arc::new(ScalarUDF::new_from_impl(Chance { asked, clock: clock.clone(), signature }))
    })
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Asked {
    Random,
    Uuid,
    Clock,
}

struct Chance {
    asked: Asked,
    clock: Arc<dyn Clock>,
    signature: Signature,
}

impl fmt::Debug for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// A server has one clock.
impl PartialEq for Chance {
    fn eq(&self, other: &Self) -> bool {
        self.asked == other.asked
    }
}

impl Eq for Chance {}

impl Hash for Chance {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.asked.hash(state);
    }
}

impl ScalarUDFImpl for Chance {
    fn name(&self) -> &str {
        match self.asked {
            Asked::Random => "random",
            Asked::Uuid => "gen_random_uuid",
            Asked::Clock => "clock_timestamp",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(match self.asked {
            Asked::Random => DataType::Float64,
            Asked::Uuid => DataType::Utf8,
            Asked::Clock => instant_type(),
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let rows = 0..arguments.number_rows;
        let values: ArrayRef = match self.asked {
            Asked::Random => Arc::new(rows.map(|_| Some(fraction(self.clock.random()))).collect::<Float64Array>()),
            Asked::Uuid => {
                let uuids = rows.map(|_| Some(uuid(self.clock.random(), self.clock.random())));
                Arc::new(uuids.collect::<StringArray>())
            }
            Asked::Clock => {
                let times = rows.map(|_| Some(self.clock.now_us())).collect::<TimestampMicrosecondArray>();
                Arc::new(times.with_timezone(UTC))
            }
        };
        Ok(ColumnarValue::Array(values))
    }
}

/// At least 0 and below 1, of 53 bits, which a double has.
fn fraction(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

/// Version 4 of RFC 9562.
fn uuid(high: u64, low: u64) -> String {
    let high = (high & !0xf000) | 0x4000;
    let low = (low & !(3 << 62)) | (1 << 63);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_says_its_version_and_a_fraction_stays_below_one() {
        assert_eq!(uuid(0, 0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u64::MAX, u64::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid(0x0123_4567_89ab_cdef, 0x0123_4567_89ab_cdef), "01234567-89ab-4def-8123-456789abcdef");
        assert_eq!(fraction(0), 0.0);
        assert!(fraction(u64::MAX) < 1.0);
    }
}
