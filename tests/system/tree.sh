# SPDX-License-Identifier: Apache-2.0
# put -r and get -r.
. "$KVASIR_TESTS/lib.sh"
dev=dir:store

mkdir -p in/sub/deeper in/"with space"
for i in $(seq 40); do head -c $((i * 1111)) /dev/urandom >in/sub/f$i; done
head -c 3000000 /dev/urandom >in/sub/deeper/large
: >in/empty
printf x >in/"with space"/"a b"
printf y >in/$'odd\001name'
printf z >in/-dash
works "put -r" kvasir put -r $dev in
works "get -r" kvasir get -r $dev -o out
yes "the trees are the same" diff -r in out
equal "$(kvasir ls $dev | wc -l)" 45 "as many keys as files"
works "put -r below a prefix" kvasir put -r --json $dev copy in
json_lines "put -r --json is JSON"
equal "$(tail -1 .out | python3 -c 'import json,sys; print(json.load(sys.stdin)["files"])')" 45 "with the sum"
equal "$(kvasir ls $dev copy/sub/f1 | head -1)" copy/sub/f1 "keys begin with the prefix"
works "get -r below a prefix" kvasir get -r $dev copy -o out2
yes "the trees are the same" diff -r in out2
works "a prefix with a slash" kvasir get -r $dev copy/ -o out3
yes "is the same" diff -r in out3
exits 3 "a prefix that there is not" kvasir get -r $dev nosuch -o out4
exits 2 "get -r without a directory" kvasir get -r $dev
exits 3 "put -r of no directory" kvasir put -r $dev nodir

ln -s /etc/passwd in/link
mkfifo in/fifo
works "links and pipes are left out" kvasir put -r -v $dev links in
says .err "left out 2" "and counted"
exits 3 "no key for a link" kvasir exists $dev links/link

# What must not get out of the directory.
evil=dir:evil
mkdir jail
for k in ../escape a/../../escape /abs/escape a//b ./c dir/. "" ; do
    [ -n "$k" ] && printf evil | kvasir put $evil "$k"
done
kvasir put $evil hex:6100622F63 <<<zero
printf good | kvasir put $evil fine/name
exits 6 "unsafe keys are refused" kvasir get -r $evil -o jail/out
says .err "../escape" "by name"
equal "$(cat jail/out/fine/name)" good "the others are there"
equal "$(find . -name 'escape*' -newer jail -path './jail/*')" "" "nothing escaped"
yes "nothing outside" test ! -e jail/escape -a ! -e escape -a ! -e /abs/escape
ln -s "$PWD/jail" jail/out2link
mkdir jail/out5
ln -s "$PWD" jail/out5/fine
run kvasir get -r $evil fine -o jail/out6
equal $rc 0 "a safe prefix"
run kvasir get -r -k $evil -o jail/out5
equal $rc 6 "a symbolic link in the way"
yes "is not followed" test ! -e name
says .err "symbolic link" "and named"

# A file where a directory has to be.
clash=dir:clash
printf 1 | kvasir put $clash a
printf 2 | kvasir put $clash a/b
run kvasir get -r -j 1 $clash -o clashout
yes "a file and a directory of one name fail" test $rc -ne 0
says .err "'a/b'" "by name"

mkdir ro && printf x >ro/f
works "put -r --if-absent" kvasir put -r --if-absent $dev ro ro
exits 4 "put -r --if-absent again" kvasir put -r --if-absent $dev ro ro
printf y >ro/g
exits 4 "put -r --if-absent --keep-going" kvasir put -r --if-absent -k $dev ro ro
works "stored the new one" kvasir exists $dev ro/g
