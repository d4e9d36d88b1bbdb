# The one way in. `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# What decides how Go builds, and for what, is not taken from the machine's environment; given on make's command line
# (make plugin GOARCH=arm64, make test CC=clang) it counts. Where caches, proxies and certificates are does stay the machine's:
# the go command needs it, and e2e/environment keeps it away from the tests.
LEFT_OUT := GOFLAGS GOWORK GO111MODULE GOTOOLCHAIN GOOS GOARCH GOAMD64 GOARM64 GOEXPERIMENT GOFIPS140 GODEBUG GOGC GOMEMLIMIT GOMAXPROCS \
	CGO_ENABLED CGO_CFLAGS CGO_CPPFLAGS CGO_CXXFLAGS CGO_LDFLAGS CC CXX AR CPATH C_INCLUDE_PATH LIBRARY_PATH \
	BASH_ENV CDPATH POSIXLY_CORRECT TZ LANG LANGUAGE LC_% E2E_ENGINE E2E_PLUGIN
$(foreach v,$(filter $(LEFT_OUT),$(.VARIABLES)),$(if $(filter environment,$(origin $v)),$(eval unexport $v)))
# Instead of what `go env -w` wrote down, of a workspace around this folder, and of a version control that is not asked.
export GOFLAGS := -buildvcs=false
export GOWORK := off
export CGO_ENABLED := 1
export LC_ALL := C.UTF-8
# A folder that no file can be made in, or whose name lists and patterns would read as something else, is none.
folder = $(shell case "$${$(1):-}" in (*[!A-Za-z0-9/._+@-]*) ;; (/*) test -d "$${$(1)}" && test -w "$${$(1)}" && echo "$${$(1)}" ;; esac)
ifeq ($(origin TMPDIR)$(call folder,TMPDIR),environment)
unexport TMPDIR
endif
ifeq ($(call folder,HOME),)
export HOME := $(abspath build)/home
$(shell mkdir -p '$(abspath build)/home')
endif

HOSTARCH := $(shell env -u GOFLAGS -u GOTOOLCHAIN -u GOEXPERIMENT -u GODEBUG -u GOWORK go env GOHOSTARCH)
ifneq ($(filter environment undefined,$(origin GOARCH)),)
GOARCH := $(HOSTARCH)
endif
BUILD := build
PLUGIN := $(BUILD)/$(GOARCH)/out_cloudwatch_tenants.so
# cgo needs a C compiler for the target.
ifneq ($(GOARCH),$(HOSTARCH))
ifeq ($(GOARCH),arm64)
CROSS := CC=aarch64-linux-gnu-gcc
endif
ifeq ($(GOARCH),amd64)
CROSS := CC=x86_64-linux-gnu-gcc
endif
endif
LDFLAGS := -s -w
# A release's version without the v; empty for a build that is none.
VERSION ?=
ifneq ($(VERSION),)
RELEASE_FLAGS := -X github.com/eks-tenant-logs/eks-tenant-logs/internal/version.version=$(VERSION)
endif
# The API server and etcd of e2e/kube, for this machine. An API server that is built
# elsewhere than in its own repository must be told its version.
KUBE := $(BUILD)/kube
KUBE_VERSION := $(shell sed -nE 's/^\tk8s.io\/kubernetes (v[0-9.]+).*/\1/p' e2e/kube/go.mod)
FUZZTIME ?= 20s
# For a package's tests that hang: go's own 10 minutes are not enough on a loaded machine.
TEST_TIMEOUT := 40m
MINUTES ?= 10
RATE ?= 40000
# Unit tests, then everything that goes through the real .so.
PACKAGES := ./internal/... ./release/... ./plugin/... ./provisioner/... ./launcher/... ./e2e/host/... ./e2e/fakeaws/... ./e2e/live/... ./e2e/scale/... ./e2e/plot/... ./e2e/bench/... ./e2e/cluster/... ./e2e/docs/... ./e2e/environment/... ./e2e/node/... ./e2e/realnode/... ./e2e/nodetest

GOLANGCI_VERSION := v2.15.0
GOLANGCI := $(BUILD)/tools/golangci-lint-$(GOLANGCI_VERSION)

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

.PHONY: plugin
plugin: ## build the Fluent Bit plugin; GOARCH=arm64 cross-compiles (needs gcc-aarch64-linux-gnu)
	@mkdir -p $(dir $(PLUGIN))
	$(CROSS) CGO_ENABLED=1 GOARCH=$(GOARCH) go build -trimpath -buildvcs=false -buildmode=c-shared -ldflags '$(LDFLAGS) $(RELEASE_FLAGS)' -o $(PLUGIN) ./plugin
	@rm -f $(PLUGIN:.so=.h)
	@ls -l $(PLUGIN) | awk '{printf "%s: %.1f MB\n", $$9, $$5/1048576}'

.PHONY: provisioner
provisioner: ## build tenantlogs, the provisioner and CLI (static)
	@mkdir -p $(BUILD)/$(GOARCH)
	CGO_ENABLED=0 GOARCH=$(GOARCH) go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS) $(RELEASE_FLAGS)' -o $(BUILD)/$(GOARCH)/tenantlogs ./provisioner

.PHONY: launcher
launcher: ## build tenantlogs-launcher, which runs Fluent Bit in the image (static)
	@mkdir -p $(BUILD)/$(GOARCH)
	CGO_ENABLED=0 GOARCH=$(GOARCH) go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS) $(RELEASE_FLAGS)' -o $(BUILD)/$(GOARCH)/tenantlogs-launcher ./launcher

