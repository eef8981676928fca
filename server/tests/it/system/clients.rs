//! What drivers and tools ask when they connect or meet a type.

use super::catalog::*;
use datafusion::scalar::ScalarValue;
use tidemark_server::wire::{FieldFormat, SessionZone, decode_param, types::oid};

async fn one(sql: &str) -> String {
    rows(sql).await.into_iter().next().and_then(|row| row.into_iter().next()).unwrap_or_default()
}

#[tokio::test]
async fn a_session_knows_itself() {
    assert!(one("SELECT version()").await.starts_with("PostgreSQL 15.14 (Tidemark "));
    assert_eq!(one("select pg_catalog.version()").await, one("SELECT version()").await);
    assert_eq!(one("SELECT current_user").await, "ada");
    assert_eq!(one("SELECT session_user").await, "ada");
    assert_eq!(one("SELECT current_database()").await, "tidemark");
    assert_eq!(one("SELECT current_schema").await, "public");
    assert_eq!(one("SELECT current_schema()").await, "public");
    assert_eq!(one("SELECT current_schemas(true)").await, "[pg_catalog, public]");
    assert_eq!(one("SELECT pg_backend_pid()").await, "7");
    assert_eq!(one("SELECT pg_is_in_recovery()").await, "false");
    assert_eq!(one("SELECT pg_advisory_unlock_all()").await, "");
    assert_eq!(one("SELECT current_setting('server_version_num')").await, "150014");
    assert_eq!(
        table("SELECT current_setting('jit') AS cur, set_config('jit', 'off', false) AS new")
            .await
            .map(|t| t[1].clone()),
        Ok(vec!["off".to_string(), "off".to_string()])
    );
    let error = table("SELECT current_setting('no.such')").await.expect_err("there is no such setting");
    assert!(error.contains("unrecognized configuration parameter \"no.such\""), "{error}");
    assert_eq!(one("SELECT current_setting('no.such', true)").await, "");
}

#[tokio::test]
async fn names_become_oids_and_back() {
    assert_eq!(one("SELECT 'flights'::regclass").await, "flights");
    assert_eq!(one("SELECT 'flights'::regclass::oid").await, FLIGHTS.to_string());
    assert_eq!(one(&format!("SELECT {DELAYS_HISTORY}::regclass")).await, "history.carrier_delays");
    assert_eq!(one("SELECT relname FROM pg_class WHERE oid = 'public.planes'::regclass").await, "planes");
    assert_eq!(one("SELECT to_regclass('nothing') IS NULL").await, "true");
    assert_eq!(one("SELECT 'bigint'::regtype::oid").await, "20");
    assert_eq!(one("SELECT 1009::regtype").await, "text[]");
    assert_eq!(one("SELECT 2200::regnamespace").await, "public");
    let error = table("SELECT 'nothing'::regclass").await.expect_err("there is no such relation");
    assert!(error.contains("relation \"nothing\" does not exist"), "{error}");
}

#[tokio::test]
async fn drivers_find_types() {
    let oid = [ScalarValue::Int64(Some(1009))];
    let found = batches(
        "SELECT t.typname, t.typtype, t.typelem, r.rngsubtype, t.typbasetype, n.nspname, t.typrelid
         FROM pg_catalog.pg_type t
         LEFT OUTER JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid
         INNER JOIN pg_catalog.pg_namespace n ON t.typnamespace = n.oid WHERE t.oid = $1",
        &oid,
    )
    .await
    .expect("tokio-postgres's question");
    assert_eq!(found.iter().map(|b| b.num_rows()).sum::<usize>(), 1);
    let names = [ScalarValue::Utf8(Some("numeric".into()))];
    let found = batches(
        "SELECT typname AS name, oid, typarray AS array_oid, oid::regtype::text AS regtype, typdelim AS delimiter
         FROM pg_type t WHERE t.oid = to_regtype($1) ORDER BY t.oid",
        &names,
    )
    .await
    .expect("psycopg's question");
    assert_eq!(found[0].num_rows(), 1);
}

