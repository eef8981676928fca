//! How files are laid out: a file is one idea, says why it exists, and is not called "utils".

use crate::tree::{CRATES, code_lines, has_word, read, rust_files, shown};
use std::path::{Path, PathBuf};

/// Past some 600 lines a file is usually two ideas; here is where the house says so.
const LINES_MAX: usize = 800;

/// Tables of cases, one a line: data, however long.
const TABLES: [&str; 1] = ["server/src/wire/tests/recorded.rs"];

const NAMES_REFUSED: [&str; 10] =
    ["utils", "util", "helpers", "helper", "common", "core", "manager", "managers", "misc", "shared"];

fn all_sources() -> Vec<PathBuf> {
    CRATES.iter().chain(&["tests", "benches"]).flat_map(|folder| rust_files(folder)).collect()
}

fn segments(path: &Path) -> Vec<String> {
    shown(&path.with_extension("")).split(['/', '\\']).map(str::to_string).collect()
}

#[test]
fn there_are_sources_to_look_at() {
    assert!(all_sources().len() > 10);
}

#[test]
fn no_file_is_longer_than_one_idea() {
    for file in all_sources().into_iter().filter(|file| !TABLES.contains(&shown(file).as_str())) {
        let lines = read(&file).lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines, more than {LINES_MAX}: it is two ideas", shown(&file));
    }
}

#[test]
fn every_file_opens_with_why_it_exists() {
    for file in all_sources() {
        // The main file of a crate's integration tests is only the list of them.
        if shown(&file).ends_with("tests/it/main.rs") {
            continue;
        }
        assert!(read(&file).starts_with("//!"), "{} does not open with a //! line", shown(&file));
    }
}

#[test]
fn no_module_is_a_drawer() {
    for file in all_sources() {
        for segment in segments(&file) {
            assert!(!NAMES_REFUSED.contains(&segment.as_str()), "{}: name it for what it holds", shown(&file));
        }
        let source = read(&file);
        for (number, line) in code_lines(&source) {
            for name in NAMES_REFUSED {
                assert!(
                    !(has_word(line, "mod") && has_word(line, &format!("mod {name}"))),
                    "{}:{number}: name the module for what it holds",
                    shown(&file)
                );
            }
        }
    }
}
