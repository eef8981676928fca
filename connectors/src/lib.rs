//! see ARCHITECTURE.md

mod iceberg;

pub use iceberg::IcebergHistory;
