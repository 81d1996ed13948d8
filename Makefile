# Every task of the project; `make help` lists them. The virtual environment is made on first use.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the tasks
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# torch first and alone, by its exact version: a CPU build that pip has at hand then serves everything else.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"Python 3.11 or newer is needed, this is {sys.version}"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.PHONY: setup
setup: $(READY) ## make the virtual environment

.PHONY: demo
demo: $(READY) ## set up, run the whole pipeline on a generated season, and show where the report is
	$(BIN)/exact run --source synthetic --recipe demo --workdir demo --force

.PHONY: test
test: $(READY) ## set up and run the tests (under 10 minutes on 2 cores)
	$(BIN)/python -m pytest -n 2 -m 'not slow and not services and not docker and not docs'

.PHONY: test-services
test-services: $(READY) ## tests against object store servers (tests/services/servers.py says which)
	$(BIN)/python -m pytest -n 2 -m services -o faulthandler_timeout=900

.PHONY: test-docker
test-docker: $(READY) ## the whole pipeline in containers, against real servers (build the images first: make images)
	$(BIN)/python -m pytest -m docker -o faulthandler_timeout=1800

.PHONY: test-slow
test-slow: $(READY) ## the tests that take minutes each
	$(BIN)/python -m pytest -n 2 -m slow -o faulthandler_timeout=1800

.PHONY: chaos
chaos: $(READY) ## 100 kills of all stages, servers restarted meanwhile (CHAOS_FLAGS='--kills 20 --seed 1'; as root)
	$(BIN)/python -m tests.chaos $(CHAOS_FLAGS)

.PHONY: fuzz
fuzz: $(READY) ## a million damaged files to all readers (FUZZ_FLAGS='--inputs 10000 --seed 1')
	$(BIN)/python -m tests.fuzz $(FUZZ_FLAGS)

DOCS := $(VENV)/.docs
$(DOCS): $(READY)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

.PHONY: docs
docs: $(DOCS) ## run the notebook, and build the site in build/site; a broken link fails
	$(BIN)/python -m pytest -m docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q

# The installed names as folders, for tools that look for files: mypy and import-linter.
TREE := build/tree
$(TREE): Makefile
	rm -rf $(TREE)
	mkdir -p $(TREE)/exact_kubeflow
	ln -s ../../exact_core $(TREE)/exact_core
	for each in __init__.py py.typed cli; do ln -s ../../../exact_kubeflow/$$each $(TREE)/exact_kubeflow/$$each; done
	for each in components pipelines; do ln -s ../../../$$each $(TREE)/exact_kubeflow/$$each; done
	touch $(TREE)

.PHONY: check
check: $(READY) $(TREE) package ## lint, format, types, import contracts, structure, packages, freshness of pipelines and locks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd $(TREE) && $(abspath $(BIN))/lint-imports --config $(CURDIR)/.importlinter
	$(BIN)/python tools/structure.py --check
	$(BIN)/python -m exact_kubeflow.pipelines.compile --check
	$(BIN)/python -m exact_core.settings_page docs/settings.md --check
	$(BIN)/python docker/lock.py --check

.PHONY: package
package: $(READY) ## build wheel and sdist in dist, and check both
	rm -rf dist build/lib build/bdist.*
	$(BIN)/python -m build --no-isolation --outdir dist . >build/package.log 2>&1 || { cat build/package.log; exit 1; }
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

.PHONY: format
format: $(READY) ## format the code
	$(BIN)/ruff check --fix -q . || true
	$(BIN)/ruff format -q .

.PHONY: compile
compile: $(READY) ## compile the pipelines to pipelines/compiled, and the page of settings
	$(BIN)/python -m exact_kubeflow.pipelines.compile
	$(BIN)/python -m exact_core.settings_page docs/settings.md

.PHONY: sizes
sizes: $(READY) ## pods and bytes of each pipeline's run on a cluster
	$(BIN)/python -m exact_kubeflow.pipelines.size

# Asks the package index for hashes; nothing else needs it, so it is kept out of the environment.
UV := build/uv/bin/uv
$(UV): Makefile
	$(PYTHON) -m venv build/uv
	build/uv/bin/python -m pip install -q --disable-pip-version-check uv==0.13.9
	@touch $@

.PHONY: lock
lock: $(READY) $(UV) ## write the images' locked dependencies, with hashes
	PATH="$(CURDIR)/build/uv/bin:$$PATH" $(BIN)/python docker/lock.py

.PHONY: images
images: ## build the images that components/images.lock names
	$(PYTHON) docker/build.py $(BUILD_FLAGS)

.PHONY: sbom
sbom: ## write what the images are made of to build/sbom (CycloneDX)
	$(PYTHON) docker/sbom.py $(SBOM_FLAGS)

.PHONY: bench
bench: $(READY) ## time and memory against a plain implementation of the same equations, the loader, maps, peers
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.loader
	$(BIN)/python -m benchmarks.mapping
	$(BIN)/python -m benchmarks.mapping --rows 1024 2048 --ask 64
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.peers --recipe pastis24 --dates 45 --rows 60 --columns 132 --ask 32 --runs 3

.PHONY: bench-real
FOLDERS ?=
bench-real: $(READY) ## real scenes against floors and dense labels: make bench-real FOLDERS="PATH PATH" (hours)
	$(BIN)/python -m benchmarks.real --folder $(FOLDERS)

.PHONY: bench-quality
bench-quality: $(READY) ## maps, masks part by part, choices without masks, time to equal quality (some hours)
	$(BIN)/python -m benchmarks.supervision
	$(BIN)/python -m benchmarks.ablation
	$(BIN)/python -m benchmarks.selection
	$(BIN)/python -m benchmarks.time_to_quality

.PHONY: clean
clean: ## remove what the tasks made
	rm -rf $(VENV) demo build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
