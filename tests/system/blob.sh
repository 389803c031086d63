# SPDX-License-Identifier: Apache-2.0
# kvasir blob on stores that SPDK wrote.
. "$KVASIR_TESTS/lib.sh"

images=$KVASIR_TESTS/../data/spdk-images
for f in clean snapshots killed-metadata xattrs; do
    zstd -qd --sparse "$images/$f.img.zst" -o "$f.img"
done
cp clean.img untouched.img

works "ls" kvasir blob ls snapshots.img
equal "$(wc -l <.out)" 6 "a line for each blob"
works "ls --json" kvasir blob ls snapshots.img --json
json_lines "is JSON"
equal "$(field name 2) $(field parent 2) $(field flags 2) $(field allocated_clusters 2)" "base 0x100000005 thin,clone 4" "the first volume"
works "show of a store" kvasir blob show clean.img --json
equal "$(field name) $(field free_clusters) $(field clean) $(field type)" "lvs0 891 True LVOLSTORE" "what it is"
works "show of a blob by name" kvasir blob show snapshots.img base
says .out "SNAP = 0x100000005" "its parent"
says .out "18-21 are clusters 89-92" "its extents"
works "by id" kvasir blob show xattrs.img 0x100000000 --json
equal "$(field xattrs.greeting) $(field clusters)" "hello world 3" "its xattrs"
works "by uuid" kvasir blob show clean.img 72396466-f796-4052-b348-3501b143d65b
exits 3 "a blob that is not there" kvasir blob show clean.img nosuch
says .err "kvasir blob ls" "it says where to look"

for f in clean snapshots killed-metadata xattrs; do
    works "check of $f" kvasir blob check "$f.img"
done
says .out "0 errors, 0 warnings" "says so"
works "check --json" kvasir blob check killed-metadata.img --json
json_lines "is JSON"
equal "$(field severity 1) $(field free_clusters 2) $(field blobs 2)" "note 940 24" "a finding a line, then the sum"
works "by URI" kvasir blob check 'file:clean.img?readonly=yes&block_size=4096'
works "with a block size" kvasir blob check snapshots.img --block-size 512

# A byte of an extent page, then one of the super block.
printf '\001' | dd of=clean.img bs=1 seek=$((0x8100)) conv=notrunc status=none
exits 7 "check finds a changed byte" kvasir blob check clean.img
says .out "error: extent page at byte 32768, blob 0x100000003: its checksum is wrong" "and says where"
exits 7 "with --json, too" kvasir blob check clean.img --json
json_lines "is JSON"
equal "$(field severity) $(field structure) $(field offset) $(field blob)" "error extent page 32768 0x100000003" "the finding"
exits 7 "show of a broken blob" kvasir blob show clean.img thin
works "the other one is fine" kvasir blob show clean.img thick
works "dump works" kvasir blob dump clean.img
says .out "(wrong)" "and marks the checksum"
printf 'x' | dd of=clean.img bs=1 seek=$((0x60)) conv=notrunc status=none
exits 7 "a broken super block" kvasir blob check clean.img
works "dump goes on" kvasir blob dump clean.img --all
says .out "pages 5-1023" "to the last page"

works "dump" kvasir blob dump untouched.img
says .out "000000001c  super block       cluster_size            65536" "with offsets"
says .out "0000006019  extent page       clusters                0-63 are 65-128" "and extents"
works "dump of one blob" kvasir blob dump untouched.img --blob thin --json
json_lines "is JSON"
equal "$(grep -c '"page","value"' .out)" 2 "its two pages"
exits 3 "dump of a blob that is not there" kvasir blob dump untouched.img --blob 0x1000003ff
zstd -qd --sparse "$images/clean.img.zst" -o again.img
same untouched.img again.img "nothing of this wrote anything"

head -c 1M /dev/urandom >noise.img
exits 7 "no blobstore" kvasir blob check noise.img
says .err "no blobstore" "it says so"
exits 7 "ls of none" kvasir blob ls noise.img
exits 3 "no such file" kvasir blob ls nosuch.img
exits 2 "no such command" kvasir blob frob clean.img
says .err "check" "it lists them"
exits 2 "too many arguments" kvasir blob ls clean.img x
says .err "kvasir blob ls DEVICE" "it says how"

# A store of our own.
truncate -s 64M own.img
works "init" kvasir blob init own.img --cluster-size 64K --block-size 4096
works "of a new store the check finds nothing" kvasir blob check own.img
exits 4 "init does not overwrite unasked" kvasir blob init own.img
says .err "--force" "it says how"
works "create" kvasir blob create own.img --size 1M --xattr colour=blue --xattr n=1
thick=$(cat .out)
works "create --thin" kvasir blob create own.img --size 2000000 --thin --json
thin=$(field id)
works "show" kvasir blob show own.img "$thick" --json
equal "$(field xattrs.colour) $(field clusters) $(field allocated_clusters)" "blue 16 16" "what was made"
kvasir blob show own.img "$thin" --json >.out
equal "$(field flags) $(field clusters) $(field allocated_clusters)" "thin 31 0" "and the thin one"
works "snapshot" kvasir blob snapshot own.img "$thick" -x name=s
snap=$(cat .out)
works "clone" kvasir blob clone own.img "$snap" --json
clone=$(field id)
kvasir blob show own.img "$clone" --json >.out
equal "$(field parent) $(field allocated_clusters)" "$snap 0" "which stands on it"
works "the check finds nothing" kvasir blob check own.img
says .out "0 errors, 0 warnings" "says so"
exits 10 "rm of a snapshot with two clones" kvasir blob rm own.img "$snap"
works "rm of one" kvasir blob rm own.img "$clone"
works "then of the snapshot" kvasir blob rm own.img "$snap"
works "rm" kvasir blob rm own.img "$thin"
exits 3 "it is gone" kvasir blob rm own.img "$thin"
works "the check finds nothing" kvasir blob check own.img --json
equal "$(field blobs) $(field clusters) $(field free_clusters)" "1 $(field clusters) $(($(field clusters) - 16))" "one blob is left"
exits 2 "what is no id" kvasir blob rm own.img colour
exits 2 "create in an lvolstore" kvasir blob create untouched.img --size 1M
says .err "kvasir lvol" "it says what to use"
exits 2 "rm of the super blob" kvasir blob rm untouched.img 0x100000000
exits 7 "create on noise" kvasir blob create noise.img
