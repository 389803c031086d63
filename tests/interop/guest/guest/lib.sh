# SPDX-License-Identifier: Apache-2.0
# What the tests in the guest share. A test is a script that calls `check NAME COMMAND...` and
# friends; each prints one line "@ ok NAME" or "@ FAIL NAME" to the host, with what the command
# said after a failure. Everything is also on the console, in build/guest/NAME.console.

host=10.0.2.2 # QEMU's name for the host's loopback
nqn=${nqn:-nqn.2026-11.io.kvasir:default}
out=/tmp/out

say() { echo "@ $*" >&3; }
ok() { say "ok $*"; echo "ok $*"; }
bad() {
    say "FAIL $*"
    echo "FAIL $*"
    [ -s $out ] && head -c 2000 $out | sed 's/^/| /' >&3
    dmesg -c | tail -n 3 | sed 's/^/dmesg| /' >&3
    return 1
}

# Runs a program for a minute at most; our own functions as they are.
limited() {
    case $1 in
    ask|connect|wait_for) "$@" ;;
    *) timeout 90 "$@" ;;
    esac
}

# check NAME COMMAND...: the command succeeds within a minute. Its output is in $out.
check() {
    local name=$1
    shift
    if limited "$@" >$out 2>&1; then ok "$name"; else bad "$name: $* exits with $?"; fi
}
# check_says NAME REGEX COMMAND...: it succeeds and prints a line that matches.
check_says() {
    local name=$1 re=$2
    shift 2
    if limited "$@" >$out 2>&1 && grep -qiE -e "$re" $out; then ok "$name"; else bad "$name: $* does not print /$re/"; fi
}
# check_fails NAME REGEX COMMAND...: it does not succeed, and prints a line that matches.
check_fails() {
    local name=$1 re=$2
    shift 2
    if limited "$@" >$out 2>&1; then bad "$name: $* succeeds"; return 1; fi
    if grep -qiE -e "$re" $out; then ok "$name"; else bad "$name: $* does not print /$re/"; fi
}
# check_eq NAME EXPECTED GOT
check_eq() {
    echo "expected $2, got $3" >$out
    if [ "$2" = "$3" ]; then ok "$1"; else bad "$1"; fi
}

# wait_for SECONDS COMMAND...: until it succeeds.
wait_for() {
    local tries=$(($1 * 5))
    shift
    while [ $tries -gt 0 ]; do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.2
        tries=$((tries - 1))
    done
    return 1
}

# ask WORD...: has the host do something (run: answer) and returns when it has, with what it says
# in $answer.
ask() {
    local verdict
    say "ask $*"
    read -r -t 60 verdict answer <&3
    [ "$verdict" = "done" ]
}

connect() { # connect PORT [option...]
    local at=$1
    shift
    nvme connect -t tcp -a $host -s "$at" -n "$nqn" "$@"
}
disconnect() { nvme disconnect -n "$nqn" >/dev/null 2>&1; }

# Names of what is connected: nvme0n1 or, with native multipath, the head of the same form.
block_dev() { ls /dev/nvme*n"$block_nsid" 2>/dev/null | head -n 1; }
# The controller; its number and that of the disk differ with native multipath.
ctrl_dev() { ls /sys/class/nvme 2>/dev/null | sed -n '1s:^:/dev/:p'; }
char_dev() { ls /dev/ng*n"$1" 2>/dev/null | head -n 1; }
