#!/bin/bash
# options.sh - mount options, refusals, exit codes
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

claim "an image is made and mounted" eval 'new_image 64M -L here && mount_image'

mount_line() {
	awk -v point="$MNT" '$2 == point' /proc/mounts
}

shown() {
	equal "$(mount_line | cut -d' ' -f1)" "$IMG"
	equal "$(mount_line | cut -d' ' -f3)" fuse.cowfs
	findmnt -no SOURCE,FSTYPE "$MNT"
}
claim "/proc/mounts names the image and the type" shown

exits "a second mount is refused" 1 'cowfs: .*(in use|busy)' \
	timeout 60 "$BIN/cowfs" "$IMG" "$W"
exits "mkfs refuses a mounted image" 1 'mkfs.cowfs: .*(in use|busy|mounted)' \
	timeout 60 "$BIN/mkfs.cowfs" -f "$IMG"
exits "fsck refuses a mounted image" 8 'fsck.cowfs: .*(in use|busy|mounted)' \
	timeout 60 "$BIN/fsck.cowfs" "$IMG"
exits "cowctl says where an image is mounted" 1 "in use: mounted on $MNT" \
	"$BIN/cowctl" "$IMG" snapshot create x

# ---- cowctl ----

exits "cowctl without arguments" 2 '^usage: cowctl PATH' "$BIN/cowctl"
exits "cowctl --help" 0 '^usage: cowctl PATH' "$BIN/cowctl" --help
exits "cowctl --version" 0 '^cowctl \(cowfs\) [0-9]' "$BIN/cowctl" --version
exits "cowctl with an unknown verb" 2 'cowctl: fly: no such verb' cowctl fly
exits "cowctl with an unknown option" 2 "unknown option '--wings'" \
	cowctl info --wings
exits "cowctl on something else" 1 'cowctl: /proc: not a cowfs' \
	"$BIN/cowctl" /proc info
exits "cowctl on nothing" 1 'cowctl: .*/none: No such file' \
	"$BIN/cowctl" "$W/none" info
touch "$W/plain"
exits "cowctl on a plain file" 1 'plain: not a cowfs' \
	"$BIN/cowctl" "$W/plain" info
exits "cowctl info" 0 '^Label +here$' cowctl info
mkdir -p "$MNT/deep/er"
echo x >"$MNT/deep/er/file"
exits "cowctl takes anything inside a mount" 0 '^Label +here$' \
	"$BIN/cowctl" "$MNT/deep/er/file" info
exits "cowctl stats" 0 '^Commits' cowctl stats
exits "cowctl scrub status" 0 '^Scrub: ' cowctl scrub status

json_valid() {
	local verb
	for verb in info stats "scrub status" scrub "snapshot list"; do
		# shellcheck disable=SC2086
		cowctl $verb --json | python3 -m json.tool >/dev/null
	done
}
if command -v python3 >/dev/null; then
	claim "all JSON can be parsed" json_valid
else
	skip "all JSON can be parsed" "no python3"
fi

background() {
	cowctl scrub start
	until_true 20 eval 'cowctl scrub status | grep -qx "Scrub: finished"'
	cowctl scrub status | grep -qx '0 errors found'
}
claim "scrub in the background" background

# ---- options ----

help_text() {
	"$BIN/cowfs" --help >"$W/help"
	grep -q -- '-o' "$W/help"
	local word
	for word in commit cache noatime snapshot allow_other; do
		grep -q "$word" "$W/help"
	done
	"$BIN/cowfs" --version | grep -Eq '^cowfs'
}
claim "cowfs --help names the options" help_text

read_only() {
	local before
	unmount_image
	before=$(sha256sum <"$IMG")
	mount_image ro
	cat "$MNT/deep/er/file"
	fails touch "$MNT/x"
	fails sh -c "echo y >>'$MNT/deep/er/file'"
	fails rm "$MNT/deep/er/file"
	fails chmod 600 "$MNT/deep/er/file"
	fails cowctl snapshot create x
	mount_line | cut -d' ' -f4 | tr , '\n' | grep -qx ro
	unmount_image
	equal "$(sha256sum <"$IMG")" "$before"
	mount_image
}
claim "ro writes nothing at all" read_only

atimes() {
	local before
	remount_image noatime
	touch -a -d 2001-01-01 "$MNT/deep/er/file"
	cat "$MNT/deep/er/file"
	equal "$(stat -c %X "$MNT/deep/er/file")" "$(date -d 2001-01-01 +%s)"
	remount_image relatime
	cat "$MNT/deep/er/file"
	remount_image # what the daemon has, not the kernel's cache
	[ "$(stat -c %X "$MNT/deep/er/file")" -gt \
		"$(date -d 2010-01-01 +%s)" ]
}
claim "noatime and relatime" atimes

