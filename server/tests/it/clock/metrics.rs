//! What Prometheus is told is what happened, in its format and by its conventions; and health through a server's life.

use super::world::World;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = format!("{method} {path} HTTP/1.1\r\nHost: tidemark\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_string())
}

/// Series with their values, and the types of the families.
#[derive(Debug, Default)]
struct Exposition {
    series: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Exposition {
    /// As strict as a reader may be: every sample belongs to the family before it, and none comes twice.
    fn read(text: &str) -> Exposition {
        let mut exposition = Exposition::default();
        let (mut family, mut helped) = (String::new(), BTreeSet::new());
        assert!(text.ends_with("# EOF\n"), "it ends in the middle");
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(comment) = line.strip_prefix("# ") {
                let [what, name, rest] = comment.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
                match what {
                    "HELP" => assert!(rest.len() > 5 && helped.insert(name.to_string()), "{line}"),
                    "TYPE" => {
                        assert!(exposition.types.insert(name.to_string(), rest.to_string()).is_none(), "{line}");
                        family = name.to_string();
                    }
                    "UNIT" => assert!(name.ends_with(&format!("_{rest}")), "{line}"),
                    _ => panic!("{line}"),
                }
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            let name = series.split('{').next().unwrap_or(series);
            assert!(name.starts_with("tidemark_") && name.starts_with(&family), "{line} is in {family}");
            let suffix = &name[family.len()..];
            match exposition.types[&family].as_str() {
                "counter" => assert_eq!(suffix, "_total", "{line}"),
                "gauge" => assert_eq!(suffix, "", "{line}"),
                "histogram" => assert!(["_bucket", "_count", "_sum"].contains(&suffix), "{line}"),
                other => panic!("{family} is a {other}"),
            }
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(exposition.series.insert(series.to_string(), value).is_none(), "{line} comes twice");
        }
        assert_eq!(helped, exposition.types.keys().cloned().collect());
        exposition.buckets_grow();
        exposition
    }

    fn buckets_grow(&self) {
        let mut last: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for (series, count) in self.series.iter().filter(|(series, _)| series.contains("_bucket{")) {
            let (before, after) = series.split_once("le=\"").expect("a bound");
            let (bound, after) = after.split_once('"').expect("its end");
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a number") };
            last.entry(format!("{before}{after}")).or_default().push((bound, *count));
        }
        assert!(!last.is_empty());
        for (series, mut buckets) in last {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{series}: {buckets:?}");
            assert_eq!(buckets.last().map(|b| b.0), Some(f64::INFINITY), "{series}");
        }
    }

    fn get(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("there is no {series} in {:#?}", self.series.keys()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_is_what_happened() {
    let mut world = World::with("2026-11-01 12:00:00", |settings| {
        settings.http = Some("127.0.0.1:0".parse().expect("an address"));
    })
    .await;
    let http = world.http().expect("it is asked for");
    assert_eq!(ask(http, "GET", "/healthz").await, (200, "ok\n".to_string()));
    assert_eq!(ask(http, "GET", "/readyz").await, (200, "ok\n".to_string()));
    assert_eq!(ask(http, "HEAD", "/readyz").await, (200, String::new()));
    assert_eq!(ask(http, "POST", "/readyz").await.0, 405);
    assert_eq!(ask(http, "GET", "/").await.0, 404);
    world
        .run("CREATE SOURCE clicks (user_id BIGINT, at TIMESTAMPTZ, WATERMARK FOR at AS at - INTERVAL '10 seconds')")
        .await;
    world
        .run(
            "CREATE FEATURE VIEW counts AS SELECT user_id, at, count(*) OVER w AS n FROM clicks
             WINDOW w AS (PARTITION BY user_id ORDER BY at RANGE BETWEEN INTERVAL '1 minute' PRECEDING AND CURRENT ROW)",
        )
        .await;
    let before = Exposition::read(&ask(http, "GET", "/metrics").await.1);
    world.run("INSERT INTO clicks VALUES (1, '2026-11-01 11:59:50Z'), (2, '2026-11-01 11:59:50Z'), (3, NULL)").await;
    world.run("INSERT INTO clicks VALUES (1, '2026-11-01 11:50:00Z'), (NULL, '2026-11-01 11:59:55Z')").await;
    for _ in 0..3 {
        world.run("SELECT n FROM counts WHERE user_id = 1").await;
    }
    assert_eq!(world.refusal("DROP SOURCE nothing").await, "42704");
    let after = Exposition::read(&ask(http, "GET", "/metrics").await.1);
    let source = |name: &str| format!("{name}{{source=\"clicks\"}}");
    assert_eq!(after.get(&source("tidemark_source_rows_total")), 5.0);
    for (reason, count) in [("event_time", 1.0), ("late", 1.0), ("null_key", 1.0), ("future", 0.0), ("decode", 0.0)] {
        let series = format!("tidemark_source_dead_letters_total{{source=\"clicks\",reason=\"{reason}\"}}");
        assert_eq!(after.get(&series), count, "{reason}");
    }
    assert_eq!(after.get(&source("tidemark_source_readable_seconds_count")), 5.0);
    // The clock stands: nothing takes any time.
    assert_eq!(after.get(&source("tidemark_source_readable_seconds_sum")), 0.0);
    assert_eq!(after.get(&source("tidemark_source_watermark_delay_seconds")), 15.0);
    let view = |name: &str| format!("{name}{{view=\"counts\"}}");
    for (name, value) in [
        ("tidemark_view_up", 1.0),
        ("tidemark_view_keys", 2.0),
        ("tidemark_view_event_age_seconds", 5.0),
        ("tidemark_view_rows_failed_total", 1.0),
        ("tidemark_view_events_total", 2.0),
    ] {
        assert_eq!(after.get(&view(name)), value, "{name}");
    }
    let more = |series: &str| after.get(series) - before.get(series);
    assert_eq!(more("tidemark_statement_seconds_count{kind=\"lookup\"}"), 3.0);
    // Two INSERTs and the DROP that fails.
    assert_eq!(more("tidemark_statement_seconds_count{kind=\"other\"}"), 3.0);
    assert_eq!(more("tidemark_statement_failures_total{kind=\"other\"}"), 1.0);
    what_is_deployed_names_what_there_is(&after);
    world.stop().await;
    assert!(TcpStream::connect(http).await.is_err(), "it is closed with the server");
}

/// Alerts, dashboard and documentation name families that exist, and the documentation all of them.
fn what_is_deployed_names_what_there_is(exposition: &Exposition) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut documented = BTreeSet::new();
    for file in ["deploy/prometheus/alerts.yml", "deploy/grafana/tidemark.json", "docs/metrics.md"] {
        let text = std::fs::read_to_string(root.join(file)).expect(file);
        let words =
            text.split(|c: char| !c.is_ascii_lowercase() && c != '_').filter(|word| word.starts_with("tidemark_"));
        for word in words {
            let family = ["_total", "_bucket", "_count", "_sum"].iter().find_map(|suffix| word.strip_suffix(suffix));
            let family = family.filter(|family| exposition.types.contains_key(*family)).unwrap_or(word);
            assert!(exposition.types.contains_key(family), "{file} names {word}, which there is not");
            if file.ends_with(".md") {
                documented.insert(family.to_string());
            }
        }
    }
    let all: BTreeSet<String> = exposition.types.keys().cloned().collect();
    let missing: Vec<&String> = all.difference(&documented).collect();
    assert!(missing.is_empty(), "docs/metrics.md does not have {missing:?}");
}
