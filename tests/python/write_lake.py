"""Writes an Iceberg table as somebody else would, whose shape changes as it goes, and prints its folder.

    write_lake.py FOLDER

Two partition fields (day of `at`, `city`), a file per partition; then `price` becomes `fare`, `tip` comes, `n` grows from int to
long, `gone` goes; more rows; one row is taken back by writing its file anew.
"""

import datetime
import decimal
import os
import sys

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.expressions import EqualTo
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import (
    DecimalType,
    DoubleType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)


def at(day, hour):
    return datetime.datetime(2026, 3, day, hour, tzinfo=datetime.timezone.utc)


def main():
    folder = os.path.abspath(sys.argv[1])
    catalog = SqlCatalog("lake", uri=f"sqlite:///{folder}/lake.db", warehouse=f"file://{folder}")
    catalog.create_namespace("n")
    schema = Schema(
        NestedField(1, "id", LongType(), required=False),
        NestedField(2, "price", DecimalType(8, 2), required=False, doc="in euros"),
        NestedField(3, "at", TimestamptzType(), required=False),
        NestedField(4, "city", StringType(), required=False),
        NestedField(5, "n", IntegerType(), required=False),
        NestedField(6, "gone", StringType(), required=False),
    )
    spec = PartitionSpec(
        PartitionField(source_id=3, field_id=1000, transform=DayTransform(), name="at_day"),
        PartitionField(source_id=4, field_id=1001, transform=IdentityTransform(), name="city"),
    )
    table = catalog.create_table("n.rides", schema=schema, partition_spec=spec)
    table.append(
        pa.table(
            {
                "id": pa.array([1, 2, 3, 4], pa.int64()),
                "price": pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("3.00"), decimal.Decimal("4.25")], pa.decimal128(8, 2)),
                "at": pa.array([at(1, 10), at(1, 11), at(2, 10), at(2, 11)], pa.timestamp("us", tz="UTC")),
                "city": pa.array(["Bonn", "Ulm", "Bonn", None]),
                "n": pa.array([1, 2, 3, None], pa.int32()),
                "gone": pa.array(["a", "b", "c", "d"]),
            }
        )
    )
    with table.update_schema() as update:
        update.rename_column("price", "fare")
        update.add_column("tip", DoubleType())
        update.update_column("n", field_type=LongType())
        update.delete_column("gone")
    table = catalog.load_table("n.rides")
    table.append(
        pa.table(
            {
                "id": pa.array([5, 6, 7], pa.int64()),
                "fare": pa.array([decimal.Decimal("5.00"), decimal.Decimal("6.00"), decimal.Decimal("7.00")], pa.decimal128(8, 2)),
                "at": pa.array([at(3, 10), at(3, 11), at(3, 12)], pa.timestamp("us", tz="UTC")),
                "city": pa.array(["Bonn", "Bonn", "Ulm"]),
                "n": pa.array([5, 6_000_000_000, 7], pa.int64()),
                "tip": pa.array([0.5, float("nan"), None], pa.float64()),
            }
        )
    )
    table.delete(EqualTo("id", 6))
    print(table.metadata_location)
    print(table.location())


if __name__ == "__main__":
    main()
