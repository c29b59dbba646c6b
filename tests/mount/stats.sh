#!/bin/bash
# stats.sh - what cowctl stats counts is what was done
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

claim "an image is made and mounted" eval \
	'new_image 256M --data-copies 2 && mount_image commit=300'

# requests KIND [WHAT]: its count, or p50_ns ..., from the JSON; 0: none yet.
requests() {
	local n
	n=$(cowctl stats --json | sed -n \
		's/^ *"'"$1"'": {.* "'"${2:-count}"'": \([0-9]*\).*/\1/p')
	echo "${n:-0}"
}

# counts KIND N COMMAND...: it makes N requests of that kind.
counts() {
	local kind=$1 want=$2 before
	shift 2
	before=$(requests "$kind")
	"$@"
	equal $(($(requests "$kind") - before)) "$want"
}

creates() {
	local i
	for i in $(seq 100); do
		: >"$MNT/f$i"
	done
}
claim "100 creates are 100 CREATE" counts CREATE 100 creates

# Whatever the kernel asks first, it is not told that there is no such request:
# told so twice, it never asks for a copy again.
copies_at_once() {
	local i other
	head -c 300000 /dev/urandom >"$MNT/source"
	other=$(requests OTHER)
	for i in $(seq 8); do
		cp "$MNT/source" "$MNT/copy$i" &
	done
	wait
	equal $(($(requests OTHER) - other)) 0
	for i in $(seq 8); do
		cmp "$MNT/source" "$MNT/copy$i"
	done
}
claim "copies at the same time are 8 COPY_FILE_RANGE" counts \
	COPY_FILE_RANGE 8 copies_at_once

mkdirs() {
	mkdir "$MNT"/d{1..50}
}
claim "50 mkdirs are 50 MKDIR" counts MKDIR 50 mkdirs

renames() {
	local i
	for i in $(seq 30); do
		mv "$MNT/f$i" "$MNT/d$i/g"
	done
}
both_renames() {
	local before
	before=$(($(requests RENAME) + $(requests RENAME2)))
	renames
	equal $(($(requests RENAME) + $(requests RENAME2) - before)) 30
}
claim "30 renames are 30 RENAME" both_renames

links() {
	local i
	for i in $(seq 20); do
		ln -s target "$MNT/s$i"
	done
}
claim "20 symlinks are 20 SYMLINK" counts SYMLINK 20 links

unlinks() {
	rm "$MNT"/f*
}
claim "70 unlinks are 70 UNLINK" counts UNLINK 70 unlinks

rmdirs() {
	rm "$MNT"/d*/g
	rmdir "$MNT"/d{1..50}
}
claim "50 rmdirs are 50 RMDIR" counts RMDIR 50 rmdirs

dsyncs() {
	dd if=/dev/urandom of="$MNT/data" bs=4k count=25 oflag=dsync \
		status=none
}
fsyncs() {
	local calls appends bytes
	calls=$(number fsyncs stats)
	appends=$(number fsync_appends stats)
	bytes=$(number fsync_bytes stats)
	counts FSYNC 25 dsyncs
	equal $(($(number fsyncs stats) - calls)) 25
	appends=$(($(number fsync_appends stats) - appends))
	[ "$appends" -gt 0 ]
	[ $(($(number fsync_bytes stats) - bytes)) -ge $((appends * 4096)) ]
	# How many fsyncs one write served adds up to all of them.
	cowctl stats --json | grep -q '"fsyncs served at once": { "count": '
}
claim "25 synchronous writes are 25 fsyncs" fsyncs

# A request that another thread answers is counted once, with all its time.
snapshots() {
	local first second third
	cowctl snapshot create one
	# Asking costs requests itself: as many each time.
	first=$(requests IOCTL)
	second=$(requests IOCTL)
	cowctl snapshot create two
	third=$(requests IOCTL)
	# cowctl asks what it is talking to, and then for the snapshot.
	equal $((third - second - (second - first))) 2
	# Two of the three commits so far were theirs; percentiles are up to an
	# eighth too high.
	[ $(($(requests IOCTL max_ns) * 9)) -ge \
		$(($(requests commit p50_ns) * 8)) ]
}
claim "a snapshot's request is counted with the time it took" snapshots

