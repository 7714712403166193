# Every target that people and CI use is listed by `make help`.
SHELL := /bin/sh
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GOLANGCI_LINT := v2.15.0

TAGS := seccomp netgo osusergo containers_image_openpgp exclude_graphdriver_btrfs exclude_graphdriver_zfs runc_nocriu grpcnotrace
# A static link of glibc warns about dlopen in a PKCS#11 module that nothing
# here calls. Only binutils 2.40 and newer can be told to keep quiet.
QUIET_LINK := $(shell ld --no-warnings --version >/dev/null 2>&1 && echo -Wl,--no-warnings)
LDFLAGS := -s -w -linkmode=external -extldflags "-static $(QUIET_LINK)" -X github.com/shale-build/shale/cmd/shale/cli.Version=$(VERSION)
# The clone may belong to somebody else, whose history git refuses to read.
# One set of flags for everything, or every package would be compiled twice.
GOFLAGS := -buildvcs=false -trimpath
GO_FLAGS := -tags "$(TAGS)"
export GOFLAGS
export CGO_ENABLED := 1

# Where Go's own archive is unpacked; not every shell has it on its PATH.
export PATH := $(PATH):/usr/local/go/bin

# Base images and pinned tools live outside the clone and survive it.
CACHE ?= $(if $(filter 0,$(shell id -u)),/var/cache/shale-tests,$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/shale-tests)
TOOLS := $(CACHE)/tools
LINT := $(TOOLS)/golangci-lint-$(GOLANGCI_LINT)/golangci-lint

RUNNER := runtime/sandbox/runner/shale-init

# RUN selects scenarios (a regular expression), PKG packages, FUZZTIME the
# length of one fuzz target, SOAK that of all rounds of make soak in minutes.
RUN ?=
PKG ?= ./...
FUZZTIME ?= 10s
UPDATE ?=
# ENV names kinds of containers (tests/environments/container), with -inside for a
# store in the container's own root file system.
ENV ?= docker docker-inside docker-nnp unshare unshare-inside unshare-readonly unshare-nnp unshare-user unshare-user-nnp
EVERY ?=
# MACHINE names machines of tests/kernels.
MACHINE ?=
export MACHINE CACHE RUN TAGS PKG UPDATE EVERY

.PHONY: help setup build test unit unit-race e2e e2e-root environments conformance conformance-oneid conformance-native conformance-digests conformance-environments conformance-reference kernels examples image demo bench bench-modes bench-scale cross fuzz soak lint fmt fmt-check vet tidy-check docs-check ci clean FORCE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the packages that building and testing need (as root)
	tests/setup build demo test

build: bin/shale ## build the static binary bin/shale

bin/shale: $(RUNNER) FORCE
	go build $(GO_FLAGS) -ldflags '$(LDFLAGS)' -o $@ ./cmd/shale

# The first process of containers, which shale embeds: small, to start fast.
$(RUNNER): FORCE
	@tests/setup build
	go build -tags "$(TAGS)" -ldflags '-s -w -linkmode=external -extldflags "-static $(QUIET_LINK)"' -o $@ ./cmd/shale-init

bin/testbed: FORCE
	CGO_ENABLED=0 go build -o $@ ./tests/testbed

bin/kernels: FORCE
	CGO_ENABLED=0 go build -o $@ ./tests/kernels

bin/tally: FORCE
	CGO_ENABLED=0 go build -o $@ ./tests/tally

test: ## unit tests, conformance and every end-to-end scenario, as user and (when root) as root and in containers
	tests/run unit conformance e2e $(if $(filter 0,$(shell id -u)),conformance-root e2e-root environments)

unit: ## unit tests, as an unprivileged user and (when root) as root; PKG=./overlay/... for some
	tests/run unit

unit-race: ## unit tests with the race detector
	RACE=1 tests/run unit

e2e: ## end-to-end scenarios as an unprivileged user; RUN=cache_ for some
	tests/run e2e

