"""peers.py - the filesystems that scripts/bench compares

Each is made on a sparse image of its own, used through work_dir(), and made
again for the next group of rows.
"""
import glob
import json
import os
import shutil
import signal
import subprocess
import time

from run import Failed, Unusable, drop_cache, quietly, retry

DAEMON_END_S = 120
READ_AHEAD_KB = 1024


def programs_missing(*names):
    missing = [n for n in names if not shutil.which(n)]
    return 'no ' + ', '.join(missing) if missing else None


def read_text(path):
    with open(path, encoding='utf-8') as f:
        return f.read()


class Filesystem:
    """What all have. Paths: image, mount point."""
    name = ''
    title = ''
    keeps = True # does it survive an unmount?

    def __init__(self, bench):
        self.bench = bench
        self.run = bench.runner.run
        folder = os.path.join(bench.scratch.path, self.name)
        self.image = os.path.join(folder, 'image')
        self.dir = os.path.join(folder, 'mnt')
        os.makedirs(self.dir)
        self.peak_kib = 0

    def missing(self):
        """Why it can't be used here; None: it can."""
        return None

    def new_image(self):
        if os.path.exists(self.image):
            os.unlink(self.image)
        with open(self.image, 'wb') as f:
            f.truncate(self.bench.image_bytes)

    def work_dir(self):
        path = os.path.join(self.dir, 'w')
        os.makedirs(path, exist_ok=True)
        return path

    def try_run(self, *argv):
        """Did it succeed?"""
        try:
            self.run(list(argv))
            return True
        except Unusable:
            raise
        except Failed:
            return False

    def umount(self, *argv):
        """The kernel ends the last use of a file a little after close()."""
        if not retry(30, lambda: self.try_run(*argv, self.dir)):
            self.run([*argv, self.dir])

    def cold(self):
        """Remount, nothing cached."""
        self.unmount()
        drop_cache(self.image)
        self.mount()

    def used(self):
        st = os.statvfs(self.dir)
        return (st.f_blocks - st.f_bfree) * st.f_frsize

    def written(self):
        """Bytes written to the image so far, or None."""
        return None

    def reads(self):
        """read(2) calls of the daemon: its requests and, where it reads the
        image so, those; None: there is no daemon."""
        return None

    # What not all can: argv, or None.
    def snapshot(self, verb, name=''):
        return None

    def snapshot_dir(self, name):
        return None

    def wait_for_space(self):
        """After deleting snapshots, until their space is free."""

    def check(self):
        return None

    def check_ok(self):
        return (0,)

    def scrub(self):
        return None

    def scrub_wait(self):
        pass


class FuseFilesystem(Filesystem):
    """A daemon in the foreground, our child."""
    daemon = None
    io_before = 0 # written by earlier daemons on this image

    def command(self):
        raise NotImplementedError

    def make_image(self):
        raise NotImplementedError

    def make(self):
        self.new_image()
        self.make_image()
        self.io_before = 0

    def start(self, argv):
        with open(self.dir + '.log', 'wb') as log:
            self.daemon = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.bench.scratch.path, start_new_session=True)

    def last_words(self):
        lines = read_text(self.dir + '.log').strip().splitlines()
        return lines[-1] if lines else 'no message'

    def mounted(self):
        if self.daemon.poll() is not None:
            raise Unusable(f'{self.name}: {self.last_words()}')
        return os.stat(self.dir).st_dev != self.bench.scratch_dev

    def mount(self):
        self.start(self.command())
        if not retry(60, self.mounted, 0.0002): # mounting is timed
            raise Unusable(f'{self.name}: not mounted after a minute')

    def proc(self, name):
        """A /proc file of fields, as a dict; {} without a daemon."""
        if not self.daemon:
            return {}
        try:
            lines = read_text(f'/proc/{self.daemon.pid}/{name}').splitlines()
        except OSError:
            return {}
        return {k: v.split()[0] for k, _, v in
                (line.partition(':') for line in lines) if v.split()}

    def note_memory(self):
        self.peak_kib = max(self.peak_kib, int(self.proc('status')
                                               .get('VmHWM', 0)))

    def written(self):
        if not os.path.exists('/proc/self/io'):
            return None
        return self.io_before + int(self.proc('io').get('write_bytes', 0))

    def reads(self):
        n = self.proc('io').get('syscr')
        return int(n) if n else None

    def wait_daemon(self):
        """Until it has ended; its counters are read before they go."""
        def ended():
            return os.waitid(os.P_PID, self.daemon.pid, os.WEXITED |
                             os.WNOHANG | os.WNOWAIT) is not None

        if not retry(DAEMON_END_S, ended):
            raise Unusable(f'{self.name}: the daemon does not end')
        self.io_before = self.written() or 0
        self.daemon.wait()
        self.daemon = None

    def unmount(self):
        self.note_memory()
        if os.geteuid() == 0:
            self.umount('umount')
        else:
            self.umount('fusermount3', '-u')
        self.wait_daemon()

    def crash(self):
        """As if the power went: False if that can't be done."""
        self.daemon.send_signal(signal.SIGKILL)
        quietly('umount', '-l', self.dir)
        self.wait_daemon()
        return True

    def abandon(self):
        """After an error: back to nothing, whatever works."""
        if self.daemon and self.daemon.poll() is None:
            self.daemon.kill()
        quietly('umount', '-l', self.dir)
        self.daemon = None

    def destroy(self):
        if self.daemon:
            self.unmount()
        if os.path.exists(self.image):
            os.unlink(self.image)


