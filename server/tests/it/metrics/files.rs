//! The files in deploy/ and the page in docs/ speak of metrics that there are.

use super::{scrape, world};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    let path = root().join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// The names of metrics in a text, those of a histogram's parts as the histogram's.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words =
        text.split(|c| !is_name(c)).filter(|word| word.starts_with("tidemark_") || word.starts_with("process_"));
    let bare = |word: &str| {
        let mut parts = ["_bucket", "_sum", "_count"].into_iter();
        parts.find_map(|part| word.strip_suffix(part)).unwrap_or(word).to_string()
    };
    words.map(bare).collect()
}

async fn exposed() -> BTreeSet<String> {
    scrape(&world().await).await.families.into_iter().map(|family| family.name).collect()
}

#[tokio::test]
async fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let exposed = exposed().await;
    for file in ["deploy/prometheus/alerts.yml", "deploy/grafana/tidemark.json"] {
        let asked = metrics_in(&read(file));
        assert!(asked.len() > 5, "{file} asks for hardly anything: {asked:?}");
        let unknown: Vec<_> = asked.difference(&exposed).collect();
        assert!(unknown.is_empty(), "{file} asks for {unknown:?}");
    }
}

#[tokio::test]
async fn the_page_of_metrics_has_each_of_them_and_no_other() {
    assert_eq!(metrics_in(&read("docs/metrics.md")), exposed().await);
}

#[test]
fn every_panel_of_the_dashboard_has_a_place_a_number_of_its_own_and_something_to_show() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("deploy/grafana/tidemark.json")).expect("it is JSON");
    assert_eq!(dashboard["uid"], "tidemark");
    let variables = dashboard["templating"]["list"].as_array().expect("variables are a list");
    assert!(variables.iter().any(|variable| variable["type"] == "datasource" && variable["name"] == "datasource"));
    let panels = dashboard["panels"].as_array().expect("panels are a list");
    let mut numbers = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a panel has a title");
        assert!(numbers.insert(panel["id"].as_u64().expect("a panel has a number")), "{title}: its number is taken");
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap_or_else(|| panic!("{title} has no {name}"));
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(x < 24 && taken.insert((x, y)), "{title} lies over another or beyond the edge");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let targets = panel["targets"].as_array().unwrap_or_else(|| panic!("{title} asks nothing"));
        for target in targets {
            let asked = metrics_in(target["expr"].as_str().unwrap_or_default());
            assert!(!asked.is_empty(), "{title} asks nothing");
        }
    }
    assert!(panels.len() > 10);
}

#[test]
fn every_alert_says_what_it_means_and_what_to_do() {
    let text = read("deploy/prometheus/alerts.yml");
    let alerts: Vec<&str> = text.split("- alert: ").skip(1).collect();
    assert!(alerts.len() >= 8);
    for alert in alerts {
        let name = alert.lines().next().unwrap_or_default();
        for part in ["expr:", "severity:", "summary:", "description:"] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
    }
}
