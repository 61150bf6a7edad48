# Everything a person or CI runs. `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
OUT ?= outputs/demo
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# Three, as many tests wait for other processes: 643 s, and 798 s with two (2 cores of an Intel Xeon, the same hour).
FILES_AT_A_TIME := --numprocesses 3 --dist loadfile
SPHINX := --quiet --fresh-env --nitpicky --jobs auto --doctree-dir outputs/docs-doctrees
READY := $(VENV)/.ready

.PHONY: setup demo test test-fast plain lint docs docs-links soak bench gpu accuracy results clean

setup: $(READY)  ## .venv (or VENV=DIR) with everything pinned

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("EgoChef needs Python 3.11 or newer; $(PYTHON) is %d.%d. Name another one: make setup PYTHON=python3.11" % v)'
	@mkdir -p $(VENV) 2> /dev/null && touch $(VENV) 2> /dev/null || \
		{ echo "$(VENV) cannot be written. Choose other folders, each time: make demo VENV=$$HOME/egochef-venv OUT=$$HOME/egochef-demo" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,docs,bench,coreml,live,onnx,openvino,report,track]"
	touch $(READY)

demo: setup  ## the whole main job on a toy kitchen, on a CPU, in minutes; into outputs/demo (or OUT=DIR)
	$(BIN)/egochef demo --out $(OUT)

test: setup  ## the tests, three files at a time
	$(PYTEST) $(FILES_AT_A_TIME)

test-fast: setup  ## the tests that take seconds
	$(PYTEST) $(FILES_AT_A_TIME) -m "not slow"

plain: setup  ## the wheel without extras in a fresh environment: the demo, and every command's first step
	$(BIN)/python .ci/plain.py

lint: setup  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup  ## the site of docs/, into outputs/docs; warnings and broken links are errors
	$(BIN)/sphinx-build $(SPHINX) --fail-on-warning --keep-going docs outputs/docs

docs-links: setup  ## whether links to other sites still lead somewhere; needs a network
	$(BIN)/sphinx-build $(SPHINX) --builder linkcheck docs outputs/docs-links

soak: setup  ## what takes too long for every day: the tests marked so, and 50 kills at random moments, of a run and of a store being made
	$(PYTEST) -m soak --timeout=7200
	EGOCHEF_KILLS=50 $(PYTEST) tests/training/test_resume.py tests/data/test_prepare.py --timeout=7200

bench: setup  ## the measured numbers of the README, as JSON files (four hours)
	mkdir -p outputs
	for name in decode submission workers temporal store_formats store_accuracy features levers live_accuracy live_memory recurrence exports shift; do \
		$(BIN)/python benchmarks/$$name.py > outputs/$$name.json && mv outputs/$$name.json benchmarks/results/ || exit 1; done
	for what in data train live; do \
		$(BIN)/egochef bench $$what --json > outputs/$$what.json && mv outputs/$$what.json benchmarks/results/ || exit 1; done

gpu: setup  ## on a CUDA GPU: whether all does there what it does on a processor, and how fast (under ten minutes)
	$(BIN)/python benchmarks/gpu.py

accuracy: setup  ## benchmarks/results/accuracy.json: every model and switch on a hard drawn kitchen (many hours; goes on where it was)
	$(BIN)/python benchmarks/accuracy.py

results: setup  ## docs/results.md: three models of a drawn kitchen, and what they do (half an hour)
	test -d outputs/results/kitchen || $(BIN)/egochef toy --out outputs/results/kitchen --segments 700 --seed 1
	$(BIN)/egochef prepare --data outputs/results/kitchen --out outputs/results/store
	$(BIN)/egochef train --recipe toy --temporal mean --data outputs/results/store --out outputs/results/mean16 --resume
	$(BIN)/egochef train --recipe toy --data outputs/results/store --out outputs/results/bilstm16 --resume
	$(BIN)/egochef train --recipe toy --num-frames 32 --data outputs/results/store --out outputs/results/bilstm32 --resume
	$(BIN)/egochef report outputs/results/mean16 outputs/results/bilstm16 outputs/results/bilstm32 --data outputs/results/store --out outputs/results/report --results docs/results.md

clean:
	rm -rf .venv outputs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
