//! A view that lived through crashes is the view that is born afterwards, from the same events: every kind of state comes back
//! from its checkpoint as a replay of the whole log makes it.

use crate::server::{Folder, Server, rows};
use anyhow::{Result, ensure};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Each has a state of its own kind to save: running numbers, values, events, extremes, sketches, open windows.
const VIEWS: [(&str, &str); 12] = [
    (
        "running",
        "SELECT k, count(*) AS n, sum(x) AS s, min(x) AS low, max_by(w, x) AS best, count(DISTINCT w) AS words, \
         approx_count_distinct(x) AS about, first_value(x) AS first, median(x) AS middle, mode(w) AS usual, bit_xor(n) AS bits, \
         corr(x, n) AS r, kurtosis(x) AS k4, avg(d) AS d FROM s GROUP BY k",
    ),
    (
        "bounded",
        "SELECT k, at, sum(x) OVER w AS s, stddev_samp(x) OVER w AS sd, min(x) OVER w AS low, max_by(w, n) OVER w AS best, \
         percentile_cont(x, 0.9) OVER w AS high, skewness(n) OVER w AS skew, regr_slope(x, n) OVER w AS slope, \
         array_to_string(array_agg(n) OVER w, ',', '?') AS all_n, array_to_string(top_k(x, 2) OVER w, ',') AS top FROM s \
         WINDOW w AS (PARTITION BY k ORDER BY at RANGE INTERVAL '40 seconds' PRECEDING)",
    ),
    (
        "rows_back",
        "SELECT k, at, x - lag(x, 2) OVER (PARTITION BY k ORDER BY at) AS change, string_agg(w, '+') OVER w AS words, \
         nth_value(n, 3) OVER w AS third FROM s WINDOW w AS (PARTITION BY k ORDER BY at ROWS BETWEEN 5 PRECEDING AND 1 PRECEDING)",
    ),
    (
        "ranked",
        "SELECT k, at, array_to_string(top_k_by(w, x, 2) OVER w, ',', '?') AS best, array_to_string(bottom_k_by(n, w, 3) OVER w, ',', '?') AS last, \
         increase(n) OVER w AS up, increase(x) OVER w AS up_x, array_to_string(vector_avg(ARRAY[x, n]) OVER w, ',', '?') AS mean, rate(*) OVER w AS rate, \
         entropy(w) OVER w AS bits, histogram(n) OVER w AS each, geometric_mean(n) OVER w AS mild, \
         array_to_string(approx_top_k(n, 2) OVER w, ',') AS often, approx_percentile(x, 0.4) OVER w AS some FROM s \
         WINDOW w AS (PARTITION BY k ORDER BY at RANGE INTERVAL '40 seconds' PRECEDING)",
    ),
    (
        "ever",
        "SELECT k, at, array_to_string(top_k_by(w, x, 4) OVER w, ',', '?') AS best, array_to_string(bottom_k_by(n, w, 3) OVER w, ',', '?') AS last, \
         increase(n) OVER w AS up, increase(x) OVER w AS up_x, array_to_string(vector_sum(ARRAY[x, n]) OVER w, ',', '?') AS sums, \
         entropy(w) OVER w AS bits, histogram(w) OVER w AS each, array_to_string(approx_top_k(x, 9) OVER w, ',') AS often, \
         approx_percentile(x, 0.4) OVER w AS some FROM s WINDOW w AS (PARTITION BY k ORDER BY at)",
    ),
    (
        "tumbled",
        "SELECT k, window_end() AS ended, count(*) AS n, sum(d) AS d FROM s GROUP BY k, TUMBLE(at, INTERVAL '20 seconds')",
    ),
    (
        "hopped",
        "SELECT k, window_start() AS began, max(x) AS high, count(DISTINCT n) AS n FROM s \
         GROUP BY k, HOP(at, INTERVAL '10 seconds', INTERVAL '50 seconds')",
    ),
    (
        "in_sessions",
        "SELECT k, window_start() AS began, window_end() AS ended, count(*) AS n, mode(w) AS usual FROM s \
         GROUP BY k, SESSION(at, INTERVAL '6 seconds')",
    ),
    (
        "fading",
        "SELECT k, at, decay_sum(n, INTERVAL '30 seconds') OVER w AS heat, decay_avg(n, INTERVAL '30 seconds') OVER w AS mild FROM s \
         WINDOW w AS (PARTITION BY k ORDER BY at)",
    ),
    (
        "on_a_grid",
        "SELECT k, at, count(*) OVER w AS n, bool_or(n > 8) OVER w AS high FROM s \
         WINDOW w AS (PARTITION BY k ORDER BY at RANGE INTERVAL '1 minute' PRECEDING)",
    ),
    // Over a table: what comes behind the checkpoint takes out rows from before it.
    (
        "of_rows",
        "SELECT k, count(*) AS n, sum(x) AS s, min(x) AS low, max_by(w, x) AS best, first_value(id) AS first, \
         array_to_string(array_agg(id), ',') AS ids, median(x) AS middle, decay_avg(n, INTERVAL '30 seconds') AS mild FROM r \
         WHERE coalesce(n, 0) < 10 GROUP BY k",
    ),
    (
        "rows_lately",
        "SELECT k, at, count(*) OVER w AS n, avg(d) OVER w AS d, string_agg(w, '+') OVER (PARTITION BY k ORDER BY at ROWS 3 PRECEDING) AS words, \
         id FROM r WINDOW w AS (PARTITION BY k ORDER BY at RANGE INTERVAL '40 seconds' PRECEDING)",
    ),
];

