#!/bin/bash
# cold.sh - what nobody has in memory is read as it was written
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

claim "an image is made and mounted" eval \
	'new_image 512M --data-copies 2 && mount_image'

fill() {
	# In order: the kernel's writeback may leave it in short pieces.
	dd if=/dev/urandom of="$MNT/long" bs=1M count=24 iflag=fullblock \
		oflag=direct status=none
	head -c 3333333 /dev/urandom >"$MNT/odd"
	cp "$MNT/odd" "$MNT/pieces"
	for i in $(seq 0 40 800); do
		dd if=/dev/urandom of="$MNT/pieces" bs=4k count=3 seek="$i" \
			conv=notrunc status=none
	done
	truncate -s 9M "$MNT/holes"
	dd if=/dev/urandom of="$MNT/holes" bs=1M count=1 seek=5 conv=notrunc \
		status=none
	seq -f 'line %.0f of this file' 1 400000 >"$MNT/lines"
	(cd "$MNT" && sha256sum -- *) >"$W/sums"
}
claim "files are made" fill

# The image leaves the host's cache.
cold() {
	unmount_image
	sync -d "$IMG"
	dd if="$IMG" iflag=nocache count=0 status=none
	mount_image "$@"
}

sums() {
	(cd "$MNT" && sha256sum -c --quiet "$W/sums")
}

claim "cold files are what they were" eval 'cold ro && sums'

# KiB of the image in the host's cache.
cached() {
	fincore --bytes --noheadings --output RES "$IMG" | awk '{
		print int($1 / 1024) }'
}

brings_little() {
	local before
	before=$(cached)
	cat "$MNT/long" >/dev/null
	echo "in the cache: $before KiB, then $(cached)"
	[ $(($(cached) - before)) -lt 12288 ]
}
# On a busy machine the kernel may ask for short pieces for a while.
brings_little_once() {
	brings_little || { cold ro && brings_little; } ||
		{ cold ro && brings_little; }
}
if ! dd if="$IMG" of=/dev/null iflag=direct bs=1M count=1 status=none ||
	! cold ro || [ "$(cached)" -gt 8192 ]; then
	skip "a long file is read past the cache" "not on this filesystem"
elif [ "$(cat /sys/class/bdi/0:"$(stat -c %d "$MNT")"/read_ahead_kb 2>&1)" \
	!= 1024 ]; then
	skip "a long file is read past the cache" "reads are short here"
else
	claim "a long file is read past the cache" brings_little_once
fi

# Four bytes of a block in the middle, in one copy.
rot() {
	local at
	unmount_image
	at=$(grep -obUa "line 200000 of" "$IMG" | head -n 1 | cut -d: -f1)
	printf 'rust' | dd of="$IMG" bs=1 seek="$at" conv=notrunc status=none
	mount_image
	cold
}
claim "a long read mends what has rotted" eval \
	'rot && sums && [ "$(number repaired stats)" -ge 1 ]'
check_after "after all"

finish
