#!/bin/bash
# durability.sh - what was promised is there after the daemon is killed
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# A long commit period: nothing gets durable by itself while a test runs.
claim "an image is made and mounted" eval \
	'new_image 256M && mount_image commit=300'

# File contents to the promise: dd's conv=fsync is one fsync(2) at its end.
put() {
	dd of="$MNT/$1" bs=1M conv="${3:-fsync}" status=none <"$2"
}

head -c 3000000 /dev/urandom >"$W/data"
head -c 500 /dev/urandom >"$W/small"

fsynced() {
	put file "$W/data"
	put small "$W/small"
	put data-only "$W/data" fdatasync
	crash
	equal "$(mount_image commit=300 2>&1)" '' # a log is nothing unusual
	cmp "$W/data" "$MNT/file"
	cmp "$W/small" "$MNT/small"
	cmp "$W/data" "$MNT/data-only"
}
claim "what fsync and fdatasync returned for survives kill -9" fsynced

dsync() {
	dd if="$W/data" of="$MNT/dsync" bs=100000 oflag=dsync status=none
	crash
	mount_image commit=300
	cmp "$W/data" "$MNT/dsync"
}
claim "O_DSYNC writes survive kill -9" dsync

# Not by way of the kernel's cache: appended to an append-only file, and shared.
dsync_past_cache() {
	echo first >"$MNT/append"
	chattr +a "$MNT/append"
	: >"$MNT/shared"
	cowctl sync
	python3 - "$MNT" <<-'PY'
		import os, sys
		os.chdir(sys.argv[1])
		fd = os.open("append", os.O_WRONLY | os.O_APPEND | os.O_DSYNC)
		os.write(fd, b"second\n")
	PY
	crash
	mount_image commit=300
	equal "$(tr '\n' ' ' <"$MNT/append")" "first second "
	chattr -a "$MNT/append"
	cowctl sync
	python3 - "$MNT" <<-'PY'
		import os, sys
		os.chdir(sys.argv[1])
		src = os.open("dsync", os.O_RDONLY)
		fd = os.open("shared", os.O_WRONLY | os.O_SYNC)
		while os.copy_file_range(src, fd, 1 << 30):
		    pass
	PY
	crash
	mount_image commit=300
	cmp "$W/data" "$MNT/shared"
}
if command -v python3 >/dev/null && [ "$(id -u)" = 0 ]; then
	claim "... past the kernel's cache, too" dsync_past_cache
else
	skip "O_DSYNC past the kernel's cache" "no python3, or not root"
fi

directory() {
	mkdir "$MNT/d"
	touch "$MNT/d/a" "$MNT/d/b"
	mv "$MNT/d/a" "$MNT/d/c"
	ln "$MNT/d/b" "$MNT/d/e"
	ln -s target "$MNT/d/l"
	sync "$MNT/d" # fsync(2) of the directory
	crash
	mount_image commit=300
	equal "$(cd "$MNT/d" && echo *)" "b c e l"
	equal "$(stat -c %h "$MNT/d/b")" 2
	equal "$(readlink "$MNT/d/l")" target
}
claim "names survive kill -9 after fsync of their directory" directory

by_option() {
	local o
	for o in dirsync sync; do
		remount_image "commit=300,$o"
		mkdir "$MNT/at-once" "$MNT/gone"
		ln -s target "$MNT/at-once/l"
		mkfifo "$MNT/at-once/p"
		ln "$MNT/at-once/p" "$MNT/at-once/q"
		mv "$MNT/at-once/p" "$MNT/at-once/r"
		: >"$MNT/at-once/file"
		rm "$MNT/at-once/q"
		rmdir "$MNT/gone"
		crash
		mount_image commit=300
		equal "$(cd "$MNT/at-once" && echo *)" "file l r"
		fails test -e "$MNT/gone"
		rm -r "$MNT/at-once"
	done
}
claim "names survive kill -9 at once with dirsync or sync" by_option

contents_by_option() {
	local what
	for what in copied size mode attribute flag; do
		remount_image commit=300,sync
		printf 12345 >"$MNT/sync-$what"
		chmod 644 "$MNT/sync-$what"
		cowctl sync
		case $what in
		copied) cp "$W/data" "$MNT/from" && : >"$MNT/sync-$what" &&
			cowctl sync && cp "$MNT/from" "$MNT/sync-$what" ;;
		size) truncate -s 3 "$MNT/sync-$what" ;;
		mode) chmod 600 "$MNT/sync-$what" ;;
		attribute) setfattr -n user.a -v b "$MNT/sync-$what" ;;
		flag) chattr +d "$MNT/sync-$what" ;;
		esac
		crash
		mount_image commit=300
	done
	cmp "$W/data" "$MNT/sync-copied"
	equal "$(cat "$MNT/sync-size")" 123
	equal "$(stat -c %a "$MNT/sync-mode")" 600
	getfattr -n user.a "$MNT/sync-attribute"
	lsattr "$MNT/sync-flag" | grep -q '^-*d'
}
if command -v setfattr >/dev/null && command -v chattr >/dev/null; then
	claim "... and all else with sync" contents_by_option
else
	skip "all else with sync" "no setfattr, or no chattr"
fi

replaced() {
	put old "$W/small"
	put new "$W/data"
	mv "$MNT/new" "$MNT/old"
	sync "$MNT"
	crash
	mount_image commit=300
	cmp "$W/data" "$MNT/old"
	fails test -e "$MNT/new"
}
claim "replacing a file by rename survives kill -9" replaced

