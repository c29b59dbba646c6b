#!/bin/bash
# basic.sh - a mounted filesystem behaves as POSIX and programs expect it
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

claim "an image is made and mounted" eval 'new_image 1G && mount_image'

# ---- what programs do ----

copy_tree() {
	mkdir "$MNT/tree"
	cp -a "$TOP/src" "$TOP/include" "$TOP/tests" "$MNT/tree/"
	diff -r "$TOP/src" "$MNT/tree/src"
	cp -r "$MNT/tree" "$MNT/tree2"
	diff -r "$MNT/tree" "$MNT/tree2"
	mv "$MNT/tree2" "$MNT/tree/inside"
	diff -r "$TOP/src" "$MNT/tree/inside/src"
	rm -rf "$MNT/tree/inside"
	fails test -e "$MNT/tree/inside"
}
claim "cp, mv and rm of trees" copy_tree

archives() {
	tar -C "$MNT" -cf "$W/a.tar" tree
	mkdir "$MNT/untar"
	tar -C "$MNT/untar" -xf "$W/a.tar"
	diff -r "$MNT/tree" "$MNT/untar/tree"
	rm -rf "$MNT/untar" "$W/a.tar"
}
claim "tar packs and unpacks" archives

rsync_twice() {
	rsync -aHAX "$TOP/src/" "$MNT/rsync/"
	equal "$(rsync -aHAXni "$TOP/src/" "$MNT/rsync/")" ""
}
if command -v rsync >/dev/null; then
	claim "rsync has nothing to do the second time" rsync_twice
else
	skip "rsync has nothing to do the second time" "no rsync"
fi

compile() {
	mkdir "$MNT/c"
	cat >"$MNT/c/hello.c" <<-'END'
		#include <stdio.h>
		int main(void) { puts("hello"); return 0; }
	END
	cc -o "$MNT/c/hello" "$MNT/c/hello.c"
	equal "$("$MNT/c/hello")" hello
}
claim "a program is compiled and run on it" compile

versions() {
	mkdir "$MNT/git"
	cd "$MNT/git"
	git init -q .
	cp -r "$TOP/src" .
	git add .
	git -c user.name=t -c user.email=t@t commit -qm one
	rm -rf src
	git checkout -q .
	git gc -q
	git fsck --strict
	git clone -q "$MNT/git" "$MNT/clone"
	diff -r "$TOP/src" "$MNT/clone/src"
}
if command -v git >/dev/null; then
	claim "git works on it" versions
else
	skip "git works on it" "no git"
fi

database() {
	local db=$MNT/test.db
	sqlite3 "$db" 'pragma journal_mode=wal; create table t(a, b);
		with recursive n(x) as (select 1 union all
			select x + 1 from n where x < 20000)
		insert into t select x, hex(randomblob(20)) from n;
		create index i on t(b); delete from t where a % 3 = 0; vacuum;'
	equal "$(sqlite3 "$db" 'pragma integrity_check')" ok
	equal "$(sqlite3 "$db" 'select count(*) from t')" 13334
}
if command -v sqlite3 >/dev/null; then
	claim "a database works on it" database
else
	skip "a database works on it" "no sqlite3"
fi

big_file() {
	head -c 100000000 /dev/urandom >"$W/big"
	cp "$W/big" "$MNT/big"
	cmp "$W/big" "$MNT/big"
	dd if="$W/big" of="$MNT/big" bs=70000 seek=11 conv=notrunc status=none
	dd if="$W/big" of="$W/big2" bs=70000 seek=11 status=none
	cmp --bytes=50000000 --ignore-initial=770000 "$W/big2" "$MNT/big"
	cp "$MNT/big" "$MNT/big-clone"
	cmp "$MNT/big" "$MNT/big-clone"
	rm "$MNT/big-clone"
	cp "$W/big" "$MNT/big"
}
claim "a file of 100 MB is written, overwritten and copied" big_file

sparse() {
	truncate -s 10G "$MNT/sparse"
	echo end >>"$MNT/sparse"
	[ "$(du -k "$MNT/sparse" | cut -f1)" -lt 100 ]
	cp --sparse=always "$MNT/sparse" "$MNT/sparse2"
	[ "$(du -k "$MNT/sparse2" | cut -f1)" -lt 100 ]
	equal "$(tail -c 4 "$MNT/sparse2")" end
	rm "$MNT/sparse" "$MNT/sparse2"
}
claim "sparse files stay sparse" sparse

# Each its own file, all at once: nobody gets anybody else's bytes.
parallel() {
	local i pids=()
	mkdir "$MNT/par"
	for i in 1 2 3 4 5 6 7 8; do
		(
			set -e
			for _ in 1 2 3 4 5; do
				yes "process $i" | head -c 300000 >"$MNT/par/$i"
				yes "process $i" | head -c 300000 |
					cmp - "$MNT/par/$i"
				mv "$MNT/par/$i" "$MNT/par/$i.old"
			done
		) &
		pids+=($!)
	done
	for i in "${pids[@]}"; do
		wait "$i"
	done
	equal "$(find "$MNT/par" -type f | wc -l)" 8
}
claim "eight processes write at once" parallel

