# SPDX-License-Identifier: MIT
#
# CrabCache: one Makefile for everything.  `make help` lists the targets.
#
# Sources are found by wildcards; every object of a build goes below build/$(MODE)/, so that the flags of
# two modes never mix.  Changing CC, CFLAGS or any other flag rebuilds what they touch.

MODE    ?= release
WERROR  ?= 0
PREFIX  ?= /usr/local
DESTDIR ?=

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.SECONDARY:
.SUFFIXES:
MAKEFLAGS   += --no-builtin-rules

PYTHON := /usr/bin/python3
B      ?= build/$(MODE)

ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := g++
endif
ifeq ($(MODE),fuzz)
CC  := clang
CXX := clang++
endif

version_of    = $(shell sed -n 's/^\#define CRAB_VERSION_$(1) \([0-9]*\).*/\1/p' include/crabcache/version.h)
VERSION_MAJOR := $(call version_of,MAJOR)
VERSION       := $(VERSION_MAJOR).$(call version_of,MINOR).$(call version_of,PATCH)

# ---- flags ------------------------------------------------------------------------------------------

MODE_FLAGS_release := -O2 -g -fstack-protector-strong
MODE_FLAGS_debug   := -O0 -g3 -fno-omit-frame-pointer
MODE_FLAGS_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
MODE_FLAGS_tsan    := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
MODE_FLAGS_fuzz    := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
                      -fno-sanitize-recover=all -DCRAB_FUZZING=1
MODE_FLAGS_yield   := -O1 -g -DCRAB_YIELD=1
MODE_FLAGS := $(MODE_FLAGS_$(MODE))
ifeq ($(MODE_FLAGS),)
$(error MODE=$(MODE) is unknown: use release, debug, asan, tsan, yield or fuzz)
endif
# Every file of the store yields at random then, at each atomic access.
STORE_FLAGS_yield := -include tests/support/yields.h
SANITIZE := $(filter -fsanitize=%,$(MODE_FLAGS))

WARN   := -Wall -Wextra -Wconversion -Wshadow -Wvla -Wformat=2 -Wundef -Wpointer-arith -Wwrite-strings
WARN_C := $(WARN) -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Werror=switch
ifeq ($(WERROR),1)
WARN   += -Werror
WARN_C += -Werror
endif

CPPFLAGS_ALL := -Iinclude -I. -D_GNU_SOURCE $(CPPFLAGS)
COMMON_FLAGS := $(MODE_FLAGS) -fPIC -fvisibility=hidden -pthread
CFLAGS_ALL   := -std=gnu11 $(COMMON_FLAGS) $(WARN_C) $(CFLAGS)
CXXFLAGS_ALL := -std=c++17 $(COMMON_FLAGS) $(WARN) $(CXXFLAGS)
LDFLAGS_ALL  := $(SANITIZE) -pthread -Wl,-z,relro,-z,now -Wl,--as-needed $(LDFLAGS)
ifeq ($(SANITIZE),)
NO_UNDEFINED := -Wl,--no-undefined
endif
# gcc's shared libubsan ignores log_path when it stands beside libasan, and the test runner looks there for reports.
ifeq ($(MODE)-$(findstring clang,$(CC)),asan-)
EXE_FLAGS := -static-libubsan
endif

# ---- sources and what is made of them -----------------------------------------------------------------

