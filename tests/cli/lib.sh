# shellcheck shell=bash
# lib.sh - what the tests of programs on images share
#
# A test is a bash script that sources this file, makes its claims
# (support/claims.sh) in a temporary folder, where it is then, and ends with
# `finish`.
#
#   COWFS_BIN  where the programs are (default: the top of the checkout)
# shellcheck disable=SC2034 # for the tests

# shellcheck source=../support/claims.sh
. "$(dirname "${BASH_SOURCE[0]}")/../support/claims.sh"

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=$(cd "${COWFS_BIN:-$top}" && pwd)
mkfs=$bin/mkfs.cowfs
fsck=$bin/fsck.cowfs
cowctl=$bin/cowctl
dir=$(mktemp -d "${TMPDIR:-/tmp}/cowfs-cli.XXXXXX") || exit 1
mounted=

# Somebody may be looking at $dir/mnt just now.
unmount() {
	for _ in $(seq 50); do
		"$cowctl" "$dir/mnt" unmount --wait >/dev/null 2>&1 && break
		sleep 0.1
	done
	mounted=
}

cleanup() {
	[ -z "$mounted" ] || unmount
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
cd "$dir" || exit 1

seen=$dir/out

report() { # STATUS CLAIM
	if [ "$1" -eq 0 ]; then
		ok "$2"
	else
		not_ok "$2"
		sed 's/^/# /' err 2>/dev/null
	fi
}

# check STATUS CLAIM COMMAND...: the command exits with that status
check() {
	local want=$1 claim=$2 got
	shift 2
	"$@" >out 2>err </dev/null
	got=$?
	[ "$got" -eq "$want" ] || echo "exit status $got, not $want" >>err
	report $((got != want)) "$claim"
}

# true_that CLAIM COMMAND...: the command succeeds; out and err are those of
# the check before
true_that() {
	local claim=$1
	shift
	"$@"
	report $(($? != 0)) "$claim"
}

prints() { # CLAIM PATTERN FILE
	true_that "$1" grep -q -- "$2" "$3"
}

can_mount() {
	[ -r /dev/fuse ] && [ -w /dev/fuse ]
}
