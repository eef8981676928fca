"""Flink SQL as an anchor: streaming mode, a local cluster of two slots in one JVM, heap state, a generated source, a blackhole sink.

`scripts/setup.sh bench` fetches its jars. Each measured statement runs behind a smaller one of the same shape in the same JVM, so that
neither its start nor compiling Java counts.
"""

import re
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
JARS = HERE / ".flink"
SLOTS = 2
OPENED = "lang net io nio lang.reflect text time util util.concurrent util.concurrent.atomic util.concurrent.locks".split()
OPENED = [f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in OPENED] + ["--add-opens=java.base/sun.nio.ch=ALL-UNNAMED"]
SETTINGS = {
    "parallelism.default": SLOTS,
    "table.exec.resource.default-parallelism": SLOTS,
    "pipeline.object-reuse": "true",
}


def version():
    found = next(JARS.glob("flink-clients-*.jar"), None)
    if found is None:
        raise SystemExit("Flink's jars are missing: scripts/setup.sh bench")
    return f"Flink {found.stem.rpartition('-')[2]}, {SLOTS} slots, heap state"


def run(statements, heap=False):
    """What every INSERT took (wall and CPU seconds of the JVM, live heap), and the rows that `print` sinks wrote."""
    script = ";\n".join([*(f"SET {name} = {value}" for name, value in SETTINGS.items()), *statements]) + ";\n"
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        command = ["java", *OPENED, "--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED", "-Xmx5g", "-XX:+UseParallelGC"]
        command += ["-cp", f"{JARS}/*", str(HERE / "FlinkSql.java"), file.name, *(["heap"] if heap else [])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        raise SystemExit(f"Flink: {script}\n{done.stderr[-3000:]}")
    inserts = [
        {"wall": float(wall), "cpu": float(cpu), "heap": int(heap_bytes)}
        for wall, cpu, heap_bytes in re.findall(r"^DONE (\S+) (\S+) (\d+)$", done.stdout, re.MULTILINE)
    ]
    printed = re.findall(r"^(?:\d+> )?\+[IU]\[(.*)\]$", done.stdout, re.MULTILINE)
    return inserts, [row.split(", ") for row in printed]
