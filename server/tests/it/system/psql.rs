//! psql's commands: what they show is what PostgreSQL shows for tables like ours.

use super::{catalog::*, psql_statements::*};

fn none() -> Vec<Vec<String>> {
    vec![]
}

macro_rules! rows {
    ($([$($cell:expr),* $(,)?]),* $(,)?) => { vec![$(vec![$($cell.to_string()),*]),*] as Vec<Vec<String>> };
}

async fn of(statement: &str, oid: u32) -> Vec<Vec<String>> {
    rows(&statement.replace("{oid}", &oid.to_string())).await
}

async fn like(statement: &str, schema: &str, name: &str) -> Vec<Vec<String>> {
    rows(&statement.replace("{schema}", schema).replace("{name}", name)).await
}

#[tokio::test]
async fn d_lists_sources_tables_and_views() {
    let expected = rows![
        ["public", "carrier_delays", "view", "tidemark"],
        ["public", "flights", "table", "tidemark"],
        ["public", "planes", "table", "tidemark"],
        ["public", "service", "view", "tidemark"],
    ];
    assert_eq!(rows(LIST_RELATIONS).await, expected);
    assert_eq!(rows(LIST_RELATIONS_PLUS).await.len(), 4);
    assert_eq!(like(LIST_TABLES_IN, "history", "").await, rows![["history", "carrier_delays", "table", "tidemark"]]);
    assert_eq!(like(LIST_VIEWS_IN, "public", "").await.len(), 2);
    assert_eq!(
        like(LIST_INDEXES_IN, "public", "").await,
        rows![
            ["public", "carrier_delays_pkey", "index", "tidemark", "carrier_delays"],
            ["public", "planes_pkey", "index", "tidemark", "planes"]
        ]
    );
}

#[tokio::test]
async fn dn_and_l_list_schemas_and_the_database() {
    let expected = rows![["history", "tidemark"], ["public", "tidemark"], ["tidemark", "tidemark"]];
    assert_eq!(rows(LIST_SCHEMAS).await, expected);
    assert_eq!(rows(LIST_SCHEMAS_PLUS).await.len(), 3);
    let expected = rows![["tidemark", "tidemark", "UTF8", "C.UTF-8", "C.UTF-8", "", "libc", ""]];
    assert_eq!(rows(LIST_DATABASES).await, expected);
    assert_eq!(rows(LIST_DATABASES_PLUS).await.len(), 1);
}

#[tokio::test]
async fn d_finds_an_object_by_name() {
    assert_eq!(like(FIND, "public", "flights").await, rows![[FLIGHTS, "public", "flights"]]);
    assert_eq!(like(FIND, "history", "carrier_delays").await, rows![[DELAYS_HISTORY, "history", "carrier_delays"]]);
    assert_eq!(like(FIND, "public", "nothing").await, none());
}

#[tokio::test]
async fn d_shows_the_columns_of_a_source() {
    let expected = rows![
        ["carrier", "text", "", "true", "", "", ""],
        ["event_time", "timestamp with time zone", "", "true", "", "", ""],
        ["dep_delay", "integer", "", "false", "", "", ""],
        ["fare", "numeric(10,2)", "", "false", "", "", ""],
        ["tags", "text[]", "", "false", "", "", ""],
    ];
    assert_eq!(of(DESCRIBE_COLUMNS, FLIGHTS).await, expected);
    let plus = of(DESCRIBE_COLUMNS_PLUS, FLIGHTS).await;
    assert_eq!(plus[0].last().map(String::as_str), Some("IATA code"));
    let class = of(DESCRIBE_CLASS, FLIGHTS).await;
    assert_eq!(
        class,
        rows![["0", "r", "false", "false", "false", "false", "false", "false", "false", "", "0", "", "p", "d", ""]]
    );
}

#[tokio::test]
async fn d_shows_a_primary_key() {
    let expected = rows![[
        "planes_pkey",
        "true",
        "true",
        "false",
        "true",
        "CREATE UNIQUE INDEX planes_pkey ON public.planes USING btree (tailnum)",
        "PRIMARY KEY (tailnum)",
        "p",
        "false",
        "false",
        "false",
        "0"
    ]];
    assert_eq!(of(DESCRIBE_INDEXES, PLANES).await, expected);
    assert_eq!(of(DESCRIBE_INDEXES, FLIGHTS).await, none());
}

