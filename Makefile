# make demo     the main job on the sample data, some minutes
#               (options: make demo DEMO_ARGS='--text_pair "花呗怎么还款" "怎么还花呗"')
# make test     the tests, in two processes
#               (options: make test TEST_ARGS='tests/test_corpus.py -x')
# make lint     style and format
# make bench-data   speed and memory of data generation (ALBERT_ZH_DATA names the data)
# make bench-train  speed of training and inference beside Hugging Face transformers
# make venv     only the Python environment that these use, in .venv
# make clean    removes the environment, the demo's files and caches
#
# Another interpreter: make test PYTHON_VERSIONS=3.9 VENV=.venv-3.9

PYTHON_VERSIONS = 3.11 3.10 3.9 3.7
VENV = .venv
PYTHON = $(VENV)/bin/python

# Written last: an interrupted installation leaves none and is begun again.
INSTALLED = $(VENV)/installed-requirements
INSTALLED_DEV = $(VENV)/installed-requirements-dev

.PHONY: demo test lint bench-data bench-train venv clean

demo: $(INSTALLED)
	$(PYTHON) run_demo.py $(DEMO_ARGS)

test: $(INSTALLED_DEV)
	$(PYTHON) -m pytest -n 2 --dist loadfile $(TEST_ARGS)

lint: $(INSTALLED_DEV)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

bench-data: $(INSTALLED_DEV)
	$(PYTHON) benchmarks/data_generation.py --data=$(ALBERT_ZH_DATA) \
	    --work=/tmp/bench_data $(BENCH_ARGS)

bench-train: $(INSTALLED_DEV)
	$(PYTHON) benchmarks/training_speed.py $(BENCH_ARGS)

venv: $(INSTALLED_DEV)

clean:
	rm -rf .venv .venv-* demo .pytest_cache .hypothesis .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment whose interpreter has gone, or that was left half made, is remade.
ifeq ($(shell $(PYTHON) -m pip --version 2>/dev/null),)
.PHONY: $(PYTHON)
endif

$(PYTHON):
	@rm -rf $(VENV)
	@python=$$(sh .ci/find_python.sh $(PYTHON_VERSIONS)) && \
	    echo "Making $(VENV) with $$python" && \
	    "$$python" -m venv $(VENV)

$(INSTALLED): requirements.txt $(PYTHON)
	@echo "Installing $< into $(VENV); the first time takes some minutes"
	@$(PYTHON) -m pip install -qq --disable-pip-version-check -r $<
	@touch $@

$(INSTALLED_DEV): requirements-dev.txt requirements-optional.txt $(INSTALLED)
	@echo "Installing $< into $(VENV); the first time takes some minutes"
	@$(PYTHON) -m pip install -qq --disable-pip-version-check -r $<
	@touch $@
