# Two commands do everything on a fresh Linux machine with Python 3.11 or newer:
#   make demo   environment, installation, and a study on the embedded data set
#   make test   environment with the development tools, documentation, all checks and tests
#   make docs   the documentation as a site in site/, strictly: no warning, no broken link; needs no network
#   make generated   the pages and the schema that are written from the code; make test checks that they are current
#   make audit   known vulnerabilities of the installed packages
#   make test-gpu    the tests that need a CUDA device; without one each is skipped, with BBAM_TEST_DEVICE=cpu they use the CPU
#   make test-slow   the tests that take minutes each: lost nodes, frozen workers, killed drivers
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin

.PHONY: demo docs generated test test-with-ray test-without-ray test-gpu test-slow check audit clean

demo: $(VENV)/.installed
	$(RUN)/python launch/tune.py --folds 3 --confirm-seeds 2

test: $(VENV)/.installed-dev check docs
	@$(MAKE) --no-print-directory -j2 --output-sync=target test-with-ray test-without-ray

# Ray mostly waits for its processes; meanwhile the other core computes.
test-with-ray:
	$(RUN)/python -m pytest -m 'ray and not slow'

test-without-ray:
	$(RUN)/python -m pytest -m 'not ray and not slow'

# In an environment of your own: python -m pytest -m gpu tests/gpu (tests that lack Ray or ONNX are skipped).
test-gpu: $(VENV)/.installed-dev
	$(RUN)/python -m pytest -m gpu tests/gpu

test-slow: $(VENV)/.installed-dev
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,tracking]'
	$(RUN)/python -m pytest -m slow

check: $(VENV)/.installed-dev
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

# The theme announces on every build that MkDocs 2 will not support it; the pin of mkdocs takes care of that.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --strict --quiet

# Pages that are written from the code: command line, settings, the schema of space files.
generated: $(VENV)/.installed-dev
	$(RUN)/python docs/site/generate.py

# Known vulnerabilities of what is installed; needs a way to a database of them.
audit: $(VENV)/.installed-dev
	$(RUN)/python -m pip check
	test -x .audit/bin/pip-audit || { $(PYTHON) -m venv .audit && \
	  .audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit; }
	.audit/bin/pip-audit --strict --progress-spinner off \
	  --path "$$($(RUN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "error: $(PYTHON) has no venv module; install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 2; }
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,docs]'
	@touch $@

clean:
	rm -rf $(VENV) .audit build dist site .pytest_cache .mypy_cache .ruff_cache
