# Everything a developer does with this project. `make help` lists it.

# The interpreter that the environment in .venv is made with: make PYTHON=python3.12 test
PYTHON ?= python3
# More for pytest: make test ARGS="-k endpoint"
ARGS ?=
# How long `make chaos` lasts, and with which choices: make chaos SECONDS=60 SEED=7
SECONDS = 600
SEED =
# Give it any value and `make lock` takes the newest versions instead of keeping the locked ones.
UPGRADE ?=

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help run test test-long test-system test-system-first coverage test-cluster test-others test-all canary check chaos fuzz format docs bench conformance dist lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1 \t\2/p' $(MAKEFILE_LIST) | expand -t 22

# A terminal sends Ctrl-C to everything in its foreground process group. Were make in it too, it would
# say "Interrupt" and fail although the service stopped as asked; so on a terminal the service becomes a
# foreground job of its own (set -m). The `+` in the state that ps shows says that we have the terminal.
# `exit` keeps the shell from replacing itself with its last command, which would then be no job.
run: .venv/.tamed ## serve a poem on localhost:10000, in the foreground; Ctrl-C stops it
	@echo "Read the poem from another terminal:"
	@echo "    nc localhost 10000"
	@echo "or, with nothing but bash:"
	@echo "    exec 3<>/dev/tcp/localhost/10000; cat <&3"
	@case "$$(ps -o stat= -p $$$$ 2>/dev/null)" in *+*) set -m ;; esac; $(BIN)/tamed run fastpoetry; exit $$?

# Where the environment forbids to keep bytecode, each process of a run would compile what belongs to pytest anew.
test: .venv/.tamed .venv/.dev ## run every test, in parallel
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest $(ARGS)

test-long: .venv/.tamed .venv/.dev ## the same with what waits for minutes, more rounds under load and many more examples
	HYPOTHESIS_PROFILE=long TAMED_TEST_ROUNDS=9 $(BIN)/pytest $(ARGS)

# Its root directories are kept in ~/.cache/tamed; each takes minutes to make (.ci/debian-root).
test-system: .venv/.tamed .venv/.dev ## run units under real systemd (252, 257), pods, images and Debian packages; as root
	TAMED_TEST_SYSTEM=1 $(BIN)/pytest -n 0 -rs tests/system $(ARGS)

test-system-first: .venv/.tamed .venv/.dev ## run the first of them, on one systemd: a minute, and as long to make its root
	TAMED_TEST_SYSTEM=1 ROOT_SECONDS=200 $(BIN)/pytest -n 0 -rs tests/system -m first -k trixie $(ARGS)

coverage: .venv/.tamed .venv/.dev ## measure what the tests reach, branches and subprocesses counted; demand 95 %
	@# Else each process that a test starts would compile it, where the environment forbids to keep bytecode.
	@$(BIN)/python -m compileall -q src
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --for-coverage $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=95

test-others: .venv/.tamed .venv/.dev ## run the tests on the other Pythons that we claim
	.ci/test-others $(ARGS)

test-all: test test-others ## test, then test-others

canary: .venv/.run ## run the suites that lean on libraries on the newest release of each, in spite of upper bounds
	$(BIN)/python .ci/canary.py $(ARGS)

check: .venv/.tamed .venv/.dev ## formatting, lint, types and the layer table; changes nothing
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pytest -n 0 -q tests/structure

format: .venv/.tamed .venv/.dev ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

# From scratch each time: Sphinx repeats no warning about a page that it need not read again.
docs: .venv/.tamed .venv/.dev ## build the documentation into site/; a warning is an error
	rm -rf site
	$(BIN)/sphinx-build --fresh-env --fail-on-warning --keep-going --quiet -d build/doctrees docs site
	@echo "the documentation is in site/index.html"

chaos: .venv/.tamed .venv/.dev ## do everything to a daemon at random for ten minutes and count; SECONDS=60 SEED=7
	$(BIN)/python -m tests.chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

# Five minutes unless the command line says otherwise.
test-cluster: .venv/.tamed .venv/.dev ## faults at random in three hosts and the servers of an engine, as root; ENGINE=nats DRIFT=5 SECONDS=60 SEED=7
	$(BIN)/python -m tests.fleet $(if $(ENGINE),--engine $(ENGINE)) $(if $(DRIFT),--drift $(DRIFT)) $(if $(filter command line,$(origin SECONDS)),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

# Five minutes unless the command line says otherwise. Atheris, which is guided by coverage, is there for some
# Pythons only, and no dependency of ours: it is put where nothing else sees it.
fuzz: .venv/.tamed .venv/.dev ## give all parsers that outsiders reach millions of inputs, in five minutes; SECONDS=60 SEED=7
	@$(INSTALL) --only-binary :all: --upgrade --target build/fuzz atheris 2>/dev/null || true
	PYTHONPATH=build/fuzz $(BIN)/python -m tests.fuzz $(if $(filter command line,$(origin SECONDS)),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

# The peers get an environment of their own, so that their pins and ours stay apart.
bench: ## measure Tamed beside its peers and write docs/_bench; ARGS="--only cpu --runs 3" for a part
	bench/install $(PYTHON)
	build/bench/venv/bin/python -m bench $(ARGS)

conformance: ## run uvicorn's and hypercorn's own tests with Tamed, and print which pass and why others do not
	bench/install $(PYTHON)
	build/bench/venv/bin/python -m pip --disable-pip-version-check install --quiet -r bench/conformance/requirements.txt
	build/bench/venv/bin/python -m bench.conformance

# Twice, and the second time from the source distribution: the same source makes the same bytes.
dist: .venv/.run ## build the wheel and the source distribution into dist/
	rm -rf dist build/dist
	$(BIN)/python -m hatchling build --directory dist
	mkdir -p build/dist
	tar -xzf dist/*.tar.gz -C build/dist --strip-components=1
	cd build/dist && $(CURDIR)/$(BIN)/python -m hatchling build --directory again
	diff -r dist build/dist/again

# uv resolves once for all the Pythons we claim, which pip cannot, and does not read pip's settings, so
# no local wheel or mirror gets into a lock. It lives in an environment of its own.
LOCK = build/lock/bin/uv pip compile --no-config --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
	$(if $(UPGRADE),--upgrade) --quiet pyproject.toml

lock: ## write requirements/*.txt anew after a change of the dependencies
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(LOCK) --group build --output-file requirements/run.txt
	$(LOCK) --group dev --output-file requirements/dev.txt
	for extra in all cert cluster-nats cluster-postgres console ftp ops reload telnet top twisted web; do \
		$(LOCK) --extra $$extra --constraint requirements/dev.txt --output-file requirements/$$extra.txt || exit 1; \
	done

clean: ## remove all that the other targets made
	rm -rf .venv build dist site .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment is made anew when what is locked has changed, so nothing that was dropped stays in it.
# `make run` needs little and is quick; the tools are added by the first of the other targets.
.venv/.run: requirements/run.txt
	@$(PYTHON) .ci/fit.py || { \
		echo "name another interpreter: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "setting up .venv"
	@$(PYTHON) -m venv --clear .venv
	@$(INSTALL) --require-hashes -r requirements/run.txt
	@touch $@

.venv/.dev: .venv/.run requirements/dev.txt
	@echo "installing the development tools into .venv"
	@$(INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

# Editable, so only what pyproject.toml says (the command, the plugins) can become stale.
.venv/.tamed: .venv/.run pyproject.toml
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@
