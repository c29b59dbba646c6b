"""loads.py - the rows of scripts/bench, and what is done for each

A group is a function that works on one filesystem, freshly made and mounted.
Its rows depend on each other (what one writes, the next reads), so a group is
run as a whole.
"""
import collections
import os
import random
import time

from peers import timed
from run import Failed, Unusable, drop_cache

Row = collections.namedtuple('Row', 'name title unit')

# Units of which less is better; of all others more is.
LESS_IS_BETTER = ('s', 'ms', 'MiB', 'x')

# What is stored of a file beside its contents, when bytes written to the image
# are compared with what the user gave: its name, its attributes.
ATTRIBUTE_BYTES = 128

Sizes = collections.namedtuple('Sizes', (
    'file', 'rand', 'limit', 'dirs', 'per_dir', 'flat', 'tree_dirs', 'inserts',
    'names', 'snapshots', 'snap_files', 'many_snapshots'))

FULL = Sizes(file=512 << 20, rand=50000, limit=5.0, dirs=200, per_dir=100,
             flat=100000, tree_dirs=150, inserts=20000, names=20000,
             snapshots=20, snap_files=100000, many_snapshots=1000)
QUICK = Sizes(file=32 << 20, rand=4000, limit=0.3, dirs=20, per_dir=50,
              flat=3000, tree_dirs=10, inserts=2000, names=2000, snapshots=3,
              snap_files=3000, many_snapshots=20)
TINY = Sizes(file=2 << 20, rand=200, limit=0.05, dirs=4, per_dir=10, flat=200,
             tree_dirs=2, inserts=50, names=500, snapshots=2, snap_files=100,
             many_snapshots=5)


class At:
    """One group on one filesystem in one round: runs loads, records rows."""

    def __init__(self, bench, fs):
        self.bench = bench
        self.fs = fs
        self.size = bench.sizes
        self.dir = fs.work_dir()

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def load(self, *args, procs=1, limit=False):
        """Run a load: operations, seconds, bytes."""
        argv = [self.bench.tool('work'), '-p', str(procs)]
        if limit:
            argv += ['-l', str(self.size.limit)]
        out = self.fs.run(argv + [str(a) for a in args])
        ops, seconds, size = out.split()
        return int(ops), max(float(seconds), 1e-6), int(size)

    def sh(self, script, cwd=None):
        """Seconds that a shell script takes."""
        where = cwd or self.dir
        return self.load('exec', 1, '-', 'sh', '-c',
                         f'cd {where} && {script}')[1]

    def record(self, row, value):
        self.bench.record(row, self.fs.name, value)

    def row(self, row, function):
        """Record what function returns; a failure leaves "-" behind.
        True: it worked."""
        try:
            self.record(row, function())
            return True
        except Unusable:
            raise
        except (Failed, OSError, ValueError) as e:
            self.bench.complain(row, self.fs.name, e)
            return False

    def rate(self, row, *args, **kw):
        """Operations per second; and how often the daemon read."""
        def measure():
            before = self.fs.reads()
            ops, seconds, _ = self.load(*args, **kw)
            after = self.fs.reads()
            if before is not None and after is not None and ops:
                self.bench.record_reads(row, self.fs.name,
                                        (after - before) / ops)
            return ops / seconds

        return self.row(row, measure)

    def speed(self, row, *args, **kw):
        """MB per second."""
        def measure():
            _, seconds, size = self.load(*args, **kw)
            return size / seconds / 1e6

        return self.row(row, measure)

    def cold(self):
        self.fs.cold()
        self.dir = self.fs.work_dir()

    def amplified(self, row, written_before, user_bytes):
        """After cold(): nothing is left in memory."""
        after = self.fs.written()
        if after is not None and user_bytes:
            self.record(row, (after - written_before) / user_bytes)


def group_seq(at):
    size, mib = at.size.file, 1 << 20
    a, b, c = at.path('a'), at.path('b'), at.path('c')
    before = at.fs.written()
    at.speed('write-1m', 'seqwrite', a, size, mib)
    at.cold()
    at.amplified('amp-seq', before, size)
    at.speed('read-1m-cold', 'seqread', a, mib)
    at.speed('read-1m-warm', 'seqread', a, mib)
    at.cold()
    at.speed('read-4k-cold', 'seqread', a, 4096)
    at.speed('read-4k-warm', 'seqread', a, 4096)
    at.speed('write-4k', 'seqwrite', b, size, 4096)
    at.speed('mmap-write', 'mmapwrite', c, size)
    at.cold()
    at.speed('mmap-read', 'mmapread', c)


