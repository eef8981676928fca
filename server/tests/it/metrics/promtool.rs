//! What Prometheus' own tool says of the metrics, the alerts and the example of a configuration. `scripts/setup.sh
//! test` puts it into `tests/services/.prometheus`; where it is missing, the tests say so, and under `scripts/test.sh`
//! they fail.

use super::{busy, files::root, get};
use std::{
    ffi::OsStr,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

/// `None`: there is none, and that is no mistake.
fn promtool() -> Option<Command> {
    let ours = root().join("tests/services/.prometheus/promtool");
    let program = if ours.is_file() { ours } else { PathBuf::from("promtool") };
    let mut asked = Command::new(&program);
    if asked.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    {
        return Some(Command::new(program));
    }
    let must = std::env::var_os("TIDEMARK_TEST_NO_SKIP").is_some_and(|set| !set.is_empty());
    assert!(!must, "promtool is missing; scripts/setup.sh test fetches it");
    // To the stream itself: the harness would keep it.
    let _ = writeln!(std::io::stderr(), "skipped: promtool is missing");
    None
}

fn approves(mut promtool: Command, arguments: &[&OsStr], input: &str) {
    promtool.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = promtool.spawn().expect("promtool runs");
    let written = process.stdin.take().expect("its input").write_all(input.as_bytes());
    let output = process.wait_with_output().expect("promtool ends");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {said}");
    written.expect("promtool reads all of it");
}

#[tokio::test]
async fn promtool_approves_of_the_metrics() {
    let world = busy().await;
    world.engine().checkpoint().await.expect("a checkpoint");
    let scraped = get(world.http(), "/metrics").await.body;
    let Some(promtool) = promtool() else { return };
    approves(promtool, &["check".as_ref(), "metrics".as_ref()], &scraped);
}

#[test]
fn promtool_approves_of_the_alerts_and_of_the_configuration() {
    for (what, file) in [("rules", "deploy/prometheus/alerts.yml"), ("config", "deploy/prometheus/prometheus.yml")] {
        let Some(promtool) = promtool() else { return };
        approves(promtool, &["check".as_ref(), what.as_ref(), root().join(file).as_os_str()], "");
    }
}

/// deploy/prometheus/alerts_test.yml: series that were, and the alerts that are to come of them.
#[test]
fn alerts_come_when_they_should_and_not_before() {
    let Some(promtool) = promtool() else { return };
    let file = root().join("deploy/prometheus/alerts_test.yml");
    approves(promtool, &["test".as_ref(), "rules".as_ref(), file.as_os_str()], "");
}
