#!/bin/bash
# full.sh - a full filesystem says so, loses nothing, and gets its space back
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

claim "an image is made and mounted" eval 'new_image 128M && mount_image'
settle >"$W/out" 2>&1
NEW=$(free_blocks)
AVAIL=$(stat -f -c %a "$MNT")
head -c 200000 /dev/urandom >"$W/keep"
cp "$W/keep" "$MNT/keep"

new_again() {
	settle
	until_true 20 eval 'cowctl sync; within "$(free_blocks)" '"$NEW"' 1'
	cmp "$W/keep" "$MNT/keep"
}

# What a claim that failed may have left.
clean() {
	find "$MNT" -mindepth 1 -maxdepth 1 ! -name keep -exec rm -rf {} +
	cowctl snapshot list --json |
		sed -n 's/.*"name": "\([^"]*\)".*/\1/p' |
		xargs -r "$BIN/cowctl" "$MNT" snapshot delete
	settle
}

# On a full filesystem reading goes on, and so does committing.
usable() {
	cmp "$W/keep" "$MNT/keep"
	ls "$MNT" >/dev/null
	cowctl info >/dev/null
	cowctl sync
}

# fill NAME BLOCKSIZE COUNT. The count is a net: most of it is in the kernel's
# cache before the daemon hears of it, and fsync tells.
fill() {
	timeout 120 dd if=/dev/zero of="$MNT/$1" bs="$2" count="$3" conv=fsync
}

enospc() {
	fails "$@" 2>"$W/err"
	grep -qi 'no space left' "$W/err"
}

one_large_file() {
	clean
	enospc fill large 1M 400
	# What df called available could really be written.
	within $(($(stat -c %b "$MNT/large") / 8)) "$AVAIL" 3
	usable
	rm "$MNT/large"
	new_again
}
claim "full by one large file" one_large_file

# Files in between leave free blocks that no node fits into.
preallocated() {
	local i
	clean
	for i in $(seq 600); do
		head -c 4096 /dev/urandom >"$MNT/odd$i"
	done
	cowctl sync
	rm "$MNT"/odd*[02468]
	for i in 1 2 3 4; do
		settle
		fallocate -l $(($(stat -f -c '%a * %S' "$MNT"))) "$MNT/all"
		rm "$MNT/all"
	done
	rm "$MNT"/odd*
	new_again
}
claim "what df calls available can be preallocated, each time" preallocated

endless() {
	clean
	# A program that never calls fsync must come to know, too.
	enospc timeout 30 cat /dev/zero >"$MNT/endless"
	usable
	rm "$MNT/endless"
	new_again
}
claim "a program that writes without end is told" endless

many_small_files() {
	local i=0
	clean
	mkdir "$MNT/small"
	while head -c 6000 /dev/zero >"$MNT/small/$i" 2>"$W/err" && [ $i -lt 60000 ]; do
		i=$((i + 1))
	done
	# With the writeback cache ENOSPC may come at close: one of both.
	[ $i -gt 5000 ]
	[ $i -lt 60000 ]
	usable
	rm -rf "$MNT/small"
	new_again
}
claim "full by many small files" many_small_files

empty_files() {
	clean
	mkdir "$MNT/empty"
	enospc bash -c "cd '$MNT/empty' && for i in {1..2000000}; do
		: >a-rather-long-name-to-fill-the-leaves-sooner-\$i || exit 1
	done"
	usable
	rm -rf "$MNT/empty"
	new_again
}
if [ -n "${COWFS_LONG:-}" ]; then
	claim "full by empty files" empty_files
else
	skip "full by empty files" "takes minutes; set COWFS_LONG=1"
fi

by_snapshots() {
	local i
	clean
	head -c 20000000 /dev/urandom >"$MNT/over"
	cowctl sync
	for i in $(seq 1 50); do
		cowctl snapshot create "s$i" || break
		head -c 20000000 /dev/urandom | dd of="$MNT/over" bs=1M \
			conv=notrunc,fsync iflag=fullblock status=none || break
	done
	[ "$i" -lt 20 ] # it did fill up
	usable
	rm "$MNT/over" # works, though it frees nothing yet
	for i in $(seq "$i"); do
		cowctl snapshot delete "s$i" || [ "$i" -gt 3 ]
	done
	new_again
}
claim "full by snapshots and overwriting" by_snapshots

deletes_first() {
	clean
	# The reserve: on a full filesystem a file that a snapshot shares can
	# be removed, and then the snapshot.
	local i
	mkdir "$MNT/shared"
	for i in $(seq 2000); do
		echo "$i" >"$MNT/shared/$i"
	done
	cowctl snapshot create sharing
	enospc fill fill 1M 400
	enospc fill fill2 4k 5000
	rm -r "$MNT/shared"
	cowctl snapshot delete sharing
	rm -f "$MNT/fill" "$MNT/fill2"
	new_again
}
claim "removing files and snapshots works on a full filesystem" deletes_first