def group_rand(at):
    count, a = at.size.rand, at.path('a')
    at.load('seqwrite', a, at.size.file, 1 << 20)
    at.cold()
    before = at.fs.written()
    at.rate('rand-write', 'randwrite', a, count)
    at.cold()
    at.amplified('amp-rand', before, count * 4096)
    before = at.fs.written()
    done = []

    def each():
        ops, seconds, size = at.load('randwrite', a, count, 'each',
                                     limit=True)
        done.append(size)
        return ops / seconds

    at.row('rand-write-fsync', each)
    at.cold()
    at.amplified('amp-rand-fsync', before, sum(done))
    at.rate('rand-read', 'randread', a, count, 1, limit=True)
    at.cold()
    at.rate('rand-read-4', 'randread', a, count, 4, limit=True)


def small(at, procs, suffix):
    d, dirs, files = at.path('many'), at.size.dirs, at.size.per_dir
    before = at.fs.written()
    at.rate('create' + suffix, 'create', d, dirs, files, 2500, procs=procs)
    at.cold()
    if procs == 1:
        at.amplified('amp-create', before, dirs * files *
                     (2500 + ATTRIBUTE_BYTES))
    at.rate('stat-cold' + suffix, 'stat', d, dirs, files, procs=procs)
    at.rate('stat-warm' + suffix, 'stat', d, dirs, files, procs=procs)
    at.cold()
    at.rate('readdir-cold' + suffix, 'readdir', d, dirs, procs=procs)
    at.cold()
    at.rate('read-cold' + suffix, 'read', d, dirs, files, procs=procs)
    at.rate('delete' + suffix, 'delete', d, dirs, files, procs=procs)


def group_small(at):
    small(at, 1, '')


def group_small4(at):
    small(at, 4, '-4')


def group_flat(at):
    d, count = at.path('flat'), at.size.flat
    at.rate('flat-create', 'create', d, 1, count, 0)
    at.cold()
    at.rate('flat-readdir', 'readdir', d, 1)
    at.cold()
    at.rate('flat-stat', 'stat', d, 1, count)
    at.rate('flat-delete', 'delete', d, 1, count)


GIT = ('git -c user.name=bench -c user.email=bench@example.org '
       '-c safe.directory=* -c gc.auto=0 ')


def group_tree(at):
    tar, logical = at.bench.source_tar()
    t = at.path('t')
    used, before = at.fs.used(), at.fs.written()
    os.mkdir(t)
    at.row('untar', lambda: at.sh(f'tar xf {tar}', t))
    at.cold()
    at.amplified('amp-untar', before, logical)
    if at.fs.keeps:
        at.record('space', (at.fs.used() - used) / logical)
    # Written to /dev/null itself, tar would not read the files.
    at.row('tar', lambda: at.sh('tar cf - . | cat >/dev/null', t))
    at.row('cp', lambda: at.sh('cp -a t u'))
    at.cold()
    at.row('grep', lambda: at.sh('grep -r "not to be found" . || true', t))
    at.row('git-add', lambda: at.sh(
        f'{GIT} init -q . && {GIT} add . && {GIT} commit -qm all', t))
    at.cold()
    at.row('git-status', lambda: at.sh(f'{GIT} status', t))
    at.row('compile', lambda: at.sh('cc -c *.c && cc -o program *.o',
                                    t + '/src'))
    at.row('rm', lambda: at.sh('rm -r u'))


def group_sqlite(at):
    for mode in ('wal', 'delete'):
        at.rate('sqlite-' + mode, 'sqlite', at.path(mode + '.db'),
                at.size.inserts, mode, limit=True)


def group_names(at):
    at.rate('rename', 'rename', at.path('r'), at.size.names)
    at.rate('link', 'link', at.path('l'), at.size.names)


def group_sync(at):
    at.rate('create-fsync', 'fsyncs', at.path('f'), at.size.rand, limit=True)
    at.rate('replace-fsync', 'replace', at.path('r'), at.size.rand,
            limit=True)


def exec_ms(at, row, argv, count=1, file='-'):
    """Milliseconds of one command, started as users start it."""
    def measure():
        _, seconds, _ = at.load('exec', count, file, *argv)
        return seconds * 1e3 / count

    return at.row(row, measure)


def snap_delete(at, count):
    """The commands, then until their space is free."""
    start = time.monotonic()
    if exec_ms(at, 'snap-delete', at.fs.snapshot('delete', 'm-%d'), count):
        at.row('snap-space', lambda: at.fs.wait_for_space() or
               (time.monotonic() - start) * 1e3 / count)


