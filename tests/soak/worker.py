#!/usr/bin/env python3
"""worker.py - one process of the soak: files of which it knows every byte

usage: worker.py MOUNT STATE SEED NUMBER SECONDS [nearly-full] [killed=FILE]
                 [after-kill]

Works in MOUNT/wNUMBER for SECONDS, with a model of each file beside it that
lives in STATE between runs. Holds the directory against the model at the
beginning and at the end, and single files in between.

Each 16 bytes written tell who wrote them, when, and where they belong: bytes
that are wrong tell where they come from.

killed=FILE: the daemon may be killed; from the moment that FILE exists every
error is in order. after-kill: it was. What fsync promised (a file unchanged
since its fsync, or that of its directory) must be as the model has it; any
other must consist of what it held since, or not be there.

Without space (nearly-full) an operation may fail; then it must have changed
nothing, but for a write, whose file is given up.

The last line is JSON: what was done. Exit status 0, 1 (wrong), 2 (usage).
"""
import ctypes
import errno
import json
import mmap
import os
import pickle
import random
import stat
import struct
import sys
import time

FILES = 36
MAX_SIZE = 400000
DIRS = ('a', 'b', 'c')
PUNCH = 0x02 | 0x01 # PUNCH_HOLE | KEEP_SIZE
ZERO = 0x10
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64,
                           ctypes.c_int64)


class Wrong(Exception):
    """The filesystem is not what it must be."""


def pattern(who, version, off, length):
    first = off // 16
    count = (off + length + 15) // 16 - first
    words = [0] * (2 * count)
    words[0::2] = [version << 32 | who] * count
    words[1::2] = range(first * 16, (first + count) * 16, 16)
    raw = struct.pack('<%dQ' % (2 * count), *words)
    return raw[off - first * 16:off - first * 16 + length]


def told(raw):
    """What 16 bytes say about themselves."""
    if not any(raw):
        return 'zeros'
    if len(raw) < 16:
        return raw.hex()
    word, at = struct.unpack('<QQ', raw)
    who, version = word & 0xffffffff, word >> 32
    return 'worker %d file %d version %d byte %d (%s)' % (
        who >> 24, who & 0xffffff, version, at, raw.hex())


class File:
    """What is known of one file."""

    def __init__(self, number):
        self.number = number
        self.version = 0
        self.data = bytearray()
        self.xattrs = {}
        self.names = set()
        # since the last fsync
        self.synced = b''
        self.history = []
        self.settled = False
        self.tainted = False # an error: contents unknown, to be removed

    def touch(self):
        self.settled = False

    def put(self, off, data):
        if off > len(self.data):
            self.data.extend(bytes(off - len(self.data)))
        self.data[off:off + len(data)] = data
        self.history.append((off, bytes(data)))

    def settle(self):
        self.synced = bytes(self.data)
        self.history = []
        self.settled = True

    def may_hold(self, got, path):
        """After a kill: each piece is one that was there since the fsync."""
        kept = [(0, self.synced)] + self.history
        for at in range(0, len(got), 4096):
            block = got[at:at + 4096]
            if any(d[at - o:at - o + len(block)] == block
                   for o, d in kept if o <= at):
                continue
            for p in range(at, at + len(block), 16):
                self.may_hold_piece(got[p:p + 16], p, kept, path)

    @staticmethod
    def may_hold_piece(raw, at, kept, path):
        # Bytes of two writes may meet in it: each one by itself.
        for i, byte in enumerate(raw):
            if byte and not any(o <= at + i < o + len(d) and
                                d[at + i - o] == byte for o, d in kept):
                raise Wrong('%s: foreign or stale bytes at %d: %s' % (
                    path, at, told(raw)))


