#!/bin/bash
# test_repair.sh - fsck.cowfs that repairs, as a user sees it
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# log FILE RECORD: flip a bit in that record of the newest log.
log() {
	python3 - "$@" <<'PY'
import sys
with open(sys.argv[1], 'r+b') as f:
    image = f.read()
    records = {}
    for at in range(20 * 4096, len(image), 4096):
        if image[at:at + 4] == b'CLOG':
            base = int.from_bytes(image[at + 16:at + 24], 'little')
            seq = int.from_bytes(image[at + 24:at + 32], 'little')
            records.setdefault(base, {})[seq] = at
    at = records[max(records)][int(sys.argv[2])] + 60
    f.seek(at + 8)
    f.write(bytes([image[at + 8] ^ 8]))
PY
}

# hurt FILE: damage both copies of a leaf of the live tree, found by the magic
# at its head, its level, and the kind of its tree.
hurt() {
	python3 - "$1" <<'PY'
import sys
name = sys.argv[1]
with open(name, 'r+b') as f:
    image = f.read()
    leaves = {}
    for at in range(20 * 4096, len(image), 4096):
        head = image[at:at + 64]
        if head[:4] == b'CNOD' and head[4] == 0 and head[5] == 0:
            gen = int.from_bytes(head[16:24], 'little')
            leaves.setdefault(int.from_bytes(head[8:16], 'little'),
                              []).append((gen, at))
    # the newest generation of all is surely part of the live tree
    blk = max(leaves, key=lambda b: max(leaves[b]))
    for gen, at in leaves[blk]:
        f.seek(at + 200)
        f.write(b'\xff\x00\xff\x00')
PY
}

# asked ANSWER: fsck.cowfs -i on a terminal, on which that is typed
asked() {
	{ sleep 1; printf '%b' "$1"; sleep 1; } |
		script -qec "exec $fsck -i a.img" /dev/null
}

# ---- options ----

truncate -s 64M a.img
"$mkfs" a.img >/dev/null || exit 1
check 16 "-n and -y exclude each other" "$fsck" -n -y a.img
check 16 "-p and -y exclude each other" "$fsck" -p -y a.img
check 0 "-p and -a are the same" "$fsck" -p -a a.img
check 16 "-i without a terminal is refused" "$fsck" -i a.img
check 16 "--punch wants -y" "$fsck" --punch -p a.img
check 16 "--undo goes with nothing" "$fsck" --undo -y a.img
check 16 "--backup-super wants a number" "$fsck" --backup-super x a.img
check 8 "a generation that is not there" "$fsck" --backup-super 99 a.img
prints "... those that are there are listed" "Generations" err
check 0 "a sound image needs no repair" "$fsck" -y a.img
check 8 "nothing to undo" "$fsck" --undo a.img

# ---- superblocks ----

printf 'xxxx' | dd of=a.img bs=1 seek=65600 conv=notrunc status=none
check 4 "a damaged superblock is found" "$fsck" a.img
check 36 "-i asks, and can be interrupted there" asked '\003'
prints "... before it did anything" "Repair?" out
check 4 "... or told no" asked 'n\n'
check 1 "-p mends it" "$fsck" -p a.img
check 0 "... for good" "$fsck" a.img

# ---- a mounted one ----

if can_mount && mkdir mnt && "$bin/cowfs" a.img mnt 2>err; then
	mounted=1
	mkdir mnt/d
	for i in $(seq 200); do
		head -c 3000 /dev/zero | tr '\0' "$((i % 10))" >"mnt/d/f$i"
	done
	check 8 "a mounted image is not repaired" "$fsck" -y a.img
	unmount
	check 0 "it is sound" "$fsck" --data a.img

	cp a.img before.img
	hurt a.img
	check 4 "a leaf without a good copy is found" "$fsck" a.img
	check 4 "-p leaves it" "$fsck" -p a.img
	prints "... and says what to do" "fsck.cowfs -y" err
	check 1 "-y cuts it out" "$fsck" -y a.img
	prints "... and says what was lost" "is cut out" out
	check 0 "the image is clean then" "$fsck" --data a.img
	check 0 "that can be undone" "$fsck" --undo a.img
	check 4 "... the damage is back" "$fsck" a.img
	check 8 "... and cannot be undone twice" "$fsck" --undo a.img
	check 1 "-y again" "$fsck" -y a.img
	true_that "it can be mounted" "$bin/cowfs" a.img mnt
	mounted=1
	true_that "... and written" touch mnt/new
	unmount
	check 0 "... and is clean" "$fsck" --data a.img

	# ---- the log ----

	"$mkfs" -f a.img >/dev/null
	"$bin/cowfs" a.img mnt -o commit=300
	mounted=1
	"$cowctl" mnt sync
	for i in 1 2 3 4 5; do
		eval "exec 1$i>mnt/f$i" # else a commit follows the last close
		dd if=/dev/zero of="mnt/f$i" bs=3000 count=1 conv=fsync \
			status=none
	done
	cp a.img log.img # as a crash leaves it: nothing is being written
	exec 11>&- 12>&- 13>&- 14>&- 15>&-
	unmount
	cp log.img whole.img
	check 0 "a log is no damage" "$fsck" -n log.img
	prints "... and what will be replayed is told" "log has 5 fsyncs" out
	check 0 "-y leaves it to the next mount" "$fsck" -y log.img
	true_that "... nothing was written" cmp log.img whole.img
	log log.img 2
	cp log.img rotten.img
	check 4 "rot within the log is found" "$fsck" -n log.img
	prints "... by its name" "^log-damaged: record 2: " out
	prints "... and what is before it" "log has 2 fsyncs" out
	check 4 "-p leaves it" "$fsck" -p log.img
	prints "... and says what to do" "fsck.cowfs -y" err
	true_that "... nothing was written" cmp log.img rotten.img
	check 1 "-y replays what can be" "$fsck" -y log.img
	prints "... and says so" "2 records of the log are applied" out
	prints "... and what it gives up" "is given up" out
	check 0 "the image is clean then" "$fsck" -n --data log.img
	true_that "... nothing is left to replay" eval '! grep -q fsync out'
	true_that "it can be mounted" "$bin/cowfs" log.img mnt
	mounted=1
	true_that "... with what came before the damage" eval \
		'[ "$(echo mnt/*)" = "mnt/f1 mnt/f2" ]'
	unmount
	true_that "a mount does the same" eval \
		'"$bin/cowfs" rotten.img mnt && mounted=1 &&
		[ "$(echo mnt/*)" = "mnt/f1 mnt/f2" ]'
	unmount
	log whole.img 4
	check 0 "a rotten last record looks like its end" "$fsck" whole.img
	prints "... and is not counted" "log has 4 fsyncs" out
else
	skip "repair of a filesystem with files" "no usable /dev/fuse"
fi

finish
