#!/usr/bin/env python3
"""Will this flight leave more than 15 minutes late? Asked one hour before its scheduled departure.

    model.py [TRAIN.PARQUET [LEAK.PARQUET]]     the files that 05_training.sql writes

Trains on January to September and scores October to December, in order of time: a model is always used on the future.
Three numbers (area under the ROC curve; 0.5 is chance):

    point in time   trained and scored on what a lookup would have answered when the question was asked
    with a leak     trained and scored on the same features read three hours after the scheduled departure:
                    the number a notebook would have reported
    leak, served    that same model on what a lookup really answers: what production would have got
"""

import sys

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

NOT_FEATURES = {"flight_id", "asked_at", "scheduled_departure", "late", "carrier", "tailnum", "origin", "dest"}
SPLIT = np.datetime64("2013-10-01")


def read(path):
    """(feature names, values, labels, scheduled departures) of the flights that left, in order of schedule."""
    table = pq.read_table(path)
    if table.num_rows == 0:
        sys.exit(f"{path} has no rows")
    table = table.filter(pc.is_valid(table["late"])).sort_by([("scheduled_departure", "ascending"), ("flight_id", "ascending")])
    names = [n for n in table.column_names if n not in NOT_FEATURES]
    scheduled = table["scheduled_departure"].to_numpy().astype("datetime64[m]")
    columns = [table[n].cast("double").to_numpy(zero_copy_only=False) for n in names]
    # Known from the schedule itself: the hour and the day of the week (UTC).
    minute = scheduled.astype("int64")
    columns += [minute // 60 % 24, minute // (24 * 60) % 7]
    values = np.column_stack(columns).astype(float)
    return names + ["hour", "weekday"], values, table["late"].to_numpy(zero_copy_only=False).astype(bool), scheduled


def train(values, late):
    return HistGradientBoostingClassifier(max_iter=150, learning_rate=0.1, random_state=0).fit(values, late)


def auc(model, values, late):
    return roc_auc_score(late, model.predict_proba(values)[:, 1])


def main():
    honest_path, leak_path = (sys.argv[1:] + ["train.parquet", "train_leak.parquet"][len(sys.argv) - 1 :])[:2]
    names, honest, late, scheduled = read(honest_path)
    leak_names, leak, leak_late, _ = read(leak_path)
    if leak_names != names or not np.array_equal(late, leak_late):
        sys.exit(f"{honest_path} and {leak_path} are not about the same flights and features")
    past = scheduled < SPLIT
    future = ~past
    if not past.any() or not future.any():
        sys.exit("the model needs flights before and after 2013-10-01: derive the whole year")
    print(f"{past.sum():,} flights to learn from, {future.sum():,} to score, {len(names)} features, {late.mean():.1%} late")

    schedule_only = [names.index(n) for n in ("distance", "hour", "weekday")]
    base = train(honest[past][:, schedule_only], late[past])
    print(f"schedule alone   AUC {auc(base, honest[future][:, schedule_only], late[future]):.3f}")
    model = train(honest[past], late[past])
    print(f"point in time    AUC {auc(model, honest[future], late[future]):.3f}")
    leaking = train(leak[past], late[past])
    print(f"with a leak      AUC {auc(leaking, leak[future], late[future]):.3f}   the number a notebook would report")
    print(f"leak, served     AUC {auc(leaking, honest[future], late[future]):.3f}   the number production would get")


if __name__ == "__main__":
    main()
