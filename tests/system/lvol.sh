# SPDX-License-Identifier: Apache-2.0
# Logical volumes: kvasir lvol, and the verbs for blocks on lvol: URIs.
. "$KVASIR_TESTS/lib.sh"

# volume NAME FIELD: of the line of `lvol ls --json` that has this volume.
volume() {
    kvasir lvol ls --json d.img | python3 -c '
import json, sys
for line in sys.stdin:
    v = json.loads(line)
    if v.get("name") == sys.argv[1]:
        print(v[sys.argv[2]])' "$1" "$2"
}

# --- stores
exits 3 "init of nothing" kvasir lvol init d.img
works "init makes the file" kvasir lvol init --size 256M --name pool d.img
equal "$(stat -c %s d.img)" 268435456 "of that size"
yes "which is sparse" test "$(stat -c %b d.img)" -lt 10000
says .out "pool" "it shows the store"
exits 4 "init of a store" kvasir lvol init d.img
says .err "--force" "it says how"
head -c 1M /dev/urandom >other.img; truncate -s 64M other.img
exits 4 "init of other content" kvasir lvol init other.img
exits 3 "ls of other content" kvasir lvol ls other.img
says .err "lvol init" "it says how to make a store"
works "init --force" kvasir lvol init --force --cluster-size 1M other.img --json
json_lines "init --json is JSON"
equal "$(field cluster_bytes)" 1048576 "clusters as asked"
works "ls of a store without volumes" kvasir lvol ls --json d.img
equal "$(field store)" pool "its name"
equal "$(field size_bytes)" 268435456 "its size"
free=$(field free_bytes)
exits 2 "an unknown command" kvasir lvol burn d.img
says .err "snapshot" "it says which there are"
exits 2 "an argument is missing" kvasir lvol create d.img a
says .err "NAME SIZE" "it says which"
exits 2 "an option of another command" kvasir lvol rm d.img a --thick
exits 2 "no size" kvasir lvol create d.img a much

# --- volumes
works "create" kvasir lvol create d.img root 20M
equal "$(cat .out)" "lvol:d.img#pool/root" "it prints the URI"
works "create --thick --json" kvasir lvol create d.img thick 8M --thick --json
equal "$(field size_bytes) $(field allocated_bytes) $(field thin)" "8388608 8388608 False" "what it is"
exits 4 "create of a name that is taken" kvasir lvol create d.img root 1M
exits 5 "create of more than there is" kvasir lvol create d.img big 1G --thick
says .err "free" "it says what there is"
works "thin ones may be larger" kvasir lvol create d.img wide 10G
works "rename" kvasir lvol rename d.img wide wider
exits 3 "the old name" kvasir lvol rm d.img wide
says .err "wider" "it says which there are"
works "rm" kvasir lvol rm d.img wider

head -c 5000001 /dev/urandom >a.bin
works "write" kvasir write lvol:d.img#pool/root a.bin
works "read" kvasir read lvol:d.img#root --length 5000001 -o a.out
same a.bin a.out "the bytes are there"
kvasir read lvol:d.img#root --offset 5000001 | cmp -s - <(head -c $((20971520 - 5000001)) /dev/zero) \
    && pass "the rest is zero" || fail "the rest is zero"
kvasir read lvol:d.img#thick | cmp -s - <(head -c 8M /dev/zero) && pass "so are others" || fail "so are others"
equal "$(volume root allocated_bytes)" 5046272 "space was taken for what was written"
works "stat" kvasir stat --json lvol:d.img#root
equal "$(field size_bytes)" 20971520 "its size"
exits 5 "write behind the end" kvasir write lvol:d.img#root a.bin --offset 18M
exits 3 "no such volume" kvasir read lvol:d.img#nosuch
exits 2 "which volume?" kvasir read lvol:d.img
says .err "root" "it says which there are"
exits 2 "a fragment where none belongs" kvasir read file:d.img#root
works "by its uuid" kvasir read "lvol:d.img#$(volume root uuid)" --length 1
works "create= in the URI" kvasir write 'lvol:new.img?size=64M&create=8M#made/vol' a.bin
kvasir read 'lvol:new.img#made/vol' --length 5000001 | cmp -s - a.bin && pass "makes it all" || fail "makes it all"

