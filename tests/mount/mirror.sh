#!/bin/bash
# mirror.sh - two images that hold the same, and what becomes of them
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

A=$W/a.img
B=$W/b.img
# shellcheck disable=SC2034 # for lib.sh
IMG=$A
AWAY=$W/away
mkdir "$AWAY"

new_mirror() {
	rm -f "$A" "$B"
	"$BIN/mkfs.cowfs" -q --mirror -s "${1:-64M}" "$A" "$B"
}

# sides STATES [PATH]: so says the filesystem.
sides() {
	equal "$("$BIN/cowctl" "${2:-$MNT}" mirror --json |
		sed -n 's/.*"sides": \["\([a-z]*\)", "\([a-z]*\)"\].*/\1 \2/p')" \
		"$1"
}

fill() {
	mkdir -p "$MNT/$1"
	for i in 1 2 3 4 5 6 7 8; do
		head -c $((i * 40000)) /dev/urandom >"$MNT/$1/f$i"
	done
	(cd "$MNT" && find . -type f -exec sha256sum {} + | sort) >"$W/sums"
	"$BIN/cowctl" "$MNT" sync
}

same_files() {
	(cd "$MNT" && find . -type f -exec sha256sum {} + | sort) |
		cmp - "$W/sums"
}

# The image $1 by itself has everything.
alone() {
	local other=$A
	[ "$1" = "$A" ] && other=$B
	mv "$other" "$AWAY"
	"$BIN/cowfs" "$1" "$MNT" -o ro,degraded
	same_files
	unmount_image
	"$BIN/fsck.cowfs" -n --data "$1"
	mv "$AWAY/${other##*/}" "$other"
}

# ---- both are there ----

claim "a mirror is made" new_mirror
made() {
	equal "$(stat -c %s "$A")" "$(stat -c %s "$B")"
	"$BIN/fsck.cowfs" "$A"
	sides "complete complete" "$B"
}
claim "it is clean and complete, whichever side is named" made
claim "it is mounted by one name, and finds the other" mount_image
claim "it takes files" fill one
exits "the other side is locked, too" 8 'in use' \
	timeout 60 "$BIN/fsck.cowfs" "$B"
exits "cowctl info says that it is a mirror" 0 \
	'^Mirror +side 0 complete, side 1 complete$' cowctl info
claim "JSON tells the same" sides "complete complete"
exits "the path of the other side is told where it is mounted" 1 \
	"mounted on $MNT" timeout 5 "$BIN/cowctl" "$B" info
by_the_other() {
	"$BIN/cowctl" "$B" unmount --wait
	mount_image
}
claim "and unmounts it" by_the_other
claim "it is unmounted in order" unmount_image
each_alone() {
	alone "$A"
	alone "$B"
}
claim "each side has everything" each_alone

killed() {
	mount_image
	fill two
	head -c 100000 /dev/urandom >"$MNT/late"
	python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_RDWR); os.fsync(fd)' "$MNT/late"
	(cd "$MNT" && find . -type f -exec sha256sum {} + | sort) >"$W/sums"
	crash
	mount_image
	same_files
	sides "complete complete"
	unmount_image
	each_alone
}
if command -v python3 >/dev/null; then
	claim "a daemon that was killed leaves both sides current" killed
else
	skip "a daemon that was killed leaves both sides current" "no python3"
fi

# ---- rot ----

# Everything on one side but for its superblocks.
spoil() {
	dd if=/dev/urandom of="$1" bs=4096 seek=20 count=4000 conv=notrunc \
		status=none
}
rot() {
	spoil "$B"
	mount_image
	same_files
	"$BIN/cowctl" "$MNT" scrub || equal $? 3
	"$BIN/cowctl" "$MNT" scrub
	unmount_image
	alone "$B"
}
claim "whatever rots on one side is read from the other, and mended" rot
offline_rot() {
	spoil "$A"
	"$BIN/fsck.cowfs" -p --data "$B" || equal $? 1
	"$BIN/fsck.cowfs" --data "$B"
	alone "$A"
}
claim "fsck mends one side from the other" offline_rot

# ---- one is away ----

mv "$B" "$AWAY"
exits "a side alone is refused, with a word of what to do" 1 'degraded' \
	"$BIN/cowfs" "$A" "$MNT"
exits "fsck looks at one side, and says so" 0 'alone' \
	"$BIN/fsck.cowfs" "$A"
exits "fsck does not repair it, unless it is told" 8 'degraded' \
	"$BIN/fsck.cowfs" -p "$A"
exits "nor does cowctl change it" 1 'degraded' \
	"$BIN/cowctl" "$A" snapshot create s
elsewhere() {
	mount_image "mirror=$AWAY/b.img"
	sides "complete complete"
	unmount_image 2>"$W/said"
	equal "$(cat "$W/said")" ""
}
claim "-o mirror= says where the other is" elsewhere
cp "$0" "$W/plain"
exits "-o mirror= of something else is refused" 1 'not the other side' \
	"$BIN/cowfs" "$A" "$MNT" -o "mirror=$W/plain"
says_no_more_than_that() {
	for other in "$W/nope" /etc/passwd; do
		"$BIN/cowfs" "$A" "$MNT" -o "mirror=$other" 2>"$W/said" &&
			return 1
		equal "$(grep -c "$A: not a cowfs\|$A: No such" "$W/said")" 0
		grep -q "$A: not mounted: -o mirror=PATH" "$W/said"
	done
	"$BIN/cowctl" --mirror "$W/nope" "$A" info 2>"$W/said" && return 1
	grep -q "$A: not opened without" "$W/said"
}
claim "and nothing is said of the image that is well" says_no_more_than_that
claim "-o degraded mounts one side" mount_image degraded
exits "cowctl info says that it is degraded" 0 'side 1 missing.*degraded' \
	cowctl info
