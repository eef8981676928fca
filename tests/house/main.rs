//! Tests of the house itself: what depends on what, under which licences, and how it is laid out.
//!
//! They read manifests and sources, not behaviour; a failure names the file and the rule it breaks.

mod dependencies;
mod imports;
mod layout;
mod tree;
