#!/bin/bash
# test_rescue.sh - cowctl rescue: what can be read of a damaged image
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

if ! can_mount; then
	skip "rescue" "no usable /dev/fuse to make images with"
	finish
fi
if ! command -v python3 >/dev/null; then
	skip "rescue" "no python3"
	finish
fi

# All that is to be seen of a tree: names, attributes, contents.
picture() { # DIR
	(
		cd "$1" || exit
		find . -mindepth 1 -printf '%P %y %m %U %G %T@ %n %l\n' |
			sort
		find . -type f -exec sha256sum {} + | sort -k2
		find . -print0 | sort -z |
			xargs -0 getfattr -h -d -m - 2>/dev/null
	)
}

# nodes FILE: offset, generation, level of each node of a file tree
nodes() {
	python3 - "$1" <<'PY'
import sys
image = open(sys.argv[1], 'rb').read()
for at in range(20 * 4096, len(image), 4096):
    head = image[at:at + 64]
    if head[:4] == b'CNOD' and head[5] == 0:
        print(at, int.from_bytes(head[16:24], 'little'), head[4],
              int.from_bytes(head[8:16], 'little'))
PY
}

spoil() { # FILE OFFSET...
	local file=$1 at
	shift
	for at; do
		printf 'spoilt' | dd of="$file" bs=1 seek=$((at + 1000)) \
			conv=notrunc status=none
	done
}

# Every fifth leaf, both copies.
spoil_leaves() { # FILE
	local list blk
	list=$(nodes "$1")
	for blk in $(awk '$3 == 0 { print $4 }' <<<"$list" | sort -nu |
		sed -n '3~5p'); do
		# shellcheck disable=SC2046
		spoil "$1" $(awk -v b="$blk" '$4 == b { print $1 }' <<<"$list")
	done
}

populate() {
	mkdir -p mnt/d/deep/er mnt/private
	python3 -c '
import os
for i in range(1, 301):
    with open(f"mnt/d/file-{i}-with-a-long-name", "wb") as f:
        f.write(os.urandom(i * 37))'
	head -c 3000000 /dev/urandom >mnt/d/deep/large
	truncate -s 20M mnt/sparse
	printf end | dd of=mnt/sparse bs=1 seek=15000001 conv=notrunc status=none
	ln mnt/d/file-7-with-a-long-name mnt/d/deep/er/again
	ln -s ../large mnt/d/deep/er/link
	# in nodes of 4 KiB its target takes three items
	ln -s "$(printf 'far/%.0s' $(seq 600))away" mnt/long
	mkfifo -m 604 mnt/fifo
	chmod 4751 mnt/d/file-8-with-a-long-name
	chmod 1770 mnt/private
	setfattr -n user.note -v hello mnt/d/file-9-with-a-long-name
	setfattr -n user.dir -v there mnt/private
	[ "$(id -u)" -ne 0 ] || chown -h 1234:5678 mnt/d/deep/er/link mnt/private
	touch -d '2001-02-03 04:05:06.789' mnt/d/deep/large mnt/d/deep
	"$cowctl" mnt snapshot create 'then' >/dev/null
}

"$mkfs" -q -s 64M --node-size 4096 a.img || exit 1
mkdir mnt
"$bin/cowfs" a.img mnt || exit 1
mounted=1
populate
picture mnt >before
rm -r mnt/d/deep
picture mnt >after
check 8 "a mounted image is refused" "$cowctl" a.img rescue out
unmount

# ---- a sound image ----

check 2 "rescue wants a directory" "$cowctl" a.img rescue
check 2 "--scan and --snapshot exclude each other" \
	"$cowctl" a.img rescue --scan --snapshot 'then' dir
check 2 "... not two" "$cowctl" a.img rescue one two
check 0 "a dry run needs none" "$cowctl" a.img rescue --dry-run
check 0 "a dry run" "$cowctl" a.img rescue --dry-run dry
true_that "... makes nothing" test ! -e dry
counted() { # what was counted, of $seen
	sed -n 's/.*: \([0-9]* files, [0-9]* directories\).*/\1/p' "$seen"
}
dry=$(counted)
"$cowctl" a.img rescue wet >"$seen" 2>&1
true_that "... and counts as one that writes" [ "$dry" = "$(counted)" ]
rm -rf wet
sum=$(sha256sum <a.img)
check 0 "everything is rescued from a sound image" "$cowctl" a.img rescue live
picture live >got
true_that "... with names, modes, owners, times, xattrs, links" cmp after got
true_that "... and holes" test "$(du -k live/sparse | cut -f1)" -lt 100
check 0 "... from a snapshot" "$cowctl" a.img rescue --snapshot 'then' snap
picture snap >got
true_that "... too" cmp before got
check 8 "a snapshot that is not there" \
	"$cowctl" a.img rescue --snapshot none none
