# SPDX-License-Identifier: Apache-2.0
# kvasir check and kvasir stats on stores of the engine.
. "$KVASIR_TESTS/lib.sh"

store=blob:data.kv
mkdir tree
for i in $(seq 200); do head -c $((i * 40)) /dev/urandom >tree/f$i; done
head -c 3000000 /dev/urandom >big
works "a store" kvasir put "$store?size=64M" plain big
works "keys in it" kvasir put -r $store t tree
printf 'needle in the hay' | kvasir put $store needle
works "check" kvasir check $store
says .out "0 errors, 0 warnings" "finds nothing"
works "check --json" kvasir check $store --json
json_lines "is JSON"
equal "$(field keys) $(field errors) $(field warnings)" "202 0 0" "counts keys"
works "check --quick" kvasir check $store --quick
works "stats" kvasir stats $store --json
json_lines "is JSON"
equal "$(field keys_in_index) $(field segments_large)" "202 $(field segments_large)" "counts keys"
yes "and segments" test "$(field segments_large)" -gt 0
kvasir get $store plain | cmp -s - big && pass "it is unchanged" || fail "it is unchanged"
works "the blobstore below" kvasir blob check data.kv

# A byte of a value, in the only place where it is.
cp --sparse=always data.kv good.kv
at=$(grep -abo 'needle in the hay' data.kv | tail -1 | cut -d: -f1)
yes "the value is in the file" test -n "$at"
printf 'X' | dd of=data.kv bs=1 seek=$((at + 3)) conv=notrunc status=none
exits 7 "check finds it" kvasir check $store
says .out "error: record at byte" "as a record"
says .out "key 'needle'" "and says whose"
exits 7 "get does not give it" kvasir get $store needle
kvasir get $store plain | cmp -s - big && pass "others are fine" || fail "others are fine"
works "the index is fine, too" kvasir check $store --quick

# A byte in the middle of a large value.
cp --sparse=always good.kv data.kv
python3 - <<'END'
data, big = open("data.kv", "rb").read(), open("big", "rb").read()
at = data.index(big[1000000:1000064])
with open("data.kv", "r+b") as f:
    f.seek(at)
    f.write(bytes([data[at] ^ 1]))
END
exits 7 "check finds a byte of a large value" kvasir check $store --json
json_lines "is JSON"
equal "$(field structure) $(field key) $(field severity)" "chunk plain error" "the finding"

# Killed in the middle.
cp --sparse=always good.kv data.kv
kvasir put -r $store more tree 2>/dev/null &
sleep 0.05
kill -KILL $! 2>/dev/null; wait $! 2>/dev/null
works "check of a store that was killed" kvasir check $store
works "it changes nothing" kvasir check $store

# Encrypted.
(umask 077; head -c 32 /dev/urandom >key)
works "an encrypted store" kvasir put 'blob:secret.kv?size=64M&key_file=key' -r t tree
works "check with its key" kvasir check 'blob:secret.kv?key_file=key'
says .out "0 errors, 0 warnings" "finds nothing"
exits 6 "without" kvasir check blob:secret.kv

# Of several shards.
works "a store of shards" kvasir put 'blob:shards.kv?size=256M&shards=3&memory=12M' -r t tree
works "check of all shards" kvasir check blob:shards.kv
says .out "0 errors, 0 warnings" "finds nothing"
works "stats of all shards" kvasir stats blob:shards.kv --json
equal "$(field shards) $(field shard_2_reactor)" "3 0" "names them"
exits 2 "another number of shards" kvasir ls 'blob:shards.kv?shards=4'
says .err "the store has 3 shards" "it says how many there are"
printf 'needle in the hay' | kvasir put blob:shards.kv needle
at=$(grep -abo 'needle in the hay' shards.kv | tail -1 | cut -d: -f1)
printf 'X' | dd of=shards.kv bs=1 seek=$((at + 3)) conv=notrunc status=none
exits 7 "check finds a byte in one of them" kvasir check blob:shards.kv
says .out "shard " "it says in which"

exits 11 "no engine" kvasir check mem:
exits 11 "no counters" kvasir stats mem:
exits 2 "a block device" kvasir check file:data.kv
says .err "kvasir blob check" "it says what to use"

# While a daemon serves it, and others write.
cp --sparse=always good.kv live.kv
serve live kvasir serve --kv 'live=blob:live.kv?checkpoint=1M' --socket live.sock --listen 127.0.0.1:0 || exit
uri=nvme+tcp://$addr/nqn.2026-11.io.kvasir:default
(while [ ! -e enough ]; do kvasir put -r "$uri" busy tree || break; kvasir rm -r "$uri" busy || break; done) >/dev/null 2>&1 &
writer=$!
for i in 1 2 3 4 5; do
    works "check through the daemon, $i" kvasir check live --socket live.sock
    says .out "0 errors, 0 warnings" "finds nothing"
done
works "stats through the daemon" kvasir stats live --socket live.sock --json
yes "which has done something" test "$(field checkpoints)" -gt 0
exits 10 "check of its file" kvasir check blob:live.kv
says .err "--socket PATH" "says how to ask the daemon"
exits 3 "a name that is none" kvasir check nosuch --socket live.sock
exits 3 "no daemon" kvasir stats live --socket nosuch.sock
at=$(grep -abo 'needle in the hay' live.kv | tail -1 | cut -d: -f1)
printf 'X' | dd of=live.kv bs=1 seek=$((at + 3)) conv=notrunc status=none
exits 7 "check through the daemon finds a byte" kvasir check live --socket live.sock --json
json_lines "is JSON"
says .out '"key":"needle"' "and says whose"
touch enough
wait $writer
stop $pid
equal "$rc" 0 "the daemon stops"
yes "and takes its socket away" test ! -e live.sock