synced() {
	cp -r "$TOP/src" "$MNT/src"
	cp "$W/data" "$MNT/plain"
	echo overwritten >"$MNT/small"
	exec 3>"$MNT/open"
	echo unfinished >&3 # dirty, and the file stays open
	cowctl sync
	crash
	exec 3>&- || :
	mount_image commit=300
	diff -r "$TOP/src" "$MNT/src"
	cmp "$W/data" "$MNT/plain"
	equal "$(cat "$MNT/small")" overwritten
	equal "$(cat "$MNT/open")" unfinished
}
claim "everything written before cowctl sync survives kill -9" synced

snapshotted() {
	cp "$W/data" "$MNT/in-snapshot"
	cowctl snapshot create kept
	rm "$MNT/in-snapshot"
	crash
	mount_image commit=300
	cmp "$W/data" "$MNT/.snapshots/kept/in-snapshot"
	rm -f "$MNT/in-snapshot"
	cowctl snapshot restore kept
	crash
	mount_image commit=300
	cmp "$W/data" "$MNT/in-snapshot"
	cowctl snapshot delete kept
	crash
	mount_image commit=300
	fails ls "$MNT/.snapshots/kept/"
	cmp "$W/data" "$MNT/in-snapshot"
}
claim "create, restore and delete survive kill -9 once they return" snapshotted

one_state() {
	# Never synced, so it may be lost - but only in order: no file without
	# those made before it.
	local i last
	mkdir "$MNT/order" && sync "$MNT"
	for i in $(seq 500); do
		mkdir "$MNT/order/$i"
	done
	crash
	mount_image commit=300
	last=$(find "$MNT/order" -mindepth 1 | wc -l)
	for i in $(seq "$last"); do
		test -d "$MNT/order/$i"
	done
}
claim "after kill -9 there is one state that really was" one_state

timer() {
	unmount_image
	mount_image commit=1
	cp "$W/data" "$MNT/by-timer"
	mkdir "$MNT/dir-by-timer"
	sleep 4
	crash
	mount_image commit=300
	test -d "$MNT/dir-by-timer"
	cmp "$W/data" "$MNT/by-timer"
}
claim "a closed file is durable some seconds later by itself" timer

orphans() {
	local before
	settle
	before=$(free_blocks)
	head -c 20000000 /dev/urandom >"$MNT/orphan"
	exec 3<"$MNT/orphan"
	rm "$MNT/orphan"
	cowctl sync
	crash
	exec 3<&-
	mount_image commit=300
	settle
	until_true 20 eval 'cowctl sync; within "$(free_blocks)" '"$before"' 1'
}
claim "files unlinked while open give their space back after kill -9" orphans

# rot_in IMAGE FILE: flip a bit of the block with the first 4096 bytes of FILE.
rot_in() {
	python3 - "$@" <<'PY'
import sys
with open(sys.argv[2], 'rb') as f:
    head = f.read(4096)
with open(sys.argv[1], 'r+b') as f:
    image = f.read()
    at = image.find(head)
    assert at >= 0 and at % 4096 == 0 and image.find(head, at + 1) < 0
    f.seek(at + 100)
    f.write(bytes([head[100] ^ 4]))
PY
}

rotten() {
	head -c 200000 /dev/urandom >"$W/one"
	head -c 200000 /dev/urandom >"$W/two"
	cp "$W/one" "$MNT/rot-one"
	cp "$W/two" "$MNT/rot-two"
	cowctl snapshot create promised
	crash
	rot_in "$IMG" "$W/one"
	mount_image commit=300
	cowctl snapshot list | grep -q promised
	cmp "$W/two" "$MNT/rot-two"
	fails cat "$MNT/rot-one" >"$W/got"
	cp "$W/one" "$MNT/rot-one" # check_after wants it clean
	cowctl snapshot delete promised
	settle
}
claim "rot of one block after kill -9 costs that block, not the commit" rotten

unmounted() {
	cp "$W/data" "$MNT/at-unmount"
	unmount_image # --wait
	# The daemon is done: a copy of the image now is the whole truth.
	cp --sparse=always "$IMG" "$W/copy"
	"$BIN/fsck.cowfs" -n "$W/copy"
	mv "$W/copy" "$IMG"
	mount_image
	cmp "$W/data" "$MNT/at-unmount"
}
claim "unmount --wait returns when the image is complete" unmounted

twice() {
	local i
	for i in 1 2 3 4 5; do
		put "twice$i" "$W/small"
		crash
		mount_image # recovers
		crash
		mount_image commit=300
		cmp "$W/small" "$MNT/twice$i"
	done
}
claim "a crash right after recovery loses nothing" twice

strangers() {
	sleep 1 # the first commit after a mount does not wait
	cowctl sync
	# (Not opened: when a writer closes a file it is durable soon.)
	python3 -c 'import os, sys; os.mknod(sys.argv[1])' "$MNT/lost"
	handle of "$MNT/lost" "$W/handle"
	handle cat "$MNT" "$W/handle"
	crash
	mount_image commit=300
	fails test -e "$MNT/lost"
	echo another >"$MNT/found"
	fails handle cat "$MNT" "$W/handle"
}
if [ "$(id -u)" = 0 ] && command -v python3 >/dev/null; then
	claim "the handle of a file that a crash took opens no other" strangers
else
	skip "the handle of a file that a crash took" "no root, or no python3"
fi

check_after "durability"
finish
