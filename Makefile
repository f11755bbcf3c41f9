# Everything a developer does, from a machine with nothing but Python and make.
#
#   make demo         train a teacher on the shipped digits, distil it, print a table
#   make test         every check and test
#   make check        format, lint, types, imports, size budgets, generated files
#   make help         the other targets
#
# PYTHON=python3.12       the interpreter to start from
# KDNET_EXTRA=cpu|gpu     the runtime to install; otherwise gpu where an NVIDIA driver answers
# GPU_PYTHON=python       the interpreter of `make gpu`: onnxruntime-gpu, numpy, onnx, pytest

PYTHON ?= python3
VENV := .venv
GPU_VENV := .venv-gpu
PROTO_VENV := .venv-proto
BIN := $(VENV)/bin
PIP := -m pip install --quiet --disable-pip-version-check

# cuInit succeeds only where a driver and a device are really there.
DRIVER_ANSWERS := $(PYTHON) -c 'import ctypes as c, sys; \
	sys.exit(c.CDLL("libcuda.so.1").cuInit(0) != 0)' 2>/dev/null
KDNET_EXTRA ?= $(shell $(DRIVER_ANSWERS) && echo gpu || echo cpu)
# Named after what it holds, so that another runtime is a new installation.
INSTALLED := $(VENV)/.installed-$(KDNET_EXTRA)
OTHER_RUNTIME := onnxruntime$(if $(filter cpu,$(KDNET_EXTRA)),-gpu)

.PHONY: help setup proto fmt lint type test test-fast docs build check gpu demo test-cuda bench \
	fuzz clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

# --- environments

define check_python
@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v < (3, 11) and sys.exit( \
	"kdnet needs Python 3.11 or newer, this is %d.%d; name another one, as in" % v + \
	" make PYTHON=python3.12 $(MAKECMDGOALS)")'
endef

setup: $(INSTALLED) ## make .venv with kdnet, one runtime and the developers' tools

$(INSTALLED): pyproject.toml
	$(check_python)
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@# The two wheels of ONNX Runtime overwrite each other's files: where the other one is, both go.
	@if $(BIN)/python -m pip show --quiet $(OTHER_RUNTIME) 2>/dev/null; then \
		$(BIN)/python -m pip uninstall --quiet --yes onnxruntime onnxruntime-gpu; fi
	@echo "installing kdnet[$(KDNET_EXTRA),dev] into $(VENV)"
	@$(BIN)/python $(PIP) --editable '.[$(KDNET_EXTRA),dev]'
	@rm -f $(VENV)/.installed-*
	@touch $@

$(GPU_VENV)/.installed: Makefile
	$(check_python)
	@test -x $(GPU_VENV)/bin/pip || $(PYTHON) -m venv $(GPU_VENV)
	@echo "installing onnxruntime-gpu and CUDA's headers into $(GPU_VENV)"
	@$(GPU_VENV)/bin/python $(PIP) onnxruntime-gpu==1.31.1 numpy onnx \
		'nvidia-cuda-runtime==13.*' 'nvidia-cuda-crt==13.*'
	@touch $@

# This old generator's code runs on every protobuf from 4 to 7; a newer one's refuses libraries
# that are older, or newer by two major versions. It has wheels up to Python 3.12.
$(PROTO_VENV)/.installed: Makefile
	$(check_python)
	@test -x $(PROTO_VENV)/bin/pip || $(PYTHON) -m venv $(PROTO_VENV)
	@$(PROTO_VENV)/bin/python $(PIP) --only-binary :all: grpcio-tools==1.62.3 'setuptools<81'
	@touch $@

# --- generated files

proto: $(PROTO_VENV)/.installed ## regenerate kdnet/schema/kdnet_pb2 from proto/kdnet.proto
	$(PROTO_VENV)/bin/python -m grpc_tools.protoc --proto_path proto \
		--python_out kdnet/schema --pyi_out kdnet/schema proto/kdnet.proto

docs: $(INSTALLED) ## regenerate docs/layers.md, and the layers in the README
	@mkdir -p docs build
	$(BIN)/kdnet layers --markdown > build/layers.md
	@mv build/layers.md docs/layers.md
	$(BIN)/kdnet layers --readme README.md > build/README.md
	@mv build/README.md README.md

# --- checks

fmt: $(INSTALLED) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

type: $(INSTALLED)
	$(BIN)/mypy

check: lint type ## format, lint, types, imports, size budgets, generated files
	$(BIN)/python -m pytest --quiet tests/test_architecture.py
	$(BIN)/kdnet layers --markdown | diff -u docs/layers.md -
	$(BIN)/kdnet layers --readme README.md | diff -u README.md -

test: check ## every check and test
	$(BIN)/python -m pytest -n 2

test-fast: $(INSTALLED) ## the tests that take a moment
	$(BIN)/python -m pytest -n 2 -m 'not slow and not gpu'

test-cuda: $(INSTALLED) $(GPU_VENV)/.installed ## without a GPU: would every layer and net run on one, whole?
	@command -v gcc >/dev/null || { echo "make test-cuda needs gcc"; exit 1; }
	$(BIN)/python -m pytest tests/placement
	PYTHONPATH=tests $(BIN)/python tests/placement/layers_on_cuda.py $(GPU_VENV)/bin/python
	$(BIN)/python tests/placement/nets_on_cuda.py $(GPU_VENV)/bin/python

# In whatever environment the machine with the GPU has: nothing is installed, kdnet is found here.
GPU_PYTHON ?= $(if $(wildcard $(VENV)/.installed-gpu),$(BIN)/python,$(PYTHON))
gpu: ## the GPU tests and the GPU bench; says so and passes where there is no GPU
	@if $(DRIVER_ANSWERS); then \
		set -ex; export PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}"; \
		$(GPU_PYTHON) -m pytest -m gpu tests/gpu; \
		$(GPU_PYTHON) bench/step.py --device cuda; \
	else \
		echo "SKIPPED make gpu: no NVIDIA driver answers on this machine"; \
	fi

# --- products

demo: $(INSTALLED) ## train a teacher on the shipped digits, distil it, print a table
	$(BIN)/kdnet demo

bench: $(INSTALLED) ## the training step against PyTorch on the CPU, weight files against cp
	$(BIN)/python bench/step.py --device cpu
	$(BIN)/python bench/weights.py

FUZZ_INPUTS ?= 1000000
fuzz: $(INSTALLED) ## damaged files for every weight reader; FUZZ_INPUTS=N of them
	$(BIN)/python tests/fuzz/run.py --inputs $(FUZZ_INPUTS)

# From another folder and another environment, so that what the wheel lacks shows.
build: $(INSTALLED) ## build the wheel, install it elsewhere and compile a net with it
	rm -rf dist build/lib build/bdist.* build/wheel
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w dist .
	$(BIN)/python -m venv build/wheel
	build/wheel/bin/python $(PIP) "$$(echo dist/kdnet-*.whl)[cpu]"
	cd build/wheel && bin/kdnet --version && bin/kdnet compile \
		$(CURDIR)/nets/mnist/lenet_teacher.prototxt -o lenet_step.onnx

clean: ## remove what was built, but not the environments
	rm -rf build dist *.egg-info runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf .import_linter_cache .coverage
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
