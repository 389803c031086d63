# SPDX-License-Identifier: Apache-2.0
# The verbs for key-value devices, on a directory.
. "$KVASIR_TESTS/lib.sh"
dev=dir:store

head -c 100000 /dev/urandom >a.bin
head -c 5242881 /dev/urandom >b.bin
works "put a file" kvasir put $dev alpha a.bin
same a.bin store/0/1/616C706861 "it is a file named by the key"
works "put standard input" sh -c "kvasir put $dev beta < b.bin"
works "put a pipe" sh -c "cat b.bin | kvasir put $dev gamma"
works "put an empty value" kvasir put $dev empty /dev/null
works "get into a file" kvasir get $dev beta -o b.out
same b.bin b.out "it is the same"
kvasir get $dev gamma >g.out
same b.bin g.out "get to standard output"
kvasir get $dev empty >e.out
equal "$(stat -c %s e.out)" 0 "an empty value is empty"

kvasir get $dev beta --offset 1000 --length 2M >part.out
tail -c +1001 b.bin | head -c 2097152 >part.want
same part.want part.out "a part of a value"
kvasir get $dev beta --offset 5242880 >part.out
tail -c 1 b.bin >part.want
same part.want part.out "the last byte"
kvasir get $dev beta --offset 5242881 >part.out
equal "$(stat -c %s part.out)" 0 "nothing from its end on"
exits 12 "an offset past the end" kvasir get $dev beta --offset 6M
says .err "5242881 bytes" "it says how long the value is"

works "ls" kvasir ls $dev
equal "$(tr '\n' ' ' <.out)" "alpha beta empty gamma " "in order"
kvasir ls $dev ga >.out
equal "$(cat .out)" gamma "ls with a prefix"
kvasir ls -n 2 --after alpha $dev >.out
equal "$(tr '\n' ' ' <.out)" "beta empty " "ls --after --limit"
kvasir ls -l $dev alpha >.out
equal "$(tr -s ' ' <.out)" " 100000 alpha" "ls --long"
works "ls --json" kvasir ls --json -l $dev
json_lines "ls --json is JSON"
equal "$(field bytes 2)" 5242881 "with the length"

works "stat of a key" kvasir stat --json $dev alpha
equal "$(field bytes)" 100000 "its length"
v1=$(field version)
sleep 0.02
kvasir put $dev alpha a.bin
kvasir stat --json $dev alpha >.out
yes "another version after another put" test "$(field version)" != "$v1"
works "stat of a device" kvasir stat --json $dev
equal "$(field kind)" key-value "its kind"

works "exists" kvasir exists $dev alpha
exits 3 "exists not" kvasir exists $dev nosuch
equal "$(cat .out .err)" "" "it says nothing"
run kvasir exists --json $dev nosuch
equal "$rc $(field exists)" "3 False" "exists --json"

exits 3 "get of no key" kvasir get $dev nosuch
says .err "'nosuch' in dir:store" "it names key and device"
says .err "kvasir ls" "it says what to do"
run kvasir get $dev nosuch -o nosuch.out
yes "a failed get leaves no file" test ! -e nosuch.out
echo old >keep.out
run kvasir get $dev nosuch -o keep.out
equal "$(cat keep.out)" old "a failed get leaves the old file"
equal "$(ls -A | grep -c '\.kvasir$')" 0 "and no temporary one"
exits 3 "get into no directory" kvasir get $dev alpha -o no/such/dir
exits 3 "put of no file" kvasir put $dev k nosuch.bin
exits 1 "put of a directory" kvasir put $dev k store
says .err "-r" "it says how to"

exits 4 "put --if-absent of what is there" kvasir put --if-absent $dev alpha b.bin
kvasir get $dev alpha | cmp -s - a.bin && pass "it is unchanged" || fail "it is changed"
works "put --if-absent" kvasir put --if-absent $dev delta a.bin
exits 3 "put --if-present of what is not there" kvasir put --if-present $dev epsilon a.bin
works "put --if-present" kvasir put --if-present $dev delta b.bin
exits 4 "put --if-version of another" kvasir put --if-version 1 $dev delta a.bin
exits 2 "two conditions" kvasir put --if-absent --if-present $dev delta a.bin
works "append" sh -c "printf one | kvasir put $dev app && printf two | kvasir put --append $dev app"
equal "$(kvasir get $dev app)" onetwo "it is appended"

works "hex key" kvasir put $dev hex:00FF01 a.bin
kvasir ls $dev hex:00 >.out
equal "$(cat .out)" hex:00FF01 "it is listed as it was written"
printf '\000\377\001' >keyfile
kvasir get $dev @keyfile | cmp -s - a.bin && pass "key from a file" || fail "key from a file"
exits 2 "odd hex" kvasir get $dev hex:0
exits 2 "empty key" kvasir get $dev ""
works "text like hex" kvasir put $dev "hex:6865783A61" a.bin
kvasir ls $dev hex:6865 >.out
equal "$(cat .out)" hex:6865783A61 "a key that begins with hex: is printed as hex"
works "utf-8" kvasir put $dev "grün" a.bin
kvasir ls $dev gr >.out
equal "$(cat .out)" "grün" "is printed as it is"
long=$(printf 'k%.0s' $(seq 2049))
exits 12 "a key that is too long" kvasir put $dev "$long" a.bin

works "rm" kvasir rm $dev alpha hex:00FF01
exits 3 "rm of no key" kvasir rm $dev alpha
works "rm --force" kvasir rm -f $dev alpha
exits 3 "rm goes on after a missing key" kvasir rm $dev alpha beta
exits 3 "it did" kvasir exists $dev beta
works "rm -r" kvasir rm -r $dev ""
equal "$(kvasir ls $dev)" "" "nothing is left"

# Two processes on one device file: the holder is named.
chmod -w store/0/1 2>/dev/null
if [ "$(id -u)" -ne 0 ]; then exits 6 "put without permission" kvasir put $dev k a.bin; fi
chmod +w store/0/1

works "a value in two reads of a terminal-like pipe" sh -c "(printf a; sleep 0.2; printf b) | kvasir put $dev slow"
equal "$(kvasir get $dev slow)" ab "whole"
exits 1 "a pipe that is shorter than --length" sh -c "printf abc | kvasir put $dev short --length 10"
exits 3 "nothing was stored" kvasir exists $dev short
exits 12 "a pipe that is longer" sh -c "printf abcdefghijk | kvasir put $dev short --length 10"
exits 3 "nothing was stored" kvasir exists $dev short
kvasir put $dev big b.bin
kvasir get $dev big | head -c 10 >/dev/null
equal "${PIPESTATUS[0]}" 141 "a reader that goes away ends it quietly"

# Interrupted: nothing stays behind.
mkfifo fifo
kvasir put $dev interrupted fifo 2>int.err &
int=$!
exec 5>fifo
head -c 3000000 b.bin >&5
sleep 0.3
kill -INT $int
wait $int
equal $? 130 "SIGINT ends with 130"
exec 5>&-
exits 3 "an interrupted put stores nothing" kvasir exists $dev interrupted
