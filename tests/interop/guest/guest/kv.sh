# SPDX-License-Identifier: Apache-2.0
# The Key Value command set through nvme io-passthru: each command, each option, each refusal.
# Statuses are the specification's; the kernel reports them with the Do Not Retry bit as 0x40xx.

check "connect" connect "$port"
wait_for 5 test -c "$(char_dev "$kv_nsid")"
kvdev=$(char_dev "$kv_nsid")

head -c 1048576 /dev/urandom >/tmp/random
hex() { printf %s "$1" | xxd -p; }

# kv OPCODE KEYHEX KEYLEN OPTIONS CDW10 [passthru option...]: sets $status (0, or 0x4087 and the
# like) and $result (DW0, decimal). Data read is in /tmp/got.
kv() {
    local op=$1 key=$2 klen=$3 so=$4 dw10=$5 k
    shift 5
    k=$(printf '%-32s' "$key" | tr ' ' 0)
    nvme io-passthru "$kvdev" -n "$kv_nsid" --opcode=$op --cdw2="$(dword "$k" 1)" --cdw3="$(dword "$k" 9)" \
        --cdw14="$(dword "$k" 17)" --cdw15="$(dword "$k" 25)" --cdw10="$dw10" --cdw11=$((klen | so << 8)) \
        "$@" >/tmp/got 2>$out
    code=$?
    status=$(grep -oE '\(0x[0-9a-f]+\)' $out | head -n 1 | tr -d '()')
    result=$(sed -n 's/.*result: *\(0x[0-9a-f]*\).*/\1/p' $out | head -n 1)
    result=$((${result:-0}))
    if [ -z "$status" ]; then
        [ $code = 0 ] && status=0 || status="exit $code"
    fi
}
# Four bytes of hexadecimal digits from position $2 as a little-endian dword.
dword() { echo "0x$(echo "$1" | cut -c $(($2 + 6))-$(($2 + 7)))$(echo "$1" | cut -c $(($2 + 4))-$(($2 + 5)))$(echo "$1" | cut -c $(($2 + 2))-$(($2 + 3)))$(echo "$1" | cut -c "$2"-$(($2 + 1)))"; }
klen() { echo $((${#1} / 2)); }

store() { # KEYHEX FILE [OPTIONS]
    local n
    n=$(stat -c %s "$2")
    if [ "$n" = 0 ]; then
        kv 0x01 "$1" "$(klen "$1")" "${3:-0}" 0
    else
        kv 0x01 "$1" "$(klen "$1")" "${3:-0}" "$n" -l "$n" -w -i "$2"
    fi
}
retrieve() { kv 0x02 "$1" "$(klen "$1")" 0 "$2" -l "$2" -r -b; } # KEYHEX BUFFER
exist() { kv 0x14 "$1" "$(klen "$1")" 0 0; }
delete() { kv 0x10 "$1" "$(klen "$1")" 0 0; }
list() { kv 0x06 "$1" "$(klen "$1")" 0 "$2" -l "$2" -r -b; } # START BUFFER

expect() { # NAME STATUS [RESULT]
    if [ "$2" != "$status" ]; then
        bad "$1: expected $2, got $status"
        return
    fi
    ok "$1"
    [ -z "$3" ] || check_eq "$1: result" "$3" "$result"
}

hello=$(hex hello)
echo -n world >/tmp/world
store "$hello" /tmp/world
expect "store" 0
exist "$hello"
expect "exist" 0
retrieve "$hello" 4096
expect "retrieve" 0 5
check_eq "retrieve: the value" world "$(head -c 5 /tmp/got)"
check_eq "retrieve: nothing after it" 0 "$(tail -c +6 /tmp/got | tr -d '\0' | wc -c)"
retrieve "$hello" 5
expect "retrieve into exactly enough" 0 5
check_eq "retrieve: the whole value" world "$(cat /tmp/got)"
retrieve "$hello" 2
expect "retrieve into too little: success and the full size" 0 5
check_eq "retrieve: the first two bytes" wo "$(cat /tmp/got)"
kv 0x02 "$hello" 5 0 0
expect "retrieve into nothing: the size" 0 5

# Overwriting, options.
echo -n "another world" >/tmp/v2
store "$hello" /tmp/v2
expect "store replaces" 0
retrieve "$hello" 64
expect "retrieve the new one" 0 13
check_eq "the new value" "another world" "$(head -c 13 /tmp/got)"
store "$hello" /tmp/world 2
expect "add-only store of a key that is there: 89h" 0x4089
retrieve "$hello" 64
expect "and nothing changed" 0 13
store "$(hex fresh)" /tmp/world 1
expect "update-only store of a key that is not there: 87h" 0x4087
exist "$(hex fresh)"
expect "and it is still not there: 87h" 0x4087
store "$(hex fresh)" /tmp/world 2
expect "add-only store of a new key" 0
store "$(hex fresh)" /tmp/v2 1
expect "update-only store of a present key" 0
store "$(hex fresh)" /tmp/v2 3
expect "both options: 02h" 0x4002
store "$(hex fresh)" /tmp/v2 4
expect "the compression hint is no matter" 0
: >/tmp/empty
store "$(hex empty)" /tmp/empty
expect "store of nothing" 0
retrieve "$(hex empty)" 64
expect "retrieve of nothing" 0 0

# Binary keys: length counts, bytes are unsigned, all sixteen.
for key in 00 0000 ff 61 6100 000102030405060708090a0b0c0d0e0f fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0 2f2e2e2f 0a; do
    echo -n "value of $key" >/tmp/v
    store $key /tmp/v
    expect "store under 0x$key" 0
done
for key in 00 0000 ff 61 6100 000102030405060708090a0b0c0d0e0f fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0 2f2e2e2f 0a; do
    retrieve $key 64
    check_eq "retrieve under 0x$key" "value of $key" "$(head -c "$result" /tmp/got)"
done
kv 0x02 61ffffffff 1 0 64 -l 64 -r -b
check_eq "bytes past the key's length do not count" "value of 61" "$(head -c "$result" /tmp/got)"

# The list: entries are a length of two bytes, the key, zeroes to a multiple of four.
keys_of() { # prints the keys of /tmp/got in hexadecimal, one a line
    local h n at=8 l i=0
    h=$(xxd -p /tmp/got | tr -d '\n')
    n=$(($(dword "$h" 1)))
    while [ $i -lt $n ]; do
        l=$((0x$(echo "$h" | cut -c $((at + 3))-$((at + 4)))$(echo "$h" | cut -c $((at + 1))-$((at + 2)))))
        echo "$h" | cut -c $((at + 5))-$((at + 4 + l * 2))
        at=$((at + ((2 + l + 3) / 4 * 4) * 2))
        i=$((i + 1))
    done
}
list "" 4096
expect "list" 0
keys_of >/tmp/keys
echo "00 0000 000102030405060708090a0b0c0d0e0f 0a 2f2e2e2f 61 6100 $(hex empty) $(hex fresh) $hello ff fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0" | tr ' ' '\n' | sort >/tmp/want
check_eq "list: each key once" "$(cat /tmp/want)" "$(sort /tmp/keys)"
check_eq "list: in the order of bytes" "$(cat /tmp/want)" "$(cat /tmp/keys)"
list 61 4096
check_eq "list from a key that is there" "$(sed -n '/^61$/,$p' /tmp/want)" "$(keys_of)"
list 6101 4096
check_eq "list from a key that is not there: the next" "$(sed -n '/^'"$(hex empty)"'$/,$p' /tmp/want)" "$(keys_of)"
list fffefdfcfbfaf9f8f7f6f5f4f3f2f1f1 4096
check_eq "list from beyond the last" "" "$(keys_of)"
list "" 32
check_eq "a small buffer takes whole entries only" "$(head -n 3 /tmp/want)" "$(keys_of)"
# All of them by pages of 40 bytes, each from the last key of the one before.
start="" pages=0
: >/tmp/paged
while [ $pages -lt 30 ]; do
    list "$start" 40
    keys_of | grep -vx "$start" >/tmp/page || break
    cat /tmp/page >>/tmp/paged
    start=$(tail -n 1 /tmp/page)
    pages=$((pages + 1))
done
check_eq "list by pages: each key once" "$(cat /tmp/want)" "$(cat /tmp/paged)"

# Large values; the kernel splits them into H2CData as it likes.
for size in 4095 4096 4097 8192 131072 1048576 1048577 3000001 4194304; do
    head -c $size /dev/urandom >/tmp/big
    store "$(hex big)" /tmp/big
    expect "store of $size bytes" 0
    retrieve "$(hex big)" $(((size + 4095) / 4096 * 4096))
    expect "retrieve of $size bytes" 0 $size
    check_eq "the same $size bytes" "$(sha256sum </tmp/big)" "$(head -c $size /tmp/got | sha256sum)"
done
retrieve "$(hex big)" 1048576
expect "the first MiB of 4" 0 4194304
check_eq "the same first MiB" "$(head -c 1048576 /tmp/big | sha256sum)" "$(sha256sum </tmp/got)"
store "$(hex big)" /tmp/big 2
expect "add-only store of 4 MiB under a present key: 89h" 0x4089

# Refusals.
retrieve "$(hex absent)" 64
expect "retrieve of a key that is not there: 87h" 0x4087
exist "$(hex absent)"
expect "exist of a key that is not there: 87h" 0x4087
delete "$(hex absent)"
expect "delete of a key that is not there" 0
kv 0x01 "" 0 0 5 -l 5 -w -i /tmp/world
expect "store without key: 86h" 0x4086
kv 0x02 "" 0 0 64 -l 64 -r -b
expect "retrieve without key: 86h" 0x4086
kv 0x10 "" 0 0 0
expect "delete without key: 86h" 0x4086
kv 0x14 "" 0 0 0
expect "exist without key: 86h" 0x4086
kv 0x01 "$hello" 17 0 5 -l 5 -w -i /tmp/world
expect "store with a key of 17 bytes: 86h" 0x4086
kv 0x02 "$hello" 255 0 64 -l 64 -r -b
expect "retrieve with a key of 255 bytes: 86h" 0x4086
kv 0x01 "$hello" 5 0 4096 -l 5 -w -i /tmp/world
expect "a value larger than the data sent: 0Fh" 0x400f
kv 0x02 "$hello" 5 0 4096 -l 64 -r -b
expect "a buffer larger than the transfer: 0Fh" 0x400f
kv 0x01 "$hello" 5 0 5 -l 13 -w -i /tmp/v2
expect "more data than the value: its first bytes" 0
retrieve "$hello" 64
check_eq "the first five bytes" "anoth" "$(head -c "$result" /tmp/got)"
kv 0x03 "$hello" 5 0 0
expect "an unknown command: 01h" 0x4001
kv 0x06 "" 0 0 2 -l 4 -r -b
expect "a list into less than four bytes: 02h" 0x4002
kv 0x06 "" 17 0 64 -l 64 -r -b
expect "a list from a key of 17 bytes: 86h" 0x4086

delete "$hello"
expect "delete" 0
exist "$hello"
expect "and it is gone: 87h" 0x4087
retrieve "$hello" 64
expect "retrieve after delete: 87h" 0x4087
list "" 4096
check_eq "and no longer listed" "" "$(keys_of | grep -x "$hello")"

# Delete of an absent key as an error, when the host asks for it (feature 20h, EDNEK).
ctrl=$(ctrl_dev)
check "set EDNEK" nvme set-feature "$ctrl" -n "$kv_nsid" -f 0x20 -v 1
delete "$hello"
expect "delete of a key that is not there, with EDNEK: 87h" 0x4087
check "clear EDNEK" nvme set-feature "$ctrl" -n "$kv_nsid" -f 0x20 -v 0
kv 0x00 "" 0 0 0
expect "flush" 0

# With digests, and what was stored is still there on a new connection.
check "disconnect" nvme disconnect -n "$nqn"
check "connect again, with digests" connect "$port" --hdr-digest --data-digest
wait_for 5 test -c "$(char_dev "$kv_nsid")"
kvdev=$(char_dev "$kv_nsid")
retrieve "$(hex big)" 4194304
expect "retrieve 4 MiB with digests" 0 4194304
check_eq "the same 4 MiB" "$(sha256sum </tmp/big)" "$(sha256sum </tmp/got)"
store "$(hex big)" /tmp/random
expect "store 1 MiB with digests" 0
retrieve "$(hex big)" 1048576
check_eq "the same MiB" "$(sha256sum </tmp/random)" "$(head -c "$result" /tmp/got | sha256sum)"
disconnect