options_taken() {
	local o
	for o in commit=1 commit=300 cache=16M errors=continue \
		poll=0 poll=1000 threads=1 threads=3,poll=0 \
		errors=remount-ro rw,nodev,nosuid,noexec defaults \
		nofail,_netdev,x-systemd.automount,noauto,user snapdir; do
		echo "$o"
		remount_image "$o"
		cat "$MNT/deep/er/file"
	done
	# shellcheck disable=SC2010
	ls -A "$MNT" | grep -qx .snapshots
	remount_image noexec
	printf '#!/bin/sh\n' >"$MNT/script"
	chmod +x "$MNT/script"
	fails "$MNT/script"
	remount_image
	"$MNT/script"
}
claim "options are taken" options_taken

flags_now() {
	mount_line | cut -d' ' -f4 | tr , '\n' |
		grep -xE 'ro|rw|nosuid|nodev|noexec' | tr '\n' ' '
}

remounted_flags() {
	remount_image nosuid,nodev,noexec
	mount_image remount,ro
	equal "$(flags_now)" "ro nosuid nodev noexec "
	mount_image remount,rw,exec
	equal "$(flags_now)" "rw nosuid nodev "
	mount_image remount,rw,suid,dev
	equal "$(flags_now)" "rw "
	remount_image
}

# The kernel leaves access times to the daemon.
remounted_atimes() {
	local f=$MNT/deep/er/file
	touch -a -d 2001-01-01 "$f"
	remount_image # so that reading reaches the daemon
	mount_image remount,ro
	cat "$f"
	equal "$(stat -c %X "$f")" "$(date -d 2001-01-01 +%s)"
	mount_image remount,rw
	touch -a -d 2002-01-01 "$f"
	remount_image
	mount_image remount,noatime
	cat "$f"
	remount_image
	equal "$(stat -c %X "$f")" "$(date -d 2002-01-01 +%s)"
	mount_image remount,noatime
	mount_image remount,relatime
	cat "$f"
	remount_image
	[ "$(stat -c %X "$f")" -gt "$(date -d 2010-01-01 +%s)" ]
	touch -a -d 2003-01-01 "$f"
	remount_image noatime # stays over what does not speak of it
	mount_image remount,ro
	mount_image remount,rw
	cat "$f"
	remount_image
	equal "$(stat -c %X "$f")" "$(date -d 2003-01-01 +%s)"
}
if [ "$(id -u)" = 0 ]; then
	claim "remounting changes what it is told to" remounted_flags
	claim "... and when reading marks a file" remounted_atimes
else
	skip "remounting changes what it is told to" "needs root"
fi

# Whoever serves a request that waits for other requests must not be the only
# one who reads them: a snapshot waits for dirty pages to be written.
waits_for_others() {
	local i

	remount_image threads=2
	for i in $(seq 20); do
		dd if=/dev/zero of="$MNT/deep/dirty$i" bs=64k count=4 status=none
		timeout 60 "$BIN/cowctl" "$MNT" snapshot create "waits$i"
		timeout 60 stat "$MNT/deep/dirty$i"
	done
	remount_image
}
claim "a request that waits for another is answered" waits_for_others

# So does lseek(SEEK_DATA), and with one thread nobody else is there to serve.
remount_image threads=1
mkdir "$MNT/deep/one"
helper posix_files "$MNT/deep/one"
rm -rf "$MNT/deep/one"
remount_image

# Processors are kept awake while requests come fast, and only then.
DEVICE=/dev/cpu_dma_latency

holds() {
	find "/proc/$1/fd" -lname $DEVICE 2>/dev/null | grep -q .
}

# How often it was seen while many files are made.
times_held() {
	local pid times=0 i load
	pid=$(number pid)
	for i in 1 2 3 4 5 6 7 8 9 10; do
		(cd "$MNT/deep/busy" && seq "$i" 10 20000 | xargs touch) &
		load=$!
		while kill -0 $load 2>/dev/null; do
			! holds "$pid" || times=$((times + 1))
		done
		wait $load || return 1
		[ $times = 0 ] || break
	done
	echo $times
}

let_go() {
	! holds "$(number pid)"
}