e2e-root: ## end-to-end scenarios as root
	tests/run e2e-root

environments: ## scenarios in containers of several kinds (as root); RUN=inplace_ for some
	tests/run environments

conformance: ## conformance cases as user and (when root) as root; RUN=copy/ for some
	tests/run conformance $(if $(filter 0,$(shell id -u)),conformance-root)

conformance-oneid: ## the same cases as a user without subordinate ids, whose owners are recorded; needs root to become that user; EVERY=9 for every ninth
	tests/run conformance-oneid

conformance-native: ## the same cases as a user whose layers are shown without overlays; EVERY=9 for every ninth
	tests/run conformance-native

conformance-environments: ## the same cases in containers (as root); ENV=docker for one kind, EVERY=10 for every tenth case
	tests/run $(addprefix conformance-in-,$(ENV))

conformance-digests: ## every case with all ids and with one: the images have the same digests
	tests/run conformance-digests

conformance-reference: ## the same cases by the buildctl on PATH; UPDATE=1 records what they give
	tests/run conformance-reference

kernels: ## the tests' selection in virtual machines with Debian's kernels (as root); MACHINE=6.1-apparmor for one, RUN=user/store for some
	tests/run kernels

examples: ## build and try every image of examples/, as user and (when root) as root; RUN=go- for some
	tests/run examples $(if $(filter 0,$(shell id -u)),examples-root)

image: bin/shale bin/testbed ## build the official image shale, shale:debug and shale:git, on a Debian made from packages
	@tests/setup build demo
	images=$$(bin/testbed images -cache "$(CACHE)" -only debian) && for target in shale debug git; do \
		bin/shale build -f cmd/shale/Containerfile --build-context debian:bookworm-slim=oci-layout://$$images/debian \
			--target $$target -t shale:$$(echo $$target | sed s/shale/latest/) bin || exit; \
	done

demo: ## build, inspect and run examples/hello-multistage as an unprivileged user
	tests/demo

bench: ## compare with buildah and other builders found on PATH
	bench/run $(BENCH)

bench-modes: ## compare builds on this machine and in containers of two kinds, with kaniko if there is an executor (as root)
	bench/modes $(BENCH)

bench-scale: ## measure how times grow with the work and draw docs/scale.svg; BENCH=-all with a million files
	bench/run -scale $(BENCH)

cross: ## compile and vet everything for arm64, and start the binary in an emulator
	tests/cross

fuzz: ## run every fuzz target for FUZZTIME each
	tests/fuzz $(FUZZTIME)

soak: ## repeat the scenarios whose failures depend on the moment, for SOAK minutes (60)
	tests/soak

# The linter reads sources where its cache, and Go's of what cgo made, say that
# they are: neither may be another clone's, which trimmed paths would make it.
lint: $(LINT) ## golangci-lint, pinned
	GOFLAGS=-buildvcs=false GOLANGCI_LINT_CACHE=$(CURDIR)/bin/lint-cache $(LINT) run --timeout 15m ./...

$(LINT):
	GOBIN=$(dir $@) GOFLAGS= go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)

fmt: $(LINT) ## rewrite the sources with gofumpt and goimports
	$(LINT) fmt ./...

fmt-check: $(LINT)
	@diff=$$($(LINT) fmt --diff ./...) && test -z "$$diff" || { printf '%s\n' "$$diff"; echo 'run make fmt' >&2; exit 1; }

vet: ## go vet
	go vet -tags "$(TAGS)" ./...
	go vet -tags "$(TAGS) e2e" ./tests/e2e ./tests/conformance

tidy-check: ## go.mod and go.sum are tidy
	go mod tidy -diff
	go mod verify

docs-check: ## links between the documents lead somewhere; plain English
	tests/docs-check

ci: ## everything that CI runs
	tests/ci

clean: ## remove what was built here (not the cache of base images and tools)
	rm -rf bin $(RUNNER)
