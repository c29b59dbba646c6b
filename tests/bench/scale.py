"""scale - what cowfs costs as it grows: runs tests/bench/scale, makes a table"""
import json
import os
import subprocess
import sys

GIB = 1 << 30
TIB = 1 << 40
CACHE = 128 << 20

# inodes, bytes of the image, percent of it allocated (scale.c)
CASES = (
    (10_000, 100 * GIB, 0),
    (100_000, 100 * GIB, 0),
    (100_000, 1 * GIB, 0),
    (100_000, 10 * TIB, 0),
    (1_000_000, 100 * GIB, 0),
    (1_000_000, 1 * TIB, 90),
    (1_000_000, 1 * TIB, -90),
    (10_000_000, 100 * GIB, 0),
)
QUICK = CASES[:4]

# Title, and what scale calls it.
COLUMNS = (
    ('create', 'create_ns'), ('cpu', 'create_cpu_ns'),
    ('lookup', 'lookup_ns'), ('cpu', 'lookup_cpu_ns'),
    ('stat', 'stat_ns'), ('cpu', 'stat_cpu_ns'),
    ('readdir', 'readdir_ns'),
    ('unlink', 'unlink_ns'), ('cpu', 'unlink_cpu_ns'),
    ('mount', 'mount_ms'), ('cpu', 'mount_cpu_ms'),
    ('fsck', 'fsck_s'), ('scrub', 'scrub_s'),
)
MEMORY = (
    ('create', 'create_mib'), ('mount', 'mount_mib'),
    ('lookup', 'lookup_mib'), ('unlink', 'unlink_mib'),
    ('fsck', 'fsck_mib'), ('scrub', 'scrub_mib'),
)


def human(size):
    return f'{size // TIB} TiB' if size >= TIB else f'{size // GIB} GiB'


def one(tool, folder, inodes, size, fill):
    image = os.path.join(folder, 'scale.img')
    try:
        done = subprocess.run([tool, image, str(size), str(inodes),
                               str(CACHE), str(fill)],
                              stdout=subprocess.PIPE, text=True, check=False)
    finally:
        if os.path.exists(image):
            os.unlink(image)
    if done.returncode:
        return None
    return {k: float(v) for k, v in (line.split() for line in
                                     done.stdout.splitlines())}


def label(case):
    inodes, size, fill = case['inodes'], case['bytes'], case['fill']
    text = f'{inodes:,} in {human(size)}'
    if fill:
        text += f', {abs(fill)}% full' + (', holes' if fill < 0 else '')
    return text


def table(results, columns, head):
    width = max(len(label(r)) for r in results)
    lines = [head, ' ' * width + ''.join(f'{t:>9}' for t, _ in columns)]
    for r in results:
        lines.append(f'{label(r):{width}}' + ''.join(
            f'{r[k]:>9.{0 if r[k] >= 100 else 1}f}' for _, k in columns))
    return '\n'.join(lines)


def run(tool, folder, quick, json_file):
    results = []
    failed = False
    for inodes, size, fill in QUICK if quick else CASES:
        if sys.stderr.isatty():
            print(f'\r\033[K{inodes} inodes in {human(size)}', end='',
                  file=sys.stderr, flush=True)
        got = one(tool, folder, inodes, size, fill)
        if sys.stderr.isatty():
            print('\r\033[K', end='', file=sys.stderr, flush=True)
        if got is None:
            failed = True
            continue
        results.append({'inodes': inodes, 'bytes': size, 'fill': fill,
                        'cache': CACHE, **got})
    if results:
        print(table(results, COLUMNS,
                    'Median in ns; cpu: mean CPU time in ns, commits '
                    'included (readdir: per entry).\n'
                    'mount in ms; fsck and scrub: CPU time in s.'))
        print()
        print(table(results, MEMORY,
                    f'Peak memory in MiB beyond the program, cache='
                    f'{CACHE >> 20}M.'))
    if json_file:
        with open(json_file, 'w', encoding='utf-8') as f:
            json.dump(results, f, indent=1)
    return 1 if failed or not results else 0
