"""run.py - running commands for scripts/bench, and clearing up after them"""
import fcntl
import glob
import os
import shutil
import signal
import subprocess
import time

OWN_PREFIX = 'cowfs-bench-'


class Failed(Exception):
    """One row of one filesystem failed; others go on."""


class Unusable(Failed):
    """The filesystem hangs or its daemon has died: its rows here are over."""


class TooSlow(Unusable):
    """Nor need it be tried again."""


class Runner:
    """Runs commands, one at a time, each with a time limit."""

    def __init__(self, scratch, timeout):
        self.timeout = timeout
        self.child = None
        self.env = dict(os.environ, LC_ALL='C', HOME=scratch,
                        GIT_CONFIG_GLOBAL='/dev/null',
                        GIT_CONFIG_NOSYSTEM='1')

    def run(self, argv, cwd=None, ok=(0,)):
        """Standard output of a command that ends with a status in ok."""
        # Its own session: all that it starts can be ended with it.
        self.child = subprocess.Popen(
            argv, cwd=cwd, env=self.env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors='replace', start_new_session=True)
        try:
            out, err = self.child.communicate(timeout=self.timeout)
        except subprocess.TimeoutExpired:
            self.end_child()
            raise TooSlow(f'{argv[0]}: no end after {self.timeout} s')
        status = self.child.returncode
        self.child = None
        if status not in ok:
            last = (err.strip() or out.strip() or '-').splitlines()[-1]
            raise Failed(f'{os.path.basename(argv[0])}: {status}: {last}')
        return out

    def end_child(self):
        """Kill what runs. It may hang in the kernel until its filesystem's
        daemon is gone, so nobody waits for it here."""
        if self.child:
            try:
                os.killpg(self.child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.child = None


def retry(seconds, function, pause=0.01):
    """Until function() is true, or time is up: False."""
    end = time.monotonic() + seconds
    while not function():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True


def unescape(field):
    for code, char in (('\\040', ' '), ('\\011', '\t'), ('\\012', '\n'),
                       ('\\134', '\\')):
        field = field.replace(code, char)
    return field


def mounts_below(folder):
    """Mount points at or below it, innermost first."""
    found = []
    with open('/proc/self/mounts', encoding='utf-8',
              errors='surrogateescape') as f:
        for line in f:
            where = unescape(line.split(' ')[1])
            if where == folder or where.startswith(folder + '/'):
                found.append(where)
    return sorted(found, key=len, reverse=True)


def drop_cache(image):
    """The pages of an image that is not in use leave memory. What else there
    is stays: programs would have to be read again, and be part of the row."""
    fd = os.open(image, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def users_of(folder):
    """Processes whose command line names the folder: those of this run."""
    mine = (os.getpid(), os.getppid())
    name = (folder + '/').encode()
    found = []
    for path in glob.glob('/proc/[0-9]*/cmdline'):
        pid = int(path.split('/')[2])
        try:
            with open(path, 'rb') as f:
                if name in f.read() and pid not in mine:
                    found.append(pid)
        except OSError:
            continue
    return found


def kill_users_of(folder):
    for pid in users_of(folder):
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            continue


def quietly(*argv):
    subprocess.run(argv, check=False, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def loops_below(folder):
    for path in glob.glob('/sys/block/loop*/loop/backing_file'):
        try:
            with open(path, encoding='utf-8') as f:
                if f.read().startswith(folder + '/'):
                    yield '/dev/' + path.split('/')[3]
        except OSError:
            continue


def clear(folder):
    """Whatever state a run was in: nothing of it stays."""
    kill_users_of(folder)
    for where in mounts_below(folder):
        quietly('umount', '-l', where)
        if where in mounts_below(folder):
            quietly('fusermount3', '-uz', where)
    retry(20, lambda: not users_of(folder))
    # A lazy unmount of a kernel's filesystem may still be writing.
    for loop in list(loops_below(folder)):
        quietly('losetup', '-d', loop)
    retry(10, lambda: not list(loops_below(folder)))
    if mounts_below(folder):
        raise SystemExit(f'bench: {folder}: something is still mounted there')
    shutil.rmtree(folder, ignore_errors=True)


class Scratch:
    """The folder for all images and mount points. What a killed run left
    behind is found by its lock being free, and cleared."""

    def __init__(self, base):
        base = os.path.realpath(base)
        os.makedirs(base, exist_ok=True)
        for old in glob.glob(os.path.join(base, OWN_PREFIX + '*')):
            self.clear_if_left(old)
        self.path = os.path.join(base, f'{OWN_PREFIX}{os.getpid()}')
        os.mkdir(self.path, 0o700)
        self.lock = os.open(os.path.join(self.path, 'lock'),
                            os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    @staticmethod
    def clear_if_left(folder):
        try:
            fd = os.open(os.path.join(folder, 'lock'), os.O_RDWR)
        except OSError:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            clear(folder)
        except OSError:
            pass # another run's, at work
        finally:
            os.close(fd)

    def close(self):
        clear(self.path)
        os.close(self.lock)
