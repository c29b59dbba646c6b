# shellcheck shell=bash
# claims.sh - claims of test scripts, and counting them
#
# Sourced by what the scripts of a folder share (cli/lib.sh, mount/lib.sh), which
# sets `seen`: the file that keeps what the last command printed. A test prints a
# line per claim and ends with `finish`; the last line is "N passed, N failed",
# with ", N skipped" if something can't be tried here.
set -u
export LC_ALL=C

seen=/dev/null
passed=0
failed=0
skipped=0

ok() {
	passed=$((passed + 1))
	echo "ok - $1"
}

not_ok() {
	failed=$((failed + 1))
	echo "not ok - $1"
	if [ -s "$seen" ]; then
		tail -n 30 "$seen" | sed 's/^/# /'
	fi
}

# skip CLAIM REASON
skip() {
	skipped=$((skipped + 1))
	echo "skip - $1: $2"
}

# exits CLAIM STATUS REGEX COMMAND...: the command ends with that status, and
# what it prints matches (REGEX empty: whatever it prints).
exits() {
	local text=$1 want=$2 regex=$3 status
	shift 3
	"$@" >"$seen" 2>&1
	status=$?
	if [ $status -ne "$want" ]; then
		echo "exit status $status, not $want" >>"$seen"
		not_ok "$text"
	elif [ -n "$regex" ] && ! grep -Eq -- "$regex" "$seen"; then
		echo "no match for: $regex" >>"$seen"
		not_ok "$text"
	else
		ok "$text"
	fi
}

finish() {
	printf '%d passed, %d failed' "$passed" "$failed"
	[ "$skipped" -eq 0 ] || printf ', %d skipped' "$skipped"
	echo
	[ "$failed" -eq 0 ]
	exit
}
