#!/bin/bash
# thin.sh - what a sparse image lies on has less room than the image
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

HOST=$W/host
mkdir "$HOST"
if ! mount -t tmpfs -o size=32m none "$HOST" 2>/dev/null; then
	skip "thin.sh" "nothing of a given size can be mounted here"
	finish
fi
trap 'is_mounted && "$BIN/cowctl" "$MNT" unmount --wait
	umount -l "$HOST"; cleanup' EXIT
IMG=$HOST/image

claim "an image is made and mounted" eval 'new_image 256M && mount_image'
head -c 200000 /dev/urandom >"$W/keep"
cp "$W/keep" "$MNT/keep"

room() {
	mount -o "remount,size=$1" "$HOST"
}

# Until the host has no room, and the daemon knows. (A commit may still find some
# where the image has been written before.)
fill_host() {
	local i
	fails dd if=/dev/urandom of="$MNT/fill" bs=1M count=100 conv=fsync
	grep -qi 'no space left' "$W/out"
	mkdir -p "$MNT/more"
	for i in $(seq 100); do
		if ! cowctl sync && ! cowctl sync; then
			grep -c -i 'no space left' "$W/out"
			return
		fi
		seq 1000 | sed "s|^|$MNT/more/$i.|" | xargs mkdir -p
	done
	return 1
}

host_full() {
	local i
	room 32m
	fill_host
	cmp "$W/keep" "$MNT/keep"
	mkdir "$MNT/meanwhile"
	for i in $(seq 100); do
		: >"$MNT/meanwhile/$i"
	done
	fails cowctl snapshot create one
	fails cowctl sync
	room 64m
	cowctl sync
	equal "$(find "$MNT/meanwhile" -type f | wc -l)" 100
	cowctl snapshot create one
	crash
	mount_image
	cmp "$W/keep" "$MNT/keep"
	equal "$(find "$MNT/meanwhile" -type f | wc -l)" 100
	cowctl snapshot list | grep -w one
}
claim "a full host stops nothing: commits go on when it has room" host_full

# By itself, in a second or two.
by_itself() {
	local before
	rm "$MNT/fill"
	settle
	room 64m
	: >"$MNT/now"
	fill_host
	before=$(number generation)
	room 96m
	until_true 10 eval '[ "$(number generation)" -gt '"$before"' ]'
}
claim "nobody has to ask for it" by_itself

# A writer is told, and told when it is over.
write_on() {
	python3 - "$MNT/log" "$HOST" "$1" <<-'PY'
		import errno, os, subprocess, sys, time
		fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
		def write():
		    try:
		        return os.write(fd, b"x" * 65536) > 0
		    except OSError as e:
		        assert e.errno in (errno.ENOSPC, errno.EDQUOT), e
		        return False
		for i in range(3000):
		    if not write():
		        break
		else:
		    sys.exit("never told")
		subprocess.run(["mount", "-o", "remount,size=" + sys.argv[3], sys.argv[2]],
		               check=True)
		for i in range(100):
		    if write():
		        break
		    time.sleep(0.1)
		else:
		    sys.exit("refused though there is room")
	PY
	cowctl sync
}
writer() {
	rm -f "$MNT/fill"
	settle
	room 96m
	write_on 200m
}
# A small part of a large filesystem is much.
writer_of_the_rest() {
	local IMG=$HOST/large avail
	unmount_image
	room 300m
	new_image 8G
	mount_image
	avail=$(df --output=avail -k "$MNT" | tail -n 1)
	fallocate -l $((avail - 150 * 1024))k "$MNT/pre"
	cowctl sync
	fails dd if=/dev/zero of="$HOST/beside" bs=4k
	truncate -s -32M "$HOST/beside"
	write_on 500m
	unmount_image
	rm "$IMG" "$HOST/beside"
}
if command -v python3 >/dev/null; then
	claim "who writes on hears of it, and writes on when there is room" \
		writer
	claim "so where only a small part is left" writer_of_the_rest
	claim "the first image is mounted again" mount_image
else
	skip "who writes on hears of it" "no python3"
fi

# Nothing that was promised is lost, and what was not is no damage.
unmounted_full() {
	room 200m
	rm -f "$MNT/log" "$MNT/fill"
	settle
	fails dd if=/dev/urandom of="$MNT/fill" bs=1M count=240 conv=fsync
	fails cowctl sync
	fails unmount_image
	check_image
	room 250m
	mount_image
	cmp "$W/keep" "$MNT/keep"
	equal "$(find "$MNT/meanwhile" -type f | wc -l)" 100
}
claim "unmounted without room, it is as it was promised to be" unmounted_full

# Much to commit, and no room for it: somebody else has taken that. (Commits that
# come by themselves, as the first of a mount does, have come before.)
fill_beside() {
	sleep 1.5
	cowctl sync
	settle
	sleep 1.2 # what asks for a commit within a second has had it
	fails dd if=/dev/zero of="$HOST/beside" bs=4k
	seq 3000 | sed "s|^|$MNT/meanwhile/$1|" | xargs mkdir
}

have_room() {
	rm -f "$HOST/beside"
	cowctl sync
	find "$MNT/meanwhile" -mindepth 1 -type d -delete
}

# What was done is done, and seen by all, though it is not durable yet.
deleted() {
	rm -f "$MNT/fill"
	remount_image commit=300
	cowctl snapshot create two
	equal "$(ls "$MNT/.snapshots")" $'one\ntwo'
	fill_beside x
	fails cowctl snapshot delete one
	grep -q 'not durable before' "$W/out"
	equal "$(ls "$MNT/.snapshots")" two
	have_room
	equal "$(ls "$MNT/.snapshots")" two
}
claim "a snapshot deleted without room is not seen any more" deleted

scrub_is() {
	grep -q "^Scrub: $1" <("$BIN/cowctl" "$MNT" scrub status)
}

scrubbed() {
	fill_beside y
	fails cowctl sync
	cowctl scrub start
	sleep 1
	scrub_is running
	have_room
	until_true 10 scrub_is finished
}
claim "a scrub waits for room" scrubbed

side_added() {
	fill_beside z
	cowctl mirror add "$W/side"
	fails cowctl sync
	have_room
	until_true 20 scrub_is finished
	cowctl mirror
	grep -q 'side 0 complete, side 1 complete' "$W/out"
	cowctl mirror remove "$W/side"
}
claim "a side that is added without room is filled when there is some" side_added

# Nothing is left of a side that could not be made.
side_offline() {
	local IMG=$W/other.img
	new_image 16M
	fill_beside offline
	fails "$BIN/cowctl" "$IMG" mirror add "$HOST/new"
	grep -q 'has no room' "$W/out"
	[ ! -e "$HOST/new" ]
	"$BIN/cowctl" "$IMG" mirror | grep -x 'Not a mirror'
	have_room
	"$BIN/cowctl" "$IMG" mirror add "$HOST/new"
	"$BIN/cowctl" "$IMG" mirror | grep -q 'side 1'
	rm "$HOST/new"
}
claim "an image that is not mounted gets no side without room" side_offline

check_after "thin storage"
finish
