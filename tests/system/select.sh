# SPDX-License-Identifier: Apache-2.0
# kvasir select and kvasir sql: answers, forms, mistakes, pipes, the prompt at a terminal; on a
# directory, on the engine, in memory of a daemon and through NVMe/TCP the same bytes.
. "$KVASIR_TESTS/lib.sh"
nqn=nqn.2026-11.io.kvasir:default
data=$KVASIR_TESTS/../../examples/data
programs=$(dirname "$(command -v kvasir)")
dev=dir:store
export XDG_STATE_HOME=$PWD/state TERM=xterm

# --- without an engine everything else works, and it is said what is missing
mkdir bare && cp "$programs/kvasir" "$programs/kvasir-query" bare/
printf 'id,name,n\n1,Ada,10\n2,"Bo, ""B""",\n3,,-7\n' >t.csv
works "put a table" kvasir put $dev t.csv t.csv
run env -u KVASIR_QUERY_ENGINE bare/kvasir select $dev t.csv "select 1 from s3object"
if [ $rc -eq 0 ]; then
    echo "# an engine is installed in this system"
else
    equal $rc 11 "without the engine: exit code"
    says .err "make deps" "it says how it comes"
fi
if ! kvasir-query --check >.out 2>&1; then
    echo "# skipped: no engine ($(head -1 .out)): everything else of this part"
    exit
fi

# --- answers and their forms
works "select" kvasir select $dev t.csv "select name, n from s3object where id < 3;"
equal "$(cat .out)" $'name,n\nAda,10\n"Bo, ""B""",' "CSV with the columns' names"
kvasir select $dev t.csv "select sum(n) from anything" --no-header-out >.out
equal "$(cat .out)" 3 "any name after FROM; no header"
kvasir select $dev t.csv "select id, name, n from t" --output jsonl >.out
json_lines "JSON lines"
equal "$(field n 2) $(field name 2)" 'None Bo, "B"' "null and quotes"
kvasir select $dev t.csv "select * from t" --output json >.out
equal "$(python3 -c 'import json; print(len(json.load(open(".out"))))')" 3 "one JSON array"
works "Parquet into a file" kvasir select $dev t.csv "select * from t" --output parquet -o t.parquet
equal "$(head -c 4 t.parquet)$(tail -c 4 t.parquet)" PAR1PAR1 "it is Parquet"
works "Arrow" kvasir select $dev t.csv "select * from t" --output arrow -o t.arrow
equal "$(od -An -tx4 -N4 t.arrow | tr -d ' ')" ffffffff "it is an IPC stream"
works "put what came out" kvasir put $dev t.parquet t.parquet
kvasir select $dev t.parquet "select name, n from t where id < 3" >.out
equal "$(cat .out)" $'name,n\nAda,10\n"Bo, ""B""",' "Parquet is asked the same"
echo 'select count(*) as c from s3object' >q.sql
kvasir select $dev t.csv -f q.sql >.out
equal "$(cat .out)" $'c\n3' "the statement from a file"
kvasir select $dev t.csv -f - <q.sql >.out
equal "$(cat .out)" $'c\n3' "and from standard input"
works "two keys" kvasir select $dev t.csv t.csv "select count(*) c from t"
equal "$(cat .out)" $'c\n6' "are one table"
printf '4;x\n5;y\n' | kvasir put $dev logs/1
printf '6;z\n' | kvasir put $dev logs/2
kvasir select $dev --prefix logs/ "select sum(a), max(b) from t" --no-header --delimiter ';' --schema "a INTEGER, b VARCHAR" --no-header-out >.out
equal "$(cat .out)" 15,z "a prefix, with delimiter and schema"
gzip -kf t.csv && kvasir put $dev t.csv.gz t.csv.gz
kvasir select $dev t.csv.gz "select count(*) from t" --no-header-out >.out
equal "$(cat .out)" 3 "gzip"
works "--stats" kvasir select --stats --json $dev t.parquet "select id from t"
cp .err .out
json_lines "is JSON on standard error"
equal "$(field object_bytes)" "$(stat -c %s t.parquet)" "bytes of the object"
works "--json with -o" kvasir select --json $dev t.csv "select * from t" -o x.csv
json_lines "is JSON on standard output"
equal "$(field result_bytes)" "$(stat -c %s x.csv)" "bytes of the answer"

