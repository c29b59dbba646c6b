#!/bin/bash
# owner.sh - owners, modes, set-id bits, ACLs, seen by other users
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

if [ "$(id -u)" != 0 ]; then
	skip "owner.sh" "needs root, to run commands as other users"
	finish
fi

claim "an image is made and mounted" eval \
	'new_image 64M && mount_image allow_other'
chmod 755 "$W"
chmod 777 "$MNT"

# as UID[:GID[,GID...]] COMMAND...
as() {
	local uid=${1%%:*} groups=""
	case $1 in
	*:*) groups=${1#*:} ;;
	esac
	shift
	setpriv --reuid "$uid" --regid "${groups%%,*}" \
		--groups "${groups:-$uid}" "$@"
}

mode() {
	stat -c %a "$1"
}

umasks() {
	as 1001:1001 sh -c "umask 027; touch '$MNT/u'; mkdir '$MNT/ud'"
	equal "$(stat -c '%a %u %g' "$MNT/u")" "640 1001 1001"
	equal "$(mode "$MNT/ud")" 750
	as 1001:1001 sh -c "umask 0; touch '$MNT/u0'"
	equal "$(mode "$MNT/u0")" 666
}
claim "the umask and the owner of what is created" umasks

permissions() {
	echo secret >"$MNT/mine"
	chown 1001:1001 "$MNT/mine"
	chmod 640 "$MNT/mine"
	as 1001:1001 cat "$MNT/mine"
	as 1002:1001 cat "$MNT/mine"
	as 1002:1002,1001 cat "$MNT/mine" # a supplementary group
	fails as 1002:1002 cat "$MNT/mine"
	fails as 1002:1001 sh -c "echo >'$MNT/mine'"
	fails as 1002:1002 chmod 777 "$MNT/mine"
	fails as 1001:1001 chown 1002 "$MNT/mine"
	as 1001:1001,1005 chgrp 1005 "$MNT/mine"
	fails as 1001:1001 chgrp 1006 "$MNT/mine"
	mkdir -m 700 "$MNT/closed"
	fails as 1001:1001 ls "$MNT/closed"
}
claim "permissions hold for owner, groups and others" permissions

sticky() {
	mkdir "$MNT/sticky"
	chmod 1777 "$MNT/sticky"
	as 1001:1001 touch "$MNT/sticky/a"
	fails as 1002:1002 rm -f "$MNT/sticky/a"
	fails as 1002:1002 mv "$MNT/sticky/a" "$MNT/sticky/b"
	as 1001:1001 rm "$MNT/sticky/a"
}
claim "the sticky bit protects others' files" sticky

set_gid_dirs() {
	mkdir "$MNT/sg"
	chown root:2000 "$MNT/sg"
	chmod 2777 "$MNT/sg"
	as 1001:1001 touch "$MNT/sg/f"
	as 1001:1001 mkdir "$MNT/sg/d"
	equal "$(stat -c '%u %g' "$MNT/sg/f")" "1001 2000"
	equal "$(stat -c '%g' "$MNT/sg/d")" 2000
	[ $((0$(mode "$MNT/sg/d") & 02000)) -ne 0 ]
	as 1001:1001 mkdir "$MNT/sg/d/e"
	equal "$(stat -c '%g' "$MNT/sg/d/e")" 2000
	[ $((0$(mode "$MNT/sg/d/e") & 02000)) -ne 0 ]
}
claim "set-gid directories hand down their group" set_gid_dirs

writes_clear_set_id() {
	local f=$MNT/suid
	touch "$f" && chown 1001:1001 "$f" && chmod 6777 "$f"
	as 1002:1002 sh -c "echo x >>'$f'"
	equal "$(mode "$f")" 777
	chmod 6777 "$f"
	as 1002:1002 truncate -s 0 "$f"
	equal "$(mode "$f")" 777
	chmod 4755 "$f" && echo root >>"$f" # root may
	equal "$(mode "$f")" 4755
	cp "$f" "$f-2" && cp "$f-2" "$f" # by copy_file_range
	remount_image allow_other # not what the kernel remembers
	equal "$(mode "$f")" 4755
	chmod 777 "$f" && chmod u+s "$f"
	as 1002:1002 cp "$f-2" "$f"
	equal "$(mode "$f")" 777
}
claim "a write by another user clears set-id bits" writes_clear_set_id

# A set-group-id bit that the group could not use: only who is not of the group
# takes it away.
set_gid_without_exec() {
	local f=$MNT/sgid
	touch "$f" && chown 1001:1001 "$f" && chmod 2666 "$f"
	as 1001:1001 sh -c "echo >'$f'"
	equal "$(mode "$f")" 2666
	as 1002:1002 sh -c "echo >'$f'"
	equal "$(mode "$f")" 666
	chmod 6666 "$f" && chown root "$f"
	equal "$(mode "$f")" 2666
	chmod 6676 "$f" && chown 1001 "$f"
	equal "$(mode "$f")" 676
}
claim "a set-gid bit that means nothing stays with its group" \
	set_gid_without_exec

