#!/bin/bash
# rootonly.sh - a mount that root alone is let into: the daemon does what the
# kernel leaves to it there (src/fuse/session.c)
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

if [ "$(id -u)" != 0 ]; then
	skip "rootonly.sh" "only root makes such a mount"
	finish
fi

claim "an image is made and mounted" eval 'new_image 64M && mount_image'

# checked POINT: does the kernel check permissions?
checked() {
	awk -v point="$1" '$2 == point { print $4 }' /proc/mounts |
		tr , '\n' | grep -qx default_permissions
}

# count KIND: requests of a kind so far
count() {
	cowctl stats --json | python3 -c "
import json, sys
print(json.load(sys.stdin)['requests'].get('$1', {}).get('count', 0))"
}

who_checks() {
	fails checked "$MNT"
	remount_image allow_other
	checked "$MNT"
	remount_image default_permissions
	checked "$MNT"
	remount_image
	fails checked "$MNT"
}
claim "the kernel checks permissions unless it is for root alone" who_checks

few_requests() {
	local before i
	before=$(count GETATTR)
	for i in $(seq 50); do
		echo x >"$MNT/few$i"
		mv "$MNT/few$i" "$MNT/many$i"
	done
	rm "$MNT"/many*
	[ $(($(count GETATTR) - before)) -lt 60 ]
}
if command -v python3 >/dev/null; then
	claim "a directory's attributes are not asked for at each change" \
		few_requests
else
	skip "requests are counted" "no python3"
fi

access_asks() {
	echo 'echo run' >"$MNT/script"
	chmod 644 "$MNT/script"
	fails test -x "$MNT/script"
	test -r "$MNT/script" && test -w "$MNT/script"
	fails "$MNT/script"
	chmod 010 "$MNT/script" # for some is enough
	test -x "$MNT/script"
	test -x "$MNT" && test -w "$MNT"
	cowctl snapshot create one
	fails test -w "$MNT/.snapshots/one/script"
	fails test -w "$MNT/.snapshots"
	test -x "$MNT/.snapshots/one/script" && test -x "$MNT/.snapshots/one"
	chmod 644 "$MNT/script"
	fails test -x "$MNT/script"
	test -x "$MNT/.snapshots/one/script"
	(cd "$MNT/.snapshots/one" && test -r script)
}
claim "access(2) says what open and exec would" access_asks

access_of_others() {
	mkfifo "$MNT/fifo"
	fails test -x "$MNT/fifo"
	test -r "$MNT/fifo" && test -w "$MNT/fifo"
	chmod 610 "$MNT/fifo"
	test -x "$MNT/fifo"
	mkdir "$MNT/fixed"
	echo text >"$MNT/fixed/file"
	chattr +i "$MNT/fixed" "$MNT/fixed/file"
	fails test -w "$MNT/fixed"
	fails test -w "$MNT/fixed/file"
	test -r "$MNT/fixed/file" && test -x "$MNT/fixed"
	chattr -i "$MNT/fixed" "$MNT/fixed/file"
	test -w "$MNT/fixed" && test -w "$MNT/fixed/file"
}
if command -v chattr >/dev/null; then
	claim "... of a FIFO, and of what is immutable" access_of_others
else
	skip "access(2) of what is immutable" "no chattr"
fi

acl_and_mode() {
	local f=$MNT/acl
	echo text >"$f"
	chmod 600 "$f"
	equal "$(stat -c %a "$f")" 600
	setfacl -m g:3000:rw "$f"
	equal "$(stat -c %a "$f")" 660
	getfacl -cn "$f" | grep -qx 'group:3000:rw-'
	chmod 640 "$f"
	getfacl -cn "$f" | grep -qx 'mask::r--'
	setfacl -b "$f"
	equal "$(getfacl -cn "$f" | grep -c .)" 3
	if command -v setfattr >/dev/null; then
		setfattr -x system.posix_acl_access "$f" # none: no error
	fi
	mkdir "$MNT/def"
	setfacl -d -m u::rwx,g::rx,o::-,u:1001:rwx,m::rwx "$MNT/def"
	(umask 077 && touch "$MNT/def/f")
	getfacl -cn "$MNT/def/f" | grep -q '^user:1001:rwx'
	equal "$(stat -c %a "$MNT/def/f")" 660
	(umask 027 && touch "$MNT/plain")
	equal "$(stat -c %a "$MNT/plain")" 640
}
if command -v setfacl >/dev/null; then
	claim "ACLs are kept, inherited, and shown in the mode" acl_and_mode
else
	skip "ACLs are kept" "no setfacl"
fi

# Root by all ids but those for files, as a file server is for its clients.
in_the_name_of() {
	python3 - "$1" "$MNT" <<'END'
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
uid, mnt = int(sys.argv[1]), sys.argv[2]
os.mkdir(mnt + '/theirs')
kept = os.open(mnt + '/kept', os.O_RDWR | os.O_CREAT, 0o666)
os.chmod(mnt + '/kept', 0o666)
libc.setfsuid(uid)
for what in (lambda: os.open(mnt + '/kept', os.O_RDONLY),
             lambda: os.listdir(mnt),
             lambda: os.mkdir(mnt + '/theirs/new'),
             lambda: os.unlink(mnt + '/kept'),
             lambda: os.chmod(mnt + '/kept', 0o600),
             lambda: os.truncate(mnt + '/kept', 0),
             lambda: os.stat(mnt + '/never looked up')):
    try:
        what()
    except PermissionError:
        continue
    sys.exit('was let through')
# What is open serves whoever has it.
os.write(kept, b'text')
os.fsync(kept)
assert os.pread(kept, 10, 0) == b'text'
os.close(kept)
libc.setfsuid(0)
assert open(mnt + '/kept').read() == 'text'
END
}
if command -v python3 >/dev/null; then
	claim "nobody acts in the name of another user" in_the_name_of 65534
else
	skip "nobody acts in the name of another user" "no python3"
fi

claim "nothing is damaged" eval 'unmount_image && check_image'
finish
