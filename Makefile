# Makefile - build cowfs: the four programs, the library, the tests
#
#   make                 programs in this folder, everything else in build/
#   make check           unit tests
#   make asan tsan       the same sources and tests, instrumented (build-*/)
#   make DEBUG=1         locks are checked for their order (build-debug/)
#   make fuzz            hostile images, FUZZ_TIME seconds (clang)
#   make install         DESTDIR=, PREFIX=/usr/local
#   make lint            layering, static analysis

CC ?= gcc
PREFIX ?= /usr/local
ifdef NOVERIFY
B ?= build-noverify
TOP ?= build-noverify
else ifdef DEBUG
B ?= build-debug
TOP ?= build-debug
else
B ?= build
TOP ?= .
endif

WARN = -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes \
	-Wmissing-prototypes -Wpointer-arith -Wundef -Wvla
CFLAGS ?= -O2 -g
ALL_CFLAGS = -std=gnu11 $(WARN) -Iinclude -Isrc -D_GNU_SOURCE \
	-D_FILE_OFFSET_BITS=64 -pthread $(CFLAGS)
# src/util/order.h
ifdef DEBUG
ALL_CFLAGS += -DCOWFS_LOCK_CHECK
endif
# To measure what checksums cost (src/README.md); never for data.
ifdef NOVERIFY
ALL_CFLAGS += -DCOWFS_NOVERIFY
endif

PKG_CONFIG ?= pkg-config
# zlib defines the checksum; ISA-L computes the same value faster.
Z_CFLAGS := $(shell $(PKG_CONFIG) --cflags zlib)
Z_LIBS := $(shell $(PKG_CONFIG) --libs zlib)
ifeq ($(shell $(PKG_CONFIG) --exists libisal && echo yes),yes)
Z_CFLAGS += $(shell $(PKG_CONFIG) --cflags libisal) -DHAVE_ISAL
Z_LIBS += $(shell $(PKG_CONFIG) --libs libisal)
endif
FUSE_CFLAGS := $(shell $(PKG_CONFIG) --cflags fuse3)
FUSE_LIBS := $(shell $(PKG_CONFIG) --libs fuse3)
CHECK_CFLAGS := $(shell $(PKG_CONFIG) --cflags check)
CHECK_LIBS := $(shell $(PKG_CONFIG) --libs check)