# --- snapshots and clones
works "snapshot" kvasir lvol snapshot d.img root snap
works "clone" kvasir lvol clone d.img snap clone
exits 2 "clone of what can be written" kvasir lvol clone d.img root clone2
says .err "snapshot" "it says what to do"
works "change the clone" sh -c "printf clone | kvasir write lvol:d.img#clone --offset 777"
works "change the origin" sh -c "printf root | kvasir write lvol:d.img#root --offset 1000000"
cp a.bin clone.want; printf clone | dd of=clone.want bs=1 seek=777 conv=notrunc status=none
cp a.bin root.want; printf root | dd of=root.want bs=1 seek=1000000 conv=notrunc status=none
check() { # name, volume, what it holds
    kvasir read "lvol:d.img#$2" --length 5000001 -o check.out
    same "$3" check.out "$1"
}
check "the clone has its own" clone clone.want
check "the origin has its own" root root.want
check "the snapshot is as it was" snap a.bin
exits 6 "nobody writes a snapshot" sh -c "printf x | kvasir write lvol:d.img#snap"
equal "$(volume clone parent) $(volume snap clones) $(volume snap snapshot)" "snap 2 True" "the family"
exits 10 "rm of a snapshot with two clones" kvasir lvol rm d.img snap
says .err "2 volumes" "it says why"
works "inflate" kvasir lvol inflate --json d.img clone
json_lines "inflate --json is JSON"
equal "$(volume clone parent) $(volume clone thin)" "None False" "it stands alone"
check "the inflated one is the same" clone clone.want
works "decouple" kvasir lvol snapshot d.img root snap2
works "decouple" kvasir lvol decouple d.img root
equal "$(volume root parent) $(volume root thin)" "snap True" "it stands on the grandparent"
check "the decoupled one is the same" root root.want
works "rm of a snapshot without clones" kvasir lvol rm d.img snap2
works "rm of a snapshot with one clone" kvasir lvol rm d.img snap
check "the clone has taken it in" root root.want
exits 2 "shallow copy of what can be written" kvasir lvol shallow-copy d.img root 'file:copy.img?size=20M'
works "set-read-only" kvasir lvol set-read-only d.img root
works "shallow copy" kvasir lvol shallow-copy d.img root 'file:copy.img?size=20M'
cmp -s -n 5000001 copy.img root.want && pass "the copy is the same" || fail "the copy is the same"
works "shallow copy to another volume" kvasir lvol create d.img target 20M
works "shallow copy to another volume" kvasir lvol shallow-copy d.img root lvol:d.img#target
check "the copy in the store is the same" target root.want
works "cp of a volume" kvasir cp lvol:d.img#clone 'file:cp.img?size=20M' --verify
works "cp to a volume" kvasir cp 'file:cp.img' lvol:d.img#target --verify
check "the bytes of the copy" target clone.want

works "check" kvasir blob check d.img

# --- external snapshots
head -c 3000000 /dev/urandom >golden.img
truncate -s 3145728 golden.img
exits 2 "a snapshot and an external one" kvasir lvol clone --external golden.img d.img snap vm
says .err "NEW-NAME" "it says what to give"
exits 3 "clone of a file that is not there" kvasir lvol clone --external nosuch.img d.img vm
works "clone --external" kvasir lvol clone --external golden.img d.img vm
equal "$(cat .out)" "lvol:d.img?external=golden.img#pool/vm" "it prints the URI"
vm=$(cat .out)
equal "$(volume vm size_bytes) $(volume vm allocated_bytes) $(volume vm clone)" "3145728 0 True" "what it is"
equal "$(volume vm external_uri)" golden.img "it says what it stands on"
kvasir lvol ls d.img >.out
says .out "on the external snapshot $(volume vm external) (made on golden.img)" "ls says so"
exits 8 "nothing is opened unasked" kvasir read lvol:d.img#vm
says .err "external=URI" "it says how"
works "read" kvasir read "$vm" -o vm.out
same golden.img vm.out "the bytes of the file"
cp golden.img vm.want; printf changed | dd of=vm.want bs=1 seek=1000001 conv=notrunc status=none
works "write" sh -c "printf changed | kvasir write '$vm' --offset 1000001"
works "read what was written" kvasir read "$vm" -o vm.out
same vm.want vm.out "its own bytes, and the file's around them"
equal "$(tail -c +1000002 golden.img | head -c 7 | cmp - <(printf changed) >/dev/null && echo changed || echo same)" same "the file is as it was"
works "show" kvasir blob show d.img vm
says .out "EXTSNAP" "it has the id"
works "check" kvasir blob check d.img
says .out "external snapshot" "it says that it does not look there"
works "snapshot of it" kvasir lvol snapshot d.img vm vm.snap
works "clone of that" kvasir lvol clone d.img vm.snap vm2
exits 8 "which stands on the same file" kvasir read lvol:d.img#vm2
works "read it" kvasir read "lvol:d.img?external=golden.img#vm2" -o vm2.out
same vm.want vm2.out "the same bytes"
mv golden.img away.img
exits 3 "the file has gone" kvasir read "$vm"
works "others are still there" kvasir read lvol:d.img#root --length 10
works "what it has shall not be needed to look" kvasir lvol ls --json d.img
exits 8 "inflate without it" kvasir lvol inflate d.img vm2
works "inflate with it where it is now" kvasir lvol inflate --external away.img d.img vm2
works "read it alone" kvasir read lvol:d.img#vm2 -o vm2.out
same vm.want vm2.out "the same bytes"
works "decouple from the snapshot" kvasir lvol decouple --external away.img d.img vm
works "decouple from the file" kvasir lvol decouple --external away.img d.img vm
exits 2 "there is nothing more" kvasir lvol decouple d.img vm
works "read it alone" kvasir read lvol:d.img#vm -o vm.out
same vm.want vm.out "the same bytes"
mv away.img golden.img
works "a volume for another store" kvasir lvol clone --external "lvol:d.img#root" other.img far
serve daemon kvasir serve --block "one=lvol:other.img?external=lvol:d.img%23root#far" \
    --block "two=$(kvasir lvol clone --external golden.img other.img vm)" --listen 127.0.0.1:0
