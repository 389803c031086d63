# SPDX-License-Identifier: Apache-2.0
# The CSD dialect and SELECT through nvme io-passthru: a disk (namespace 1) that takes key-value
# commands, and the same objects as a KV namespace (2). The host makes the data and asks the engine
# for the answers; without an engine it says so and only storage is tried.

csd_nsid=1
csd_kv_nsid=2

check "the target starts" ask start csd
dmesg -c >/dev/null
check "connect" connect "$answer"
wait_for 5 test -b "/dev/$(basename "$(ls /dev/nvme*n$csd_nsid 2>/dev/null | head -n 1)")"
disk=$(ls /dev/nvme*n$csd_nsid | head -n 1)
wait_for 5 test -c "$(char_dev $csd_kv_nsid)"
kvdev=$(char_dev $csd_kv_nsid)
name=$(basename "$disk")

# A disk like others, but for writing.
check_eq "the disk is read-only" 1 "$(cat "/sys/block/$name/ro")"
check "it reads" dd if="$disk" of=/tmp/blocks bs=64k count=4 iflag=direct
check_eq "as zeroes" 0 "$(tr -d '\0' </tmp/blocks | wc -c)"
check_eq "the kernel has nothing to complain of" "" "$(dmesg | grep -iE 'error|fail|warn|invalid' | head -n 2)"
check_says "id-ns: write protected" 'nsattr[[:space:]]*: *0*x?1' nvme id-ns "$disk"
check_says "feature 20h: storage and queries" "0x0*3" nvme get-feature "$(ctrl_dev)" -n $csd_nsid -f 0x20

