#!/bin/bash
# together.sh - everything at once, from several processes
#
# With programs of `make tsan` (COWFS_BIN, under setarch -R) the daemon is
# watched for data races; with any others, for locks that are taken in the
# wrong order (a debug build ends itself), errors, and damage.
#
#   TOGETHER_TIME  seconds of load (default: 6; scripts/test tsan: 20)
#   SEED           repeats what is drawn, if not when it happens
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

TIME=${TOGETHER_TIME:-6}
SEED=${SEED:-$RANDOM}
echo "SEED=$SEED"
export TSAN_OPTIONS="log_path=$W/tsan exitcode=66 history_size=4 ${TSAN_OPTIONS:-}"

claim "an image is made and mounted" eval \
	'new_image 256M && mount_image cache=16M,commit=1'

make_dirs() {
	mkdir -p "$MNT/d0" "$MNT/d1" "$MNT/d2"
}
make_dirs

# Snapshots come, are looked at, go, and come back; scrubs begin and are
# cancelled; somebody asks how things are. Refusals are part of it (a name that
# is there, a scrub that runs); a daemon that is gone is not.
control() {
	local end=$((SECONDS + $1)) i=0 name
	while [ $SECONDS -lt "$end" ]; do
		i=$((i + 1))
		name=s$((i % 5))
		cowctl snapshot create $name
		find "$MNT/.snapshots/$name" -type f -size -64k \
			-exec cksum {} + >/dev/null
		cowctl stats --json
		case $((i % 6)) in
		0) cowctl scrub start ;;
		1) cowctl snapshot restore $name ;;
		2) cowctl scrub cancel ;;
		3) cowctl snapshot undo ;;
		4) cowctl sync ;;
		5) cowctl snapshot delete $name s$(((i + 2) % 5)) ;;
		esac
		cowctl snapshot list
		cowctl scrub status
	done >"$W/control" 2>&1
	# It was there to the end.
	cowctl info >/dev/null
}

# load SECONDS: all of it, until its time is up.
load() {
	local pids=() pid i failed=0
	for i in 1 2 3 4; do
		timeout -k 1 $(($1 + 120)) \
			"$HELPERS/mix" "$MNT" "$1" $((SEED + i)) \
			>>"$W/mixes" 2>"$W/mix$i" &
		pids+=($!)
	done
	control "$1" || failed=1
	for pid in "${pids[@]}"; do
		wait "$pid" || {
			echo "mix ended with status $?"
			failed=1
		}
	done
	cat "$W"/mix[1-4]
	[ $failed -eq 0 ]
}

no_reports() {
	! cat "$W"/tsan* 2>/dev/null | grep .
}

claim "work of all kinds at once brings no error" load $(((TIME + 1) / 2))
claim "the daemon is unmounted, nothing is damaged" eval \
	'unmount_image && check_image'
claim "and again on what is there" eval \
	'mount_image cache=16M,commit=1 && load $(((TIME + 1) / 2))'

# SIGTERM takes the mount away from those who use it.
terminated() {
	local pid mix
	pid=$(number pid)
	"$HELPERS/mix" "$MNT" 30 "$SEED" >/dev/null 2>&1 &
	mix=$!
	sleep 1
	kill "$pid"
	until_true 60 process_gone "$pid"
	kill "$mix" 2>/dev/null || :
	wait "$mix" || :
	! is_mounted || umount -l "$MNT"
	until_true 20 check_image
}
claim "a daemon that is told to end does so under load" terminated
claim "no data race was seen" no_reports
grep -h -A 12 '^WARNING: ThreadSanitizer' "$W"/tsan* 2>/dev/null
echo "# $(awk '{ n += $1 } END { print n }' "$W/mixes") operations"
finish