true_that "the image is what it was" test "$sum" = "$(sha256sum <a.img)"

# ---- what is there stays ----

mkdir -p there/d elsewhere
echo mine >there/sparse
ln -s "$dir/elsewhere" there/private
echo mine >there/d/file-8-with-a-long-name
check 1 "existing files are not overwritten" "$cowctl" a.img rescue there
prints "... which is said" "/sparse: not overwritten" out
true_that "... they are what they were" test "$(cat there/sparse)" = mine
true_that "... in directories, too" \
	test "$(cat there/d/file-8-with-a-long-name)" = mine
true_that "... the others are there" cmp -s live/d/file-9-with-a-long-name \
	there/d/file-9-with-a-long-name
true_that "symlinks are not followed" \
	test -z "$(ls -A elsewhere)" -a -L there/private

# Of a name that somebody made to drive the terminal of whoever rescues.
if [ "$(id -u)" = 0 ]; then
	cp a.img x.img
	mkdir -p mnt
	"$bin/cowfs" x.img mnt && mounted=1
	setfattr -n $'trusted.\e[2J' -v x mnt/d/file-9-with-a-long-name
	unmount
	mkdir -m 777 byother
	chmod 755 "$dir"
	chown 65534 x.img
	check 1 "an xattr that only root may set is missing" setpriv \
		--reuid 65534 --clear-groups "$cowctl" x.img rescue byother
	prints "... and its name drives no terminal" 'trusted[.]\\x1b\[2J' out
	chmod 700 "$dir"
fi

# ---- a file that is too large for where it goes ----

small() { # of more than 1 MiB nothing is written
	(ulimit -f 1024 && "$cowctl" a.img rescue "$@")
}
check 1 "a file that cannot be written whole" small --snapshot 'then' small
true_that "... is said once" test "$(grep -c 'deep/large' out)" = 1
prints "... with what is missing of it" \
	"large: bytes 1048576 to 2999999: writing: File too large" out
true_that "... the rest of it is there" \
	cmp -s <(head -c 1048576 snap/d/deep/large) small/d/deep/large
true_that "... with its attributes" test "$(stat -c '%a %Y' snap/d/deep/large)" \
	= "$(stat -c '%a %Y' small/d/deep/large)"

# ---- no superblock ----

cp a.img b.img
for at in 16 17 18 19; do
	dd if=/dev/zero of=b.img bs=4096 seek=$at count=1 conv=notrunc status=none
	dd if=/dev/zero of=b.img bs=4096 seek=$((16384 - 20 + at)) count=1 \
		conv=notrunc status=none
done
check 8 "without a superblock there is no tree" "$cowctl" b.img rescue none
check 0 "... unless it is searched for" "$cowctl" b.img rescue --scan found
picture found >got
true_that "... and all is there" cmp after got

# ---- lost leaves ----

cp a.img c.img
spoil_leaves c.img
check 1 "a tree with holes is rescued in part" \
	"$cowctl" c.img rescue --snapshot 'then' --json part
true_that "... its JSON can be parsed" python3 -c '
import json
j = json.load(open("out"))
assert j["lost_nodes"] > 0 and not j["complete"], j'
wrong=0
# what is there has the right bytes, or zeros where some are lost
python3 - <<'PY' || wrong=1
import os
n = 0
places = {f: os.path.join(top, f) for top, dirs, files in os.walk('snap')
          for f in files}
for top, dirs, files in os.walk('part'):
    for f in files:
        name = os.path.join(top, f)
        # a name may be lost; a fifo would wait; of a lost inode nobody
        # knows that it was a symlink
        if f not in places or os.path.islink(name) or \
                os.path.islink(places[f]) or not os.path.isfile(name):
            continue
        a = open(name, 'rb').read()
        b = open(places[f], 'rb').read()
        n += 1
        for i in range(0, len(a), 4096):
            piece = a[i:i + 4096]
            # of a lost inode the size is not known: zeros follow the end
            want = b[i:i + 4096].ljust(len(piece), b'\0')
            assert piece == want or not any(piece), name
assert n
PY
true_that "... no wrong byte among them" test $wrong -eq 0
whole=$(find snap -type f | wc -l)
true_that "... most of it is there" \
	test "$(find part -type f | wc -l)" -gt $((whole / 3))

# ---- lost data ----