/// The parameter of asyncpg's question, as asyncpg sends it: `oid[]` in binary.
fn array_of_oids(oids: &[u32]) -> ScalarValue {
    const OID_ARRAY: u32 = 1028;
    let head = [1, 0, oid::OID, oids.len() as u32, 1];
    let items = oids.iter().flat_map(|oid| [4, *oid]);
    let bytes: Vec<u8> = head.into_iter().chain(items).flat_map(u32::to_be_bytes).collect();
    decode_param(OID_ARRAY, FieldFormat::Binary, Some(&bytes), &SessionZone::UTC).expect("an array of OIDs")
}

/// The types that it asks for before `k = any($1)`, `$1::bigint[]` and `array[1, 2]`, and for several at once.
#[tokio::test]
async fn asyncpg_walks_from_an_array_to_its_element() {
    let walk = include_str!("asyncpg_types.sql");
    let cases: [(&[u32], usize); 3] = [(&[1016], 2), (&[1007, 1009], 4), (&[20], 1)];
    for (oids, types) in cases {
        let found = batches(walk, &[array_of_oids(oids)]).await.expect("asyncpg's question");
        let rows: usize = found.iter().map(|b| b.num_rows()).sum();
        assert_eq!(rows, types, "{oids:?}: each array and its element");
        assert_eq!(found[0].num_columns(), 14);
    }
}

/// The shapes that SQLAlchemy's and BI tools' reflection uses.
#[tokio::test]
async fn reflection_finds_tables_columns_and_keys() {
    assert_eq!(
        rows(
            "SELECT pg_catalog.pg_class.relname FROM pg_catalog.pg_class
             JOIN pg_catalog.pg_namespace ON pg_catalog.pg_namespace.oid = pg_catalog.pg_class.relnamespace
             WHERE pg_catalog.pg_class.relkind = ANY (ARRAY['r', 'p']) AND pg_catalog.pg_class.relpersistence != 't'
               AND pg_catalog.pg_table_is_visible(pg_catalog.pg_class.oid)
               AND pg_catalog.pg_namespace.nspname != 'pg_catalog' ORDER BY 1"
        )
        .await,
        [["flights"], ["planes"]]
    );
    assert_eq!(
        rows(
            "SELECT column_name, data_type, is_nullable FROM information_schema.columns
             WHERE table_schema = 'public' AND table_name = 'planes' ORDER BY ordinal_position"
        )
        .await,
        [["tailnum", "text", "NO"], ["seats", "bigint", "YES"]]
    );
    assert_eq!(
        rows(
            "SELECT k.column_name FROM information_schema.table_constraints c
             JOIN information_schema.key_column_usage k USING (constraint_name)
             WHERE c.constraint_type = 'PRIMARY KEY' AND c.table_name = 'carrier_delays'"
        )
        .await,
        [["carrier"]]
    );
    assert_eq!(
        rows(
            "SELECT a.attname FROM pg_index i
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
             WHERE i.indrelid = 'planes'::regclass AND i.indisprimary"
        )
        .await,
        [["tailnum"]]
    );
    // A feature view's entity key has an index, by which SQLAlchemy and pgjdbc look for keys. ADBC unnests beside the table.
    assert_eq!(
        rows(
            "SELECT c.conname, a.attname FROM pg_constraint c JOIN pg_index i ON i.indexrelid = c.conindid
             JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY (i.indkey)
             WHERE c.conrelid = 'carrier_delays'::regclass AND i.indisprimary"
        )
        .await,
        [["carrier_delays_pkey", "carrier"]]
    );
    assert_eq!(
        rows(
            "SELECT con.conname, array_agg(a.attname) AS columns FROM pg_catalog.pg_constraint AS con
             CROSS JOIN UNNEST(conkey) AS conkeys INNER JOIN pg_catalog.pg_class AS c ON c.oid = con.conrelid
             INNER JOIN pg_catalog.pg_attribute AS a ON a.attnum = conkeys AND c.oid = a.attrelid
             WHERE con.contype IN ('c', 'u', 'p') AND c.relname = 'planes' GROUP BY conname"
        )
        .await,
        [["planes_pkey", "[tailnum]"]]
    );
    // Vectors begin at 0: psqlODBC's primary keys, shortened.
    assert_eq!(
        rows(
            "select ta.attname, ia.attnum, ic.relname from pg_catalog.pg_attribute ta, pg_catalog.pg_attribute ia, pg_catalog.pg_class tc,
             pg_catalog.pg_index i, pg_catalog.pg_class ic where tc.relname = 'planes' AND tc.oid = i.indrelid AND i.indisprimary = 't'
             AND ia.attrelid = i.indexrelid AND ta.attrelid = i.indrelid AND ta.attnum = i.indkey[ia.attnum-1]
             AND (NOT ta.attisdropped) AND ic.oid = i.indexrelid order by ia.attnum"
        )
        .await,
        [["tailnum", "1", "planes_pkey"]]
    );
    assert_eq!(one("SELECT indkey[0] FROM pg_index WHERE indrelid = 'planes'::regclass").await, "1");
    // pgAdmin's first question, shortened.
    assert_eq!(
        one("SELECT 'pg_signal_backend' = ANY(ARRAY(WITH RECURSIVE cte AS (
                SELECT pg_roles.oid, pg_roles.rolname FROM pg_catalog.pg_roles WHERE pg_roles.oid = roles.oid
                UNION ALL SELECT m.roleid, pgr.rolname FROM cte cte_1 JOIN pg_catalog.pg_auth_members m ON m.member = cte_1.oid
                JOIN pg_catalog.pg_roles pgr ON pgr.oid = m.roleid) SELECT rolname FROM cte))
             FROM pg_catalog.pg_roles AS roles WHERE rolname = current_user")
        .await,
        "false"
    );
    assert_eq!(one("SELECT oid > 16383 FROM pg_database").await, "true");
    // The name as ADBC writes it.
    assert_eq!(one("SELECT '\"public\" . \"flights\"'::regclass").await, "flights");
    assert_eq!(
        rows("SELECT table_name FROM information_schema.views WHERE table_schema = 'public' ORDER BY 1").await.len(),
        2
    );
    assert_eq!(rows("SELECT schemaname, tablename FROM pg_tables WHERE schemaname = 'public'").await.len(), 2);
}

