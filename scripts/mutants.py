#!/usr/bin/env python3
"""Mutation check of the window kernel: changes it in one small place at a time and sees whether a test notices.

    scripts/mutants.py --list                                   what would be changed, without building anything
    scripts/mutants.py --scratch DIR --target DIR [--target-from DIR] [--sample N --seed S] [--files PART…] [--jobs 2]

The operators are those of cargo-mutants, which builds once for every mutant: minutes each for this engine, days in all. Here all
mutants are in one build ("mutant schemata", Untch, Offutt and Harrold 1993), each behind a number that a process reads once
from the environment:

    a < b      becomes      (if crate::mutant::is(17) { (a) <= (b) } else { a < b })

DIR of --scratch gets a copy of the workspace with the kernel rewritten; the crates to the right of the engine are empty in it,
but keep their dependencies, so that these are built with the features that scripts/test.sh gives them. --target-from links what
is compiled there already into --target, but for the workspace's own crates; if cargo then begins to compile a dependency, the
run stops. A mutant that does not compile after all is left out, and the build begins again.

Each mutant then meets the suites of STAGES in their order until a test fails. Results go to DIR/results.jsonl as they come; the
same command goes on where it was stopped. At the end, and with --report at any time: DIR/results.md.
"""

import argparse
import collections
import concurrent.futures
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from mutants_of import MutationError, mutants_of, rewrite  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# The window kernel: what computes V(key, instant).
FILES = [
    "engine/src/key.rs",
    *(f"engine/src/key/{name}.rs" for name in
      ["walk", "cursor", "ring", "pane", "positional", "calendar", "versions", "partner"]),
    "engine/src/view/schedule.rs",
    "engine/src/view/step.rs",
    "engine/src/exact.rs",
    "engine/src/exact/lanes.rs",
    "engine/src/exact/scaled.rs",
    "engine/src/accumulate.rs",
    *(f"engine/src/accumulate/{name}.rs" for name in
      ["bits", "decayed", "float", "frequent", "hll", "increase", "moments", "pairs", "quantiles", "ranked", "values",
       "vectors"]),
]

# What these do shows in no value: they read ahead, or say nearly how much memory there is.
NOT_FOR_VALUES = {"touch", "touch_end", "touch_done", "touch_frames", "memory"}

# Name, binary (`lib`: the unit tests, `it`), the tests whose names have one of these in them, variables. Quick ones first.
STAGES = [
    ("unit", "lib", ["key::", "view::", "exact::", "accumulate::", "parallel::"], {}),
    ("windows", "it", ["windows::", "aggregates::"], {}),
    ("versions", "it", ["versions::"], {}),
    ("cold", "it", ["cold::"], {"PROPTEST_CASES": "64"}),
    # Seeds of the whole pipeline, from 0 on: with a first seed named, those kept in a file are not run.
    ("simulation", "it", ["simulation::"], {"TIDEMARK_SIMULATION_SEED": "0", "TIDEMARK_SIMULATION_SEEDS": "60"}),
]

# The same cases for every mutant and for none, no file of failures that the next mutant would begin with, and no search for a
# smaller one.
ENVIRONMENT = {
    "PROPTEST_RNG_SEED": "20261128",
    "PROPTEST_DISABLE_FAILURE_PERSISTENCE": "1",
    "PROPTEST_MAX_SHRINK_ITERS": "0",
    "RUST_BACKTRACE": "0",
}

# A mutant may take three times what none takes, and what starting a process beside others may cost.
PATIENCE, START_S = 3.0, 10.0
# One that never ends may also take all memory first.
MEMORY_BYTES = 6 << 30

SWITCH = """//! Which mutant this process is: `scripts/mutants.py`.

use std::sync::atomic::{AtomicU32, Ordering};

/// 0: not read yet.
static ACTIVE: AtomicU32 = AtomicU32::new(0);

#[inline(always)]
pub fn is(number: u32) -> bool {
    let active = ACTIVE.load(Ordering::Relaxed);
    (if active == 0 { read() } else { active }) == number
}

#[cold]
#[inline(never)]
fn read() -> u32 {
    let named = std::env::var("TIDEMARK_MUTANT").ok().and_then(|text| text.parse().ok());
    let active = named.filter(|number| *number != 0).unwrap_or(u32::MAX);
    ACTIVE.store(active, Ordering::Relaxed);
    active
}
"""

