# Everything one does with One Basin; `make` lists it. Plain commands without make: README.md.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PORT ?= 8501
# Python to make the environment with; the first of these that is 3.11 or newer.
PYTHON ?= python3 python3.13 python3.12 python3.11 python3.14
# Where to take PyTorch from, if not from PyPI: TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

.DEFAULT_GOAL := help
.PHONY: help install install-dev app format check test test-fast chromium bench zoo families experiment clean

help: ## List these commands
	@echo "One Basin: make <command>"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

# The stamps say that what the requirements name is installed: a second run looks at dates only.

install: $(VENV)/.installed ## Make .venv and install what the app needs
install-dev: $(VENV)/.installed-dev ## Install what tests and checks need as well

# A link to a Python that is gone counts as missing, so the environment is then made again.
$(BIN)/python:
	@for python in $(PYTHON); do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	  python=; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "One Basin needs Python 3.11 or newer, and none of these is: $(PYTHON)."; \
	  echo "Install one (python.org, Homebrew, apt), or name it: make install PYTHON=/path/to/python3"; \
	  exit 1; \
	fi; \
	if ! "$$python" -c 'import venv, ensurepip' 2>/dev/null; then \
	  echo "This Python cannot make virtual environments yet."; \
	  echo "On Debian and Ubuntu: sudo apt-get install python3-venv"; \
	  exit 1; \
	fi; \
	"$$python" -m venv --clear $(VENV)

$(VENV)/.installed: requirements.txt $(BIN)/python
	@$(PIP) --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@if [ -n "$(TORCH_INDEX)" ]; then \
	  torch=$$(sed -n 's/^\(torch[^ ]*\).*/\1/p' requirements.txt) && \
	  $(PIP) install "$$torch" --index-url "$(TORCH_INDEX)"; \
	fi
	@echo "Installing what requirements.txt names; PyTorch makes the first time long."
	@$(PIP) install -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-curvature.txt $(VENV)/.installed
	@echo "Installing what requirements-dev.txt and requirements-curvature.txt name."
	@$(PIP) install --quiet -r requirements-dev.txt
	@$(PIP) install --quiet --no-deps -r requirements-curvature.txt
	@touch $@

app: install ## Start the app at http://127.0.0.1:8501 (PORT=8502 for another port)
	@echo "One Basin: http://127.0.0.1:$(PORT)  (Ctrl+C ends it)"
	@exec $(BIN)/streamlit run app.py --server.port $(PORT)

format: install-dev ## Format the code and mend what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/deno fmt --quiet --line-width 100 pages

check: install-dev ## Lint, formatting and types; changes nothing
	@status=0; export DENO_NO_UPDATE_CHECK=1; \
	for tool in "ruff check ." "ruff format --check ." "mypy" \
	    "deno lint --quiet pages" "deno fmt --quiet --check --line-width 100 pages"; do \
	  echo "$$tool"; $(BIN)/$$tool || status=1; \
	done; \
	exit $$status

# Files of tests run side by side; a browser has the machine to itself.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile

test: install-dev chromium ## Check, then run every test, doctests and the browser's included
	@$(MAKE) --no-print-directory check
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "not browser"
	$(BIN)/pytest -m browser tests/browser

test-fast: install-dev ## Run the tests that need no browser
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "not browser"

# $(BIN)/python tests/browser/conftest.py ends well where a Chromium is found that starts.
WHERE := $(BIN)/python tests/browser/conftest.py

chromium: install-dev
	@$(WHERE) >/dev/null 2>&1 && exit 0; \
	if [ -n "$$CHROMIUM" ]; then echo "CHROMIUM=$$CHROMIUM does not start."; exit 1; fi; \
	echo "The browser tests need Chromium; downloading one for Playwright."; \
	PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT=15000 $(BIN)/playwright install chromium \
	  && $(WHERE) >/dev/null 2>&1 && exit 0; \
	root=; \
	if [ "$$(id -u)" != 0 ]; then sudo -n true 2>/dev/null && root="sudo -n" || root=none; fi; \
	if command -v apt-get >/dev/null && [ "$$root" != none ]; then \
	  echo "Installing Chromium, or what it needs, with apt-get."; \
	  $$root apt-get update -qq; \
	  $$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium </dev/null \
	    || $$root "$$PWD/$(BIN)/playwright" install-deps chromium </dev/null; \
	  $(WHERE) >/dev/null 2>&1 && exit 0; \
	fi; \
	echo "No Chromium that starts was found. Install Chromium or Chrome, or name one:"; \
	echo "  make test CHROMIUM=/path/to/chromium"; \
	echo "make test-fast runs everything else."; \
	exit 1

bench: install-dev ## Compare with other implementations, as ratios within one run
	$(BIN)/python benchmarks/run.py

zoo: install-dev ## Train the bundled pairs again, with their data, results and docs/pairs.md
	$(BIN)/python assets/build.py

families: install-dev ## Train the bundled families again
	$(BIN)/python assets/build_families.py

experiment: install-dev ## Compare all fusion rules on the bundled families, over seeds (minutes)
	$(BIN)/python assets/experiment.py
	$(BIN)/python assets/experiment_curvature.py

clean: ## Remove .venv and everything that tools left behind
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .experiment
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
