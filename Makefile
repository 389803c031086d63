# SPDX-License-Identifier: Apache-2.0
# One command for everything; Meson and Ninja do the work. Binaries: build/kvasir, build/kvasird.
# `make help` lists the commands.

BUILD     ?= build
ASAN      := $(BUILD)/asan
FUZZ      := $(BUILD)/fuzz
PLANT     := $(BUILD)/plant
MESON     ?= meson
PREFIX    ?= /usr/local
ASAN_OPTS := -Db_sanitize=address,undefined -Db_lundef=false

.DEFAULT_GOAL := build
.PHONY: help deps build asan quickstart check test sim bench fuzz soak lint format install docs clean

help:            ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1 	/p' Makefile

deps:            ## installs the Debian packages that are missing (says which; nothing when none is)
	@tools/deps

$(BUILD)/build.ninja: | deps
	$(MESON) setup $(BUILD) --prefix $(PREFIX)

$(ASAN)/build.ninja: | deps
	$(MESON) setup $(ASAN) $(ASAN_OPTS)

$(FUZZ)/build.ninja: | deps
	CC=clang-14 $(MESON) setup $(FUZZ) -Dfuzz=true $(ASAN_OPTS)

build: $(BUILD)/build.ninja  ## build/kvasir and build/kvasird, optimised, with debug information
	@ninja -C $(BUILD)

asan: $(ASAN)/build.ninja    ## the same with AddressSanitizer and UBSan, in build/asan
	@ninja -C $(ASAN)

quickstart: build            ## a daemon, real files in and out, compared; stops cleanly
	@tools/quickstart

check: build                 ## unit tests and include order, under a minute
	@tools/include-order
	@tools/test --build $(BUILD) --asan $(BUILD) unit

test: deps                   ## everything; T=unit|conformance|nvmf|sim|fuzz|guest|system|... or a test's name
	@tools/test --make --build $(BUILD) --asan $(ASAN) $(T)

sim: build                   ## the simulator; SEED=N replays one seed, SEEDS=N runs so many
	@tools/test --build $(BUILD) --asan $(ASAN) $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) sim

bench: build                 ## one table of rates and their ratios to an echo; T=part
	@bench/run $(T)

fuzz: $(FUZZ)/build.ninja    ## fuzz targets; T=target, SECONDS=n each (60)
	@ninja -C $(FUZZ)
	@fuzz/run $(or $(SECONDS),60) $(T)

soak: build                  ## the simulator on new seeds for MINUTES (60), 10,000 queries, and IMAGES (1000000) crashes
	@tools/test --build $(BUILD) --minutes $(or $(MINUTES),60) --images $(or $(IMAGES),1000000) soak

lint: build                  ## format, include order, licence lines, READMEs, man pages, clang with -Werror
	@tools/lint

format:                      ## what lint asks of the format of .c files
	@git ls-files -- '*.c' | xargs clang-format-14 -i

install: build               ## into PREFIX (/usr/local), DESTDIR is honoured
	$(MESON) install -C $(BUILD)

docs: build                  ## man pages and headers in docs/, checked
	@tools/lint man readme

clean:           ## removes build/
	rm -rf $(BUILD)