# Lints that a mutant may break and that stop a build by themselves.
ALLOWED = "#![allow(warnings, arithmetic_overflow, unconditional_panic, unconditional_recursion, overflowing_literals)]\n"


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def collected():
    """All mutants, numbered from 1: several calls for some of the files each give them the same numbers."""
    mutants, number = [], 1
    for file in FILES:
        try:
            for mutant in mutants_of(read(os.path.join(ROOT, file))):
                if mutant["function"].split("::")[-1] in NOT_FOR_VALUES:
                    continue
                mutants.append({**mutant, "file": file, "number": number})
                number += 1
        except MutationError as error:
            sys.exit(f"{file}: {error}")
    return mutants


def identity(mutants):
    """Tells one set of mutants from another, so that results of other sources are not gone on with."""
    shown = json.dumps([[m["file"], m["line"], m["column"], m["what"]] for m in mutants])
    sources = "".join(read(os.path.join(ROOT, file)) for file in FILES)
    return hashlib.sha256((shown + sources).encode()).hexdigest()[:16]


# The copy.

def write_if_other(path, text):
    """Leaves a file alone that is as it should be: cargo goes by the time of its last change."""
    if os.path.exists(path):
        with open(path, encoding="utf-8") as old:
            if old.read() == text:
                return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as new:
        new.write(text)


def copy_workspace(scratch, mutants, without):
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    tracked = [name for name in tracked.decode().split("\0") if name]
    of_file = collections.defaultdict(list)
    for mutant in mutants:
        if mutant["number"] not in without:
            of_file[mutant["file"]].append(mutant)
    for name in tracked:
        source, target = os.path.join(ROOT, name), os.path.join(scratch, name)
        manifest = name in ("Cargo.toml", "Cargo.lock", "rust-toolchain.toml") or (
            name.count("/") == 1 and name.endswith("/Cargo.toml"))
        kept = manifest or name.startswith(("catalog/", "planner/", "engine/"))
        if not kept or not os.path.isfile(source):
            continue
        if name in FILES:
            write_if_other(target, rewrite(read(source), of_file[name]))
        elif name == "engine/src/lib.rs":
            lines = read(source).splitlines(keepends=True)
            docs = next(i for i, line in enumerate(lines) if not line.startswith("//!"))
            write_if_other(target, "".join(lines[:docs]) + ALLOWED + "".join(lines[docs:]) + "pub mod mutant;\n")
        elif name.endswith((".rs", ".toml", ".lock")):
            text = read(source)
            if name in ("catalog/Cargo.toml", "planner/Cargo.toml"):
                text = text.replace("[lib]\n", "[lib]\ntest = false\n")
                assert "test = false" in text, name
            write_if_other(target, text)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy2(source, target)
    write_if_other(os.path.join(scratch, "engine/src/mutant.rs"), SWITCH)
    # The crates to the right, and the root's own targets, with nothing in them.
    empty = "//! Nothing: see scripts/mutants.py.\n"
    for crate in ("connectors", "server"):
        write_if_other(os.path.join(scratch, crate, "src/lib.rs"), empty)
        write_if_other(os.path.join(scratch, crate, "tests/it/main.rs"), empty)
    write_if_other(os.path.join(scratch, "server/src/root.rs"), empty)
    write_if_other(os.path.join(scratch, "server/src/main.rs"), empty + "\nfn main() {}\n")
    for path in re.findall(r'^path = "(tests/[^"]+)"', read(os.path.join(ROOT, "Cargo.toml")), re.M):
        write_if_other(os.path.join(scratch, path), empty)
    for path in re.findall(r'^path = "(benches/[^"]+)"', read(os.path.join(ROOT, "Cargo.toml")), re.M):
        write_if_other(os.path.join(scratch, path), empty + "\nfn main() {}\n")


OWN = re.compile(r"(lib)?tidemark")


def link_target(source, target):
    """Links compiled dependencies from another target folder. What is the workspace's own stays out, and what cargo may write
    into is copied: a link would be the other folder's file too."""
    if os.path.exists(os.path.join(target, "debug")):
        return
    tests = {"house", "oracle", "sql", "crash", "wire", "story", "services", "it", "bare", "json"}
    begun = os.path.join(target, "debug.begun")
    shutil.rmtree(begun, ignore_errors=True)
    linked = 0
    for folder in ("deps", "build", ".fingerprint"):
        top = os.path.join(source, "debug", folder)
        for path, folders, files in os.walk(top):
            if path == top:
                folders[:] = [name for name in folders if not OWN.match(name)]
            to = os.path.join(begun, folder, os.path.relpath(path, top))
            os.makedirs(to, exist_ok=True)
            for name in files:
                stem = re.sub(r"-[0-9a-f]{16}.*$", "", name)
                if folder == "deps" and (OWN.match(name) or stem in tests):
                    continue
                old, new = os.path.join(path, name), os.path.join(to, name)
                if os.path.islink(old) or folder == ".fingerprint" or name.endswith(".d"):
                    shutil.copy2(old, new, follow_symlinks=False)
                else:
                    os.link(old, new)
                linked += 1
    for name in ("CACHEDIR.TAG", ".rustc_info.json"):
        if os.path.exists(os.path.join(source, name)):
            shutil.copy2(os.path.join(source, name), os.path.join(target, name))
    os.rename(begun, os.path.join(target, "debug"))
    print(f"{linked} files of {source} are linked")


