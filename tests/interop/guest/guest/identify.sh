# SPDX-License-Identifier: Apache-2.0
# Discovery, connections with and without digests, and what nvme-cli reads about the controller and
# its namespaces. Wants $port, $block_nsid, $block_bytes, and $kv_nsid where there is one. Statuses are compared with
# the Do Not Retry bit and with or without the More bit: 0x4xxx, 0x6xxx.

check_says "discover names the subsystem" "subnqn: +$nqn" nvme discover -t tcp -a $host -s "$port"
check_says "discover names the transport" "trtype: +tcp" nvme discover -t tcp -a $host -s "$port"
check_fails "a subsystem that is not there is refused" "failed|could not|invalid" \
    nvme connect -t tcp -a $host -s "$port" -n nqn.2026-11.io.kvasir:absent
check_says "the kernel is told which parameter" 'Connect Invalid Data Parameter, subsysnqn "nqn.2026-11.io.kvasir:absent"' dmesg

for digests in "" "--hdr-digest" "--data-digest" "--hdr-digest --data-digest"; do
    what="with ${digests:-no digest}"
    # shellcheck disable=SC2086
    check "connect $what" connect "$port" $digests
    wait_for 5 test -b "$(block_dev)"
    disk=$(block_dev)
    head -c 1048576 /dev/urandom >/tmp/random
    check "write $what" dd if=/tmp/random of="$disk" bs=128k oflag=direct
    check "read $what" dd if="$disk" of=/tmp/back bs=256k count=4 iflag=direct
    check "same bytes $what" cmp /tmp/random /tmp/back
    check "disconnect $what" nvme disconnect -n "$nqn"
done

check "connect" connect "$port"
wait_for 5 test -b "$(block_dev)"
disk=$(block_dev)
ctrl=$(ctrl_dev)
name=$(basename "$disk")

check_says "list shows the disk" "^$disk .*" nvme list
check_eq "the disk has its size" "$block_bytes" $(($(cat "/sys/block/$name/size") * 512))
check_says "id-ctrl: subsystem" "subnqn *: *$nqn" nvme id-ctrl "$ctrl"
check_says "id-ctrl: an I/O controller" "cntrltype *: *1" nvme id-ctrl "$ctrl"
check_says "id-ctrl: queue entry sizes" "sqes *: *0x66" nvme id-ctrl "$ctrl"
check_says "id-ctrl: in-capsule data starts at 0" "icdoff *: *0" nvme id-ctrl "$ctrl"
check_says "id-ns" "nsze *: *0x[1-9a-f]" nvme id-ns "$disk"
check_says "id-ns: a format in use" "lbads:(9|12) .*in use" nvme id-ns "$disk"
check_says "ns-descs: uuid or nguid" "uuid|nguid" nvme ns-descs "$disk"
check_says "list-ns" ":0x$block_nsid" nvme list-ns "$ctrl"
check_says "smart-log" "critical_warning\s*: *0" nvme smart-log "$ctrl"
check_says "effects-log: Write" "IOCS1 .*Write" nvme effects-log "$ctrl" --csi=0
check_says "get-feature: queues" "Current value" nvme get-feature "$ctrl" -f 7
check_says "get-feature: keep alive" "Current value" nvme get-feature "$ctrl" -f 0xf
check_says "CSTS: ready" ": *0*1$" nvme get-property "$ctrl" -o 0x1c
check_fails "an unknown log page is refused" "\(0x[46]${log_refusal:-109}\)" nvme get-log "$ctrl" --log-id=0xc5 --log-len=512
check_fails "an unknown feature is refused" "\(0x[46]${feature_refusal:-002}\)" nvme get-feature "$ctrl" -f 0x7f
check_fails "an unknown admin command is refused" "\(0x[46]001\)" nvme admin-passthru "$ctrl" -o 0xc4
check "reset" nvme reset "$ctrl"
check "the disk answers after a reset" dd if="$disk" of=/dev/null bs=4k count=16 iflag=direct

if [ -n "$kv_nsid" ]; then
    wait_for 5 test -c "$(char_dev "$kv_nsid")"
    kvdev=$(char_dev "$kv_nsid")
    check_says "ns-descs of the KV namespace: command set 1" "csi *: *0x1$" nvme ns-descs "$kvdev"
    check_says "ns-descs of the disk: command set 0" "csi *: *0$" nvme ns-descs "$disk"
    check_says "cmdset-ind-id-ns of the KV namespace: ready" "nstat *: *0*x?1" nvme cmdset-ind-id-ns "$kvdev" -n "$kv_nsid"
    check_says "cmdset-ind-id-ns of the disk: ready" "nstat *: *0*x?1" nvme cmdset-ind-id-ns "$disk" -n "$block_nsid"
    check_says "list-ns of command set 1" ":0x$kv_nsid" nvme list-ns "$ctrl" --csi=1
    check_says "effects-log of command set 1: Store" "IOCS1 " nvme effects-log "$ctrl" --csi=1
    check_says "effects-log of command set 1: Exist" "IOCS20 " nvme effects-log "$ctrl" --csi=1
    check_says "id-iocs: NVM and KV" "Combination\[0\]: *(0x)?3$" nvme id-iocs "$ctrl"
    check_eq "no disk for the KV namespace" "" "$(ls /dev/nvme*n"$kv_nsid" 2>/dev/null)"

    # Identify Namespace of command set 1 (CNS 05h): key length and value size of format 0.
    check "KV identify" nvme admin-passthru "$ctrl" -o 6 -n "$kv_nsid" --cdw10=5 --cdw11=0x01000000 -l 4096 -r -b
    nvme admin-passthru "$ctrl" -o 6 -n "$kv_nsid" --cdw10=5 --cdw11=0x01000000 -l 4096 -r -b >/tmp/id 2>/dev/null
    check_eq "KV format 0: keys of 16, values to 2^32 - 1 bytes" "1000 ffffffff" \
        "$(xxd -p -s 72 -l 2 /tmp/id) $(xxd -p -s 76 -l 4 /tmp/id)"
fi
disconnect