cp a.img d.img
python3 - <<'PY'
want = open('snap/d/deep/large', 'rb').read()
with open('d.img', 'r+b') as f:
    image = f.read()
    for i in (3, 4, 500):
        at = image.index(want[i * 4096:(i + 1) * 4096])
        f.seek(at + 17)
        f.write(b'rotten')
PY
check 1 "lost blocks are holes" "$cowctl" d.img rescue --snapshot 'then' holes
prints "... and said, with their range" \
	"large: bytes 12288 to 20479: cannot be read" out
prints "... each of them" "large: bytes 2048000 to 2052095:" out
true_that "... the rest is right" python3 -c '
a = open("holes/d/deep/large", "rb").read()
b = bytearray(open("snap/d/deep/large", "rb").read())
for i in (3, 4, 500):
    b[i * 4096:(i + 1) * 4096] = bytes(4096)
assert a == bytes(b)'

# ---- data of which there is an extra copy ----

# places FILE: where in e.img the fourth block of it lies
places() {
	python3 - "$1" <<'PY'
import sys
piece = open(sys.argv[1], 'rb').read()[3 * 4096:4 * 4096]
image = open('e.img', 'rb').read()
print(*(at for at in range(0, len(image), 4096)
        if image[at:at + 4096] == piece))
PY
}

"$mkfs" -q -s 16M --redundancy 2 e.img
"$bin/cowfs" e.img mnt || exit 1
mounted=1
head -c 100000 /dev/urandom >want.e
cp want.e mnt/shared
"$cowctl" mnt snapshot create 'then' >/dev/null
unmount
for _ in 1 2 3 4 5; do # what was not done goes on with the next mount
	read -r first second <<<"$(places want.e)"
	[ -z "$second" ] || break
	"$bin/cowfs" e.img mnt || exit 1
	mounted=1
	sleep 0.5
	unmount
done
spoil e.img "$first"
check 0 "data of which an extra copy is good" "$cowctl" e.img rescue extra
true_that "... are rescued from it" cmp want.e extra/shared
check 0 "... of a snapshot, too" \
	"$cowctl" e.img rescue --snapshot 'then' extra2
true_that "... from the same" cmp want.e extra2/shared
spoil e.img "$second"
check 1 "... unless that is lost, too" "$cowctl" e.img rescue extra3
prints "... which is said" "shared: bytes 12288 to 16383: cannot be read" out

# ---- what only the log has ----

