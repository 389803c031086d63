# SPDX-License-Identifier: Apache-2.0
# The target is killed (SIGKILL) and started again under load, three times: the kernel reconnects,
# fio finds every byte it wrote, and no Store that was acknowledged is lost. Then the client is the one that stops.

ask start durable
port=$answer
check "connect" connect "$port" --reconnect-delay=1 --ctrl-loss-tmo=120 --keep-alive-tmo=2
wait_for 5 test -b "$(block_dev)"
wait_for 5 test -c "$(char_dev "$kv_nsid")"
disk=$(block_dev)
kvdev=$(char_dev "$kv_nsid")

fio --name=r --filename="$disk" --ioengine=io_uring --direct=1 --rw=randwrite --bsrange=4k-64k --iodepth=16 \
    --size=80M --verify=crc32c --verify_fatal=1 --do_verify=1 --rate=2m >/tmp/fio 2>&1 &
fio=$!
# Keys 00000000, 00000001, ...: the value is the key; those acknowledged are noted.
(
    i=0
    while [ ! -f /tmp/stop ]; do
        key=$(printf %08d $i)
        echo -n "$key" >/tmp/kvalue
        k=$(echo -n "$key" | xxd -p)
        timeout 20 nvme io-passthru "$kvdev" -n "$kv_nsid" --opcode=1 --cdw10=8 --cdw11=8 -l 8 -w -i /tmp/kvalue \
            --cdw2="0x$(echo "$k" | sed 's/\(..\)\(..\)\(..\)\(..\).*/\4\3\2\1/')" \
            --cdw3="0x$(echo "$k" | sed 's/........\(..\)\(..\)\(..\)\(..\)/\4\3\2\1/')" >/dev/null 2>&1 &&
            echo "$key" >>/tmp/acked
        i=$((i + 1))
    done
) &
storer=$!

for round in 1 2 3; do
    sleep 3
    check_eq "fio is at work before kill $round" 0 "$(kill -0 $fio; echo $?)"
    check "kill $round" ask kill durable
    sleep 1
    check "start again $round" ask start durable
    check_eq "the same port after kill $round" "$port" "$answer"
    check "the kernel reconnects after kill $round" wait_for 20 grep -qx live /sys/class/nvme/nvme*/state
done
# Not the target but the whole client stops for longer than its keep-alive time-out of 2 s: the target ends its
# connections, and the client comes back and goes on.
check "the client stands still for 6 s" ask freeze 6
check "the kernel reconnects after that" wait_for 20 grep -qx live /sys/class/nvme/nvme*/state
check "fio is still at work" kill -0 $fio
sleep 2
touch /tmp/stop
wait $fio
code=$?
cp /tmp/fio $out
if [ $code = 0 ]; then ok "fio wrote and verified everything"; else bad "fio exits with $code"; fi
wait $storer

lost=0
while read -r key; do
    k=$(echo -n "$key" | xxd -p)
    got=$(timeout 20 nvme io-passthru "$kvdev" -n "$kv_nsid" --opcode=2 --cdw10=8 --cdw11=8 -l 8 -r -b \
        --cdw2="0x$(echo "$k" | sed 's/\(..\)\(..\)\(..\)\(..\).*/\4\3\2\1/')" \
        --cdw3="0x$(echo "$k" | sed 's/........\(..\)\(..\)\(..\)\(..\)/\4\3\2\1/')" 2>$out)
    [ "$got" = "$key" ] || { lost=$((lost + 1)); echo "lost $key: $got"; }
done </tmp/acked
say "note $(wc -l </tmp/acked) stores acknowledged"
check "some stores were acknowledged" test "$(wc -l </tmp/acked)" -gt 5
check_eq "none of the acknowledged stores is lost" 0 $lost
check "disconnect" nvme disconnect -n "$nqn"
