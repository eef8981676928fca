"""Apache Superset through its REST interface: a database, datasets of a feature view and a source, charts, SQL Lab.

Superset runs in this process, its requests by Flask's test client; its own data is a SQLite file in a folder that goes.
"""

import os
import subprocess
import sys
import tempfile

PORT = sys.argv[1]
URI = f"postgresql+psycopg2://tidemark@127.0.0.1:{PORT}/tidemark"
CONFIG = """
SECRET_KEY = "of a test"
SQLALCHEMY_DATABASE_URI = "sqlite:///{folder}/superset.db"
WTF_CSRF_ENABLED = False
TALISMAN_ENABLED = False
PREVENT_UNSAFE_DB_CONNECTIONS = False
"""


def expect(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


def rows():
    import psycopg2

    connection = psycopg2.connect(host="127.0.0.1", port=PORT, user="tidemark", dbname="tidemark")
    connection.autocommit = True
    connection.cursor().execute(
        "INSERT INTO clicks SELECT n % 20, n, 'page ' || (n % 3), timestamptz '2026-03-01 00:00:00+00' + n * interval '1 hour'"
        " FROM generate_series(0, 99) AS g (n)")
    connection.close()


def drive(client):
    token = client.post("/api/v1/security/login", json={"username": "admin", "password": "admin", "provider": "db"}).json
    headers = {"Authorization": f"Bearer {token['access_token']}"}

    def call(method, path, **options):
        answer = getattr(client, method)("/api/v1" + path, headers=headers, **options)
        assert answer.status_code in (200, 201), f"{method} {path}: {answer.status_code} {answer.get_data(as_text=True)[:2000]}"
        return answer.json

    call("post", "/database/test_connection/", json={"database_name": "tidemark", "sqlalchemy_uri": URI})
    database = call("post", "/database/", json={"database_name": "tidemark", "sqlalchemy_uri": URI, "expose_in_sqllab": True})["id"]
    assert {"public", "history", "tidemark"} <= set(call("get", f"/database/{database}/schemas/?q=(force:!t)")["result"])
    tables = call("get", f"/database/{database}/tables/?q=(force:!t,schema_name:public)")["result"]
    expect(sorted((t["value"], t["type"]) for t in tables), [
        ("clicks", "table"), ("everything", "table"), ("labels", "table"), ("pages", "view"), ("spend", "view"), ("totals", "view")])
    columns = call("get", f"/database/{database}/table_metadata/?name=spend&schema=public")["columns"]
    expect([column["name"] for column in columns], ["user_id", "at", "clicks", "total", "last_page"])
    assert "spend" in call("get", f"/database/{database}/select_star/spend/public/")["result"]

    ids = {name: call("post", "/dataset/", json={"database": database, "schema": "public", "table_name": name})["id"]
           for name in ("clicks", "spend", "everything", "totals")}
    call("put", f"/dataset/{ids['spend']}/refresh")
    described = call("get", f"/dataset/{ids['clicks']}")["result"]["columns"]
    expect([c["column_name"] for c in described if c["is_dttm"]], ["at"])

    def chart(dataset, **query):
        asked = {"filters": [], "metrics": [], "row_limit": 1000, **query}
        result = call("post", "/chart/data", json={"datasource": {"id": dataset, "type": "table"}, "force": True, "queries": [asked],
                                                   "result_format": "json", "result_type": "full"})["result"][0]
        assert not result.get("error"), result
        return result["data"]

    count = {"expressionType": "SQL", "sqlExpression": "COUNT(*)", "label": "n"}
    total = {"expressionType": "SIMPLE", "column": {"column_name": "price"}, "aggregate": "SUM", "label": "s"}
    found = chart(ids["clicks"], columns=["page"], metrics=[count, total], orderby=[[count, False]])
    expect({row["page"]: (row["n"], float(row["s"])) for row in found}, {"page 0": (34, 1683.0), "page 1": (33, 1617.0), "page 2": (33, 1650.0)})
    day = {"timeGrain": "P1D", "columnType": "BASE_AXIS", "sqlExpression": "at", "label": "at", "expressionType": "SQL"}
    found = chart(ids["clicks"], columns=[day], metrics=[count], granularity="at", extras={"time_grain_sqla": "P1D"},
                  time_range="2026-03-01 : 2026-03-04", is_timeseries=True)
    expect([row["n"] for row in found], [24, 24, 24])
    found = chart(ids["spend"], columns=["user_id", "clicks"], filters=[{"col": "total", "op": ">", "val": 200}, {"col": "user_id", "op": "IN", "val": [18, 19]}])
    expect(sorted((row["user_id"], row["clicks"]) for row in found), [(18, 5), (19, 5)])
    virtual = call("post", "/dataset/", json={"database": database, "schema": "public", "table_name": "late",
                                              "sql": "SELECT user_id, price, at FROM clicks WHERE price > 50"})["id"]
    expect(len(chart(virtual, columns=["user_id"], metrics=[total], row_limit=5)), 5)
    expect(sorted(call("get", f"/datasource/table/{ids['clicks']}/column/page/values/")["result"]), ["page 0", "page 1", "page 2"])

    lab = {"database_id": database, "schema": "public", "runAsync": False, "queryLimit": 100, "tab": "t", "expand_data": True}
    found = call("post", "/sqllab/execute/", json={**lab, "sql": "SELECT user_id, total FROM spend WHERE user_id = 7", "client_id": "a1"})
    expect([(row["user_id"], float(row["total"])) for row in found["data"]], [(7, 235.0)])
    found = call("post", "/sqllab/execute/", json={**lab, "sql": "EXPLAIN SELECT * FROM spend; SELECT 1 AS a", "client_id": "a2"})
    expect([row["a"] for row in found["data"]], [1])


with tempfile.TemporaryDirectory() as folder:
    with open(f"{folder}/superset_config.py", "w") as config:
        config.write(CONFIG.format(folder=folder))
    os.environ.update(SUPERSET_HOME=folder, SUPERSET_CONFIG_PATH=f"{folder}/superset_config.py", FLASK_APP="superset")
    superset = os.path.join(os.path.dirname(sys.executable), "superset")
    for command in (["db", "upgrade"], ["fab", "create-admin", "--username", "admin", "--firstname", "a", "--lastname", "b",
                                        "--email", "a@example.com", "--password", "admin"], ["init"]):
        subprocess.run([superset, *command], check=True, capture_output=True)
    rows()
    from superset.app import create_app

    app = create_app()
    drive(app.test_client())
print("ok")