awake_while_busy() {
	mkdir "$MNT/deep/busy"
	[ "$(times_held)" -gt 0 ]
	until_true 2 let_go
	sleep 0.2
	let_go
	remount_image poll=0
	equal "$(times_held)" 0
	remount_image
	rm -rf "$MNT/deep/busy"
}
driver=$(cat /sys/devices/system/cpu/cpuidle/current_driver 2>/dev/null)
if [ -w $DEVICE ] && [ "${driver:-none}" != none ] && [ "$(nproc)" -gt 1 ]; then
	claim "idle processors stay awake while requests come fast" \
		awake_while_busy
else
	skip "awake_while_busy" "processors that nobody can keep awake"
fi

older_states() {
	local gen
	echo one >"$MNT/state"
	cowctl sync
	gen=$(number generation)
	echo two >"$MNT/state"
	unmount_image
	mount_image "recovery=$gen" 2>"$W/said"
	grep -q "generation $gen, nothing of its metadata is missing" "$W/said"
	equal "$(cat "$MNT/state")" one
	fails touch "$MNT/x"
	fails mount_image remount,rw
	unmount_image
	mount_image recovery=1,rw 2>"$W/said"
	grep -q "recovery is read-only: rw is ignored" "$W/said"
	fails touch "$MNT/x"
	unmount_image
	"$BIN/cowfs" -w -o recovery=1 "$IMG" "$MNT" 2>"$W/said"
	grep -q "recovery is read-only: rw is ignored" "$W/said"
	unmount_image
	"$BIN/fsck.cowfs" --backup-super "$gen" "$IMG"
	"$BIN/fsck.cowfs" --backup-super 1 "$IMG"
	fails mount_image recovery=99999999 2>"$W/said"
	grep -q "has been overwritten" "$W/said"
	grep -q "^Generations .* $gen" "$W/said"
	mount_image
	equal "$(cat "$MNT/state")" two
}
claim "-o recovery=N shows an older state, if it is still there" older_states

# The nodes of one generation, both copies.
spoil_generation() {
	python3 - "$IMG" "$1" <<'PY'
import sys
with open(sys.argv[1], 'r+b') as f:
    image = f.read()
    for at in range(20 * 4096, len(image), 4096):
        head = image[at:at + 64]
        if (head[:4] == b'CNOD' and head[4] == 0 and head[5] == 0 and
                int.from_bytes(head[16:24], 'little') == int(sys.argv[2])):
            f.seek(at + 100)
            f.write(b'overwritten')
PY
}

overwritten_state() {
	local gen
	echo three >"$MNT/state"
	cowctl sync
	gen=$(number generation)
	echo four >"$MNT/state"
	unmount_image
	spoil_generation "$gen"
	# the root directory may be what is missing
	if mount_image "recovery=$gen" 2>"$W/said"; then
		fails cat "$MNT/state"
		unmount_image
	fi
	grep -q "have been overwritten since: [1-9]" "$W/said"
	mount_image
	equal "$(cat "$MNT/state")" four
}
if command -v python3 >/dev/null; then
	claim "... and says what of it is missing" overwritten_state
else
	echo "skipped: damaged older states: no python3"
fi

unmount_image >"$W/out" 2>&1
for bad in recovery=0 recovery=x recovery=-1 commit=0 commit=301 commit=x cache=x wings errors=maybe \
	poll=1001 poll=x threads=0 \
	snapshot=none; do
	claim "option $bad is refused with a message" eval \
		"fails mount_image $bad 2>'$W/err' && grep -q '^cowfs: ' '$W/err' &&
		! is_mounted"
done
exits "an image that isn't there" 1 'cowfs: .*/none: No such file' \
	"$BIN/cowfs" "$W/none" "$MNT"
exits "a mount point that isn't there" 1 'cowfs: .*/none: No such file' \
	"$BIN/cowfs" "$IMG" "$W/none"
exits "a file that is no filesystem" 1 'cowfs: ' \
	"$BIN/cowfs" "$W/plain" "$MNT"
claim "it mounts after all that" mount_image

others() {
	[ "$(id -u)" = 0 ] || return 0
	echo secret >"$MNT/readable"
	chmod 755 "$MNT" "$W"
	fails setpriv --reuid 65534 --clear-groups cat "$MNT/readable"
	remount_image allow_other
	setpriv --reuid 65534 --clear-groups cat "$MNT/readable"
	chmod 600 "$MNT/readable"
	fails setpriv --reuid 65534 --clear-groups cat "$MNT/readable"
	fails setpriv --reuid 65534 --clear-groups \
		"$BIN/cowctl" "$MNT" snapshot create theirs
	setpriv --reuid 65534 --clear-groups "$BIN/cowctl" "$MNT" info
}