ns=nvme+tcp://$addr/nqn.2026-11.io.kvasir:default
works "write through NVMe/TCP" sh -c "printf changed | kvasir write '$ns?nsid=2' --offset 1000001"
works "read through NVMe/TCP" kvasir read "$ns?nsid=2" -o vm.out
same vm.want vm.out "the file and what was written"
kvasir read "$ns?nsid=1" --length 5000001 -o vm.out
same root.want vm.out "a volume of another store"
stop $pid
equal "$rc" 0 "the daemon stops"
works "check" kvasir blob check other.img
for name in vm vm2 vm.snap; do
    works "rm $name" kvasir lvol rm d.img "$name"
done

# --- sizes
works "resize" kvasir lvol resize d.img clone 30M
kvasir read lvol:d.img#clone --offset 20M | cmp -s - <(head -c 10M /dev/zero) && pass "what is new is zero" || fail "what is new is zero"
exits 2 "resize to less" kvasir lvol resize d.img clone 1M
says .err "--force" "it says how"
works "resize to less by force" kvasir lvol resize --force d.img clone 1M
equal "$(volume clone size_bytes)" 1048576 "it is smaller"
truncate -s 300M d.img
works "grow" kvasir lvol grow d.img
kvasir lvol ls --json d.img >.out
equal "$(field size_bytes)" 314572800 "the store has the whole file"

# --- served
works "a volume to serve" kvasir lvol create d.img served 16M
serve daemon kvasir serve --block one=lvol:d.img#served --block two=lvol:d.img#target --listen 127.0.0.1:0
ns=nvme+tcp://$addr/nqn.2026-11.io.kvasir:default
works "write through NVMe/TCP" kvasir write "$ns?nsid=1" a.bin
kvasir read "$ns?nsid=1" --length 5000001 -o served.out
same a.bin served.out "read through NVMe/TCP"
kvasir read "$ns?nsid=2" --length 5000001 -o served.out
same clone.want served.out "another volume of the store beside it"
exits 10 "the store is in use" kvasir lvol ls d.img
stop $pid
equal "$rc" 0 "the daemon stops"
check "what it wrote is there" served a.bin

# --- killed
serve daemon kvasir serve --block one=lvol:d.img#served --listen 127.0.0.1:0
works "write through NVMe/TCP again" sh -c "printf kill | kvasir write nvme+tcp://$addr/nqn.2026-11.io.kvasir:default?nsid=1 --offset 9000000"
kill -KILL $pid; wait $pid 2>/dev/null
works "ls after a kill" kvasir lvol ls --json d.img
equal "$(kvasir read lvol:d.img#served --offset 9000000 --length 4)" kill "what was acknowledged is there"
check "and the rest" served a.bin
works "check after it all" kvasir blob check d.img

# --- beside a key-value store
works "a key-value store on the same device" sh -c "printf value | kvasir put blob:d.img key"
works "ls" kvasir lvol ls --json d.img
equal "$(volume kv.default kv)" default "its volume is marked"
exits 6 "nobody writes into it" kvasir write lvol:d.img#kv.default a.bin
says .err "key-value store" "it says why"
exits 6 "rm of it" kvasir lvol rm d.img kv.default
says .err "--force" "it says how"
exits 6 "snapshot of it" kvasir lvol snapshot d.img kv.default kv.snap
works "it may be looked at" kvasir read 'lvol:d.img?readonly=yes#kv.default' --length 4096 -o kv.out
serve daemon kvasir serve --kv kv=blob:d.img --block one=lvol:d.img#served --listen 127.0.0.1:0
equal "$(kvasir get "nvme+tcp://$addr/nqn.2026-11.io.kvasir:default?nsid=1" key)" value "both are served together"
kvasir read "nvme+tcp://$addr/nqn.2026-11.io.kvasir:default?nsid=2" --length 5000001 -o served.out
same a.bin served.out "and are what they were"
stop $pid
equal "$rc" 0 "the daemon stops"
works "check beside a key-value store" kvasir blob check d.img
works "rm --force" kvasir lvol rm --force d.img kv.default

for name in $(kvasir lvol ls --json d.img | python3 -c '
import json, sys
for line in sys.stdin:
    v = json.loads(line)
    if v["kind"] == "volume":
        print(v["name"])'); do
    works "rm $name" kvasir lvol rm d.img "$name"
done
kvasir lvol ls --json d.img >.out
yes "all space is free again" test "$(field free_bytes)" -ge "$free"
