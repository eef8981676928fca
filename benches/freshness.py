"""From an event's being produced to its value's being readable over SQL, at 10, 50 and 80 % of the greatest rate.

The greatest rate is measured first: Tidemark takes a topic that is full. The prober (bare.rs, `probe`) sends at a share of it, and every
20 ms one event of a key of its own, for which it asks until the value is there: over SQL, by a prepared lookup; for the anchor by GET,
beside a bare loop from the same broker that does SET. A latency runs from just before the producer is called, and probes are sent
whether or not the ones before have been seen. Events have the time of their making, windows are short, so that a run spans three.
"""

import time

import kafka as whole
from bare import Kafka, Redis
from measure import check, interleaved, number, table
from servers import World

ROWS = number("FRESHNESS_ROWS", 1_000_000)
KEYS = number("FRESHNESS_KEYS", 100_000)
SECONDS = number("FRESHNESS_SECONDS", 20)
PARTITIONS = number("KAFKA_PARTITIONS", 4)
ROUNDS = number("ROUNDS", 3)
SHARES = (10, 50, 80)
# Three of the longest in a run; the shortest is a tenth.
LONG_MS = SECONDS * 1000 // 3
SHORT_MS = LONG_MS // 10


def greatest_rate(world, kafka, redis):
    """Events a second that are visible and in Redis."""
    kafka.run("topic", "full", PARTITIONS)
    kafka.run("fill", "full", PARTITIONS, 0, ROWS, KEYS, 0, 1)
    tidemark = whole.serving(world.folder / "full", redis)
    try:
        begun = time.perf_counter()
        tidemark.psql(whole.source("full", kafka.address), whole.view(KEYS * 6 // 10, KEYS * 6), "FLUSH")
        whole.wait_until_level(tidemark)
        rate = ROWS / (time.perf_counter() - begun)
        check("the events taken", int(tidemark.rows("SELECT count(*) FROM clicks")[0][0]), ROWS)
        print(tidemark.version)
        return rate
    finally:
        tidemark.stop()


def figures(lines, rate, taken=None):
    """Of a run of the prober: events sent, probes seen, milliseconds ascending."""
    sent, probes = map(int, lines[0])
    latencies = sorted(int(line[0]) / 1000 for line in lines[1:])
    if len(latencies) != probes or probes == 0:
        raise SystemExit(f"{probes} probes were sent and {len(latencies)} seen")
    if taken is not None:
        check("the events and probes taken", taken(), sent + probes)
    return {"rate": sent / SECONDS, "asked": rate, "latencies": latencies}


def ours(world, kafka, redis, topic, rate):
    kafka.run("topic", topic, PARTITIONS)
    redis.send([("FLUSHALL",)])
    tidemark = whole.serving(world.folder / topic, redis)
    try:
        tidemark.psql(whole.source(topic, kafka.address, "system", 2000), whole.view(SHORT_MS, LONG_MS), "FLUSH")
        lines, _ = kafka.run("probe", topic, PARTITIONS, rate, SECONDS, KEYS, f"sql:{tidemark.port}")
        tidemark.psql("FLUSH")
        return figures(lines, rate, lambda: int(tidemark.rows("SELECT count(*) FROM clicks")[0][0]))
    finally:
        tidemark.stop()


def hop(kafka, redis, topic, rate):
    kafka.run("topic", topic, PARTITIONS)
    redis.send([("FLUSHALL",)])
    loop = kafka.start("set", topic, PARTITIONS, redis.url)
    try:
        lines, _ = kafka.run("probe", topic, PARTITIONS, rate, SECONDS, KEYS, f"redis:{redis.url}")
        return figures(lines, rate)
    finally:
        loop.kill()
        loop.wait()


def quantile(results, share):
    """The median of the rounds' quantiles, milliseconds."""
    each = [result["latencies"][min(int(len(result["latencies"]) * share), len(result["latencies"]) - 1)] for result in results]
    return sorted(each)[len(each) // 2]


def main():
    with World() as world:
        redis = Redis(world.folder)
        world.servers.append(redis)
        kafka = Kafka(world.folder)
        world.servers.append(kafka)
        greatest = greatest_rate(world, kafka, redis)
        print(f"Redis {redis.version}\ngreatest rate: {greatest:,.0f} events/s visible and in Redis")
        topics = (f"round{i}" for i in range(1000))
        contenders = {}
        for share in SHARES:
            rate = greatest * share / 100
            contenders[("tidemark", share)] = lambda rate=rate: ours(world, kafka, redis, next(topics), rate)
            contenders[("bare", share)] = lambda rate=rate: hop(kafka, redis, next(topics), rate)
        results = interleaved(ROUNDS, contenders)
        print(
            f"\n### freshness: {SECONDS} s at each rate, {KEYS:,} keys, RANGE {SHORT_MS} ms and {LONG_MS} ms, {ROUNDS} rounds; "
            "must p99 < 100 ms at 50 %, aim p99 < 10 ms at 50 % and ≤ 3 × the bare hop\n"
        )
        lines = []
        for share in SHARES:
            mine, bare = results["tidemark", share], results["bare", share]
            rates = [sum(result["rate"] for result in side) / len(side) for side in (mine, bare)]
            p50, p99 = quantile(mine, 0.5), quantile(mine, 0.99)
            bare50, bare99 = quantile(bare, 0.5), quantile(bare, 0.99)
            lines.append(
                [f"{share} %", f"{greatest * share / 100:,.0f}", f"{rates[0]:,.0f} / {rates[1]:,.0f}", f"{p50:.2f} / {p99:.2f}", f"{bare50:.2f} / {bare99:.2f}"]
                + [f"{p50 / bare50:.2f}", f"**{p99 / bare99:.2f}**"]
            )
        table(["of the greatest rate", "events/s asked", "sent (T / bare)", "Tidemark p50 / p99 ms", "bare hop p50 / p99 ms", "× p50", "× p99"], lines)


if __name__ == "__main__":
    main()