.PHONY: demo
demo: ## ship the logs of three tenants and a forger, end to end, with no AWS account
	@go run ./e2e/demo

.PHONY: test
test: ## unit tests and the promises through the real .so, with the race detector; PACKAGES= and PROMISES= (a pattern) for some
	go test -race -timeout $(TEST_TIMEOUT) $(PACKAGES)
	go test -race -count=1 -timeout $(TEST_TIMEOUT) $(if $(PROMISES),-run '$(PROMISES)') ./e2e
	cd e2e/terraform && go test -count=1 -timeout $(TEST_TIMEOUT) ./...
	@echo "Not run here: what needs a real Fluent Bit (make e2e), a real Kubernetes node (make node-e2e), and what is for arm64 (make arm64-test)."
	@test -x $(KUBE)/etcd -a -x $(KUBE)/kube-apiserver || echo "Not run here: what needs a real kube-apiserver (make kube builds it, in some minutes)."
	@test -x $(BUILD)/tools/helm || echo "Not run here: what needs Helm (make chart-tools builds it, in some minutes)."
	@if command -v node >/dev/null && command -v npm >/dev/null; then echo "Not run here: the comparison with another IAM simulator (make iam-differential)."; else echo "Not run here: the comparison with another IAM simulator (make iam-differential; needs Node and npm, which are not on PATH)."; fi
	@./.ci/awscli 1 >/dev/null || echo "Not run here: what is run with version 1 of the AWS CLI."
	@./.ci/awscli 2 >/dev/null || echo "Not run here: what is run with version 2 of the AWS CLI (Debian: apt-get install awscli)."

# The other simulator is installed beside the build, never beside the code: e2e/iamsimulate/README.md.
IAM_SIMULATE := $(BUILD)/iamsimulate
IAM_CASES ?= 6000
IAM_SEED ?= 1

.PHONY: iam-differential
iam-differential: $(IAM_SIMULATE)/node_modules/.package-lock.json ## ask another IAM simulator the same questions as the project's evaluator; needs Node and npm; IAM_CASES= a partition, IAM_SEED=
	go test -count=1 -timeout $(TEST_TIMEOUT) -v ./e2e/iamsimulate -args -simulator $(abspath $(IAM_SIMULATE)) -node "$$(command -v node)" -cases $(IAM_CASES) -seed $(IAM_SEED)

$(IAM_SIMULATE)/node_modules/.package-lock.json: e2e/iamsimulate/package.json e2e/iamsimulate/package-lock.json e2e/iamsimulate/simulate.mjs
	@command -v node >/dev/null && command -v npm >/dev/null || { echo "make iam-differential: needs Node and npm on PATH: nothing was compared"; exit 2; }
	@mkdir -p $(IAM_SIMULATE)
	cp $^ $(IAM_SIMULATE)
	cd $(IAM_SIMULATE) && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

.PHONY: hostile-test
hostile-test: ## make demo, and some of make test, on a machine whose environment is set against them
	@./.ci/hostile

