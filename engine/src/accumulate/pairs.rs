//! Aggregates of pairs (y, x): covariance, correlation, linear regression; from exact sums.

use super::float::FloatSum;
use crate::exact::Lanes;
use serde::{Deserialize, Serialize};
use tidemark_planner::feature::Aggregate;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Pairs {
    x: FloatSum,
    y: FloatSum,
    xx: Lanes,
    yy: Lanes,
    xy: Lanes,
}

impl Pairs {
    pub fn add(&mut self, y: f64, x: f64, retract: bool) {
        self.x.add(x, retract);
        self.y.add(y, retract);
        if x.is_finite() {
            self.xx.add_power(x, 2, retract);
        }
        if y.is_finite() {
            self.yy.add_power(y, 2, retract);
        }
        if x.is_finite() && y.is_finite() {
            self.xy.add_product(x, y, retract);
        }
    }

    pub fn count(&self) -> u64 {
        self.x.count
    }

    /// The value, `None` for SQL NULL; outer `None`: out of range. NULL where PostgreSQL has NULL. With `n` pairs, each of
    /// these rounded once from exact sums, and NaN where a value in it is no finite number:
    ///
    /// ```text
    /// Nxx = n·Σx² − (Σx)²     Nyy = n·Σy² − (Σy)²     Nxy = n·Σxy − Σx·Σy
    /// covar_pop = Nxy / n²     covar_samp = Nxy / (n(n−1))     corr = Nxy / (√Nxx·√Nyy), within −1 and 1
    /// slope = Nxy / Nxx     intercept = (Σy − slope·Σx) / n     r2 = (Nxy / Nxx)·(Nxy / Nyy)     sxx = Nxx / n
    /// ```
    pub fn evaluate(&self, function: Aggregate) -> Option<Option<f64>> {
        use Aggregate as A;
        let n = self.count();
        if n == 0 || (n == 1 && function == A::CovarSamp) {
            return Some(None);
        }
        let count = n as f64;
        let numerator = |finite: bool, products: &Lanes, a: &FloatSum, b: &FloatSum| match finite {
            true => (products.exact().times(n) - &a.exact() * &b.exact()).round(),
            false => Some(f64::NAN),
        };
        let (x, y) = (&self.x, &self.y);
        let nxx = || numerator(x.is_finite(), &self.xx, x, x);
        let nyy = || numerator(y.is_finite(), &self.yy, y, y);
        let nxy = || numerator(x.is_finite() && y.is_finite(), &self.xy, x, y);
        let value = match function {
            A::RegrAvgx => x.sum()? / count,
            A::RegrAvgy => y.sum()? / count,
            A::RegrSxx => nxx()? / count,
            A::RegrSyy => nyy()? / count,
            A::RegrSxy => nxy()? / count,
            A::CovarPop => nxy()? / (count * count),
            A::CovarSamp => nxy()? / (count * (count - 1.0)),
            A::Corr => {
                let (nxx, nyy) = (nxx()?, nyy()?);
                if nxx == 0.0 || nyy == 0.0 {
                    return Some(None);
                }
                (nxy()? / (nxx.sqrt() * nyy.sqrt())).clamp(-1.0, 1.0)
            }
            _ => {
                let nxx = nxx()?;
                if nxx == 0.0 {
                    return Some(None);
                }
                let slope = nxy()? / nxx;
                match function {
                    A::RegrSlope => slope,
                    A::RegrIntercept => (y.sum()? - slope * x.sum()?) / count,
                    _ => match nyy()? {
                        0.0 => 1.0,
                        nyy => slope * (nxy()? / nyy),
                    },
                }
            }
        };
        // Infinity is a value only where it was one.
        let may_be_infinite = matches!(function, A::RegrAvgx | A::RegrAvgy);
        (may_be_infinite || !value.is_infinite()).then_some(Some(value))
    }
}
