# shellcheck shell=bash
# lib.sh - what the tests on a mounted filesystem share
#
# A test is a bash script that sources this file, states claims
# (support/claims.sh), and ends with `finish`. It gets a directory $W of its
# own, an image $IMG in it and a mount point $MNT; whatever it leaves mounted is
# unmounted at the end.
#
#   COWFS_BIN      where the programs are (default: the top of the checkout)
#   COWFS_HELPERS  where the C helpers are (default: build/tests/mount)

# shellcheck source=../support/claims.sh
. "$(dirname "${BASH_SOURCE[0]}")/../support/claims.sh"

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BIN=$(cd "${COWFS_BIN:-$TOP}" && pwd)
# shellcheck disable=SC2034 # for the tests
HELPERS=${COWFS_HELPERS:-$TOP/build/tests/mount}
W=$(mktemp -d "${TMPDIR:-/tmp}/cowfs-test.XXXXXX")
W=$(cd "$W" && pwd -P)
IMG=$W/image
MNT=$W/mnt
mkdir "$MNT"

seen=$W/out

# claim TEXT COMMAND...: the command (or function, run under set -e) succeeds.
claim() {
	local text=$1 status
	shift
	(
		set -e
		"$@"
	) >"$W/out" 2>&1
	status=$?
	if [ $status -eq 0 ]; then
		ok "$text"
	else
		echo "exit status $status" >>"$W/out"
		not_ok "$text"
	fi
}

# helper PROGRAM ARGS...: a C helper that prints its own claims.
helper() {
	local name=$1 line status
	shift
	"$HELPERS/$name" "$@" >"$W/helper" 2>&1
	status=$?
	: >"$W/out"
	while IFS= read -r line; do
		case $line in
		"ok - "*) ok "${line#ok - }" ;;
		"not ok - "*) not_ok "${line#not ok - }" ;;
		"skip - "*)
			skipped=$((skipped + 1))
			echo "$line"
			;;
		*) echo "# $line" ;;
		esac
	done <"$W/helper"
	if [ $status -gt 1 ]; then
		not_ok "$name ends by itself (status $status)"
	fi
}

# Inside claims.
equal() {
	if [ "$1" != "$2" ]; then
		echo "'$1' is not '$2'"
		return 1
	fi
}

fails() {
	if "$@"; then
		echo "succeeded: $*"
		return 1
	fi
}

# within A B PERCENT: A differs from B by at most that.
within() {
	local diff=$(($1 - $2))
	[ $((diff < 0 ? -diff : diff)) -le $(($2 * $3 / 100)) ] || {
		echo "$1 is not within $3% of $2"
		return 1
	}
}

# until_true SECONDS COMMAND...
until_true() {
	local tries=$(($1 * 20))
	shift
	while ! "$@"; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || {
			echo "still not so: $*"
			return 1
		}
		sleep 0.05
	done
}

# handle of|cat FILE|DIR KEPT: what names the file, for those who come back (NFS),
# is kept; the file that it names is printed.
handle() {
	python3 - "$@" <<'PY'
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
verb, path, kept = sys.argv[1:]
if verb == 'of':
    buf = ctypes.create_string_buffer(136)
    struct.pack_into('I', buf, 0, 128)
    if libc.name_to_handle_at(-100, path.encode(), buf,
                              ctypes.byref(ctypes.c_int()), 0):
        sys.exit(os.strerror(ctypes.get_errno()))
    open(kept, 'wb').write(buf.raw)
else:
    top = os.open(path, os.O_RDONLY)
    buf = ctypes.create_string_buffer(open(kept, 'rb').read())
    fd = libc.open_by_handle_at(top, buf, os.O_RDONLY)
    if fd < 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    os.write(1, os.read(fd, 4096))
PY
}

# ---- image and mount ----

# new_image SIZE [mkfs options]
new_image() {
	local size=$1
	shift
	rm -f "$IMG"
	"$BIN/mkfs.cowfs" -q -s "$size" "$@" "$IMG"
}

# mount_image [-o value]
mount_image() {
	"$BIN/cowfs" "$IMG" "$MNT" ${1:+-o "$1"}
}

unmount_image() {
	"$BIN/cowctl" "$MNT" unmount --wait
}

remount_image() {
	unmount_image && mount_image "$@"
}

# mounted_at DIR: even if nobody answers there.
mounted_at() {
	awk -v point="$1" '$5 == point { found = 1 } END { exit !found }' \
		/proc/self/mountinfo
}

is_mounted() {
	mounted_at "$MNT"
}

check_image() {
	"$BIN/fsck.cowfs" -n "$IMG"
}

cowctl() {
	"$BIN/cowctl" "$MNT" "$@"
}

# number KEY [VERB]: from cowctl's JSON.
number() {
	cowctl "${2:-info}" --json |
		sed -n 's/^ *"'"$1"'": \([0-9][0-9]*\),\{0,1\}$/\1/p'
}

process_gone() {
	# A zombie is gone: its descriptors are closed.
	! [ -d "/proc/$1" ] || grep -q '^State:[[:space:]]*Z' "/proc/$1/status"
}

# A mount whose daemon is dead, or is to end.
take_away() {
	umount -l "$1" 2>/dev/null || fusermount3 -uz "$1"
}

# Kill the daemon as a power cut would, and take the dead mount away.
crash() {
	local pid
	pid=$(number pid)
	[ -n "$pid" ] && [ "$pid" -gt 1 ] || return 1
	kill -9 "$pid"
	until_true 10 process_gone "$pid"
	take_away "$MNT"
}

# Free blocks of 4096 bytes as statfs tells them.
free_blocks() {
	stat -f -c %f "$MNT"
}

# Background deletions have come to their end, and what they freed is free.
no_drops() {
	[ "$(number drops)" = 0 ]
}

settle() {
	until_true "${1:-60}" no_drops
	# What a transaction frees can be used when it is durable.
	cowctl sync
	cowctl sync
}

# Unmount, and let fsck find nothing: the end of each test.
check_after() {
	claim "$1: unmounts, and fsck finds nothing" eval \
		'unmount_image && check_image'
}

# ---- begin and end ----

cleanup() {
	local status=$?
	trap - EXIT INT TERM HUP
	cd /
	if is_mounted; then
		"$BIN/cowctl" "$MNT" unmount --wait 2>/dev/null ||
			take_away "$MNT"
	fi
	if [ -n "${KEEP:-}" ]; then
		echo "# kept: $W"
	else
		rm -rf --one-file-system "$W"
	fi
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

if ! [ -c /dev/fuse ] || ! [ -r /dev/fuse ] || ! [ -w /dev/fuse ]; then
	skip "$(basename "$0")" "no /dev/fuse here: nothing can be mounted"
	finish
fi
