"""Three million rows out of a table: the time to the first row, to the last, and how much memory the server takes for it, beside
PostgreSQL. The client reads bytes and counts them; the number of rows is in the server's last word.
"""

import re
import socket
import struct
import time

from measure import check, children_of, interleaved, median, number, spread, table
from servers import Postgres, Tidemark, World

ROWS = number("ROWS_ROWS", 3_000_000)
ROUNDS = number("ROUNDS", 3)
QUERY = "SELECT * FROM t"
SUMS = "SELECT count(*), sum(a), sum(b), min(c), max(c) FROM t"


def peak_memory_mib(pids, reset=False):
    """The greatest resident size of these processes since the last reset, without what they share with others."""
    if reset:
        for pid in pids:
            with open(f"/proc/{pid}/clear_refs", "w", encoding="utf-8") as file:
                file.write("5")
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            status = file.read()
        shared = int(re.search(r"RssShmem:\s+(\d+)", status).group(1))
        total += int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) - shared
    return total / 1024


class Client:
    """Reads as fast as Python can: by the megabyte."""

    def __init__(self, server):
        self.socket = socket.create_connection(("127.0.0.1", server.port))
        packet = struct.pack("!i", 196608) + f"user\0{server.user}\0database\0{server.database}\0\0".encode()
        self.socket.sendall(struct.pack("!i", len(packet) + 4) + packet)
        self.until_ready(b"")

    def until_ready(self, tail):
        read = 0
        while not tail.endswith(b"Z\0\0\0\5I"):
            data = self.socket.recv(1 << 20)
            if not data:
                raise SystemExit("the server left")
            read += len(data)
            tail = (tail + data)[-200:]
        return read, tail

    def query(self, sql):
        """Seconds to the first row and to the end, bytes, and the command's tag."""
        begun = time.perf_counter()
        body = sql.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!i", len(body) + 4) + body)
        head = b""
        while len(head) < 400:
            data = self.socket.recv(1 << 16)
            if not data or head.startswith(b"E"):
                raise SystemExit(f"refused: {head!r}")
            head += data
        first = time.perf_counter() - begun
        read, tail = self.until_ready(head[-200:])
        tag = re.search(rb"C\0\0\0.(SELECT \d+)\0Z", tail, re.DOTALL)
        return first, time.perf_counter() - begun, len(head) + read, tag.group(1).decode() if tag else "no tag"


def contender(server, processes):
    client = Client(server)
    pids = processes()

    def run():
        before = peak_memory_mib(pids, reset=True)
        first, total, read, tag = client.query(QUERY)
        if tag != f"SELECT {ROWS}":
            raise SystemExit(f"{server.name}: {tag}")
        return {"first_ms": first * 1000, "total": total, "mib": peak_memory_mib(pids) - before, "bytes": read}

    return run


def main():
    with World(Tidemark, Postgres) as world:
        tidemark, postgres = world.servers
        print(f"{tidemark.version}\n{postgres.version}")
        path = world.folder / "rows.csv"
        with open(path, "w", encoding="utf-8") as file:
            file.write("a,b,c\n")
            file.writelines(f"{i},{i % 4096 / 16},name {i % 1000}\n" for i in range(ROWS))
        for server in (tidemark, postgres):
            server.psql("CREATE TABLE t (a BIGINT, b DOUBLE PRECISION, c TEXT)")
            server.copy_in("t", path)
        postgres.psql("VACUUM ANALYZE t")
        path.unlink()
        check("count, sums and extremes", tidemark.psql(SUMS), postgres.psql(SUMS))
        backends = set(children_of(postgres.pid))
        contenders = {
            # The backend of this client: the one that was not there before it.
            postgres.name: contender(postgres, lambda: sorted(set(children_of(postgres.pid)) - backends)),
            tidemark.name: contender(tidemark, lambda: [tidemark.process.pid]),
        }
        results = interleaved(ROUNDS, contenders)
        theirs, ours = results[postgres.name], results[tidemark.name]
        check("the bytes of the answer", median(ours, "bytes"), median(theirs, "bytes"))
        print(f"\n### rows: {ROWS:,} rows of three columns, simple protocol, {ROUNDS} rounds; must: ≤1.5× in total, flat memory\n")
        row = lambda name, r: [
            name, f"{median(r, 'first_ms'):.1f}", f"**{median(r, 'total'):.2f}**", f"{median(r, 'mib'):.0f}", f"{spread(r, 'total'):.2f}",
        ]  # fmt: skip
        table(["", "first row ms", "total s", "memory beside the table MiB", "spread"], [row("Tidemark", ours), row("PostgreSQL", theirs)])
        print(f"\nratio of totals: {median(ours, 'total') / median(theirs, 'total'):.2f}")


if __name__ == "__main__":
    main()