# Root of a container has the number of root, but none of its rights.
root_of_nothing() {
	local who no="--bounding-set -sys_admin --inh-caps -sys_admin"
	for who in "setpriv $no" "unshare -U" "unshare -Ur"; do
		$who "$BIN/cowctl" "$MNT" info
		fails $who "$BIN/cowctl" "$MNT" snapshot create theirs
		fails $who "$BIN/cowctl" "$MNT" sync
	done
	"$BIN/cowctl" "$MNT" snapshot create ours
	"$BIN/cowctl" "$MNT" snapshot delete ours
}

# A user's mount: root of a container that he made for himself has his number, and
# sees nothing of his but what was put there. In a mount namespace of its own, as
# not everybody may open the device here.
cat >"$W/rootless.sh" <<'EOF'
set -eu
you="setpriv --reuid 65534 --regid 65534 --clear-groups env PATH=$PATH"
rm -rf "$W/rootless"
mkdir -p "$W/rootless/mnt"
"$BIN/mkfs.cowfs" -q -s 32M "$W/rootless/img"
truncate -s 64M "$W/rootless/other" "$W/rootless/side"
mknod -m 666 "$W/rootless/fuse" c 10 229
chown -R 65534:65534 "$W/rootless/img" "$W/rootless/other" \
	"$W/rootless/side" "$W/rootless/mnt" "$W/rootless"
mount --bind "$W/rootless/fuse" /dev/fuse
cd "$W/rootless"
$you "$BIN/cowfs" img mnt
refused() {
	! "$@" 2>said
	grep 'only root and the user who mounted' said
}
refused $you unshare -Ur "$BIN/cowctl" mnt snapshot create theirs
refused $you unshare -Urm "$BIN/cowctl" mnt mirror add other
refused unshare -m $you "$BIN/cowctl" mnt mirror add other
! grep -qc COWFS other
$you "$BIN/cowctl" mnt snapshot create ours
$you "$BIN/cowctl" mnt mirror add side
$you "$BIN/cowctl" mnt unmount --wait
grep -qc COWFS side
EOF

rootless() {
	chmod 755 "$W"
	env "W=$W" "BIN=$BIN" unshare -m --propagation private \
		sh "$W/rootless.sh"
}

if [ "$(id -u)" = 0 ]; then
	claim "allow_other lets others in, but not to the controls" others
	if unshare -Ur true 2>/dev/null; then
		claim "... nor a root without its rights" root_of_nothing
		claim "... nor a user's own container to his mounts" rootless
	else
		skip "a root without its rights" "no user namespaces"
	fi
else
	skip "allow_other lets others in" "needs root"
fi

# ---- coming and going ----

sigterm() {
	local pid
	head -c 1000000 /dev/urandom >"$MNT/term"
	sha256sum <"$MNT/term" >"$W/sum"
	pid=$(number pid)
	kill -TERM "$pid"
	until_true 20 process_gone "$pid"
	fails is_mounted
	check_image
	mount_image
	sha256sum <"$MNT/term" | cmp - "$W/sum"
}
claim "SIGTERM unmounts cleanly" sigterm

busy() {
	exec 3<"$MNT/term"
	fails cowctl unmount 2>"$W/err"
	grep -qi busy "$W/err"
	exec 3<&-
	cowctl unmount --wait
	fails is_mounted
	exec 3<>"$IMG"
	flock -n 3 # nobody has it
	exec 3>&-
	mount_image
}
claim "unmount refuses when busy, --wait waits for the daemon" busy

patient() {
	(exec sleep 0.5) 3<"$MNT/term" &
	cowctl unmount --wait
	mount_image
}
claim "--wait is patient with who only looks by" patient

# What is lost before anything was written since the mount leaves no trace in
# the image.
lost() {
	remount_image
	prlimit --pid "$(number pid)" --fsize=0
	echo gone >"$MNT/gone"
	fails unmount_image 2>"$W/err"
	grep -q 'the last changes could not be written' "$W/err"
	fails is_mounted
	check_image
	mount_image
	fails test -e "$MNT/gone"
}
if command -v prlimit >/dev/null; then
	claim "unmount --wait tells that nothing could be written" lost
else
	skip "unmount --wait tells that nothing could be written" "no prlimit"
fi

# An image is one though it lies on a cowfs.
inner() {
	local inner=$MNT/inner.img
	mkdir "$W/in"
	"$BIN/mkfs.cowfs" -q -s 16M "$inner"
	fails "$BIN/cowctl" "$inner" unmount 2>"$W/err"
	grep -q 'inner.img: no cowfs is mounted there' "$W/err"
	is_mounted
	"$BIN/cowfs" "$inner" "$W/in"
	"$BIN/cowctl" "$inner" unmount --wait
	fails mounted_at "$W/in"
	is_mounted
}
claim "unmount by an image that lies on a mount" inner