class Worker:
    def __init__(self, mount, state, seed, number, flags):
        self.top = os.path.join(mount, 'w%d' % number)
        self.state = state
        self.number = number
        self.rng = random.Random('%s-%d-%s' % (seed, number, os.getpid()))
        self.full = 'nearly-full' in flags
        self.after_kill = 'after-kill' in flags
        self.killed = next((f[7:] for f in flags if f.startswith('killed=')),
                           None)
        self.files = {}  # by number
        self.next = 1
        self.done = dict.fromkeys(('ops', 'fsyncs', 'full', 'verified',
                                   'promises', 'unsettled'), 0)
        if os.path.exists(state):
            with open(state, 'rb') as f:
                self.files, self.next = pickle.load(f)

    def save(self):
        with open(self.state + '.new', 'wb') as f:
            pickle.dump((self.files, self.next), f)
        os.rename(self.state + '.new', self.state)

    def path(self, name):
        return os.path.join(self.top, name)

    def some(self):
        return self.rng.choice(list(self.files.values()))

    def some_name(self, f):
        return self.path(self.rng.choice(sorted(f.names)))

    def new_name(self, number):
        return '%s/f%d.%d' % (self.rng.choice(DIRS), number,
                              self.rng.randrange(10 ** 9))

    # ---- looking ----

    def read(self, f, path, cold=False):
        fd = os.open(path, os.O_RDONLY)
        try:
            if cold:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            out = bytearray()
            while True:
                got = os.read(fd, 1 << 18)
                if not got:
                    return bytes(out), os.fstat(fd)
                out += got
        finally:
            os.close(fd)

    def compare(self, f, cold=False):
        if f.tainted:
            return
        path = self.some_name(f)
        got, st = self.read(f, path, cold)
        if len(got) != len(f.data) or st.st_size != len(f.data):
            raise Wrong('%s: %d bytes (st_size %d), not %d' % (
                path, len(got), st.st_size, len(f.data)))
        if got != f.data:
            at = next(i for i in range(len(got)) if got[i] != f.data[i])
            at -= at % 16
            raise Wrong('%s: at %d of %d: %s; should be %s' % (
                path, at, len(got), told(got[at:at + 16]),
                told(bytes(f.data[at:at + 16]))))
        if st.st_nlink != len(f.names):
            raise Wrong('%s: %d links, not %d' % (path, st.st_nlink,
                                                  len(f.names)))
        for name, value in f.xattrs.items():
            if os.getxattr(path, name) != value:
                raise Wrong('%s: %s is wrong' % (path, name))
        if sorted(os.listxattr(path)) != sorted(f.xattrs):
            raise Wrong('%s: xattrs %s, not %s' % (
                path, os.listxattr(path), sorted(f.xattrs)))
        self.done['verified'] += 1

    def listing(self):
        seen = set()
        for d in DIRS:
            for e in os.scandir(self.path(d)):
                seen.add('%s/%s' % (d, e.name))
        return seen

    def verify(self):
        want = {n: f for f in self.files.values() for n in f.names}
        seen = self.listing()
        if seen != set(want):
            raise Wrong('%s: names missing %s, too many %s' % (
                self.top, sorted(set(want) - seen), sorted(seen - set(want))))
        for f in self.files.values():
            self.compare(f)

    def remove_tree(self, path):
        st = os.lstat(path)
        if stat.S_ISDIR(st.st_mode):
            for e in os.listdir(path):
                self.remove_tree(os.path.join(path, e))
            os.rmdir(path)
        else:
            os.unlink(path)

    def verify_promises(self):
        """The daemon was killed: settled files are there, the rest is made of
        what it may be made of, and is removed."""
        for name in sorted(self.listing()):
            number = name.split('/f')[-1].split('.')[0]
            f = self.files.get(int(number)) if number.isdigit() else None
            if f and f.settled:
                if name not in f.names:
                    raise Wrong('%s: a name that it should not have' % name)
                continue
            path = self.path(name)
            if f and not f.tainted:
                f.may_hold(self.read(f, path)[0], path)
                self.done['unsettled'] += 1
            self.remove_tree(path)
        for f in [f for f in self.files.values() if not f.settled]:
            del self.files[f.number]
        self.done['promises'] += len(self.files)
        self.verify()
        self.sync_dirs()

    # ---- operations ----

    def give_up(self, f):
        """Its contents are unknown after an error. What snapshots hold may
        leave no room even for removing it: then later."""
        f.touch()
        f.tainted = True
        try:
            for name in sorted(f.names):
                os.unlink(self.path(name))
                f.names.remove(name)
        except OSError as e:
            if e.errno != errno.ENOSPC or not self.full:
                raise
            self.done['full'] += 1
            return
        self.files.pop(f.number, None)

    def create(self):
        f = File(self.next)
        self.next += 1
        name = self.new_name(f.number)
        # Known before it is there: a kill may leave it.
        f.names.add(name)
        self.files[f.number] = f
        try:
            os.close(os.open(self.path(name), os.O_WRONLY | os.O_CREAT |
                             os.O_EXCL, 0o644))
        except OSError:
            if not os.path.lexists(self.path(name)):
                del self.files[f.number]
            raise
        self.write(f, 0, self.rng.choice((300, 3000, 70000)))

    def write(self, f, off, most):
        length = self.rng.randrange(1, most)
        f.version += 1
        data = pattern(self.number << 24 | f.number, f.version, off, length)
        f.touch()
        f.put(off, data)
        fd = os.open(self.some_name(f), os.O_RDWR)
        try:
            if os.pwrite(fd, data, off) != length:
                raise OSError(errno.ENOSPC, 'short write')
            if self.rng.randrange(6) == 0:
                self.fsync_fd(f, fd)
        except OSError:
            self.close_anyway(fd)
            raise
        os.close(fd)

    @staticmethod
    def close_anyway(fd):
        try:
            os.close(fd)
        except OSError:
            pass

    def fsync_fd(self, f, fd):
        (os.fsync if self.rng.randrange(3) else os.fdatasync)(fd)
        f.settle()
        self.done['fsyncs'] += 1

    def open_and_fsync(self, f):
        fd = os.open(self.some_name(f), os.O_RDWR)
        try:
            self.fsync_fd(f, fd)
        except OSError:
            self.close_anyway(fd)
            raise
        os.close(fd)

    def overwrite(self, f):
        self.write(f, self.rng.randrange(len(f.data) + 1), 40000)

    def small(self, f):
        self.write(f, self.rng.randrange(len(f.data) + 1), 200)

    def append(self, f):
        self.write(f, len(f.data), 9000)

    def beyond(self, f):
        self.write(f, len(f.data) + self.rng.randrange(100000), 5000)

    def mapped(self, f):
        if self.killed or len(f.data) < 2:
            return
        off = self.rng.randrange(len(f.data) - 1)
        length = self.rng.randrange(1, min(60000, len(f.data) - off) + 1)
        f.version += 1
        data = pattern(self.number << 24 | f.number, f.version, off, length)
        f.touch()
        f.put(off, data)
        fd = os.open(self.some_name(f), os.O_RDWR)
        try:
            with mmap.mmap(fd, len(f.data)) as m:
                m[off:off + length] = data
                if self.rng.randrange(2):
                    m.flush()
            # mmap has a descriptor of its own, and keeps for itself what
            # closing it tells.
            if self.full:
                self.fsync_fd(f, fd)
        except OSError:
            self.close_anyway(fd)
            raise
        os.close(fd)

    def truncate(self, f):
        to = self.rng.randrange(len(f.data) + 5000)
        f.touch()
        del f.data[to:]
        f.data.extend(bytes(to - len(f.data)))
        os.truncate(self.some_name(f), to)

    def hole(self, f, mode=PUNCH):
        if not f.data:
            return
        off = self.rng.randrange(len(f.data))
        length = self.rng.randrange(1, 50000)
        f.touch()
        end = min(off + length, len(f.data)) if mode == PUNCH else off + length
        if end > len(f.data):
            f.data.extend(bytes(end - len(f.data)))
        f.data[off:end] = bytes(end - off)
        fd = os.open(self.some_name(f), os.O_RDWR)
        try:
            if libc.fallocate(fd, mode, off, length) != 0:
                raise OSError(ctypes.get_errno(), 'fallocate')
        except OSError:
            self.close_anyway(fd)
            raise
        os.close(fd)

    def zero(self, f):
        self.hole(f, ZERO)

    def fsync(self, f):
        self.open_and_fsync(f)
        self.compare(f, cold=True)

    def sync_dirs(self, _f=None):
        """Names, that is; contents of files that did not change otherwise."""
        for d in DIRS:
            fd = os.open(self.path(d), os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def rename(self, f):
        old = self.rng.choice(sorted(f.names))
        new = self.new_name(f.number)
        f.touch()
        os.rename(self.path(old), self.path(new))
        f.names.remove(old)
        f.names.add(new)

    def rename_over(self, f):
        """Another one of its own numbers, so that names tell who it is."""
        other = File(f.number)
        old = self.rng.choice(sorted(f.names))
        if len(f.names) > 1:
            return
        spare = self.path('spare')
        self.files[f.number].touch()
        length = self.rng.randrange(1, 50000)
        data = pattern(self.number << 24 | f.number, f.version + 1, 0, length)
        f.history.append((0, data))
        try:
            with open(spare, 'wb', buffering=0) as out:
                if out.write(data) != length:
                    raise OSError(errno.ENOSPC, 'short write')
                os.fsync(out.fileno())
            os.rename(spare, self.path(old))
        except OSError:
            self.remove_if_room(spare)
            raise
        other.version = f.version + 1
        other.names = {old}
        other.history = f.history
        other.synced = f.synced
        other.data[:] = data
        self.files[f.number] = other
        # what was there before may be back after a kill, until this:
        self.fsync(other)

    def unlink(self, f):
        f.touch()
        name = self.rng.choice(sorted(f.names))
        fd = os.open(self.path(name), os.O_RDONLY)
        try:
            os.unlink(self.path(name))
            f.names.remove(name)
            if not f.names:
                got = b''
                # a daemon that is killed answers with a part first
                while piece := os.pread(fd, 1 << 18, len(got)):
                    got += piece
                if got != f.data:
                    raise Wrong('%s: unlinked while open: other bytes' % name)
                del self.files[f.number]
        except OSError:
            self.close_anyway(fd)
            raise
        os.close(fd)

    def link(self, f):
        if len(f.names) > 3:
            return
        new = self.new_name(f.number)
        f.touch()
        os.link(self.some_name(f), self.path(new))
        f.names.add(new)

    def xattr(self, f):
        name = 'user.%s' % self.rng.choice('xyz')
        f.touch()
        if name in f.xattrs and self.rng.randrange(2):
            os.removexattr(self.some_name(f), name)
            del f.xattrs[name]
            return
        value = pattern(f.number, 0, self.rng.randrange(64),
                        self.rng.choice((20, 300, 9000)))
        os.setxattr(self.some_name(f), name, value)
        f.xattrs[name] = value

    def copy(self, f):
        other = self.some()
        if other is f or other.tainted or not f.data:
            return
        src = self.rng.randrange(len(f.data))
        dst = self.rng.randrange(len(other.data) + 1)
        if self.rng.randrange(2):
            src -= src % 4096
            dst -= dst % 4096
        length = self.rng.randrange(1, 100000)
        other.touch()
        a = os.open(self.some_name(f), os.O_RDONLY)
        b = os.open(self.some_name(other), os.O_RDWR)
        try:
            end = min(src + length, len(f.data))
            while src < end:
                got = min(end - src, 1 << 20)
                # what may be copied is known before it is
                other.put(dst, bytes(f.data[src:src + got]))
                n = os.copy_file_range(a, b, got, src, dst)
                if n != got:
                    raise OSError(errno.ENOSPC, 'short copy')
                src += n
                dst += n
            # any close may tell that the cache could not be written
            os.close(a)
            a = None
            os.close(b)
            b = None
        except OSError as e:
            e.second = other
            raise
        finally:
            for fd in (a, b):
                if fd is not None:
                    self.close_anyway(fd)

    def remove_if_room(self, path):
        try:
            if os.path.lexists(path):
                self.remove_tree(path)
        except OSError as e:
            if e.errno != errno.ENOSPC or not self.full:
                raise

    def directory(self, _f):
        """Made, filled, renamed, emptied; of it nothing stays."""
        one = self.path('tmp%d' % self.rng.randrange(10 ** 9))
        two = one + 'r'
        try:
            os.mkdir(one)
            os.symlink('target', one + '/link')
            with open(one + '/file', 'wb') as out:
                out.write(b'x' * 100)
            os.rename(one, two)
            if os.readlink(two + '/link') != 'target':
                raise Wrong('%s/link: not what was made' % two)
        finally:
            self.remove_if_room(one)
            self.remove_if_room(two)

    def look(self, f):
        self.compare(f)

    OPS = ((overwrite, 12), (small, 10), (append, 10), (beyond, 3),
           (mapped, 6), (truncate, 6), (hole, 5), (zero, 3), (fsync, 14),
           (sync_dirs, 2), (rename, 6), (rename_over, 4), (unlink, 5),
           (link, 4), (xattr, 6), (copy, 8), (directory, 3), (look, 10))

    def step(self):
        most = FILES * 3 if self.full else FILES
        if len(self.files) < FILES // 3 or (len(self.files) < most and
                                            self.rng.randrange(6) == 0):
            f = None
            op = None
        else:
            f = self.some()
            if f.tainted:
                self.give_up(f)
                return
            op = self.rng.choices([o for o, _ in self.OPS],
                                  [n for _, n in self.OPS])[0]
        try:
            if op:
                op(self, f)
            else:
                self.create()
                f = None
            f = f and self.files.get(f.number)  # as it is now
            if f and (len(f.data) > MAX_SIZE or len(self.files) > most):
                self.unlink(f)
        except OSError as e:
            if e.errno != errno.ENOSPC or not self.full:
                raise
            self.done['full'] += 1
            self.without_space(f, getattr(e, 'second', None))
        self.done['ops'] += 1

    def without_space(self, f, second):
        """An operation failed: what it touched is given up, all else is
        looked at when its turn comes. Removing must work."""
        numbers = {x.number for x in (f, second) if x} | {self.next - 1}
        for x in [self.files[n] for n in numbers if n in self.files]:
            x.names = {n for n in x.names if os.path.lexists(self.path(n))}
            self.give_up(x)

    def mkdirs(self):
        os.makedirs(self.top, exist_ok=True)
        for d in DIRS:
            os.makedirs(self.path(d), exist_ok=True)
        for e in os.listdir(self.top):
            if e not in DIRS:
                self.remove_if_room(self.path(e))
        self.sync_dirs()

    def settle_all(self):
        """fsync tells about what the cache could not write."""
        for f in list(self.files.values()):
            if f.tainted:
                self.give_up(f)
                continue
            try:
                self.open_and_fsync(f)
            except OSError as e:
                if e.errno != errno.ENOSPC or not self.full:
                    raise
                self.done['full'] += 1
                self.give_up(f)

    def work(self, seconds):
        self.mkdirs()
        if self.after_kill:
            self.verify_promises()
        else:
            self.verify()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.step()
        self.settle_all()
        self.sync_dirs()
        self.verify()

    def error_in_order(self):
        return self.killed and os.path.exists(self.killed)


def main():
    if len(sys.argv) < 6:
        print(__doc__, file=sys.stderr)
        return 2
    w = Worker(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]),
               sys.argv[6:])
    status = 0
    try:
        w.work(float(sys.argv[5]))
    except Wrong as e:
        print('worker %d: %s' % (w.number, e))
        status = 1
    except OSError as e:
        if not w.error_in_order():
            time.sleep(0.2)
        if not w.error_in_order():
            import traceback
            traceback.print_exc(file=sys.stdout)
            status = 1
    w.save()
    print(json.dumps(w.done))
    return status


if __name__ == '__main__':
    sys.exit(main())