# The build.

class DependencyRebuilt(Exception):
    pass


def build(scratch, target, may_rebuild):
    """The two test binaries, and the messages of the compiler where it failed."""
    environment = {**os.environ, "CARGO_TARGET_DIR": target}
    # Plain rustc: clippy would have more to say of every mutant than of the code.
    environment.pop("RUSTC_WORKSPACE_WRAPPER", None)
    cargo = shutil.which("cargo") or os.path.expanduser("~/.cargo/bin/cargo")
    command = [cargo, "test", "--workspace", "--no-run", "--offline", "--locked", "--message-format=json"]
    running = subprocess.Popen(command, cwd=scratch, env=environment, stdout=subprocess.PIPE, text=True,
                               start_new_session=True)
    binaries, errors = {}, []
    for line in running.stdout:
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if message.get("reason") == "compiler-artifact":
            is_own = message["manifest_path"].startswith(scratch)
            if not is_own and not message["fresh"] and not may_rebuild:
                os.killpg(running.pid, signal.SIGTERM)
                running.wait()
                raise DependencyRebuilt(message["package_id"])
            if message.get("executable") and message["profile"]["test"]:
                if os.path.dirname(message["manifest_path"]) == os.path.join(scratch, "engine"):
                    kind = "it" if message["target"]["kind"] == ["test"] else "lib"
                    binaries[kind] = message["executable"]
        elif message.get("reason") == "compiler-message" and message["message"]["level"] == "error":
            errors.append(message["message"])
    running.wait()
    if running.returncode == 0 and set(binaries) == {"lib", "it"}:
        return binaries, []
    return None, errors


def opening(text, at):
    """Where the `{` is that is open at `at`; -1: none."""
    depth = 0
    for i in range(at - 1, -1, -1):
        if text[i:i + 1] == b"}":
            depth += 1
        elif text[i:i + 1] == b"{":
            if depth == 0:
                return i
            depth -= 1
    return -1


BRANCH = re.compile(rb"if crate::mutant::is\((\d+)\) $")


def around(text, at):
    """The mutant whose text `at` is in; or, in the original beside mutants, all of these."""
    while (at := opening(text, at)) >= 0:
        branch = BRANCH.search(text, max(0, at - 60), at)
        if branch:
            return {int(branch.group(1))}
        # `if … { mutant } else if … { mutant } else {`: back over what stands before.
        numbers, begin = set(), at
        while text.endswith(b"} else ", 0, begin):
            before = opening(text, begin - len(b"} else "))
            branch = BRANCH.search(text, max(0, before - 60), before)
            if not branch:
                break
            numbers.add(int(branch.group(1)))
            begin = branch.start()
        if numbers:
            return numbers
    return set()


def broken(scratch, errors):
    """The mutants in which the compiler has found something, and what it has found elsewhere."""
    numbers, elsewhere = set(), []
    for error in errors:
        found = set()
        for span in error["spans"]:
            path = os.path.join(scratch, span["file_name"])
            if span["is_primary"] and os.path.exists(path):
                with open(path, "rb") as file:
                    found |= around(file.read(), span["byte_start"])
        numbers |= found
        if error["spans"] and not found:
            elsewhere.append(error.get("rendered") or error["message"])
    return numbers, elsewhere


def built(scratch, target, mutants, may_rebuild):
    unviable_path = os.path.join(scratch, "unviable.json")
    without = set(json.loads(read(unviable_path))) if os.path.exists(unviable_path) else set()
    for _ in range(12):
        copy_workspace(scratch, mutants, without)
        binaries, errors = build(scratch, target, may_rebuild)
        if binaries:
            return binaries, without
        numbers, elsewhere = broken(scratch, errors)
        if not numbers - without:
            print("\n".join(elsewhere), file=sys.stderr)
            sys.exit("the build failed, and no mutant is the reason; see above")
        without |= numbers
        write_if_other(unviable_path, json.dumps(sorted(without)))
        print(f"{len(numbers)} mutants do not compile and are left out: {sorted(numbers)}", flush=True)
    sys.exit("the build fails again and again")


