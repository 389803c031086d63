# SPDX-License-Identifier: Apache-2.0
# kvasird: configuration, signals, identity.
. "$KVASIR_TESTS/lib.sh"
nqn=nqn.2026-11.io.kvasir:test

config() { # config NAME: the methods of standard input, in one subsystem
    { echo '{"subsystems": [{"subsystem": "all", "config": ['; cat; echo ']}]}'; } >"$1"
}

exits 2 "without a configuration" kvasird
says .err "-c FILE" "it says what is missing"
exits 2 "no such file" kvasird -c nosuch.json
says .err "nosuch.json" "it names the file"
echo '{"subsystems": [' >bad.json
exits 2 "no JSON" kvasird -c bad.json
says .err "line 2" "it names the line"
echo '[]' >bad.json
exits 2 "another form" kvasird -c bad.json
config bad.json <<<'{"method": "bdev_wait_for_examine"}, {"method": "bdev_frobnicate", "params": {}}'
exits 2 "an unknown method" kvasird -c bad.json
says .err "bdev_frobnicate" "it names the method"
says .err "config[1]" "and its place"
config bad.json <<<'{"method": "kvdev_create", "params": {"name": "a", "uri": "mem:", "colour": "blue"}}'
exits 2 "an unknown parameter" kvasird -c bad.json
says .err "'colour'" "it names it"
config bad.json <<<'{"method": "kvdev_create", "params": {"name": "a"}}'
exits 2 "a missing parameter" kvasird -c bad.json
says .err "'uri'" "it names it"
config bad.json <<<'{"method": "kvdev_create", "params": {"name": 1, "uri": "mem:"}}'
exits 2 "a parameter of another type" kvasird -c bad.json
config bad.json <<<'{"method": "nvmf_create_transport", "params": {"trtype": "RDMA"}}'
exits 1 "another transport" kvasird -c bad.json
says .err "Invalid transport type 'RDMA'" "is refused as SPDK does"
config bad.json <<<'{"method": "kvdev_create", "params": {"name": "a", "uri": "mem:"}},
  {"method": "kvdev_create", "params": {"name": "a", "uri": "mem:"}}'
exits 1 "a name twice" kvasird -c bad.json
exits 2 "an unknown option" kvasird --colour
exits 2 "an argument" kvasird -c bad.json extra
works "--version" kvasird --version
works "--help" kvasird --help

