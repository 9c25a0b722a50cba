# Two commands for a newcomer: `make demo` and `make test`. CI calls the same targets.
PYTHON ?= python3
# Extra arguments for installing torch: on Linux without a GPU, `TORCH_ARGS="--index-url <PyTorch's CPU wheel index>"` saves gigabytes.
TORCH_ARGS ?=
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: install demo test check stubs clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints-cpu.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH_ARGS) $$(grep '^torch==' constraints-cpu.txt)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints-cpu.txt -e '.[cpu,dev]'
	touch $@

demo: install
	bash examples/demo/run.sh

test: install
	$(BIN)/pytest

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

stubs: install
	cd proto && ../$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. vitrine/v1/*.proto
	cd proto && ../$(BIN)/python -m grpc_tools.protoc -I . --grpc_python_out=. vitrine/v1/*_service.proto

clean:
	rm -rf .venv demo
