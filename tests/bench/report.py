"""report.py - what scripts/bench shows: a table, JSON, a chart"""
import html
import json
import math
import statistics

from loads import LESS_IS_BETTER

OWN = 'cowfs'
COLUMN = 17
COLOURS = {'cowfs': '#000000', 'memfs': '#7f7f7f', 'memfs-n': '#b0b0b0',
           'fuse2fs': '#1f77b4', 'ntfs-3g': '#9467bd', 'zfs-fuse': '#2ca02c',
           'btrfs': '#d62728', 'ext4': '#ff7f0e'}


def figure(value):
    """Three digits that count."""
    if value is None:
        return '-'
    if value >= 100:
        return f'{value:.0f}'
    return f'{value:.1f}' if value >= 10 else f'{value:.2f}'


def median(values):
    return statistics.median(values) if values else None


class Results:
    """All that was measured: values[row][filesystem] is a list, one of each
    round."""

    def __init__(self, rows, filesystems):
        self.rows = rows
        self.filesystems = filesystems # (name, title)
        self.values = {}
        self.reads = {}
        self.failures = []

    def add(self, row, name, value):
        self.values.setdefault(row, {}).setdefault(name, []).append(value)

    def add_reads(self, row, name, value):
        self.reads.setdefault(row, {}).setdefault(name, []).append(value)

    def median(self, row, name):
        return median(self.values.get(row.name, {}).get(name))

    def ratio(self, row, name):
        """How many times better cowfs is; None: not known."""
        own, other = self.median(row, OWN), self.median(row, name)
        if not own or not other:
            return None
        return other / own if row.unit in LESS_IS_BETTER else own / other

    def shown_rows(self):
        return [r for r in self.rows if r.name in self.values]


def cell(results, row, name):
    value = results.median(row, name)
    ratio = results.ratio(row, name)
    text = figure(value)
    if name != OWN:
        text += f' {figure(ratio):>5}x' if ratio else ' ' * 7
    return text.rjust(COLUMN if name != OWN else 9)


def table(results):
    """Rows by filesystems: the median, and how many times better cowfs is."""
    names = [n for n, _ in results.filesystems]
    width = max([len(r.title) for r in results.shown_rows()] + [8])
    lines = [' ' * width + '       ' + ''.join(
        n.rjust(COLUMN if n != OWN else 9) for n in names)]
    for row in results.shown_rows():
        lines.append(row.title.ljust(width) + row.unit.rjust(7) + ''.join(
            cell(results, row, n) for n in names))
    lines.append('')
    lines.append('Medians; 2.0x beside one: there cowfs is twice as good. '
                 '"-": not possible there, or failed.')
    return '\n'.join(lines)


def reads_table(results):
    """Calls of read(2) by the daemons for one operation."""
    rows = [r for r in results.rows if r.name in results.reads]
    names = [n for n, _ in results.filesystems
             if any(n in results.reads[r.name] for r in rows)]
    if not rows or not names:
        return ''
    width = max(len(r.title) for r in rows)
    lines = ['Reads by the daemon for one operation: FUSE requests, and '
             'where it reads the image, those:',
             ' ' * width + ''.join(n.rjust(10) for n in names)]
    for row in rows:
        lines.append(row.title.ljust(width) + ''.join(
            figure(median(results.reads[row.name].get(n))).rjust(10)
            for n in names))
    return '\n'.join(lines)


def against(results, old):
    """What became of the rows of cowfs since another run, worst first."""
    before = {r['name']: (r['filesystems'].get(OWN) or {}).get('median')
              for r in old['rows']}
    changes = []
    for row in results.shown_rows():
        now, then = results.median(row, OWN), before.get(row.name)
        if now and then:
            better = then / now if row.unit in LESS_IS_BETTER else now / then
            changes.append((better, row, then, now))
    lines = [f'cowfs since {old["date"]} ({old["commit"]}), worst first:']
    for better, row, then, now in sorted(changes, key=lambda c: c[0]):
        lines.append(f'{figure(better):>6}x  {row.title} ({row.unit}): '
                     f'{figure(then)}, now {figure(now)}')
    return '\n'.join(lines)


def as_json(results, about):
    rows = []
    for row in results.shown_rows():
        of = {}
        for name, _ in results.filesystems:
            values = results.values[row.name].get(name)
            if not values:
                of[name] = None
                continue
            reads = results.reads.get(row.name, {}).get(name)
            of[name] = {'median': median(values), 'min': min(values),
                        'max': max(values), 'values': values,
                        'cowfs_is_better': results.ratio(row, name),
                        'reads_per_operation': median(reads)}
        rows.append({'name': row.name, 'title': row.title, 'unit': row.unit,
                     'less_is_better': row.unit in LESS_IS_BETTER,
                     'filesystems': of})
    return json.dumps(dict(about, filesystems=dict(results.filesystems),
                           rows=rows, failures=results.failures),
                      indent=1) + '\n'


# ---- the chart: a line for each row, a dot for each peer ----

LEFT, WIDTH, STEP, TOP = 340, 560, 18, 60
SPAN = 6 # octaves to each side


def x_of(ratio):
    """Left of the middle: worse than cowfs."""
    octaves = max(-SPAN, min(SPAN, -math.log2(ratio)))
    return LEFT + WIDTH * (octaves + SPAN) / (2 * SPAN)


def text(x, y, what, anchor='start', size=11):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
            f'font-size="{size}">{html.escape(what)}</text>')


def scale(bottom):
    out = []
    for octave in range(-SPAN, SPAN + 1, 2):
        x = x_of(2.0 ** -octave)
        label = f'{2 ** octave}x' if octave >= 0 else f'1/{2 ** -octave}'
        width = 1.5 if not octave else 0.5
        out.append(f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" '
                   f'y2="{bottom}" stroke="#999" stroke-width="{width}"/>')
        out.append(text(x, TOP - 12, 'cowfs' if not octave else label,
                        'middle'))
    return out


def legend(results, y):
    out, x = [], 20
    for name, title in results.filesystems:
        if name == OWN:
            continue
        out.append(f'<circle cx="{x}" cy="{y - 4}" r="4" '
                   f'fill="{COLOURS[name]}"/>')
        out.append(text(x + 8, y, title))
        x += 24 + 7 * len(title)
    return out


def as_svg(results, about):
    rows = [r for r in results.shown_rows() if results.median(r, OWN)]
    bottom = TOP + STEP * len(rows)
    out = ['<svg xmlns="http://www.w3.org/2000/svg" '
           f'width="{LEFT + WIDTH + 40}" height="{bottom + 50}" '
           'font-family="sans-serif">',
           '<rect width="100%" height="100%" fill="white"/>',
           text(10, 20, f'cowfs and others, {about["date"]}: better than '
                'cowfs to the right, worse to the left', size=13)]
    out += scale(bottom)
    for k, row in enumerate(rows):
        y = TOP + STEP * k + STEP / 2
        own = f'{figure(results.median(row, OWN))} {row.unit}'
        out.append(text(10, y + 4, row.title))
        out.append(text(LEFT - 8, y + 4, own, 'end', 10))
        for name, _ in results.filesystems:
            ratio = results.ratio(row, name)
            if name == OWN or not ratio:
                continue
            out.append(f'<circle cx="{x_of(ratio):.1f}" cy="{y:.1f}" r="4" '
                       f'fill="{COLOURS[name]}" fill-opacity="0.8"><title>'
                       f'{name}: {figure(results.median(row, name))} '
                       f'{row.unit}</title></circle>')
    out += legend(results, bottom + 24)
    out.append('</svg>\n')
    return '\n'.join(out)