class Cowfs(FuseFilesystem):
    name = 'cowfs'
    title = 'cowfs'

    def program(self, name):
        return os.path.join(self.bench.top, name)

    def make_image(self):
        self.run([self.program('mkfs.cowfs'), '-f', self.image])

    def command(self):
        more = self.bench.options.cowfs_options
        return ([self.program('cowfs'), '-f'] +
                (['-o', more] if more else []) + [self.image, self.dir])

    def snapshot(self, verb, name=''):
        argv = [self.program('cowctl'), self.dir, 'snapshot', verb]
        if name:
            argv.append(name)
        return argv + (['--no-save'] if verb == 'restore' else [])

    def snapshot_dir(self, name):
        return os.path.join(self.dir, '.snapshots', name, 'w')

    def drops(self):
        return json.loads(self.run([self.program('cowctl'), self.dir, 'info',
                                    '--json']))['drops']

    def wait_for_space(self):
        if not retry(600, lambda: not self.drops()):
            raise Failed('cowfs: snapshots are still being deleted')

    def check(self):
        return [self.program('fsck.cowfs'), '-f', '-n', self.image]

    def scrub(self):
        return [self.program('cowctl'), self.dir, 'scrub']


class Memfs(FuseFilesystem):
    """The limit. It stays mounted: it makes the kernel forget."""
    name = 'memfs'
    title = 'memfs (FUSE limit)'
    keeps = False
    flags = ()

    def make_image(self):
        pass

    def new_image(self):
        pass

    def command(self):
        return [self.bench.tool('memfs'), *self.flags, self.dir]

    def mount(self):
        super().mount()
        dev = os.stat(self.dir).st_dev
        try: # cowfs does that for itself
            with open(f'/sys/class/bdi/{os.major(dev)}:{os.minor(dev)}/'
                      'read_ahead_kb', 'w', encoding='ascii') as f:
                f.write(str(READ_AHEAD_KB))
        except OSError:
            pass

    def dropped(self):
        return read_text(self.dir + '.log').count('dropped')

    def cold(self):
        done = self.dropped()
        self.daemon.send_signal(signal.SIGUSR1)
        if not retry(60, lambda: self.dropped() > done):
            raise Unusable('memfs: nothing is dropped')

    def written(self):
        return None


class MemfsNoOpen(Memfs):
    name = 'memfs-n'
    title = 'memfs without OPEN'
    flags = ('-n',)


class Fuse2fs(FuseFilesystem):
    name = 'fuse2fs'
    title = 'fuse2fs'

    def missing(self):
        return programs_missing('fuse2fs', 'mkfs.ext4', 'e2fsck')

    def make_image(self):
        self.run(['mkfs.ext4', '-q', '-F', self.image])

    def command(self):
        return ['fuse2fs', '-f', self.image, self.dir, '-o', 'rw']

    def check(self):
        return ['e2fsck', '-f', '-n', self.image]

    def check_ok(self):
        return (0, 4) # left uncorrected: a journal it does not use


class Ntfs3g(FuseFilesystem):
    name = 'ntfs-3g'
    title = 'ntfs-3g'

    def missing(self):
        return programs_missing('ntfs-3g', 'mkntfs')

    def make_image(self):
        self.run(['mkntfs', '-q', '-F', '-f', self.image])

    def command(self):
        return ['ntfs-3g', '-o', 'no_detach,big_writes,permissions',
                self.image, self.dir]