#[tokio::test]
async fn d_shows_feature_views_views_and_history() {
    let columns: Vec<String> = of(DESCRIBE_COLUMNS, DELAYS).await.into_iter().map(|r| r[..2].join(" ")).collect();
    assert_eq!(
        columns,
        ["carrier text", "event_time timestamp with time zone", "departures_1h bigint", "quiet interval"]
    );
    let columns: Vec<String> = of(DESCRIBE_COLUMNS, FEATURES).await.into_iter().map(|r| r[..2].join(" ")).collect();
    assert_eq!(columns, ["carrier text"]);
    let history: Vec<String> = of(DESCRIBE_COLUMNS, DELAYS_HISTORY).await.into_iter().map(|r| r[0].clone()).collect();
    assert_eq!(history, ["carrier", "event_time", "departures_1h", "quiet_base", "_op", "_event_time", "_recorded_at"]);
    assert_eq!(of(VIEW_DEFINITION, FEATURES).await, rows![["SELECT carrier FROM carrier_delays;"]]);
    assert_eq!(of(DESCRIBE_VIEW_COLUMNS_PLUS, DELAYS).await.len(), 4);
    assert_eq!(of(VIEW_SOURCE, FEATURES).await[0][1], "service");
    assert_eq!(rows(OID_OF_VIEW).await, rows![[FEATURES]]);
}

/// Everything else that `\d name` asks is about what there is none of: it must be answered, by no rows.
#[tokio::test]
async fn d_asks_for_what_there_is_none_of() {
    for statement in [
        DESCRIBE_FOREIGN_KEYS,
        DESCRIBE_REFERENCES,
        DESCRIBE_POLICIES,
        DESCRIBE_STATISTICS,
        DESCRIBE_PUBLICATIONS,
        DESCRIBE_TRIGGERS,
        DESCRIBE_PARENTS,
        DESCRIBE_CHILDREN,
        DESCRIBE_CHECKS,
        VIEW_RULES,
    ] {
        for oid in [FLIGHTS, PLANES, DELAYS, FEATURES, DELAYS_HISTORY] {
            assert_eq!(of(statement, oid).await, none(), "{statement}");
        }
    }
    assert_eq!(of(DESCRIBE_CLASS_PLUS, FLIGHTS).await.len(), 1);
}

#[tokio::test]
async fn the_other_lists_answer() {
    for statement in [LIST_FUNCTIONS, LIST_FUNCTIONS_PLUS, LIST_SEQUENCES_IN] {
        assert_eq!(like(statement, "public", "").await, none(), "{statement}");
    }
    // As where pgvector is installed.
    assert_eq!(like(LIST_TYPES, "public", "").await, rows![["public", "vector", ""]]);
    assert_eq!(rows(LIST_TYPES_PLUS).await.len(), 1);
    for statement in [LIST_EXTENSIONS, LIST_DOMAINS, LIST_PUBLICATIONS, LIST_EVENT_TRIGGERS, LIST_ROLE_SETTINGS] {
        assert_eq!(rows(statement).await, none(), "{statement}");
    }
    assert_eq!(like(LIST_PRIVILEGES, "public", "").await.len(), 4);
    let roles = rows(LIST_ROLES).await;
    let names: Vec<&str> = roles.iter().map(|r| r[0].as_str()).collect();
    assert_eq!(names, ["ada", "tidemark", "tidemark_connector", "tidemark_reader"]);
    assert_eq!(rows(LIST_TABLESPACES).await.len(), 2);
    assert_eq!(rows(LIST_SETTINGS).await, rows![["TimeZone", "UTC"]]);
}

#[tokio::test]
async fn tab_completion_answers() {
    assert_eq!(rows(COMPLETE_RELATIONS).await, rows![["flights", "public"]]);
    assert_eq!(rows(COMPLETE_COLUMNS).await.len(), 1);
    assert!(rows(COMPLETE_TYPES).await.len() > 20);
    assert_eq!(rows(COMPLETE_DATABASES).await, rows![["tidemark"]]);
    assert_eq!(rows(COMPLETE_ROLES).await.len(), 10);
    assert_eq!(rows(COMPLETE_SETTINGS).await, rows![["timezone"]]);
    assert_eq!(rows(COMPLETE_ANY).await, rows![["carrier_delays", ""]]);
    assert_eq!(rows(GDESC).await, rows![["a", "integer"], ["b", "integer"]]);
}
