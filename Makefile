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

# Two packages at a time: they wait more than they compute. The two that keep a machine busiest, the
# whole fleet and the scenarios of tests/, are listed so that one begins when the other ends; promotions run
# beside the fleet, which bears it better than the scenarios do. Pull requests make a cluster each, and run by
# themselves in the end. Compiling all of them first uses every core.
.PHONY: test
test: .lab/bin/lab ## run every test, on a real lab
	.lab/bin/lab build
	go test -run '^$$' ./... >/dev/null
	go test -p 2 -timeout 25m ./tests/fleet ./tests/promotion ./activities/... ./tests $$(go list ./... | grep -v /tests/pullrequests)
	go test -timeout 25m ./tests/pullrequests
	go test -C lab/temporal -trimpath ./...

include lab/lab.mk
-include lint/lint.mk
-include bench/bench.mk
-include tests/record/record.mk
