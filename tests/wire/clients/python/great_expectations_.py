"""Great Expectations: a suite over a feature view, a source and a query, each expectation by the SQL it makes."""

import sys
import warnings

warnings.simplefilter("ignore")  # its dependencies' deprecations are not ours

import great_expectations as gx  # noqa: E402
import great_expectations.expectations as expect  # noqa: E402
import sqlalchemy as sa  # noqa: E402

URL = f"postgresql+psycopg2://tidemark@127.0.0.1:{sys.argv[1]}/tidemark"
with sa.create_engine(URL).begin() as c:
    c.execute(sa.text("INSERT INTO clicks SELECT n % 20, n, 'page ' || (n % 3), timestamptz '2026-03-02 10:00:00+00' + n * interval '1 second'"
                      " FROM generate_series(0, 999) AS g (n)"))

context = gx.get_context(mode="ephemeral")
source = context.data_sources.add_postgres("tidemark", connection_string=URL)
suites = {
    "spend": [
        expect.ExpectTableRowCountToEqual(value=20),
        expect.ExpectTableColumnsToMatchSet(column_set=["user_id", "at", "clicks", "total", "last_page"], exact_match=True),
        expect.ExpectColumnToExist(column="total"),
        expect.ExpectColumnValuesToNotBeNull(column="user_id"),
        expect.ExpectColumnValuesToBeUnique(column="user_id"),
        expect.ExpectCompoundColumnsToBeUnique(column_list=["user_id", "at"]),
        expect.ExpectColumnValuesToBeBetween(column="clicks", min_value=50, max_value=50),
        expect.ExpectColumnValuesToBeOfType(column="user_id", type_="BIGINT"),
        expect.ExpectColumnValuesToBeInSet(column="last_page", value_set=["page 0", "page 1", "page 2"]),
        expect.ExpectColumnValuesToMatchRegex(column="last_page", regex="^page [0-9]$"),
        expect.ExpectColumnValueLengthsToBeBetween(column="last_page", min_value=6, max_value=6),
        expect.ExpectColumnSumToBeBetween(column="total", min_value=499500, max_value=499500),
        expect.ExpectColumnDistinctValuesToContainSet(column="last_page", value_set=["page 0"]),
    ],
    "clicks": [
        expect.ExpectTableRowCountToBeBetween(min_value=1000, max_value=1000),
        expect.ExpectColumnMeanToBeBetween(column="price", min_value=499.5, max_value=499.5),
        expect.ExpectColumnMinToBeBetween(column="price", min_value=0, max_value=0),
        expect.ExpectColumnMaxToBeBetween(column="price", min_value=999, max_value=999),
        expect.ExpectColumnStdevToBeBetween(column="price", min_value=288, max_value=289),
        expect.ExpectColumnMedianToBeBetween(column="price", min_value=499, max_value=500),
        expect.ExpectColumnQuantileValuesToBeBetween(
            column="price", quantile_ranges={"quantiles": [0.05, 0.5, 0.95], "value_ranges": [[40, 60], [490, 510], [940, 960]]}),
        expect.ExpectColumnUniqueValueCountToBeBetween(column="page", min_value=3, max_value=3),
        expect.ExpectColumnProportionOfUniqueValuesToBeBetween(column="price", min_value=1, max_value=1),
        expect.ExpectColumnPairValuesAToBeGreaterThanB(column_A="at", column_B="at", or_equal=True),
        expect.ExpectColumnValuesToNotBeInSet(column="page", value_set=["", "null"]),
    ],
}
for name, expectations in suites.items():
    batch = source.add_table_asset(name, table_name=name).add_batch_definition_whole_table("all")
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
    result = batch.get_batch().validate(suite)
    wrong = [(one.expectation_config.type, one.result, one.exception_info) for one in result.results if not one.success]
    assert result.success and len(result.results) == len(expectations), wrong
query = source.add_query_asset("few", query="SELECT * FROM spend WHERE user_id < 5").add_batch_definition_whole_table("all")
failing = gx.ExpectationSuite(name="few", expectations=[expect.ExpectTableRowCountToEqual(value=5), expect.ExpectColumnValuesToBeNull(column="total")])
result = query.get_batch().validate(context.suites.add(failing))
assert [one.success for one in result.results] == [True, False], result
print("ok")
