# SPDX-License-Identifier: Apache-2.0
# The guest itself: it runs, its tools start, the host answers.
check_says "nvme-cli runs" "nvme version" nvme version
check_says "fio runs" "fio-3" fio --version
check "the network is up" ip addr show eth0
check "the host answers questions" ask nothing
