#!/bin/bash
# test_mkfs_fsck.sh - mkfs.cowfs and fsck.cowfs as a user sees them
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

flip() { # FILE BYTE...: change bytes
	local file=$1 at
	shift
	for at; do
		printf '\377\001' | dd of="$file" bs=1 seek="$at" \
			conv=notrunc status=none
	done
}

need() { # COMMAND
	command -v "$1" >/dev/null 2>&1 && return 0
	skip "an image in use" "no $1 here"
	return 1
}

# ---- mkfs ----

check 0 "mkfs creates a file of the size asked for" "$mkfs" -s 64M a.img
true_that "... of exactly that size" \
	test "$(stat -c %s a.img)" -eq $((64 << 20))
true_that "... and sparse" test "$(stat -c %b a.img)" -lt 4096
prints "... and tells label, uuid, sizes and copies" "^Metadata copies:  2" out
check 0 "a new filesystem is clean" "$fsck" a.img
prints "... says fsck" "clean" out

check 1 "mkfs refuses to overwrite a filesystem" "$mkfs" a.img
prints "... and says which" "mkfs.cowfs: a.img: contains a cowfs" err
check 0 "mkfs -f overwrites it" "$mkfs" -f -q a.img
true_that "mkfs -q prints nothing" test ! -s out
true_that "... on stderr neither" test ! -s err

check 1 "mkfs without -s wants a file that is there" "$mkfs" none.img
true_that "... and creates none" test ! -e none.img
check 2 "mkfs refuses less than 8 MiB" "$mkfs" -s 4M small.img
true_that "... and creates no file" test ! -e small.img
check 0 "mkfs makes 8 MiB" "$mkfs" -s 8M min.img
check 0 "... which is clean" "$fsck" min.img

if command -v prlimit >/dev/null; then
	check 1 "mkfs is told of a limit for files (ulimit -f)" \
		prlimit --fsize=1000000 "$mkfs" -s 64M limit.img
	prints "... and says so" "limit.img: .*File too large" err
	true_that "... and removes its file" test ! -e limit.img
else
	skip "a limit for files" "no prlimit"
fi

truncate -s 32M zero.img
check 0 "mkfs uses the size of an empty file" "$mkfs" zero.img
true_that "... leaving it" test "$(stat -c %s zero.img)" -eq $((32 << 20))
check 0 "mkfs -f -s grows a file" "$mkfs" -f -s 48M zero.img
true_that "... to the size asked for" \
	test "$(stat -c %s zero.img)" -eq $((48 << 20))
check 0 "... and it is clean" "$fsck" -f zero.img
check 0 "mkfs -f -s shrinks a file" "$mkfs" -f -s 16M zero.img
true_that "... to the size asked for" \
	test "$(stat -c %s zero.img)" -eq $((16 << 20))

truncate -s 16M text.img
printf 'a letter' | dd of=text.img conv=notrunc status=none
cp text.img text.old
check 1 "mkfs refuses a file that is not empty" "$mkfs" text.img
true_that "... and leaves it as it was" cmp -s text.img text.old
check 1 "mkfs -s refuses it, too" "$mkfs" -s 64M text.img
true_that "... at its size" cmp -s text.img text.old
truncate -s 16M part.img
printf '\125\252' | dd of=part.img bs=1 seek=510 conv=notrunc status=none
check 1 "mkfs refuses a partition table" "$mkfs" part.img
prints "... by its name" "partition table" err
truncate -s 4M tiny.img
check 1 "mkfs refuses a file that is too small" "$mkfs" tiny.img
check 1 "mkfs reports a directory that is not there" \
	"$mkfs" -s 16M no/such/dir.img

# nothing is lost of one side of a mirror where the other cannot be had
"$mkfs" -q -s 16M side.img
cp side.img side.old
check 1 "mkfs -f --mirror reports a side that is not there" \
	"$mkfs" -f --mirror side.img no.img
true_that "... and leaves the first as it was" cmp -s side.img side.old
check 1 "mkfs -f -s --mirror refuses one file by two names" \
	"$mkfs" -f -s 32M --mirror side.img ./side.img
true_that "... and leaves it as it was" cmp -s side.img side.old
check 1 "mkfs -f --mirror refuses a side that is too small" \
	"$mkfs" -f --mirror side.img tiny.img
true_that "... and leaves the other as it was" cmp -s side.img side.old
check 1 "mkfs --mirror refuses a side that is not empty" \
	"$mkfs" --mirror -s 16M fresh.img text.img
true_that "... and makes no other" test ! -e fresh.img

label=$(printf '%063d' 7)
uuid=01234567-89ab-cdef-0123-456789abcdef
check 0 "mkfs takes label, uuid, node size and copies" "$mkfs" -s 32M \
	-L "$label" -U $uuid -n 4K --metadata-copies 1 --data-copies 2 o.img
