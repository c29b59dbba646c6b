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
	! mounted_at "$REC" || take_away "$REC"
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
	take_away "$MNT"
	take_away "$REC"
}

# A state, some writes of which were not flushed if they are found soon.
make_state() {
	local entries first tries
	read -r entries first < <("$HELPERS/powercut" "$W/log")
	[ "$entries" -gt $((first + 100)) ]
	for tries in 1 2 3 4; do
		cut=$((first + (RANDOM << 15 | RANDOM) % (entries - first)))
		seed=$RANDOM
		rm -rf "$W/state"
		mkdir "$W/state"
		lost=$("$HELPERS/powercut" "$W/log" "$cut" "$seed" image "$W/state")
		[ "$lost" = 0 ] || break
	done
	echo "after $cut of $entries entries, seed $seed, try $tries:" \
		"$lost writes not flushed"
}

check_state() {
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

states() {
	local i cut seed lost unflushed=0
	for ((i = 0; i < STATES; i++)); do
		make_state
		check_state
		unflushed=$((unflushed + lost))
	done
	# Or nothing was tried.
	echo "$unflushed writes not flushed in $STATES states"
	[ $unflushed -gt 0 ]
}

claim "a load is recorded" recording
claim "$STATES states that a power cut can leave are in order" states
tail -n 1 "$W/out" | sed 's/^/# /'
finish
