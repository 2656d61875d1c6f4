# `make demo` and `make test` do all the set-up themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint setup format clean

demo: setup
	$(BIN)/sam2-iterative demo --folder demo

# A process for each core (four at most: each takes up to 2 GB), each with one thread; a file's tests stay together, which share what is made once.
test: export OMP_NUM_THREADS = 1
test: setup system-libraries
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python Testing/module/cmake_lists.py

setup: $(READY)

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=77,<81" wheel
	$(BIN)/python -m pip install --quiet "torch>=2.10" torchvision
	SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install --quiet --no-build-isolation --require-hashes --no-deps --requirement sam2-requirement.txt
	$(BIN)/python -m pip install --quiet "hydra-core>=1.3.2" "iopath>=0.1.10" "tqdm>=4.66" "pillow>=9.4"
	$(BIN)/python -m pip install --quiet --editable ".[dev,surfaces]"
	$(BIN)/python -m pip install --quiet --editable ".[slicer-tests]" || echo "No Slicer core for this Python: its tests will be skipped."
	touch $(READY)

# Slicer's views need EGL; where it may not be installed, their tests skip and say so.
.PHONY: system-libraries
system-libraries:
	@if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && ! ldconfig -p | grep -q libEGL.so.1; then \
	  apt-get update -qq && apt-get install -y -qq libegl1 libgl1 >/dev/null || echo "EGL could not be installed: view tests will be skipped."; fi

clean:
	rm -rf $(VENV) demo