# --- mistakes
exits 3 "no such key" kvasir select $dev nosuch "select 1 from t"
says .err "nosuch" "it names the key"
exits 2 "a mistake in SQL" kvasir select $dev t.csv "selekt 1"
exits 2 "no such column" kvasir select $dev t.csv "select nme from t"
says .err "name" "it says which there are"
exits 2 "files of the machine" kvasir select $dev t.csv "select * from read_csv('/etc/passwd')"
says .err "read_csv" "it names what is not allowed"
exits 2 "no SELECT" kvasir select $dev t.csv "create table x (a int)"
exits 2 "two statements" kvasir select $dev t.csv "select 1 from t; select 2 from t"
exits 7 "another format" kvasir select $dev t.csv "select 1 from t" --input parquet
says .err "t.csv" "it names the object"
exits 2 "no SQL" kvasir select $dev t.csv
exits 2 "no key" kvasir select $dev "select 1 from t"
exits 2 "a format that is none" kvasir select $dev t.csv "select 1 from t" --output xml
exits 2 "keys and a prefix" kvasir select $dev t.csv "select 1 from t" --prefix t
exits 9 "a time limit" kvasir select $dev --timeout 300ms t.csv "select count(*) from t, range(100000) a, range(100000) b, range(10000) c where a.range + b.range + c.range < 0"
echo old >kept.csv
exits 2 "a failure with -o" kvasir select $dev t.csv "select nme from t" -o kept.csv
equal "$(cat kept.csv)" old "leaves the file that was there"
exits 2 "a failure with -o of a new file" kvasir select $dev t.csv "select nme from t" -o new.csv
equal "$(ls | grep -c new.csv)" 0 "leaves nothing"
exits 2 "Parquet for a terminal" python3 -c '
import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn(["kvasir", "select", "dir:store", "t.csv", "select 1 from t", "--output", "parquet"])))'
says .out "-o FILE" "it says what to do"
works "a reader that stops" bash -c "kvasir select $dev t.csv 'select a.range from t, range(1000000) a' | head -1"

# --- real tables, and a large one
for f in seattle-weather.csv penguins.json airports.parquet; do kvasir put $dev $f "$data/$f"; done
kvasir select $dev seattle-weather.csv "select weather, count(*) n from s3object group by 1 order by 1" --no-header-out >.out
python3 -c '
import csv, collections, sys
n = collections.Counter(r["weather"] for r in csv.DictReader(open(sys.argv[1])))
print("\n".join(f"{k},{n[k]}" for k in sorted(n)))' "$data/seattle-weather.csv" >want
same want .out "CSV: counted as Python counts"
kvasir select $dev penguins.json 'select "Species" s, sum("Body Mass (g)") from s3object group by 1 order by 1' --no-header-out >.out
python3 -c '
import json, collections, sys
n = collections.Counter()
for r in json.load(open(sys.argv[1])): n[r["Species"]] += r["Body Mass (g)"] or 0
print("\n".join(f"{k},{n[k]}" for k in sorted(n)))' "$data/penguins.json" >want
same want .out "JSON: summed as Python sums"
kvasir select $dev airports.parquet "select count(*) from s3object" --no-header-out >.out
equal "$(cat .out)" 3376 "Parquet: all rows"
works "a generated table" sh -c "'$data/generate' supplier --rows 3000 >s.csv && kvasir put $dev supplier s.csv"
kvasir select $dev supplier "select s_name,s_address,s_city from s3object where s_nation = 'UNITED STATES'" --no-header-out >.out
python3 -c '
import csv, sys
rows = [[r["s_name"], r["s_address"], r["s_city"]] for r in csv.DictReader(open("s.csv")) if r["s_nation"] == "UNITED STATES"]
assert len(rows) > 50
assert rows == list(csv.reader(open(".out")))' && pass "the seeds' question: as Python answers it" || fail "the seeds' question"

# --- the same bytes from every kind of device, here and through NVMe/TCP
questions=("supplier|select s_nation, count(*) n, avg(s_acctbal) from s3object group by 1 order by 1|csv"
           "seattle-weather.csv|select * from s3object where temp_max > 30|jsonl"
           "penguins.json|select * from s3object order by all limit 20|json"
           "airports.parquet|select state, latitude from s3object where state = 'TX' order by 2|parquet"
           "airports.parquet|select iata, city from s3object where state = 'AK'|arrow")
kvasir cp -r $dev "blob:t.kv?size=256M" >/dev/null 2>&1 || kvasir cp $dev "blob:t.kv?size=256M" >.out 2>.err
serve store kvasir serve --kv d=$dev --kv m=mem: --kv b=blob:t.kv --listen 127.0.0.1:0 || exit
server=$pid
d="nvme+tcp://$addr/$nqn?nsid=1" m="nvme+tcp://$addr/$nqn?nsid=2" b="nvme+tcp://$addr/$nqn?nsid=3"
works "copy into memory" kvasir cp "$d" "$m"
for q in "${questions[@]}"; do
    IFS='|' read -r key sql form <<<"$q"
    kvasir select $dev "$key" "$sql" --output "$form" >want 2>.err || fail "$key to $form here"
    yes "$key to $form: not nothing" test -s want
    for there in "$d" "$m" "$b"; do
        run kvasir select --stats --json "$there" "$key" "$sql" --output "$form" -o got
        same want got "$key to $form through NVMe, ${there#*nsid=}"
        equal "$(field pushed)" True "the target ran it"
    done
done
exits 3 "no such key through NVMe" kvasir select "$d" nosuch "select 1 from t"
exits 2 "a mistake in SQL through NVMe" kvasir select "$d" t.csv "select nme from t"
says .err "nme" "it says which"
works "a prefix through NVMe" kvasir select "$d" --prefix logs/ "select sum(a) from t" --no-header --delimiter ';' --schema "a INTEGER, b VARCHAR" --no-header-out
equal "$(cat .out)" 15 "is one table"
works "the prompt through NVMe" kvasir sql --mode csv "$d" "select count(*) c from t.csv; select count(*) c from 'logs/*'"
equal "$(cat .out)" $'c\n3\nc\n3' "asks both"
stop $server
equal "$rc" 0 "the daemon ends cleanly"
works "on the engine without a daemon" kvasir select blob:t.kv supplier "select count(*) c from s3object"
equal "$(cat .out)" $'c\n3000' "the same"

