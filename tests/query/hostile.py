# SPDX-License-Identifier: Apache-2.0
"""Statements that want more than the object, run in the real worker twice: as it is, and without
its statement filter, so that it is seen what the sandbox stops by itself. Each is one line of a
table. After each the next query is answered."""
import os
import pathlib
import socket
import tempfile

from worker import Zygote

OBJECT = b"a,b\n1,one\n2,two\n"
SECRET = "sesame7261"

# {dir}: a directory that all may read and write; {port}: where somebody listens.
READS = """
select * from read_csv('{dir}/secret.csv')
select * from read_csv_auto('{dir}/secret.csv')
select * from read_text('{dir}/secret.csv')
select * from read_blob('{dir}/secret.csv')
select * from read_json('{dir}/secret.csv')
select * from read_json_objects('{dir}/secret.csv')
select * from read_ndjson('{dir}/secret.csv')
select * from read_parquet('{dir}/secret.csv')
select * from parquet_scan('{dir}/secret.csv')
select * from parquet_metadata('{dir}/secret.csv')
select * from parquet_schema('{dir}/secret.csv')
select * from parquet_file_metadata('{dir}/secret.csv')
select * from parquet_kv_metadata('{dir}/secret.csv')
select * from parquet_bloom_probe('{dir}/secret.csv', 'a', 1)
select * from read_duckdb('{dir}/secret.csv')
select * from sniff_csv('{dir}/secret.csv')
select * from glob('{dir}/*')
select * from glob('/**')
select * from glob('/proc/self/fd/*')
select * from read_text('/kvasir/../..{dir}/secret.csv')
select * from read_text('/kvasir/object/../../..{dir}/secret.csv')
select * from read_text('{dir}/link')
select * from read_text('file:{dir}/secret.csv')
select * from read_text('file://{dir}/secret.csv')
select * from read_text('file://localhost{dir}/secret.csv')
select * from read_text(['/kvasir/object/0', '{dir}/secret.csv'])
select * from read_text('/proc/self/environ')
select * from read_text('/proc/self/maps')
select * from read_text('/proc/self/cmdline')
select * from read_blob('/proc/self/mem')
select * from read_text('/proc/1/environ')
select * from read_blob('/dev/fd/3')
select * from read_blob('/proc/self/fd/3')
select * from read_blob('/dev/zero')
select * from read_text('/etc/passwd')
select * from read_csv('/dev/stdin')
select * from read_csv('http://127.0.0.1:{port}/x.csv')
select * from read_text('https://127.0.0.1:{port}/x')
select * from read_parquet('s3://bucket/x.parquet')
select * from read_csv('hf://datasets/x/y.csv')
select (select content from read_text('{dir}/secret.csv'))
select * from s3object where b = (select content from read_text('{dir}/secret.csv'))
select * from s3object order by (select content from read_text('{dir}/secret.csv'))
select * from s3object limit (select size from read_text('{dir}/secret.csv'))
with x as (select * from read_text('{dir}/secret.csv')) select * from x
with recursive x as (select 1 n union all select n+1 from x, read_text('{dir}/secret.csv') where n < 3) select * from x
select * from s3object, lateral (select * from read_text('{dir}/secret.csv')) y
select a from s3object union all select size from read_text('{dir}/secret.csv')
select count(*) filter (where exists (from read_text('{dir}/secret.csv'))) from s3object
select list_transform([1], lambda x: (select size from read_text('{dir}/secret.csv')))
select * from query('from read_text(''{dir}/secret.csv'')')
select * from query_table('{dir}/secret.csv')
select * from query_table(['s3object', '{dir}/secret.csv'])
select * from json_execute_serialized_sql(json_serialize_sql('from read_text(''{dir}/secret.csv'')'))
select json_serialize_plan('select * from read_text(''{dir}/secret.csv'')')
from read_text('{dir}/secret.csv')
with "{dir}/secret.csv" as (select 1) select * from "{dir}/secret.csv"
pivot '{dir}/secret.csv' on a
select getenv('SECRET')
select * from s3object where b = getenv('SECRET')
"""

