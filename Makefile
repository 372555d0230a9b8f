# make demo: a picture in demo/. make test: what CI runs. Both make .venv themselves; a second call installs nothing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# A waiting thread sleeps instead of spinning, and nothing is looked up on a model hub.
CALM := OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1
TWO := --numprocesses=2 --dist=worksteal

.DEFAULT_GOAL := help
.PHONY: help demo test test-cluster test-lowest lint format bench fuzz published docs web clean

help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

demo: $(VENV)/.installed  ## Upscale the public-domain retina of scikit-image into demo/
	$(BIN)/retinashift demo --overwrite

test: $(VENV)/.installed-dev  ## Import rules, ruff and all tests, in two processes (make test TWO= for one)
	$(BIN)/lint-imports
	$(BIN)/ruff check
	$(CALM) $(BIN)/python -m pytest $(TWO)

test-cluster: $(VENV)/.installed-dev  ## Tests that start a Ray cluster on this machine, or two processes of training
	$(CALM) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster

test-lowest:  ## All tests with the lowest versions that pyproject.toml allows, in .venv-lowest
	@mkdir -p build
	grep -oE '"[A-Za-z0-9_-]+>=[0-9.]+"' pyproject.toml | tr -d '"' | sed 's/>=/==/' | sort -u > build/lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -c build/lowest.txt -e '.[dev]'
	$(CALM) .venv-lowest/bin/python -m pytest $(TWO)

lint: $(VENV)/.installed-dev  ## Import rules, ruff, format and types
	$(BIN)/lint-imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.installed-dev  ## Sort imports and format, in place
	$(BIN)/ruff check --fix --quiet
	$(BIN)/ruff format

bench: $(VENV)/.installed  ## CPU seconds and memory of upscaling, beside Pillow's bicubic
	$(CALM) OMP_NUM_THREADS=1 $(BIN)/python benchmarks/upscale.py

fuzz: $(VENV)/.installed-dev  ## 2,000 mutated files of every format, read and written again
	nice -n 15 $(BIN)/python benchmarks/fuzz.py --count 2000

published: $(VENV)/.installed-dev  ## Test images that Pillow, pydicom and tifffile publish, through upscale in one command
	$(CALM) OMP_NUM_THREADS=1 $(BIN)/python benchmarks/published.py

CHECKPOINT ?= x4
accept: $(VENV)/.installed  ## Whether CHECKPOINT (default x4) passes the acceptance thresholds
	$(CALM) OMP_NUM_THREADS=1 $(BIN)/python benchmarks/accept.py $(CHECKPOINT)

sbom: $(VENV)/.installed  ## Lock file with hashes and CycloneDX list of components, in build/
	$(INSTALL) pip-tools cyclonedx-bom
	mkdir -p build
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras -c constraints.txt -o build/requirements.lock pyproject.toml
	$(BIN)/cyclonedx-py requirements --output-reproducible -o build/sbom.json build/requirements.lock

docs: $(VENV)/.installed-docs  ## The manual as HTML in build/docs/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # not --quiet: warnings that are not shown do not count
	@echo "build/docs/index.html"

web: $(VENV)/.installed  ## The page as a folder in build/web/ that any web server can serve
	$(INSTALL) -e '.[onnx]'
	rm -rf build/web && mkdir -p build
	$(BIN)/python web/build_site.py build/web

clean:  ## Remove .venv, caches and what the targets made
	rm -rf $(VENV) .venv-lowest build dist demo .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.10 or newer, or say make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); 3.10 or newer is needed: say make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing RetinaShift and PyTorch into $(VENV): some minutes, the first time"
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing RetinaShift, PyTorch and the test tools into $(VENV): some minutes, the first time"
	$(INSTALL) -e '.[dev]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(INSTALL) -e '.[docs]'
	@touch $@
