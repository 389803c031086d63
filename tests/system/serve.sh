# SPDX-License-Identifier: Apache-2.0
# kvasir serve, and every verb through NVMe/TCP.
. "$KVASIR_TESTS/lib.sh"
nqn=nqn.2026-11.io.kvasir:default

exits 2 "serve of nothing" kvasir serve --listen 127.0.0.1:0
exits 2 "serve of a device that is none" kvasir serve --kv a=nosuch:x --listen 127.0.0.1:0
says .err "nosuch" "it names the device"
exits 2 "listen on no address" kvasir serve --kv a=mem: --listen nonsense
exits 2 "no NQN" kvasir serve --kv a=mem: --nqn nonsense --listen 127.0.0.1:0

serve main kvasir serve --mem 16M --kv demo=dir:data --block 'disk=mem:?size=64M' --kv mem: --listen 127.0.0.1:0 || exit
main=$pid
kv="nvme+tcp://$addr/$nqn?nsid=1" blk="nvme+tcp://$addr/$nqn?nsid=2" kv3="nvme+tcp://$addr/$nqn?nsid=3"
equal "$(head -1 main.log)" "listening $addr $nqn" "the address is printed"
says main.log "$kv  key-value demo" "and the URIs of the namespaces"
exits 10 "the same address again" kvasir serve --kv mem: --listen "$addr"
says .err "${addr#*:}" "it names the port"
head -c 1M /dev/zero >taken.img
hold taken.img
exits 10 "a file that another process has" kvasir serve --block file:taken.img --listen 127.0.0.1:0
let_go
says .err "taken.img" "it names the file"

works "discover" kvasir discover "$addr"
says .out "nvme+tcp://$addr/$nqn" "it prints the URI"
works "discover --json" kvasir discover --json "$addr"
json_lines "discover --json is JSON"
works "identify" kvasir identify --json "nvme+tcp://$addr/$nqn"
json_lines "identify --json is JSON"
equal "$(wc -l <.out)" 4 "a controller and three namespaces"
equal "$(field namespace.kind 2) $(field namespace.kind 3)" "key-value block" "of their kinds"
works "identify of one" kvasir identify --json "nvme+tcp://$addr/$nqn?nsid=2"
equal "$(field namespace.size_bytes 2)" 67108864 "its size"
exits 3 "identify of none" kvasir identify "nvme+tcp://$addr/$nqn?nsid=9"
exits 2 "identify without a name" kvasir identify "$addr"
says .err "kvasir discover $addr" "it says what to do"
exits 3 "no such subsystem" kvasir identify "nvme+tcp://$addr/nqn.2026-11.io.kvasir:other"

