# SPDX-License-Identifier: Apache-2.0
# A file system, the commands below it, and fio's own verification, on the block namespace.

check "connect" connect "$port"
wait_for 5 test -b "$(block_dev)"
disk=$(block_dev)
name=$(basename "$disk")
ctrl=$(ctrl_dev)

check "mkfs.ext4" mkfs.ext4 -q -F "$disk"
check "mount" mount -t ext4 "$disk" /mnt
head -c 20000000 /dev/urandom >/mnt/data
mkdir /mnt/small
i=0
while [ $i -lt 200 ]; do
    echo "file $i" >/mnt/small/$i
    i=$((i + 1))
done
sum=$(sha256sum </mnt/data)
check "sync" sync
check "umount" umount /mnt
check "fsck" e2fsck -fn "$disk"
check "disconnect" nvme disconnect -n "$nqn"
check "connect again, with digests" connect "$port" --hdr-digest --data-digest
wait_for 5 test -b "$(block_dev)"
disk=$(block_dev)
check "fsck again" e2fsck -fn "$disk"
check "mount again" mount -t ext4 "$disk" /mnt
check_eq "the same 20 MB" "$sum" "$(sha256sum </mnt/data)"
check_eq "the same 200 files" "file 199" "$(cat /mnt/small/199)"
check "fstrim" fstrim /mnt
check_eq "the same 20 MB after fstrim" "$sum" "$(echo 3 >/proc/sys/vm/drop_caches; sha256sum </mnt/data)"
check "umount" umount /mnt
check "fsck after fstrim" e2fsck -fn "$disk"

# fio: random writes of mixed sizes at depth 16, then all read back and compared.
check "fio verify" fio --name=v --filename="$disk" --ioengine=io_uring --direct=1 --rw=randwrite \
    --bsrange=4k-256k --iodepth=16 --size=48M --offset=64M --verify=crc32c --verify_fatal=1 --do_verify=1 --output=/tmp/fio
check_eq "fio reports no error" 1 "$(grep -c 'err= 0' /tmp/fio)"

# Zeroes, deallocation, flush, compare, and what lies outside.
head -c 65536 /dev/urandom >/tmp/r
dd if=/tmp/r of="$disk" bs=64k count=1 seek=32 oflag=direct 2>/dev/null
bs=$(blockdev --getss "$disk")
lba=$((32 * 65536 / bs))
if [ -z "$no_zeroes" ]; then
    check "write-zeroes" nvme write-zeroes "$disk" -s $((lba + 32768 / bs)) -c $((16384 / bs - 1))
    { head -c 32768 /tmp/r; head -c 16384 /dev/zero; tail -c 16384 /tmp/r; } >/tmp/expect
    dd if="$disk" of=/tmp/got bs=64k count=1 skip=32 iflag=direct 2>/dev/null
    check "exactly that range is zero" cmp /tmp/expect /tmp/got
fi
check "dsm deallocate" nvme dsm "$disk" -d -s $lba -b $((65536 / bs))
dd if="$disk" of=/tmp/got bs=64k count=1 skip=32 iflag=direct 2>/dev/null
check "a deallocated range reads" test -s /tmp/got
check "flush" nvme flush "$disk" -n "$block_nsid"
if nvme id-ctrl "$ctrl" 2>/dev/null | grep -qE "oncs *: *0x[0-9a-f]*[13579bdf]$"; then
    dd if=/tmp/r of="$disk" bs=64k count=1 seek=32 oflag=direct 2>/dev/null
    check "compare equal" nvme compare "$disk" -s $lba -c $((65536 / bs - 1)) -z 65536 -d /tmp/r
    check_fails "compare unequal is refused" "\(0x[0246]285\)" \
        nvme compare "$disk" -s $lba -c $((65536 / bs - 1)) -z 65536 -d /tmp/expect
fi
beyond=$(($(cat "/sys/block/$name/size") * 512 / bs))
check_fails "a read past the end is refused" "\(0x[46]${range_refusal:-080}\)" nvme read "$disk" -s "$beyond" -c 0 -z "$bs"
check_fails "a read across the end is refused" "\(0x[46]${range_refusal:-080}\)" nvme read "$disk" -s $((beyond - 1)) -c 1 -z $((bs * 2))
check_fails "a write past the end is refused" "\(0x[46]${range_refusal:-080}\)" nvme write "$disk" -s "$beyond" -c 0 -z "$bs" -d /tmp/r
check_fails "an unknown command is refused" "\(0x[46]001\)" nvme io-passthru "$disk" -o 0xd4 -n "$block_nsid"
check "a large read (4 MiB)" dd if="$disk" of=/dev/null bs=4M count=4 iflag=direct
check "disconnect" nvme disconnect -n "$nqn"
