#!/bin/bash
# snapshots.sh - create, restore, undo, delete and browse snapshots on a mount
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

claim "an image is made and mounted" eval 'new_image 512M && mount_image'

# ---- the transcript ----

project() {
	mkdir -p "$MNT/projects/myapp/src"
	echo 'int main(void) { return 0; }' >"$MNT/projects/myapp/src/main.c"
	echo 'int twice(int x) { return 2 * x; }' \
		>"$MNT/projects/myapp/src/utils.c"
	echo '#define LIMIT 10' >"$MNT/projects/myapp/src/config.h"
	head -c 3000000 /dev/urandom >"$MNT/projects/data"
	cp -r "$MNT/projects" "$W/projects"
}

transcript() {
	project
	cowctl snapshot create before-refactor >"$W/text"
	grep -Eqx "Snapshot 'before-refactor' created \(root block: [0-9]+\)" \
		"$W/text"
	rm -rf "$MNT"/projects/myapp/src/*
	echo oops >"$MNT/projects/myapp/src/main.c"
	cowctl snapshot restore before-refactor >"$W/text"
	equal "$(cat "$W/text")" "Restored to snapshot 'before-refactor'"
	diff -r "$W/projects" "$MNT/projects"
	cowctl scrub >"$W/text"
	equal "$(sed 's/[0-9][0-9]*/N/' "$W/text")" "Scrubbing filesystem...
Checked N blocks
Verified N checksums
N errors found"
	grep -qx '0 errors found' "$W/text"
	equal "$(sed -n 's/^Checked \(.*\) blocks/\1/p' "$W/text")" \
		"$(sed -n 's/^Verified \(.*\) checksums/\1/p' "$W/text")"
}
claim "the transcript: create, destroy, restore, scrub" transcript

undone() {
	cowctl snapshot undo
	equal "$(cat "$MNT/projects/myapp/src/main.c")" oops
	fails test -e "$MNT/projects/myapp/src/utils.c"
	cowctl snapshot undo
	diff -r "$W/projects" "$MNT/projects"
}
claim "undo takes a restore back, and undo again redoes it" undone

saved() {
	echo new >"$MNT/new"
	cowctl snapshot restore before-refactor --save mine
	fails test -e "$MNT/new"
	equal "$(cat "$MNT/.snapshots/mine/new")" new
	cowctl snapshot restore mine --no-save
	equal "$(cat "$MNT/new")" new
	rm "$MNT/new"
	cowctl snapshot delete mine
	fails ls "$MNT/.snapshots/mine/"
}
claim "restore --save keeps the replaced state, --no-save doesn't" saved

exits "restore to a snapshot that isn't there" 1 'nothing: no such snapshot' \
	cowctl snapshot restore nothing
exits "create of a name that exists" 1 'there is a snapshot of that name' \
	cowctl snapshot create before-refactor
exits "restore --save to a name that exists" 1 'there is a snapshot' \
	cowctl snapshot restore before-refactor --save before-refactor
exits "a name with a slash is refused" 2 "can't contain" \
	cowctl snapshot create a/b
exits "a name with @ is refused" 2 "cowfs's own" cowctl snapshot create @x
exits "an empty name is refused" 2 "empty" cowctl snapshot create ''
exits "a name of 64 bytes is refused" 2 "longer" \
	cowctl snapshot create "$(printf 'x%.0s' {1..64})"
exits "a name of 63 bytes is taken" 0 created \
	cowctl snapshot create "$(printf 'x%.0s' {1..63})"
exits "delete of several names" 0 deleted \
	cowctl snapshot delete "$(printf 'x%.0s' {1..63})" @undo

# ---- dirty pages and open files ----

dirty_create() {
	exec 3>"$MNT/dirty"
	head -c 1000000 /dev/zero | tr '\0' a >&3
	cowctl snapshot create dirty # nothing was synced or closed
	head -c 1000000 /dev/zero | tr '\0' b >&3
	equal "$(stat -c %s "$MNT/.snapshots/dirty/dirty")" 1000000
	equal "$(tr -d a <"$MNT/.snapshots/dirty/dirty" | wc -c)" 0
	equal "$(stat -c %s "$MNT/dirty")" 2000000
	exec 3>&-
	equal "$(tail -c 1000000 "$MNT/dirty" | tr -d b | wc -c)" 0
}
claim "a snapshot holds what was written before it, open or not" dirty_create

