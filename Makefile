# Needs make and a Python 3.11, 3.12 or 3.13; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := out/demo
# Training, Lava and the tests are many small operations: one thread a process is fastest on shared cores.
export OMP_NUM_THREADS ?= 1

.PHONY: help install demo test soak fuzz lint format bench bench-training bench-quantization bench-verify bench-energy bench-gpu double-pendulum half-cheetah reproduce seeds returns clean

help:
	@echo "make demo     train a small policy, export it, run it on Lava, print the comparison"
	@echo "make test     the whole test suite, Lava included"
	@echo "make install  .venv with everything; then: . .venv/bin/activate && spikerl --help"
	@echo "make lint     ruff and mypy"
	@echo "make bench    timings of every backend and of training, as JSON in benchmarks/results"
	@echo "make bench-quantization  what quantization costs a HalfCheetah policy, by bits and method"
	@echo "make bench-verify  a HalfCheetah policy on every backend, spike for spike"
	@echo "make bench-energy  energy of inference of a HalfCheetah policy on this machine's CPU, and what counting costs"
	@echo "make bench-gpu  timings of training, and energy of inference, on a CUDA GPU"
	@echo "make half-cheetah  the report of a trained HalfCheetah policy on Lava, in out/half-cheetah/report"
	@echo "make reproduce TASK=hopper  train a shipped policy again from nothing (hours), deploy it, compare it"
	@echo "make seeds TASK=hopper FROM=3 SEEDS=2 [ACTOR=mlp]  train seeds 3 and 4 of a recipe side by side and record them"
	@echo "make returns  the tables and figures of all training runs, from their committed curves"
	@echo "make soak     the longer tests"
	@echo "make fuzz     the property tests with many more examples: drawn NIR graphs, networks on Lava"

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "Python 3.11, 3.12 or 3.13 is needed; give one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "$(PYTHON) lacks the venv module; on Debian: apt-get install python3-venv"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (once)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/spikerl backends install lava
	@for name in norse spikingjelly; do $(BIN)/spikerl backends install $$name \
	  || echo "$$name could not be installed: what needs it is skipped"; done
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps neurobench==2.3.0 \
	  || echo "neurobench could not be installed: the tests that count against it are skipped"
	@command -v chromium > /dev/null || command -v google-chrome > /dev/null \
	  || echo "no Chromium here: the tests of report.html in a browser are skipped; on Debian: apt-get install chromium"
	touch $@

demo: $(READY)
	$(BIN)/spikerl train --recipe inverted-pendulum --seed 0 --out $(DEMO)/run --force
	$(BIN)/spikerl export $(DEMO)/run --to nir --bits 8 -o $(DEMO)/policy.nir --force
	$(BIN)/spikerl simulate $(DEMO)/policy.nir --backend lava --compare torch --episodes 5 --seed 0 \
	  -o $(DEMO)/report --force

# In two processes of about the same length.
FIRST := tests/training tests/exporters tests/report tests/ground
test: $(READY)
	@mkdir -p out
	@$(BIN)/python -m pytest -q $(FIRST) > out/test-first.log 2>&1 & first=$$!; \
	$(BIN)/python -m pytest -q $(addprefix --ignore ,$(FIRST)); others=$$?; \
	wait $$first; status=$$?; echo "$(FIRST):"; cat out/test-first.log; \
	exit $$((others + status))

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

soak: $(READY)
	SPIKERL_SOAK=1 $(BIN)/python -m pytest -q --timeout 1800

# SPIKERL_FUZZ multiplies the examples of each property.
fuzz: $(READY)
	SPIKERL_FUZZ=$${SPIKERL_FUZZ:-20} $(BIN)/python -m pytest -q --timeout 3600 \
	  $$(grep -rlE "SPIKERL_FUZZ|fuzz\(" tests --include='test_*.py')

bench: $(READY) bench-training
	$(BIN)/python -m benchmarks.backends --out benchmarks/results/backends.json

bench-training: $(READY)
	$(BIN)/python -m benchmarks.training --out benchmarks/results/training.json
	$(BIN)/python -m benchmarks.training_variants --out benchmarks/results/training-variants.json

bench-quantization: $(READY)
	$(BIN)/python -m benchmarks.quantization --policy benchmarks/policies/half-cheetah.nir \
	  --out benchmarks/results/quantization.json

bench-verify: $(READY)
	@mkdir -p out
	$(BIN)/spikerl export benchmarks/policies/half-cheetah.nir --to nir --bits 8 -o out/half-cheetah-8-bit.nir --force
	$(BIN)/spikerl verify out/half-cheetah-8-bit.nir --steps 500 --episodes 1 --seed 0 \
	  -o benchmarks/results/verify.json --force

CHEETAH := benchmarks/policies/half-cheetah.nir

bench-energy: $(READY)
	$(BIN)/spikerl measure $(CHEETAH) --device cpu --batch 1 --batch 64 --bf16 \
	  -o benchmarks/results/inference-energy-cpu.json --force
	@mkdir -p out
	$(BIN)/spikerl export $(CHEETAH) --to nir --bits 8 -o out/half-cheetah-8-bit.nir --force
	$(BIN)/python -m benchmarks.counting --out benchmarks/results/counting.json

