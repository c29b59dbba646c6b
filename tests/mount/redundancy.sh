#!/bin/bash
# redundancy.sh - extra copies for what snapshots share, on a mount
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

claim "an image is made and mounted" eval \
	'new_image 64M --redundancy 2 && mount_image'

exits "the setting can be read" 0 '^redundancy=2$' cowctl get
exits "alone, too" 0 '^2$' cowctl get redundancy
exits "and as JSON" 0 '"redundancy": 2$' cowctl get --json
exits "1 is none" 1 '1 would be every file' cowctl set redundancy=1
exits "others are not known" 1 'no such setting' cowctl set colour=1
exits "a value is needed" 2 'NAME=VALUE' cowctl set redundancy
exits "mkfs refuses 1, too" 2 'redundancy is 0, 2 or more' \
	"$BIN/mkfs.cowfs" --redundancy 1 "$W/other"

copied_is() {
	test "$(number extra_copies)" "$1" "$2"
}

copies_come() {
	local free
	head -c 4000000 /dev/urandom >"$W/data"
	echo "the only line of its kind" >>"$W/data"
	cp "$W/data" "$MNT/data"
	cowctl sync
	free=$(free_blocks)
	equal "$(number extra_copies)" 0
	cowctl snapshot create one
	until_true 60 copied_is -ge 977
	cowctl sync
	within "$(free_blocks)" "$free" 1
}
claim "a snapshot brings copies; df does not miss their space" copies_come

# place N: byte offset of the N-th copy of the line in the image
place() {
	grep -abo 'the only line of its kind' "$IMG" | sed -n "$1s/:.*//p"
}

rots() {
	local at
	unmount_image
	equal "$(place 3)" ""
	[ -n "$(place 2)" ]
	at=$(place 1)
	printf 'THE' | dd of="$IMG" bs=1 seek="$at" conv=notrunc 2>/dev/null
	mount_image
	cmp "$W/data" "$MNT/data"
	equal "$(number repaired stats)" 1
	cmp "$W/data" "$MNT/.snapshots/one/data"
}
claim "data that rots is read from its copy, and mended" rots

scrubbed() {
	local at
	unmount_image
	at=$(place 2)
	printf 'THE' | dd of="$IMG" bs=1 seek="$at" conv=notrunc 2>/dev/null
	mount_image
	cowctl scrub
	cowctl scrub
}
claim "scrub mends the copy as well" scrubbed

survives() {
	local before
	before=$(number extra_copies)
	cp "$W/data" "$MNT/more"
	cowctl snapshot create two
	sleep 0.3
	crash
	check_image || true
	mount_image
	until_true 60 copied_is -ge $((before + 977))
	cmp "$W/data" "$MNT/more"
}
claim "after a crash the rest is copied" survives

full() {
	local avail wrote
	cowctl sync
	avail=$(stat -f -c %a "$MNT")
	fails dd if=/dev/zero of="$MNT/fill" bs=64k status=none
	wrote=$(stat -c %b "$MNT/fill")
	wrote=$((wrote / 8))
	[ "$wrote" -ge $((avail * 95 / 100)) ]
	copied_is -eq 0
	rm "$MNT/fill"
	settle
}
claim "whoever needs the space gets it" full

off() {
	cowctl set redundancy=2
	until_true 90 copied_is -gt 0
	cowctl set redundancy=0
	until_true 60 copied_is -eq 0
}
claim "copies go when they are not wanted any more" off

check_after "extra copies"
finish
