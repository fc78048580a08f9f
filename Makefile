# Every target does all the set-up it needs: a fresh clone and python3 are enough.
# pip's own settings (indexes, proxies, caches) are respected.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: serve test test-slow check ci fix bench bench-cpu docs lock system-deps clean

serve: $(READY)  ## serve a model: make serve ARGS='--port 8001'
	$(BIN)/penstock serve $(ARGS)

# Two processes; a file stays in one of them, because its tests share servers and engines.
test: $(READY)  ## all tests but the slow ones
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-slow: $(READY)  ## the slow tests: long property runs, big mixes
	$(BIN)/python -m pytest -m slow --timeout 3600 $(ARGS)

check: $(READY)  ## format, lint, types, import contracts, generated docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/docs.py --check

ci: test check  ## what CI runs

fix: $(READY)  ## format, fix what lint can fix, regenerate docs
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python tools/docs.py

bench: $(READY)  ## measure a running server: make bench ARGS='--url http://127.0.0.1:8000'
	$(BIN)/penstock bench serve $(ARGS)

bench-cpu: $(READY)  ## Penstock beside its peers on this CPU: make bench-cpu ARGS='--peers FOLDER'
	$(BIN)/python -m benchmarks.cpu.run $(ARGS)

lock: $(READY)  ## write requirements.lock from what the virtual environment holds
	$(BIN)/pip freeze --all --exclude-editable | grep -v "^pip==" | sed "s/+.*//" > requirements.lock

system-deps:  ## packages of the operating system that tests need
	tools/system_deps.sh chromium prometheus

clean:
	rm -rf $(VENV) build dist

# torch first and alone: it is by far the largest, and nothing else may choose its version.
$(READY): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install "$$(grep '^torch==' requirements.lock)"
	$(BIN)/python -m pip install -r requirements.lock
	$(BIN)/python -m pip install --no-build-isolation --no-deps -e .
	touch $@
