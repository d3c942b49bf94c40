# Copyright The cftrack Authors
# SPDX-License-Identifier: Apache-2.0

.DEFAULT_GOAL := help
.PHONY: help build demo test soak lint fmt bench

help: ## What can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## The command, as bin/cftrack
	go build -trimpath -o bin/cftrack ./cmd/cftrack

demo: build ## The whole story on this machine, with proof at the end
	bin/cftrack demo

test: ## Every test, with the race detector
	./test.sh

soak: ## 200,000 random histories, and 200 processes killed at random moments (an hour on two cores)
	CFTRACK_HISTORIES=200000 CFTRACK_FAILURES=20 go test -count=1 -timeout 12h -v -run '^TestHistories$$' ./internal/model
	CFTRACK_KILLS=200 go test -race -count=1 -timeout 1h -v -run '^Test(Killed|Redis|Failover|FullDisk|Leader|Several)' ./internal/process

lint: ## What golangci-lint says; .golangci.yml has the rules and their exceptions
	go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run

fmt: ## Format the code
	gofmt -w $$(git ls-files '*.go')

bench: ## Every benchmark beside its peers, into docs/performance.md (20 minutes)
	go run ./internal/bench -o docs/performance.md
