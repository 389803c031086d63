# SPDX-License-Identifier: Apache-2.0
# cp of key-value devices.
. "$KVASIR_TESTS/lib.sh"

mkdir in
for i in $(seq 300); do head -c $((i * 37)) /dev/urandom >in/f$i; done
head -c 3000000 /dev/urandom >in/large
kvasir put -r dir:a in
works "cp" kvasir cp dir:a dir:b --verify --json
equal "$(field copied)" 301 "all keys"
yes "the same files" diff -r a/0 b/0
works "cp --update" kvasir cp dir:a dir:b --update --json
equal "$(field copied) $(field skipped)" "0 301" "leaves out what is there"
printf other | kvasir put dir:a f1
works "cp --update of a change" kvasir cp dir:a dir:b --update --json
equal "$(field copied)" 1 "copies it"
len=$(stat -c %s in/f2)
head -c "$len" /dev/urandom | kvasir put dir:a f2
works "a change of the same length" kvasir cp dir:a dir:b --update --json
equal "$(field copied)" 0 "is not seen by length"
works "cp --update --verify" kvasir cp dir:a dir:b --update --verify --json
equal "$(field copied)" 1 "but by content"
yes "the same files" diff -r a/0 b/0
printf mine | kvasir put dir:b mine
works "cp again" kvasir cp dir:a dir:b
equal "$(kvasir get dir:b mine)" mine "leaves what else is there"

# Killed in the middle; goes on.
kvasir cp 'fault:?base=dir:a&delay=20ms' dir:c --jobs 2 --state st 2>/dev/null &
copy=$!
for i in $(seq 100); do [ -s st ] && break; sleep 0.05; done
yes "a state is kept" test -s st
kill -INT $copy; wait $copy
equal $? 130 "SIGINT ends with 130"
done_keys=$(kvasir ls dir:c | wc -l)
yes "it was in the middle" test "$done_keys" -gt 0 -a "$done_keys" -lt 301
after=$(python3 -c 'import json; print(bytes.fromhex(json.load(open("st"))["after"]).decode())')
kvasir ls dir:a | awk -v last="$after" '{print} $0 == last {exit}' >want
kvasir ls dir:c | sort >got
equal "$(sort want | comm -23 - got)" "" "every key up to the place is there"
works "the same command goes on" kvasir cp 'fault:?base=dir:a&delay=20ms' dir:c --jobs 16 --state st --json
equal "$(field resumed)" True "from there"
yes "without the beginning" test "$(field copied)" -lt 301
yes "the same files" diff -r a/0 c/0
yes "the state is gone" test ! -e st
