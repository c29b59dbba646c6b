# Makefile - build cowfs: the four programs, the library, the tests
#
#   make                 programs in this folder, everything else in build/
#   make check           unit tests
#   make asan tsan       the same sources and tests, instrumented (build-*/)
#   make install         DESTDIR=, PREFIX=/usr/local
#   make lint            layering, static analysis

CC ?= gcc
PREFIX ?= /usr/local
B ?= build
TOP ?= .

WARN = -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes \
	-Wmissing-prototypes -Wpointer-arith -Wundef -Wvla
CFLAGS ?= -O2 -g
ALL_CFLAGS = -std=gnu11 $(WARN) -Iinclude -Isrc -D_GNU_SOURCE \
	-D_FILE_OFFSET_BITS=64 -pthread $(CFLAGS)

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
COWCTL_OBJ = $(patsubst %.c,$B/%.o,$(sort $(wildcard tools/cowctl*.c)))

PROGRAMS = $(TOP)/mkfs.cowfs $(TOP)/cowfs $(TOP)/cowctl $(TOP)/fsck.cowfs
TEST_SUPPORT = $(patsubst %.c,$B/%.o,$(sort $(wildcard tests/support/*.c)))
TESTS = $(patsubst tests/%.c,$B/tests/%,$(sort $(wildcard \
	tests/unit/*.c tests/crash/*.c tests/model/*.c)))
MOUNT_TOOLS = $(patsubst tests/%.c,$B/tests/%,$(sort $(wildcard tests/mount/*.c)))

all: $(PROGRAMS)

$B/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(Z_CFLAGS) $(EXTRA_CFLAGS) -MMD -MP -c -o $@ $<

$B/src/fuse/%.o: EXTRA_CFLAGS = $(FUSE_CFLAGS) -DFUSE_USE_VERSION=314
$B/tests/%.o: EXTRA_CFLAGS = $(CHECK_CFLAGS) -I. -Itests

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
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(CHECK_LIBS) $(Z_LIBS)

tests: $(TESTS) $(MOUNT_TOOLS)

check: tests
	@fail=0; for t in $(TESTS); do $$t || fail=1; done; exit $$fail

asan:
	$(MAKE) B=build-asan TOP=build-asan CFLAGS="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined" $(or $(GOAL),all tests)

tsan:
	$(MAKE) B=build-tsan TOP=build-tsan CFLAGS="-O1 -g -fsanitize=thread" $(or $(GOAL),all tests)

# Programs users call go to bin, those that mount(8) and fsck(8) call to sbin,
# under the names that these look for, too.
BIN_DIR = $(DESTDIR)$(PREFIX)/bin
SBIN_DIR = $(DESTDIR)$(PREFIX)/sbin
MAN_DIR = $(DESTDIR)$(PREFIX)/share/man/man8
MAN_PAGES = $(wildcard src/fuse/*.8 tools/*.8)

install: all
	install -d $(BIN_DIR) $(SBIN_DIR) $(MAN_DIR)
	install -m 755 $(TOP)/cowfs $(TOP)/cowctl $(BIN_DIR)
	install -m 755 $(TOP)/mkfs.cowfs $(TOP)/fsck.cowfs $(SBIN_DIR)
	ln -sf ../bin/cowfs $(SBIN_DIR)/mount.cowfs
	ln -sf fsck.cowfs $(SBIN_DIR)/fsck.fuse.cowfs
	install -m 644 $(MAN_PAGES) $(MAN_DIR)

uninstall:
	rm -f $(BIN_DIR)/cowfs $(BIN_DIR)/cowctl
	rm -f $(SBIN_DIR)/mkfs.cowfs $(SBIN_DIR)/fsck.cowfs
	rm -f $(SBIN_DIR)/mount.cowfs $(SBIN_DIR)/fsck.fuse.cowfs
	rm -f $(addprefix $(MAN_DIR)/,$(notdir $(MAN_PAGES)))

lint:
	scripts/lint

clean:
	rm -rf build build-asan build-tsan build-clang
	rm -f mkfs.cowfs cowfs cowctl fsck.cowfs

-include $(LIB_OBJ:.o=.d) $(FUSE_OBJ:.o=.d) $(TEST_SUPPORT:.o=.d) \
	$(TESTS:=.d) $(MOUNT_TOOLS:=.d) $(wildcard $B/tools/*.d)

.PHONY: all tests check asan tsan install uninstall lint clean
.SECONDARY:
