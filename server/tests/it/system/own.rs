//! Schema `tidemark`: what there is, in our own words.

use super::catalog::rows;

#[tokio::test]
async fn sources_and_tables_are_listed() {
    let found =
        rows("SELECT name, kind, columns, event_time, delay, clock, comment FROM tidemark.sources ORDER BY name").await;
    assert_eq!(
        found,
        [
            ["flights", "source", "5", "event_time", "2 days", "event", "real departures"],
            ["planes", "table", "2", "", "", "event", ""]
        ]
    );
}

#[tokio::test]
async fn feature_views_and_their_features_are_listed() {
    assert_eq!(
        rows("SELECT name, key, owner FROM tidemark.feature_views ORDER BY name").await,
        [["carrier_delays", "carrier", "ranking"]]
    );
    assert_eq!(
        rows("SELECT view, name, type, aggregate, \"window\", time_continuous FROM tidemark.features ORDER BY name")
            .await,
        [
            ["carrier_delays", "departures_1h", "bigint", "count", "RANGE 1 hour PRECEDING", "false"],
            ["carrier_delays", "quiet", "interval", "", "", "true"]
        ]
    );
}

#[tokio::test]
async fn pipelines_have_one_row_for_each_object_that_moves() {
    let found = rows("SELECT name, kind, state FROM tidemark.pipelines ORDER BY name").await;
    let expected = [
        ["carrier_delays", "feature view", "running"],
        ["flights", "source", "running"],
        ["planes", "table", "running"],
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn no_dead_letters_are_no_rows() {
    assert_eq!(rows("SELECT count(*) AS letters FROM tidemark.dead_letters WHERE object = 'flights'").await, [["0"]]);
    let by_reason = rows("SELECT reason, count(*) FROM tidemark.dead_letters GROUP BY reason").await;
    assert!(by_reason.is_empty());
}
