//! The workspace as files: where its crates, manifests and sources are.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The crates in dependency order: imports point left.
pub const CRATES: [&str; 5] = ["catalog", "planner", "engine", "connectors", "server"];

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

pub fn manifest(folder: &str) -> toml::Table {
    let path = root().join(folder).join("Cargo.toml");
    read(&path).parse().unwrap_or_else(|error| panic!("{} is not TOML: {error}", path.display()))
}

/// All Rust files below a folder of the workspace, in a stable order; none if there is no such folder.
pub fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    collect(&root().join(folder), &mut found);
    found.sort();
    found
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a folder can be listed").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// A path as a person names it: from the root of the workspace.
pub fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The lines of a source that are not comments, with their numbers from 1.
pub fn code_lines(source: &str) -> impl Iterator<Item = (usize, &str)> {
    source.lines().enumerate().map(|(i, line)| (i + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Whether `word` stands in `line` on its own, not as a part of a longer identifier.
pub fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(is_part)
            && !line[at + word.len()..].chars().next().is_some_and(is_part)
    })
}

#[test]
fn a_word_is_found_only_on_its_own() {
    assert!(has_word("use sqlparser::ast;", "sqlparser"));
    assert!(!has_word("let my_sqlparser2 = 1;", "sqlparser"));
    assert!(has_word("tidemark_engine::seam", "tidemark_engine"));
}