# Needs a torch with CUDA: install it into .venv in the place of the pinned one, which has none.
bench-gpu: $(READY)
	$(BIN)/python -m benchmarks.training --device cuda --out benchmarks/results/training-cuda.json
	$(BIN)/spikerl measure $(CHEETAH) --device cuda --batch 1 --batch 1024 --bf16 \
	  -o benchmarks/results/inference-energy-cuda.json --force

half-cheetah: $(READY)
	$(BIN)/spikerl export $(CHEETAH) --to nir --bits 8 -o out/half-cheetah/policy.nir --force
	$(BIN)/spikerl simulate out/half-cheetah/policy.nir --backend lava --compare torch --episodes 10 --parallel 10 \
	  --seed 0 -o out/half-cheetah/deployed --force
	$(BIN)/spikerl report out/half-cheetah/deployed benchmarks/results/verify.json \
	  benchmarks/results/half-cheetah-training.json benchmarks/results/inference-energy-cpu.json \
	  --svg -o out/half-cheetah/report --force

double-pendulum: $(READY)
	$(BIN)/spikerl train --recipe inverted-double-pendulum --seed 0 --set steps=80000 --set eval_every=2500 \
	  --set eval_episodes=50 --set stop_return=9300 --out out/double-pendulum/run --force
	$(BIN)/spikerl export out/double-pendulum/run --to nir --bits 8 -o out/double-pendulum/policy.nir --force
	$(BIN)/spikerl simulate out/double-pendulum/policy.nir --backend lava --compare torch --episodes 5 --seed 0 \
	  -o out/double-pendulum/report --force
	$(BIN)/spikerl simulate out/double-pendulum/policy.nir --backend fixed --compare torch --episodes 100 --seed 0 \
	  --parallel 50 -o out/double-pendulum/report-100 --force

# Train the recipe of TASK with more options (2) to a folder (1); a run that was interrupted there goes on.
# FLAGS: options of spikerl train for this machine, such as --bf16, --device cuda or --set threads=2.
FLAGS :=
define train
if test -f $(1)/resume/latest.json; then echo "going on with $(1)"; $(BIN)/spikerl train --resume $(1) $(FLAGS); \
	else $(BIN)/spikerl train --recipe $(TASK) $(2) $(FLAGS) --out $(1) --force; fi
endef

# A policy of the zoo from nothing: settings and seed of its card, that seed alone, unless another SEED is given.
# It fails where the float policy returns less than REQUIRE of the shipped one's.
TASK ?= hopper
CARD := $(shell sed -n 's/^env = "\(.*\)"/policies\/\1.json/p' training/recipes/$(TASK).toml 2> /dev/null | tr A-Z a-z)
SEED ?= $(shell sed -n '/"training"/,$$ s/^ *"seed": \([0-9]*\),*/\1/p' $(CARD) /dev/null 2> /dev/null | head -1)
BEYOND := $(shell sed -n 's/.*"spikerl train --recipe [^ ]* --seed [0-9]*\(.*\) --out run".*/\1/p' $(CARD) /dev/null 2> /dev/null \
  | sed 's/ --set seeds=[0-9]*//')
TOOK := $(shell sed -n '/"training"/,$$ s/^ *"seconds": \([0-9]*\).*/\1/p' $(CARD) /dev/null 2> /dev/null | head -1)
REQUIRE ?= 0.8
REPRODUCED := out/reproduce/$(TASK)-$(SEED)
reproduce: $(READY)
	@test -f '$(CARD)' || { echo "no shipped policy of the task '$(TASK)'; there is:" \
	  $$(sed -n 's/.*"recipe": "\(.*\)".*/\1/p' policies/*.json); exit 2; }
	@echo "the training of the shipped policy took $$(($(TOOK) / 60)) minutes ($(CARD) says on what, and of how many seeds)"
	$(call train,$(REPRODUCED)/run,--seed $(SEED) $(BEYOND))
	$(BIN)/python -m benchmarks.publish $(REPRODUCED)/run --name $(basename $(notdir $(CARD))) --recipe $(TASK) \
	  --compare-with $(CARD) --require-return $(REQUIRE) --out $(REPRODUCED)/policies --force

# Seeds of a recipe, from FROM on, trained side by side. Their curves join the results.
FROM ?= 0
SEEDS ?= 1
ACTOR ?= spiking
TRAINED := out/seeds/$(TASK)-$(ACTOR)-$(FROM)-of-$(SEEDS)
GROUP := $(if $(filter mlp,$(ACTOR)),mlp,recipe)
seeds: $(READY)
	@test -f $(TRAINED)/resume/latest.json \
	  || $(BIN)/python -m benchmarks.returns free --task $(TASK) --group $(GROUP) --seed $(FROM) --seeds $(SEEDS)
	$(call train,$(TRAINED),--actor $(ACTOR) --seed $(FROM) --seeds $(SEEDS))
	$(BIN)/python -m benchmarks.returns add $(TRAINED) --task $(TASK) --group $(GROUP)
	$(BIN)/python -m benchmarks.returns write

returns: $(READY)
	$(BIN)/python -m benchmarks.returns write

clean:
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache .hypothesis
