#!/usr/bin/env python3
"""Lists what `cargo build` and `cargo test` would each compile for themselves: nothing but ourselves, or time is wasted.

A test-only dependency can switch on a feature of a crate that the binary uses too. Then everything that depends on that
crate is compiled twice. The cure is to switch the feature on for the binary as well (Cargo.toml, [dependencies]).
"""

import json
import os
import subprocess
import sys

# Cargo's plan is asked for without carrying it out; the option is unstable, so this is for people, not for the tests.
ENVIRONMENT = {**os.environ, "RUSTC_BOOTSTRAP": "1"}


def units(*command):
    """Everything a command would compile: (what it is made of, name)."""
    options = ["--offline", "-Z", "unstable-options", "--unit-graph"]
    out = subprocess.run(["cargo", *command, *options], env=ENVIRONMENT, check=True, stdout=subprocess.PIPE).stdout
    graph = json.loads(out)["units"]
    made_of = {}

    def visit(index):
        if index not in made_of:
            unit = graph[index]
            below = sorted(visit(d["index"]) for d in unit["dependencies"])
            key = (unit["pkg_id"], unit["target"]["name"], unit["features"], unit["platform"], unit["mode"], below)
            made_of[index] = hash(json.dumps(key))
        return made_of[index]

    return {visit(i): graph[i]["pkg_id"].split("/")[-1] for i in range(len(graph))}


def main():
    binary, tests = units("build", "--bin", "tidemark"), units("test", "--workspace", "--no-run")
    twice = sorted({name for key, name in binary.items() if key not in tests and "#" in name and "index" in name})
    print(f"{len(binary)} units for the binary, {len(twice)} outside crates compiled again for the tests")
    for name in twice:
        print(" ", name.split("#")[1])
    sys.exit(bool(twice))


if __name__ == "__main__":
    main()
