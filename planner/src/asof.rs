//! ASOF JOIN in the planner.