.PHONY: nightly
nightly: ## the long forms of the tests that this machine allows, an hour or more; says what was left out, and why
	@./.ci/nightly

.PHONY: kube
kube: $(KUBE)/etcd $(KUBE)/kube-apiserver ## build the real kube-apiserver and etcd for the tests, where they are missing

$(KUBE)/etcd: e2e/kube/go.mod
	@mkdir -p $(KUBE)
	@echo "make kube: building etcd; on 2 cores this took one minute ($$(date +%T))"
	cd e2e/kube && CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(abspath $@) go.etcd.io/etcd/server/v3

$(KUBE)/kube-apiserver: e2e/kube/go.mod
	@mkdir -p $(KUBE)
	@echo "make kube: building kube-apiserver $(KUBE_VERSION); on 2 cores this took five minutes ($$(date +%T))"
	cd e2e/kube && CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS) -X k8s.io/component-base/version.gitVersion=$(KUBE_VERSION)' -o $(abspath $@) k8s.io/kubernetes/cmd/kube-apiserver
	@ls -l $@ | awk '{printf "%s: %.0f MB\n", $$9, $$5/1048576}'

# The rest of a Kubernetes node. The kubelet compiles most of what the others share.
KUBE_FLAGS := -trimpath -ldflags '$(LDFLAGS) -X k8s.io/component-base/version.gitVersion=$(KUBE_VERSION)'
KUBE_REST := kubelet kube-controller-manager kube-scheduler kube-proxy
CONTAINERD := containerd containerd-shim-runc-v2 ctr
CONTAINERD_TAGS := no_btrfs,no_zfs,no_devmapper,no_aufs,urfave_cli_no_docs

.PHONY: kube-node
kube-node: kube $(KUBE_REST:%=$(KUBE)/%) $(CONTAINERD:%=$(KUBE)/%) ## build the rest of a Kubernetes node as well: kubelet, containerd and so on; minutes, once

# What a build took, in seconds, and the program's size.
timed = @began=$$(date +%s); echo "make kube-node: building $(@F) ($$(date +%T))"; $(1); echo "$@: $$(($$(date +%s) - began)) s, $$(($$(stat -c %s $@) / 1048576)) MB"

$(KUBE_REST:%=$(KUBE)/%) $(KUBE)/kubectl: e2e/kube/go.mod
	@mkdir -p $(KUBE)
	$(call timed,(cd e2e/kube && CGO_ENABLED=0 go build $(KUBE_FLAGS) -o $(abspath $@) k8s.io/kubernetes/cmd/$(@F)))

$(CONTAINERD:%=$(KUBE)/%): e2e/containerd/go.mod
	@mkdir -p $(KUBE)
	$(call timed,(cd e2e/containerd && CGO_ENABLED=0 go build -trimpath -tags $(CONTAINERD_TAGS) -ldflags '$(LDFLAGS)' -o $(abspath $@) github.com/containerd/containerd/v2/cmd/$(@F)))

NODE_E2E ?= required
NODE_TESTS ?=

.PHONY: node-e2e
ifeq ($(NODE_E2E),off)
node-e2e: ## the chart on a real Kubernetes node, each line counted; needs root, buildah, runc (docs/node.md); NODE_E2E=required|auto|off NODE_TESTS=
	@echo "make node-e2e: NODE_E2E=off: NOT run here, what needs a real node"
else
node-e2e: kube-node chart-tools provisioner
	NODE_E2E=$(NODE_E2E) go test -count=1 -timeout 6h $(if $(NODE_TESTS),-run '$(NODE_TESTS)') ./e2e/realnode
	NODE_E2E=$(NODE_E2E) go test -count=1 -timeout 6h -v $(if $(NODE_TESTS),-run '$(NODE_TESTS)') ./e2e/nodetest
endif

.PHONY: demo-cluster
demo-cluster: kube-node $(KUBE)/kubectl chart-tools provisioner ## a Kubernetes cluster with three tenants, the chart, helm test, a roll under load; kept until Ctrl-C. Needs what make node-e2e does
	@go run ./e2e/democluster

