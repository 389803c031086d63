# SPDX-License-Identifier: Apache-2.0
# The block tests against the kernel's own target inside the guest: shows that the tests ask for
# nothing that is ours alone.
nqn=nqn.2026-11.io.kvasir:nvmet
host=127.0.0.1
port=4420
block_nsid=1
kv_nsid=
block_bytes=$((128 << 20))
# Where it differs: statuses of its own choice, and tmpfs cannot zero a range.
log_refusal=002 feature_refusal=00f range_refusal=081 no_zeroes=yes
at=/sys/kernel/config/nvmet
truncate -s 128M /tmp/nvmet.img
mkdir $at/subsystems/$nqn
echo 1 >$at/subsystems/$nqn/attr_allow_any_host
mkdir $at/subsystems/$nqn/namespaces/1
echo -n /tmp/nvmet.img >$at/subsystems/$nqn/namespaces/1/device_path
echo 1 >$at/subsystems/$nqn/namespaces/1/buffered_io
echo 1 >$at/subsystems/$nqn/namespaces/1/enable
mkdir $at/ports/1
echo tcp >$at/ports/1/addr_trtype
echo ipv4 >$at/ports/1/addr_adrfam
echo $host >$at/ports/1/addr_traddr
echo $port >$at/ports/1/addr_trsvcid
ln -s $at/subsystems/$nqn $at/ports/1/subsystems/
check "nvmet listens" wait_for 5 connect $port
disconnect
. /guest/identify.sh
. /guest/block.sh
