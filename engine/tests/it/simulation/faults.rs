//! What goes wrong, and when: decided call by call by a generator of its own, so that a seed repeats it.

use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tidemark_engine::seam::{SeamError, SeamResult};

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Log,
    State,
    Online,
    History,
    Catalog,
}

/// A read that fails has done nothing; after a write that fails nobody may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
}

/// What becomes of a call.
#[derive(Debug)]
pub enum Fate {
    Fine,
    /// Nothing happens.
    Refused(SeamError),
    /// It happens, or it does not, and the caller is not told which.
    Unknown(bool),
    /// The process ends at this call, just before or just after it has happened.
    Crash(bool),
}

pub struct Faults(Mutex<Weather>);

struct Weather {
    dice: StdRng,
    /// How likely a call to each part fails.
    rates: [f64; 5],
    /// Calls that are still made before the process ends.
    crash_in: Option<u32>,
    crashed: bool,
    calls: u64,
}

impl Faults {
    pub fn new(seed: u64) -> Faults {
        let dice = StdRng::seed_from_u64(seed);
        Faults(Mutex::new(Weather { dice, rates: [0.0; 5], crash_in: None, crashed: false, calls: 0 }))
    }

    /// From here on some parts fail often, some seldom, some not at all.
    pub fn storm(&self) {
        let mut weather = self.0.lock();
        for i in 0..weather.rates.len() {
            weather.rates[i] = [0.0, 0.0, 0.02, 0.1, 0.4][weather.dice.random_range(0..5)];
        }
    }

    /// From here on nothing fails.
    pub fn calm(&self) {
        let mut weather = self.0.lock();
        weather.rates = [0.0; 5];
        weather.crash_in = None;
    }

    pub fn crash_in(&self, calls: u32) {
        self.0.lock().crash_in = Some(calls);
    }

    pub fn has_crashed(&self) -> bool {
        self.0.lock().crashed
    }

    /// A new process begins.
    pub fn revive(&self) {
        let mut weather = self.0.lock();
        weather.crashed = false;
        weather.crash_in = None;
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.0.lock().calls
    }

    /// Any number below `end`.
    pub fn below(&self, end: usize) -> usize {
        self.0.lock().dice.random_range(0..end.max(1))
    }

    fn decide(&self, part: Part, kind: Kind) -> Fate {
        let fate = self.drawn(part, kind);
        if !matches!(fate, Fate::Fine) && super::trace() {
            eprintln!("  {part:?} {kind:?}: {fate:?}, {}", callers());
        }
        fate
    }

    fn drawn(&self, part: Part, kind: Kind) -> Fate {
        let mut weather = self.0.lock();
        let Weather { dice, rates, crash_in, crashed, calls } = &mut *weather;
        *calls += 1;
        if *crashed {
            return Fate::Crash(false);
        }
        match crash_in {
            Some(0) => {
                *crashed = true;
                return Fate::Crash(dice.random());
            }
            Some(calls) => *calls -= 1,
            None => {}
        }
        if rates[part as usize] == 0.0 || !dice.random_bool(rates[part as usize]) {
            return Fate::Fine;
        }
        match (kind, dice.random_range(0..6)) {
            (Kind::Write, 0 | 1) => Fate::Unknown(true),
            (Kind::Write, 2) => Fate::Unknown(false),
            (Kind::Write, 3) => Fate::Refused(SeamError::Full("no room today".to_string())),
            _ => Fate::Refused(SeamError::NotDone("not today".to_string())),
        }
    }

    /// The call takes its time, so that others come between.
    pub async fn fate(&self, part: Part, kind: Kind) -> Fate {
        let pauses = [0, 0, 0, 0, 1, 2, 5][self.below(7)];
        for _ in 0..pauses {
            tokio::task::yield_now().await;
        }
        self.decide(part, kind)
    }

    pub async fn call<T>(&self, part: Part, kind: Kind, act: impl FnOnce() -> SeamResult<T>) -> SeamResult<T> {
        match self.fate(part, kind).await {
            Fate::Fine => act(),
            Fate::Refused(error) => Err(error),
            Fate::Unknown(happens) => {
                if happens {
                    act()?;
                }
                Err(unknown())
            }
            Fate::Crash(happens) => {
                if happens {
                    let _ = act();
                }
                std::future::pending().await
            }
        }
    }

    /// A call that nobody waits for. What a process does after its end does not matter: it is told that nothing works.
    pub fn call_now<T>(&self, part: Part, kind: Kind, act: impl FnOnce() -> SeamResult<T>) -> SeamResult<T> {
        match self.decide(part, kind) {
            Fate::Fine => act(),
            Fate::Refused(error) => Err(error),
            Fate::Unknown(happens) => {
                if happens {
                    act()?;
                }
                Err(unknown())
            }
            Fate::Crash(happens) => {
                if happens {
                    let _ = act();
                }
                Err(SeamError::NotDone("the process has ended".to_string()))
            }
        }
    }
}

/// Who in the engine has made the call, the nearest first.
fn callers() -> String {
    let trace = std::backtrace::Backtrace::force_capture().to_string();
    let places = trace.lines().filter_map(|line| line.trim().strip_prefix("at ./src/"));
    places.take(6).collect::<Vec<_>>().join(" < ")
}

pub fn unknown() -> SeamError {
    SeamError::Unknown("no answer".to_string())
}