hex() { printf %s "$1" | xxd -p; }
# csd OPCODE KEY CDW11-WITHOUT-LENGTH CDW10 [option...]: the key is a big-endian number.
csd() {
    local op=$1 key=$2 more=$3 dw10=$4 k
    shift 4
    k=$(printf '%-32s' "$(hex "$key")" | tr ' ' 0)
    pass "$disk" $csd_nsid "$op" "$dw10" $((${#key} | more)) --cdw15="0x$(echo "$k" | cut -c 1-8)" \
        --cdw14="0x$(echo "$k" | cut -c 9-16)" --cdw3="0x$(echo "$k" | cut -c 17-24)" --cdw2="0x$(echo "$k" | cut -c 25-32)" "$@"
}
# The same on the KV namespace, with the key in order.
kvc() {
    local op=$1 key=$2 more=$3 dw10=$4 k
    shift 4
    k=$(printf '%-32s' "$(hex "$key")" | tr ' ' 0)
    pass "$kvdev" $csd_kv_nsid "$op" "$dw10" $((${#key} | more)) --cdw2="$(little "$k" 1)" --cdw3="$(little "$k" 9)" \
        --cdw14="$(little "$k" 17)" --cdw15="$(little "$k" 25)" "$@"
}
little() { echo "0x$(echo "$1" | cut -c $(($2 + 6))-$(($2 + 7)))$(echo "$1" | cut -c $(($2 + 4))-$(($2 + 5)))$(echo "$1" | cut -c $(($2 + 2))-$(($2 + 3)))$(echo "$1" | cut -c "$2"-$(($2 + 1)))"; }
pass() { # DEVICE NSID OPCODE CDW10 CDW11 [option...]: $status, $result, /tmp/got
    local dev=$1 nsid=$2 op=$3 dw10=$4 dw11=$5
    shift 5
    nvme io-passthru "$dev" -n "$nsid" --opcode="$op" --cdw10="$dw10" --cdw11="$dw11" "$@" >/tmp/got 2>$out
    code=$?
    status=$(grep -oE '\(0x[0-9a-f]+\)' $out | head -n 1 | tr -d '()')
    result=$(sed -n 's/.*result: *\(0x[0-9a-f]*\).*/\1/p' $out | head -n 1)
    result=$((${result:-0}))
    if [ -z "$status" ]; then
        [ $code = 0 ] && status=0 || status="exit $code"
    fi
}
expect() { # NAME STATUS [RESULT]
    if [ "$2" != "$status" ]; then
        bad "$1: expected $2, got $status"
        return
    fi
    ok "$1"
    [ -z "$3" ] || check_eq "$1: result" "$3" "$result"
}
# A whole object or result into FILE, in pieces of 100,000 bytes with offsets. GET... takes room and offset.
pieces() { # FILE SIZE GET...
    local file=$1 size=$2 off=0 n
    shift 2
    : >"$file"
    while [ $off -lt "$size" ]; do
        n=$((size - off))
        [ $n -gt 100000 ] && n=100000
        "$@" 100000 $off
        [ "$status" = 0 ] || return
        head -c $n /tmp/got >>"$file"
        off=$((off + n))
    done
}
store() { csd 0x81 "$1" "${3:-0}" "$(stat -c %s "$2")" -l "$(stat -c %s "$2")" -w -i "$2"; } # KEY FILE [OPTIONS]
part_of() { csd 0x82 "$object" 0 "$1" --cdw12="$2" -l "$1" -r -b; }

# What the host has put there comes over in pieces, and goes back under another name.
check "the host has made the data" ask data csd
engine=$answer
for object in in.csv in.parquet; do
    [ $engine = engine ] || [ $object = in.csv ] || continue
    csd 0x82 $object 0 0
    expect "size of $object" 0
    size=$result
    pieces "/tmp/$object" "$size" part_of
    expect "retrieve $object, $size bytes in pieces" 0 "$size"
    store "out${object#in}" "/tmp/$object"
    expect "store out${object#in}" 0
    check "the host finds the same bytes under it" ask same csd $object "out${object#in}"
done
object=out.csv
csd 0x82 out.csv 0 0
expect "size of out.csv" 0 "$(stat -c %s /tmp/in.csv)"
store appended /tmp/in.csv
store appended /tmp/in.csv 0x800
expect "append" 0
csd 0x82 appended 0 0
expect "twice as much" 0 $((2 * $(stat -c %s /tmp/in.csv)))
store absent /tmp/in.csv 0x100
expect "update-only store of nothing: 87h" 0x4087
store appended /tmp/in.csv 0x200
expect "add-only store of what is there: 89h" 0x4089
csd 0x14 appended 0 0
expect "exist" 0
csd 0x10 appended 0 0
expect "delete" 0
csd 0x10 appended 0 0
expect "delete of nothing: 87h" 0x4087
csd 0x06 "" 0 4096 -l 4096 -r -b
expect "list" 0
check_eq "NRK is DW0" "$result" $(($(little "$(xxd -p -l 4 /tmp/got)" 1)))
check_eq "the first key" in.csv "$(head -c 12 /tmp/got | tail -c +7)"

# SELECT: a statement, and its result in pieces.
q=/tmp/q.sql
send() { # COMMAND OPCODE KEY INPUT OUTPUT OPTIONS: the statement in $q
    $1 "$2" "$3" $(($4 << 16 | $5 << 24 | $6 << 8)) "$(stat -c %s $q)" -l "$(stat -c %s $q)" -w <$q
}
fetch_csd() { pass "$disk" $csd_nsid 0x86 "$1" 1 --cdw12="$2" --cdw13="$id" -l "$1" -r -b; }
fetch_kv() { pass "$kvdev" $csd_kv_nsid 0x86 "$1" 1 --cdw12="$2" --cdw13="$id" -l "$1" -r -b; }
fetch_old() { pass "$disk" $csd_nsid 0x84 "$1" 1 --cdw12="$2" --cdw13="$id" -l "$1" -r -b; }
# select_is NAME SEND FETCH OPCODE KEY INPUT OUTPUT OPTIONS SQL: the result is what the engine says.
select_is() {
    local name=$1 with=$2 get=$3 op=$4 key=$5 in=$6 to=$7 opts=$8
    printf '%s' "$9" >$q
    send "$with" "$op" "$key" "$in" "$to" "$opts"
    expect "$name: the statement" 0
    id=$result
    $get 1 0
    size=$result
    pieces /tmp/answer "$size" "$get"
    expect "$name: $size bytes in pieces" 0 "$size"
    check "$name: the engine is asked" ask engine csd "$key" "$in" "$to" "$opts" "$(printf %s "$9" | xxd -p | tr -d '\n')"
    check_eq "$name: the same answer" "$answer" "$(sha256sum </tmp/answer | cut -d ' ' -f 1)"
}
if [ $engine = engine ]; then
    all="select * from s3object"
    some="select s_name,s_address,s_city from s3object where s_nation = 'UNITED STATES'"
    select_is "CSV" csd fetch_csd 0x85 out.csv 0 0 3 "$some"
    select_is "CSV, all" csd fetch_csd 0x85 out.csv 0 0 3 "$all"
    select_is "CSV to JSON" csd fetch_csd 0x85 out.csv 0 1 1 "$some;"
    select_is "Parquet" csd fetch_csd 0x85 out.parquet 2 0 2 "select count(*), min(s_name) from x"
    select_is "Parquet, all" csd fetch_csd 0x85 out.parquet 2 0 0 "$all"
    select_is "without header" csd fetch_csd 0x85 out.csv 0 0 0 "select count(*) from s3object"
    select_is "on the KV namespace" kvc fetch_kv 0x85 out.csv 0 0 3 "$some"
    select_is "Parquet on the KV namespace" kvc fetch_kv 0x85 out.parquet 2 1 0 "$some"
    select_is "fetched by the documents' number" csd fetch_old 0x85 out.csv 0 0 3 "$some"
    # Freed by the last piece, or at once; errors with their text.
    pass "$disk" $csd_nsid 0x86 65536 2 --cdw13="$id" --cdw12=$((size - 1)) -l 65536 -r -b
    expect "option 02h and the end is reached" 0 "$size"
    fetch_csd 16 0
    expect "then it is gone: 87h" 0x4087
    printf 'select nosuch from s3object' >$q
    send csd 0x85 out.csv 0 0 1
    expect "a column that is not there: 88h" 0x4088
    send csd 0x85 nosuch 0 0 1
    expect "an object that is not there: 87h" 0x4087
    send csd 0x85 out.csv 3 0 1
    expect "a format that is none: 90h" 0x4090
    printf "select * from read_csv('/etc/passwd')" >$q
    send csd 0x85 out.csv 0 0 1
    expect "another file: 88h" 0x4088
else
    printf 'select 1 from x' >$q
    send csd 0x85 out.csv 0 0 1
    expect "SELECT without an engine: 01h" 0x4001
    say "csd: no engine on the host: SELECT was not tried"
fi
disconnect
ask stop csd
