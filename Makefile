# fsmigrate: see README.md. Everything here may be run again and again, and
# cleans up after itself, also when it is interrupted.

PREFIX  ?= /usr/local
DESTDIR ?=
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

export GO

.PHONY: build install uninstall demo test test-long mutants bench fsbench lint fuzz deps clean

build:
	$(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/fsmigrate ./cmd/fsmigrate
	ln -sf fsmigrate bin/mount.fsmigrate

# The one way, also of packages: see packaging/install. PREFIX=/usr where /usr/local is a volume of its own.
install: build
	PREFIX="$(PREFIX)" packaging/install bin/fsmigrate "$(DESTDIR)"

uninstall:
	PREFIX="$(PREFIX)" packaging/uninstall "$(DESTDIR)"

deps:
	scripts/deps.sh

demo: deps build
	scripts/inlab.sh bin/fsmigrate demo

# The whole suite but what takes hours: unit tests (with the race detector where
# there is concurrency), real volumes, kills.
test: deps
	scripts/inlab.sh scripts/test.sh

test-long: deps
	FSMIGRATE_LONG=1 scripts/inlab.sh scripts/test.sh

# Would the tests miss what keeps the invariants? Asks for each call and each fault that is not known
# to be caught; MUTANTS='-again' asks for all (an hour), '-only REGEXP' for some. Writes docs/testing.md.
mutants: deps
	$(GO) build -o bin/mutants ./scripts/mutants
	scripts/inlab.sh bin/mutants $(MUTANTS) run

# What an application feels, beside the peers: docs/bench and the README's table. Fifteen
# minutes at most; BENCH='--runs 3 --budget 2h' chooses, fsmigrate bench --help says what
# there is. With PEERS=1 what is compared with is installed first.
bench: deps build
	$(if $(PEERS),scripts/deps.sh peers)
	scripts/inlab.sh bin/fsmigrate bench --out docs/bench --scale --budget 14m --before 3s --after 3s $(BENCH)
	$(GO) test ./bench/page -count=1 -run TestReadmeTable -update

# The copy alone, beside rsync, cp and tar.
# FSBENCH='-only small,pause -files 1000000 -runs 5' chooses; bin/fsbench -h says what there is.
fsbench: deps build
	$(GO) build -trimpath -o bin/fsbench ./bench/cmd/fsbench
	scripts/inlab.sh bin/fsbench -fsmigrate $(CURDIR)/bin/fsmigrate -out bench/out $(FSBENCH)

lint:
	scripts/lint.sh

# Every fuzz target for a short while: FUZZ_SECONDS in total, at most 10 each.
fuzz:
	scripts/inlab.sh scripts/fuzz.sh

clean:
	rm -rf bin
