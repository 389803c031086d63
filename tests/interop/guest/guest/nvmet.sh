# SPDX-License-Identifier: Apache-2.0
# The block tests against the kernel's own target inside the guest: shows that the tests ask for
# nothing that is ours alone.
. /guest/foreign.sh
nqn=nqn.2026-11.io.kvasir:nvmet
host=127.0.0.1
port=4420
block_nsid=1
kv_nsid=
block_bytes=$((128 << 20))
# Where it differs: statuses of its own choice, and tmpfs cannot zero a range.
log_refusal=002 feature_refusal=00f range_refusal=081 no_zeroes=yes
nvmet_start $host 128
check "nvmet listens" wait_for 5 connect $port
disconnect
. /guest/identify.sh
. /guest/block.sh
nvmet_stop