# --- the prompt by a pipe
cat >script.sql <<'SQL'
-- comments, and statements of several lines
select id, name,
       n from 't.csv' -- here; too
 where id <> 2;
.mode csv
select id from t.csv limit 1; select max(id) from "t.csv";
with x as (select * from 't.csv') select count(*) from x
SQL
works "statements from a pipe" sh -c "kvasir sql $dev <script.sql"
cat >want <<'WANT'
     id | name    |      n
 BIGINT | VARCHAR | BIGINT
--------+---------+--------
      1 | Ada     |     10
      3 | NULL    |     -7
(2 rows)
id
1
max(id)
3
count_star()
3
WANT
same want .out "tables with types and NULL, then CSV"
works "-f" kvasir sql $dev -f script.sql
same want .out "is the same"
works "commands" sh -c "printf '.tables logs/\n.schema t.csv\n.null -\n.types off\nselect * from t.csv limit 2;\n.mode line\nselect * from t.csv limit 1;\n.quit\nnonsense;' | kvasir sql $dev"
cat >want <<'WANT'
logs/1
logs/2
 column | type
--------+---------
 id     | BIGINT
 name   | VARCHAR
 n      | BIGINT
 id | name    |  n
----+---------+----
  1 | Ada     | 10
  2 | Bo, "B" |  -
(2 rows)
  id = 1
name = Ada
   n = 10
WANT
same want .out "do what they say"
works ".output" sh -c "printf '.mode csv\n.output out.csv\nselect id from t.csv;\nselect id from t.csv;\n.output\nselect 9 x from t.csv limit 1;\n.mode parquet\n.output out.parquet\nselect * from t.csv;\n' | kvasir sql $dev"
equal "$(cat .out) $(wc -l <out.csv)" $'x\n9 8' "answers go to a file, and back"
equal "$(head -c 4 out.parquet)" PAR1 "Parquet into a file"
exits 2 "the first failure" sh -c "printf 'select nme from t.csv;\nselect 1 from t.csv;\n' | kvasir sql --mode csv $dev"
equal "$(cat .out)" "" "ends it"
exits 2 "a failure with -k" sh -c "printf 'select nme from t.csv;\nselect 1 x from t.csv limit 1;\n' | kvasir sql -k --mode csv $dev"
equal "$(cat .out)" $'x\n1' "does not"
exits 2 "two objects in one statement" kvasir sql $dev "select * from 't.csv' join 'logs/1' using (a)"
says .err "one object" "it says so"
exits 2 "no object" kvasir sql $dev "select 1"
says .err "FROM" "it says how"
exits 3 "an object that is none" kvasir sql $dev "select * from nosuch"
exits 3 "a pattern that nothing matches" kvasir sql $dev "select * from 'x?z'"
exits 2 "no such command" sh -c "echo .frobnicate | kvasir sql $dev"
says .err ".help" "it says what lists them"
works "a pattern" kvasir sql --mode csv --no-header --delimiter ';' $dev "select count(*) c from 'logs/[12]'"
equal "$(cat .out)" $'c\n3' "is one table"
works "--json" kvasir sql --json $dev "select id, name from t.csv"
json_lines "is JSON lines"
works ".read" sh -c "printf 'select 7 a from t.csv limit 1;' >inner.sql; printf '.mode csv\n.read inner.sql\n' | kvasir sql $dev"
equal "$(cat .out)" $'a\n7' "reads statements"

# --- the prompt at a terminal
kvasir put dir:pty t.csv t.csv
works "the prompt at a terminal" python3 "$KVASIR_TESTS/select_pty.py" dir:pty
grep -E '^(ok|not ok)' .out >pty.tap
while read -r line; do
    case $line in ok*) pass "${line#ok - }" ;; *) fail "${line#not ok - }" ;; esac
done <pty.tap
yes "all of it ran" grep -q '^ok - the end' pty.tap
equal "$(stat -c %a state/kvasir/sql_history)" 600 "nobody else reads the history"
equal "$(stat -c %a state/kvasir)" 700 "nor its directory"
yes "the history is what was typed" grep -qx "select max(id) from t.csv;" state/kvasir/sql_history

# --- the tutorial, as it stands
mkdir tutorial && cd tutorial
works "the tutorial" python3 "$KVASIR_TESTS/tutorial.py" "$KVASIR_TESTS/../../docs/tutorial-query.md" "$KVASIR_TESTS/../../examples"
grep -E '^(ok|not ok)' .out >tutorial.tap
while read -r line; do
    case $line in ok*) pass "${line#ok - }" ;; *) fail "${line#not ok - }" ;; esac
done <tutorial.tap
yes "all of it ran" grep -q "^ok - the tutorial's end" tutorial.tap
