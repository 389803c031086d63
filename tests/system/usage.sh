# SPDX-License-Identifier: Apache-2.0
# Help, options, mistakes, completion, man pages: what comes from the tables.
. "$KVASIR_TESTS/lib.sh"

verbs="put get ls stat exists rm select sql cp read write blob lvol discover identify bench serve completion help version"
works "help" kvasir help
for v in $verbs; do
    says .out "  $v " "help lists $v"
done
for v in $verbs; do
    works "$v --help" kvasir "$v" --help
    says .out "kvasir $v" "$v --help names the verb"
done
kvasir put --help >.out
says .out "?index=SIZE" "put --help lists the parameters of dir:"
works "--version" kvasir --version
works "version --json" kvasir version --json
json_lines "version --json is JSON"

exits 2 "no such verb" kvasir frobnicate
says .err "there is no verb 'frobnicate'; there are: put get" "it says which verbs there are"
exits 2 "unknown option" kvasir put --if-abscent mem: k f
says .err "unknown option '--if-abscent'" "it names the option"
says .err "--if-absent" "it says which options there are"
exits 2 "option without value" kvasir get mem: k --offset
says .err "--offset wants a value" "it says so"
exits 2 "not a size" kvasir get mem: k --offset much
says .err "'much' is not a size" "it says what a size is"
exits 2 "not one of the choices" kvasir get mem: k --poll sometimes
says .err "adaptive|always|never" "it lists the choices"
exits 2 "missing argument" kvasir put mem:
exits 2 "one argument too many" kvasir stat mem: a b
says .err "'b' is one too many" "it names the argument"
exits 2 "cores that are none" kvasir ls mem: --cores none
exits 2 "too little memory" kvasir ls mem: --mem 1K
exits 2 "no such scheme" kvasir ls nosuch:x
says .err "begins with one of mem:" "it says which schemes there are"
exits 2 "unknown parameter of a URI" kvasir ls 'mem:?bogus=1'
says .err "bogus" "it names the parameter"
exits 2 "put on blocks" kvasir put 'file:x.img?size=1M' k
says .err "is a block device" "it says what the device is"
exits 2 "read of keys" kvasir read dir:d
says .err "is a key-value device" "it says what the device is"
exits 2 "errors with --json" kvasir put --json 'file:x.img?size=1M' k
cp .err .out
json_lines "an error with --json is JSON"
equal "$(field exit)" 2 "it has the exit code"

works "cores and backend" kvasir ls mem: --cores 2 --backend epoll --poll never --mem 8M
works "pinned core" kvasir ls mem: --cores 0-0

works "bash completion" kvasir completion bash
cp .out completion.bash
yes "bash takes it" bash -n completion.bash
got=$(bash -c '. ./completion.bash; COMP_WORDS=(kvasir put --if-a); COMP_CWORD=2; _kvasir; echo "${COMPREPLY[*]}"')
equal "$got" "--if-absent" "it completes an option"
got=$(bash -c '. ./completion.bash; COMP_WORDS=(kvasir lvol sna); COMP_CWORD=2; _kvasir; echo "${COMPREPLY[*]}"')
equal "$got" snapshot "it completes commands"
for command in $(sed -n 's/^ *lvol) .*words="\(init [^"]*\)".*/\1/p' completion.bash); do
    kvasir lvol "$command" 2>.err; kvasir lvol "$command" x y z 0 2>>.err
    if grep -q "there is no" .err; then fail "lvol has $command"; else pass "lvol has $command"; fi
done
got=$(bash -c '. ./completion.bash; COMP_WORDS=(kvasir ver); COMP_CWORD=1; _kvasir; echo "${COMPREPLY[*]}"')
equal "$got" "version" "it completes a verb"
got=$(bash -c '. ./completion.bash; COMP_WORDS=(kvasir ls --poll a); COMP_CWORD=3; _kvasir; echo "${COMPREPLY[*]}"')
equal "$got" "adaptive always" "it completes a choice"
for shell in zsh fish; do
    works "$shell completion" kvasir completion $shell
    says .out "if-absent" "$shell completion has the options"
    if command -v $shell >/dev/null; then
        yes "$shell takes it" $shell -n .out
    fi
done
exits 2 "completion for another shell" kvasir completion tcsh

for page in kvasir.1 kvasird.8 kvasird.json.5; do
    yes "$page is there" test -s "$KVASIR_DOCS/$page"
    if command -v mandoc >/dev/null; then
        equal "$(mandoc -Tlint -Wwarning "$KVASIR_DOCS/$page" 2>&1)" "" "$page has no mistake"
    fi
done
for v in $verbs; do
    yes "kvasir.1 has $v" grep -q "^.Ss kvasir $v" "$KVASIR_DOCS/kvasir.1"
done
yes "kvasird.json.5 has the methods" grep -q "nvmf_subsystem_add_kv_ns" "$KVASIR_DOCS/kvasird.json.5"