.PHONY: e2e
e2e: kube chart-tools ## the promises again, through a real Fluent Bit (PATH or FLUENT_BIT=), a real kube-apiserver and Helm
	@bin="$${FLUENT_BIT:-$$(command -v fluent-bit || true)}"; \
	if [ -z "$$bin" ]; then echo "make e2e: no Fluent Bit found on PATH or in \$$FLUENT_BIT: nothing was tested"; exit 2; fi; \
	"$$bin" --version | head -1; \
	E2E_ENGINE=fluent-bit FLUENT_BIT="$$bin" go test -count=1 -timeout 40m -v ./e2e

.PHONY: fluent-bit-check
fluent-bit-check: kube chart-tools ## all that must pass before the Fluent Bit of the images is raised, on FLUENT_BIT=; CHECKS="facts chart promises image" (docs/release.md)
	@./release/fluent-bit-check

.PHONY: arm64-test
arm64-test: ## the plugin and tenantlogs for arm64, run by qemu's user mode where this machine is none; needs qemu-user-static, gcc-aarch64-linux-gnu
	E2E_ARM64=1 go test -count=1 -timeout 30m -run '^TestARM64' -v ./e2e

.PHONY: live
live: ## ask a real AWS account what only AWS can tell; needs TENANTLOGS_LIVE_ACCOUNT (docs/live.md)
	@go run ./e2e/live

.PHONY: bench
bench: ## a record's cost; then Fluent Bit with null, core and this plugin side by side (minutes)
	go test -run xxx -bench . -benchmem ./internal/chunk ./internal/tenancy ./internal/delivery ./internal/output
	@go run ./e2e/bench

.PHONY: scale
scale: ## a cluster in virtual time against an account's quotas: docs/scaling.md's tables and plot (an hour); results in build/scale are kept
	GOGC=400 go test -count=1 -timeout 3h -run 'TestCluster|TestVariedLines' -v ./e2e/scale -full $(abspath $(BUILD))/scale -show $(abspath docs/scaling.svg)

.PHONY: soak
soak: ## ten minutes of a real Fluent Bit while one thing after the other goes wrong; MINUTES=, RATE=
	@go run ./e2e/soak -minutes $(MINUTES) -rate $(RATE)

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (20s)
	@./.ci/fuzz $(FUZZTIME)

.PHONY: lint
lint: $(GOLANGCI) ## gofmt, go vet, golangci-lint, go.mod, and what the layout forbids
	@test -z "$$(gofmt -l .)" || { echo "not gofmt'd:"; gofmt -l .; exit 1; }
	go mod tidy -diff
	go vet ./...
	$(GOLANGCI) run ./...
	cd e2e/terraform && go mod tidy -diff && go vet ./... && $(abspath $(GOLANGCI)) run -c $(abspath .golangci.yml) ./...
	@./.ci/layout

$(GOLANGCI):
	@mkdir -p $(dir $@)
	GOBIN=$(abspath $(dir $@)) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	@mv $(dir $@)golangci-lint $@

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BUILD)

# Helm and what reads charts and rules, at the versions of charts/tools/go.mod.
CHART := charts/eks-tenant-logs
TOOLS := $(BUILD)/tools
HELM := $(TOOLS)/helm
UNITTEST := $(TOOLS)/helm-unittest
HELM_DOCS := $(TOOLS)/helm-docs
PROMTOOL := $(TOOLS)/promtool

.PHONY: chart-tools
chart-tools: $(HELM) $(UNITTEST) $(HELM_DOCS) $(PROMTOOL) ## build helm, helm-unittest, helm-docs and promtool for the chart's tests, where they are missing

define chart-tool
	@mkdir -p $(TOOLS)
	@echo "make chart-tools: building $(@F) ($$(date +%T))"
	cd charts/tools && CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(abspath $@) $(1)
endef

$(HELM): charts/tools/go.mod
	$(call chart-tool,helm.sh/helm/v4/cmd/helm)

$(UNITTEST): charts/tools/go.mod
	$(call chart-tool,github.com/helm-unittest/helm-unittest/cmd/helm-unittest)

$(HELM_DOCS): charts/tools/go.mod
	$(call chart-tool,github.com/norwoodj/helm-docs/cmd/helm-docs)

$(PROMTOOL): charts/tools/go.mod
	$(call chart-tool,github.com/prometheus/prometheus/cmd/promtool)

