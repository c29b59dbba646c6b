#!/bin/bash
# mirror_live.sh - sides are added and removed while the filesystem is in use
#
# MIRROR_ROUNDS: how often sides come and go under load (default 3).
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

A=$W/a.img
B=$W/b.img
C=$W/c.img
# shellcheck disable=SC2034 # for lib.sh
IMG=$A

# sides STATES: so says the filesystem; "" if it is no mirror.
sides() {
	equal "$("$BIN/cowctl" "$MNT" mirror --json |
		sed -n 's/.*"sides": \["\([a-z]*\)", "\([a-z]*\)"\].*/\1 \2/p')" \
		"$1"
}

sums() {
	(cd "$MNT" && find . -type f -exec sha256sum {} + | sort)
}

scrub_ended() {
	fails grep -q running <("$BIN/cowctl" "$MNT" scrub status)
}

# The image $1 by itself has everything that the mount had.
alone() {
	mkdir -p "$W/alone"
	cp --sparse=always "$1" "$W/alone/x.img"
	"$BIN/fsck.cowfs" -n --data "$W/alone/x.img"
	"$BIN/cowfs" "$W/alone/x.img" "$MNT" -o ro,degraded
	sums | cmp - "$W/sums"
	unmount_image
	rm "$W/alone/x.img"
}

begin() {
	"$BIN/mkfs.cowfs" -q -s 128M "$A"
	mount_image
	cp -r "$TOP/src" "$TOP/tests" "$MNT"
	head -c 20000000 /dev/urandom >"$MNT/large"
	sums >"$W/sums"
	sides ""
}
claim "a plain image is mounted" begin

add() {
	cowctl mirror add "$B" | grep 'is being filled'
	until_true 60 scrub_ended
	sides "complete complete"
	equal "$(stat -c %s "$B")" "$(stat -c %s "$A")"
}
claim "a side is added while it is mounted, and filled" add
exits "the new side is locked" 8 'in use' timeout 60 "$BIN/fsck.cowfs" "$B"
exits "a third one is refused" 1 'mirror of two sides' cowctl mirror add "$C"
claim "and not left behind" test ! -e "$C"
exits "of two complete sides one must be named" 1 'name the one' \
	cowctl mirror remove
exits "what is no side can't be removed" 1 'is no side' \
	cowctl mirror remove "$0"
each() {
	unmount_image
	alone "$A"
	alone "$B"
}
claim "each side has everything" each

remove_first() {
	mount_image
	cowctl mirror remove "$A"
	sides ""
	fails "$BIN/fsck.cowfs" "$A" # nobody has it open, and it is nothing
	fails grep -q cowfs <(head -c 100000 "$A")
	echo more >"$MNT/more"
	sums >"$W/sums"
	unmount_image
	equal "$("$BIN/cowctl" "$B" mirror)" "Not a mirror"
	alone "$B"
}
claim "the side it was mounted by is removed, the other goes on" remove_first

# shellcheck disable=SC2034 # for lib.sh
IMG=$B
refuse() {
	local text=$1 regex=$2
	shift 2
	exits "$text" 1 "$regex" cowctl mirror add "$@"
}
claim "it is mounted again" mount_image
touch "$W/used"
"$BIN/mkfs.cowfs" -q -s 128M "$W/used"
refuse "what holds a filesystem is refused" 'use -f' "$W/used"
refuse "so is an image on the filesystem itself" 'on the filesystem itself' \
	"$MNT/self"
claim "and nothing is left of it" test ! -e "$MNT/self"
# replaced FILE BY: ask for FILE as a side when BY is what lies there by now
replaced() {
	truncate -s 128M "$1"
	echo mine >"$2"
	truncate -s 128M "$2"
	python3 - "$1" "$2" "$MNT" <<-'PY'
		import errno, fcntl, os, struct, sys
		st = os.stat(sys.argv[1])
		os.symlink(sys.argv[2], sys.argv[1] + '.link')
		os.rename(sys.argv[1] + '.link', sys.argv[1])
		ask = bytearray(4128)
		struct.pack_into('<IIQQ', ask, 0, 1, 0, st.st_dev, st.st_ino)
		ask[32:32 + len(sys.argv[1])] = sys.argv[1].encode()
		try:
		    fcntl.ioctl(os.open(sys.argv[3], os.O_RDONLY),
		                1 << 30 | 4128 << 16 | ord('c') << 8 | 0x6c, ask)
		    sys.exit('taken')
		except OSError as e:
		    assert e.errno == errno.ESTALE, e
	PY
	equal "$(head -c 4 "$2")" mine
	rm "$1" "$2"
	sides ""
}
if command -v python3 >/dev/null; then
	claim "nor is a file taken that was put in its place" \
		replaced "$W/replaced" "$W/victim"
else
	skip "nor is a file taken that was put in its place" "no python3"
fi
loop_on_itself() {
	truncate -s 128M "$MNT/self"
	loop=$(losetup --find --show "$MNT/self")
	echo "$loop" >"$W/loop"
	fails cowctl mirror add -f "$loop" >"$W/said" 2>&1
	losetup -d "$loop"
	rm "$W/loop" "$MNT/self"
	grep 'on the filesystem itself' "$W/said"
	sides ""
}
if [ "$(id -u)" = 0 ] && losetup --find >/dev/null 2>&1; then
	claim "so is a loop device over one" loop_on_itself
	[ ! -e "$W/loop" ] || losetup -d "$(cat "$W/loop")"
else
	skip "so is a loop device over one" "no loop devices"
