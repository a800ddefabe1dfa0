# The same commands without make: python3 tools/bootstrap.py lab|test|run|bench|student|html|bundle
# More arguments: make test ARGS="-k krylov", make run ARGS="--save 05 06". Another Python: make lab PYTHON=python3.12
PYTHON ?= python3
ARGS ?=

.PHONY: lab test run bench student html bundle clean setup lock

# lab: JupyterLab at the first notebook    test: unit tests and notebooks    run: all notebooks, no browser
# bench: against the peers    student: the lessons without solutions    html: the course as web pages
# bundle: all that a class room without a network needs, in one archive
# setup: only .venv    lock: write the lock files anew    clean: remove what these commands have made
lab test run bench student html bundle clean setup lock:
	@$(PYTHON) tools/bootstrap.py $@ $(ARGS)
