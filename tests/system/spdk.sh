# SPDX-License-Identifier: Apache-2.0
# Stores that SPDK wrote: each volume has the bytes SPDK read from it, and the stores can be used.
. "$KVASIR_TESTS/lib.sh"
images=$KVASIR_TESTS/../data/spdk-images

# wanted NAME: a line for each volume, as the manifest tells it.
wanted() {
    python3 - "$images/manifest.json" "$1" <<'EOF'
import json, sys
image = json.load(open(sys.argv[1]))[sys.argv[2]]
cluster = image["lvstore"]["cluster_size"]
print(image["lvstore"]["name"], image["lvstore"]["uuid"], image["lvstore"]["free_clusters"], cluster)
for v in sorted(image["lvols"], key=lambda v: v["alias"]):
    print(v["alias"], v["uuid"], v["size_bytes"], v["allocated_clusters"] * cluster, v["thin"],
          v["snapshot"], v["clone"], v["base_snapshot"], v["sha256"])
EOF
}

# found DEVICE: the same, as it is here.
found() {
    kvasir lvol ls --json "$1" >.ls || return
    python3 - "$1" <<'EOF'
import hashlib, json, subprocess, sys
lines = [json.loads(line) for line in open(".ls")]
s = lines[0]
print(s["store"], s["uuid"], s["free_clusters"], s["cluster_bytes"])
for v in sorted(lines[1:], key=lambda v: s["store"] + "/" + v["name"]):
    uri = f"lvol:{sys.argv[1]}?readonly=yes#{v['uuid']}"
    h = hashlib.sha256()
    with subprocess.Popen(["kvasir", "read", uri], stdout=subprocess.PIPE) as p:
        while part := p.stdout.read(1 << 20):
            h.update(part)
    print(s["store"] + "/" + v["name"], v["uuid"], v["size_bytes"], v["allocated_bytes"], v["thin"],
          v["snapshot"], v["clone"], v["parent"], h.hexdigest())
EOF
}

block_size() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]]["block_size"])' "$images/manifest.json" "$1"; }

for name in clean snapshots fragmented killed-metadata killed-writing; do
    zstd -q -d --sparse "$images/$name.img.zst" -o "$name.img"
    cp --sparse=always "$name.img" before.img
    bs=$(block_size $name)
    wanted $name >want
    found $name.img >have 2>.err
    equal "$(kvasir stat --json "lvol:$name.img?readonly=yes#$(sed -n '2s/ .*//p' want)" | python3 -c '
import json; print(json.loads(input())["block_bytes"])')" "$bs" "$name: blocks are as SPDK had them"
    same want have "$name: volumes and their bytes are what SPDK said"
    diff want have | head -20
    same $name.img before.img "$name: looking changes nothing"

    # In use, and opened once more.
    works "$name: create" kvasir lvol create $name.img new/volume 3M
    head -c 3M /dev/urandom >data
    works "$name: write" kvasir write "lvol:$name.img#new/volume" data
    found $name.img | grep -v /new/volume | tail -n +2 >have
    tail -n +2 want >want2
    same want2 have "$name: the others are as they were"
    kvasir read "lvol:$name.img#new/volume" | cmp -s - data && pass "$name: it is there" || fail "$name: it is there"
    works "$name: rm" kvasir lvol rm $name.img new/volume
    found $name.img >have
    same want have "$name: what it took is free again"
    works "$name: check" kvasir blob check $name.img
    rm -f $name.img before.img
done