head -c 32M /dev/zero >disk.img
mkdir -p objects
config good.json <<EOT
  {"method": "nvmf_create_subsystem", "params": {"nqn": "$nqn", "serial_number": "SN1", "model_number": "Test model"}},
  {"method": "nvmf_create_transport", "params": {"trtype": "TCP", "in_capsule_data_size": 16384, "zcopy": false}},
  {"method": "bdev_malloc_create", "params": {"num_blocks": 8192, "block_size": 512, "name": "Malloc0"}},
  {"method": "bdev_aio_create", "params": {"name": "aio", "filename": "disk.img", "block_size": 4096}},
  {"method": "bdev_kvasir_create", "params": {"name": "own", "uri": "mem:?size=8M"}},
  {"method": "bdev_wait_for_examine"},
  {"method": "kvdev_create", "params": {"name": "demo", "uri": "dir:objects"}},
  {"method": "nvmf_subsystem_add_ns", "params": {"nqn": "$nqn", "namespace": {"bdev_name": "Malloc0", "nsid": 5,
    "uuid": "01234567-89ab-cdef-0123-456789abcdef"}}},
  {"method": "nvmf_subsystem_add_ns", "params": {"nqn": "$nqn", "namespace": {"bdev_name": "aio"}}},
  {"method": "nvmf_subsystem_add_ns", "params": {"nqn": "$nqn", "namespace": {"bdev_name": "own"}}},
  {"method": "nvmf_subsystem_add_kv_ns", "params": {"nqn": "$nqn", "namespace": {"kvdev_name": "demo"}}},
  {"method": "nvmf_subsystem_add_host", "params": {"nqn": "$nqn", "host": "nqn.2026-11.test:friend"}},
  {"method": "nvmf_subsystem_add_listener", "params": {"nqn": "$nqn", "listen_address":
    {"trtype": "tcp", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": "0"}}},
  {"method": "nvmf_create_subsystem", "params": {"nqn": "$nqn:second", "allow_any_host": true}},
  {"method": "nvmf_subsystem_add_ns", "params": {"nqn": "$nqn:second", "namespace": {"bdev_name": "own"}}}
EOT
works "--check" kvasird -c good.json --check
yes "opens nothing" test ! -e objects/0
serve good kvasird -c good.json --pid-file pid || exit
equal "$(cat pid)" "$pid" "the pid file"
friend="hostnqn=nqn.2026-11.test:friend"
works "identify" kvasir identify --json "nvme+tcp://$addr/$nqn" --host nqn.2026-11.test:friend
equal "$(field controller.serial) $(field controller.model)" "SN1 Test model" "serial and model"
equal "$(wc -l <.out)" 5 "four namespaces"
python3 - <<'PY' && pass "their numbers, kinds and UUID" || fail "their numbers, kinds and UUID"
import json
ns = {n["nsid"]: n for n in (json.loads(l).get("namespace") for l in open(".out")) if n}
assert sorted(ns) == [1, 2, 3, 5], ns
assert ns[5]["uuid"] == "01234567-89ab-cdef-0123-456789abcdef" and ns[5]["block_bytes"] == 512
assert [ns[i]["kind"] for i in (1, 2, 3)] == ["block", "block", "key-value"]
PY
exits 6 "another host" kvasir identify "nvme+tcp://$addr/$nqn" --host nqn.2026-11.test:stranger
works "any host on the second" kvasir read "nvme+tcp://$addr/$nqn:second" --length 4K -o /dev/null
head -c 1000000 /dev/urandom >a.bin
works "write to the file behind it" kvasir write "nvme+tcp://$addr/$nqn?nsid=1&$friend" a.bin
cmp -s -n 1000000 a.bin disk.img && pass "it is in the file" || fail "it is in the file"
works "put" kvasir put "nvme+tcp://$addr/$nqn?nsid=3&$friend" key a.bin
same a.bin objects/0/1/6B6579 "it is in the directory"
exits 10 "the file is taken" kvasir write file:disk.img a.bin
says .err "$pid" "the holder is named"

kill -USR1 "$pid"
until_works grep -q connections good.err
says good.err "stats: aio: write" "SIGUSR1 logs the operations of devices"
says good.err "connections" "and the connections"
# Stopped under load, it answers what it has taken and goes.
kvasir bench "nvme+tcp://$addr/$nqn?nsid=1&$friend&ctrl_loss=1s" read -t 20s --warmup 0s >/dev/null 2>&1 &
load=$!
sleep 0.5
stop "$pid"
equal "$rc" 0 "SIGTERM under load stops it"
yes "the pid file is gone" test ! -e pid
kill -INT $load 2>/dev/null; wait $load
yes "the client ends" test $? -ne 0
works "the file is free again" kvasir write file:disk.img a.bin

config two.json <<<"{\"method\": \"bdev_aio_create\", \"params\": {\"name\": \"x\", \"filename\": \"no/such/file\"}}"
exits 1 "a file that is not there" kvasird -c two.json
says .err "no/such/file" "is named"

# What it tells a service manager.
cat >notify.py <<'PY'
import os, socket, subprocess, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("notify.sock"); s.settimeout(10)
p = subprocess.Popen(["kvasird", "-q", "-c", "good.json"], env=dict(os.environ, NOTIFY_SOCKET="notify.sock"), stdout=subprocess.DEVNULL)
ready = s.recv(100).decode(); p.terminate(); stopping = s.recv(100).decode()
sys.exit(not (ready.startswith("READY=1") and stopping.startswith("STOPPING=1") and p.wait(10) == 0))
PY
works "READY=1 and STOPPING=1" python3 notify.py

if [ "$(id -u)" -eq 0 ] && id nobody >/dev/null 2>&1; then
    chmod 755 . && chmod 666 disk.img
    config user.json <<EOT
  {"method": "bdev_kvasir_create", "params": {"name": "own", "uri": "mem:?size=8M"}},
  {"method": "nvmf_create_subsystem", "params": {"nqn": "$nqn", "allow_any_host": true}},
  {"method": "nvmf_subsystem_add_ns", "params": {"nqn": "$nqn", "namespace": {"bdev_name": "own"}}},
  {"method": "nvmf_subsystem_add_listener", "params": {"nqn": "$nqn", "listen_address":
    {"trtype": "TCP", "traddr": "127.0.0.1", "trsvcid": "0"}}}
EOT
    serve user kvasird -c user.json --user nobody || exit
    equal "$(awk '/^Uid/ {print $2, $3, $4}' /proc/"$pid"/status)" "$(id -u nobody) $(id -u nobody) $(id -u nobody)" "--user"
    equal "$(awk '/^Uid/ {print $2}' /proc/"$pid"/task/*/status | sort -u)" "$(id -u nobody)" "in all threads"
    works "it serves" kvasir read "nvme+tcp://$addr/$nqn" --length 4K -o /dev/null
    stop "$pid"
    exits 2 "--user of nobody known" kvasird -c user.json --user no-such-user
fi
