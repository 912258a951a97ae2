# Two commands do everything on a fresh machine:
#   make demo   installs into .venv, then opens the demo (the viewer with a display, a report folder without)
#   make test   installs what the tests need, then runs every test
# A Python between 3.11 and 3.14 must be there; uv is fetched into .uv when it is not.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
export UV_PYTHON_DOWNLOADS := never
PYTHON_WANTED ?= >=3.11,<3.15
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
BIN := .venv/bin
DEMO_OUT ?= demo-report
# Test processes beside each other. Each may take 1.5 GB.
WORKERS ?= 2
TWO := -n $(WORKERS) --dist worksteal

.PHONY: demo test test-unit test-gui test-newer lint bench pictures clean

demo: .venv/.installed
	$(BIN)/slnpredict demo --out $(DEMO_OUT)

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/pip install --quiet uv

.venv/.installed: pyproject.toml | $(filter .uv/bin/uv,$(UV))
	test -d .venv || $(UV) venv --quiet --python '$(PYTHON_WANTED)' .venv
	$(UV) pip install --quiet --python .venv -e '.[all]'
	touch $@

.venv/.tested: .venv/.installed
	$(UV) pip install --quiet --python .venv -e '.[all,test,dev]'
	touch $@

# A screen without a screen: only on Debian and its children, and only as root; elsewhere the display that is there.
.venv/.screen: | .venv/.tested
	scripts/install_screen.sh
	touch $@

test: .venv/.tested .venv/.screen lint test-unit test-gui test-newer

test-unit: .venv/.tested
	$(BIN)/python -m pytest $(TWO) -m 'not gui and not soak and not gpu' tests/contract tests/unit

# GUI tests have a process of their own: a crash in the GL driver must not hide the other results.
test-gui: .venv/.tested .venv/.screen
	scripts/with_screen.sh $(BIN)/python -m pytest tests/gui -m 'gui and not soak'

# Python 3.12 and newer get another tiffslide, tifffile and zarr: the readers are tested in both worlds.
test-newer: .venv/.tested
	scripts/test_newer.sh "$(UV)" $(TWO)

lint: .venv/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/npe2 validate --imports napari-slnpredict

bench: .venv/.tested
	@echo "One script a figure; see benchmarks/RESULTS.md. Run on a quiet machine:"
	@ls benchmarks/*.py | sed 's|^|  $(BIN)/python |'

pictures: .venv/.installed .venv/.screen
	scripts/with_screen.sh $(BIN)/python docs/make_pictures.py

clean:
	rm -rf .venv .venv-newer .uv dist demo-report