commits() {
	local before bytes now
	before=$(number commits stats)
	bytes=$(number commit_bytes stats)
	echo more >"$MNT/more"
	cowctl sync
	# One may be that of the last writer's close.
	now=$(number commits stats)
	[ "$now" -gt "$before" ]
	[ "$now" -le $((before + 2)) ]
	[ $(($(number commit_bytes stats) - bytes)) -ge 8192 ]
	# In one answer, the histogram has as many.
	cowctl sync
	cowctl stats --json >"$W/json"
	equal "$(sed -n 's/^ *"commit": { "count": \([0-9]*\).*/\1/p' \
		"$W/json")" \
		"$(sed -n 's/^ *"commits": \([0-9]*\),$/\1/p' "$W/json")"
}
claim "a commit is counted, and what it wrote" commits

ordered() {
	local kind p50 p90 p99 max
	for kind in LOOKUP CREATE FSYNC commit fsync; do
		p50=$(requests $kind p50_ns) p90=$(requests $kind p90_ns)
		p99=$(requests $kind p99_ns) max=$(requests $kind max_ns)
		echo "$kind $p50 $p90 $p99 $max"
		[ "$p50" -gt 0 ]
		[ "$p50" -le "$p90" ]
		[ "$p90" -le "$p99" ]
		[ "$p99" -le "$max" ]
		# nothing here takes a minute
		[ "$max" -lt 60000000000 ]
	done
}
claim "percentiles are in order" ordered

space() {
	equal "$(number free stats)" "$(number free)"
	[ "$(number ready stats)" -le "$(number free stats)" ]
	[ "$(number free_in_nodes stats)" -le "$(number ready stats)" ]
	[ "$(number free_in_chunks stats)" -le "$(number free_in_nodes stats)" ]
	[ "$(number free_in_chunks stats)" -ge 4096 ] # one chunk of a new image
}
claim "free space is told as it lies" space

watching() {
	(
		for i in $(seq 40); do
			: >"$MNT/w$i"
			sleep 0.05
		done
	) &
	timeout 3 "$BIN/cowctl" "$MNT" stats --watch 0.5 --json >"$W/watch" ||
		equal $? 124
	wait
	[ "$(wc -l <"$W/watch")" -ge 3 ]
	# Each line is for itself, and what they have adds up.
	equal "$(sed -n 's/.*"CREATE": { "count": \([0-9]*\).*/\1/p' \
		"$W/watch" | awk '{ n += $1 } END { print (n > 30 && n <= 40) }')" 1
	timeout 1 "$BIN/cowctl" "$MNT" stats --watch=0.2 >"$W/watch" ||
		equal $? 124
	grep -Eq '^---- 0\.[0-9] s$' "$W/watch"
	grep -Eq '^IOCTL +[0-9.]+ ' "$W/watch"
}
claim "--watch tells what each interval had" watching

exits "--watch wants a number" 2 'seconds from' cowctl stats --watch x
exits "--watch does not take 0" 2 'seconds from' cowctl stats --watch=0
exits "stats takes no operand" 2 'is too much' cowctl stats 3

rot() {
	local at
	# Shown by both copies: the place of one is found by what is in it.
	head -c 4096 /dev/urandom >"$W/block"
	cp "$W/block" "$MNT/block"
	unmount_image
	at=$(python3 - "$W/block" "$IMG" <<-'END'
		import sys, mmap
		block = open(sys.argv[1], 'rb').read()
		with open(sys.argv[2], 'rb') as f:
		    print(mmap.mmap(f.fileno(), 0, prot=1).find(block))
	END
	)
	[ "$at" -gt 0 ]
	printf 'rot' | dd of="$IMG" bs=1 seek="$at" conv=notrunc status=none
	mount_image
	equal "$(number csum_errors stats)" 0
	cmp "$W/block" "$MNT/block"
	# The image says which of the two copies is read first; scrub reads both.
	cowctl scrub || equal $? 3
	equal "$(number csum_errors stats)" 1
	equal "$(number repaired stats)" 1
	equal "$(number unrepairable stats)" 0
	cowctl scrub
	equal "$(number csum_errors stats)" 1
}
if command -v python3 >/dev/null; then
	claim "rot and repair are counted" rot
else
	skip "rot and repair are counted" "no python3"
fi

check_after "stats"
finish
