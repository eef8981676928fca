//! Variance and what lies beyond it, from exact sums of powers: nothing cancels, and the order of events cannot show.

use super::float::FloatSum;
use crate::exact::Lanes;
use serde::{Deserialize, Serialize};
use tidemark_planner::feature::Aggregate;

/// Sums of `x`, `x²` and, as far as the function needs them, `x³` and `x⁴`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Moments {
    sum: FloatSum,
    squares: Lanes,
    cubes: Lanes,
    fourths: Lanes,
}

impl Moments {
    pub fn add(&mut self, function: Aggregate, x: f64, retract: bool) {
        self.sum.add(x, retract);
        if !x.is_finite() {
            return;
        }
        self.squares.add_power(x, 2, retract);
        if matches!(function, Aggregate::Skewness | Aggregate::Kurtosis | Aggregate::KurtosisPop) {
            self.cubes.add_power(x, 3, retract);
        }
        if matches!(function, Aggregate::Kurtosis | Aggregate::KurtosisPop) {
            self.fourths.add_power(x, 4, retract);
        }
    }

    /// The value, `None` for SQL NULL; outer `None`: out of range. With `n` values, `Sp` the sum of the `p`-th powers and
    /// `Mp` the exact numerator of the `p`-th central moment (over `nᵖ`), each rounded once:
    ///
    /// ```text
    /// M2 = n·S2 − S1²     M3 = n²·S3 − 3n·S1·S2 + 2·S1³     M4 = n³·S4 − 4n²·S1·S3 + 6n·S1²·S2 − 3·S1⁴
    /// var_samp = M2 / (n(n−1))     var_pop = M2 / n²     stddev = √var
    /// skewness = √(n(n−1)) / (n−2) · M3 / (M2·√M2)                      (adjusted Fisher–Pearson)
    /// kurtosis_pop = M4 / M2² − 3     kurtosis = (n−1)/((n−2)(n−3)) · ((n+1)·kurtosis_pop + 6)
    /// ```
    pub fn evaluate(&self, function: Aggregate) -> Option<Option<f64>> {
        use Aggregate as A;
        let n = self.sum.count;
        let at_least = match function {
            A::VarSamp | A::StddevSamp => 2,
            A::Skewness => 3,
            A::Kurtosis => 4,
            _ => 1,
        };
        if n < at_least {
            return Some(None);
        }
        if !self.sum.is_finite() {
            return Some(Some(f64::NAN));
        }
        let (s1, s2) = (self.sum.exact(), self.squares.exact());
        let m2 = (s2.clone().times(n) - &s1 * &s1).round()?;
        let (count, one) = (n as f64, 1.0);
        let is_shape = matches!(function, A::Skewness | A::Kurtosis | A::KurtosisPop);
        if is_shape && m2 == 0.0 {
            return Some(None);
        }
        let value = match function {
            A::VarSamp => m2 / (count * (count - one)),
            A::VarPop => m2 / (count * count),
            A::StddevSamp => (m2 / (count * (count - one))).sqrt(),
            A::StddevPop => (m2 / (count * count)).sqrt(),
            A::Skewness => {
                let s3 = self.cubes.exact();
                let cube = &(&s1 * &s1) * &s1;
                let m3 = (s3.times(n).times(n) - (&s1 * &s2).times(n).times(3) + cube.times(2)).round()?;
                (count * (count - one)).sqrt() / (count - 2.0) * (m3 / (m2 * m2.sqrt()))
            }
            _ => {
                let (s3, s4) = (self.cubes.exact(), self.fourths.exact());
                let square = &s1 * &s1;
                let m4 = (s4.times(n).times(n).times(n) - (&s1 * &s3).times(n).times(n).times(4)
                    + (&square * &s2).times(n).times(6)
                    - (&square * &square).times(3))
                .round()?;
                let excess = m4 / (m2 * m2) - 3.0;
                match function {
                    A::Kurtosis => (count - one) / ((count - 2.0) * (count - 3.0)) * ((count + one) * excess + 6.0),
                    _ => excess,
                }
            }
        };
        value.is_finite().then_some(Some(value))
    }
}
