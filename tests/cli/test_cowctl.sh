#!/bin/bash
# test_cowctl.sh - cowctl on images that are not mounted
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

cowctl() {
	"$bin/cowctl" "$@"
}

fresh() {
	rm -f image
	"$bin/mkfs.cowfs" -q -s 32M "$@" image
}

fresh -L offline

# ---- usage ----

exits "no arguments" 2 '^usage: cowctl PATH snapshot create NAME$' cowctl
exits "a path alone" 2 '^usage: ' cowctl image
exits "--help" 0 '^usage: ' cowctl --help
exits "--version" 0 '^cowctl \(cowfs\) [0-9]+\.' cowctl --version
exits "an unknown option" 2 "unknown option '--x'" cowctl --x
exits "an unknown letter is named itself" 2 "unknown option '-q'" \
	cowctl image scrub -qB
exits "an option without its value" 2 "'--rate' needs a value" \
	cowctl image scrub --rate
exits "an unknown verb" 2 '^cowctl: dance: no such verb$' cowctl image dance
exits "snapshot without a verb" 2 'create, list' cowctl image snapshot
exits "snapshot with an unknown verb" 2 'no such verb' cowctl image snapshot x
exits "create without a name" 2 'a name is missing' \
	cowctl image snapshot create
exits "create with two names" 2 'is too much' cowctl image snapshot create a b
exits "restore with both options" 2 '--save or --no-save' \
	cowctl image snapshot restore a --save b --no-save
exits "restore --save without a name" 2 'a name is missing' \
	cowctl image snapshot restore a --save
exits "restore --save with a reserved name" 2 "cowfs's own" \
	cowctl image snapshot restore a --save @b
exits "info with too many arguments" 2 "'more' is too much" \
	cowctl image info more
exits "scrub with an unknown verb" 2 'no such verb' cowctl image scrub fly
exits "a name may begin with a dash after --" 0 "'-x' created" \
	cowctl image snapshot create -- -x
exits "and be deleted so" 0 "'-x' deleted" cowctl image snapshot delete -- -x

# ---- what it is pointed at ----

exits "nothing there" 1 '^cowctl: none: No such file or directory$' \
	cowctl none info
: >plain
exits "a plain file" 1 '^cowctl: plain: not a cowfs' cowctl plain info
exits "a directory elsewhere" 1 '^cowctl: \.: not a cowfs' cowctl . info
mkfifo fifo
exits "a fifo is not waited for" 1 'not a cowfs' timeout 10 "$bin/cowctl" \
	fifo info
head -c 100000 image >short
exits "a cut-off image" 1 '^cowctl: short: ' cowctl short info

# What a repair that was undone, or rot, may leave of the superblocks.
cp image hurt
dd if=/dev/zero of=hurt bs=4096 seek=16 count=1 conv=notrunc status=none
exits "an image without its first superblock" 0 '^Label +offline$' \
	cowctl hurt info
dd if=/dev/zero of=hurt bs=4096 seek=16 count=4 conv=notrunc status=none
exits "... with the far ones alone" 0 '^Label +offline$' cowctl hurt info
exits "... that mkfs leaves alone, too" 1 'contains a cowfs filesystem' \
	"$mkfs" hurt

nobody() {
	setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
}
chmod 711 .
if nobody test -x "$bin/cowctl" 2>/dev/null; then
	exits "an image that may not be read is named as such" 1 \
		'image: Permission denied' nobody "$bin/cowctl" image info
else
	skip "an image that may not be read is named as such" "not root"
fi
chmod 700 .

# ---- state ----

exits "info" 0 '^Label +offline$' cowctl image info
exits "info --json" 0 '"label": "offline"' cowctl image info --json
exits "stats" 0 '^Commits' cowctl image stats
exits "stats --json" 0 '"commits": ' cowctl image stats --json
exits "sync of an image" 0 '' cowctl image sync
exits "unmount of what isn't mounted" 1 'no cowfs is mounted' \
	cowctl image unmount

# ---- snapshots ----

exits "create" 0 "^Snapshot 'one' created \(root block: [0-9]+\)$" \
	cowctl image snapshot create one
exits "create it again" 1 '^cowctl: one: there is a snapshot' \
	cowctl image snapshot create one
exits "list" 0 ' one$' cowctl image snapshot list
exits "list --json" 0 '"name": "one", "id": [0-9]+' \
	cowctl image snapshot list --json
exits "undo when nothing was restored" 1 'no restore to undo' \
	cowctl image snapshot undo
exits "restore" 0 "^Restored to snapshot 'one'$" \
	cowctl image snapshot restore one
exits "what was replaced is kept" 0 ' @undo$' cowctl image snapshot list
exits "undo" 0 '^Restore undone$' cowctl image snapshot undo
exits "restore --save" 0 'Restored' \
	cowctl image snapshot restore one --save two
exits "it is there" 0 ' two$' cowctl image snapshot list
exits "restore to nothing" 1 '^cowctl: three: no such snapshot$' \
	cowctl image snapshot restore three
exits "delete goes on after one that isn't there" 1 "'two' deleted" \
	cowctl image snapshot delete three two