STATE = """
select * from enable_logging(storage = 'file', storage_path = '{dir}/log')
call enable_logging(storage = 'file', storage_path = '{dir}/log')
select * from enable_profiling()
select * from disable_logging()
select * from truncate_duckdb_logs()
select * from duckdb_settings()
select * from duckdb_secrets()
select * from which_secret('s3://x', 's3')
select * from duckdb_extensions()
select * from duckdb_variables()
select * from duckdb_memory()
select * from duckdb_temporary_files()
select * from duckdb_databases d, (with duckdb_databases as (select 1) select 1) x
with duckdb_views as (select * from duckdb_views) select * from duckdb_views
select * from pg_settings, (with pg_settings as (select 1) select 1) x
select * from information_schema.tables
select * from system.information_schema.tables
select * from pg_catalog.pg_settings
select * from temp.main.s3object
select * from pragma_version()
select * from pragma_table_info('s3object')
select * from pragma_user_agent()
select * from pragma_platform()
select current_setting('home_directory')
select getvariable('x')
select nextval('s')
select currval('s')
select write_log('x', level := 'error')
select * from checkpoint()
select * from force_checkpoint()
select current_query()
select sleep_ms(100000)
select pg_sleep(100)
select txid_current()
select * from test_all_types()
select * from repeat_row(1, num_rows = 5)
select * from summary((select 1))
select * from sql_auto_complete('sel')
select * from arrow_scan(1::ubigint::pointer, 2::ubigint::pointer, 3::ubigint::pointer)
select * from arrow_scan_dumb(1, 2, 3)
select * from pandas_scan(77)
select * from seq_scan('s3object')
select * from python_map_function(1)
set threads = 8
set enable_external_access = true
set allowed_directories = ['/']
set lock_configuration = false
reset enable_external_access
set variable x = 1
pragma enable_profiling
pragma database_list
call pragma_version()
show all tables
show tables
use temp
"""

WRITES = """
copy (select 1) to '{dir}/out.csv'
copy s3object to '{dir}/out.parquet' (format parquet)
copy s3object to '/kvasir/answer' (format csv)
copy s3object from '{dir}/secret.csv'
export database '{dir}/out'
import database '{dir}/out'
attach '{dir}/out.db' as x
attach 'http://127.0.0.1:{port}/x.db' as x
attach ':memory:' as x
detach temp
create table t (a int)
create table t as select * from read_text('{dir}/secret.csv')
create or replace temp view s3object as select 1
create macro lower(x) as (select content from read_text('{dir}/secret.csv'))
create secret x (type s3)
create persistent secret x (type s3)
create type x as enum (select content from read_text('{dir}/secret.csv'))
create sequence s
create schema x
insert into s3object values (1, 'x')
update s3object set a = 1
delete from s3object
drop view s3object
alter view s3object rename to x
truncate s3object
install httpfs
install httpfs from 'http://127.0.0.1:{port}'
force install '{dir}/secret.csv'
load '{dir}/secret.csv'
load httpfs
update extensions
checkpoint
vacuum
analyze
begin transaction
prepare p as select 1
execute p
explain analyze select * from read_text('{dir}/secret.csv')
comment on view s3object is 'x'
merge into s3object using s3object b on true when matched then delete
"""

FORMS = """
select 1; select 2
select 1; copy (select 1) to '{dir}/out.csv'
select 1) to '{dir}/out.csv' (format csv) --
select 1) to '{dir}/out.csv' (format csv); select (1
select 'x) to ''{dir}/out.csv''
select $$ x
select ?
select $1
select * from main.read_text('{dir}/secret.csv')
select system.main.current_setting('threads')
select s3object.read_text() from s3object
select '{dir}/secret.csv'.read_text()
select b.getenv() from s3object
select * replace (getenv('SECRET') as a) from s3object
select columns(x -> getenv(x) is null) from s3object
select * from s3object at (version => 1)
select * from s3object tablesample (getenv('SECRET'))
select sum(a) over (partition by getenv('SECRET')) from s3object
select a from s3object group by getenv('SECRET')
select a from s3object group by a having getenv('SECRET') is null
select a from s3object qualify row_number() over (order by current_setting('threads')) = 1
select distinct on (current_setting('threads')) a from s3object
select case when current_setting('threads') = '1' then 1 end
select a in (select current_setting('threads')) from s3object
select cast(current_setting('threads') as int)
select [current_setting('threads')]
select {{'x': current_setting('threads')}}
select * from range(current_setting('threads')::int)
select * from unnest([current_setting('threads')])
select * from (values (current_setting('threads')))
values (current_setting('threads'))
select list_filter([1], lambda x: current_setting('threads') = '1')
select current_schemas(true)
select current_database()
select version()
"""

