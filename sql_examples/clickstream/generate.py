#!/usr/bin/env python3
"""Makes the topic "clicks" and writes clickstream JSON into it at a chosen rate, some of it late, some of it broken.

    generate.py BROKER RATE SECONDS        RATE in events a second; SECONDS 0: until it is ended
"""
import json
import random
import sys
import time

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

TOPIC, PARTITIONS = "clicks", 3
USERS, ITEMS = 2_000, 300
LATE, BROKEN = 0.002, 0.001


def message(chance, now_ms):
    if chance.random() < BROKEN:
        return chance.choice(['{"user": {"id": ', '{"user": {"id": "nobody"}, "at": 0}', "no JSON at all"])
    # A few users and items are seen much more often than the others.
    user, item = int(USERS * chance.random() ** 3), int(ITEMS * chance.random() ** 2)
    event = chance.choices(["view", "cart", "buy"], [90, 7, 3])[0]
    late_ms = 60_000 if chance.random() < LATE else chance.randrange(300)
    price = round(5 + item % 90 + chance.random(), 2)
    return json.dumps({"user": {"id": user}, "item_id": item, "event": event, "price": price, "at": now_ms - late_ms})


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    broker, rate, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    admin = AdminClient({"bootstrap.servers": broker})
    if TOPIC not in admin.list_topics(timeout=30).topics:
        for created in admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)]).values():
            created.result(30)
    if rate <= 0:
        return
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 2})
    chance, began, sent = random.Random(7), time.monotonic(), 0
    while seconds == 0 or time.monotonic() - began < seconds:
        due = int((time.monotonic() - began) * rate)
        for _ in range(due - sent):
            text = message(chance, int(time.time() * 1000))
            producer.produce(TOPIC, text.encode(), partition=chance.randrange(PARTITIONS))
        sent = max(sent, due)
        producer.poll(0.005)
    producer.flush(30)
    print(f"{sent} messages sent", flush=True)


main()