fi
again() {
	local i
	cowctl mirror add -f "$W/used"
	until_true 60 sides "complete complete" # not that the scrub has ended
	for i in 1 2 3 4; do
		cowctl mirror remove "$W/used"
		cowctl mirror add -f "$W/used" # nor that it has filled it
	done
	cowctl mirror remove "$W/used"
	until_true 20 scrub_ended
	sides ""
	"$BIN/mkfs.cowfs" -qf -s 128M "$W/used"
}
claim "a side is added right after one was removed" again
busy() {
	cowctl scrub start --rate=1M
	fails cowctl mirror add -f "$W/used"
	cowctl scrub cancel
	until_true 20 scrub_ended
}
claim "while a scrub runs none is added" busy
if [ "$(id -u)" = 0 ] && command -v runuser >/dev/null; then
	exits "nobody else may" 1 'may|not permitted|denied' \
		runuser -u nobody -- "$BIN/cowctl" "$MNT" mirror remove
else
	skip "nobody else may" "needs root"
fi

# ---- under load ----

load() {
	local n=0
	while [ ! -e "$W/stop" ]; do
		n=$((n + 1))
		head -c $((n % 50 * 3000 + 1)) /dev/urandom >"$MNT/load/f$((n % 40))"
		mv "$MNT/load/f$((n % 40))" "$MNT/load/g$((n % 30))" || return 1
		[ $((n % 7)) != 0 ] || sync "$MNT/load/g$((n % 30))" || return 1
	done
}
under_load() {
	local keep=$B other=$C i pid
	mkdir "$MNT/load"
	load &
	pid=$!
	for ((i = 0; i < ${MIRROR_ROUNDS:-3}; i++)); do
		cowctl mirror add -f "$other"
		until_true 100 scrub_ended
		equal "$("$BIN/cowctl" "$MNT" mirror --json |
			grep -c '"degraded": false')" 1
		if [ $((i % 2)) = 0 ]; then
			cowctl mirror remove "$keep"
			set -- "$keep"
			keep=$other
			other=$1
		else
			cowctl mirror remove "$other"
		fi
	done
	cowctl mirror add -f "$other"
	until_true 100 scrub_ended
	touch "$W/stop"
	wait $pid
	sums >"$W/sums"
	unmount_image
	alone "$B"
	alone "$C"
}
claim "sides come and go while files are written" under_load

# ---- a crash while it is filled ----

killed() {
	rm -f "$C"
	"$BIN/cowctl" "$B" mirror remove
	mount_image
	"$BIN/cowctl" "$MNT" mirror add "$C"
	cowctl scrub rate 1M
	cowctl scrub pause
	until_true 20 scrub_ended
	cowctl scrub resume
	fails scrub_ended
	sleep 0.5
	cowctl sync # that it began is noted
	crash
	# the one that is not complete is no filesystem by itself
	mkdir "$W/there"
	mv "$C" "$W/there"
	fails "$BIN/cowfs" "$W/there/c.img" "$MNT" -o degraded
	mv "$W/there/c.img" "$C"
	mount_image
	sums | cmp - "$W/sums"
	sides "complete stale"
	fails scrub_ended
	unmount_image
	mount_image
	fails scrub_ended
	cowctl scrub pause
	until_true 20 scrub_ended
	unmount_image
	mount_image
	scrub_ended
	sides "complete stale"
	cowctl scrub resume --rate=0
	until_true 60 scrub_ended
	sides "complete complete"
	unmount_image
	alone "$B"
	alone "$C"
}
claim "killed while a side is filled, that is gone on with, unless it was paused" \
	killed

missing() {
	mv "$C" "$W/there"
	mount_image degraded
	cowctl mirror remove
	sides ""
	"$BIN/cowctl" "$MNT" mirror add -f "$W/there/c.img"
	until_true 60 scrub_ended
	sides "complete complete"
	unmount_image
}
claim "a side that is missing is removed, and another added" missing

# ---- its file is removed ----

degraded() {
	cowctl mirror --json | grep -q '"degraded": true'
}
unlinked() {
	rm "$B" "$W/there/c.img"
	"$BIN/mkfs.cowfs" -q -s 64M --mirror "$B" "$C"
	mount_image commit=1
	cp -r "$TOP/tests" "$MNT"
	sums >"$W/sums"
	rm "$C"
	sides "complete missing"
	# written down by itself
	until_true 10 stale_on "$B"
	cowctl mirror remove
	cowctl mirror add "$C"
	until_true 60 scrub_ended
	sides "complete complete"
	# replaced at once, either side
	rm "$C"
	until_true 10 degraded
	cowctl mirror add "$C"
	until_true 60 scrub_ended
	sides "complete complete"
	rm "$B"
	until_true 10 degraded
	cowctl mirror add "$B"
	until_true 60 scrub_ended
	sides "complete complete"
	rm "$B"
	until_true 10 degraded
	umount "$MNT" || "$BIN/cowctl" "$MNT" unmount
	until_true 10 "$BIN/fsck.cowfs" --degraded -n "$C"
	alone "$C"
}
stale_on() {
	python3 - "$1" <<'P'
import struct, sys
f = open(sys.argv[1], 'rb')
best = None
for s in range(16, 20):
    f.seek(s * 4096)
    d = f.read(4096)
    g = struct.unpack_from('<Q', d, 0x78)[0]
    if best is None or g > best[0]:
        best = (g, struct.unpack_from('<QQ', d, 0x510 + 0x20))
sys.exit(0 if best[1][1] else 1)
P
}
if command -v python3 >/dev/null; then
	claim "a side whose file is removed is dropped, and that written down" \
		unlinked
else
	skip "a side whose file is removed is dropped" "no python3"
fi

finish