class ZfsFuse(FuseFilesystem):
    """One daemon for all pools; it stays while its pool comes and goes."""
    name = 'zfs-fuse'
    title = 'zfs-fuse'
    pool = 'cowfsbench'

    @staticmethod
    def runs_already():
        for path in glob.glob('/proc/[0-9]*/stat'):
            try:
                stat = read_text(path)
            except OSError:
                continue
            if '(zfs-fuse) ' in stat and '(zfs-fuse) Z' not in stat:
                return True
        return False

    def missing(self):
        if os.geteuid():
            return 'needs root'
        # One that was just killed takes its time.
        if not retry(10, lambda: not self.runs_already()):
            return 'a zfs-fuse is running'
        return programs_missing('zfs-fuse', 'zpool', 'zfs')

    def make(self):
        self.new_image()
        self.io_before = 0
        self.start(['zfs-fuse', '--no-daemon', '--no-kstat-mount', '-p',
                    self.dir + '.pid'])
        if not retry(20, lambda: self.try_run('zpool', 'list')):
            raise Unusable('zfs-fuse: the daemon does not answer')
        self.run(['zpool', 'create', '-o', 'cachefile=none', '-m', self.dir,
                  self.pool, self.image])
        self.unmount()

    def mount(self):
        self.run(['zpool', 'import', '-o', 'cachefile=none', '-d',
                  os.path.dirname(self.image), self.pool])
        if not retry(20, self.mounted):
            raise Unusable('zfs-fuse: not mounted')

    def unmount(self):
        self.note_memory()
        # It learns of the last close a little later than the caller.
        if not retry(30, lambda: self.try_run('zpool', 'export', self.pool)):
            raise Unusable('zfs-fuse: the pool stays busy')

    def crash(self):
        return False

    def destroy(self):
        if not self.daemon:
            return
        if os.path.ismount(self.dir):
            self.unmount()
        self.daemon.kill() # without a pool; asked, it takes seconds
        self.wait_daemon()
        os.unlink(self.image)

    def snapshot(self, verb, name=''):
        at = f'{self.pool}@{name}'
        return {'create': ['zfs', 'snapshot', at],
                'list': ['zfs', 'list', '-H', '-t', 'snapshot'],
                'restore': ['zfs', 'rollback', '-r', at],
                'delete': ['zfs', 'destroy', at]}[verb]

    def scrub(self):
        return ['zpool', 'scrub', self.pool]

    def scrub_wait(self):
        if not retry(600, lambda: 'scrub in progress' not in
                     self.run(['zpool', 'status', self.pool])):
            raise Failed('zfs-fuse: the scrub does not end')


class KernelFilesystem(Filesystem):
    """On a loop device."""
    loop = None
    mkfs = ()
    kind = ''

    def missing(self):
        if os.geteuid():
            return 'needs root'
        if self.kind not in read_text('/proc/filesystems').split():
            quietly('modprobe', self.kind)
        if self.kind not in read_text('/proc/filesystems').split():
            return 'not in this kernel'
        return programs_missing('losetup', self.mkfs[0])

    def make(self):
        self.new_image()
        direct = 'on' if self.bench.options.loop_direct else 'off'
        self.loop = self.run(['losetup', f'--direct-io={direct}', '--show',
                              '-f', self.image]).strip()
        self.run([*self.mkfs, self.loop])

    def mount(self):
        self.run(['mount', '-t', self.kind, self.loop, self.dir])

    def unmount(self):
        self.umount('umount')

    def written(self):
        stat = read_text(f'/sys/block/{os.path.basename(self.loop)}/stat')
        return int(stat.split()[6]) * 512

    def crash(self):
        if not self.try_run(self.bench.tool('work'), 'shutdown', self.dir):
            return False
        self.umount('umount')
        return True

    def abandon(self):
        quietly('umount', '-l', self.dir)
        if self.loop:
            quietly('losetup', '-d', self.loop)
            self.loop = None

    def destroy(self):
        if os.path.ismount(self.dir):
            self.unmount()
        self.run(['losetup', '-d', self.loop])
        self.loop = None
        os.unlink(self.image)


class Ext4(KernelFilesystem):
    name = 'ext4'
    title = 'ext4 (kernel)'
    kind = 'ext4'
    mkfs = ('mkfs.ext4', '-q', '-F')

    def check(self):
        return ['e2fsck', '-f', '-n', self.loop]


class Btrfs(KernelFilesystem):
    """Work is in a subvolume, so that it can be snapshot and restored."""
    name = 'btrfs'
    title = 'btrfs (kernel)'
    kind = 'btrfs'
    mkfs = ('mkfs.btrfs', '-q', '-f')

    def work_dir(self):
        path = os.path.join(self.dir, 'w')
        if not os.path.exists(path):
            self.run(['btrfs', 'subvolume', 'create', path])
            os.mkdir(os.path.join(self.dir, 's'))
        return path

    def snapshot(self, verb, name=''):
        work, at = self.dir + '/w', f'{self.dir}/s/{name}'
        sub = ['btrfs', 'subvolume']
        restore = (f'mv {work} {work}.old && '
                   f'btrfs subvolume snapshot {at} {work} && '
                   f'btrfs subvolume delete {work}.old')
        return {'create': [*sub, 'snapshot', '-r', work, at],
                'list': [*sub, 'list', '-s', self.dir],
                'restore': ['sh', '-c', restore],
                'delete': [*sub, 'delete', at]}[verb]

    def snapshot_dir(self, name):
        return f'{self.dir}/s/{name}'

    def wait_for_space(self):
        # The first has it begin now, not half a minute later.
        self.run(['btrfs', 'filesystem', 'sync', self.dir])
        self.run(['btrfs', 'subvolume', 'sync', self.dir])

    def check(self):
        return ['btrfs', 'check', '--readonly', self.loop]

    def scrub(self):
        return ['btrfs', 'scrub', 'start', '-B', self.dir]


KINDS = {k.name: k for k in (Cowfs, Memfs, MemfsNoOpen, Fuse2fs, Ntfs3g,
                             ZfsFuse, Btrfs, Ext4)}
DEFAULT = ('cowfs', 'memfs', 'fuse2fs', 'ntfs-3g', 'zfs-fuse', 'btrfs',
           'ext4')


def timed(function):
    start = time.monotonic()
    function()
    return time.monotonic() - start
