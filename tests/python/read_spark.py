"""Takes a feature view's values as of given times out of its history, with Spark behind a REST catalog: an as-of join that knows nothing of Tidemark.

    read_spark.py JARS URI NAMESPACE TABLE KEYCOL TIMECOL LABELS COLUMN…

LABELS is a CSV file of (label, key, time), the first two integers. For each label in order, a JSON array with the columns as text, and null
where the entity had no row. History and labels are one stream by key and time, in which a step comes before a label of the same time: the
newest step so far is the row of then. AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY say how files are read.
"""

import glob
import json
import os
import sys

from pyspark.sql import SparkSession


def session(jars, uri):
    catalog = {
        "": "org.apache.iceberg.spark.SparkCatalog",
        ".type": "rest",
        ".uri": uri,
        ".io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        ".s3.endpoint": os.environ["AWS_ENDPOINT_URL"],
        ".s3.path-style-access": "true",
        ".s3.access-key-id": os.environ["AWS_ACCESS_KEY_ID"],
        ".s3.secret-access-key": os.environ["AWS_SECRET_ACCESS_KEY"],
        ".client.region": os.environ["AWS_REGION"],
    }
    settings = {
        "spark.jars": ",".join(sorted(glob.glob(f"{jars}/*.jar"))),
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "1g",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.warehouse.dir": os.getcwd(),
    }
    settings.update({f"spark.sql.catalog.lake{name}": value for name, value in catalog.items()})
    builder = SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def quoted(name):
    return "`" + name.replace("`", "``") + "`"


def main():
    jars, uri, namespace, table, key, time, labels, *columns = sys.argv[1:]
    spark = session(jars, uri)
    spark.read.csv(labels, schema="label INT, k BIGINT, ts TIMESTAMP").createOrReplaceTempView("labels")
    step = ", ".join(f"CAST({quoted(column)} AS STRING) AS c{i}" for i, column in enumerate(columns))
    shown = ", ".join(f"CASE WHEN step.op = 'upsert' THEN step.c{i} END AS c{i}" for i in range(len(columns)))
    rows = spark.sql(f"""
        WITH stream AS (
            SELECT {quoted(key)} AS k, {quoted(time)} AS ts, 0 AS side, struct(_op AS op, {step}) AS step, CAST(NULL AS INT) AS label
            FROM lake.{quoted(namespace)}.{quoted(table)}
            UNION ALL
            SELECT k, ts, 1, NULL, label FROM labels
        ), then AS (
            SELECT label, side, last_value(step, true) OVER (
                PARTITION BY k ORDER BY ts, side ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS step
            FROM stream
        )
        SELECT {shown} FROM then WHERE side = 1 ORDER BY label""").collect()
    print(json.dumps([list(row) for row in rows]))
    spark.stop()


if __name__ == "__main__":
    main()
