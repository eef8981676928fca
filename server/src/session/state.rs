//! What planning needs of a session, made when something is first planned. It is maps of all functions, some 80 kB: most
//! connections of a pool only look up or wait, and are many.

use datafusion::execution::SessionState;
use std::{ops::Deref, sync::OnceLock};

type Make = Box<dyn Fn() -> SessionState + Send + Sync>;

/// Is its [`SessionState`] to whoever asks for that.
pub struct State {
    made: OnceLock<Box<SessionState>>,
    make: Make,
    /// Set before it was made.
    time_zone: Option<String>,
}

impl State {
    pub fn new(make: impl Fn() -> SessionState + Send + Sync + 'static) -> State {
        State { made: OnceLock::new(), make: Box::new(make), time_zone: None }
    }

    pub fn set_time_zone(&mut self, zone: &str) {
        if let Some(state) = self.made.get_mut() {
            put_time_zone(state, zone);
        }
        self.time_zone = Some(zone.to_owned());
    }
}

impl Deref for State {
    type Target = SessionState;

    fn deref(&self) -> &SessionState {
        self.made.get_or_init(|| {
            let mut state = (self.make)();
            if let Some(zone) = &self.time_zone {
                put_time_zone(&mut state, zone);
            }
            Box::new(state)
        })
    }
}

fn put_time_zone(state: &mut SessionState, zone: &str) {
    state.config_mut().options_mut().execution.time_zone = Some(zone.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    #[test]
    fn it_is_made_once_when_it_is_needed_and_has_the_time_zone_that_was_set_before_or_after() {
        let made = Arc::new(AtomicUsize::new(0));
        let counted = made.clone();
        let mut state = State::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            datafusion::execution::SessionStateBuilder::new().build()
        });
        let zone = |state: &State| state.config_options().execution.time_zone.clone();
        state.set_time_zone("Europe/Berlin");
        assert_eq!(made.load(Ordering::SeqCst), 0);
        assert_eq!(zone(&state).as_deref(), Some("Europe/Berlin"));
        state.set_time_zone("UTC");
        assert_eq!(zone(&state).as_deref(), Some("UTC"));
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }
}