owners_change() {
	local f=$MNT/co
	touch "$f" && chmod 6755 "$f" && chown 1001 "$f"
	equal "$(mode "$f")" 755
	chmod 6755 "$f"
	as 1001:1001,1005 chgrp 1005 "$f"
	equal "$(mode "$f")" 755
	# A set-gid bit needs the group, unless one is root.
	as 1001:1001 chmod 2755 "$f"
	equal "$(mode "$f")" 755
}
claim "chown and chgrp clear set-id bits" owners_change

no_suid_of_strangers() {
	remount_image allow_other,nosuid
	mount_line=$(awk -v point="$MNT" '$2 == point' /proc/mounts)
	case $mount_line in
	*nosuid*) ;;
	*) return 1 ;;
	esac
	remount_image allow_other
}
claim "nosuid reaches the kernel" no_suid_of_strangers

# ---- ACLs ----

acl_access() {
	local f=$MNT/acl
	echo text >"$f"
	chmod 600 "$f"
	fails as 1001:1001 cat "$f"
	setfacl -m u:1001:r "$f"
	as 1001:1001 cat "$f"
	fails as 1002:1002 cat "$f"
	setfacl -m g:3000:rw "$f"
	as 1002:3000 sh -c "echo more >>'$f'"
	getfacl -cn "$f" | grep -qx 'user:1001:r--'
	equal "$(mode "$f")" 660 # the group bits are the mask
}
claim "an ACL grants what the mode doesn't" acl_access

acl_mask() {
	local f=$MNT/acl
	chmod 640 "$f"
	getfacl -cn "$f" | grep -qx 'mask::r--'
	fails as 1002:3000 sh -c "echo more >>'$f'"
	as 1002:3000 cat "$f"
	setfacl -b "$f"
	fails as 1001:1001 cat "$f"
	equal "$(getfacl -cn "$f" | grep -c .)" 3
}
claim "chmod sets the mask of an ACL" acl_mask

acl_default() {
	mkdir "$MNT/def"
	chmod 777 "$MNT/def"
	setfacl -d -m u::rwx,g::rx,o::-,u:1001:rwx,m::rwx "$MNT/def"
	as 1002:1002 sh -c "umask 077; echo x >'$MNT/def/f'; mkdir '$MNT/def/d'"
	# With a default ACL the umask doesn't count.
	getfacl -cn "$MNT/def/f" | grep -q '^user:1001:rwx'
	equal "$(mode "$MNT/def/f")" 660
	as 1001:1001 cat "$MNT/def/f"
	getfacl -cn "$MNT/def/d" | grep -qx 'default:user:1001:rwx'
	as 1002:1002 touch "$MNT/def/d/g"
	getfacl -cn "$MNT/def/d/g" | grep -q '^user:1001:rwx'
	setfacl -k "$MNT/def"
	as 1002:1002 touch "$MNT/def/plain"
	equal "$(getfacl -cn "$MNT/def/plain" | grep -c '^user:1001')" 0
}
claim "default ACLs are inherited" acl_default

acl_stays() {
	setfacl -m u:1003:rw "$MNT/def/f"
	getfacl -Rn "$MNT/def" >"$W/before" 2>/dev/null
	remount_image allow_other
	getfacl -Rn "$MNT/def" >"$W/after" 2>/dev/null
	cmp "$W/before" "$W/after"
	cp -a "$MNT/def" "$MNT/def2"
	getfacl -cn "$MNT/def2/f" | grep -qx 'user:1003:rw-'
}
claim "ACLs are kept over a mount, and copied by cp -a" acl_stays

if ! command -v setfacl >/dev/null; then
	skip "ACLs" "no setfacl"
fi

capabilities() {
	local f=$MNT/cap
	cp /bin/true "$f"
	chmod 777 "$f"
	setcap cap_net_raw+ep "$f" || return 0
	getcap "$f" | grep -q cap_net_raw
	as 1002:1002 sh -c "printf x >>'$f'"
	equal "$(getcap "$f")" ""
}
if command -v setcap >/dev/null; then
	claim "a write clears file capabilities" capabilities
else
	skip "a write clears file capabilities" "no setcap"
fi

times_of_others() {
	local f=$MNT/times
	touch "$f"
	chown 1001:1001 "$f" && chmod 666 "$f"
	as 1001:1001 touch -d 2001-01-01 "$f"
	fails as 1002:1002 touch -d 2001-01-01 "$f"
	as 1002:1002 touch "$f" # to now: who may write may
	chmod 600 "$f"
	fails as 1002:1002 touch "$f"
}
claim "whose times may be set, and to what" times_of_others

immutable() {
	local f=$MNT/fixed
	echo x >"$f"
	chattr +i "$f" 2>"$W/err" || {
		cat "$W/err"
		return 1
	}
	fails sh -c "echo y >>'$f'"
	fails rm -f "$f"
	fails mv "$f" "$f.2"
	fails chmod 777 "$f"
	lsattr "$f" | grep -q i
	chattr -i +a "$f"
	fails sh -c "echo y >'$f'"
	echo z >>"$f"
	chattr -a "$f"
	rm "$f"
}
claim "chattr: immutable and append-only files" immutable