# The runs.

def stage(scratch, binary, stage_of, number, limit_s):
    """Runs one suite: ("ok" | "caught" | "timeout", the test that failed, seconds, how many tests)."""
    _, _, filters, variables = stage_of
    environment = {**os.environ, **ENVIRONMENT, **variables, "TIDEMARK_MUTANT": str(number),
                   "CARGO_MANIFEST_DIR": os.path.join(scratch, "engine")}
    begun = time.monotonic()
    running = subprocess.Popen([binary, *filters, "--test-threads", "1"], cwd=os.path.join(scratch, "engine"),
                               env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                               errors="replace", start_new_session=True)
    resource.prlimit(running.pid, resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    late = threading.Event()

    def end():
        try:
            os.killpg(running.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def too_late():
        late.set()
        end()

    timer = threading.Timer(limit_s, too_late) if limit_s else None
    if timer:
        timer.start()
    failed, passed, last = None, 0, ""
    for line in running.stdout:
        line = line.rstrip()
        last = line or last
        match = re.match(r"test (\S+).* \.\.\. (ok|FAILED)", line)
        if match and match.group(2) == "ok":
            passed += 1
        elif match:
            failed = match.group(1)
            end()
            break
    running.wait()
    running.stdout.close()
    if timer:
        timer.cancel()
    took = time.monotonic() - begun
    if failed:
        return "caught", failed, took, passed
    if late.is_set():
        return "timeout", last, took, passed
    if running.returncode != 0:
        # It ended without a word: out of memory or stack, or an abort.
        return "caught", f"ended with {running.returncode} after: {last}", took, passed
    return "ok", None, took, passed


def baseline(scratch, binaries):
    took = {}
    for one in STAGES:
        result, test, seconds, passed = stage(scratch, binaries[one[1]], one, 0, None)
        if result != "ok":
            sys.exit(f"without any mutant {one[0]} is {result}: {test}")
        if passed == 0:
            sys.exit(f"no test has a name with any of {one[2]} in it")
        took[one[0]] = seconds
        print(f"baseline {one[0]}: {passed} tests, {seconds:.1f} s", flush=True)
    return took


def meet(scratch, binaries, took, mutant):
    seconds = 0.0
    for one in STAGES:
        limit_s = PATIENCE * took[one[0]] + START_S
        result, test, spent, _ = stage(scratch, binaries[one[1]], one, mutant["number"], limit_s)
        seconds += spent
        if result != "ok":
            return {**mutant, "result": result, "stage": one[0], "test": test, "seconds": round(seconds, 1)}
    return {**mutant, "result": "missed", "stage": "", "test": "", "seconds": round(seconds, 1)}


def report(scratch, mutants, results, unviable):
    """DIR/results.md: counts for each file, then every mutant that no test has noticed, with its line."""
    by_number = {result["number"]: result for result in results}
    kinds = ["caught", "timeout", "missed", "unviable", "not run"]
    counts = collections.defaultdict(collections.Counter)
    for mutant in mutants:
        kind = by_number.get(mutant["number"], {}).get("result")
        kind = kind or ("unviable" if mutant["number"] in unviable else "not run")
        counts[mutant["file"]][kind] += 1
        counts["all"][kind] += 1
    lines = ["| file | " + " | ".join(kinds) + " |", "| --- |" + " ---: |" * len(kinds)]
    for file in [file for file in FILES if file in counts] + ["all"]:
        lines.append(f"| {file} | " + " | ".join(str(counts[file][kind]) for kind in kinds) + " |")
    for kind in ("missed", "timeout"):
        some = [by_number[m["number"]] for m in mutants if by_number.get(m["number"], {}).get("result") == kind]
        lines += ["", f"## {kind}: {len(some)}", "", "| # | where | function | mutation | line |", "| ---: | --- | --- | --- | --- |"]
        for one in some:
            cell = lambda text: text.replace("|", "\\|")  # noqa: E731
            lines.append(f"| {one['number']} | {one['file']}:{one['line']} | {one['function']} | {cell(one['what'])} | "
                         f"`{cell(one['source'])}` |")
    by_stage = collections.Counter(result["stage"] for result in results if result["result"] == "caught")
    lines += ["", "caught by: " + ", ".join(f"{name} {by_stage[name]}" for name, *_ in STAGES)]
    text = "\n".join(lines) + "\n"
    write_if_other(os.path.join(scratch, "results.md"), text)
    return text


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--list", action="store_true", help="print the mutants and build nothing")
    arguments.add_argument("--report", action="store_true", help="write results.md of what there is and run nothing")
    arguments.add_argument("--scratch", help="folder for the copy and the results")
    arguments.add_argument("--target", help="cargo's target folder of the copy")
    arguments.add_argument("--target-from", help="another target folder, whose compiled dependencies are linked")
    arguments.add_argument("--may-rebuild", action="store_true", help="go on where a dependency has to be compiled")
    arguments.add_argument("--files", nargs="*", default=[], metavar="PART", help="only files with this in their names")
    arguments.add_argument("--sample", type=int, help="only so many mutants, drawn at random")
    arguments.add_argument("--seed", type=int, default=1, help="of that")
    arguments.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    arguments.add_argument("--minutes", type=float, help="begin no mutant after so many")
    options = arguments.parse_args()

    mutants = collected()
    wanted = [m for m in mutants if not options.files or any(part in m["file"] for part in options.files)]
    if options.sample is not None and options.sample < len(wanted):
        chosen = random.Random(options.seed).sample(wanted, options.sample)
        wanted = sorted(chosen, key=lambda mutant: mutant["number"])
    if options.list:
        for mutant in wanted:
            print(f"{mutant['number']:5} {mutant['file']}:{mutant['line']} {mutant['function']}: {mutant['what']}   {mutant['source']}")
        print(f"{len(wanted)} mutants in {len({m['file'] for m in wanted})} files")
        return
    if not options.scratch:
        arguments.error("--scratch is needed")
    scratch = os.path.realpath(options.scratch)
    os.makedirs(scratch, exist_ok=True)
    log_path, of_path = os.path.join(scratch, "results.jsonl"), os.path.join(scratch, "mutants.json")
    unviable_path = os.path.join(scratch, "unviable.json")
    of = identity(mutants)
    if os.path.exists(of_path) and json.loads(read(of_path))["identity"] != of:
        sys.exit(f"{of_path} is of other sources: remove it with results.jsonl and unviable.json, or take another folder")
    write_if_other(of_path, json.dumps({"identity": of, "mutants": mutants}, indent=1))
    results = [json.loads(line) for line in read(log_path).splitlines()] if os.path.exists(log_path) else []
    if options.report:
        unviable = set(json.loads(read(unviable_path))) if os.path.exists(unviable_path) else set()
        print(report(scratch, mutants, results, unviable))
        return
    if not options.target:
        arguments.error("--target is needed")
    target = os.path.realpath(options.target)
    os.makedirs(target, exist_ok=True)
    if options.target_from:
        link_target(os.path.realpath(options.target_from), target)

    begun = time.monotonic()
    try:
        binaries, unviable = built(scratch, target, mutants, options.may_rebuild)
    except DependencyRebuilt as error:
        sys.exit(f"a dependency would be compiled again: {error}; --may-rebuild if that is meant")
    print(f"built in {time.monotonic() - begun:.0f} s: {binaries}", flush=True)
    took = baseline(scratch, binaries)

    done = {result["number"] for result in results}
    todo = [m for m in wanted if m["number"] not in done and m["number"] not in unviable]
    random.Random(options.seed).shuffle(todo)
    print(f"{len(todo)} mutants to run, {len(done)} done before, {len(unviable)} do not compile", flush=True)
    begun = time.monotonic()

    def is_time_over():
        return options.minutes is not None and time.monotonic() - begun > 60 * options.minutes

    def one(mutant):
        return None if is_time_over() else meet(scratch, binaries, took, mutant)

    with open(log_path, "a", encoding="utf-8") as log, concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        running = [pool.submit(one, mutant) for mutant in todo]
        for count, future in enumerate(concurrent.futures.as_completed(running), 1):
            result = future.result()
            if result is None:
                continue
            results.append(result)
            log.write(json.dumps(result) + "\n")
            log.flush()
            if result["result"] != "caught" or count % 25 == 0:
                print(f"{count}/{len(todo)} {result['result']} {result['file']}:{result['line']} {result['what']}"
                      f" ({result['seconds']} s, {result['test']})", flush=True)
    print(report(scratch, mutants, results, unviable))


if __name__ == "__main__":
    main()