# Key-value verbs.
head -c 1000000 /dev/urandom >a.bin
works "put" kvasir put "$kv" alpha a.bin
same a.bin data/0/1/616C706861 "it is in the directory behind it"
works "get" kvasir get "$kv" alpha -o a.out
same a.bin a.out "it is the same"
kvasir get "$kv" alpha --offset 12345 --length 6789 >part
tail -c +12346 a.bin | head -c 6789 >want
same want part "a part of a value"
works "put of a pipe" sh -c "cat a.bin | kvasir put '$kv' piped"
kvasir get "$kv" piped | cmp -s - a.bin && pass "it is the same" || fail "it is the same"
works "ls" kvasir ls -l "$kv"
equal "$(awk '{print $2}' .out | tr '\n' ' ')" "alpha piped " "it lists both"
works "stat" kvasir stat --json "$kv" alpha
equal "$(field bytes)" 1000000 "the length"
works "stat of the device" kvasir stat --json "$kv"
equal "$(field kind) $(field key_max_bytes)" "key-value 2048" "kind and key length"
works "exists" kvasir exists "$kv" alpha
exits 3 "exists not" kvasir exists "$kv" nosuch
exits 3 "get of no key" kvasir get "$kv" nosuch
says .err "'nosuch'" "it names the key"
exits 4 "put --if-absent" kvasir put --if-absent "$kv" alpha a.bin
exits 3 "put --if-present" kvasir put --if-present "$kv" nosuch a.bin
works "append" sh -c "printf one | kvasir put '$kv' app && printf two | kvasir put -a '$kv' app"
equal "$(kvasir get "$kv" app)" onetwo "it is appended"
std="$kv&vendor=no" # as any other target
exits 12 "a key of 17 bytes on a standard namespace" kvasir put "$std" 12345678901234567 a.bin
says .err "1 to 16" "it says how long keys are"
works "with vendor commands" kvasir put "$kv" 12345678901234567 a.bin
works "is fine" kvasir rm "$kv" 12345678901234567
works "put of a pipe on a standard namespace" sh -c "cat a.bin | kvasir put '$std' spooled"
kvasir get "$std" spooled | cmp -s - a.bin && pass "it is the same" || fail "it is the same"
kvasir get "$std" spooled --offset 500000 --length 1000 | cmp -s - <(tail -c +500001 a.bin | head -c 1000) && pass "a part of it" || fail "a part of it"
exits 11 "append on a standard namespace" sh -c "printf x | kvasir put -a '$std' spooled"
kvasir ls -l "$std" spo >.out
equal "$(tr -s ' ' <.out)" " 1000000 spooled" "ls of a standard namespace"
works "rm" kvasir rm "$std" spooled
works "a key of 16 binary bytes" kvasir put "$kv" hex:000102030405060708090A0B0C0D0EFF a.bin
kvasir get "$kv" hex:000102030405060708090A0B0C0D0EFF | cmp -s - a.bin && pass "is got back" || fail "is got back"
works "rm" kvasir rm "$kv" alpha piped app hex:000102030405060708090A0B0C0D0EFF
equal "$(kvasir ls "$kv")" "" "nothing is left"

mkdir tree
for i in $(seq 30); do head -c $((i * 3000)) /dev/urandom >tree/f$i; done
works "put -r" kvasir put -r "$kv" t tree
works "get -r" kvasir get -r "$kv" t -o tree.out
yes "the trees are the same" diff -r tree tree.out
mkdir -p deep/directory/of/names && cp a.bin deep/directory/of/names/file
exits 12 "put -r of paths that are too long" kvasir put -r "$std" deep
says .err "nothing was stored" "it says so"
says .err "16 bytes" "and why"
works "put -r of those that fit" kvasir put -r -k "$std" s tree
kvasir rm -r "$kv" s/
works "cp from one namespace to another" kvasir cp "$kv" "$kv3" --verify --json
equal "$(field copied)" 30 "all keys"
works "cp out of the daemon" kvasir cp "$kv3" dir:copy --json
yes "the same files" diff -r -x .kvasir copy/0/1 data/0/1

# Block verbs.
works "write" kvasir write "$blk" a.bin --offset 1M
kvasir read "$blk" --offset 1M --length 1000000 | cmp -s - a.bin && pass "it reads back" || fail "it reads back"
works "read of all" kvasir read "$blk" -o disk.out
equal "$(stat -c %s disk.out)" 67108864 "the whole device"
works "cp onto a file" kvasir cp "$blk" 'file:disk.img?size=64M' --verify
same disk.out disk.img "it is the same"
exits 2 "cp of mixed kinds" kvasir cp "$kv" "$blk"
exits 2 "put on a block namespace" kvasir put "$blk" k a.bin
says .err "block" "it says what it is"
exits 2 "read of a key-value namespace" kvasir read "$kv"
says .err "key-value" "it says what it is"
exits 3 "no such namespace" kvasir read "nvme+tcp://$addr/$nqn?nsid=9"
works "digests" kvasir cp "$blk&hdgst=yes&ddgst=yes" mem:?size=64M --verify
works "bench of blocks" kvasir bench "$blk" mix --overwrite --verify -t 500ms --warmup 100ms --json --connections 3
equal "$(field mismatches)" 0 "without a difference"
works "bench of keys" kvasir bench "$kv3" kvmix --verify -t 500ms --warmup 100ms --json --keys 200
equal "$(field mismatches)" 0 "without a difference"

