# fsmigrate: see README.md. Everything here may be run again and again, and
# cleans up after itself, also when it is interrupted.

PREFIX  ?= /usr/local
DESTDIR ?=
SBINDIR  = $(PREFIX)/sbin
UNITDIR ?= /lib/systemd/system
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

export GO

.PHONY: build install demo test test-long bench lint fuzz deps clean

build:
	$(GO) build -trimpath -o bin/fsmigrate ./cmd/fsmigrate
	ln -sf fsmigrate bin/mount.fsmigrate

# mount(8) looks for its helpers in /sbin and nowhere else.
install: build
	install -D -m 0755 bin/fsmigrate $(DESTDIR)$(SBINDIR)/fsmigrate
	install -d -m 0755 $(DESTDIR)/sbin
	ln -sf $(SBINDIR)/fsmigrate $(DESTDIR)/sbin/mount.fsmigrate
	@scripts/install-units.sh packaging "$(DESTDIR)$(UNITDIR)" "$(SBINDIR)"

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

# BENCH='-only small,pause -files 1000000 -runs 5' chooses; bin/fsbench -h says what there is.
bench: deps build
	$(GO) build -trimpath -o bin/fsbench ./bench/cmd/fsbench
	scripts/inlab.sh bin/fsbench -fsmigrate $(CURDIR)/bin/fsmigrate -out bench/out $(BENCH)

lint:
	scripts/lint.sh

# Every fuzz target for a short while: FUZZ_SECONDS in total, at most 10 each.
fuzz:
	scripts/inlab.sh scripts/fuzz.sh

clean:
	rm -rf bin