truth() {
	local before after
	clean
	settle
	before=$(free_blocks)
	head -c 40000000 /dev/urandom >"$MNT/forty"
	cowctl sync
	cowctl sync
	after=$(free_blocks)
	within $(((before - after) * 4096)) 40000000 1
	rm "$MNT/forty"
	new_again
}
claim "df tells the truth within 1%" truth

overwrite_full() {
	clean
	# In place is never in place here: overwriting needs new blocks first.
	enospc fill fill 1M 400
	dd if=/dev/urandom of="$MNT/keep2" bs=4k count=1 conv=fsync \
		status=none || :
	usable
	: >"$MNT/fill"
	rm -f "$MNT/fill" "$MNT/keep2"
	new_again
}
claim "truncating makes room on a full filesystem" overwrite_full

zeroing_fails() {
	clean
	head -c 20000000 /dev/urandom >"$MNT/zero"
	cowctl snapshot create holds # so that zeroing gives nothing back
	enospc fill fill 1M 400
	cat "$MNT/zero" >/dev/null
	enospc fallocate -z -l 20000000 "$MNT/zero"
	# What the kernel shows is what is there, zeroed or not.
	until_true 10 eval \
		'dd if="$MNT/zero" iflag=direct bs=1M | cmp - "$MNT/zero"'
	enospc fallocate -z -l 1T "$MNT/keep" # that cannot fit: nothing is done
	usable
	rm "$MNT/fill" "$MNT/zero"
	cowctl snapshot delete holds
	new_again
}
claim "zeroing that finds no room leaves one truth" zeroing_fails

# lose_extents FILE BLOCK: the leaf that says where the file has that block, and no
# other copy of it, of an image with nodes of 4 KiB that is not mounted.
lose_extents() {
	python3 - "$IMG" "$1" "$2" <<-'PY'
		import struct, sys
		path, ino, at = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
		image = bytearray(open(path, "rb").read())
		for o in range(0, len(image), 4096):
		    magic, level, tree, n = struct.unpack_from("<IBBH", image, o)
		    if magic != 0x444f4e43 or level or not n:
		        continue
		    keys = [struct.unpack_from("<QBQ", image, o + 64 + 21 * i)
		            for i in range(n)]
		    if (ino, 0x31, at) in keys:
		        image[o + 2000] ^= 0xff
		open(path, "wb").write(image)
	PY
}

truncating_fails() {
	local ino
	unmount_image
	new_image 64M -n 4K --metadata-copies 1
	mount_image
	python3 - "$MNT/pieces" <<-'PY'
		import os, sys
		fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
		for i in range(2000):
		    os.pwrite(fd, b"x" * 4096, i * 8192)
		os.fsync(fd)
	PY
	ino=$(stat -c %i "$MNT/pieces")
	unmount_image
	lose_extents "$ino" 2000
	mount_image
	tail -c 3000000 "$MNT/pieces" | md5sum
	fails dd if=/dev/null of="$MNT/pieces" # its end goes first
	until_true 10 eval 'dd if="$MNT/pieces" iflag=direct bs=1M skip=13 |
		cmp - <(dd if="$MNT/pieces" bs=1M skip=13)'
	unmount_image
	new_image 128M
	mount_image
	cp "$W/keep" "$MNT/keep"
	settle
}
if command -v python3 >/dev/null; then
	claim "nor does opening with O_TRUNC that fails leave two" truncating_fails
else
	skip "opening with O_TRUNC that fails" "no python3"
fi

# write(2) was done when the kernel had it: who asks for durability must hear.
told_of_what_is_lost() {
	local left
	clean
	left=$(stat -f -c %a "$MNT")
	fallocate -l $(((left - 1024) * 4096)) "$MNT/fill"
	exec 9>"$MNT/lost"
	dd if=/dev/urandom bs=12M count=1 iflag=fullblock status=none >&9 || :
	fails cowctl sync 2>"$W/err"
	grep -qi 'no space left' "$W/err"
	cowctl sync # said once
	exec 9>&-

	exec 9>"$MNT/lost"
	dd if=/dev/urandom bs=12M count=1 iflag=fullblock status=none >&9 || :
	rm "$MNT/lost"
	cowctl sync # nobody misses it
	exec 9>&-

	exec 9>"$MNT/lost"
	dd if=/dev/urandom bs=12M count=1 iflag=fullblock status=none >&9 || :
	fails cowctl snapshot restore lacking # nothing is told by that
	fails cowctl snapshot create lacking 2>"$W/err"
	grep -qi 'no space left' "$W/err"
	fails cowctl snapshot delete lacking 2>"$W/err"
	exec 9>&-
	rm "$MNT/lost" "$MNT/fill"
	cowctl sync # who closed it was told
	new_again
}
claim "sync and snapshots tell of what could not be stored" told_of_what_is_lost

crash_when_full() {
	clean
	enospc fill fill 1M 400
	crash
	mount_image
	cmp "$W/keep" "$MNT/keep"
	rm "$MNT/fill"
	new_again
}
claim "a crash when full loses nothing" crash_when_full

check_after "full"
finish