# Each page is a request of its own, and kernels before 6.16 do not wait for them
# when they are asked to write back.
dirty_pages() {
	python3 - "$MNT" "$BIN/cowctl" <<'PY'
import os, subprocess, sys
mnt, cowctl = sys.argv[1:]
fd = os.open(f'{mnt}/here-and-there', os.O_RDWR | os.O_CREAT)
some = os.urandom(4096)
whole = (some + bytes(4096)) * 1024
for i in range(0, len(whole), 8192):
    os.pwrite(fd, some, i)
os.ftruncate(fd, len(whole))
for i in range(0, len(whole), 8192):
    os.pwrite(fd, some[::-1], i)
subprocess.run([cowctl, mnt, 'snapshot', 'create', 'pages'], pass_fds=[fd],
               check=True)
whole = (some[::-1] + bytes(4096)) * 1024
got = open(f'{mnt}/.snapshots/pages/here-and-there', 'rb').read()
wrong = sum(got[i:i+8192] != whole[i:i+8192]
            for i in range(0, len(whole), 8192))
if wrong or len(got) != len(whole):
    sys.exit(f'{wrong} pages are not as they were written')
PY
	rm "$MNT/here-and-there"
	cowctl snapshot delete pages
}
claim "also if it was written here and there" dirty_pages

dirty_restore() {
	exec 3>>"$MNT/dirty"
	head -c 500000 /dev/zero | tr '\0' c >&3
	cat "$MNT/dirty" >/dev/null # its pages are in the kernel's cache now
	cowctl snapshot restore dirty
	equal "$(stat -c %s "$MNT/dirty")" 1000000
	equal "$(tr -d a <"$MNT/dirty" | wc -c)" 0
	exec 3>&- # what is closed late changes nothing
	equal "$(stat -c %s "$MNT/dirty")" 1000000
	equal "$(tr -d a <"$MNT/dirty" | wc -c)" 0
	cowctl snapshot undo
	equal "$(stat -c %s "$MNT/dirty")" 2500000
	equal "$(tail -c 500000 "$MNT/dirty" | tr -d c | wc -c)" 0
}
claim "after a restore every byte and size is the snapshot's" dirty_restore

old_handles() {
	exec 3>>"$MNT/dirty" 4<"$MNT/dirty" 5<"$MNT/projects/data"
	head -c 100 <&4 >/dev/null
	head -c 300000 /dev/zero >"$MNT/since"
	exec 6<"$MNT/since"
	cat "$MNT/since" >/dev/null # its pages are in the kernel's cache now
	cowctl snapshot restore dirty
	# Each an error, or the right bytes.
	fails grep -q b <&4 2>"$W/err"
	fails head -c 4096 <&6 2>"$W/err"
	if cat <&5 >"$W/got" 2>"$W/err"; then
		cmp "$W/got" "$W/projects/data"
	fi
	echo z >&3 || :
	exec 3>&- 4<&- 5<&- 6<&-
	cowctl sync
	equal "$(tr -d az <"$MNT/dirty" | wc -c)" 0
	cowctl snapshot undo
	rm "$MNT/since"
}
claim "files open over a restore show and change nothing wrong" old_handles

names_follow() {
	echo 1 >"$MNT/only-then"
	mkdir "$MNT/dir-then" && echo 2 >"$MNT/dir-then/x"
	cowctl snapshot create names
	rm -r "$MNT/only-then" "$MNT/dir-then"
	echo 3 >"$MNT/only-now"
	fails test -e "$MNT/only-then" # cached: there is no such name
	cat "$MNT/only-now"
	cowctl snapshot restore names
	equal "$(cat "$MNT/only-then")" 1
	equal "$(cat "$MNT/dir-then/x")" 2
	fails test -e "$MNT/only-now"
	fails test -e "$MNT/.snapshots/names/only-now"
	echo 4 >"$MNT/dir-then/y" # the restored tree is as good as any
	rm -r "$MNT/dir-then"
}
claim "names the kernel has cached follow a restore" names_follow

