# Each target makes its own virtual environment where there is none.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# The quickstart reports how long it took from here on, set-up included.
export MAKE_STARTED := $(shell date +%s)

.PHONY: demo gpu-proof lowest fuzz lmms-eval families venv quickstart control-table ablation real-clips grounding-proof region-proof caption-proof t2vid-proof mixing test unit proofs check format

venv: .venv/.complete

.venv/.complete: $(wildcard requirements/*.txt) pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements/dev.txt --constraint requirements/constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

quickstart: venv
	python -m quickstart.run

# A page over the embedded model and clips made for it; the address is printed.
demo: venv
	python -m internvl_chat web --demo

control-table: venv
	python -m quickstart.control_table

ablation: venv
	python -m quickstart.ablation

real-clips: venv
	python -m quickstart.real_clips --clips $(CLIPS)

grounding-proof: venv
	python -m quickstart.grounding_proof

region-proof: venv
	python -m quickstart.region_proof

# A tiny CogVLM2-Video learns to describe moving shapes; a folder of videos, five of them broken, and a kill in the middle.
caption-proof: venv
	python -m quickstart.caption_proof

mixing: venv
	python -m quickstart.mixing

t2vid-proof: venv
	python -m quickstart.t2vid_proof

check: venv
	ruff check .
	ruff format --check .
	mypy

# Two at a time, as a machine of two cores can: what starts two ranks itself and what needs one core share them.
test: check
	OMP_NUM_THREADS=1 pytest --numprocesses 2 --dist loadfile

# The tests that start no process.
unit: venv
	OMP_NUM_THREADS=1 pytest --numprocesses 2 --dist loadfile -m "not process"

# What takes minutes: trains until something is shown.
proofs: quickstart grounding-proof caption-proof families

# Every family of InternVL2 in miniature, trained by its recipe, merged and asked.
families: venv
	python -m tests.every_family

# Ten thousand broken files: each is read right or refused with a message that names it. 'make test' runs a few hundred.
fuzz: venv
	python -m tests.fuzzing --count 10000

# lmms-eval in an environment of its own, with this project as its model, and the tests of both.
lmms-eval:
	$(PYTHON) -m venv .venv-lmms-eval
	.venv-lmms-eval/bin/python -m pip install --quiet --requirement requirements/internvl_chat.txt --requirement requirements/lmms_eval.txt --requirement requirements/serve.txt pytest
	.venv-lmms-eval/bin/python -m pip install --quiet --no-deps --editable .
	.venv-lmms-eval/bin/python -m pytest tests/lmms

# Eight minutes on one GPU, with the Python that is at hand: needs torch, transformers, peft, accelerate, timm, no network.
gpu-proof:
	$(PYTHON) -m benchmarks.gpu_proof --out work_dirs/gpu_proof

# The lowest versions that are allowed, in an environment of their own: first steps of the quickstart, ZeRO-3 in all ways.
lowest: .venv-lowest/.complete
	PATH=$(CURDIR)/.venv-lowest/bin:$$PATH python -m quickstart.first_steps
	PATH=$(CURDIR)/.venv-lowest/bin:$$PATH python -m pytest tests/train/test_zero3.py tests/model/test_remaking.py tests/model/test_rms_norm.py tests/model/test_grouped_attention.py

.venv-lowest/.complete: requirements/internvl_chat.txt requirements/constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --requirement requirements/internvl_chat.txt pytest hypothesis --constraint requirements/constraints-lowest.txt
	.venv-lowest/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

format: venv
	ruff check --fix .
	ruff format .
