"""A real broker, a real Redis, and the programs in Rust beside the benchmarks (bare.rs, json.rs), built as the server was.

`BENCH_BARE` and `BENCH_JSON` name programs that are built already.
"""

import json
import os
import resource
import socket
import subprocess
import urllib.request
from pathlib import Path

from servers import ROOT, free_port


def program(name):
    """The path of benches/NAME.rs, compiled: with the development profile if the server is of it, else with release."""
    given = os.environ.get(f"BENCH_{name.upper()}")
    if given:
        return given
    profile = "dev" if Path(os.environ.get("TIDEMARK_BIN", "")).parent.name == "debug" else "release"
    command = ["cargo", "build", "--profile", profile, "--bench", name, "--message-format", "json-render-diagnostics"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if built.returncode != 0:
        raise SystemExit(f"benches/{name}.rs does not compile")
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == name:
            return message["executable"]
    raise SystemExit(f"cargo has built no {name}")


def script(name, *arguments):
    done = subprocess.run([ROOT / "tests/services" / name, *map(str, arguments)])
    if done.returncode != 0:
        raise SystemExit(f"{name} {arguments[0]} failed; scripts/setup.sh bench installs what it needs")


class Kafka:
    """A broker on a port whose neighbour, for the controller, is free too."""

    def __init__(self, folder):
        self.folder = folder / "kafka"
        self.port = free_port()
        while self.port == 65535 or taken(self.port + 1):
            self.port = free_port()
        self.program = program("bare")
        script("kafka.sh", "start", self.folder, self.port)
        self.address = f"127.0.0.1:{self.port}"

    def command(self, verb, topic, partitions, *more):
        return [self.program, verb, self.address, topic, *map(str, (partitions, *more))]

    def run(self, verb, topic, partitions, *more):
        """The lines that the program printed, split at spaces, and the CPU seconds it took."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(self.command(verb, topic, partitions, *more), capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            raise SystemExit(f"bare {verb}: {done.stderr[-2000:]}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return [line.split() for line in done.stdout.splitlines()], cpu

    def start(self, verb, topic, partitions, *more):
        return subprocess.Popen(self.command(verb, topic, partitions, *more), stdout=subprocess.DEVNULL)

    def stop(self):
        script("kafka.sh", "destroy", self.folder)


class Redis:
    """A server that keeps nothing on disk, and a client that knows RESP2 and no more."""

    def __init__(self, folder):
        self.folder = folder / "redis"
        self.port = free_port()
        script("redis.sh", "start", self.folder, self.port)
        self.url = f"redis://127.0.0.1:{self.port}"
        self.connection = Connection(self.port)
        self.version = self.info("server")["redis_version"]

    def send(self, commands):
        return self.connection.send(commands)

    def info(self, section):
        lines = self.send([("INFO", section)])[0].decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def stop(self):
        script("redis.sh", "stop", self.folder)


class Connection:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.file = self.socket.makefile("rwb")

    def send(self, commands):
        """All of them at once; their replies. An error ends the benchmark."""
        for command in commands:
            parts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
            self.file.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
        self.file.flush()
        return [self.reply() for _ in commands]

    def reply(self):
        line = self.file.readline()
        if not line:
            raise ConnectionError("Redis has closed the connection")
        kind, rest = line[:1], line[1:].strip()
        if kind == b"-":
            raise SystemExit(f"Redis: {rest.decode()}")
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest


def taken(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def metrics(port):
    """Each sample of the server's /metrics, by its name and labels as they are written."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line and line[0] != "#")}