odd_names() {
	local name
	mkdir "$MNT/odd"
	for name in 'a b' $'new\nline' '-dash' 'ünïcödé' '*' '"' "'" '\' \
		'.hidden' '...' 'trailing.' ' '; do
		echo "$name" >"$MNT/odd/$name"
		equal "$(cat "$MNT/odd/$name")" "$name"
	done
	equal "$(find "$MNT/odd" -type f -print0 | tr -cd '\0' | wc -c)" 12
	rm -r "$MNT/odd"
}
claim "names with odd characters" odd_names

# ---- what needs system calls ----

mkdir "$MNT/posix"
for part in names files meta; do
	mkdir "$MNT/posix/$part"
	helper "posix_$part" "$MNT/posix/$part"
done

# ---- it is all still there ----

digest() {
	(cd "$MNT" && find . -xdev -type f -print0 | sort -z |
		xargs -0 sha256sum)
	(cd "$MNT" && find . -xdev -printf '%p %y %m %U:%G %s %n %T@ %l\n' |
		sort)
}

persistence() {
	rm -rf "$MNT/posix"
	digest >"$W/before"
	remount_image
	digest >"$W/after"
	diff "$W/before" "$W/after"
	cmp "$W/big" "$MNT/big"
	diff -r "$TOP/src" "$MNT/tree/src"
}
claim "everything is the same after a new mount" persistence

# The kernel keeps times by itself; what it shows is what is stored.
truncated() {
	local before
	mkdir "$MNT/sizes"
	: >"$MNT/sizes/empty"
	echo few >"$MNT/sizes/few"
	head -c 10000 /dev/zero >"$MNT/sizes/many"
	cp "$MNT/sizes/"* "$MNT/"
	touch -d '2001-01-01' "$MNT/sizes/"* "$MNT/empty" "$MNT/few"
	# by name: through a descriptor it sets the times, whatever the size was
	python3 -c 'import os, sys
for f in sys.argv[1:]: os.truncate(f, os.path.getsize(f))' "$MNT/sizes/"*
	: >"$MNT/empty" # this is a change to it
	equal "$(date -d @"$(stat -c %Y "$MNT/empty")" +%Y)" "$(date +%Y)"
	truncate -s 3 "$MNT/few"
	before=$(cd "$MNT" && stat -c '%n %Y' sizes/* empty few many)
	remount_image
	equal "$(cd "$MNT" && stat -c '%n %Y' sizes/* empty few many)" "$before"
	rm -r "$MNT/sizes" "$MNT/empty" "$MNT/few" "$MNT/many"
}
claim "a file that is truncated has the times that were seen" truncated

# Closing it would have the kernel ask for them.
grows() {
	python3 - "$MNT/log" <<-'PY'
		import os, sys, time
		fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
		for mib in range(1, 4):
		    os.write(fd, os.urandom(1 << 20))
		    os.fsync(fd)
		    end = time.time() + 20
		    while os.stat(sys.argv[1]).st_blocks != mib * 2048:
		        if time.time() > end:
		            sys.exit('%d blocks' % os.stat(sys.argv[1]).st_blocks)
		        time.sleep(0.1)
	PY
	rm "$MNT/log"
}
claim "a file that stays open is seen to take more space" grows

# Names alone, then names with attributes, by a daemon that has nothing in
# memory: of a large directory it gives no attributes at first.
large_directory() {
	local n=2000
	mkdir "$MNT/large"
	(cd "$MNT/large" && seq "$n" | xargs touch && mkdir sub)
	remount_image
	equal "$(find "$MNT/large" -type f | wc -l)" "$n"
	remount_image
	# shellcheck disable=SC2012 # it is ls that is to be tried
	equal "$(ls -U "$MNT/large" | sort -n | tail -n "$n" | sum)" \
		"$(seq "$n" | sum)"
	remount_image
	# shellcheck disable=SC2010,SC2012
	equal "$(ls -lU "$MNT/large" | grep -c '^-rw.* 1 .* 0 ')" "$n"
	equal "$(stat -c %h "$MNT/large")" 3
	rm -r "$MNT/large"
}
claim "a large directory is listed whole, cold" large_directory

emptied() {
	rm -rf "${MNT:?}"/*
	equal "$(find "$MNT" -mindepth 1 | wc -l)" 0
}
claim "everything can be removed" emptied

scrubbed() {
	cowctl scrub >"$W/scrub"
	grep -qx '0 errors found' "$W/scrub"
}
claim "scrub finds nothing" scrubbed

check_after "basic"
finish
