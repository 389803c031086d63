# SPDX-License-Identifier: Apache-2.0
# Sets up the kernel's own target: a subsystem $nqn on $1 with a disk of $2 MiB, /tmp/nvmet.img.
nvmet_start() {
    local at=/sys/kernel/config/nvmet
    truncate -s "$2M" /tmp/nvmet.img
    mkdir $at/subsystems/$nqn
    echo 1 >$at/subsystems/$nqn/attr_allow_any_host
    mkdir $at/subsystems/$nqn/namespaces/1
    echo -n /tmp/nvmet.img >$at/subsystems/$nqn/namespaces/1/device_path
    echo 1 >$at/subsystems/$nqn/namespaces/1/buffered_io
    echo 1 >$at/subsystems/$nqn/namespaces/1/enable
    mkdir $at/ports/1
    echo tcp >$at/ports/1/addr_trtype
    echo ipv4 >$at/ports/1/addr_adrfam
    echo "$1" >$at/ports/1/addr_traddr
    echo 4420 >$at/ports/1/addr_trsvcid
    ln -s $at/subsystems/$nqn $at/ports/1/subsystems/
}
nvmet_stop() {
    local at=/sys/kernel/config/nvmet
    rm $at/ports/1/subsystems/$nqn
    rmdir $at/ports/1 $at/subsystems/$nqn/namespaces/1 $at/subsystems/$nqn
    rm /tmp/nvmet.img
}
