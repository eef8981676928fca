//! Settings: who goes before whom, what is refused, and that the documentation is the table.

use std::path::{Path, PathBuf};
use std::time::Duration;
use tidemark_connectors::log::Fsync;
use tidemark_server::settings::{Role, SETTINGS, Settings, Stale, document};

fn load(flags: &[(&'static str, &str)], environment: &[(&str, &str)], file: &str) -> Result<Settings, String> {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("tidemark.toml");
    std::fs::write(&path, file).expect("the file is written");
    let flags: Vec<_> = flags.iter().map(|(flag, value)| (*flag, value.to_string())).collect();
    let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    Settings::load(&flags, environment, Some(&path)).map_err(|error| error.to_string())
}

fn refused(flags: &[(&'static str, &str)], environment: &[(&str, &str)], file: &str, expected: &[&str]) {
    let error = load(flags, environment, file).expect_err("this must be refused");
    for part in expected {
        assert!(error.contains(part), "{error}\nlacks: {part}");
    }
}

#[test]
fn the_defaults_are_the_tables() {
    let settings = load(&[], &[], "").expect("defaults");
    assert_eq!(settings, Settings::default());
    assert_eq!(settings.listen.to_string(), "127.0.0.1:5433");
    assert_eq!(settings.max_connections, 1_000);
    assert_eq!((settings.fsync, settings.statement_timeout), (Fsync::Always, None));
    assert_eq!(settings.commit_interval, Duration::from_secs(5));
    assert_eq!(settings.checkpoint_interval, Duration::from_secs(10));
    assert_eq!(settings.online_tick, Duration::from_millis(50));
    assert_eq!((settings.role, settings.serving_stale), (Role::Owner, Stale::Warn));
    assert_eq!((settings.serving_cache, settings.serving_cache_entries), (Some(Duration::from_millis(100)), 100_000));
    assert_eq!((settings.log_segment_bytes, settings.log_max_bytes), (64 << 20, None));
}

#[test]
fn a_flag_goes_before_a_variable_that_before_the_file_that_before_the_default() {
    let (flag, variable, file) =
        (("max-connections", "3"), ("TIDEMARK_MAX_CONNECTIONS", "2"), "max_connections = 1\ndata = \"from_file\"");
    assert_eq!(load(&[], &[], file).expect("file").max_connections, 1);
    assert_eq!(load(&[], &[variable], file).expect("variable").max_connections, 2);
    let all = load(&[flag], &[variable], file).expect("flag");
    assert_eq!(all.max_connections, 3);
    // What only the file says still counts.
    assert_eq!(all.data, PathBuf::from("from_file"));
}

#[test]
fn the_file_takes_numbers_and_text() {
    let settings = load(&[], &[], "batch_rows = 100\nmax_connections = \"50\"\nfsync = 200\nlog_max_bytes = \"1GB\"");
    let settings = settings.expect("all are right");
    assert_eq!((settings.batch_rows, settings.max_connections), (100, 50));
    assert_eq!((settings.fsync, settings.log_max_bytes), (Fsync::EveryMs(200), Some(1 << 30)));
}

#[test]
fn an_unknown_name_is_refused_with_the_nearest_that_is_known() {
    refused(&[], &[], "max_conections = 1", &["tidemark.toml", "max_conections", "did you mean max_connections?"]);
    refused(&[], &[], "[server]\nlisten = 1", &["unknown setting \"server\"", "HINT: "]);
    refused(&[], &[("TIDEMARK_FSYNK", "never")], "", &["TIDEMARK_FSYNK", "did you mean TIDEMARK_FSYNC?"]);
    refused(&[], &[("TIDEMARK_ZZZZZZZZ", "1")], "", &["TIDEMARK_ZZZZZZZZ", "tidemark serve --help lists"]);
}

#[test]
fn what_only_begins_like_a_setting_is_left_alone() {
    let others = [
        ("TIDEMARK_ORACLE_VIEWS", "1"),
        ("TIDEMARK_TEST_LONG", "1"),
        ("TIDEMARK_BENCH_ROWS", "1"),
        // Set for all suites by `make test-long`, and so for the servers that they start.
        ("TIDEMARK_SIMULATION_SEED", "1"),
        ("TIDEMARK_FRONT_SEED", "1"),
        ("TIDEMARK_BIN", "x"),
        ("TIDEMARK_PYTHON", "x"),
        ("TIDEMARK_LAKE_PYTHON", "x"),
        ("TIDEMARK_SMALL_DISK", "x"),
        ("TIDEMARK_CONFIG", "x"),
        ("TIDEMARK_URL", "x"),
        ("PATH", "x"),
    ];
    assert_eq!(load(&[], &others, ""), Ok(Settings::default()));
}

#[test]
fn a_wrong_value_is_refused_with_what_was_expected_and_where_it_stands() {
    refused(&[("listen", "5433")], &[], "", &["flag --listen", "\"5433\"", "127.0.0.1:5433"]);
    refused(&[], &[("TIDEMARK_ONLINE_TICK", "50")], "", &["variable TIDEMARK_ONLINE_TICK", "with its unit", "HINT: "]);
    refused(&[], &[], "max_connections = 0", &["tidemark.toml, setting max_connections", "a whole number from 1"]);
    refused(&[], &[], "fsync = true", &["\"true\"", "always, never"]);
    refused(&[], &[], "log = \"a=b=c\"", &["a log filter"]);
    refused(&[], &[], "max_connections = ", &["cannot read the settings file", "HINT: "]);
    let missing = Settings::load(&[], [], Some(Path::new("nowhere.toml"))).expect_err("there is none").to_string();
    assert!(missing.contains("cannot read the settings file nowhere.toml"), "{missing}");
}

#[test]
fn a_password_in_a_url_is_shown_nowhere() {
    let url = "redis://me:secret@host";
    for settings in [
        load(&[("online", url)], &[], ""),
        load(&[], &[("TIDEMARK_ONLINE", url)], ""),
        load(&[], &[], &format!("online = \"{url}\"")),
    ] {
        let settings = settings.expect("a URL");
        assert_eq!(settings.online.as_deref(), Some(url));
        assert!(!format!("{settings:?}").contains("secret"), "{settings:?}");
    }
    // Without its quotes; and what is wrong is beside it.
    for file in [format!("online = {url}"), format!("log = \"info\"\nonline = \"{url}\" max_connections = 1")] {
        let error = load(&[], &[], &file).expect_err("no TOML");
        assert!(error.contains("line ") && !error.contains("secret"), "{error}");
    }
}

#[test]
fn every_setting_can_be_set_by_its_variable_to_its_default() {
    for setting in SETTINGS {
        let loaded = load(&[(setting.flag, setting.default)], &[(&setting.variable(), setting.default)], "");
        assert_eq!(loaded, Ok(Settings::default()), "{}", setting.flag);
    }
}

/// TIDEMARK_TEST_REWRITE=1 writes the file anew; read it before commit.
#[test]
fn the_documentation_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings.md");
    if std::env::var_os("TIDEMARK_TEST_REWRITE").is_some() {
        std::fs::create_dir_all(path.parent().expect("docs/")).expect("docs/ is made");
        std::fs::write(&path, document()).expect("the file is written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, document(), "docs/settings.md is old; write it with TIDEMARK_TEST_REWRITE=1");
}
