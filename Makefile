# Everything here needs Go alone, except: race needs gcc; e2e installs what it needs from Debian and runs as root.
GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS  := -s -w -X fednode/node.version=$(VERSION)
BUILD    := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'
FUZZTIME ?= 10s
# Of the standard library's signatures and key exchanges, the arithmetic, which touches nothing but its own values and whose
# every access the race detector would check: without that, the signing packages' tests take a quarter of the time.
ARITHMETIC := $(addprefix crypto/internal/fips140/,nistec/... edwards25519/... bigmod mlkem)
RACE       := $(GO) test -race -count=1 $(ARITHMETIC:%=-gcflags=%=-race=false)

.PHONY: build test plain race lint fuzz bench e2e chaos demo reproducible

build: ## the static binary
	$(BUILD) -o fednode .

demo: ## three organisations run a workflow over real documents
	$(GO) run . demo

test:
	$(GO) test ./...

plain: ## without assembly, and another architecture's
	$(GO) test -tags purego ./compute/he/...
	GOARCH=arm64 $(GO) vet ./compute/... .

# Packages that test in synctest's bubbles have one processor: on two, timers that a bubble's goroutines and its root run at the
# same instant share one context of the race detector, which then crashes (go.dev/issue/78156). It finds races by the order of
# events, and not by their happening at once.
race:
	CGO_ENABLED=1 $(RACE) ./compute ./store/... ./flow/agent ./node/service ./ui/...
	CGO_ENABLED=1 $(RACE) -cpu 1 ./transport/... ./flow ./node ./test/fed

lint:
	test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./... && $(GO) vet -tags chaos,e2e ./test/...
	cd packaging/lint && GOFLAGS=-buildvcs=false $(GO) build -o "$(CURDIR)/dist/staticcheck" honnef.co/go/tools/cmd/staticcheck
	./dist/staticcheck ./...

fuzz: ## every fuzz target for FUZZTIME
	packaging/fuzz $(FUZZTIME)

bench: ## figures of packaging/doc/BENCHMARKS.md, then those of the peers, which bring dependencies of their own
	$(GO) test -run '^$$' -bench . -benchmem ./...
	cd packaging/bench && $(GO) test -mod=mod -run '^$$' -bench . -benchmem .

e2e: build ## root-only suites: worker confinement, disk full, read-only disk, real processes
	packaging/e2e

chaos: ## long random runs: crashes, partitions, lies
	$(GO) test -count=1 -timeout 60m -tags chaos -run Chaos ./test/...

reproducible: ## two builds in different folders give the same bytes
	packaging/reproducible
