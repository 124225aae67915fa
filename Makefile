# Everything this needs is installed by it: Go modules and a Python environment.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VERSION := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)$(shell git diff --quiet HEAD 2>/dev/null || echo -dirty)
LDFLAGS := -X main.version=$(VERSION)

.PHONY: help
help: ## show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

.PHONY: build
build: ## build the product into bin/
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/fairway ./starter
	go build -ldflags '$(LDFLAGS)' -o bin/fairway-worker ./worker

include lab/lab.mk
