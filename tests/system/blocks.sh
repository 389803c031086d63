# SPDX-License-Identifier: Apache-2.0
# read, write and cp of block devices.
. "$KVASIR_TESTS/lib.sh"

head -c 3000001 /dev/urandom >a.bin
works "write makes the file" kvasir write 'file:d.img?size=16M' a.bin
equal "$(stat -c %s d.img)" 16777216 "of that size"
cmp -s -n 3000001 d.img a.bin && pass "the bytes are there" || fail "the bytes are there"
works "read the whole device" kvasir read file:d.img -o d.out
same d.img d.out "it is the same"
yes "zeroes are holes" test "$(stat -c '%b' d.out)" -lt 12000
kvasir read file:d.img --offset 777 --length 1234567 >part
tail -c +778 a.bin | head -c 1234567 >want
same want part "read at any byte"
works "write at any byte" sh -c "printf hello | kvasir write file:d.img --offset 1000001"
printf hello | dd of=d.out bs=1 seek=1000001 conv=notrunc status=none
kvasir read file:d.img -o d2.out
same d.out d2.out "changes those bytes only"
works "write within a block" sh -c "printf x | kvasir write file:d.img --offset 16777215"
printf x | dd of=d.out bs=1 seek=16777215 conv=notrunc status=none
kvasir read file:d.img | cmp -s - d.out && pass "the last byte" || fail "the last byte"
works "write of a part" kvasir write file:d.img a.bin --offset 8M --length 100
kvasir read file:d.img --offset 8M --length 100 | cmp -s - <(head -c 100 a.bin) && pass "of its length" || fail "of its length"

exits 5 "a file that does not fit" kvasir write file:d.img a.bin --offset 14M
cmp -s -n 100 <(kvasir read file:d.img --offset 14M --length 100) /dev/zero && pass "nothing was written" || fail "nothing was written"
exits 5 "a pipe that does not fit" sh -c "head -c 17M /dev/zero | kvasir write file:d.img"
exits 12 "read past the end" kvasir read file:d.img --offset 16M --length 1
exits 12 "read after the end" kvasir read file:d.img --offset 17M
exits 3 "no such file" kvasir read file:nosuch.img
says .err "size=" "it says how to make it"
exits 1 "a pipe that is too short" sh -c "printf abc | kvasir write file:d.img --length 10"
works "stat" kvasir stat --json file:d.img
equal "$(field size_bytes)" 16777216 "its size"
works "write --json" kvasir write --json file:d.img a.bin
equal "$(field bytes)" 3000001 "says how much"
works "read only" kvasir read 'file:d.img?readonly=yes' -o ro.out
exits 6 "write of a read-only device" kvasir write 'file:d.img?readonly=yes' a.bin

# Two processes on one file.
hold d.img
exits 10 "a file that another process has open" kvasir write file:d.img a.bin
says .err "d.img" "it names the file"
yes "it names the holder" grep -qE 'process|pid|[0-9]+' .err
let_go

# cp
works "cp" kvasir cp file:d.img 'file:c.img?size=20M' --verify
cmp -s -n 16777216 d.img c.img && pass "the copy is the same" || fail "the copy is the same"
yes "and as sparse" test "$(stat -c '%b' c.img)" -lt 14000
exits 5 "cp to a smaller one" kvasir cp file:d.img 'file:small.img?size=1M'
exits 2 "cp onto itself" kvasir cp file:d.img file:d.img
exits 2 "cp of mixed kinds" kvasir cp file:d.img dir:store
says .err "different kinds" "it says so"
exits 2 "the other way" kvasir cp dir:store file:d.img

# A copy that is killed goes on where it was.
head -c 200M /dev/urandom >big.img
slow="fault:?base=file:big.img&delay=30ms"
kvasir cp "$slow" 'file:bc.img?size=200M' --state st --jobs 2 2>/dev/null &
copy=$!
for i in $(seq 100); do [ -s st ] && break; sleep 0.05; done
yes "a state is kept" test -s st
kill -KILL $copy; wait $copy 2>/dev/null
offset=$(python3 -c 'import json; print(json.load(open("st"))["offset"])')
yes "it is somewhere in the middle" test "$offset" -gt 0 -a "$offset" -lt 209715200
cmp -s -n "$offset" big.img bc.img && pass "what it says is there" || fail "what it says is there"
exits 2 "a state of another copy" kvasir cp file:d.img file:c.img --state st
says .err "'st'" "it names the file"
works "the same command goes on" kvasir cp "$slow" 'file:bc.img?size=200M' --state st --jobs 8 --json
equal "$(field resumed) $(field bytes)" "True $((209715200 - offset))" "from there"
same big.img bc.img "the copy is the same"
yes "the state is gone" test ! -e st
rm -f big.img bc.img

works "bench" kvasir bench file:d.img mix --overwrite --verify --json -t 300ms --warmup 50ms --qd 8
json_lines "bench --json is JSON"
yes "it measured something" test "$(field iops | cut -d. -f1)" -gt 0
equal "$(field mismatches)" 0 "nothing was wrong"
exits 2 "bench does not destroy unasked" kvasir bench file:d.img write -t 100ms
says .err "--overwrite" "it says how"
exits 7 "bench --verify finds lost writes" kvasir bench "fault:?base=mem:%3Fsize=4M&lost=0.2" mix --overwrite --verify -t 300ms --warmup 0s
works "bench of keys" kvasir bench mem: kvmix --verify --json -t 300ms --warmup 50ms --keys 100
works "bench at a rate" kvasir bench 'mem:?size=16M' read --json -t 500ms --warmup 0s --rate 1000
rate=$(field iops | cut -d. -f1)
yes "keeps it ($rate/s)" test "$rate" -gt 0 -a "$rate" -le 1100
