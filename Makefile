# Leerstroom: every command that people and CI run. `make help` lists them.

.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

GO       ?= go
BINARY   := bin/leerstroom
LIBRARY  := deploy/engine/node_modules/.installed
BROKER   := deploy/kafka/target/.installed
# -race needs cgo and a C compiler; the product itself is built without.
export CGO_ENABLED ?= 0

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: build
build: ## build bin/leerstroom
	$(GO) build -trimpath -o $(BINARY) ./cmd/leerstroom

.PHONY: engine
engine: $(LIBRARY) ## install the embedded ClickHouse library (npm, from the lock file)

$(LIBRARY): deploy/engine/package-lock.json
	npm ci --prefix deploy/engine --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: broker
broker: $(BROKER) ## install the jars of Apache Kafka (Maven)

$(BROKER): deploy/kafka/pom.xml
	mvn -q -B -f deploy/kafka/pom.xml dependency:copy-dependencies -DoutputDirectory=target/jars
	@touch $@

.PHONY: demo
demo: build engine ## run the whole line on embedded engines with simulated schools
	$(BINARY) demo

.PHONY: up
up: build engine ## serve on loopback with data in ./data until interrupted
	$(BINARY) up --data data --listen 127.0.0.1:8080

.PHONY: test
test: check integration apache ## everything that CI runs

.PHONY: check
check: ## format, vet, staticcheck, build
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$unformatted" ]; then echo "gofmt would change:" $$unformatted; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) build ./...

.PHONY: integration
integration: engine ## unit and integration tests on the embedded engines, with the race detector
	CGO_ENABLED=1 $(GO) test -race -timeout 20m $$($(GO) list ./... | grep -v -e /bench/evaluate -e /transform/filter)
	$(GO) test -timeout 20m ./bench/evaluate/... ./transform/filter/...  # arithmetic on one goroutine, ten times slower with -race

.PHONY: apache
apache: engine ## the integration tests again on Apache Kafka
	@if command -v mvn >/dev/null && command -v java >/dev/null; then \
	  $(MAKE) --no-print-directory broker && LEERSTROOM_TEST_KAFKA=apache $(GO) test -timeout 20m $(APACHE_PACKAGES); \
	elif [ "$${CI:-}" = true ]; then echo "java (17 or newer) and mvn are needed for the tests on Apache Kafka"; exit 1; \
	else echo "SKIPPED: tests on Apache Kafka need java (17 or newer) and mvn"; fi

APACHE_PACKAGES := ./internal/stream/... ./ingest/... ./pseudonymize/... ./transform/... ./query/... ./cmd/...

.PHONY: bench
bench: build engine ## measure every stage and the whole line; writes docs/performance.md and bench/results/latest.json
	$(BINARY) bench --report docs/performance.md --json bench/results/latest.json

.PHONY: fault
FAULT ?= -campaigns=40 -rounds=25
fault: engine ## break a running system over and over: FAULT="-campaigns=40 -rounds=25 -seed=1 -apache=true"
	$(GO) test -tags fault -timeout 24h -run '^TestCampaigns$$' -v ./bench/fault -args $(FAULT)

.PHONY: fuzz
FUZZTIME ?= 30s
fuzz: ## run every fuzz target for FUZZTIME (default 30s)
	@for package in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "$$package $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$package; \
	  done; \
	done

.PHONY: clean
clean: ## remove what the build and the engines left
	rm -rf bin data deploy/kafka/target deploy/engine/node_modules