# Allowed, since they mean the object (whatever name it is given) or nothing outside of it.
HARMLESS = """
select current_user
select 1 /* ) to '{dir}/out.csv' --
select * from duckdb_logs
select * from s3object semi join '{dir}/secret.csv' on true
select * from s3object, "{dir}/secret.csv"
from s3object join '{dir}/secret.csv' on true
select count(*) from '{dir}/secret.csv'
select count(*) from "/etc/passwd"
select count(*) from duckdb_settings
select count(*) from read_csv
table s3object
from s3object
select 'read_text(''x'')' from s3object -- read_text('y')
select regexp_matches(repeat('a', 1000), '(a+)+b')
select json_extract('{{"a": [1, 2]}}', '$.a[1]')
select list_aggregate([1, 2], 'sum')
select * from s3object a join s3object b using (a)
"""


def lines(text, **values):
    return [line.format(**values) for line in text.strip().splitlines()]


class Trap:
    """What the statements are after: a file, its directory, a port, an environment variable."""

    def __init__(self):
        self.tmp = tempfile.TemporaryDirectory(prefix="kvasir-hostile-")
        self.dir = pathlib.Path(self.tmp.name)
        self.dir.chmod(0o777)
        (self.dir / "secret.csv").write_text(f"a,b\n{SECRET},2\n")
        (self.dir / "link").symlink_to(self.dir / "secret.csv")
        self.names = sorted(os.listdir(self.dir))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(0)
        self.port = self.listener.getsockname()[1]
        self.env = dict(os.environ, SECRET=SECRET)

    def values(self):
        return {"dir": str(self.dir), "port": self.port}

    def sprung(self, answer):
        """What the statement got that it must not get, or None."""
        if SECRET.encode() in answer.data or SECRET in answer.text:
            return "it read the secret"
        if sorted(os.listdir(self.dir)) != self.names:
            return f"it made a file: {os.listdir(self.dir)}"
        if (self.dir / "secret.csv").read_text() != f"a,b\n{SECRET},2\n":
            return "it changed a file"
        try:
            self.listener.accept()
            return "it connected"
        except BlockingIOError:
            return None

    def close(self):
        self.listener.close()
        self.tmp.cleanup()


def first_line(text):
    return (text.strip().splitlines() or [""])[0]


def next_works(zygote):
    answer = zygote.ask("select sum(a) from s3object", [OBJECT])
    return answer.rc == 0 and answer.data == b"3\n"


def check_list(count, trap, filtered, open_, title, text, allowed):
    print(f"\n{title}\n{'statement':76} {'as it is':9} {'no filter':9} what was said")
    for sql in lines(text, **trap.values()):
        with_filter = filtered.ask(sql, [OBJECT], seconds=20, cpu_seconds=3)
        problem = trap.sprung(with_filter)
        if allowed and with_filter.rc != 0:
            problem = problem or "it is refused"
        if not allowed and with_filter.rc != -22:
            problem = problem or "it is not refused"
        if not allowed and len(with_filter.text) < 10:
            problem = problem or "it is refused without a reason"
        # Arrow, since there a statement is not wrapped into COPY: any kind of it is run.
        alone = open_.ask(sql, [OBJECT], seconds=20, cpu_seconds=3, output="arrow")
        problem = problem or trap.sprung(alone)
        if not next_works(filtered) or (alone.rc != -22 and not next_works(open_)):
            problem = problem or "the next query is not answered"
        short = sql.replace(trap.values()["dir"], "DIR").replace(str(trap.port), "PORT")
        said = with_filter.text if not allowed else bytes(with_filter.data).decode()
        print(f"{short[:76]:76} {with_filter.outcome():9} {alone.outcome():9} {first_line(said)[:90]}")
        if alone.rc not in (0, -22):
            print(f"{'':76} {'':9} {'':9} alone: {first_line(alone.text)[:90]}")
        count.check(problem is None, f"{sql}: {problem}: {with_filter.text!r} {alone.text!r}")


def run(count, program, unfiltered):
    trap = Trap()
    try:
        with Zygote(program, env=trap.env) as filtered, Zygote(unfiltered, env=trap.env) as open_:
            for title, text, allowed in [("Reading what is not the object", READS, False),
                                         ("State of the engine", STATE, False),
                                         ("Writing, and other statements", WRITES, False),
                                         ("Forms", FORMS, False),
                                         ("Harmless", HARMLESS, True)]:
                check_list(count, trap, filtered, open_, title, text, allowed)
    finally:
        trap.close()
