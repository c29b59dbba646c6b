#!/bin/bash
# soak.sh - a short soak: one life of the daemon of each kind
#
# SOAK=SECONDS makes it longer.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

if ! command -v python3 >/dev/null; then
	skip "soak" "no python3"
	finish
fi

# The worker is worth something: what is wrong is found.
worker() {
	python3 -B "$TOP/tests/soak/worker.py" "$MNT" "$W/state" 1 0 "$@"
}

some_file() {
	find "$MNT/w0" -type f -links 1 -size +0 | sort | head -n 1
}

claim "an image is made and mounted" eval 'new_image 64M && mount_image'
claim "a worker finds its files as it left them" eval 'worker 1 && worker 0'

foreign_byte() {
	local file
	cp "$W/state" "$W/kept"
	file=$(some_file)
	cp "$file" "$W/copy"
	printf X | dd of="$file" bs=1 conv=notrunc status=none
	fails worker 0
	cat "$W/copy" >"$file"
	cp "$W/kept" "$W/state"
	worker 0
}
claim "a worker finds a byte that is not its own" foreign_byte

# Settled by the end of the run before: nothing less will do.
lost_file() {
	rm "$(some_file)"
	fails worker 0 after-kill
}
claim "a worker misses a file that fsync promised" lost_file
claim "it unmounts" unmount_image

short_soak() {
	TMPDIR=$W COWFS_BIN=$BIN COWFS_HELPERS=$HELPERS \
		"$TOP/scripts/soak" -t "${SOAK:-0}" -c 1
}
claim "a soak of some seconds: load, full, killed, restored" short_soak

finish
