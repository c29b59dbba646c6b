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
	fails sh -c "dmesg 2>/dev/null | tail -1 | grep -q cowfs.*BUG"
}

# full TEXT: on a full filesystem, reading and removing go on.
usable() {
	cmp "$W/keep" "$MNT/keep"
	ls "$MNT" >/dev/null
	cowctl info >/dev/null
	cowctl sync
}

enospc() {
	fails "$@" 2>"$W/err"
	grep -qi 'no space left' "$W/err"
}

one_large_file() {
	local size
	enospc dd if=/dev/zero of="$MNT/large" bs=1M conv=fsync
	size=$(stat -c %s "$MNT/large")
	# What df called available could really be written.
	within $((size / 4096)) "$AVAIL" 3
	usable
	rm "$MNT/large"
	new_again
}
claim "full by one large file" one_large_file

many_small_files() {
	local i=0
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
	# The reserve: on a full filesystem a file that a snapshot shares can
	# be removed, and then the snapshot.
	local i
	mkdir "$MNT/shared"
	for i in $(seq 2000); do
		echo "$i" >"$MNT/shared/$i"
	done
	cowctl snapshot create sharing
	enospc dd if=/dev/zero of="$MNT/fill" bs=1M conv=fsync
	enospc dd if=/dev/zero of="$MNT/fill2" bs=4k conv=fsync
	rm -r "$MNT/shared"
	cowctl snapshot delete sharing
	rm -f "$MNT/fill" "$MNT/fill2"
	new_again
}
claim "removing files and snapshots works on a full filesystem" deletes_first

truth() {
	local before after
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
	# In place is never in place here: overwriting needs new blocks first.
	enospc dd if=/dev/zero of="$MNT/fill" bs=1M conv=fsync
	dd if=/dev/urandom of="$MNT/keep2" bs=4k count=1 conv=fsync \
		status=none || :
	usable
	: >"$MNT/fill"
	rm -f "$MNT/fill" "$MNT/keep2"
	new_again
}
claim "truncating makes room on a full filesystem" overwrite_full

crash_when_full() {
	enospc dd if=/dev/zero of="$MNT/fill" bs=1M conv=fsync
	crash
	mount_image
	cmp "$W/keep" "$MNT/keep"
	rm "$MNT/fill"
	new_again
}
claim "a crash when full loses nothing" crash_when_full

check_after "full"
finish
