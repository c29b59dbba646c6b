#!/bin/bash
# powercut.sh - the image as the daemon really wrote it, after a power cut
#
# The image lies in a folder that records what is written to it and flushed
# (recorder.c), and beside it the journals of what was done and promised
# (crashlog.h). From that recording come states that a power cut could have left
# (powercut.c); each is checked, mounted, scrubbed, held against the journals
# (crashverify.c), written to, and checked again. tests/crash does the same below
# the library, state by state; here are the daemon and the system calls, too.
#
#   STATES  how many states (default: 12)
#   TIME    seconds of load (default: 2)
#   SEED    of the load and the states
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

STATES=${STATES:-12}
TIME=${TIME:-2}
SEED=${SEED:-$RANDOM}
echo "SEED=$SEED"
RANDOM=$((SEED & 32767))
WORKERS=3
REC=$W/rec
mkdir "$W/back" "$REC"

recorder_gone() {
	! awk -v point="$REC" '$5 == point { f = 1 } END { exit !f }' \
		/proc/self/mountinfo || umount -l "$REC"
}
trap 'recorder_gone; cleanup' EXIT

recording() {
	local pid
	"$HELPERS/recorder" "$W/back" "$W/log" "$REC" -s
	IMG=$REC/image
	new_image 192M
	mount_image commit=1
	mkdir "$REC/journals"
	pid=$(number pid)
	"$HELPERS/crashload" "$MNT" "$REC/journals" "$SEED" 0 $WORKERS \
		"$BIN/cowctl" &
	sleep "$TIME"
	kill -9 "$pid"
	wait $! # it looks at the dead mount
	umount -l "$MNT"
	umount "$REC"
}

# one_state CUT SEED
one_state() {
	rm -rf "$W/state"
	mkdir "$W/state"
	"$HELPERS/powercut" "$W/log" "$1" "$2" image "$W/state"
	IMG=$W/state/image
	check_image
	mount_image
	cowctl scrub >"$W/scrub" || {
		cat "$W/scrub"
		return 1
	}
	"$HELPERS/crashverify" "$MNT" "$W/state/journals" 0 $WORKERS
	echo new >"$MNT/after"
	cowctl sync
	unmount_image
	check_image
}

# Under set -e each of them ends at the first thing that is wrong; whoever looks
# at the status of a subshell with || turns that off.
states() {
	local entries first i cut seed status
	set +e
	read -r entries first < <("$HELPERS/powercut" "$W/log")
	echo "$entries entries, the load begins at $first"
	[ "$entries" -gt $((first + 100)) ] || return 1
	for ((i = 0; i < STATES; i++)); do
		cut=$((first + (RANDOM << 15 | RANDOM) % (entries - first)))
		seed=$RANDOM
		(
			set -e
			one_state $cut $seed
		) >"$W/one" 2>&1
		status=$?
		if [ $status -ne 0 ]; then
			cat "$W/one"
			echo "after $cut of $entries entries, seed $seed"
			return 1
		fi
		unflushed=$((unflushed + $(sed -n \
			's/ writes not flushed$//p' "$W/one")))
	done
	# Or nothing was tried.
	echo "$unflushed writes not flushed in $STATES states"
	[ $unflushed -gt 0 ]
}
unflushed=0

claim "a load is recorded" recording
claim "$STATES states that a power cut can leave are in order" states
tail -n 1 "$W/out" | sed 's/^/# /'
finish
