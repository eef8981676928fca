//! What a client was recorded to send: the statements of one capture file, in the order in which they were first seen.
//!
//! ```text
//! -- startup: {"application_name": "psql", "database": "feat", "user": "postgres"}
//! -- [3] x2 parse named oids=[20, 25]
//! select * from fs.users where user_id = $1 and name = $2;
//! ```

use anyhow::{Context, Result};
use std::{collections::BTreeMap, path::Path};

/// The statements of one client.
pub struct Recording {
    pub client: String,
    /// What its first startup packet said.
    pub startup: BTreeMap<String, String>,
    pub statements: Vec<Recorded>,
}

pub struct Recorded {
    pub number: u32,
    /// By the simple protocol, not by Parse.
    pub is_simple: bool,
    /// The types that Parse declared.
    pub declared: Vec<u32>,
    pub sql: String,
}

impl Recording {
    pub fn read(path: &Path) -> Result<Recording> {
        let client = path.file_stem().and_then(|stem| stem.to_str()).context("a capture without a name")?.to_string();
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let startup = text.lines().find_map(|line| line.strip_prefix("-- startup: "));
        let startup = startup.map(serde_json::from_str).transpose()?.unwrap_or_default();
        let mut statements: Vec<Recorded> = vec![];
        for line in text.lines() {
            match heading(line) {
                Some(statement) => statements.push(statement),
                // What stands before the first heading is about the recording.
                None => {
                    if let Some(statement) = statements.last_mut() {
                        statement.sql.push_str(line);
                        statement.sql.push('\n');
                    }
                }
            }
        }
        for statement in &mut statements {
            let sql = statement.sql.trim();
            statement.sql = sql.strip_suffix(';').unwrap_or(sql).to_string();
        }
        Ok(Recording { client, startup, statements })
    }
}

/// `-- [7] x1 parse unnamed oids=[21]`
fn heading(line: &str) -> Option<Recorded> {
    let (number, rest) = line.strip_prefix("-- [")?.split_once("] x")?;
    let (_, how) = rest.split_once(' ')?;
    let declared = how.split_once("oids=[").and_then(|(_, oids)| oids.split_once(']')).map_or("", |(oids, _)| oids);
    Some(Recorded {
        number: number.parse().ok()?,
        is_simple: how.starts_with("simple"),
        declared: declared.split(", ").filter_map(|oid| oid.parse().ok()).collect(),
        sql: String::new(),
    })
}
