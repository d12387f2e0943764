# Two commands are meant for newcomers: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SAMPLE := Resources/SampleCase
INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable

.PHONY: demo test test-fast lint screenshots clean

$(BIN)/python:
	@$(PYTHON) -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))" \
	  || { echo "Python 3.10, 3.11 or 3.12 is needed; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# One stamp for each set of extras, so that a second call installs nothing.
$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing (a few minutes the first time) ..."
	$(INSTALL) '.[slicer,web]'
	@touch $@

$(VENV)/.develop: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing (a few minutes the first time) ..."
	$(INSTALL) '.[slicer,web,train,test]'
	@touch $@ $(VENV)/.run

demo: $(VENV)/.run
	$(BIN)/mrtrus register $(SAMPLE)/mr.nii.gz $(SAMPLE)/trus.nii.gz \
	  --mr-landmarks $(SAMPLE)/mr_landmarks.mrk.json --trus-landmarks $(SAMPLE)/trus_landmarks.mrk.json \
	  --output demo-output --overwrite
	@echo
	@echo "Open in a browser:   $(CURDIR)/demo-output/report.html"
	@echo "Open in 3D Slicer:   $(CURDIR)/demo-output/scene.mrb"
	@echo "Or without Slicer:   $(BIN)/mrtrus view demo-output"

test: $(VENV)/.develop
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: $(VENV)/.develop
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

lint: $(VENV)/.develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

screenshots: $(VENV)/.develop
	OMP_NUM_THREADS=1 $(BIN)/python Testing/screenshots.py

clean:
	rm -rf $(VENV) build demo-output *.egg-info
