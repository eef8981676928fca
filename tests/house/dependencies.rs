//! What we depend on: licences from a short list, one version of what must be one, and no C crypto or native TLS.

use crate::tree::{read, root};
use std::{collections::BTreeMap, env, process::Command};

/// Licences that ask for no more than a notice.
const LICENCES: [&str; 14] = [
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "0BSD",
    "ISC",
    "Zlib",
    "BSL-1.0",
    "CC0-1.0",
    "Unlicense",
    "Unicode-3.0",
    "BlueOak-1.0.0",
];

/// Packages with another licence, each with the reason why it may stay.
const EXCEPTIONS: [(&str, &str, &str); 1] =
    [("x509-certificate", "MPL-2.0", "used unmodified, by pgwire; its terms reach its own files only")];

/// Families whose types cross our borders: two versions of one would be two different types.
const ONE_VERSION: [&str; 9] =
    ["arrow", "parquet", "datafusion", "sqlparser", "object_store", "pgwire", "sqlx", "iceberg", "fjall"];

/// C code and a second TLS stack: slow to build, hard to ship.
const REFUSED: [&str; 6] = ["aws-lc-rs", "aws-lc-sys", "aws-lc-fips-sys", "native-tls", "openssl", "openssl-src"];

/// The one exception: librdkafka's TLS and SCRAM are OpenSSL's, the system's, and nobody else's.
const ONLY_FOR: [(&str, &str); 1] = [("openssl-sys", "rdkafka-sys")];

/// Name and versions of every package in Cargo.lock, on every platform.
fn locked() -> BTreeMap<String, Vec<String>> {
    let lock: toml::Table = read(&root().join("Cargo.lock")).parse().expect("Cargo.lock is TOML");
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for package in lock["package"].as_array().expect("packages are a list") {
        let text = |key: &str| package[key].as_str().expect("a package has a name and a version").to_string();
        found.entry(text("name")).or_default().push(text("version"));
    }
    found
}

/// (name, licence) of every package that this platform builds.
fn licences() -> Vec<(String, String)> {
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(root()).output().expect("the tool runs");
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("its output is text")
    };
    let version = output(&env::var("RUSTC").unwrap_or("rustc".into()), &["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    // Cargo has already fetched what it built, so this needs no network; other platforms' packages may be missing.
    let metadata = output(
        &env::var("CARGO").unwrap_or("cargo".into()),
        &["metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform", host],
    );
    let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("packages are a list");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("none").to_string();
    packages.iter().map(|package| (text(&package["name"]), text(&package["license"]))).collect()
}

/// Whether a licence expression can be satisfied from the list: SPDX's AND, OR and parentheses, and `/` for OR as older
/// packages write it.
fn allowed(expression: &str) -> bool {
    let expression = expression.trim();
    for (operator, all) in [(" OR ", false), ("/", false), (" AND ", true)] {
        let parts = split(expression, operator);
        if parts.len() > 1 {
            return if all { parts.iter().all(|p| allowed(p)) } else { parts.iter().any(|p| allowed(p)) };
        }
    }
    match expression.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => allowed(inner),
        None => LICENCES.contains(&expression),
    }
}

/// Splits at an operator outside parentheses.
fn split<'a>(expression: &'a str, operator: &str) -> Vec<&'a str> {
    let (mut parts, mut depth, mut begin) = (vec![], 0, 0);
    for (at, c) in expression.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 && at >= begin && expression[at..].starts_with(operator) {
            parts.push(&expression[begin..at]);
            begin = at + operator.len();
        }
    }
    parts.push(&expression[begin..]);
    parts
}

#[test]
fn every_dependency_is_licensed_from_the_list() {
    let packages = licences();
    assert!(packages.len() > 100);
    for (name, licence) in packages {
        let excepted = EXCEPTIONS.iter().any(|(n, l, _)| *n == name && *l == licence);
        assert!(excepted || allowed(&licence), "{name} is licensed {licence}, which is not on the list");
    }
}

#[test]
fn types_that_cross_borders_come_in_one_version() {
    for (name, versions) in locked() {
        let family = ONE_VERSION.iter().any(|f| name == *f || name.starts_with(&format!("{f}-")));
        assert!(!family || versions.len() == 1, "{name} is there in several versions: {versions:?}");
    }
}

#[test]
fn nothing_needs_c_crypto_or_native_tls() {
    let locked = locked();
    for name in REFUSED {
        assert!(!locked.contains_key(name), "{name} came in; find who with: cargo tree -i {name}");
    }
}

#[test]
fn the_systems_openssl_is_librdkafkas_alone() {
    let lock: toml::Table = read(&root().join("Cargo.lock")).parse().expect("Cargo.lock is TOML");
    for (name, user) in ONLY_FOR {
        let is_name = |entry: &toml::Value| entry.as_str().and_then(|entry| entry.split(' ').next()) == Some(name);
        let packages = lock["package"].as_array().expect("packages are a list").iter();
        let users = packages.filter(|package| {
            package.get("dependencies").and_then(toml::Value::as_array).is_some_and(|all| all.iter().any(is_name))
        });
        let users: Vec<&str> = users.filter_map(|package| package["name"].as_str()).collect();
        assert_eq!(users, [user], "{name}");
    }
}

#[test]
fn licence_expressions_are_read_as_written() {
    let cases = [
        ("MIT", true),
        ("MIT OR GPL-2.0-only", true),
        ("MIT/Apache-2.0", true),
        ("Apache-2.0 / MIT", true),
        ("MIT AND GPL-2.0-only", false),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("(MIT OR Apache-2.0) AND GPL-3.0-only", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("GPL-3.0-only", false),
        ("none", false),
    ];
    for (expression, expected) in cases {
        assert_eq!(allowed(expression), expected, "{expression}");
    }
}
