"""dbt's own tests of adapters on dbt-postgres and a Tidemark server: pytest with TIDEMARK_PORT in the environment."""

import os

import pytest

pytest_plugins = ["dbt.tests.fixtures.project"]


@pytest.fixture(scope="class")
def dbt_profile_target():
    return {"type": "postgres", "host": "127.0.0.1", "port": int(os.environ["TIDEMARK_PORT"]), "user": "tidemark",
            "password": "none", "dbname": "tidemark", "threads": 2}