def group_snap(at):
    count, file = at.size.snapshots, at.path('file')
    per_dir = 100
    dirs = max(1, at.size.snap_files // per_dir)
    create = at.fs.snapshot('create', '%d')
    if not create:
        return

    def named(name):
        return at.fs.snapshot('create', name)

    at.load('seqwrite', file, at.size.file, 1 << 20)
    at.load('create', at.path('few'), 10, per_dir, 1000)
    exec_ms(at, 'snap-create-1k', named('f-%d'), count)
    at.load('create', at.path('many'), dirs, per_dir, 100)
    at.cold()
    exec_ms(at, 'snap-create-many', named('m-%d'), count)
    at.load('randwrite', file, at.size.rand) # all its pages cached, once
    at.rate('overwrite', 'randwrite', file, at.size.rand)
    at.fs.run(named('o'))
    at.rate('overwrite-snap', 'randwrite', file, at.size.rand)
    at.cold()
    if at.fs.snapshot_dir('m-0'):
        at.rate('snap-browse', 'walk', at.fs.snapshot_dir('m-0') + '/few')
    exec_ms(at, 'snap-delete-1', at.fs.snapshot('delete', 'o'))
    exec_ms(at, 'snap-restore', at.fs.snapshot('restore',
                                               f'm-{count - 1}'))
    snap_delete(at, count)
    exec_ms(at, 'snap-thousand', named('t-%d'), at.size.many_snapshots, file)
    exec_ms(at, 'snap-list', at.fs.snapshot('list'))


def scrub_speed(at, argv):
    used = at.fs.used()
    start = time.monotonic()
    at.fs.run(argv)
    at.fs.scrub_wait()
    return used / (time.monotonic() - start) / 1e6


def mount_ms(at):
    def mount():
        at.fs.mount()
        os.listdir(at.fs.dir)

    return timed(mount) * 1e3


def group_upkeep(at):
    fs = at.fs
    if not fs.keeps:
        return
    at.sh(f'tar xf {at.bench.source_tar()[0]}')
    at.load('seqwrite', at.path('file'), at.size.file, 1 << 20)
    at.cold()
    if fs.scrub():
        at.row('scrub', lambda: scrub_speed(at, fs.scrub()))
    fs.unmount()
    if fs.check():
        drop_cache(fs.image)
        at.row('check', lambda: timed(lambda: fs.run(fs.check(),
                                                     ok=fs.check_ok())))
    drop_cache(fs.image)
    at.row('mount', lambda: mount_ms(at))
    at.load('fsyncs', at.path('f'), at.size.rand, limit=True)
    at.load('create', at.path('late'), 2, 50, 1000)
    if fs.crash():
        drop_cache(fs.image)
        at.row('mount-killed', lambda: mount_ms(at))


GROUPS = (
    (group_seq, (
        Row('write-1m', 'sequential write + fsync, 1 MiB calls', 'MB/s'),
        Row('write-4k', 'sequential write + fsync, 4 KiB calls', 'MB/s'),
        Row('read-1m-cold', 'sequential read, 1 MiB calls, cold', 'MB/s'),
        Row('read-4k-cold', 'sequential read, 4 KiB calls, cold', 'MB/s'),
        Row('read-1m-warm', 'sequential read, 1 MiB calls, warm', 'MB/s'),
        Row('read-4k-warm', 'sequential read, 4 KiB calls, warm', 'MB/s'),
        Row('mmap-write', 'mmap, write all pages, msync', 'MB/s'),
        Row('mmap-read', 'mmap, read all pages, cold', 'MB/s'))),
    (group_rand, (
        Row('rand-write', 'random 4 KiB write, one fsync at the end', 'op/s'),
        Row('rand-write-fsync', 'random 4 KiB write, fsync each', 'op/s'),
        Row('rand-read', 'random 4 KiB read, cold', 'op/s'),
        Row('rand-read-4', 'random 4 KiB read, cold, 4 threads', 'op/s'))),
    (group_small, (
        Row('create', 'create small files', 'op/s'),
        Row('stat-cold', 'stat small files, cold', 'op/s'),
        Row('stat-warm', 'stat small files, warm', 'op/s'),
        Row('readdir-cold', 'list their directories, cold', 'op/s'),
        Row('read-cold', 'read small files, cold', 'op/s'),
        Row('delete', 'delete small files', 'op/s'))),
    (group_small4, (
        Row('create-4', 'create small files, 4 processes', 'op/s'),
        Row('stat-cold-4', 'stat small files, cold, 4 processes', 'op/s'),
        Row('stat-warm-4', 'stat small files, warm, 4 processes', 'op/s'),
        Row('readdir-cold-4', 'list directories, cold, 4 processes', 'op/s'),
        Row('read-cold-4', 'read small files, cold, 4 processes', 'op/s'),
        Row('delete-4', 'delete small files, 4 processes', 'op/s'))),
    (group_flat, (
        Row('flat-create', 'one large directory: create', 'op/s'),
        Row('flat-readdir', 'one large directory: list, cold', 'op/s'),
        Row('flat-stat', 'one large directory: stat, cold', 'op/s'),
        Row('flat-delete', 'one large directory: delete', 'op/s'))),
    (group_tree, (
        Row('untar', 'untar a source tree', 's'),
        Row('tar', 'tar it, cold', 's'),
        Row('cp', 'cp -a', 's'),
        Row('grep', 'grep -r, cold', 's'),
        Row('git-add', 'git init, add, commit', 's'),
        Row('git-status', 'git status, cold', 's'),
        Row('compile', 'compile', 's'),
        Row('rm', 'rm -r', 's'))),
    (group_sqlite, (
        Row('sqlite-wal', 'sqlite, one insert each, WAL', 'op/s'),
        Row('sqlite-delete', 'sqlite, one insert each, DELETE', 'op/s'))),
    (group_names, (
        Row('rename', 'rename', 'op/s'),
        Row('link', 'hard links: link, unlink', 'op/s'))),
    (group_sync, (
        Row('create-fsync', 'create + fsync', 'op/s'),
        Row('replace-fsync', 'write, fsync, rename over', 'op/s'))),
    (group_snap, (
        Row('snap-create-1k', 'snapshot create, 1 thousand files', 'ms'),
        Row('snap-create-many', 'snapshot create, many files', 'ms'),
        Row('overwrite', 'random overwrite, no fresh snapshot', 'op/s'),
        Row('overwrite-snap', 'random overwrite right after one', 'op/s'),
        Row('snap-browse', 'stat all in a snapshot, cold', 'op/s'),
        Row('snap-restore', 'snapshot restore', 'ms'),
        Row('snap-delete-1', 'snapshot delete, with own blocks', 'ms'),
        Row('snap-delete', 'snapshot delete, many files', 'ms'),
        Row('snap-space', 'the same, until the space is free', 'ms'),
        Row('snap-thousand', 'many snapshots, a change between', 'ms'),
        Row('snap-list', 'snapshot list, with those', 'ms'))),
    (group_upkeep, (
        Row('scrub', 'scrub', 'MB/s'),
        Row('check', 'check (fsck -n), cold', 's'),
        Row('mount', 'mount after a clean unmount', 'ms'),
        Row('mount-killed', 'mount after a kill', 'ms'))),
)

# Recorded beside others, by the group named.
EXTRA = (
    (group_seq, Row('amp-seq', 'written per byte: sequential', 'x')),
    (group_rand, Row('amp-rand', 'written per byte: random', 'x')),
    (group_rand, Row('amp-rand-fsync', 'written per byte: random + fsync',
                     'x')),
    (group_small, Row('amp-create', 'written per byte: small files', 'x')),
    (group_tree, Row('amp-untar', 'written per byte: untar', 'x')),
    (group_tree, Row('space', 'space used per byte: untar', 'x')),
    (None, Row('memory', 'peak memory of the daemon', 'MiB')),
)


def all_rows():
    return ([r for _, rows in GROUPS for r in rows] +
            [r for _, r in EXTRA])


def groups_for(wanted):
    """The groups, in order, that record one of the rows."""
    found = []
    for group, rows in GROUPS:
        names = {r.name for r in rows}
        names |= {r.name for g, r in EXTRA if g in (group, None)}
        if names & wanted:
            found.append(group)
    return found


# ---- the source tree ----

WORDS = ('static int return struct node key value size_t buffer error if '
         'else while for the of and block tree leaf entry count data').split()


def text_file(rng):
    lines = []
    for _ in range(rng.randrange(10, 600)):
        lines.append(' '.join(rng.choices(WORDS, k=rng.randrange(3, 12))))
    return '\n'.join(lines) + '\n'


def c_file(number):
    out = ['#include <stdio.h>', '#include <stdlib.h>',
           '#include <string.h>']
    for k in range(60):
        out.append(f'int f_{number}_{k}(int a, const char *s)\n{{\n'
                   f'\tint i, sum = {k};\n\n'
                   f'\tfor (i = 0; i < a; i++)\n'
                   f'\t\tsum += (int)strlen(s) * i ^ {k + number};\n'
                   f'\tif (sum == 7)\n\t\tprintf("%d %s\\n", sum, s);\n'
                   f'\treturn sum;\n}}\n')
    if not number:
        out.append('int main(void)\n{\n\treturn f_0_1(0, "");\n}')
    return '\n'.join(out) + '\n'


def make_source(folder, dirs):
    """A tree as projects have it; the same each time. Its bytes, names and
    attributes included."""
    rng = random.Random(1)
    total = 0
    files = [(f'src/part-{n:03}.c', c_file(n))
             for n in range(max(2, dirs // 4))]
    for d in range(dirs):
        where = f'lib/{d % 7}/module-{d:03}'
        files += [(f'{where}/file-{k:02}.txt', text_file(rng))
                  for k in range(20)]
    for name, text in files:
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, 'w', encoding='ascii') as f:
            f.write(text)
        total += len(text) + len(name) + ATTRIBUTE_BYTES
    return total
