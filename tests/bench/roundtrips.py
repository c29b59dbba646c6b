"""roundtrips - what the kernel asks the daemon for, operation by operation

Each operation is done to COUNT files, one after the other; `cowctl stats` says
which requests came. A request that nobody waits for (FORGET, RELEASE) counts as
any other. Each row begins with nothing of these files in the kernel's caches
('cold') or with all that the rows before it left there.
"""
import json
import os
import subprocess
import time

COUNT = 100
NOT_OURS = ('IOCTL', 'INIT', 'STATFS') # of those who count
DATA = b'x' * 4096


def write_file(path, flags=os.O_CREAT | os.O_EXCL, sync=False, data=DATA):
    fd = os.open(path, os.O_WRONLY | flags, 0o644)
    if data:
        os.write(fd, data)
    if sync:
        os.fsync(fd)
    os.close(fd)


def read_file(path):
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, 1 << 16)
    os.close(fd)


def replace(path):
    write_file(path + '~', sync=True)
    os.rename(path + '~', path)


# Title, to be remounted before it, what is done with the path of a file in a
# directory of them, or (None) with the directory, once.
ROWS = (
    ('create an empty file', False,
     lambda p: write_file(p + '.e', data=None)),
    ('create, write 4 KiB', False, write_file),
    ('create, write 4 KiB, fsync', False,
     lambda p: write_file(p + '.s', sync=True)),
    ('mkdir', False, lambda p: os.mkdir(p + '.d')),
    ('symlink', False, lambda p: os.symlink('there', p + '.l')),
    ('stat, cold', True, os.stat),
    ('stat', False, os.stat),
    ('stat what is not there, cold', True,
     lambda p: os.path.exists(p + '.no')),
    ('open, read, close, cold', True, read_file),
    ('open, read, close', False, read_file),
    ('open, write 4 KiB, close', False, lambda p: write_file(p, 0)),
    ('write anew, fsync, rename over', False, replace),
    ('chmod', False, lambda p: os.chmod(p, 0o600)),
    ('rename', False, lambda p: os.rename(p, p + '.r')),
    ('link', False, lambda p: os.link(p + '.r', p)),
    ('unlink one of two names', False, lambda p: os.unlink(p + '.r')),
    ('unlink', False, os.unlink),
    ('unlink, cold', True, lambda p: os.unlink(p + '.s')),
    ('rmdir', False, lambda p: os.rmdir(p + '.d')),
)
LISTS = (
    ('list, cold (each entry)', lambda d: os.listdir(d)),
    ('list with attributes, cold (each entry)',
     lambda d: [e.stat(follow_symlinks=False) for e in os.scandir(d)]),
)


class Mount:
    """cowfs on a new image, here: no peer has such a counter."""

    def __init__(self, top, folder, options):
        self.top, self.options = top, options
        self.image = os.path.join(folder, 'requests.img')
        self.dir = os.path.join(folder, 'requests')
        os.makedirs(self.dir, exist_ok=True)
        self.run('mkfs.cowfs', '-q', '-f', '-s', '256M', self.image)
        self.mount()

    def run(self, program, *args):
        return subprocess.run([os.path.join(self.top, program), *args],
                              stdout=subprocess.PIPE, check=True,
                              text=True).stdout

    def mount(self):
        self.run('cowfs', *self.options, self.image, self.dir)

    def unmount(self):
        self.run('cowctl', self.dir, 'unmount', '--wait')

    def cold(self):
        self.unmount()
        self.mount()

    def requests(self):
        time.sleep(0.2) # what nobody waits for comes late
        stats = json.loads(self.run('cowctl', self.dir, 'stats', '--json'))
        return {k: v['count'] for k, v in stats['requests'].items()
                if k not in NOT_OURS}

    def counted(self, what, count):
        before = self.requests()
        what()
        after = self.requests()
        return {k: (after[k] - before.get(k, 0)) / count for k in after
                if after[k] - before.get(k, 0) > count / 50}


def measure(m):
    folder = os.path.join(m.dir, 'files')
    os.mkdir(folder)
    paths = [os.path.join(folder, f'file{i:03}') for i in range(COUNT)]
    rows = []

    def all_of(what):
        for path in paths:
            what(path)

    for title, cold, what in ROWS:
        if cold:
            m.cold()
        os.stat(folder)
        rows.append((title, m.counted(lambda w=what: all_of(w), COUNT)))
    for title, what in LISTS:
        m.cold()
        n = len(os.listdir(folder))
        m.cold()
        os.stat(folder)
        rows.append((title, m.counted(lambda w=what: w(folder), n)))
    return rows


def number(n):
    return f'{n:.2f}'.rstrip('0').rstrip('.')


def table(rows, others):
    width = max(len(title) for title, _ in rows)
    lines = [f'{"":{width}}  requests  allow_other  of these']
    for (title, got), (_, more) in zip(rows, others):
        kinds = ', '.join(k if v == 1 else f'{number(v)} {k}'
                          for k, v in sorted(got.items(),
                                             key=lambda x: -x[1]))
        lines.append(f'{title:{width}}  {number(sum(got.values())):>8}'
                     f'  {number(sum(more.values())):>11}  {kinds}')
    return '\n'.join(lines)


def run(top, folder, json_file):
    results = []
    for options in ((), ('-o', 'allow_other')):
        m = Mount(top, folder, options)
        try:
            results.append(measure(m))
        finally:
            m.unmount()
    print(table(*results))
    if json_file:
        with open(json_file, 'w', encoding='utf-8') as f:
            json.dump([dict(r) for r in results], f, indent=1)
    return 0