# crash IMAGE...: the mounted images as a power cut leaves them, IMAGE.cut, after
# fsyncs of which the first ones carry their data in the log, the last one not
crash() {
	python3 - "$@" <<'PY'
import os, shutil, sys
keep = []
def sync(name, data, at=0):
    fd = os.open(name, os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, data, at)
    os.fsync(fd)
    keep.append(fd)  # its close asks for a commit
def mark(n, size):
    return (b'mark %08d ' % n * (size // 14 + 1))[:size]
sync('mnt/old', mark(1, 5 * 4096), 4096)
sync('mnt/fresh', mark(2, 20000))
sync('mnt/inline', b'tiny')
os.setxattr('mnt/fresh', 'user.late', b'x' * 3000)
os.unlink('mnt/gone')
os.rename('mnt/from', 'mnt/sub/to')
sync('mnt/large', bytes(os.urandom(1 << 20)))
for image in sys.argv[1:]:
    shutil.copy(image, image + '.cut')
PY
}

log_populate() {
	mkdir mnt/sub
	head -c 100000 /dev/urandom >mnt/old
	echo gone >mnt/gone
	head -c 9000 /dev/urandom >mnt/from
	for i in $(seq 400); do echo "$i" >"mnt/sub/$i"; done
	# the last close asks for a commit, too; none is to come later
	sleep 1
	"$cowctl" mnt sync
}

# outside FILE PATTERN: wipes blocks that hold the pattern but for the log's
outside() {
	python3 - "$1" "$2" <<'PY'
import sys
with open(sys.argv[1], 'r+b') as f:
    image, pat, n = f.read(), sys.argv[2].encode(), 0
    for at in range(0, len(image), 4096):
        # the log of 64 MiB: 64 blocks from the 32nd on
        if not 32 <= at // 4096 < 96 and pat in image[at:at + 4096]:
            f.seek(at)
            f.write(bytes(4096))
            n += 1
assert n, 'not there'
PY
}

"$mkfs" -q -s 64M --node-size 4096 l.img
"$bin/cowfs" -o commit=300 l.img mnt || exit 1
mounted=1
log_populate
crash l.img
unmount
cp l.img.cut l1.img
"$bin/cowfs" -o ro l1.img mnt || exit 1
mounted=1
picture mnt >want
cp -r mnt want.d
unmount
true_that "mounted after the crash all is there" \
	grep -qx "# file: fresh" want
sum=$(sha256sum <l1.img)
check 0 "what only the log has is rescued" "$cowctl" l1.img rescue log
prints "... which is said" "the log has .* fsyncs" out
picture log >got
true_that "... all of it" cmp want got
true_that "... and nothing is written" test "$sum" = "$(sha256sum <l1.img)"

# Most superblocks, all maps and the snapshot tree, most leaves of the files:
# a mount has no way to apply the log.
cp l1.img l2.img
dd if=/dev/zero of=l2.img bs=4096 seek=16380 count=4 conv=notrunc status=none
outside l2.img "mark 00000001"
outside l2.img "mark 00000002"
python3 - <<'PY'
with open('l2.img', 'r+b') as f:
    image = f.read()
    for at in range(96 * 4096, len(image), 4096):
        head = image[at:at + 64]
        # not the root of the file tree, nor where the name and inode of old are
        if head[:4] == b'CNOD' and (head[5] != 0 or (head[4] == 0 and
                b'\x08old' not in image[at:at + 4096])):
            f.seek(at + 100)
            f.write(b'spoilt')
PY
check 1 "with the maps gone a mount does not apply it" "$bin/cowfs" l2.img mnt
check 1 "... a rescue does" "$cowctl" l2.img rescue log2
true_that "... a new file" cmp want.d/fresh log2/fresh
true_that "... one in its inode" cmp want.d/inline log2/inline
true_that "... one whose data are in place" cmp want.d/large log2/large
true_that "... what was written to an old one" cmp \
	<(tail -c +4097 want.d/old | head -c 20480) \
	<(tail -c +4097 log2/old | head -c 20480)
true_that "... what was removed is not" test ! -e log2/gone

# The last fsync did not return: its data are not there.
cp l1.img l3.img
python3 - <<'PY'
data = open('want.d/large', 'rb').read()
with open('l3.img', 'r+b') as f:
    f.seek(f.read().index(data[99 * 4096:100 * 4096]))
    f.write(b'never arrived')
PY
"$bin/cowfs" -o ro l3.img mnt || exit 1
mounted=1
picture mnt >want
unmount
check 0 "a record whose data did not arrive" "$cowctl" l3.img rescue log3
picture log3 >got
true_that "... is left out, as by a mount" cmp want got

cp l1.img l4.img
for at in 16 17 18 19; do
	dd if=/dev/zero of=l4.img bs=4096 seek=$at count=1 conv=notrunc status=none
	dd if=/dev/zero of=l4.img bs=4096 seek=$((16384 - 20 + at)) count=1 \
		conv=notrunc status=none
done
check 1 "without superblocks the log fits nothing" \
	"$cowctl" l4.img rescue --scan log4
prints "... which is said" "only in the log" out

# ---- the first MiB is gone, with superblocks and the log ----

head -c 1048576 /dev/zero | dd of=l1.img bs=1M conv=notrunc status=none
check 1 "without the first MiB it is another state" \
	"$cowctl" l1.img rescue --dry-run none
prints "... which is said" "superblocks were wiped: this is generation" out
check 1 "... in JSON, too" "$cowctl" l1.img rescue --dry-run --json none
prints "... by a word of its own" '"in_doubt": true' out
check 4 "... and by fsck" "$bin/fsck.cowfs" -n l1.img
prints "... with the generation" "a mount goes on with generation" out
prints "... and the slots" "near copy, block 1[6-9]: is empty" out
"$bin/cowfs" -f l1.img mnt >err 2>&1 &
for _ in $(seq 100); do
	mountpoint -q mnt && break
	sleep 0.1
done
mounted=1
unmount
prints "... and by a mount" "superblocks were wiped: going on" err
check 0 "... which makes them good" "$bin/fsck.cowfs" -n l1.img

"$mkfs" -q -s 64M wiped.img
"$bin/cowfs" wiped.img mnt || exit 1
mounted=1
for i in 1 2 3 4 5; do
	echo "$i" >"mnt/file$i"
	"$cowctl" mnt sync
done
unmount
head -c 1048576 /dev/zero | dd of=wiped.img bs=1M conv=notrunc status=none
check 0 "of one that was unmounted nothing is missing" \
	"$cowctl" wiped.img rescue --dry-run none
check 4 "... but superblocks, says fsck" "$bin/fsck.cowfs" -n wiped.img
true_that "... and that is all" eval '! grep -q "goes on with" out'
check 1 "... and mends it" "$bin/fsck.cowfs" -p wiped.img
check 0 "... for good" "$bin/fsck.cowfs" -n wiped.img

# ---- a newest state that is not whole ----

"$mkfs" -q -s 64M --node-size 4096 n.img
"$bin/cowfs" -o commit=300 n.img mnt || exit 1
mounted=1
for i in 1 2 3; do
	head -c 20000 /dev/urandom >mnt/one$i
	"$cowctl" mnt sync
done
for i in 4 5 6; do head -c 20000 /dev/urandom >mnt/one$i; done
cp mnt/one6 want6
"$cowctl" mnt sync
cp n.img n1.img
cp -r mnt want.n
unmount
check 0 "after a crash all is rescued" "$cowctl" n1.img rescue whole
python3 - <<'PY'
with open('n1.img', 'r+b') as f:
    at = f.read().index(open('want6', 'rb').read()[4096:8192])
    f.seek(at)
    f.write(b'rotten')
PY
check 1 "a block went bad after it" "$cowctl" n1.img rescue proven
true_that "... that is all that is missing" eval \
	'grep -q "1 missing" out && cmp want.n/one5 proven/one5'
# As if the power had gone before the near copy of the superblock was written
# once more: nothing says that the commit was complete.
python3 - <<'PY'
with open('n1.img', 'r+b') as f:
    image = f.read()
    at = max(range(16, 20), key=lambda b: int.from_bytes(
        image[b * 4096 + 0x78:b * 4096 + 0x80], 'little')) * 4096
    far = len(image) - 20 * 4096 + at
    f.seek(at)
    f.write(image[far:far + 4096])
PY
check 1 "a block of it did not arrive" "$cowctl" n1.img rescue older
true_that "... the state before is rescued" cmp want.n/one3 older/one3
prints "... it is said that there is a newer one" "generation .* is newer" out
gen=$(sed -n 's/.*--backup-super \([0-9]*\) .*/\1/p' out)
check 1 "... which can be asked for" \
	"$cowctl" n1.img rescue --backup-super "$gen" newest
true_that "... and has all but that block" cmp want.n/one5 newest/one5
prints "... which is said" "one6: bytes 4096 to 8191" out

# ---- mirrors ----

"$mkfs" -q -s 64M --node-size 4096 --mirror m1.img m2.img
"$bin/cowfs" -o commit=300 m1.img mnt || exit 1
mounted=1
log_populate
crash m1.img m2.img
unmount
mkdir m
mv m1.img.cut m/1
mv m2.img.cut m/2
"$bin/cowfs" -o ro m/1 mnt || exit 1
mounted=1
picture mnt >want
unmount
# each side lacks something that the other has
outside m/2 "mark 00000002"
dd if=/dev/zero of=m/1 bs=4096 seek=32 count=64 conv=notrunc status=none
sums=$(sha256sum m/1 m/2)
check 0 "of a mirror either side's log will do" "$cowctl" m/1 rescue mirror
picture mirror >got
true_that "... all is there" cmp want got
check 0 "... whichever is named" "$cowctl" m/2 rescue mirror2
picture mirror2 >got
true_that "... too" cmp want got
true_that "... and neither is written" test "$sums" = "$(sha256sum m/1 m/2)"
mv m/2 elsewhere.img
check 0 "of one that has no log what was committed is rescued" \
	"$cowctl" m/1 rescue alone
true_that "... as it was then" test -e alone/gone -a ! -e alone/fresh
true_that "... which is said" grep -q 'side 1 of the mirror is missing' err

# ---- very deep ----

# depth DIR COMMAND: down a chain of directories, a step at a time
depth() { # make|look DIR
	python3 - "$1" "$2" "${RESCUE_DEPTH:-20000}" <<'PY'
import os, sys
make, top, n = sys.argv[1] == 'make', sys.argv[2], int(sys.argv[3])
os.chdir(top)
for i in range(n):
    if make:
        os.mkdir('deep-%d' % i)
    os.chdir('deep-%d' % i)
    if i % 1000 == 999 or i == n - 1:
        if make:
            open('file', 'w').write(str(i))
            os.chmod('.', 0o1751)
        else:
            assert open('file').read() == str(i), i
            assert os.stat('.').st_mode & 0o7777 == 0o1751, i
PY
}

"$mkfs" -q -s 256M deep.img
"$bin/cowfs" deep.img mnt || exit 1
mounted=1
depth make mnt
unmount
# Opened from the top each time it would be some 400 million steps.
check 0 "a very deep tree is rescued in little time" \
	timeout 60 "$cowctl" deep.img rescue deep
true_that "... down to the lowest file" depth look deep

finish