# By its image the one below is meant, not what covers it.
covered() {
	"$BIN/cowfs" "$MNT/inner.img" "$W/in"
	cp "$MNT/inner.img" "$W/upper.img"
	"$BIN/cowfs" "$W/upper.img" "$W/in"
	fails "$BIN/cowctl" "$MNT/inner.img" unmount 2>"$W/err"
	grep -q 'something else is mounted over it' "$W/err"
	"$BIN/cowctl" "$W/upper.img" unmount --wait
	"$BIN/cowctl" "$MNT/inner.img" unmount --wait
	fails mounted_at "$W/in"
	rm "$MNT/inner.img" "$W/upper.img"
}
if [ "$(id -u)" = 0 ]; then
	claim "unmount by the image of a covered mount" covered
else
	# fusermount3 mounts nothing over what root may not look at
	skip "unmount by the image of a covered mount" "needs root"
fi

# What else shows it keeps the daemon, for which nobody waits then.
bound() {
	mkdir -p "$W/bound" "$MNT/part"
	mount --bind "$MNT/part" "$W/bound"
	fails timeout 20 "$BIN/cowctl" "$W/bound" unmount --wait 2>"$W/err"
	grep -q "is mounted on $MNT, too" "$W/err"
	is_mounted
	fails mounted_at "$W/bound"
}

elsewhere() {
	local pid
	unshare -m --propagation private sh -c "touch '$W/copied'; sleep 8" &
	pid=$!
	until_true 5 test -e "$W/copied"
	cowctl unmount --wait 2>"$W/err"
	grep -q "serves another mount namespace.*see /proc/[0-9]*/mountinfo" \
		"$W/err"
	wait $pid
	mount_image
}

# What /sbin/umount.fuse.cowfs is: umount(8) calls it, as here. $@: options
umount_helper() {
	ln -sf "$BIN/cowctl" "$W/umount.fuse.cowfs"
	"$W/umount.fuse.cowfs" "$@" 2>"$W/err"
}

umount_waits() {
	local pid
	pid=$(number pid)
	head -c 20M /dev/urandom >"$MNT/much"
	umount_helper "$MNT"
	# What is run beside this may have a copy of the mount for a moment.
	process_gone "$pid" || grep -q 'another mount namespace' "$W/err"
	mount_image
	equal "$(stat -c %s "$MNT/much")" $((20 << 20))
	rm "$MNT/much"
}

umount_others() {
	mkdir -p "$W/bound" "$MNT/part"
	mount --bind "$MNT/part" "$W/bound"
	umount_helper "$W/bound"
	is_mounted
	fails mounted_at "$W/bound"
	fails umount_helper "$MNT" more
	fails umount_helper -z "$MNT"
	is_mounted
	(cd "$MNT/part" && fails umount_helper "$MNT")
	grep -q 'busy' "$W/err"
	(cd "$MNT/part" && umount_helper "$MNT" -l)
	fails mounted_at "$MNT"
	fails umount_helper "$MNT"
	until_true 10 check_image
	mount_image
}

# A daemon that is gone has nothing to write, and may have a successor.
umount_dead() {
	local pid
	pid=$(number pid)
	mkdir -p "$W/next"
	kill -KILL "$pid"
	until_true 10 process_gone "$pid"
	"$BIN/cowfs" "$IMG" "$W/next"
	timeout 20 "$W/umount.fuse.cowfs" "$MNT" 2>"$W/err"
	grep -q 'daemon that served it was gone: what .* is lost' "$W/err"
	fails mounted_at "$MNT"
	"$BIN/cowctl" "$W/next" unmount --wait
	mount_image
}

umount_elsewhere() {
	local pid
	unshare -m --propagation private sh -c "touch '$W/copied2'; sleep 9" &
	pid=$!
	until_true 5 test -e "$W/copied2"
	umount_helper "$MNT"
	grep -q "but the daemon serves another mount namespace" "$W/err"
	kill -0 $pid
	wait $pid
	until_true 10 check_image
	mount_image
}

