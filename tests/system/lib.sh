# SPDX-License-Identifier: Apache-2.0
# Sourced by the tests of this directory, which run in an empty directory of their own with
# kvasir and kvasird first in PATH. A check prints "ok" or "not ok" and goes on.
set -u
export LC_ALL=C.UTF-8
ok_count=0 bad_count=0
servers=()

pass() { ok_count=$((ok_count + 1)); echo "ok - $*"; }
fail() {
    bad_count=$((bad_count + 1))
    echo "not ok - $*"
    [ -s .out ] && sed 's/^/#   out: /' .out | head -20
    [ -s .err ] && sed 's/^/#   err: /' .err | head -20
    return 0
}

# run COMMAND...: keeps standard output and error in .out and .err, and the exit code in $rc; what
# takes more than a minute is ended with 124.
run() { timeout 60 "$@" >.out 2>.err; rc=$?; }

# works NAME COMMAND...: exit code 0.
works() {
    local name=$1; shift
    run "$@"
    if [ $rc -eq 0 ]; then pass "$name"; else fail "$name: exit $rc of: $*"; fi
}

# exits CODE NAME COMMAND...: that exit code, and for failures a text on standard error.
exits() {
    local want=$1 name=$2; shift 2
    run "$@"
    if [ $rc -eq "$want" ]; then pass "$name"; else fail "$name: exit $rc, not $want, of: $*"; fi
}

# says FILE TEXT NAME: the file (.out, .err) of the last command has the text.
says() { if grep -qF -- "$2" "$1"; then pass "$3"; else fail "$3: no '$2' in $1"; fi; }
equal() { if [ "$1" = "$2" ]; then pass "$3"; else fail "$3: '$1' is not '$2'"; fi; }
same() { if cmp -s "$1" "$2"; then pass "$3"; else fail "$3: $1 and $2 differ"; fi; }
yes() { local name=$1; shift; if "$@"; then pass "$name"; else fail "$name: $*"; fi; }

# until_works COMMAND...: asks again and again until it does, at most 20 s.
until_works() {
    local i
    for i in $(seq 400); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.05
    done
    return 1
}

# hold FILE: another process has the file of a block device open until let_go; sets $holder.
hold() {
    [ -p holder.fifo ] || mkfifo holder.fifo
    kvasir write "file:$1" holder.fifo 2>/dev/null &
    holder=$!
    exec 6>holder.fifo
    until_works sh -c "kvasir write 'file:$1' /dev/null; test \$? -eq 10"
}
let_go() { exec 6>&-; wait "$holder"; }

# Every line of .out is one JSON object.
json_lines() {
    if [ -s .out ] && python3 -c '
import json, sys
for line in open(".out"):
    assert isinstance(json.loads(line), dict)
' 2>.json_err; then pass "$1"; else fail "$1: not one JSON object a line"; fi
}
# field NAME [LINE]: of the JSON on a line of .out, dots go into objects.
field() {
    python3 -c '
import json, sys
v = json.loads(open(".out").read().splitlines()[int(sys.argv[2]) - 1])
for part in sys.argv[1].split("."):
    v = v[int(part)] if isinstance(v, list) else v[part]
print(v)' "$1" "${2:-1}"
}

# serve NAME COMMAND...: starts a daemon, waits until it listens; sets $pid and $addr. Its output is
# in NAME.log.
serve() {
    local name=$1 i; shift
    : >"$name.log"
    "$@" >"$name.log" 2>"$name.err" &
    pid=$!
    servers+=("$pid")
    addr=
    for i in $(seq 200); do
        addr=$(sed -n 's/^listening \([^ ]*\) .*/\1/p; s/.*"listening":"\([^"]*\)".*/\1/p' "$name.log" | head -1)
        [ -n "$addr" ] && return 0
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.05
    done
    fail "$name does not listen"
    sed 's/^/#   /' "$name.err"
    return 1
}

# stop PID: SIGTERM, waits at most 10 s; $rc is its exit code.
stop() {
    local i
    kill -TERM "$1" 2>/dev/null
    for i in $(seq 200); do
        kill -0 "$1" 2>/dev/null || { wait "$1"; rc=$?; return; }
        sleep 0.05
    done
    kill -KILL "$1"
    wait "$1"
    rc=killed
}

rss_kib() { awk '/^VmHWM/ {print $2}' "/proc/$1/status"; }

finish() {
    local p
    for p in "${servers[@]:-}"; do
        [ -n "$p" ] && kill -0 "$p" 2>/dev/null && kill -KILL "$p" 2>/dev/null
    done
    echo "$ok_count passed, $bad_count failed"
    [ $bad_count -eq 0 ]
}
trap finish EXIT
