#!/bin/bash
# scrub.sh - scrub on a mount: in the background, gone on with, and its report
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# SCRUB_SCALE=n: more data, and more rounds of what may disturb it.
scale=${SCRUB_SCALE:-1}

claim "an image is made and mounted" eval 'new_image 256M && mount_image'

populate() {
	mkdir -p "$MNT/a/b"
	for i in $(seq 40); do
		head -c 100000 /dev/urandom >"$MNT/a/b/file-$i"
	done
	head -c $((8000000 * scale)) /dev/urandom >"$MNT/big"
	cowctl snapshot create first
	rm "$MNT"/a/b/file-1*
	cowctl sync
}
claim "there is something to scrub" populate

state() {
	cowctl scrub status | sed -n 's/^Scrub: //p'
}

state_is() {
	[ "$(state)" = "$1" ]
}

# value KEY: of scrub status --json
value() {
	cowctl scrub status --json |
		sed -n 's/^ *"'"$1"'": \([0-9][0-9]*\),\{0,1\}$/\1/p'
}

# ---- control ----

exits "cancel when none is running fails" 1 'no scrub is running' \
	cowctl scrub cancel
exits "pause when none is running fails" 1 'no scrub is running' \
	cowctl scrub pause
exits "resume when there is none fails" 1 'no scrub to resume' \
	cowctl scrub resume
exits "never run is a status" 0 '^Scrub: never run$' cowctl scrub status

one_at_a_time() {
	cowctl scrub start --rate=500K
	state_is running
	exits_with 1 cowctl scrub start
	exits_with 1 cowctl scrub
	exits_with 1 cowctl scrub resume
	cowctl scrub status | grep -Eq '^Done [0-9]+ of [0-9]+ blocks'
	cowctl scrub cancel
	state_is cancelled
	exits_with 1 cowctl scrub resume
}

exits_with() {
	local want=$1 got=0
	shift
	"$@" || got=$?
	equal "$got" "$want"
}
claim "one scrub at a time; cancelled, it can't be resumed" one_at_a_time

keeps_rate() {
	local began=$SECONDS
	cowctl scrub --rate=5M
	# 12 MB and more
	[ $((SECONDS - began)) -ge 2 ]
	equal "$(value rate)" $((5 << 20))
}
claim "a rate is kept" keeps_rate

rate_changes() {
	cowctl scrub start --rate=100K
	cowctl scrub rate 0
	until_true 20 state_is finished
}
claim "the rate of one that runs can be changed" rate_changes

# ---- going on ----

remounted() {
	local blocks data
	cowctl scrub
	data=$(value data_blocks)
	cowctl scrub start --rate=3M
	sleep 1
	cowctl scrub pause
	state_is paused
	[ "$(value data_blocks)" -lt "$data" ]
	cowctl scrub rate 5M 2>&1 | grep -q "the scrub is paused: give the rate"
	remount_image
	state_is paused
	cowctl scrub resume
	sleep 0.3
	remount_image # interrupted, with the old rate
	state_is interrupted
	cowctl scrub resume -F --rate=0 >"$W/text"
	grep -qx '0 errors found' "$W/text"
	state_is finished
	equal "$(value data_blocks)" "$data"
	blocks=$(value blocks)
	equal "$(value checksums)" "$blocks"
	remount_image
	state_is finished
	equal "$(value blocks)" "$blocks"
}
claim "a scrub goes on after remounts, and its result stays" remounted

crashed() {
	cowctl scrub start --rate=3M
	sleep 0.5
	cowctl scrub pause
	cowctl sync
	crash
	mount_image
	state_is paused
	cowctl scrub resume -F --rate=0
	state_is finished
}
claim "a scrub goes on after a crash" crashed

quick() {
	local began pid
	cowctl scrub start --rate=1K
	sleep 0.3
	began=$SECONDS
	unmount_image
	mount_image
	state_is interrupted
	cowctl scrub resume
	sleep 0.2
	pid=$(number pid)
	kill -TERM "$pid"
	until_true 10 process_gone "$pid"
	mount_image
	state_is interrupted
	cowctl scrub cancel
	state_is cancelled
	[ $((SECONDS - began)) -le 8 ]
}
claim "a scrub holds up neither unmount nor SIGTERM" quick

# ---- others at work ----