SERVER_SRC  := $(wildcard server/*.c server/store/*.c)
LIB_SRC     := $(wildcard client/*.c)
CLI_SRC     := $(wildcard client/cli/*.c)
LOAD_SRC    := $(wildcard client/load/*.c)
REPLAY_SRC  := $(wildcard client/replay/*.c)
BENCH_SRC   := $(wildcard client/bench/*.c)
UNIT_SRC    := $(wildcard tests/unit/test_*.c)
UNIT_CXX    := $(wildcard tests/unit/test_*.cc)
SUPPORT_SRC := $(wildcard tests/support/*.c)
MEASURE_SRC := $(wildcard tests/bench/*.c)
SIM_SRC     := $(wildcard tests/bench/sim/*.c)
STORE_BENCH := $(wildcard tests/bench/store/*.c)
CLIENT_BENCH := $(wildcard tests/bench/client/*.c)
HITS_SRC    := $(wildcard tests/bench/hit_ratio/*.c)
FUZZ_SRC    := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_MAIN   := $(wildcard tests/fuzz/standalone.c)
FUZZ_HELP   := $(filter-out $(FUZZ_SRC) $(FUZZ_MAIN),$(wildcard tests/fuzz/*.c))
ALL_C       := $(SERVER_SRC) $(LIB_SRC) $(CLI_SRC) $(LOAD_SRC) $(REPLAY_SRC) $(BENCH_SRC) $(UNIT_SRC) \
               $(SUPPORT_SRC) $(MEASURE_SRC) $(SIM_SRC) $(STORE_BENCH) $(HITS_SRC) $(CLIENT_BENCH) \
               $(FUZZ_SRC) $(FUZZ_MAIN) $(FUZZ_HELP)

obj       = $(addprefix $(B)/obj/,$(addsuffix .o,$(1)))
MAINS    := $(wildcard server/main.c client/cli/main.c client/replay/main.c client/bench/main.c)
not_main  = $(filter-out $(MAINS),$(1))
program   = $(if $(filter $(1)/main.c,$(MAINS)),$(B)/$(2))

SONAME   := libcrabcache.so.$(VERSION_MAJOR)
LIB_A    := $(if $(LIB_SRC),$(B)/libcrabcache.a)
LIB_SO   := $(if $(LIB_SRC),$(B)/libcrabcache.so.$(VERSION))
SERVER   := $(call program,server,crabcache-server)
CLI      := $(call program,client/cli,crabcache-cli)
REPLAY   := $(call program,client/replay,crabcache-replay)
BENCH    := $(call program,client/bench,crabcache-bench)
PROGRAMS := $(SERVER) $(CLI) $(REPLAY) $(BENCH)
SIM      := $(B)/crabcache-sim
HITS     := $(B)/hit-ratio-replay $(B)/fast_clock.so
LIBS     := $(LIB_A) $(if $(LIB_SO),$(B)/$(SONAME) $(B)/libcrabcache.so)

# What tests link: everything but the mains, as archives, so that a test pulls in only what it names.
PART_LIBS := $(if $(SUPPORT_SRC),$(B)/parts/support.a) $(if $(call not_main,$(SERVER_SRC)),$(B)/parts/server.a) \
             $(if $(call not_main,$(CLI_SRC)),$(B)/parts/cli.a) \
             $(if $(call not_main,$(REPLAY_SRC)),$(B)/parts/replay.a) \
             $(if $(call not_main,$(BENCH_SRC)),$(B)/parts/bench.a) $(if $(LOAD_SRC),$(B)/parts/load.a) \
             $(if $(LIB_SRC),$(B)/parts/client.a)
PART_LINK  = -Wl,--start-group $(filter %.a,$^) -Wl,--end-group

UNIT_BINS  := $(patsubst %.c,$(B)/%,$(UNIT_SRC)) $(patsubst %.cc,$(B)/%,$(UNIT_CXX))
MEASURE_BINS := $(patsubst %.c,$(B)/%,$(MEASURE_SRC)) $(B)/tests/bench/bench_store $(B)/tests/bench/bench_client
FUZZ_NAMES := $(patsubst tests/fuzz/fuzz_%.c,%,$(FUZZ_SRC))
FUZZ_BINS  := $(addprefix $(B)/tests/fuzz/fuzz_,$(FUZZ_NAMES))
# The same targets without libFuzzer: they run the files named on their command line, in any mode.
FUZZ_ONCE  := $(if $(FUZZ_MAIN),$(addprefix $(B)/tests/fuzz/once_,$(FUZZ_NAMES)))

SERVER_LIBS := -lcrypt -linih -lsystemd -ldl
CLI_LIBS    := -ledit
REPLAY_LIBS := -llzma -lm
BENCH_LIBS  := -lm
TEST_LIBS   := -lcmocka -lmemcached $(SERVER_LIBS) $(CLI_LIBS) $(REPLAY_LIBS) -ldl

# ---- targets --------------------------------------------------------------------------------------------

.PHONY: all
all: $(PROGRAMS) $(LIBS) ## Build the server, the tools and the library (MODE=release|debug|asan|tsan|yield|fuzz)

.PHONY: help
help: ## Say what can be made
	@echo "make [target] [MODE=release|debug|asan|tsan|yield|fuzz] [WERROR=1] [CC=gcc|clang]"; echo
	@sed -n 's/^\([a-zA-Z_%-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r target text; do \
	    printf '  %-14s %s\n' "$$target" "$$text"; done

# ---- stamps: a change of flags or of the list of sources rebuilds what depends on it ------------------------

FLAGS_NOW   := $(CC) $(shell $(CC) -dumpfullversion 2>/dev/null) | $(CPPFLAGS_ALL) | $(CFLAGS_ALL) | $(CXX) \
               $(CXXFLAGS_ALL) | $(LDFLAGS_ALL)
SOURCES_NOW := $(sort $(ALL_C) $(UNIT_CXX))

.PHONY: FORCE
FORCE:

define stamp
@mkdir -p $(@D); printf '%s\n' '$(1)' | cmp -s - $@ || printf '%s\n' '$(1)' >$@
endef
$(B)/.flags: FORCE
	$(call stamp,$(FLAGS_NOW))
$(B)/.sources: FORCE
	$(call stamp,$(SOURCES_NOW))

# ---- compile ------------------------------------------------------------------------------------------------

$(B)/obj/server/store/%.c.o: CPPFLAGS_ALL += $(STORE_FLAGS_$(MODE))
$(B)/obj/%.c.o: %.c $(B)/.flags
	@mkdir -p $(@D)
	@echo "  CC    $<  [$(MODE)]"
	@$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

$(B)/obj/%.cc.o: %.cc $(B)/.flags
	@mkdir -p $(@D)
	@echo "  CXX   $<  [$(MODE)]"
	@$(CXX) $(CPPFLAGS_ALL) $(CXXFLAGS_ALL) -MMD -MP -c -o $@ $<

define archive
@mkdir -p $(@D); rm -f $@; $(AR) rcs $@ $(filter %.o,$^)
endef
$(B)/parts/client.a: $(call obj,$(LIB_SRC)) $(B)/.sources
	$(archive)
$(B)/parts/server.a: $(call obj,$(call not_main,$(SERVER_SRC))) $(B)/.sources
	$(archive)
$(B)/parts/cli.a: $(call obj,$(call not_main,$(CLI_SRC))) $(B)/.sources
	$(archive)
$(B)/parts/replay.a: $(call obj,$(call not_main,$(REPLAY_SRC))) $(B)/.sources
	$(archive)
$(B)/parts/bench.a: $(call obj,$(call not_main,$(BENCH_SRC))) $(B)/.sources
	$(archive)
$(B)/parts/load.a: $(call obj,$(LOAD_SRC)) $(B)/.sources
	$(archive)
$(B)/parts/support.a: $(call obj,$(SUPPORT_SRC)) $(B)/.sources
	$(archive)

# The installed archive is one object whose only global names are those of the public functions, as in the shared
# library: what the modules call among themselves cannot collide with a name of the user's program.
$(B)/libcrabcache.a: $(call obj,$(LIB_SRC)) $(B)/.sources
	@$(LD) -r -o $(B)/libcrabcache.o $(filter %.o,$^)
	@objcopy --localize-hidden $(B)/libcrabcache.o
	@rm -f $@; $(AR) rcs $@ $(B)/libcrabcache.o; rm -f $(B)/libcrabcache.o

# ---- link -----------------------------------------------------------------------------------------------------

$(B)/libcrabcache.so.$(VERSION): $(call obj,$(LIB_SRC)) $(B)/.sources
	@echo "  LINK  $@"
	@$(CC) -shared $(LDFLAGS_ALL) $(NO_UNDEFINED) -Wl,-z,nodelete -Wl,-soname,$(SONAME) -o $@ $(filter %.o,$^)
$(B)/$(SONAME) $(B)/libcrabcache.so: $(B)/libcrabcache.so.$(VERSION)
	@ln -sf $(<F) $@

$(B)/crabcache-server: $(call obj,$(SERVER_SRC)) $(B)/.sources
	@echo "  LINK  $@"
	@$(CC) $(LDFLAGS_ALL) $(EXE_FLAGS) -o $@ $(filter %.o,$^) $(SERVER_LIBS)
$(B)/crabcache-cli: $(call obj,$(CLI_SRC) $(LIB_SRC)) $(B)/.sources
	@echo "  LINK  $@"
	@$(CC) $(LDFLAGS_ALL) $(EXE_FLAGS) -o $@ $(filter %.o,$^) $(CLI_LIBS)
$(B)/crabcache-replay: $(call obj,$(REPLAY_SRC) $(LOAD_SRC) $(LIB_SRC)) $(B)/.sources
	@echo "  LINK  $@"
	@$(CC) $(LDFLAGS_ALL) $(EXE_FLAGS) -o $@ $(filter %.o,$^) $(REPLAY_LIBS)
$(B)/crabcache-bench: $(call obj,$(BENCH_SRC) $(LOAD_SRC)) $(B)/.sources
	@echo "  LINK  $@"
	@$(CC) $(LDFLAGS_ALL) $(EXE_FLAGS) -o $@ $(filter %.o,$^) $(BENCH_LIBS)

$(SIM): $(call obj,$(SIM_SRC)) $(PART_LIBS)
	@echo "  LINK  $@"
	@$(CC) $(LDFLAGS_ALL) $(EXE_FLAGS) -o $@ $(filter %.o,$^) $(PART_LINK) $(SERVER_LIBS) $(REPLAY_LIBS)

$(B)/hit-ratio-replay: $(call obj,$(filter-out %/fast_clock.c,$(HITS_SRC))) $(PART_LIBS)
	@echo "  LINK  $@"
	@$(CC) $(LDFLAGS_ALL) $(EXE_FLAGS) -o $@ $(filter %.o,$^) $(PART_LINK) $(REPLAY_LIBS)
$(B)/fast_clock.so: $(call obj,tests/bench/hit_ratio/fast_clock.c)
	@$(CC) -shared $(LDFLAGS_ALL) $(NO_UNDEFINED) -o $@ $<

$(B)/tests/unit/%: $(B)/obj/tests/unit/%.c.o $(PART_LIBS)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) $(LDFLAGS_ALL) $(EXE_FLAGS) -o $@ $< $(PART_LINK) $(TEST_LIBS)
$(B)/tests/unit/%: $(B)/obj/tests/unit/%.cc.o $(PART_LIBS)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CXX) $(LDFLAGS_ALL) $(EXE_FLAGS) -o $@ $< $(PART_LINK) $(TEST_LIBS)
$(B)/tests/bench/%: $(B)/obj/tests/bench/%.c.o $(PART_LIBS)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) $(LDFLAGS_ALL) $(EXE_FLAGS) -o $@ $< $(PART_LINK) $(SERVER_LIBS) $(REPLAY_LIBS)
$(B)/tests/bench/bench_store: $(call obj,$(STORE_BENCH)) $(PART_LIBS)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) $(LDFLAGS_ALL) $(EXE_FLAGS) -o $@ $(filter %.o,$^) $(PART_LINK) $(SERVER_LIBS) $(REPLAY_LIBS)
$(B)/tests/bench/bench_client: $(call obj,$(CLIENT_BENCH)) $(PART_LIBS)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) $(LDFLAGS_ALL) $(EXE_FLAGS) -o $@ $(filter %.o,$^) $(PART_LINK) $(SERVER_LIBS) -lhiredis
$(B)/tests/fuzz/fuzz_%: $(B)/obj/tests/fuzz/fuzz_%.c.o $(call obj,$(FUZZ_HELP)) $(PART_LIBS)
	@test $(MODE) = fuzz || { echo "fuzz_$* needs MODE=fuzz"; exit 1; }
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) $(LDFLAGS_ALL) $(EXE_FLAGS) -fsanitize=fuzzer -o $@ $(filter %.o,$^) $(PART_LINK) $(SERVER_LIBS)
$(B)/tests/fuzz/once_%: $(B)/obj/tests/fuzz/fuzz_%.c.o $(call obj,$(FUZZ_MAIN) $(FUZZ_HELP)) $(PART_LIBS)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CC) $(LDFLAGS_ALL) $(EXE_FLAGS) -o $@ $(filter %.o,$^) $(PART_LINK) $(SERVER_LIBS)

-include $(wildcard $(patsubst %,$(B)/obj/%.d,$(ALL_C) $(UNIT_CXX)))

# ---- run ------------------------------------------------------------------------------------------------------

RUN_ARGS ?= --bind 127.0.0.1 --port 2722 --memory 1G

.PHONY: run
run: deps-run ## Install what is missing, build, and start the server (RUN_ARGS="--port 0 ...")
	@$(MAKE) --no-print-directory all
	@exec $(B)/crabcache-server $(RUN_ARGS)

.PHONY: deps deps-run deps-test
deps: deps-test ## Install by apt whatever building and testing need and is missing
deps-run: ## Only what building and running need
	@tests/support/deps.sh run
deps-test: ## What building, running and testing need
	@tests/support/deps.sh test

# ---- generated files --------------------------------------------------------------------------------------------

.PHONY: gen lock check-gen
lock: ## make gen, and release what is new in the specification: it never changes again
	@$(PYTHON) spec/generate.py --lock
gen: ## Write again everything that is generated from spec/crabcache.toml
	@$(PYTHON) spec/generate.py
check-gen: ## Fail if a generated file is not what the specification gives
	@$(PYTHON) spec/generate.py --check

# ---- tests --------------------------------------------------------------------------------------------------------

.PHONY: test test-asan test-tsan test-yield fuzz-short fuzz-inputs
test: deps-test ## Install what is missing and run everything; the last line gives the totals
	@tests/support/run-tests
test-asan: ## The unit and the system tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@tests/support/run-tests unit-asan system-asan
test-tsan: ## The threaded unit tests and the system tests under ThreadSanitizer
	@tests/support/run-tests unit-tsan system-tsan
test-yield: ## The threaded tests of the store, yielding at random at each of its atomic accesses
	@tests/support/run-tests unit-yield
fuzz-inputs: ## The fuzzers' seeds, corpus and regressions as ordinary tests
	@tests/support/run-tests fuzz-inputs
fuzz-short: ## Each fuzzer for FUZZ_SHORT_SECONDS=15
	@tests/support/run-tests fuzz-short

.PHONY: unit-bins store-bins
unit-bins: $(UNIT_BINS) $(FUZZ_ONCE) $(MEASURE_BINS) $(if $(filter release,$(MODE)),$(HITS))
store-bins: $(filter $(B)/tests/unit/test_store%,$(UNIT_BINS))

.PHONY: test-unit
test-unit: $(UNIT_BINS) ## The unit tests, in MODE
	@failed=0; for t in $(sort $(UNIT_BINS)); do $$t || failed=1; done; exit $$failed
test-%: $(B)/tests/unit/test_% ## One unit test, in MODE: make test-NAME runs tests/unit/test_NAME.c
	@$<

.PHONY: test-system
test-system: all $(B)/tests/bench/null_server ## The system tests, with the programs of MODE (PYTEST_ARGS="-k name")
	@[ $(MODE) = release ] || $(MAKE) --no-print-directory MODE=release all
	@CRABCACHE_BUILD=$(B) $(PYTHON) -m pytest -c tests/pytest.ini --rootdir tests -q $(PYTEST_ARGS) tests/system

VERIFIED_READS ?= 1000000000

.PHONY: soak-store planted-bugs
soak-store: ## VERIFIED_READS=1000000000 verified reads of the store amid everything else, with forced yields (an hour)
	@$(MAKE) --no-print-directory MODE=yield build/yield/tests/unit/test_store_soak
	@CRAB_VERIFIED_READS=$(VERIFIED_READS) CRAB_YIELD_EVERY=$${CRAB_YIELD_EVERY:-512} build/yield/tests/unit/test_store_soak
planted-bugs: ## Plant known kinds of bugs into the store, one by one: the tests must catch each (a quarter of an hour)
	@tests/support/planted-bugs

RUNS ?= 1000000

.PHONY: chaos-client
chaos-client: $(B)/tests/unit/test_client_chaos ## RUNS=1000000 pipelines of the client against harmed replies, in MODE (CRAB_CHAOS_SEED=1)
	@CRAB_CHAOS_RUNS=$(RUNS) $<

SOAK_SECONDS ?= 600

.PHONY: soak
soak: all ## A server under load while clients misbehave, for SOAK_SECONDS=600: memory and descriptors must not grow
	@CRABCACHE_BUILD=$(B) tests/support/soak.py $(SOAK_SECONDS)

FUZZ_SECONDS ?= 900

.PHONY: fuzz-bins fuzz
fuzz-bins: $(FUZZ_BINS)
fuzz: $(addprefix fuzz-,$(FUZZ_NAMES)) ## Each fuzzer for FUZZ_SECONDS=900 (make -j2 fuzz; fuzz-NAME for one)
$(addprefix fuzz-,$(FUZZ_NAMES)): fuzz-%:
	@$(MAKE) --no-print-directory MODE=fuzz build/fuzz/tests/fuzz/fuzz_$*
	@tests/support/fuzz.sh $* $(FUZZ_SECONDS)

# ---- measurements ---------------------------------------------------------------------------------------------------

TRACES ?=

.PHONY: bench bench-client bench-codec bench-hits bench-store sim
bench: ## CrabCache beside Redis, memcached and a server that does nothing, and hit ratios; half an hour (BENCH_QUICK=1: 2 minutes)
	@tests/support/deps.sh bench
	@$(MAKE) --no-print-directory all $(B)/tests/bench/null_server
	@tests/bench/peers/run_peers.py --build $(B) --out build/bench $(if $(filter 1,$(BENCH_QUICK)),--quick) $(PEERS_ARGS)
ifneq ($(BENCH_QUICK),1)
	@$(MAKE) --no-print-directory bench-hits
	@{ printf '\n### Hit ratio in the same memory\n\n'; cat $(B)/hits.md; } >>build/bench/report.md
endif
bench-client: all $(B)/tests/bench/bench_client ## What the client library costs beside hiredis and bare sockets (CLIENT_ARGS=...)
	@tests/support/deps.sh bench
	@tests/bench/client/run_client.py --build $(B) $(CLIENT_ARGS)
bench-codec: $(B)/tests/bench/bench_codec ## What the C codec costs: ns per message, decoded and encoded
	@$<
bench-store: $(B)/tests/bench/bench_store ## What the store costs: speed, memory, stalls; some minutes (BENCH_ARGS="--quick speed")
	@$< $(BENCH_ARGS)
bench-hits: ## Misses of CrabCache, Redis and memcached in the same memory, on real servers (TRACES=FOLDER HITS_ARGS="--sizes 20")
	@tests/support/deps.sh bench
	@$(MAKE) --no-print-directory all $(HITS)
	@tests/bench/hit_ratio/run_hits.py --build $(B) --traces "$(TRACES)" --json $(B)/hits.json --markdown $(B)/hits.md $(HITS_ARGS)
sim: $(SIM) ## Build crabcache-sim, the simulator of eviction policies (tests/bench/sim/run-gate runs the whole table)

# ---- lint and warnings ----------------------------------------------------------------------------------------------

PUBLIC_HEADERS := $(wildcard include/crabcache/*.h include/crabcache/adapters/*.h)
HEADERS := $(PUBLIC_HEADERS) $(wildcard server/*.h server/store/*.h client/*.h client/*/*.h)
TIDY    := $(patsubst %,build/lint/%.tidy,$(SERVER_SRC) $(LIB_SRC) $(CLI_SRC) $(LOAD_SRC) $(REPLAY_SRC) $(BENCH_SRC) $(FUZZ_SRC))
PY_SRC  := $(wildcard spec/*.py spec/*/*.py python/*/*.py python/*/*/*.py tests/*/*.py tests/bench/*/*.py) tests/support/run-tests \
           tests/support/planted-bugs
SH_SRC  := $(wildcard tests/support/*.sh) .ci/run

.PHONY: lint lint-quick
lint: lint-quick $(TIDY) ## clang-tidy, include direction, style, shellcheck, pyflakes
lint-quick: ## The same without clang-tidy: a second
	@$(PYTHON) tests/support/check-includes.py
	@$(PYTHON) tests/support/check-style.py
	@shellcheck $(SH_SRC)
	@$(PYTHON) -m pyflakes $(PY_SRC)
build/lint/%.tidy: % $(HEADERS) .clang-tidy
	@mkdir -p $(@D)
	@echo "  TIDY  $<"
	@clang-tidy --quiet $< -- -std=gnu11 $(CPPFLAGS_ALL) -pthread >$@.out 2>&1 || { cat $@.out; exit 1; }
	@mv $@.out $@

# Every object with both compilers; every header by itself, the public ones also as strict C11 and as C++.
ALONE = printf '\#include "%s"\nextern int alone;\n' $$header
.PHONY: objects warnings headers-alone
objects: $(call obj,$(ALL_C) $(UNIT_CXX))
warnings: headers-alone ## Compile everything with gcc and with clang, warnings being errors
	@$(MAKE) --no-print-directory MODE=release WERROR=1 B=build/warnings/gcc CC=gcc CXX=g++ objects
	@$(MAKE) --no-print-directory MODE=release WERROR=1 B=build/warnings/clang CC=clang CXX=clang++ objects
headers-alone:
	@for header in $(HEADERS); do for compiler in gcc clang; do \
	    $(ALONE) | $$compiler -std=gnu11 $(CPPFLAGS_ALL) $(WARN_C) -Werror -fsyntax-only -x c -; \
	done; done
	@for header in $(PUBLIC_HEADERS:include/%=%); do for compiler in gcc clang; do \
	    case $$header in */adapters/*) posix=-D_GNU_SOURCE;; *) posix=;; esac; \
	    $(ALONE) | $$compiler -std=c11 -pedantic $$posix -Iinclude $(WARN_C) -Werror -fsyntax-only -x c -; \
	    $(ALONE) | $$compiler -std=c++11 -pedantic -Iinclude $(WARN) -Werror -fsyntax-only -x c++ -; \
	done; done

# ---- documents ------------------------------------------------------------------------------------------------------

.PHONY: docs
docs: ## The guide and the reference of the headers, by Doxygen, in build/docs; its warnings are errors
	@mkdir -p build/docs
	@CRABCACHE_VERSION=$(VERSION) doxygen docs/Doxyfile
	@CRABCACHE_VERSION=$(VERSION) doxygen docs/Doxyfile.internal
	@echo "build/docs/api/index.html build/docs/internal/index.html"

# ---- binary interface -----------------------------------------------------------------------------------------------

ABI := packaging/libcrabcache.abi

.PHONY: abi check-abi
abi: $(LIB_SO) ## Record the library's binary interface in packaging/libcrabcache.abi
	@abidw --no-corpus-path --no-comp-dir-path --no-show-locs --no-elf-needed --drop-private-types \
	    --exported-interfaces-only --type-id-style hash --no-parameter-names --headers-dir include/crabcache \
	    --out-file $(ABI) $<
check-abi: $(LIB_SO) ## Fail if the binary interface is not the recorded one: removed or changed for those who were linked before
	@abidiff --headers-dir2 include/crabcache --drop-private-types --no-added-syms $(ABI) $<

# ---- install --------------------------------------------------------------------------------------------------------

BINDIR     ?= $(PREFIX)/bin
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR     ?= $(PREFIX)/share/man
SYSCONFDIR ?= $(PREFIX)/etc
UNITDIR    ?= $(PREFIX)/lib/systemd/system
USERSDIR   ?= $(PREFIX)/lib/sysusers.d
MAN1       := $(wildcard docs/*.1)
MAN3       := $(wildcard docs/*.3)
# The functions that a page of section 3 shows: each gets a page that refers to it, so that `man crab_conn_get` finds it.
MAN3_SHOWN := sed -n 's/^\.BI\? "[^(]*\b\(crab_[a-z_]*\)(.*/\1/p'
CMAKEDIR    = $(LIBDIR)/cmake/crabcache
CONFIG_FILE = $(SYSCONFDIR)/crabcache/crabcache.conf

.PHONY: install uninstall
install: all ## Programs, library, headers, man pages, systemd units, below DESTDIR and PREFIX=/usr/local
	install -d "$(DESTDIR)$(BINDIR)" "$(DESTDIR)$(LIBDIR)/pkgconfig" "$(DESTDIR)$(INCLUDEDIR)/crabcache"
	install -m 755 $(PROGRAMS) "$(DESTDIR)$(BINDIR)"
	install -m 644 $(LIB_A) "$(DESTDIR)$(LIBDIR)"
	install -m 755 $(LIB_SO) "$(DESTDIR)$(LIBDIR)"
	ln -sf libcrabcache.so.$(VERSION) "$(DESTDIR)$(LIBDIR)/$(SONAME)"
	ln -sf $(SONAME) "$(DESTDIR)$(LIBDIR)/libcrabcache.so"
	install -m 644 include/crabcache/*.h "$(DESTDIR)$(INCLUDEDIR)/crabcache"
	install -d "$(DESTDIR)$(INCLUDEDIR)/crabcache/adapters"
	install -m 644 include/crabcache/adapters/*.h "$(DESTDIR)$(INCLUDEDIR)/crabcache/adapters"
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
	    -e 's|@VERSION@|$(VERSION)|' client/crabcache.pc.in >"$(DESTDIR)$(LIBDIR)/pkgconfig/crabcache.pc"
	install -d "$(DESTDIR)$(CMAKEDIR)"
	for name in crabcache-config crabcache-config-version; do \
	    sed -e 's|@VERSION@|$(VERSION)|' -e 's|@VERSION_MAJOR@|$(VERSION_MAJOR)|' -e 's|@SONAME@|$(SONAME)|' \
	        -e "s|@INCLUDE_FROM_CMAKE@|$$(realpath -sm --relative-to='$(CMAKEDIR)' '$(INCLUDEDIR)')|" \
	        packaging/$$name.cmake.in >"$(DESTDIR)$(CMAKEDIR)/$$name.cmake"; done
	$(foreach n,1 3,$(if $(MAN$n),install -d "$(DESTDIR)$(MANDIR)/man$n" && \
	    install -m 644 $(MAN$n) "$(DESTDIR)$(MANDIR)/man$n";))
	for page in $(notdir $(MAN3)); do for name in $$($(MAN3_SHOWN) "docs/$$page"); do \
	    echo ".so man3/$$page" >"$(DESTDIR)$(MANDIR)/man3/$$name.3"; done; done
	install -d "$(DESTDIR)$(SYSCONFDIR)/crabcache" "$(DESTDIR)$(UNITDIR)" "$(DESTDIR)$(USERSDIR)"
	[ -e "$(DESTDIR)$(CONFIG_FILE)" ] || install -m 644 packaging/crabcache.conf "$(DESTDIR)$(CONFIG_FILE)"
	sed -e 's|@BINDIR@|$(BINDIR)|' -e 's|@SYSCONFDIR@|$(SYSCONFDIR)|' packaging/crabcache-server.service.in \
	    >"$(DESTDIR)$(UNITDIR)/crabcache-server.service"
	install -m 644 packaging/crabcache-server.socket "$(DESTDIR)$(UNITDIR)"
	install -m 644 packaging/crabcache.sysusers "$(DESTDIR)$(USERSDIR)/crabcache.conf"

uninstall: ## Remove what install has put there, but for a configuration that was changed
	rm -f $(foreach p,$(PROGRAMS),"$(DESTDIR)$(BINDIR)/$(notdir $p)")
	rm -f "$(DESTDIR)$(LIBDIR)/libcrabcache.a" "$(DESTDIR)$(LIBDIR)/libcrabcache.so.$(VERSION)" \
	    "$(DESTDIR)$(LIBDIR)/$(SONAME)" "$(DESTDIR)$(LIBDIR)/libcrabcache.so" \
	    "$(DESTDIR)$(LIBDIR)/pkgconfig/crabcache.pc" "$(DESTDIR)$(CMAKEDIR)/crabcache-config.cmake" \
	    "$(DESTDIR)$(CMAKEDIR)/crabcache-config-version.cmake"
	[ ! -d "$(DESTDIR)$(CMAKEDIR)" ] || rmdir --ignore-fail-on-non-empty "$(DESTDIR)$(CMAKEDIR)"
	rm -f $(foreach h,$(PUBLIC_HEADERS),"$(DESTDIR)$(INCLUDEDIR)/$(h:include/%=%)")
	for folder in crabcache/adapters crabcache; do [ ! -d "$(DESTDIR)$(INCLUDEDIR)/$$folder" ] || \
	    rmdir --ignore-fail-on-non-empty "$(DESTDIR)$(INCLUDEDIR)/$$folder"; done
	rm -f $(foreach m,$(MAN1),"$(DESTDIR)$(MANDIR)/man1/$(notdir $m)") \
	    $(foreach m,$(MAN3),"$(DESTDIR)$(MANDIR)/man3/$(notdir $m)")
	for name in $$($(MAN3_SHOWN) $(MAN3)); do rm -f "$(DESTDIR)$(MANDIR)/man3/$$name.3"; done
	rm -f "$(DESTDIR)$(UNITDIR)/crabcache-server.service" "$(DESTDIR)$(UNITDIR)/crabcache-server.socket" \
	    "$(DESTDIR)$(USERSDIR)/crabcache.conf"
	! cmp -s packaging/crabcache.conf "$(DESTDIR)$(CONFIG_FILE)" || rm -f "$(DESTDIR)$(CONFIG_FILE)"
	[ ! -d "$(DESTDIR)$(SYSCONFDIR)/crabcache" ] || \
	    rmdir --ignore-fail-on-non-empty "$(DESTDIR)$(SYSCONFDIR)/crabcache"

# ---- clean up -------------------------------------------------------------------------------------------------------

.PHONY: clean
clean: ## Remove build/
	@rm -rf build