prints "... label" "^Label: *$label\$" out
prints "... uuid" "^UUID: *$uuid\$" out
prints "... node size" "^Node size: *4096 bytes" out
prints "... metadata copies" "^Metadata copies: *1" out
prints "... data copies" "^Data copies: *2" out
check 0 "... and it is clean" "$fsck" o.img
for size in 4096 8K 16K 32K 64K; do
	check 0 "mkfs -n $size" "$mkfs" -q -f -s 64M -n $size n.img
	check 0 "... is clean" "$fsck" n.img
done

check 2 "mkfs refuses a label of 64 bytes" "$mkfs" -s 16M -L "0$label" x.img
check 2 "mkfs refuses a bad uuid" "$mkfs" -s 16M -U 0123 x.img
check 2 "mkfs refuses a uuid with other letters" "$mkfs" -s 16M \
	-U 0123456g-89ab-cdef-0123-456789abcdef x.img
check 2 "mkfs refuses a node size of 5000" "$mkfs" -s 16M -n 5000 x.img
check 2 "mkfs refuses a node size of 128K" "$mkfs" -s 16M -n 128K x.img
check 2 "mkfs refuses three copies" "$mkfs" -s 16M --data-copies 3 x.img
check 2 "mkfs refuses a bad size" "$mkfs" -s 16X x.img
check 2 "mkfs refuses an unknown option" "$mkfs" -Z x.img
check 2 "mkfs wants an image" "$mkfs" -s 16M
check 2 "mkfs wants one image" "$mkfs" -s 16M x.img y.img
true_that "none of these made a file" test ! -e x.img
check 0 "mkfs --help" "$mkfs" --help
prints "... prints the usage" "^usage: mkfs.cowfs" out
check 0 "mkfs --version" "$mkfs" --version
prints "... prints name and version" "^mkfs.cowfs (cowfs) [0-9]" out
if [ -w /dev/full ]; then
	"$mkfs" --help >/dev/full 2>err
	report $(($? == 0)) "mkfs notices that it cannot print"
fi

if need mke2fs; then
	truncate -s 32M ext.img
	mke2fs -q -F ext.img
	check 1 "mkfs refuses an ext4" "$mkfs" ext.img
	prints "... by its name" "ext4" err
	check 0 "mkfs -f overwrites an ext4" "$mkfs" -q -f ext.img
	if need blkid; then
		true_that "... of which nothing is left to see" \
			test -z "$(blkid -p -s TYPE -o value ext.img |
				grep ext)"
	fi
fi

# ---- fsck ----

"$mkfs" -q -f -s 64M a.img
cp --sparse=always a.img good.img
for opt in -n -y -p -a -f -v "-C" "-C0" -T -M -R -V "-t fuse.cowfs" \
	--data --all-snapshots "-n -f -v"; do
	# shellcheck disable=SC2086
	check 0 "fsck $opt of a clean image" "$fsck" $opt a.img
done
true_that "fsck writes nothing" cmp -s a.img good.img
true_that "no progress without a terminal" test ! -s err
check 16 "fsck -n -y" "$fsck" -n -y a.img
check 16 "fsck of nothing" "$fsck"
check 16 "fsck of two images" "$fsck" a.img b.img
check 16 "fsck with an unknown option" "$fsck" -Z a.img
check 0 "fsck --help" "$fsck" --help
prints "... prints the usage" "^usage: fsck.cowfs" out
check 0 "fsck --version" "$fsck" --version
prints "... prints name and version" "^fsck.cowfs (cowfs) [0-9]" out
check 8 "fsck of a file that is not there" "$fsck" none.img
prints "... says so" "fsck.cowfs: none.img: " err
truncate -s 16M empty.img
check 8 "fsck of an empty file" "$fsck" empty.img
check 8 "fsck of a directory" "$fsck" .

# the superblock: near and far copy of each slot
blocks=$(($(stat -c %s a.img) / 4096))
flip a.img $((16 * 4096 + 300))
check 4 "fsck reports a damaged superblock" "$fsck" -n a.img
prints "... by name and place" "^super-bad: slot 0, near copy, block 16" out
check 1 "fsck -p mends it, and says so" "$fsck" -p a.img
prints "... in words" "repaired" out
check 0 "... for good" "$fsck" -y a.img
cp --sparse=always good.img a.img
for slot in 0 1 2 3; do
	flip a.img $(((16 + slot) * 4096 + 300))
done
check 4 "fsck works from the far superblocks" "$fsck" -n a.img
for slot in 0 1 2 3; do
	flip a.img $(((blocks - 4 + slot) * 4096 + 300))
done
check 4 "fsck of an image without any superblock" "$fsck" -n a.img
true_that "... prints an error" test -s err