disturbed() {
	local i
	cowctl scrub start --rate=4M
	for i in $(seq $((4 * scale))); do
		cowctl snapshot create "s$i"
		head -c 2000000 /dev/urandom >"$MNT/big2"
		cowctl snapshot create "t$i"
		rm -f "$MNT"/a/b/file-2"$i"
		cowctl snapshot restore "s$i" --no-save
		cowctl snapshot delete "s$i" "t$i"
	done
	until_true 60 state_is finished
	equal "$(value problems)" 0
}
claim "snapshots come and go during a scrub, and nothing is wrong" disturbed

# ---- damage ----

# hurt PATTERN BLOCK: spoil a block of the image, counted from the one that
# begins with a pattern.
hurt() {
	local at
	at=$(grep -obUaF -m1 "$1" "$IMG" | head -n 1 | cut -d: -f1)
	[ -n "$at" ]
	printf 'spoilt' | dd of="$IMG" bs=1 seek=$((at + $2 * 4096 + 10)) \
		conv=notrunc status=none
}

# (Directly, as one request: a kernel that writes back early makes several of it, and
# its blocks need not follow each other.)
make_victim() {
	mkdir -p "$MNT/a"
	{
		printf 'the victim begins here'
		head -c 200000 /dev/urandom
	} | dd of="$MNT/a/victim" bs=1M iflag=fullblock oflag=direct status=none
	cowctl sync
	ln "$MNT/a/victim" "$MNT/hard"
	cp "$MNT/a/victim" "$MNT/clone"
	cowctl snapshot create before
	mv "$MNT/a/victim" "$MNT/a/moved"
	cowctl sync
	hurt 'the victim begins' 3
	hurt 'the victim begins' 4
	hurt 'the victim begins' 9
}

reported() {
	make_victim
	exits_with 3 cowctl scrub >"$W/text" 2>"$W/err"
	grep -qx '3 errors found' "$W/text"
	grep -qx '3 blocks lost: no good copy' "$W/text"
	equal "$(grep -c '^lost: ' "$W/err")" 2
	grep -Eqx "    /a/moved: bytes 12288-20479 \(live\)" "$W/err"
	grep -Eqx "    /hard: bytes 12288-20479 \(live, snapshot 'before'\)" \
		"$W/err"
	grep -Eqx "    /clone: bytes 36864-40959 \(live, snapshot 'before'\)" \
		"$W/err"
	remount_image
	exits_with 3 cowctl scrub status -v >"$W/text"
	grep -Eqx "    /a/victim: bytes 36864-40959 \(snapshot 'before'\)" \
		"$W/text"
}
claim "lost blocks are named with all who have them" reported

json() {
	exits_with 3 cowctl scrub status --json >"$W/json"
	python3 - "$W/json" <<'EOF'
import json, sys
s = json.load(open(sys.argv[1]))
assert s['state'] == 'finished' and s['lost'] == 3, s
assert [d['blocks'] for d in s['damage']] == [2, 1], s
owners = {(o['tree'], o['snapshot'], o['path'], o['offset'], o['length'])
          for o in s['damage'][0]['owners']}
assert owners == {
    ('live', None, '/a/moved', 12288, 8192),
    ('live', None, '/hard', 12288, 8192),
    ('live', None, '/clone', 12288, 8192),
    ('snapshot', 'before', '/a/victim', 12288, 8192),
    ('snapshot', 'before', '/hard', 12288, 8192),
    ('snapshot', 'before', '/clone', 12288, 8192)}, owners
EOF
	cowctl scrub start --json | python3 -m json.tool >/dev/null
	until_true 20 state_is finished
}
if command -v python3 >/dev/null; then
	claim "the same in JSON" json
else
	skip "the same in JSON" "no python3"
fi

gone() {
	rm "$MNT/a/moved" "$MNT/hard" "$MNT/clone"
	cowctl snapshot delete before
	settle
	cowctl scrub >"$W/text" 2>"$W/err"
	grep -qx '0 errors found' "$W/text"
	[ ! -s "$W/err" ]
}
claim "what is deleted is damaged no more" gone