old_directory() {
	mkdir "$MNT/where" && echo 1 >"$MNT/where/old"
	cowctl snapshot create where
	mv "$MNT/where/old" "$MNT/where/new"
	(cd "$MNT/where" && ls >/dev/null &&
		cowctl snapshot restore where >/dev/null &&
		ls 2>/dev/null) >"$W/got" || : # an error will do
	fails grep new "$W/got"
	equal "$(ls "$MNT/where")" old
	rm -r "$MNT/where"
}
claim "a directory somebody is in over a restore lists nothing wrong" \
	old_directory

# ---- browsing ----

browse() {
	equal "$(cat "$MNT/.snapshots/names/only-then")" 1
	diff -r "$W/projects" "$MNT/.snapshots/before-refactor/projects"
	fails touch "$MNT/.snapshots/names/new"
	fails rm "$MNT/.snapshots/names/only-then"
	fails sh -c "echo x >'$MNT/.snapshots/names/only-then'"
	fails mkdir "$MNT/.snapshots/made"
	fails mkdir "$MNT/.snapshots"
	fails rmdir "$MNT/.snapshots/names"
	fails ls "$MNT/.snapshots/nothing"
	test -d "$MNT/.snapshots/before-refactor"
	ls "$MNT/.snapshots" >"$W/listed"
	grep -qx before-refactor "$W/listed"
	# Not in the listing of the root: rm -rf and cp -r must not find it.
	# shellcheck disable=SC2010
	fails sh -c "ls -A '$MNT' | grep -x .snapshots"
}
claim ".snapshots shows each snapshot, and nobody can change it" browse

# (The program asks the kernel; that of the shell might remember.)
stay_in_snapshot() {
	equal "$(cd "$MNT/.snapshots" && cowctl snapshot restore names \
		>/dev/null && env pwd -P)" "$MNT/.snapshots"
}
claim "who works among the snapshots stays there over a restore" \
	stay_in_snapshot

numbers_differ() {
	[ "$(stat -c %i "$MNT/projects/data")" != \
		"$(stat -c %i "$MNT/.snapshots/names/projects/data")" ]
}
claim "an inode number in a snapshot isn't that of the live file" \
	numbers_differ

# The view of one snapshot gets the index that another one's had.
handles_of_snapshots() {
	echo 1 >"$MNT/handled"
	cowctl snapshot create handle-1
	echo 2 >"$MNT/handled"
	cowctl snapshot create handle-2
	remount_image # nobody has looked into any
	handle of "$MNT/.snapshots/handle-1/handled" "$W/handle"
	equal "$(handle cat "$MNT" "$W/handle")" 1
	echo 2 >/proc/sys/vm/drop_caches
	equal "$(cat "$MNT/.snapshots/handle-2/handled")" 2
	if handle cat "$MNT" "$W/handle" >"$W/other"; then
		equal "$(cat "$W/other")" 1
	fi
	cowctl snapshot delete handle-1 handle-2
	rm "$MNT/handled"
}
if [ -w /proc/sys/vm/drop_caches ] && command -v python3 >/dev/null; then
	claim "a handle of a file in one snapshot opens none of another" \
		handles_of_snapshots
else
	skip "handles of files in snapshots" "no python3, or not root"
fi

copy_out() {
	cp -a "$MNT/.snapshots/before-refactor/projects" "$MNT/copied"
	diff -r "$W/projects" "$MNT/copied"
	rm -r "$MNT/copied"
}
claim "files are copied out of a snapshot" copy_out

list_json() {
	cowctl snapshot list | grep -q before-refactor
	cowctl snapshot list --json >"$W/json"
	if command -v python3 >/dev/null; then
		python3 -c 'import json, sys
names = [s["name"] for s in json.load(sys.stdin)["snapshots"]]
assert "before-refactor" in names and "@undo" in names, names' <"$W/json"
	else
		grep -q '"name": "before-refactor"' "$W/json"
	fi
}
claim "list prints text and JSON" list_json

