# SPDX-License-Identifier: Apache-2.0
# The other way round: our initiator (on the host: `run`, foreign()) uses the kernel's target, and what
# it wrote is in the file behind that.
. /guest/foreign.sh
nqn=nqn.2026-11.io.kvasir:foreign
nvmet_start 0.0.0.0 64
check "the host's initiator is done" ask foreign
sync
sum=$(head -c 16777216 /tmp/nvmet.img | sha256sum | cut -d ' ' -f 1)
check_eq "what it wrote is in the target's file" "$answer" "$sum"
nvmet_stop
