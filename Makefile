# Tidemark's commands. Each does all of its own set-up and can be repeated; `make` alone lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: help demo demo-kafka serve test test-long bench lint

# One profile, one compiler wrapper and so one set of build products for demo, serve, lint and test.
RUN := . scripts/env.sh;

help:
	@echo 'make demo       the whole idea on 336,776 real flights, from nothing'
	@echo 'make demo-kafka  clickstream through a real Kafka into a real Redis, live, until Ctrl-C'
	@echo 'make serve      the server on 127.0.0.1:5433, its data in .tidemark'
	@echo 'make test       all tests that CI runs, with the minutes each suite took'
	@echo 'make test-long  the same tests at greater length, with seeds of their own'
	@echo 'make bench      the benchmarks, each beside its anchor (release build)'
	@echo 'make lint       formatting, and a build in which no warning is left'

demo:
	@scripts/setup.sh demo
	@$(RUN) cargo build --bin tidemark
	@test -s sql_examples/flights/out/events.csv || python3 sql_examples/flights/derive_events.py
	@$(RUN) exec "$$(scripts/binary.sh)" demo

demo-kafka:
	@scripts/setup.sh demo-kafka
	@$(RUN) cargo build --bin tidemark
	@$(RUN) TIDEMARK_BIN="$$(scripts/binary.sh)" exec sql_examples/clickstream/run.sh $(RATE) $(SECONDS_LONG)

serve:
	@scripts/setup.sh build
	@$(RUN) cargo build --bin tidemark
	@$(RUN) exec "$$(scripts/binary.sh)" serve --data .tidemark

test:
	@scripts/setup.sh test
	@scripts/test.sh

test-long:
	@scripts/setup.sh test-long
	@scripts/test.sh --long

# make bench BENCH=lookup runs one of them; sizes: docs/benchmarks.md.
bench:
	@scripts/setup.sh bench
	@$(RUN) cargo build --release --bin tidemark --benches
	@$(RUN) TIDEMARK_BIN="$$(scripts/binary.sh release)" .venv-bench/bin/python benches/run.py $(BENCH)

lint:
	@scripts/setup.sh build
	@scripts/lint.sh