LIB_DIRS = util block alloc btree txn snapshot fs check
LIB_SRC = $(sort $(wildcard $(LIB_DIRS:%=src/%/*.c)))
LIB_OBJ = $(LIB_SRC:%.c=$B/%.o)
LIB = $B/libcowfs.a
FUSE_OBJ = $(patsubst %.c,$B/%.o,$(sort $(wildcard src/fuse/*.c)))
COWCTL_OBJ = $(patsubst %.c,$B/%.o,$(sort $(wildcard tools/cowctl*.c tools/rescue*.c)))

PROGRAMS = $(TOP)/mkfs.cowfs $(TOP)/cowfs $(TOP)/cowctl $(TOP)/fsck.cowfs
TEST_SUPPORT = $(patsubst %.c,$B/%.o,$(sort $(wildcard tests/support/*.c)))
TESTS = $(patsubst tests/%.c,$B/tests/%,$(sort $(wildcard \
	tests/unit/*.c tests/crash/*.c tests/model/*.c)))
MOUNT_TOOLS = $(patsubst tests/%.c,$B/tests/%,$(sort $(wildcard tests/mount/*.c)))
BENCH_TOOLS = $B/tests/bench/memfs $B/tests/bench/work $B/tests/bench/scale
BENCH_OBJ = $(patsubst %.c,$B/%.o,$(sort $(wildcard tests/bench/*.c)))
FUZZ_OBJ = $(patsubst %.c,$B/%.o,$(sort $(wildcard tests/fuzz/*.c)))

all: $(PROGRAMS)

$B/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(Z_CFLAGS) $(EXTRA_CFLAGS) -MMD -MP -c -o $@ $<

$B/src/fuse/%.o: EXTRA_CFLAGS = $(FUSE_CFLAGS) -DFUSE_USE_VERSION=314
$B/tests/%.o: EXTRA_CFLAGS = $(CHECK_CFLAGS) -I. -Itests
$B/tests/bench/%.o: EXTRA_CFLAGS = $(FUSE_CFLAGS) -DFUSE_USE_VERSION=314

$(LIB): $(LIB_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

$(TOP)/cowfs: $(FUSE_OBJ) $(LIB)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(FUSE_LIBS) $(Z_LIBS)

$(TOP)/mkfs.cowfs: $B/tools/mkfs.o $B/tools/tool.o $(LIB)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(Z_LIBS)

$(TOP)/cowctl: $(COWCTL_OBJ) $B/tools/tool.o $(LIB)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(Z_LIBS)

$(TOP)/fsck.cowfs: $B/tools/fsck.o $B/tools/tool.o $(LIB)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(Z_LIBS)

$(TESTS) $(MOUNT_TOOLS): $B/tests/%: $B/tests/%.o $(TEST_SUPPORT) $(LIB)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) \
		$(CHECK_LIBS) $(Z_LIBS) $(EXTRA_LIBS)

$B/tests/mount/recorder.o: EXTRA_CFLAGS = $(FUSE_CFLAGS) -Itests \
	-DFUSE_USE_VERSION=314
$B/tests/mount/recorder: EXTRA_LIBS = $(FUSE_LIBS)

# What it makes fail.
$B/tests/unit/test_faults: LDFLAGS += -Wl,--wrap=malloc,--wrap=calloc \
	-Wl,--wrap=realloc,--wrap=aligned_alloc \
	-Wl,--wrap=alloc_take,--wrap=alloc_check,--wrap=node_batch_write

# Images that lie are made by what the fuzzer uses.
$B/tests/unit/test_hostile $B/tests/model/model_rot: $(FUZZ_OBJ)

$B/fuzz_image: $B/tests/fuzz/target/fuzz_image.o $(FUZZ_OBJ) $(TEST_SUPPORT) \
		$(LIB)
	$(CC) $(ALL_CFLAGS) -fsanitize=fuzzer $(LDFLAGS) -o $@ $^ \
		$(CHECK_LIBS) $(Z_LIBS)

$B/tests/bench/memfs: $(filter %/memfs.o %/memfs_names.o,$(BENCH_OBJ))
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(FUSE_LIBS)

$B/tests/bench/work: $B/tests/bench/work.o
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^

$B/tests/bench/scale: $B/tests/bench/scale.o $(LIB)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(Z_LIBS)

bench-tools: $(BENCH_TOOLS)

tests: $(TESTS) $(MOUNT_TOOLS)

check: tests
	@fail=0; for t in $(TESTS); do $$t || fail=1; done; exit $$fail

asan:
	$(MAKE) DEBUG=1 B=build-asan TOP=build-asan CFLAGS="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined" $(or $(GOAL),all tests)

tsan:
	$(MAKE) DEBUG=1 B=build-tsan TOP=build-tsan CFLAGS="-O1 -g -fsanitize=thread" $(or $(GOAL),all tests)

# What it finds is left in build-fuzz: add it to tests/fuzz/crashers.c (the bytes
# in hexadecimal), then mend what it broke.
FUZZ_TIME ?= 60
FUZZ_FLAGS ?= -max_len=100 -len_control=0 -timeout=120 -rss_limit_mb=2048 \
	-malloc_limit_mb=256 -print_final_stats=1

fuzz:
	$(MAKE) B=build-fuzz CC=clang CFLAGS="-O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined" build-fuzz/fuzz_image
	@mkdir -p build-fuzz/corpus
	build-fuzz/fuzz_image $(FUZZ_FLAGS) -artifact_prefix=build-fuzz/ \
		-max_total_time=$(FUZZ_TIME) build-fuzz/corpus

# Programs users call go to bin, those that mount(8) and fsck(8) call to sbin,
# under the names that these look for, too. (mount(8) has helpers in /sbin only:
# mount.cowfs is found with PREFIX=/usr, or /.)
BIN_DIR = $(DESTDIR)$(PREFIX)/bin
SBIN_DIR = $(DESTDIR)$(PREFIX)/sbin
MAN_DIR = $(DESTDIR)$(PREFIX)/share/man/man8
MAN_PAGES = $(wildcard src/fuse/*.8 tools/*.8)

ifdef NOVERIFY
install:
	@echo "make: programs without checksums are not installed" >&2
	@false
else
install: all
	install -d "$(BIN_DIR)" "$(SBIN_DIR)" "$(MAN_DIR)"
	install -m 755 $(TOP)/cowfs $(TOP)/cowctl "$(BIN_DIR)"
	install -m 755 $(TOP)/mkfs.cowfs $(TOP)/fsck.cowfs "$(SBIN_DIR)"
	ln -sf ../bin/cowfs "$(SBIN_DIR)/mount.cowfs"
	ln -sf fsck.cowfs "$(SBIN_DIR)/fsck.fuse.cowfs"
	ln -sf ../bin/cowctl "$(SBIN_DIR)/umount.fuse.cowfs"
	install -m 644 $(MAN_PAGES) "$(MAN_DIR)"
endif

uninstall:
	rm -f "$(BIN_DIR)/cowfs" "$(BIN_DIR)/cowctl"
	rm -f "$(SBIN_DIR)/mkfs.cowfs" "$(SBIN_DIR)/fsck.cowfs"
	rm -f "$(SBIN_DIR)/mount.cowfs" "$(SBIN_DIR)/fsck.fuse.cowfs"
	rm -f "$(SBIN_DIR)/umount.fuse.cowfs"
	rm -f $(foreach page,$(notdir $(MAN_PAGES)),"$(MAN_DIR)/$(page)")

lint:
	scripts/lint

clean:
	rm -rf build build-asan build-tsan build-clang build-fuzz build-debug \
		build-noverify
	rm -f mkfs.cowfs cowfs cowctl fsck.cowfs

-include $(LIB_OBJ:.o=.d) $(FUSE_OBJ:.o=.d) $(TEST_SUPPORT:.o=.d) \
	$(TESTS:=.d) $(MOUNT_TOOLS:=.d) $(BENCH_OBJ:.o=.d) $(wildcard $B/tools/*.d) \
	$(FUZZ_OBJ:.o=.d)

.PHONY: all bench-tools tests check asan tsan fuzz install uninstall lint clean
.SECONDARY:
