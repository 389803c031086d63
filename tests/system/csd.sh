# SPDX-License-Identifier: Apache-2.0
# kvasir serve --csd: one directory as a namespace of the CSD dialect and as a KV namespace. Its
# commands are tried by the unit tests (nvmf/csd, nvmf/select) and from a Linux guest.
. "$KVASIR_TESTS/lib.sh"
nqn=nqn.2026-11.io.kvasir:default

exits 2 "serve --csd of a device that is none" kvasir serve --csd a=nosuch:x --listen 127.0.0.1:0
serve csd kvasir serve --csd c=dir:data --kv k=dir:data --listen 127.0.0.1:0 || exit
csd="nvme+tcp://$addr/$nqn?nsid=1" kv="nvme+tcp://$addr/$nqn?nsid=2"
says csd.log "nsid=1  csd c" "it says which namespace is of the dialect"
works "identify" kvasir identify --json "$csd"
equal "$(field namespace.kind 2) $(field namespace.block_bytes 2) $(field namespace.write_protected 2)" "block 512 True" "a write-protected disk"
works "read of its blocks" kvasir read "$csd" --length 1M -o blocks
equal "$(tr -d '\0' <blocks | wc -c) $(wc -c <blocks)" "0 1048576" "zeroes"
head -c 4096 /dev/urandom >b
exits 6 "write to them" kvasir write "$csd" b
exits 2 "a key-value verb on it" kvasir ls "$csd"
says .err "block namespace" "it says what it is"
works "put through the other namespace" kvasir put "$kv" key b
works "get" kvasir get "$kv" key -o b2
same b b2 "it is the same"