/// A query of the user's own is planned as it is written.
#[tokio::test]
async fn a_query_that_does_not_concern_the_catalog_is_left_alone() {
    for sql in ["SELECT carrier, count(*) FROM flights GROUP BY 1", "SELECT (SELECT max(x) FROM t), y::bigint FROM u"] {
        let parsed = tidemark_planner::parse::parse(sql).expect("it parses");
        let Some(tidemark_planner::Statement::Query(query)) = parsed.into_iter().next().map(|p| p.statement) else {
            panic!("{sql} is a query")
        };
        let mut rewritten = query.clone();
        assert!(!tidemark_server::system::rewrite(&mut rewritten));
        assert_eq!(rewritten, query);
    }
}

#[test]
fn parameters_have_the_types_that_casts_give_them() {
    let parsed = tidemark_planner::parse::parse(
        "SELECT 1 WHERE 1 = ANY ($1::oid[]) AND $2::pg_catalog.text = '' AND $3 > 1 AND $4::regclass = 1 AND $5::CHAR = 't'",
    )
    .expect("it parses");
    let Some(tidemark_planner::Statement::Query(query)) = parsed.into_iter().next().map(|p| p.statement) else {
        panic!("it is a query")
    };
    let declared = tidemark_server::system::declared_parameters(&query);
    assert_eq!(declared.into_iter().collect::<Vec<_>>(), [(1, 1028), (2, 25), (4, 25), (5, 1042)]);
}
