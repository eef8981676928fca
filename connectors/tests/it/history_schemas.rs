//! History tables of other schemas than `public`: namespaces of the Iceberg catalog, folders of the warehouse, and the same names
//! in several.

use crate::contract_history::{NEW_YEAR, files_below, flights, open, scan, steps, tag};
use std::collections::BTreeSet;
use tidemark_catalog::ObjectId;

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_one_name_in_two_schemas_are_two_and_each_is_in_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 1).await;
    let (own, other, dotted) = (flights("delays", 16400), flights("marts.delays", 16401), flights("public.a.b", 16402));
    for table in [&own, &other, &dotted] {
        store.create(table).await.unwrap();
    }
    store.append(&own, vec![steps(&own, &[("JFK", NEW_YEAR)])], &tag(1, 1)).await.unwrap();
    store.append(&other, vec![steps(&other, &[("EWR", NEW_YEAR), ("LGA", NEW_YEAR)])], &tag(1, 1)).await.unwrap();
    assert_eq!((scan(&store, &own).await.num_rows(), scan(&store, &other).await.num_rows()), (1, 2));
    assert_eq!(files_below(&folder.path().join("public"), ".parquet").len(), 1);
    assert_eq!(files_below(&folder.path().join("marts"), ".parquet").len(), 1);

    // Moved to another schema it has its rows, also for who opens the warehouse anew.
    store.rename("marts.delays", "shop.delays").await.unwrap();
    let moved = flights("shop.delays", 16401);
    let store = open(folder.path(), 2).await;
    assert_eq!(scan(&store, &moved).await.num_rows(), 2);
    assert_eq!(store.last_tag("shop.delays").await.unwrap(), Some(tag(1, 1)));
    assert!(store.last_tag("marts.delays").await.is_err());
    // A rename that a crash has cut: the view's table gets its name again, wherever that is.
    store.create(&other).await.unwrap();
    assert_eq!(scan(&store, &other).await.num_rows(), 2);

    // What no view has any more goes with its files, in every schema.
    store.retain(&BTreeSet::from([ObjectId(16400)])).await.unwrap();
    assert!(files_below(&folder.path().join("marts"), ".parquet").is_empty());
    assert!(store.last_tag("marts.delays").await.is_err() && store.last_tag("public.a.b").await.is_err());
    assert_eq!(scan(&store, &own).await.num_rows(), 1);
}