# every block that is in use, damaged: both copies of at least two nodes
used=$(cmp -l -n $((blocks * 4096)) good.img /dev/zero |
	awk '{ b = int(($1 - 1) / 4096); if (b != last) print b; last = b }')
found=0
for blk in $used; do
	if [ "$blk" -lt 20 ] || [ "$blk" -ge $((blocks - 4)) ]; then
		continue
	fi
	cp --sparse=always good.img a.img
	flip a.img $((blk * 4096 + 100))
	"$fsck" -n a.img >out 2>err
	status=$?
	if [ $status -eq 4 ]; then
		found=$((found + 1))
	elif [ $status -ne 0 ]; then
		report 1 "fsck with block $blk damaged: status $status"
	fi
done
true_that "fsck finds damaged copies of nodes ($found)" test "$found" -ge 4

# truncated images
cp --sparse=always good.img a.img
truncate -s 40M a.img
size=$(stat -c %s good.img)
check 4 "fsck of a truncated image" "$fsck" -n a.img
prints "... which says what to do" "after 41943040 of $size bytes (truncate" err
truncate -s "$size" a.img
check 1 "... and then mends it" "$fsck" -y a.img
check 0 "... wholly" "$fsck" -n a.img
truncate -s 60K a.img
check 8 "fsck of what is left of one" "$fsck" -n a.img

# in use
cp --sparse=always good.img a.img
if need python3; then
	python3 - a.img lock.fd <<'END' &
import fcntl, os, struct, sys, time
f = os.open(sys.argv[1], os.O_RDWR)
# F_OFD_SETLK, F_WRLCK, whole file
fcntl.fcntl(f, 37, struct.pack("hhqqi4x", 1, 0, 0, 0, 0))
open(sys.argv[2], "w").close()
time.sleep(60)
END
	holder=$!
	for _ in $(seq 100); do
		[ -e lock.fd ] && break
		sleep 0.05
	done
	check 8 "fsck refuses an image in use" "$fsck" a.img
	prints "... and says so" "in use" err
	check 0 "fsck -n looks at it all the same" "$fsck" -n a.img
	prints "... with a warning" "in use; what is found may be wrong" err
	check 1 "mkfs refuses an image in use" "$mkfs" -f a.img
	prints "... and says so" "in use" err
	true_that "... and leaves it alone" cmp -s a.img good.img
	kill "$holder"
	wait "$holder" 2>/dev/null
fi

# cancelled
cat >slow.sh <<'END'
"$1" -n big.img >out 2>err &
pid=$!
kill -INT $pid
wait $pid
END
"$mkfs" -q -s 64M big.img
(
	trap - INT
	exec bash slow.sh "$fsck"
)
status=$?
# it may have been done, or not yet listening, before the signal came
case $status in
0 | 32 | 130) report 0 "fsck cancelled by SIGINT ends in order ($status)" ;;
*) report 1 "fsck cancelled by SIGINT ends in order ($status)" ;;
esac

# the file of a loop device, under whose name another thing is by now
if [ "$(id -u)" = 0 ] && loop=$(losetup --find 2>/dev/null); then
	"$mkfs" -q -s 16M behind.img
	loop=$(losetup --find --show behind.img)
	check 0 "a loop device is checked" "$fsck" -n "$loop"
	rm behind.img
	mkfifo "behind.img (deleted)"
	check 0 "a pipe in the place of its file is not waited for" \
		timeout 20 "$fsck" -n "$loop"
	losetup -d "$loop"
else
	skip "a loop device" "needs root"
fi

# a name that means an image and a pipe by turns, as somebody else may have it
never_waits() {
	local child n
	"$mkfs" -q -s 16M turns.img
	mkfifo pipe
	timeout 60 python3 -c 'import ctypes
c = ctypes.CDLL(None)
while c.renameat2(-100, b"turns.img", -100, b"pipe", 2) == 0: pass' &
	child=$!
	for n in $(seq 200); do
		timeout 10 "$fsck" -n turns.img >out 2>&1
		[ $? -ne 124 ] || break
	done
	kill $child
	wait $child 2>/dev/null
	[ "$n" = 200 ]
}
if python3 -c 'import ctypes; ctypes.CDLL(None).renameat2' 2>/dev/null; then
	true_that "a pipe that was an image just now is not waited for" \
		never_waits
else
	skip "a pipe that was an image just now" "no python3, or no renameat2"
fi

# a sparse image of terabytes
if truncate -s 4T huge.img 2>/dev/null; then
	check 0 "mkfs makes 4T in a sparse file" "$mkfs" -q huge.img
	check 0 "... which is clean" "$fsck" huge.img
	true_that "... and takes little room" \
		test "$(stat -c %b huge.img)" -lt 40960
else
	skip "an image of 4T" "no files of that size here"
fi

finish
