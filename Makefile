# Tagstream. `make help` lists what there is.
SHELL := bash
.DEFAULT_GOAL := help
.SHELLFLAGS := -euo pipefail -c

GOTESTSUM := go run gotest.tools/gotestsum@v1.13.0
GOLANGCI := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
MODULES := . test
# A module outside the workspace, whose dependencies would change the versions of all others.
ISOLATED := test/deploy
DEMO_DIR ?= $(CURDIR)/data/demo
DEMO_RATE ?= 50

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: build
build: ## build bin/ingest, bin/indexer, bin/api and bin/tagstream (all in one)
	go build -o bin/ ./services/ingest/cmd/ingest ./services/indexer/cmd/indexer ./services/api/cmd/api ./services/standalone/cmd/tagstream

.PHONY: run
run: build ## run the whole pipeline on this machine against live Bluesky
	.ci/postgres "$${TAGSTREAM_DATA_DIR:-data}" >/dev/null
	exec bin/tagstream

.PHONY: demo
demo: build ## the same offline: a simulated network behind the real Jetstream server
	go build -o bin/upstream ./test/simnet/cmd/upstream
	.ci/postgres >/dev/null
	exec .ci/demo "$(DEMO_DIR)" "$(DEMO_RATE)"

.PHONY: images
images: ## build the container images
	deploy/stack images

.PHONY: up
up: ## run all services with docker compose (PROFILES="demo cluster"; docs/deployment.md)
	deploy/stack up

.PHONY: down
down: ## stop them (VOLUMES=1 removes their data, too)
	deploy/stack down

.PHONY: logs
logs: ## follow their logs
	deploy/stack logs

.PHONY: test-containers
test-containers: ## test the deployment with real containers (needs an engine: .ci/engine; without a registry: .ci/images)
	cd test/deploy && GOWORK=off go test -count=1 -v -timeout 60m ./containers $(CONTAINERFLAGS)

.PHONY: k8s
k8s: ## check the manifests for Kubernetes against their schemas and our rules (no cluster needed)
	cd test/deploy && GOWORK=off go test -count=1 ./k8s

.PHONY: test-observability
test-observability: ## check metrics, alert rules and the dashboard (needs promtool: Debian's package prometheus)
	cd test/deploy && GOWORK=off go test -count=1 ./observability

.PHONY: test
test: ## run all tests that this machine can run
	.ci/postgres >/dev/null || echo "Tests that need Postgres are left out, where no other is given." >&2
	$(GOTESTSUM) --format pkgname --format-hide-empty-pkg -- -timeout 40m $(TESTFLAGS) work

# Left out under the race detector: tests that measure plans and work on one
# connection, more seeds of the same code, and tests of e2e that run nothing
# concurrently that the others do not.
RACE := $(GOTESTSUM) --format pkgname --format-hide-empty-pkg -- -race -vet=off -timeout 45m
.PHONY: race
race: ## run the integration tests under the race detector
	$(RACE) -skip 'Plan|PairsCost|WorkIsBounded|WatchFromAnEmptyPage|Oracle' ./pkg/stream ./pkg/store/... ./services/indexer/... ./services/ingest/... ./services/api/...
	$(RACE) -run '^Test(Pipeline|Readers|Readiness|TwoIndexers|Indexer|Ingest|RebuildWhileServing|Fold|Traces|UnresponsiveCollector)' ./test/e2e -fold.seeds=2

.PHONY: test-live
test-live: ## read the public network for 30 s; it must find an #art post
	TEST_LIVE=1 go test -count=1 -run '^TestLive' -v -timeout 5m ./test/e2e

.PHONY: test-npm
test-npm: ## ask a real AppView, and visit the pages with Lighthouse (needs npm; installs hundreds of packages)
	TEST_NPM=1 go test -count=1 -run '^Test(RealAppView|Lighthouse)$$' -v -timeout 30m ./services/ingest/internal/profiles ./test/explorer

.PHONY: capture
capture: ## record real events for the golden files of services/ingest/internal/decode (needs the network)
	go run ./test/capture -out services/ingest/internal/decode/testdata/live.jsonl $(CAPTUREFLAGS)
	go test ./services/ingest/internal/decode -run TestGolden -update

SOAK_RUNS ?= 200
.PHONY: soak
soak: ## SOAK_RUNS (200) seeded runs of the whole system under faults of every kind
	go test ./test/soak -run '^TestSoak$$' -count=1 -v -timeout 3h -parallel 4 -soak.runs=$(SOAK_RUNS) | grep -v '^=== '

.PHONY: mutants
mutants: ## plant the bugs of test/mutants one by one; a test must catch each
	go run ./test/mutants

.PHONY: scan
scan: ## look for secrets, and for known vulnerabilities where their database can be reached
	.ci/secrets
	.ci/vulnerabilities

.PHONY: fuzz
fuzz: ## fuzz every decoder and token for FUZZTIME each (30s)
	.ci/fuzz $(or $(FUZZTIME),30s)

.PHONY: bench
bench: ## run the benchmarks; all of them go to docs/bench.md (BENCH=ingest,api for parts, BENCHFLAGS=-quick for 2 minutes)
	go run ./test/bench/cmd/bench $(if $(BENCH)$(BENCHFLAGS),,-out docs/bench.md) $(if $(BENCH),-parts $(BENCH)) $(BENCHFLAGS)

.PHONY: lab
lab: ## measure paging by key against OFFSET and others; the report goes to docs/lab (LABFLAGS="-posts 3000000")
	go run ./test/lab/cmd/lab -out docs/lab $(LABFLAGS)

.PHONY: lint
lint: ## run the linters and check formatting
	@for m in $(MODULES); do echo "lint $$m"; (cd $$m && $(GOLANGCI) run --allow-parallel-runners --config "$(CURDIR)/.golangci.yml" ./...); done
	@for m in $(ISOLATED); do echo "lint $$m"; (cd $$m && GOWORK=off $(GOLANGCI) run --allow-parallel-runners --config "$(CURDIR)/.golangci.yml" ./...); done

.PHONY: generate
generate: ## write the generated files
	go run ./services/standalone/cmd/settingsdoc > docs/configuration.md

.PHONY: generate-metrics
generate-metrics: ## write docs/metrics.md
	cd test/deploy && GOWORK=off go test -count=1 -run '^TestDocs$$' ./observability -update

.PHONY: verify
verify: generate ## fail where a generated file or a go.mod is not current, or a module does not build alone
	git diff --exit-code -- docs/configuration.md
	@for m in $(MODULES) $(ISOLATED); do echo "verify $$m"; (cd $$m && export GOWORK=off && go mod tidy -diff && go build -o /dev/null ./...); done

.PHONY: clean
clean: ## remove what was built and the demo's data
	rm -rf bin data/demo
