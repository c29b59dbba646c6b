#!/bin/bash
# test_rescue.sh - cowctl rescue: what can be read of a damaged image
#
# Prints "ok - claim" or "not ok - claim" for each case, and a last line
# "N passed, N failed". Programs: $COWFS_BIN, or the checkout's top folder.

top=$(cd "$(dirname "$0")/../.." && pwd)
bin=${COWFS_BIN:-$top}
mkfs=$bin/mkfs.cowfs
cowctl=$bin/cowctl
dir=$(mktemp -d "${TMPDIR:-/tmp}/cowfs-cli.XXXXXX") || exit 1
mounted=
# Somebody may be looking at it just now.
unmount() {
	for _ in $(seq 50); do
		"$cowctl" "$dir/mnt" unmount --wait >/dev/null 2>&1 && break
		sleep 0.1
	done
	mounted=
}
cleanup() {
	[ -n "$mounted" ] && unmount
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
cd "$dir" || exit 1

passed=0
failed=0

report() { # STATUS CLAIM
	if [ "$1" -eq 0 ]; then
		passed=$((passed + 1))
		echo "ok - $2"
	else
		failed=$((failed + 1))
		echo "not ok - $2"
		sed 's/^/#   /' out err 2>/dev/null
	fi
}

# check STATUS CLAIM COMMAND...: the command exits with that status
check() {
	local want=$1 claim=$2 got
	shift 2
	"$@" >out 2>err </dev/null
	got=$?
	[ "$got" -eq "$want" ] || echo "exit status $got, not $want" >>err
	report $((got != want)) "$claim"
}

# true_that CLAIM COMMAND...: the command succeeds
true_that() {
	local claim=$1
	shift
	"$@"
	report $(($? != 0)) "$claim"
}

prints() { # CLAIM PATTERN FILE
	true_that "$1" grep -q -- "$2" "$3"
}

if ! [ -w /dev/fuse ]; then
	echo "skipped: no FUSE here"
	exit 0
fi
if ! command -v python3 >/dev/null; then
	echo "skipped: no python3"
	exit 0
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
check 0 "a dry run" "$cowctl" a.img rescue --dry-run dry
true_that "... makes nothing" test ! -e dry
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
for top, dirs, files in os.walk('part/d'):
    for f in files:
        name = os.path.join(top, f)
        a = open(name, 'rb').read()
        b = open(name.replace('part', 'snap', 1), 'rb').read()
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

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
