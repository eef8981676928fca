"""What every benchmark says about a run: the machine, wall and CPU time, medians of interleaved rounds, one table."""

import os
import platform
import re
import statistics
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def machine_line():
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read(), re.MULTILINE)
        if found:
            model = found.group(1)
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    load = os.getloadavg()
    return (
        f"machine: {model}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()} {platform.release()}; "
        f"load before the run {load[0]:.1f} {load[1]:.1f} {load[2]:.1f}"
    )


def number(name, default):
    """A size from the environment: `BENCH_ROWS=10000` makes a benchmark small enough to try."""
    return int(os.environ.get(f"BENCH_{name}", default))


def process_cpu_seconds(pid, with_reaped_children=False):
    """User and system time of a process, all its threads, perhaps with the children it has waited for."""
    if not with_reaped_children:
        # The process's CPU clock: nanoseconds, where /proc counts ticks of ten milliseconds.
        return time.clock_gettime(~pid << 3 | 2)
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return sum(int(fields[i]) for i in (11, 12, 13, 14)) / TICKS_PER_SECOND


def children_of(pid):
    children = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8") as stat:
                    if int(stat.read().rpartition(")")[2].split()[1]) == pid:
                        children.append(int(entry))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return children


class Stopwatch:
    """Wall time, and CPU time of whatever `cpu_seconds` counts, of a `with` block."""

    def __init__(self, cpu_seconds):
        self.cpu_seconds = cpu_seconds

    def __enter__(self):
        self.cpu_before = self.cpu_seconds()
        self.begun = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.wall = time.perf_counter() - self.begun
        self.cpu = self.cpu_seconds() - self.cpu_before


def interleaved(rounds, contenders):
    """Runs the contenders in turn, round after round (A B A B …), and returns what each gave, round by round."""
    results = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            results[name].append(run())
    return results


def median(results, field):
    return statistics.median(result[field] for result in results)


def spread(results, field):
    """Greatest over least: how far the rounds lie apart."""
    values = [result[field] for result in results]
    return max(values) / min(values) if min(values) > 0 else float("inf")


def table(header, rows):
    """A Markdown table; the output of a run can stand in the documentation as it is."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    print("\n".join(lines), flush=True)


def check(what, ours, anchors):
    """A time counts only for the right answer."""
    if ours != anchors:
        raise SystemExit(f"benchmark stopped: {what} differ\n  tidemark: {shown(ours)}\n  anchor:   {shown(anchors)}")
    print(f"checked: {what} are equal", flush=True)


def shown(value):
    text = repr(value)
    return text if len(text) < 2000 else text[:2000] + " …"