exits "a control character is shown as such" 0 "'a\\\\x0ab' created" \
	cowctl image snapshot create $'a\nb'
exits "and escaped in JSON" 0 '"name": "a\\u000ab"' \
	cowctl image snapshot list --json
exits "so is one of the other kind" 0 "'\\\\xc2\\\\x9b2J' created" \
	cowctl image snapshot create $'\xc2\x9b2J'
exits "and escaped in JSON, too" 0 '"name": "\\u009b2J"' \
	cowctl image snapshot list --json
"$bin/mkfs.cowfs" -q -s 32M -L $'a\e[2J' odd
exits "no label drives a terminal" 0 '^Label +a\\x1b\[2J$' cowctl odd info
exits "nor does a path" 1 'no\\x1b\[2J: No such file' cowctl $'no\e[2J' info
if command -v python3 >/dev/null; then
	for verb in info stats scrub 'snapshot list'; do
		# shellcheck disable=SC2086
		cowctl image $verb --json >json
		exits "$verb --json is JSON" 0 '' python3 -m json.tool json
	done
fi
exits "fsck finds nothing after all that" 0 clean \
	"$bin/fsck.cowfs" -n image

# ---- scrub ----

exits "scrub" 0 '^0 errors found$' cowctl image scrub
exits "scrub start on an image" 1 'not mounted' cowctl image scrub start
exits "the result of the last scrub is kept" 0 '^Scrub: finished$' \
	cowctl image scrub status
exits "scrub cancel when none is running" 1 'no scrub is running' \
	cowctl image scrub cancel
exits "scrub resume when there is none" 1 'there is no scrub to resume' \
	cowctl image scrub resume
exits "a rate that is none" 2 'no rate' cowctl image scrub --rate=fast
exits "a scrub with a rate" 0 '^0 errors found$' cowctl image scrub --rate=1G

root_block() {
	cowctl image snapshot create "$1" | sed -n 's/.*root block: \(.*\))$/\1/p'
}

# One copy of a node: found, repaired, and told by the exit status.
block=$(root_block hurt)
printf 'damaged' | dd of=image bs=1 seek=$((block * 4096 + 500)) conv=notrunc \
	status=none
exits "scrub finds a bad copy, and repairs it" 0 '^1 bad copy repaired$' \
	cowctl image scrub
exits "what was repaired stays in the status" 0 '^repaired: node of the file' \
	cowctl image scrub status
exits "then there is nothing to find" 0 '^0 errors found$' \
	cowctl image scrub

if [ "$(id -u)" != 0 ]; then
	printf 'damaged' | dd of=image bs=1 seek=$((block * 4096 + 500)) \
		conv=notrunc status=none
	chmod 444 image
	exits "a read-only image is scrubbed, not repaired" 3 '1 error found' \
		cowctl image scrub
	chmod 644 image
	cowctl image scrub >/dev/null 2>&1
fi

# A node without a good copy.
fresh --metadata-copies 1
block=$(root_block lost)
printf 'damaged' | dd of=image bs=1 seek=$((block * 4096 + 500)) conv=notrunc \
	status=none
exits "scrub tells of what is lost" 3 'lost: no good copy' cowctl image scrub
exits "and in JSON" 3 '"lost": [1-9]' cowctl image scrub --json

# ---- what is no image, and help ----

head -c 1M /dev/urandom >noise
exits "fsck says that it is no cowfs image" 8 'noise: not a cowfs image' \
	"$bin/fsck.cowfs" -n noise
exits "so does rescue" 8 'noise: not a cowfs image' cowctl noise rescue dir
exits "so does a mount" 1 'not a cowfs image' "$bin/cowfs" noise .
for words in "image scrub --help" "image snapshot create --help" \
	"image info --help" "snapshot --help"; do
	# shellcheck disable=SC2086
	exits "cowctl $words" 0 '^usage: cowctl' cowctl $words
done
exits "behind -- it is a name" 1 . cowctl image snapshot delete -- --help
exits "redundancy=1 is explained" 1 'redundancy: 1 would be every file' \
	cowctl image set redundancy=1
exits "a directory is no image" 1 'neither a file nor a block device' \
	"$bin/mkfs.cowfs" .
exits "one file is no mirror" 1 'a mirror needs two' \
	"$bin/mkfs.cowfs" --mirror -s 64M twice twice
exits "... nor when it is there" 1 'a mirror needs two' \
	"$bin/mkfs.cowfs" -f --mirror image ./image
[ ! -e twice ] || exits "... and none is made" 1 . true
"$bin/mkfs.cowfs" -q --mirror -s 64M side1 side2
cp side2 side3
exits "two files may be the other side" 1 'more than one file may be' \
	cowctl side1 info
exits "... fsck says so" 8 'more than one file may be' \
	"$bin/fsck.cowfs" -n side1
exits "... and that one may say which" 0 . cowctl --mirror side2 side1 info
rm side?

# ---- in use ----

fresh
flock -x image sleep 3 &
sleep 0.3
exits "an image in use is waited for, some seconds" 0 '^Snapshot' \
	cowctl image snapshot create patient
wait

finish