# Root, whom the kernel does not let into what a user has mounted for himself: the
# daemon cannot be asked who it is. In a mount namespace of its own, as above.
cat >"$W/theirs.sh" <<'EOF'
set -eu
you="setpriv --reuid 65534 --regid 65534 --clear-groups env PATH=$PATH"
mkdir -p "$W/theirs/mnt"
mknod -m 666 "$W/theirs/fuse" c 10 229
chown -R 65534:65534 "$W/theirs/mnt" "$W/theirs"
mount --bind "$W/theirs/fuse" /dev/fuse
cd "$W/theirs"
$you "$BIN/mkfs.cowfs" -q -s 32M img
$you "$BIN/cowfs" img mnt
pid=""
trap '[ -z "$pid" ] || kill -CONT "$pid" || :
	umount -l "$W/theirs/mnt" || :' EXIT
$you touch mnt/last
pid=$($you "$BIN/cowctl" mnt info --json | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')
[ "$pid" -gt 1 ]
ln -s "$BIN/cowctl" umount.fuse.cowfs
kill -STOP "$pid"
(./umount.fuse.cowfs "$W/theirs/mnt" && touch unmounted) &
sleep 1
[ ! -e unmounted ]
kill -CONT "$pid"
wait $!
[ -e unmounted ]
"$BIN/cowfs" -o ro img mnt
[ -e mnt/last ]
EOF

umount_theirs() {
	chmod 755 "$W"
	env "W=$W" "BIN=$BIN" timeout 60 unshare -m --propagation private \
		sh "$W/theirs.sh"
}

# As of other filesystems, what is read-only is durable.
remount_durable() {
	cowctl sync
	mkdir "$MNT/before"
	"$BIN/cowfs" -o remount,ro "$IMG" "$MNT"
	crash
	mount_image
	rmdir "$MNT/before"
}

remount_other() {
	mkdir "$W/other"
	fails "$BIN/cowfs" -o remount,ro "$IMG" "$W/other" 2>"$W/err"
	grep -q 'no cowfs is mounted there' "$W/err"
	mount -t tmpfs none "$W/other"
	fails "$BIN/cowfs" -o remount,ro "$IMG" "$W/other" 2>"$W/err"
	grep -q 'no cowfs is mounted there' "$W/err"
	touch "$W/other/writable"
	umount "$W/other"
}

# The kernel would open it for writing.
write_protected() {
	local loop
	"$BIN/mkfs.cowfs" -q -s 16M "$W/protected"
	loop=$(losetup --find --show --read-only "$W/protected")
	echo "$loop" >"$W/loop"
	fails "$BIN/cowfs" "$loop" "$W/in" 2>"$W/err"
	grep -q 'Read-only file system (-o ro mounts it read-only)' "$W/err"
	fails "$BIN/cowctl" "$loop" snapshot create x
	"$BIN/cowctl" "$loop" scrub
	"$BIN/cowfs" -o ro "$loop" "$W/in"
	"$BIN/cowctl" "$W/in" unmount --wait
}
if [ "$(id -u)" = 0 ]; then
	claim "unmount --wait of a bind mount" bound
	claim "unmount --wait says what for" elsewhere
	claim "umount(8) waits for the last commit" umount_waits
	claim "umount(8) of what is used, bound, detached" umount_others
	claim "umount(8) of what has no daemon" umount_dead
	claim "umount(8) waits for no other namespace" umount_elsewhere
	claim "umount(8) by root waits for what a user mounted" umount_theirs
	claim "remount,ro makes all durable" remount_durable
	claim "remount leaves other filesystems alone" remount_other
	! mounted_at "$W/other" || umount "$W/other"
else
	skip "remount leaves other filesystems alone" "not root"
fi
if [ "$(id -u)" = 0 ] && losetup --find >/dev/null 2>&1; then
	claim "a write-protected device is not mounted for writing" \
		write_protected
	! mounted_at "$W/in" || umount "$W/in"
	[ ! -e "$W/loop" ] || losetup -d "$(cat "$W/loop")"
else
	skip "a write-protected device is not mounted for writing" "no loop devices"
fi

plain_umount() {
	until_true 2 fusermount3 -u "$MNT" # others may look at all mounts
	mount_image # waits for the daemon that still commits
	test -e "$MNT/term"
}
claim "fusermount3 -u, and a mount right after it" plain_umount

foreground() {
	local pid
	unmount_image
	"$BIN/cowfs" -f "$IMG" "$MNT" &
	pid=$!
	until_true 10 is_mounted
	test -e "$MNT/term"
	cowctl unmount --wait
	wait "$pid"
	mount_image
}
claim "-f stays in the foreground and ends with 0" foreground

too_large_for_ulimit() {
	unmount_image
	fails bash -c "ulimit -f 1000; exec '$BIN/cowfs' '$IMG' '$MNT'" \
		2>"$W/err"
	grep -q 'ulimit -f' "$W/err"
	fails is_mounted
	bash -c "ulimit -f 1000; exec '$BIN/cowfs' -o ro '$IMG' '$MNT'"
	unmount_image
	# one that is only a default can be raised
	bash -c "ulimit -S -f 1000; ulimit -S -t 10000
		exec '$BIN/cowfs' '$IMG' '$MNT'"
	head -c 3000000 /dev/urandom >"$MNT/beyond"
	cowctl sync
	rm "$MNT/beyond"
}
claim "an image larger than files may be is not written to" \
	too_large_for_ulimit

ends_without_memory() {
	local pid size status=0
	unmount_image
	"$BIN/cowfs" -f "$IMG" "$MNT" >"$seen" 2>&1 &
	pid=$!
	until_true 10 is_mounted
	echo here >"$MNT/late"
	size=$(awk '/^VmSize/ { print $2 * 1024 }' "/proc/$pid/status")
	prlimit --pid $pid --as="$size"
	unmount_image
	wait $pid || status=$?
	[ $status -lt 128 ] # no signal
	check_image
	mount_image
	equal "$(cat "$MNT/late")" here
	rm "$MNT/late"
}
if command -v prlimit >/dev/null; then
	claim "unmounting needs no more memory" ends_without_memory
else
	skip "unmounting needs no more memory" "no prlimit"
fi

crash_only() {
	local pid
	pid=$(number pid)
	kill -9 "$pid"
	until_true 10 process_gone "$pid"
}

dead() {
	crash_only
	fails cowctl info 2>"$W/err"
	grep -q 'daemon that served it is gone' "$W/err"
	fails "$BIN/cowfs" "$IMG" "$MNT" 2>"$W/err"
	grep -q 'is dead: unmount it first' "$W/err"
	cowctl unmount
	fails is_mounted
	mount_image
	crash_only
	fails timeout 20 "$BIN/cowctl" "$MNT" unmount --wait 2>"$W/err"
	grep -q 'daemon that served it was gone: what .* is lost' "$W/err"
	fails is_mounted
	mount_image
}
claim "cowctl names a dead mount as such, and unmounts it" dead

# As mount(8) does it for fuse.cowfs: /bin/sh finds cowfs in a fixed PATH, which
# a test can't add to, so the helper is called as mount(8) would call it.
fstab_style() {
	unmount_image
	if [ "$(id -u)" = 0 ] && command -v mount.fuse3 >/dev/null; then
		# mount.fuse takes a program's path as type, too.
		mount.fuse3 "$BIN/cowfs#$IMG" "$MNT" -o rw,noatime,nofail
	else
		ln -sf "$BIN/cowfs" "$W/mount.cowfs"
		"$W/mount.cowfs" "$IMG" "$MNT" -o rw,noatime,nofail
	fi
	is_mounted
	test -e "$MNT/term"
	unmount_image
	ln -sf "$BIN/cowfs" "$W/mount.cowfs"
	"$W/mount.cowfs" "$IMG" "$MNT" -n -o ro,dev,suid
	mount_line | cut -d' ' -f4 | tr , '\n' | grep -qx ro
	unmount_image
	mount_image
}
claim "it mounts as mount(8) calls it" fstab_style

# ... and allows what mount(8) says that is allowed.
helper_flags() {
	unmount_image
	"$W/mount.cowfs" "$IMG" "$MNT" -o rw
	equal "$(flags_now)" "rw "
	unmount_image
	"$W/mount.cowfs" "$IMG" "$MNT" -o rw,noexec,nosuid,nodev
	equal "$(flags_now)" "rw nosuid nodev noexec "
	remount_image
	equal "$(flags_now)" "rw nosuid nodev "
}
if [ "$(id -u)" = 0 ]; then
	claim "... with devices and set-id programs, unless told" helper_flags
else
	skip "what mount(8) allows" "needs root"
fi

# Nobody can say then what is mounted.
without_proc() {
	fails unshare -m sh -c "mount -t tmpfs none /proc &&
		'$BIN/cowctl' '$MNT' unmount" 2>"$W/err"
	grep -q '/proc/self/mountinfo: No such file' "$W/err"
	is_mounted
}
if unshare -m true 2>/dev/null; then
	claim "unmount without /proc says what it lacks" without_proc
else
	skip "unmount without /proc" "no mount namespaces"
fi

odd_paths() {
	unmount_image
	mkdir "$W/odd, name"
	mv "$IMG" "$W/odd, name/im\\age"
	(
		IMG="$W/odd, name/im\\age"
		mount_image
		test -e "$MNT/term"
		"$BIN/cowctl" "$IMG" unmount --wait # by its image
		fails is_mounted
	)
	mv "$W/odd, name/im\\age" "$IMG"
	mount_image
}
claim "images with commas, blanks and backslashes in their names" odd_paths

# Neither the daemon nor its guard keeps what the command was given.
lets_go_of_pipes() {
	unmount_image
	timeout 20 sh -c "'$BIN/cowfs' '$IMG' '$MNT' 2>&1 | cat"
	is_mounted
}
claim "whoever reads what a mount says gets to the end of it" lets_go_of_pipes

nobody_in() {
	[ -z "$(find /proc/[0-9]*/cwd -maxdepth 0 -lname "$1" 2>/dev/null)" ]
}

lets_go_of_directory() {
	unmount_image
	mkdir "$W/from"
	(cd "$W/from" && mount_image)
	until_true 5 nobody_in "$W/from"
}
claim "the directory where it was called is nobody's" lets_go_of_directory

# While it waits for the image.
killed_while_opening() {
	local parent child
	mkdir "$W/second"
	"$BIN/cowfs" "$IMG" "$W/second" &
	parent=$!
	until_true 5 pgrep -P "$parent"
	child=$(pgrep -P "$parent" -x cowfs)
	kill "$parent"
	fails wait "$parent"
	unmount_image
	until_true 20 process_gone "$child"
	if mounted_at "$W/second"; then
		take_away "$W/second"
		return 1
	fi
	mount_image
}
claim "a command killed before it mounts leaves nothing mounted" \
	killed_while_opening

# What is opened first must not be taken for a standard one, and replaced.
without_stdio() {
	local close
	for close in '<&-' '>&-' '2>&-' '<&- >&-' '<&- >&- 2>&-'; do
		unmount_image
		timeout 20 sh -c "'$BIN/cowfs' '$IMG' '$MNT' $close"
		echo "$close" >"$MNT/kept"
		remount_image
		equal "$(cat "$MNT/kept")" "$close"
	done
}
claim "a command without standard files loses nothing" without_stdio

refused_by_helper() {
	local status=0
	ln -sf "$BIN/cowfs" "$W/mount.cowfs"
	env "$@" "$W/mount.cowfs" "$W/plain" "$W" 2>"$W/err" || status=$?
	equal "$status" 32
	fails grep 'was killed' "$W/err"
}
claim "a helper that fails says so to mount(8)" refused_by_helper
claim "and so it does if nobody is to hear of its children" \
	refused_by_helper --ignore-signal=CHLD

# Its own image, in the place of the other.
removed_image() {
	local IMG=$W/removed
	unmount_image
	new_image 64M
	mount_image
	echo kept >"$MNT/kept"
	cowctl sync
	! "$BIN/cowctl" "$MNT" info | grep '^Image '
	"$BIN/cowctl" "$MNT" info --json | grep '"image_gone": false'
	cp "$IMG" "$W/copy"
	rm "$IMG"
	"$BIN/cowctl" "$MNT" info | grep '^Image  *gone'
	"$BIN/cowctl" "$MNT" info --json | grep '"image_gone": true'
	"$BIN/cowctl" "$MNT" mirror add "$IMG.side"
	until_true 10 eval '! "$BIN/cowctl" "$MNT" info | grep "^Image "'
	"$BIN/cowctl" "$MNT" unmount --wait
	IMG=$W/copy
	mount_image
	mv "$IMG" "$IMG.new"
	cp "$IMG.new" "$IMG"
	rm "$IMG.new" # another one has its name
	fails cowctl unmount --wait
	grep -q 'was removed while it was mounted' "$W/out"
	fails is_mounted
	rm "$IMG"*
}
claim "who removes a mounted image is told" removed_image
claim "the first image is mounted again" mount_image

installed() {
	# -o all: what is there, not what the sources would give.
	make -s -C "$TOP" -o all install DESTDIR="$W/dest" PREFIX=/usr \
		TOP="$BIN"
	local p
	for p in bin/cowfs bin/cowctl sbin/mkfs.cowfs sbin/fsck.cowfs \
		sbin/mount.cowfs sbin/fsck.fuse.cowfs \
		sbin/umount.fuse.cowfs \
		share/man/man8/cowctl.8; do
		test -e "$W/dest/usr/$p"
	done
	"$W/dest/usr/bin/cowctl" --version
	make -s -C "$TOP" uninstall DESTDIR="$W/dest" PREFIX=/usr
	equal "$(find "$W/dest" ! -type d)" ""
}
claim "make install and uninstall" installed

check_after "options"
finish