trusted_names() {
	local f=$MNT/named
	touch "$f" && chmod 666 "$f"
	setfattr -n trusted.own -v 1 "$f"
	as 1001:1001 setfattr -n user.a -v 1 "$f"
	getfattr -m - "$f" | grep -qx trusted.own
	fails sh -c "setpriv --reuid 1001 --regid 1001 --clear-groups \
		getfattr -m - '$f' | grep trusted"
	as 1001:1001 getfattr -m - "$f" | grep -qx user.a
	rm "$f"
}
if command -v setfattr >/dev/null; then
	claim "names of trusted attributes are root's to see" trusted_names
else
	skip "names of trusted attributes" "no setfattr"
fi

# What O_APPEND was needed for cannot be done without it afterwards.
append_only() {
	local f=$MNT/log
	echo first >"$f"
	chattr +a "$f"
	python3 - "$f" <<-'EOF'
		import fcntl, mmap, os, sys
		fd = os.open(sys.argv[1], os.O_RDWR | os.O_APPEND)
		os.write(fd, b"second\n")
		fcntl.fcntl(fd, fcntl.F_SETFL, 0)
		try:
		    os.pwrite(fd, b"FIRST", 0)
		    os.fsync(fd)
		    sys.exit("overwritten")
		except PermissionError:
		    pass
		try:
		    m = mmap.mmap(fd, 5)
		    m[0:5] = b"FIRST"
		    m.flush()
		    sys.exit("overwritten through a mapping")
		except OSError:
		    pass
		os.pwrite(fd, b"third\n", os.fstat(fd).st_size)
		os.close(fd)
	EOF
	equal "$(tr '\n' ' ' <"$f")" "first second third "
	remount_image allow_other
	equal "$(tr '\n' ' ' <"$f")" "first second third "
	chattr -a "$f"
}
if command -v python3 >/dev/null; then
	claim "nothing but appending, whatever a file was opened for" append_only
else
	skip "nothing but appending" "no python3"
fi

is_recent() {
	[ -n "$(find "$1" -mmin -60)" ]
}

# Nobody has it open: the times are right (before Linux 6.18 some time later).
append_time() {
	local f=$MNT/timed
	echo first >"$f"
	touch -d '2 hours ago' "$f"
	chattr +a "$f"
	echo second >>"$f"
	until_true 5 is_recent "$f"
	chattr -a "$f"
}
if [ "$(printf '%s\n' 6.18 "$(uname -r)" | sort -V | head -n 1)" = 6.18 ]; then
	claim "an append-only file that was written to is as new as that" append_time
else
	skip "the time of an append-only file" "the kernel is older than 6.18"
fi

# What was open for writing when the file was made immutable, or append-only.
written_before() {
	local flag
	for flag in i a; do
		rm -f "$MNT/before"
		python3 - "$MNT/before" $flag <<-'EOF'
			import fcntl, os, struct, sys, time
			fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
			os.utime(fd, (1e9, 1e9))
			os.fsync(fd)
			os.write(fd, b"x" * 5000)
			flag = 0x10 if sys.argv[2] == "i" else 0x20
			fcntl.ioctl(fd, 0x40086602, struct.pack("l", flag))
			os.fsync(fd) # is no matter of permission
			try:
			    os.utime(sys.argv[1], (1e9, 1e9))
			    sys.exit("not refused")
			except PermissionError:
			    pass
		EOF
		fails touch -m -d 2001-01-01 "$MNT/before"
		remount_image allow_other
		is_recent "$MNT/before"
		chattr -$flag "$MNT/before"
	done
}

if command -v python3 >/dev/null; then
	claim "what was written keeps its time if the file is locked then" \
		written_before
else
	skip "what was written before the file was locked" "no python3"
fi

no_promise() {
	fails chattr +S "$MNT/log"
	fails chattr +D "$MNT"
	chattr +d "$MNT/log"
}
claim "chattr: flags that would promise what is not kept are refused" no_promise

# A file that is not there is made; while that waits, a restore brings another's
# of the same name back.
create_meets_restore() {
	local i pid
	echo secret >"$MNT/secret"
	chmod 600 "$MNT/secret"
	cowctl snapshot create guarded
	rm "$MNT/secret"
	python3 - "$MNT/secret" <<-'EOF' &
		import os, sys
		os.setgroups([])
		os.setresgid(1001, 1001, 1001)
		os.setresuid(1001, 1001, 1001)
		while True:
		    try:
		        fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR, 0o600)
		        if os.fstat(fd).st_uid != 1001:
		            sys.exit(7)
		        os.close(fd)
		        os.unlink(sys.argv[1])
		    except OSError:
		        pass
	EOF
	pid=$!
	for i in $(seq 20); do
		sleep 0.02
		cowctl snapshot restore guarded --no-save
		rm -f "$MNT/secret"
	done
	kill "$pid" || :
	wait "$pid" && i=0 || i=$?
	[ "$i" != 7 ]
}
if command -v python3 >/dev/null; then
	claim "nobody opens what a restore brings back without permission" \
		create_meets_restore
else
	skip "nobody opens what a restore brings back" "no python3"
fi

check_after "owner"
finish
