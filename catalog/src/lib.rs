//! What exists: schemas, and the names, types and definitions of sources, tables, feature views, views, aggregates and training sets, and the durable
//! store that keeps them. Nothing here knows SQL text beyond storing it, or any service.
//!
//! A reader takes a [`Snapshot`] (immutable, cheap to clone) and works on it; a writer commits a list of [`Change`]s
//! through the [`CatalogStore`], which is durable before the new snapshot becomes visible.

mod access;
mod journal;
pub mod json;
mod layout;
mod name;
mod object;
pub mod role;
mod schema;
mod secret;
mod snapshot;
mod store;
mod training_set;
mod types;
pub mod uuid;
pub mod vector;

pub use access::{Access, Acl, PUBLIC, Privileges};
pub use journal::BlockId;
pub use layout::{Layout, Stored};
pub use name::{
    Meanings, NameRef, NoPlace, PUBLIC_SCHEMA, Place, QualifiedName, SYSTEM_SCHEMAS, SearchPath, TEMPORARY_SCHEMA,
    history_schema, is_read_only, looked_for, schema_of_history,
};
pub use object::{
    Aggregate, Body, ClockMode, Column, Encode, ErrorPolicy, Feature, FeatureView, Include, Object, ObjectId,
    ObjectKind, Parameter, Relation, View,
};
pub use role::Role;
pub use schema::{BadSchemaName, Schema};
pub use secret::{HIDDEN, Secret, is_secret, secret_named, secret_reference, without_credentials};
pub use snapshot::{Change, IsSystem, NoSecret, Snapshot};
pub use store::{CatalogError, CatalogStore, TakenBack};
pub use training_set::{Complete, Joined, Read, Record, TrainingSet};
pub use types::{SqlType, UTC};
