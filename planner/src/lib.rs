//! What was asked: SQL text to plans. Pure: no I/O, no clock, nothing but a catalog snapshot and session settings.
//!
//! `parse` turns text into [`Statement`]s; `feature` recognises the shape of a feature view; `query` binds ordinary
//! queries with DataFusion's SQL planner; `asof` teaches it `ASOF JOIN`; `lookup` recognises point lookups at parse.

pub mod absent;
mod any_parameter;
pub mod archive;
pub mod asof;
pub mod bind;
mod calls;
pub(crate) mod compared;
pub mod composed;
pub mod defaults;
pub mod each_expression;
pub mod error;
pub mod exact;
mod existing;
pub mod feature;
pub mod functions;
mod interval_text;
mod joins;
pub mod json_text;
mod like;
pub mod lineage;
pub mod lookup;
pub mod meaning;
pub mod names;
pub mod parse;
pub mod probes;
mod quantified;
mod recursive;
mod respelled;
mod rows;
pub mod shown;
mod similar;
pub mod statement;
pub mod status;
pub mod table;
pub mod untyped;
mod value_lists;
pub mod value_text;
pub mod words;
pub mod zone;

pub use error::{PlanError, PlanResult};
pub use statement::Statement;