many() {
	local i
	make_victim
	for i in $(seq 11 2 45); do
		hurt 'the victim begins' "$i"
	done
	for i in $(seq 1 7); do
		ln "$MNT/a/moved" "$MNT/name-$i"
	done
	exits_with 3 cowctl scrub >"$W/text" 2>"$W/err"
	equal "$(sed -n 's/ errors found//p' "$W/text")" 21
	equal "$(grep -c '^lost: ' "$W/err")" 20
	equal "$(grep -c 'and others' "$W/err")" 20
	[ "$(wc -l <"$W/err")" -le 125 ]
	cowctl scrub -v >"$W/text" 2>"$W/err" || :
	equal "$(grep -c '^lost: ' "$W/err")" 20
	fails grep -q 'and others' "$W/err"
}
claim "a report for people stays short, unless asked for all" many

# ---- who may know ----

others() {
	unmount_image
	mount_image allow_other
	setpriv --reuid=65534 --regid=65534 --clear-groups \
		"$BIN/cowctl" "$MNT" scrub status >"$W/text" 2>"$W/err" || :
	grep -qx '21 errors found' "$W/text"
	fails grep -q moved "$W/text" "$W/err"
	exits_with 1 setpriv --reuid=65534 --regid=65534 --clear-groups \
		"$BIN/cowctl" "$MNT" scrub start
}
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null &&
	setpriv --reuid=65534 --regid=65534 --clear-groups \
		test -x "$BIN/cowctl"; then
	chmod 755 "$W"
	claim "others see that there is damage, not where" others
else
	skip "others see that there is damage, not where" "not root, or no setpriv"
fi
claim "unmounts" unmount_image

# ---- read-only, repair ----

repairs() {
	local sum
	new_image 64M --data-copies 2
	mount_image
	make_victim
	unmount_image
	sum=$(sha256sum <"$IMG")
	mount_image ro
	exits_with 3 cowctl scrub >"$W/text" 2>"$W/err"
	grep -qx '3 errors found' "$W/text"
	grep -q '^one copy bad, not repaired: ' "$W/err"
	grep -q '/a/moved: bytes' "$W/err"
	unmount_image
	equal "$(sha256sum <"$IMG")" "$sum"
	mount_image
	cowctl scrub >"$W/text" 2>"$W/err"
	grep -qx '3 bad copies repaired' "$W/text"
	grep -q '^repaired: ' "$W/err"
	cowctl scrub >"$W/text"
	grep -qx '0 errors found' "$W/text"
}
claim "read-only it only reports; else it repairs, and that is success" repairs

offline() {
	unmount_image
	"$BIN/cowctl" "$IMG" scrub >"$W/text" 2>"$W/err"
	grep -qx '0 errors found' "$W/text"
	[ ! -s "$W/err" ]
	hurt 'the victim begins' 5
	"$BIN/cowctl" "$IMG" scrub >"$W/text" 2>"$W/err"
	grep -qx '1 bad copy repaired' "$W/text"
	grep -q "/hard: bytes 20480-24575 (live, snapshot 'before')" "$W/err"
	fails grep -q '^cowfs: ' "$W/err"
	mount_image
	cowctl scrub status | grep -q "^repaired: file data, block"
}
claim "an image gives the same report, and keeps it for the mount" offline

# What changes below the host's cache.
rotten_storage() {
	local IMG loop
	unmount_image
	truncate -s 64M "$W/storage"
	loop=$(losetup --find --show "$W/storage")
	echo "$loop" >"$W/loop"
	IMG=$loop
	"$BIN/mkfs.cowfs" -q "$IMG"
	mount_image
	head -c 3000000 /dev/urandom >"$W/data"
	cp "$W/data" "$MNT/data"
	cowctl sync
	cat "$loop" >"$W/seen"
	python3 - "$W/data" "$W/storage" <<-'PY'
		import os, sys
		block = open(sys.argv[1], 'rb').read()[99 * 4096:100 * 4096]
		with open(sys.argv[2], 'r+b') as f:
		    f.seek(f.read().index(block))
		    f.write(b'rotten')
	PY
	cmp "$W/data" "$MNT/data"
	fails cowctl scrub
	cowctl scrub status | grep "/data: bytes 405504-409599"
	unmount_image
}
if [ "$(id -u)" = 0 ] && losetup --find >/dev/null 2>&1 &&
	command -v python3 >/dev/null; then
	claim "what lies in storage is looked at, not what is in memory" \
		rotten_storage
	! is_mounted || unmount_image
	[ ! -e "$W/loop" ] || losetup -d "$(cat "$W/loop")"
	claim "the image is mounted again" mount_image
else
	skip "what lies in storage is looked at" "no loop devices, or no python3"
fi

check_after "in the end"
finish