as_mount() {
	unmount_image
	mount_image snapshot=before-refactor
	diff -r "$W/projects" "$MNT/projects"
	fails test -e "$MNT/dirty"
	fails touch "$MNT/x"
	unmount_image
	fails mount_image snapshot=nothing
	mount_image
	test -e "$MNT/dirty"
}
claim "-o snapshot=NAME mounts a snapshot read-only" as_mount

# ---- many ----

many() {
	local i
	for i in $(seq 1000); do
		echo "$i" >"$MNT/counter"
		cowctl snapshot create "n$i" >/dev/null
	done
	equal "$(cowctl snapshot list | grep -c ' n[0-9]*$')" 1000
	ls "$MNT/.snapshots" >"$W/listed"
	equal "$(grep -c '^n[0-9]*$' "$W/listed")" 1000
	for i in 1 2 17 500 999 1000; do
		equal "$(cat "$MNT/.snapshots/n$i/counter")" "$i"
	done
	remount_image
	equal "$(cat "$MNT/.snapshots/n321/counter")" 321
	# shellcheck disable=SC2046
	cowctl snapshot delete $(seq -f 'n%g' 1 2 999) >/dev/null
	equal "$(cat "$MNT/.snapshots/n322/counter")" 322
	fails ls "$MNT/.snapshots/n321/"
	# shellcheck disable=SC2046
	cowctl snapshot delete $(seq -f 'n%g' 2 2 1000) >/dev/null
	fails ls "$MNT/.snapshots/n322/"
}
claim "a thousand snapshots, and their deletion" many

space_back() {
	local before
	settle
	before=$(free_blocks)
	head -c 50000000 /dev/urandom >"$MNT/large"
	cowctl snapshot create large
	rm "$MNT/large"
	settle
	[ $((before - $(free_blocks))) -gt 12000 ]
	equal "$(stat -c %s "$MNT/.snapshots/large/large")" 50000000
	cowctl snapshot delete large
	settle
	within "$(free_blocks)" "$before" 1
}
claim "a snapshot keeps space, and its deletion gives it back" space_back

offline() {
	unmount_image
	"$BIN/cowctl" "$IMG" snapshot create offline |
		grep -q "^Snapshot 'offline' created"
	"$BIN/cowctl" "$IMG" snapshot list | grep -q offline
	"$BIN/cowctl" "$IMG" snapshot restore before-refactor
	check_image
	mount_image
	diff -r "$W/projects" "$MNT/projects"
	fails test -e "$MNT/dirty"
	cowctl snapshot restore offline
	test -e "$MNT/dirty"
}
claim "snapshots of an image that isn't mounted" offline

# What is mounted inside stays: a restore would have the kernel take it away.
mounts_inside() {
	mkdir "$MNT/inside" "$W/bound"
	cowctl snapshot create inside
	mount --bind "$W/projects" "$MNT/inside"
	fails cowctl snapshot restore inside
	grep -q "busy: something is mounted on $MNT/inside:" "$W/out"
	diff -r "$W/projects" "$MNT/inside"
	umount "$MNT/inside"
	mount --bind "$MNT/inside" "$W/bound"
	mount --bind "$W/projects" "$W/bound"
	fails cowctl snapshot restore inside
	umount "$W/bound"
	umount "$W/bound"
	cowctl snapshot restore inside
	mount --bind "$W/projects" "$MNT/inside"
	fails cowctl snapshot undo
	umount "$MNT/inside"
	cowctl snapshot undo
	rmdir "$MNT/inside"
}
if unshare -m true 2>/dev/null; then
	claim "a restore takes no mounts away" mounts_inside
else
	skip "a restore takes no mounts away" "needs root"
fi

all_gone() {
	cowctl snapshot list --json | sed -n 's/.*"name": "\([^"]*\)".*/\1/p' \
		>"$W/names"
	# shellcheck disable=SC2046
	cowctl snapshot delete $(cat "$W/names")
	rm -rf "${MNT:?}"/*
	settle
	equal "$(number snapshots)" 0
}
claim "all snapshots can be deleted" all_gone

check_after "snapshots"
finish