not_noticed() {
	mv "$AWAY/b.img" "$B"
	cowctl scrub | grep 'side 1 missing.*mount anew'
	mv "$B" "$AWAY/b.img"
}
claim "... that a side which comes back waits for the next mount" not_noticed
degraded_use() {
	fill three
	rm -r "$MNT/one"
	(cd "$MNT" && find . -type f -exec sha256sum {} + | sort) >"$W/sums"
	unmount_image
}
claim "it can be used like that" degraded_use
mv "$AWAY/b.img" "$B"
exits "the side that comes back is stale" 0 'side 1 stale' \
	"$BIN/cowctl" "$B" mirror
comes_back() {
	"$BIN/cowfs" "$B" "$MNT" # by the name of the stale one
	same_files
	sides "complete stale"
	unmount_image
	mount_image
	sides "complete stale"
	cowctl scrub | grep 'blocks copied to a side'
	sides "complete complete"
	fill four
	unmount_image
	each_alone
}
claim "until a scrub has brought it up to date" comes_back
offline_resync() {
	mv "$A" "$AWAY"
	"$BIN/cowctl" --degraded "$B" snapshot create s
	mv "$AWAY/a.img" "$A"
	sides "stale complete" "$A"
	"$BIN/cowctl" "$A" scrub
	sides "complete complete" "$A"
	each_alone
}
claim "an image that is not mounted is brought up to date, too" offline_resync

# ---- one is replaced ----

replace() {
	rm "$B"
	"$BIN/cowctl" "$A" mirror add "$B"
	sides "complete stale" "$A"
	"$BIN/cowctl" "$A" scrub
	each_alone
}
claim "a side lost for good is replaced" replace
exits "a third side is refused" 1 'its other side is .*b.img' \
	"$BIN/cowctl" "$A" mirror add "$W/c.img"
single() {
	"$BIN/cowctl" "$A" mirror remove
	exits "a filesystem of its own has no mirror" 0 '^Not a mirror$' \
		"$BIN/cowctl" "$A" mirror
	mount_image
	same_files
	unmount_image
}
claim "a mirror becomes a single image" single
exits "mirror add refuses what is not empty" 1 'use -f' \
	"$BIN/cowctl" "$A" mirror add "$B"
again() {
	"$BIN/cowctl" "$A" mirror add -f "$B"
	"$BIN/cowctl" "$B" scrub
	each_alone
}
claim "and a single image a mirror" again

# ---- each alone ----

mkdir "$W/x"
split() {
	mv "$B" "$W/x"
	mount_image degraded
	fill five
	unmount_image
	"$BIN/cowfs" "$W/x/b.img" "$MNT" -o degraded
	echo other >"$MNT/other"
	unmount_image
	mv "$W/x/b.img" "$B"
}
claim "both sides are used without each other" split
exits "then both together are refused, with a word of what to do" 1 \
	'mirror remove' "$BIN/cowfs" "$A" "$MNT"
exits "by fsck, too" 8 'without each other' "$BIN/fsck.cowfs" "$A"
resolve() {
	"$BIN/cowctl" "$A" mirror remove
	"$BIN/cowctl" "$A" mirror add -f "$B"
	mount_image
	same_files
	cowctl scrub
	unmount_image
	each_alone
}
claim "which puts it right" resolve

# Two copies of the other side: which one is meant?
cp "$B" "$W/copy.img"
exits "two files that may be the other side are told apart by nobody" 1 \
	'either may be' "$BIN/cowfs" "$A" "$MNT"
rm "$W/copy.img"

# ---- a side that fails while it is in use ----

small_host() {
	mkdir "$W/small"
	mount -t tmpfs -o size=12M tmpfs "$W/small"
	mv "$B" "$AWAY"
	rm -f "$A" "$W/small/b.img"
	"$BIN/mkfs.cowfs" -q --mirror -s 64M "$A" "$W/small/b.img"
	mount_image "mirror=$W/small/b.img"
	sides "complete complete"
	fill six
	head -c 20000000 /dev/urandom >"$MNT/large"
	"$BIN/cowctl" "$MNT" sync
	(cd "$MNT" && find . -type f -exec sha256sum {} + | sort) >"$W/sums"
	sides "complete missing"
	same_files
	crash
	mount_image degraded
	same_files
	unmount_image
	"$BIN/cowctl" --mirror "$W/small/b.img" "$A" mirror |
		grep 'side 1 stale'
}
# The mount has the name of the side that is dropped; the other lies elsewhere.
named_dropped() {
	rm -f "$A" "$W/small/b.img" "$AWAY"/*
	"$BIN/mkfs.cowfs" -q --mirror -s 64M "$W/small/a.img" "$AWAY/b.img"
	"$BIN/cowfs" "$W/small/a.img" "$MNT" -o "mirror=$AWAY/b.img"
	head -c 20000000 /dev/urandom >"$MNT/large"
	"$BIN/cowctl" "$MNT" sync
	sides "missing complete"
	(cd "$MNT" && find . -type f -exec sha256sum {} + | sort) >"$W/sums"
	unmount_image
	"$BIN/cowfs" "$AWAY/b.img" "$MNT" -o degraded
	same_files
	unmount_image
}
if [ "$(id -u)" = 0 ]; then
	claim "a side whose host is full is dropped, and the rest goes on" \
		small_host
	is_mounted && unmount_image
	claim "unmounting succeeds where the side that was named is dropped" \
		named_dropped
	is_mounted && unmount_image
	umount "$W/small"
else
	skip "a side whose host is full is dropped" "needs root"
fi

finish