const LIVES: usize = 5;
const BATCHES: usize = 6;
const ROWS: usize = 40;
const SEED: u64 = 7;

fn create(name: &str, view: &str, query: &str) -> String {
    let options = match view {
        "on_a_grid" => "WITH (slide = '15 seconds') ",
        "in_sessions" | "bounded" => "WITH (ttl = '2 minutes') ",
        _ => "",
    };
    format!("CREATE FEATURE VIEW {name} {options}AS {query}")
}

/// Rows in disorder within the watermark's delay, with NULLs, ties and pauses.
fn batch(rng: &mut StdRng, second: &mut i64, relation: &str) -> String {
    let rows = (0..ROWS).map(|_| {
        *second += if rng.random_bool(0.02) { rng.random_range(10..200) } else { rng.random_range(0..2) };
        let at = 1_772_445_600 + *second - rng.random_range(0..4);
        let null = |rng: &mut StdRng, value: String| if rng.random_bool(0.1) { "NULL".to_owned() } else { value };
        let x = format!("{}", f64::from(rng.random_range(-80..80)) / 8.0);
        let (n, d) = (rng.random_range(0..12).to_string(), format!("{}.25", rng.random_range(0..9)));
        let w = format!("'{}'", ["a", "b", "ü", ""][rng.random_range(0..4)]);
        let id = if relation == "r" { format!(", {}", rng.random_range(0..25)) } else { String::new() };
        format!(
            "({}, {}, {}, {}, {}, to_timestamp({at}){id})",
            rng.random_range(0..6),
            null(rng, x),
            null(rng, n),
            null(rng, d),
            null(rng, w)
        )
    });
    format!("INSERT INTO {relation} VALUES {}", rows.collect::<Vec<_>>().join(", "))
}

#[tokio::test]
async fn a_view_that_lived_through_crashes_is_the_view_that_is_born_after_them() -> Result<()> {
    let folder = Folder::new()?;
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut second = 0;
    let mut server = Server::start(&folder).await?;
    let client = server.connect().await?;
    client
        .batch_execute(
            "CREATE SOURCE s (k BIGINT, x DOUBLE PRECISION, n INTEGER, d NUMERIC(10,2), w TEXT, at TIMESTAMPTZ NOT NULL, \
             WATERMARK FOR at AS at - INTERVAL '5 seconds') WITH (clock = 'event'); \
             CREATE TABLE r (k BIGINT, x DOUBLE PRECISION, n INTEGER, d NUMERIC(10,2), w TEXT, at TIMESTAMPTZ NOT NULL, \
             id BIGINT PRIMARY KEY, WATERMARK FOR at AS at - INTERVAL '5 seconds') WITH (clock = 'event') FORMAT UPSERT",
        )
        .await?;
    for (view, query) in VIEWS {
        client.batch_execute(&create(view, view, query)).await?;
    }
    for _ in 0..LIVES {
        let client = server.connect().await?;
        for i in 0..BATCHES {
            client.batch_execute(&batch(&mut rng, &mut second, "s")).await?;
            client.batch_execute(&batch(&mut rng, &mut second, "r")).await?;
            // What is behind the checkpoint is replayed into what is restored.
            if i == rng.random_range(0..BATCHES) {
                client.batch_execute("CHECKPOINT").await?;
            }
        }
        server.kill()?;
        server = Server::start(&folder).await?;
    }
    let client = server.connect().await?;
    client.batch_execute("CHECKPOINT").await?;
    for (view, query) in VIEWS {
        let twin = format!("{view}_twin");
        let current = |name: &str| format!("SELECT * FROM {name} ORDER BY k");
        // Read before: from then on the two may be kept together.
        let lived = rows(&client, &current(view)).await?;
        client.batch_execute(&create(&twin, view, query)).await?;
        client.batch_execute("CHECKPOINT").await?;
        let born = rows(&client, &current(&twin)).await?;
        let together = rows(&client, &current(view)).await?;
        ensure!(lived == together, "{view}: {lived:?}\nbeside its twin: {together:?}");
        ensure!(!born.is_empty() && lived == born, "{view}: {lived:?}\nits twin: {born:?}");
        // Everything but when it was written.
        let all = client.prepare(&format!("SELECT * FROM history.{view}")).await?;
        let columns: Vec<&str> =
            all.columns().iter().map(|column| column.name()).filter(|name| *name != "_recorded_at").collect();
        let columns = columns.join(", ");
        let steps = |name: &str| format!("SELECT {columns} FROM history.{name} ORDER BY k, at");
        let (lived, born) = (rows(&client, &steps(view)).await?, rows(&client, &steps(&twin)).await?);
        let differs = lived.iter().zip(&born).find(|(lived, born)| lived != born);
        ensure!(
            born.len() > 20 && lived == born,
            "{view}: {} steps, its twin {}: {differs:?}",
            lived.len(),
            born.len()
        );
    }
    Ok(())
}
