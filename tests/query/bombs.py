# SPDX-License-Identifier: Apache-2.0
"""Statements that want all memory, all time or all of the disk, or that are no text: each ends
within its limits with a reason, the worker's memory stays below what it was given, and the next
query is answered."""
import json
import os
import struct

from hostile import OBJECT, first_line, next_works
from worker import DATA, HEAD, QUERY, Answer, Zygote

MEM = 128 << 20
CPU = 1
# What the program itself holds besides: the engine's code and heap, its window.
RSS_MAX = MEM + (160 << 20)
ENDS = {"ok", "-ENOMEM", "-EINVAL", "-ETIMEDOUT", "-ECANCELED", "SIGXCPU", "SIGKILL", "SIGSEGV", "SIGABRT", "SIGBUS",
        "limit of the answer"}


def nest(open_, inner, close, n):
    return "select " + open_ * n + inner + close * n


def statements():
    yield "repeat 1e9", "select length(repeat('x', 1000000000))"
    yield "repeat 4e9", "select length(repeat('x', 4000000000))"
    yield "repeat of repeat", "select length(repeat(repeat('x', 100000), 100000))"
    yield "concat doubling", "with recursive r as (select 'x' s union all select s || s from r) select max(length(s)) from r"
    yield "lpad", "select length(lpad('x', 2000000000, 'y'))"
    yield "format width", "select length(format('{:1000000000}', 1))"
    yield "printf width", "select length(printf('%1000000000d', 1))"
    yield "bitstring", "select bit_length(bitstring('0101', 2000000000))"
    yield "list of 1e9", "select len(range(1000000000))"
    yield "list_resize", "select len(list_resize([1], 2000000000, 0))"
    yield "array_agg", "select len(array_agg(range)) from range(1000000000)"
    yield "string_agg", "select length(string_agg(range::varchar, ',')) from range(1000000000)"
    yield "string_split", "select len(string_split(repeat('a,', 100000000), ','))"
    yield "distinct of 1e9", "select count(*) from (select distinct range from range(1000000000))"
    yield "sort of 1e9", "select max(x) from (select sha256(range::varchar) x from range(1000000000) order by x limit 1000000000)"
    yield "hash join", "select count(*) from range(100000000) a join range(100000000) b on a.range = b.range"
    yield "cross join", "select count(*) from range(1000000) a, range(1000000) b, range(1000000) c where a.range + b.range = c.range * 3"
    yield "range of 1e15", "select sum(range) from range(1000000000000000)"
    yield "endless recursion", "with recursive r as (select 1 n union all select n + 1 from r) select count(*) from r"
    yield "endless recursion, rows", "with recursive r as (select 1 n union all select n + 1 from r) select * from r"
    yield "doubling recursion", "with recursive r as (select 1 n union all select n + 1 from r, range(2)) select count(*) from r"
    yield "CTEs squared", ("with a0 as (select 1 x from range(1000)), "
                           + ", ".join(f"a{i} as (select 1 x from a{i-1} l, a{i-1} r)" for i in range(1, 12))
                           + " select count(*) from a11 where x > 0")
    yield "answer of 1e12 rows", "select * from range(1000000000000)"
    yield "wide answer", "select repeat('x', 1000000) from range(1000000)"
    yield "sha256", "select max(sha256(sha256(sha256(range::varchar)))) from range(1000000000)"
    yield "regexp", "select regexp_replace(repeat('a', 1000000), '(a*)*b', 'x', 'g')"
    yield "regexp size", "select regexp_matches('x', '((((x{100}){100}){100}){100})')"
    yield "levenshtein", "select levenshtein(repeat('a', 1000000), repeat('b', 1000000))"
    yield "bignum", "select (repeat('9', 100000)::bignum)::varchar"
    yield "factorial", "select 1000000! from s3object"
    yield "json deep", "select json_extract(repeat('[', 1000000) || repeat(']', 1000000), '$[0]')"
    yield "json cast deep", "select (repeat('[', 1000000) || repeat(']', 1000000))::json"
    yield "list cast deep", "select ('" + "[" * 20000 + "]" * 20000 + "')::int" + "[]" * 500
    yield "parentheses 10,000", nest("(", "1", ")", 10000)
    yield "lists 10,000", nest("[", "1", "]", 10000)
    yield "functions 2,000", nest("lower(", "'x'", ")", 2000)
    yield "functions 20,000", nest("lower(", "'x'", ")", 20000)
    yield "NOT 20,000", "select " + "not " * 20000 + "true"
    yield "minus 20,000", "select " + "- " * 20000 + "1"
    yield "casts 20,000", "select 1" + "::int" * 20000
    yield "CASE 3,000", nest("case when true then ", "1", " end", 3000)
    yield "subqueries 1,000", nest("(select ", "1", ")", 1000)
    yield "tables in tables 1,000", "select * from " + "(select * from " * 1000 + "s3object" + ")" * 1000
    yield "structs 3,000", nest("{'a': ", "1", "}", 3000)
    yield "sum of 30,000", "select " + "+".join(["a"] * 30000) + " from s3object"
    yield "64 KiB of AND", "select count(*) from s3object where " + " and ".join(["a > 0"] * 6500)
    yield "64 KiB of text", "select '" + "x" * 65500 + "'"
    yield "64 KiB of (", "select " + "(" * 65500
    yield "64 KiB of spaces", "select 1" + " " * 65500
    yield "IN of 100,000", "select count(*) from s3object where a in (" + ",".join(map(str, range(100000))) + ")"
    yield "3,000 columns", "select " + ", ".join(f"a as c{i}" for i in range(3000)) + " from s3object"
    yield "UNION of 2,000", " union all ".join(["select a from s3object"] * 2000)
    yield "join of 300", "select count(*) from s3object t0" + "".join(f" join s3object t{i} using (a)" for i in range(1, 300))
    yield "windows 200", "select " + ", ".join(f"sum(a) over (order by b rows {i} preceding)" for i in range(200)) + " from s3object"
    yield "name of 100,000", 'select a as "' + "x" * 100000 + '" from s3object'
    yield "table's name of 5,000", 'select * from "' + "x" * 5000 + '"'
    yield "empty", ""
    yield "only spaces", " \n\t "
    yield "only ;", ";;;"
    yield "only a comment", "-- select 1"
    yield "NUL inside", "select 1\0, 2"
    yield "NUL in a text", "select 'a\0b'"
    yield "right-to-left, BOM", "\ufeffselect 1 \u202e"
    yield "lone surrogate", "select '\ud800'"