.PHONY: chart-docs
chart-docs: $(HELM_DOCS) ## write the chart's README.md anew from its values
	$(HELM_DOCS) --chart-search-root $(CHART) --sort-values-order file --log-level warning

.PHONY: chart-test
chart-test: chart-tools ## helm lint and unit tests, golden renders, Kubernetes' types, the code's rights and options, alerts, the README
	@for values in $(CHART)/ci/*-values.yaml; do $(HELM) lint --strict --quiet $(CHART) --values $$values || exit 1; done
	$(UNITTEST) --strict $(CHART)
	$(PROMTOOL) check rules --lint=all --lint-fatal $(CHART)/files/alerts.yaml
	$(PROMTOOL) test rules $(CHART)/tests/promtool/*.yaml
	CHARTS_REQUIRED=1 go test -count=1 ./charts
	@cd $(CHART) && $(abspath $(HELM_DOCS)) --dry-run --sort-values-order file --log-level error | diff -u README.md - \
	  || { echo "make chart-test: README.md is not made of values.yaml as it is: make chart-docs"; exit 1; }

.PHONY: chart-mutants
chart-mutants: chart-tools ## see each alert's cases fail where the alert is changed (minutes)
	CHARTS_REQUIRED=1 go test -count=1 ./charts -run CasesFail -mutate

IMAGES ?= localhost/eks-tenant-logs
ACTIONLINT := $(TOOLS)/actionlint
CYCLONEDX := $(TOOLS)/cyclonedx-gomod
CRANE := $(TOOLS)/crane

.PHONY: image
image: ## build both images for GOARCH with docker or buildah (IMAGES=, VERSION=, FLUENT_BIT_IMAGE=…)
	@VERSION='$(VERSION)' GOARCH=$(GOARCH) IMAGES='$(IMAGES)' ./release/image

.PHONY: image-test
image-test: ## build both images twice on stand-ins for their bases and read them; needs root, buildah, debootstrap, a Fluent Bit (IMAGE_E2E=1: then make e2e in it)
	@./release/image-test "$${XDG_CACHE_HOME:-$$HOME/.cache}/eks-tenant-logs/image-test"

.PHONY: image-pins
image-pins: ## fail unless everything the images stand on is given with its digest; a release needs it
	@./release/pins

.PHONY: image-pin
image-pin: $(CRANE) ## write the digests of the bases' tags into the Dockerfile; asks their registries
	@CRANE=$(abspath $(CRANE)) ./release/pin

.PHONY: release-tools
release-tools: $(ACTIONLINT) $(CRANE) ## build actionlint and crane for the release's tests, where they are missing

define release-tool
	@mkdir -p $(TOOLS)
	@echo "make release-tools: building $(@F) ($$(date +%T))"
	cd release/tools && CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(abspath $@) $(1)
endef

$(ACTIONLINT): release/tools/go.mod
	$(call release-tool,github.com/rhysd/actionlint/cmd/actionlint)

$(CYCLONEDX): release/tools/go.mod
	$(call release-tool,github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod)

$(CRANE): release/tools/go.mod
	$(call release-tool,github.com/google/go-containerregistry/cmd/crane)

.PHONY: release-test
release-test: release-tools $(HELM) workflows-lint ## what the images need and the workflows may, the pins, a push to a registry on loopback
	RELEASE_REQUIRED=1 go test -count=1 ./release

.PHONY: workflows-lint
workflows-lint: $(ACTIONLINT) ## check .github/workflows; release/workflows_test.go has the project's own rules
	$(ACTIONLINT) -color=false -shellcheck= -pyflakes=

.PHONY: release-artifacts
release-artifacts: $(CYCLONEDX) $(HELM) ## binaries, SBOMs, chart and checksums of VERSION in build/release
	@VERSION='$(VERSION)' HELM=$(abspath $(HELM)) CYCLONEDX=$(abspath $(CYCLONEDX)) ./release/artifacts $(BUILD)/release

.PHONY: release-dry-run
release-dry-run: $(CYCLONEDX) $(HELM) workflows-lint ## all of a release that needs no registry: versions agree, built twice with the same bytes
	@HELM=$(abspath $(HELM)) CYCLONEDX=$(abspath $(CYCLONEDX)) TAG='$(TAG)' ./release/dry-run $(BUILD)
