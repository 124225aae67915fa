# Everything this needs is installed by it: Go modules and a Python environment. Nothing is
# installed outside of the repository's folders and Go's caches.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VERSION := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)$(shell git diff --quiet HEAD 2>/dev/null || echo -dirty)
LDFLAGS := -X main.version=$(VERSION)

.PHONY: help
help: ## show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

.PHONY: build
build: ## build fairway and fairway-worker into bin/
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/fairway ./starter
	go build -ldflags '$(LDFLAGS)' -o bin/fairway-worker ./worker

.PHONY: demo
demo: .lab/bin/lab build ## start everything, replace a node, follow a commit, run until Ctrl-C
	@.lab/bin/lab demo --bin bin

# Most packages run two at a time: they wait more than they compute, and the fleet, which takes longest, begins.
# The scenarios of promotions, of nodes and of pull requests keep a machine of two cores busy, or measure times, and
# run one after another by themselves. Compiling all of them first uses every core.
SCENARIOS := ./tests/promotion ./tests ./tests/pullrequests
# gotestsum ends with the names of the tests that failed; go test alone buries them in what they printed.
GOTEST := go tool -modfile=$(CURDIR)/lint/go.mod gotestsum --format standard-quiet --hide-summary output,skipped --
.PHONY: test
test: .lab/bin/lab ## run every test, on a real lab
	.lab/bin/lab build
	go test -run '^$$' ./... >/dev/null
	$(GOTEST) -p 2 -timeout 25m ./tests/fleet ./activities/... $$(go list ./... | grep -vxF "$$(go list $(SCENARIOS))")
	$(GOTEST) -p 1 -timeout 25m $(SCENARIOS)
	for module in lab/nodes lab/temporal; do (cd $$module && $(GOTEST) -trimpath ./...) || exit; done

include lab/lab.mk
-include lint/lint.mk
-include bench/bench.mk
-include tests/record/record.mk
