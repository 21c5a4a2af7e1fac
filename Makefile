# Every target sets up what it needs in .venv first; nothing but Python and make has to be there.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.workbench

.PHONY: setup browser demo test tests test-cuda check lint conformance bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# System Chromium where the package manager can give it, else the one that Playwright brings.
browser: setup
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y chromium fonts-dejavu-core >/dev/null; \
	else $(BIN)/python -m playwright install chromium; fi

# The app on the bundled model; prints its address. Other options: make demo ARGS="--port 8060"
demo: setup
	$(BIN)/workbench app $(ARGS)

# Checks beside tests, which often wait for a browser. To have theirs first: make check.
test: setup browser
	$(MAKE) --no-print-directory -j 2 lint tests

# Two processes, and the tests of a file in one of them. In one process: make test ARGS="-n 0 ...".
tests: setup browser
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-cuda: setup
	$(BIN)/python -m pytest -m cuda $(ARGS)

check: lint
	$(BIN)/python -m pytest -q tests/test_structure.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Every engine on every family against Hugging Face; writes the documentation's table.
conformance: setup
	mkdir -p test-artefacts docs
	$(BIN)/python -m tests.conformance --json test-artefacts/conformance.jsonl --markdown docs/conformance.md

bench: setup browser
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf .venv
