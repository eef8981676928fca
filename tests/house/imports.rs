//! Imports point left: `catalog ← planner ← engine ← connectors ← server`, and what a crate must not know at all.

use crate::tree::{CRATES, code_lines, has_word, manifest, read, root, rust_files, shown};
use std::path::Path;

/// Outside crates that a crate of ours must not depend on (ARCHITECTURE.md, "Dependency direction"). A name stands for
/// itself and for everything that begins with it and a hyphen.
const MUST_NOT_DEPEND: [(&str, &[&str]); 5] = [
    (
        "catalog",
        &["sqlparser", "datafusion", "arrow", "parquet", "pgwire", "rdkafka", "redis", "iceberg", "fjall", "tokio"],
    ),
    (
        "planner",
        &["sqlx", "tokio", "object_store", "fjall", "iceberg", "rdkafka", "redis", "pgwire", "fs4", "rand", "uuid"],
    ),
    ("engine", &["sqlparser", "sqlx", "iceberg", "fjall", "rdkafka", "redis", "pgwire", "fs4", "rand", "uuid"]),
    ("connectors", &["tidemark-planner", "sqlparser", "pgwire", "clap"]),
    ("server", &[]),
];

/// Words that must not stand in a crate's code even where a re-export would make them reachable. Tests are free.
const MUST_NOT_SAY: [(&str, &[&str]); 4] = [
    ("catalog", &["std::net", "pgwire"]),
    ("planner", &["std::fs", "std::net", "std::thread", "std::time::SystemTime", "std::time::Instant"]),
    ("engine", &["sqlparser", "std::fs", "std::net", "std::thread"]),
    ("connectors", &["sqlparser", "pgwire"]),
];

/// The modules of `connectors` that each speak to one part of the world, and do not know one another. What two of them
/// share is a module of its own that is not in this list.
const CONNECTORS: [&str; 7] = ["files", "iceberg", "kafka", "log", "online", "redis", "state"];

/// The names in a dependency table, with where each was declared.
fn dependencies(folder: &str, with_dev: bool) -> Vec<String> {
    fn names(table: &toml::Table, with_dev: bool, found: &mut Vec<String>) {
        for section in ["dependencies", "build-dependencies", "dev-dependencies"] {
            if section == "dev-dependencies" && !with_dev {
                continue;
            }
            for (name, value) in table.get(section).and_then(toml::Value::as_table).into_iter().flatten() {
                // `name = { package = "real" }` is a dependency on `real`.
                let real = value.get("package").and_then(toml::Value::as_str).unwrap_or(name);
                found.push(real.to_string());
            }
        }
    }
    let manifest = manifest(folder);
    let mut found = vec![];
    names(&manifest, with_dev, &mut found);
    for (_, target) in manifest.get("target").and_then(toml::Value::as_table).into_iter().flatten() {
        names(target.as_table().expect("a target is a table"), with_dev, &mut found);
    }
    found
}

fn is_or_is_part_of(name: &str, family: &str) -> bool {
    name == family || name.strip_prefix(family).is_some_and(|rest| rest.starts_with('-'))
}

fn is_test(file: &Path) -> bool {
    file.with_extension("").components().any(|part| part.as_os_str() == "tests")
}

/// A source up to the unit tests at its end.
fn before_tests(source: &str) -> &str {
    source.split_once("#[cfg(test)]\nmod ").map_or(source, |(before, _)| before)
}

#[test]
fn manifests_depend_only_on_crates_to_their_left() {
    for (position, name) in CRATES.iter().enumerate() {
        for dependency in dependencies(name, true) {
            let Some(ours) = dependency.strip_prefix("tidemark-") else { continue };
            let at = CRATES.iter().position(|c| *c == ours);
            assert!(
                at.is_some_and(|at| at < position),
                "{name}/Cargo.toml depends on {dependency}, which is not to its left in {CRATES:?}"
            );
        }
    }
}

#[test]
fn sources_name_only_crates_to_their_left() {
    for (position, name) in CRATES.iter().enumerate() {
        for file in rust_files(name) {
            let source = read(&file);
            for (number, line) in code_lines(&source) {
                for right in &CRATES[position + 1..] {
                    assert!(
                        !has_word(line, &format!("tidemark_{right}")),
                        "{}:{number} names tidemark_{right}, which is to the right of {name}",
                        shown(&file)
                    );
                }
            }
        }
    }
}

#[test]
fn crates_do_not_depend_on_what_they_must_not_know() {
    for (name, forbidden) in MUST_NOT_DEPEND {
        // Tests may use more: a test of the engine may need a random generator.
        for dependency in dependencies(name, false) {
            for family in forbidden {
                // The one exception inside a family: arrow-schema is data types without a runtime.
                if (name, dependency.as_str()) == ("catalog", "arrow-schema") {
                    continue;
                }
                assert!(!is_or_is_part_of(&dependency, family), "{name}/Cargo.toml must not depend on {dependency}");
            }
        }
    }
}

#[test]
fn sources_do_not_say_what_their_crate_must_not_know() {
    for (name, forbidden) in MUST_NOT_SAY {
        for file in rust_files(&format!("{name}/src")) {
            if is_test(&file) {
                continue;
            }
            let source = read(&file);
            for (number, line) in code_lines(before_tests(&source)) {
                for word in forbidden {
                    // The one file that may: threads that end with the call, and whose order cannot show.
                    if *word == "std::thread" && file.ends_with("engine/src/parallel.rs") {
                        continue;
                    }
                    // And the one that reads a query's temporary files, which DataFusion's disk manager makes and removes.
                    if *word == "std::fs" && file.ends_with("engine/src/asof/files.rs") {
                        continue;
                    }
                    assert!(!has_word(line, word), "{}:{number} names {word}; {name} must not", shown(&file));
                }
            }
        }
    }
}

#[test]
fn connectors_do_not_know_one_another() {
    let src = root().join("connectors/src");
    for file in rust_files("connectors/src") {
        let inside = file.strip_prefix(&src).expect("the file is below src").with_extension("");
        let own = inside.components().next().expect("a file has a name").as_os_str().to_string_lossy().into_owned();
        if !CONNECTORS.contains(&own.as_str()) {
            continue;
        }
        let source = read(&file);
        for (number, line) in code_lines(&source) {
            for other in CONNECTORS.iter().filter(|other| **other != own) {
                assert!(
                    !has_word(line, &format!("crate::{other}")),
                    "{}:{number} names crate::{other}; connectors do not know one another",
                    shown(&file)
                );
            }
        }
    }
}

#[test]
fn a_family_is_a_name_and_what_begins_with_it() {
    assert!(is_or_is_part_of("iceberg", "iceberg"));
    assert!(is_or_is_part_of("iceberg-catalog-sql", "iceberg"));
    assert!(!is_or_is_part_of("icebergs", "iceberg"));
}
