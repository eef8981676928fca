"""The servers under measurement: Tidemark's release binary and a PostgreSQL, each in a fresh folder on a free port.

Both are spoken to by the same programs (psql, pgbench). PostgreSQL runs with its durable defaults (fsync on), because a
COPY into Tidemark is durable when it returns.
"""

import csv
import io
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from measure import children_of, process_cpu_seconds

ROOT = Path(__file__).resolve().parent.parent


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def scratch_folder():
    """Below /var/tmp or $BENCH_SCRATCH, on a real disk, reachable by the user PostgreSQL runs as."""
    folder = Path(tempfile.mkdtemp(prefix="tidemark-bench-", dir=os.environ.get("BENCH_SCRATCH", "/var/tmp")))
    folder.chmod(0o755)
    return folder


class Server:
    """A running server that psql and pgbench can reach."""

    def client(self, program, *arguments):
        command = [program, "-h", "127.0.0.1", "-p", str(self.port), "-U", self.user, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{self.name}: {' '.join(command)}\n{done.stderr}{done.stdout[-2000:]}")
        return done.stdout

    def psql(self, *statements):
        """Each statement on its own, in one connection; what the last ones printed, as CSV text."""
        arguments = [argument for statement in statements for argument in ("-c", statement)]
        options = ("-X", "-q", "--csv", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.database)
        return self.client("psql", *options, *arguments)

    def rows(self, query):
        return [tuple(row) for row in csv.reader(io.StringIO(self.psql(query)))]

    def copy_in(self, table, path):
        self.psql(f"\\copy {table} FROM '{path}' CSV HEADER")

    def pgbench(self, script, clients, protocol, seconds, log_prefix):
        """Transactions per second and the latencies of a sample of them, milliseconds, ascending."""
        threads = min(clients, os.cpu_count())
        options = ["-n", "-f", str(script), "-M", protocol, "-c", str(clients), "-j", str(threads), "-T", str(seconds)]
        options += ["--random-seed=42", "-l", f"--log-prefix={log_prefix}", "--sampling-rate=0.1"]
        out = self.client("pgbench", *options, self.database)
        rate = float(re.search(r"tps = ([0-9.]+)", out).group(1))
        done = int(re.search(r"actually processed: (\d+)", out).group(1))
        failed = re.search(r"failed transactions: (\d+)", out)
        if failed and int(failed.group(1)):
            raise SystemExit(f"{self.name}: {failed.group(0)}")
        latencies = []
        for log in Path(log_prefix).parent.glob(Path(log_prefix).name + ".*"):
            latencies += [int(line.split()[2]) / 1000 for line in log.read_text().splitlines()]
            log.unlink()
        return rate, done, sorted(latencies)


class Tidemark(Server):
    name, user, database = "tidemark", "tidemark", "tidemark"

    def __init__(self, folder, options=()):
        self.binary = os.environ.get("TIDEMARK_BIN") or str(ROOT / "target/release/tidemark")
        self.folder = folder / "tidemark"
        self.port = free_port()
        # Sizes are given in BENCH_… and Tidemark refuses settings it does not know.
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("TIDEMARK_")}
        self.log = open(folder / "tidemark.log", "wb")
        listen = f"127.0.0.1:{self.port}"
        self.command = [self.binary, "serve", "--listen", listen, "--data", str(self.folder), *options]
        self.launch()
        while True:
            if self.process.poll() is not None:
                raise SystemExit(f"tidemark did not start:\n{(folder / 'tidemark.log').read_text()[-2000:]}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    break
            time.sleep(0.05)
        version = subprocess.run([self.binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        # The folder cargo names after the profile; anything else than release is not what is shipped.
        self.version = f"{version}, {Path(self.binary).parent.name} build"

    def cpu_seconds(self):
        return process_cpu_seconds(self.process.pid)

    def peak_memory_mib(self, reset=False):
        """The greatest resident size since the last reset."""
        if reset:
            Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) / 1024

    def launch(self):
        """Starts the process and waits for nothing."""
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log, env=self.environment)

    def terminate(self):
        """Ends it in order; its folder stays."""
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def stop(self):
        self.terminate()
        self.log.close()


class Postgres(Server):
    name, user, database = "PostgreSQL", "postgres", "postgres"
    SETTINGS = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "shared_buffers": "1GB",
        "max_wal_size": "4GB",
        "max_connections": "100",
    }

    def __init__(self, folder):
        self.folder = folder / "postgres"
        self.port = free_port()
        self.script("start", self.folder, self.port)
        self.psql(*(f"ALTER SYSTEM SET {name} = '{value}'" for name, value in self.SETTINGS.items()))
        self.script("stop", self.folder)
        self.script("start", self.folder, self.port)
        self.version = self.rows("SELECT version()")[0][0].partition(" on ")[0]
        self.pid = int((self.folder / "cluster/postmaster.pid").read_text().split()[0])

    @staticmethod
    def script(*arguments):
        subprocess.run([ROOT / "tests/services/postgres.sh", *map(str, arguments)], check=True)

    def cpu_seconds(self):
        """Of the postmaster, its living children and those that have gone."""
        while True:
            children = children_of(self.pid)
            total = process_cpu_seconds(self.pid, with_reaped_children=True)
            try:
                total += sum(process_cpu_seconds(child) for child in children)
            except (FileNotFoundError, ProcessLookupError):
                continue
            # A child that was reaped in between would be counted twice or not at all.
            if children_of(self.pid) == children:
                return total

    def stop(self):
        self.script("destroy", self.folder)


class World:
    """A folder and the servers in it, gone at the end of a `with` block."""

    def __init__(self, *kinds):
        self.kinds = kinds

    def __enter__(self):
        self.folder = scratch_folder()
        self.servers = []
        try:
            for kind in self.kinds:
                self.servers.append(kind(self.folder))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for server in self.servers:
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