RAW = [
    ("no JSON", b"select 1"),
    ("invalid UTF-8", b'{"sql": "select \xff\xfe", "input": "csv", "output": "csv", "objects": []}'),
    ("overlong UTF-8", b'{"sql": "select \xc0\xaf"}'),
    ("JSON 100,000 deep", b'{"sql": ' + b"[" * 100000),
    ("a number for SQL", b'{"sql": 1, "input": "csv", "output": "csv", "objects": []}'),
    ("no objects", b'{"sql": "select 1", "input": "csv", "output": "csv"}'),
    ("4 MiB of nothing", b" " * (4 << 20)),
]


def show(name, answer):
    print(f"{name:28} {answer.outcome():24} {answer.seconds:6.2f} s {answer.rss_bytes >> 20:5} MiB "
          f"{len(answer.data):12,} bytes  {first_line(answer.text)[:80]}", flush=True)


def check_bomb(count, zygote, name, sql):
    answer = zygote.ask(sql, [OBJECT], seconds=CPU * 10, answer_max=64 << 20, mem_bytes=MEM, cpu_seconds=CPU)
    show(name, answer)
    problem = None
    if answer.outcome() not in ENDS:
        problem = f"it ended with {answer.outcome()}"
    elif answer.rc is not None and answer.rc < 0 and len(answer.text) < 10:
        problem = "it ended without a reason"
    elif answer.rss_bytes > RSS_MAX:
        problem = f"it took {answer.rss_bytes >> 20} MiB of memory"
    elif answer.cpu_us > (CPU + 2) * 1000000:
        problem = f"it took {answer.cpu_us // 1000} ms of a processor"
    elif not next_works(zygote):
        problem = "the next query is not answered"
    count.check(problem is None, f"{name}: {problem}: {answer.text[:300]}")


def tell(zygote, *messages):
    """A worker that is told something that the daemon would not say."""
    worker = zygote.spawn(MEM, 1)
    answer = Answer()
    for message in messages:
        try:
            worker.sock.sendall(message)
        except (BrokenPipeError, ConnectionResetError):
            break
    worker.sock.shutdown(1)
    worker.sock.settimeout(10)
    try:
        while worker.sock.recv(1 << 16):
            pass
    except (ConnectionResetError, TimeoutError):
        pass
    worker.end(answer)
    return answer


def check_nonsense(count, zygote):
    """Heads that lie, garbage, answers to what was not asked: the worker ends, not by a fault."""
    query = json.dumps({"sql": "select 1", "input": "csv", "output": "csv", "header": "auto", "header_out": False,
                        "delim": "", "quote": "", "escape": "", "schema": "", "known": None,
                        "objects": [{"name": "x", "size": 100}]}).encode()
    whole = HEAD.pack(QUERY, len(query), 0, 0, 0, 0) + query
    for name, messages in [
            ("a length of 4 GiB", [HEAD.pack(QUERY, 0xffffffff, 0, 0, 0, 0)]),
            ("an unknown type", [HEAD.pack(77, 0, 0, 0, 0, 0)]),
            ("a slot that is none", [whole, HEAD.pack(DATA, 0, 1, 0, 0xffffffff, 0)]),
            ("data that were not asked for", [whole.replace(b"select 1", b"from s3o"), HEAD.pack(DATA, 0, 100, 0, 0, 0)]),
            ("more data than asked for", [HEAD.pack(QUERY, len(query), 0, 0, 0, 0) + query, HEAD.pack(DATA, 0, 1 << 40, 0, 0, 0)]),
            ("two queries", [whole, whole]),
            ("an empty query", [HEAD.pack(QUERY, 0, 0, 0, 0, 0)]),
            ("half a head", [b"\x01\0\0"]),
            ("half a query", [whole[:80]]),
            ("random bytes", [os.urandom(1 << 16)])]:
        answer = tell(zygote, *messages)
        faults = {"SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT"}
        print(f"{name:36} {answer.outcome()}")
        count.check(answer.outcome() not in faults and next_works(zygote), f"{name}: {answer.outcome()}")


def run(count, program, _unfiltered):
    with Zygote(program) as zygote:
        print(f"\nMemory {MEM >> 20} MiB, {CPU} s of a processor, 64 MiB of answer\n"
              f"{'statement':28} {'outcome':24} {'time':>8} {'memory':>9} {'answer':>18}")
        for name, sql in statements():
            check_bomb(count, zygote, name, sql)
        for name, raw in RAW:
            answer = zygote.ask_raw(raw, [], 20)
            show(name, answer)
            refused = answer.rc is not None and answer.rc < 0 and len(answer.text) > 10
            count.check(refused and next_works(zygote), f"{name}: {answer.outcome()} {answer.text!r}")
        print("\nWhat the daemon would not say")
        check_nonsense(count, zygote)