# Large values in little memory.
before=$(rss_kib "$main")
head -c 300M /dev/urandom >big
for uri in "$kv" "$std"; do
    works "put of 300 MiB" kvasir put "$uri" big big
    works "get of 300 MiB" kvasir get "$uri" big -o big.out
    same big big.out "it is the same"
done
after=$(rss_kib "$main")
yes "the daemon grew from $before to $after KiB" test "$after" -lt $((before + 20480))
rm -f big.out
python3 - "$kv" <<'PY' && pass "kvasir get stays small" || fail "kvasir get stays small"
import os, resource, subprocess, sys
p = subprocess.run(["kvasir", "get", sys.argv[1], "big", "-o", "/dev/null"])
kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(f"# kvasir get of 300 MiB: {kib} KiB")
sys.exit(p.returncode != 0 or kib > 40960)
PY
kvasir rm "$kv" big; rm -f big

# A put that is interrupted leaves nothing.
mkfifo fifo
kvasir put "$kv" half fifo --length 10M 2>/dev/null &
half=$!
exec 5>fifo
head -c 3000000 /dev/zero >&5
sleep 0.3
kill -INT $half; wait $half
equal $? 130 "SIGINT ends with 130"
exec 5>&-
exits 3 "nothing was stored" kvasir exists "$kv" half

# Progress for a terminal.
script -qec "kvasir cp 'fault:?base=mem:%3Fsize=64M&delay=60ms' mem:?size=64M --jobs 2 --kind block" /dev/null >tty 2>&1
grep -q 'MiB of 64.0 MiB' tty && grep -q 's left' tty && pass "progress on a terminal" || fail "progress on a terminal"
kvasir cp 'fault:?base=mem:%3Fsize=64M&delay=60ms' mem:?size=64M --jobs 2 --kind block 2>notty
equal "$(cat notty)" "" "none without one"

kill -USR1 "$main"; sleep 0.3
stop "$main"
equal "$rc" 0 "SIGTERM stops it"
exits 8 "nobody listens now" kvasir ls "$kv"
says .err "kvasir discover" "it says what to do"

# Hosts that may and may not connect.
serve hosts kvasir serve --kv mem: --host nqn.2026-11.test:friend --listen 127.0.0.1:0 || exit
uri="nvme+tcp://$addr/$nqn"
works "a host that is listed" kvasir ls "$uri?hostnqn=nqn.2026-11.test:friend"
exits 6 "a host that is not" kvasir ls "$uri?hostnqn=nqn.2026-11.test:stranger"
says .err "stranger" "it names the host"
works "discovery for a listed host" kvasir discover "$addr" --host nqn.2026-11.test:friend
says .out "$nqn" "shows the subsystem"
works "discovery for another" kvasir discover "$addr" --host nqn.2026-11.test:stranger
yes "does not" sh -c "! grep -q '$nqn' .out"
stop "$pid"

if serve six kvasir serve --json --nqn nqn.2026-11.test:six --kv mem: --listen '[::1]:0' --listen 127.0.0.1:0; then
    cp six.log .out
    json_lines "serve --json is JSON"
    equal "$(wc -l <.out)" 2 "a line for each address"
    works "IPv6" kvasir identify "nvme+tcp://$addr/nqn.2026-11.test:six"
    stop "$pid"
    equal "$rc" 0 "SIGTERM stops it"
fi
serve eight kvasir serve --backend epoll --cores 2 --kv mem: --listen 127.0.0.1:0 || exit
works "on epoll and two reactors" kvasir bench "nvme+tcp://$addr/$nqn" kvmix --verify --cores 2 -t 500ms --warmup 100ms --keys 100
kill -INT "$pid"; wait "$pid"
equal $? 0 "SIGINT stops it"
