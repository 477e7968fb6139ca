# buildmesh. Three commands do everything: make up, make demo, make test.
SHELL      := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION    := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS    := -s -w -X main.version=$(VERSION)
GO         := go

# Generators of proto/, pinned: the same input gives the same files.
PROTOC_GEN_GO      := google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
PROTOC_GEN_GO_GRPC := google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.0

.PHONY: help up build shim test demo clients bench sim proto clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: build ## build and run a node; prints what to put into .bazelrc
	@exec bin/buildmesh up $(ARGS)

shim: ## build the init program of the sandbox, which the node embeds
	@command -v $(GO) >/dev/null || { echo "make: there is no go here: install Go 1.26 or newer, see https://go.dev/doc/install" >&2; exit 1; }
	@$(GO) generate ./exec/sandbox/embedded

build: shim ## build bin/buildmesh
	@mkdir -p bin
	@$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/buildmesh ./cmd/buildmesh

test: shim clients ## install the clients the tests need, then run every check and test
	@.ci/steps format vet staticcheck cross race lab clients

demo: build ## see a mesh of five nodes on this machine lose one and get it back
	@bin/buildmesh testnet demo

clients: ## install the real clients the tests drive
	@for each in testnet/lab/install testnet/clients/install; do \
	  $$each || { [ $$? = 3 ] && [ -z "$${CI:-}" ]; }; done # 3: not possible here, it said why

bench: build ## compare this node with bazel-remote; writes a table and a picture
	@$(GO) run ./testnet/bench

sim: ## compare ways to place actions on simulated meshes; writes a table and a picture
	@$(GO) run ./testnet/sim

proto: ## generate the code of proto/ (needs protoc)
	@GOBIN=$(CURDIR)/bin $(GO) install $(PROTOC_GEN_GO)
	@GOBIN=$(CURDIR)/bin $(GO) install $(PROTOC_GEN_GO_GRPC)
	@PATH=$(CURDIR)/bin:$$PATH protoc --go_out=. --go_opt=paths=source_relative \
	  --go-grpc_out=. --go-grpc_opt=paths=source_relative $$(find proto -name '*.proto')

clean: ## remove what was built
	@rm -rf bin out
