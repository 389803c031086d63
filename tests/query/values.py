# SPDX-License-Identifier: Apache-2.0
"""Answers compared with readers that are not ours: Python's csv and json, pyarrow, and duckdb for
Python. Types, NULLs, quoting, Unicode, compressed, empty, wide, long, damaged and foreign objects,
several objects, all forms of output."""
import csv
import decimal
import gzip
import io
import json
import random
import re
import struct

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from worker import Zygote

WORDS = ["", "plain", "with,comma", 'with "quotes"', "two\nlines", "ünïcödé", "日本語", "🦆🦆", " spaces ", "NULL", "'",
         "tab\there", "back\\slash", "-", "\u202ertl", "é", "0", "null", ";|"]


def make_rows(n, seed):
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        rows.append({"id": i, "word": rng.choice(WORDS[1:]), "small": rng.choice([None, rng.randrange(-100, 100)]),
                     "big": rng.randrange(-2**62, 2**62), "real": rng.choice([None, rng.uniform(-1e6, 1e6)]),
                     "flag": rng.choice([None, True, False]),
                     "day": f"{rng.randrange(1900, 2100)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"})
    return rows


def as_csv(rows, **options):
    out = io.StringIO()
    w = csv.writer(out, lineterminator="\n", **options)
    w.writerow(rows[0].keys())
    for row in rows:
        w.writerow(["" if v is None else str(v).lower() if isinstance(v, bool) else v for v in row.values()])
    return out.getvalue().encode()


def as_jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_json(rows):
    return json.dumps(rows).encode()


def as_parquet(rows, **options):
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, **options)
    return out.getvalue()


class Values:
    def __init__(self, count, zygote):
        self.count, self.zygote = count, zygote

    def ask(self, sql, *objects, **more):
        return self.zygote.ask(sql, list(objects), **more)

    def arrow(self, sql, *objects, **more):
        """The answer as a table of pyarrow, which checks what it reads; or the text of the error."""
        a = self.ask(sql, *objects, output="arrow", **more)
        if a.rc != 0:
            return f"{a.outcome()}: {a.text}"
        table = pa.ipc.open_stream(bytes(a.data)).read_all()
        table.validate(full=True)
        assert table.num_rows == a.rows, (table.num_rows, a.rows)
        return table

    def same(self, what, got, want):
        self.count.check(got == want, f"{what}:\n    got  {str(got)[:600]}\n    want {str(want)[:600]}")

    def refused(self, what, answer, *words, rcs=(-22, -74)):
        ok = answer.rc in rcs and len(answer.text) > 10 and all(w.lower() in answer.text.lower() for w in words)
        self.count.check(ok, f"{what}: {answer.outcome()} {answer.text!r}, expected {words}")
        print(f"  {what}: {answer.outcome()} {answer.text.splitlines()[0][:120] if answer.text else ''}")


def inputs(v):
    """The same rows in every form give the same answers as in Python."""
    rows = make_rows(5000, 1)
    objects = {"csv": as_csv(rows), "jsonl": as_jsonl(rows), "json": as_json(rows), "parquet": as_parquet(rows)}
    objects["csv gzip"], objects["jsonl gzip"] = gzip.compress(objects["csv"]), gzip.compress(objects["jsonl"])
    compress = pa.Codec("zstd").compress
    objects["csv zstd"] = compress(objects["csv"], asbytes=True)
    for codec in ["snappy", "gzip", "zstd", "none"]:
        objects[f"parquet {codec}"] = as_parquet(rows, compression=codec, row_group_size=700)
    words = {}
    for row in rows:
        words[row["word"]] = words.get(row["word"], 0) + 1
    smalls = [r["small"] for r in rows if r["small"] is not None]
    for name, data in objects.items():
        kind = name.split()[0]
        t = v.arrow("select word, count(*) n from s3object group by word", data, input=kind)
        v.same(f"{name}: group by", t if isinstance(t, str) else {r["word"]: r["n"] for r in t.to_pylist()}, words)
        t = v.arrow("select count(*) a, count(small) b, sum(small)::bigint c, min(big) d, max(big) e, "
                    "count(*) filter (flag) f from s3object", data, input=kind)
        v.same(f"{name}: sums", t if isinstance(t, str) else list(t.to_pylist()[0].values()),
               [len(rows), len(smalls), sum(smalls), min(r["big"] for r in rows), max(r["big"] for r in rows),
                sum(r["flag"] is True for r in rows)])
        t = v.arrow("select id, word, real from s3object where id % 97 = 5 order by id", data, input=kind)
        v.same(f"{name}: rows", t if isinstance(t, str) else [tuple(r.values()) for r in t.to_pylist()],
               [(r["id"], r["word"], r["real"]) for r in rows if r["id"] % 97 == 5])
        t = v.arrow("select min(day::date)::varchar a, max(day::date)::varchar b from s3object", data, input=kind)
        v.same(f"{name}: dates", t if isinstance(t, str) else list(t.to_pylist()[0].values()),
               [min(r["day"] for r in rows), max(r["day"] for r in rows)])


def outputs(v):
    """Every output, read back by other readers, holds the rows."""
    rows = make_rows(3000, 2)
    data = as_parquet(rows)
    ask = lambda output, **m: v.ask("select id, word, small, real, flag from s3object order by id", data, input="parquet",
                                    output=output, **m)
    want = [{k: r[k] for k in ("id", "word", "small", "real", "flag")} for r in rows]
    v.same("output jsonl", [json.loads(line) for line in bytes(ask("jsonl").data).splitlines()], want)
    v.same("output json", json.loads(bytes(ask("json").data)), want)
    v.same("output parquet", pq.read_table(io.BytesIO(bytes(ask("parquet").data))).to_pylist(), want)
    v.same("output arrow", pa.ipc.open_stream(bytes(ask("arrow").data)).read_all().to_pylist(), want)
    text = [["" if x is None else str(x).lower() if isinstance(x, bool) else x if isinstance(x, str) else str(x)
             for x in r.values()] for r in want]
    got = list(csv.reader(io.StringIO(bytes(ask("csv", header_out=True).data).decode(), newline="")))
    v.same("output csv, header", got[0], list(want[0]))
    same_number = lambda a, b: a == b or (a and b and float(a) == float(b))
    pairs = [(g, w) for g, w in zip(got[1:], text)
             if g[:3] != w[:3] or g[4] != w[4] or not same_number(g[3], w[3])]
    v.same("output csv, rows", (len(got) - 1, pairs[:3]), (len(text), []))
    v.same("output csv without header", bytes(ask("csv").data).count(b"\n") + 1,
           bytes(ask("csv", header_out=True).data).count(b"\n"))


TYPES = """select true as b, 1::tinyint i8, 200::utinyint u8, -3::smallint i16, 4::usmallint u16, 5::int i32, 6::uinteger u32,
 (-7)::bigint i64, 18446744073709551615::ubigint u64, 170141183460469231731::hugeint h, 1.5::float f, 'nan'::double nan, '-inf'::double inf,
 12.34::decimal(4,2) d4, 12.34::decimal(9,3) d9, 1234567890123.45::decimal(18,2) d18, 1234567890123.45::decimal(38,2) d38,
 'ü' s, '\\xAA\\x00'::blob bl, date '-0044-03-15' bc, date '2020-01-02' da, time '01:02:03.5' ti, timestamp '2020-01-02 03:04:05.678' ts,
 timestamptz '2020-01-02 03:04:05+02' tz, timestamp_s '2020-01-02 03:04:05' tss, timestamp_ms '2020-01-02 03:04:05.1' tsm,
 timestamp_ns '2020-01-02 03:04:05.123456789' tsn, interval '1 month 2 days 3 seconds' iv, [1, 2, null] li, []::int[] le,
 {'x': 1, 'y': 'z'} st, map {'k': 1, 'l': null} ma, [1, 2, 3]::int[3] fx, 'b'::enum('a', 'b', 'c') en,
 uuid '00000000-0000-0000-0000-000000000001' u, [[['q'], null]] l3, {'a': {'b': [{'c': 1}]}} ns, '{"a":1}'::json js, null n"""


def types(v):
    """What the engine makes, through our Arrow stream and through duckdb's own for Python."""
    con = duckdb.connect()
    con.sql("set TimeZone = 'UTC'")
    n = 5000
    sql = f"select case when r % 3 = 0 then null else COL end x from ({TYPES}), (select range r from range({n}))"
    names = con.sql(TYPES).columns
    for name in names:
        query = sql.replace("COL", f'"{name}"')
        if name == "fx":  # which CASE does not know
            query = f"select fx x from ({TYPES}), range({n})"
        want = con.sql(query).to_arrow_table()
        got = v.arrow(query, b"a\n1\n")
        if isinstance(got, str):
            v.count.check(False, f"type {name}: {got}")
            continue
        v.same(f"type {name}: Arrow's type", str(got.schema.field("x").type).replace("Etc/UTC", "UTC"),
               str(want.schema.field("x").type).replace("Etc/UTC", "UTC"))
        values = lambda t: str(t["x"].combine_chunks().to_string(window=n)) if name in ("tsn", "bc") else repr(t["x"].to_pylist())
        v.same(f"type {name}: values", values(got).replace("Etc/UTC", "UTC"), values(want).replace("Etc/UTC", "UTC"))


def dialects(v):
    rows = make_rows(300, 3)
    want = [r["word"] for r in rows]
    for name, options, more in [("semicolons", {"delimiter": ";"}, {"delim": ";"}), ("tabs", {"delimiter": "\t"}, {"delim": "\t"}),
                                ("bars", {"delimiter": "|"}, {"delim": "|"}), ("all quoted", {"quoting": csv.QUOTE_ALL}, {}),
                                ("single quotes", {"quotechar": "'"}, {"quote": "'", "escape": "'"})]:
        t = v.arrow("select word from s3object order by id", as_csv(rows, **options), header="yes", **more)
        v.same(f"csv, {name}", t if isinstance(t, str) else t["word"].to_pylist(), want)
    crlf = as_csv(rows[:50]).replace(b"two\nlines", b"two lines").replace(b"\n", b"\r\n")
    t = v.arrow("select count(*) n, sum(id)::bigint s from s3object", crlf)
    v.same("csv, CRLF", t if isinstance(t, str) else t.to_pylist(), [{"n": 50, "s": 1225}])
    t = v.arrow("select sum(column0)::bigint s from s3object", b"1,x\n2,y\n3,z\n", header="no")
    v.same("csv, no header", t if isinstance(t, str) else t.to_pylist(), [{"s": 6}])
    t = v.arrow("select typeof(a) t, a from s3object", b"a\n007\n", schema="a VARCHAR")
    v.same("csv, a schema given", t if isinstance(t, str) else t.to_pylist(), [{"t": "VARCHAR", "a": "007"}])
    t = v.arrow("select a, b from s3object", b"\xef\xbb\xbfa,b\n1,\n,2\n")
    v.same("csv, BOM and NULLs", t if isinstance(t, str) else t.to_pylist(), [{"a": 1, "b": None}, {"a": None, "b": 2}])


def several(v):
    parts = [make_rows(100, s) for s in range(5)]
    want = sum(r["id"] for part in parts for r in part)
    for kind, form in [("csv", as_csv), ("jsonl", as_jsonl), ("parquet", as_parquet)]:
        t = v.arrow("select count(*) n, sum(id)::bigint s from s3object", *[form(p) for p in parts], input=kind)
        v.same(f"five objects of {kind}", t if isinstance(t, str) else t.to_pylist(), [{"n": 500, "s": want}])


def odd_objects(v):
    """Empty, damaged, of another format: the right answer or a reason, never something else."""
    good = as_parquet(make_rows(2000, 4))
    print("\nObjects that are not right")
    t = v.arrow("select count(*) n from s3object", b"a,b\n")
    v.same("csv of a header only", t if isinstance(t, str) else t.to_pylist(), [{"n": 0}])
    for kind in ["csv", "json", "jsonl", "parquet"]:
        a = v.ask("select count(*) from s3object", b"", input=kind)
        if a.rc == 0:
            v.same(f"an empty object as {kind}", bytes(a.data), b"0\n")
        else:
            v.refused(f"an empty object as {kind}", a)
    v.refused("parquet, end cut off", v.ask("select count(*) from s3object", good[:-1000], input="parquet"))
    v.refused("parquet, only 3 bytes", v.ask("select count(*) from s3object", b"PAR", input="parquet"))
    footer = bytearray(good)
    footer[-8:-4] = struct.pack("<I", 0x7fffffff)
    v.refused("parquet, a footer of 2 GiB", v.ask("select count(*) from s3object", bytes(footer), input="parquet"))
    v.refused("csv as parquet", v.ask("select * from s3object", as_csv(make_rows(9, 1)), input="parquet"))
    v.refused("parquet as json", v.ask("select * from s3object", good, input="json"))
    v.refused("csv as json", v.ask("select * from s3object", as_csv(make_rows(9, 1)), input="json"))
    v.refused("json, cut off", v.ask("select count(x) from s3object", b'[{"x": 1}, {"x": ', input="json"))
    v.refused("jsonl, garbage in the middle", v.ask("select sum(x) from s3object", b'{"x": 1}\n{"x: }}\n{"x": 3}\n', input="jsonl"))
    v.refused("csv, a text where a number has to be",
              v.ask("select sum(a) from s3object", b"a\n" + b"1\n2\n" * 20000 + b"x\n", schema="a INTEGER"), "x")
    v.refused("csv, invalid UTF-8", v.ask("select * from s3object", b"a,b\n1,\xff\xfe\xfd\n" * 10))
    v.refused("gzip, cut off", v.ask("select count(*) from s3object", gzip.compress(as_csv(make_rows(5000, 1)))[:-4000]))
    rng = random.Random(5)
    died = wrong = 0
    for i in range(60):
        bad = bytearray(good)
        for _ in range(rng.choice([1, 3, 20])):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        a = v.ask("select word, sum(big), sum(small), max(real), max(day) from s3object group by all order by all", bytes(bad), input="parquet", cpu_seconds=4)
        died += a.rc is None
        wrong += a.rc is not None and a.rc < 0 and len(a.text) < 10
    print(f"  60 Parquet objects with wrong bytes: {died} ended their worker, each other gave an answer or a reason")
    v.same("parquet, wrong bytes: without a reason", wrong, 0)
    t = v.arrow("select count(*) n from s3object", good, input="parquet")
    v.same("the next query", t if isinstance(t, str) else t.to_pylist(), [{"n": 2000}])


def wide(v):
    """Many columns: the right answer, or a reason within the limits."""
    print("\nMany columns")
    for n, kind in [(500, "csv"), (10000, "csv"), (100000, "csv"), (1000000, "csv"), (10000, "parquet"), (300, "json"), (5000, "json")]:
        if kind == "csv":
            data = (",".join(f"c{i}" for i in range(n)) + "\n" + ",".join(map(str, range(n))) + "\n").encode()
        elif kind == "json":
            data = json.dumps({f"c{i}": i for i in range(n)}).encode() + b"\n"
        else:
            out = io.BytesIO()
            pq.write_table(pa.table({f"c{i}": [i] for i in range(n)}), out)
            data = out.getvalue()
        a = v.ask(f"select c{n - 1}, c{n // 2} from s3object", data, input=kind, seconds=60, cpu_seconds=30)
        print(f"  {n:,} columns of {kind}: {a.outcome()} {a.seconds:.1f} s, {a.rss_bytes >> 20} MiB {a.text.splitlines()[0][:90] if a.text else ''}",
              flush=True)
        if n <= 500 or kind != "csv":
            v.same(f"{n} columns of {kind}", (a.rc, bytes(a.data)), (0, f"{n - 1},{n // 2}\n".encode()))
        else:
            v.count.check(a.data == f"{n - 1},{n // 2}\n".encode() or (a.rc in (-22, -12, -74) and len(a.text) > 10) or
                          a.outcome() in ("SIGXCPU",), f"{n} columns: {a.outcome()} {a.text!r}")
            needs = re.search(rf"CSV with {n} columns a few take about (\d+) MiB", a.text)
            v.count.check(a.rc != -12 or needs, f"{n} columns: the error does not say what they take: {a.text!r}")
            if n == 10000 and needs:
                a = v.ask(f"select c{n - 1} from s3object", data, input=kind, seconds=60, cpu_seconds=30, mem_bytes=int(needs[1]) << 20)
                v.same(f"{n} columns with the memory the error tells", (a.text, bytes(a.data)), ("", f"{n - 1}\n".encode()))


def long(v):
    """An object that is made while it is read: few of its bytes for a first row, all for a sum."""
    line = 64
    size = 48 << 20

    def read(offset, length):
        first, last = offset // line, (offset + length + line - 1) // line
        return b"".join(b"%062d,\n" % i for i in range(first, last))[offset - first * line:][:length]
    a = v.ask("select sum(n)::bigint, count(*) from s3object", (read, size), header="no", schema="n BIGINT, x VARCHAR", seconds=100,
              cpu_seconds=60)
    n = size // line
    v.same("48 MiB: sum", (a.text, bytes(a.data)), ("", b"%d,%d\n" % (n * (n - 1) // 2, n)))
    v.count.check(a.rss_bytes < 200 << 20, f"48 MiB: {a.rss_bytes >> 20} MiB of memory")
    a = v.ask("select n from s3object limit 3", (read, 1 << 40), header="no", schema="n BIGINT, x VARCHAR", seconds=60)
    v.same("1 TiB: the first rows", (a.text, bytes(a.data)), ("", b"0\n1\n2\n"))
    v.count.check(a.read_bytes < 128 << 20, f"1 TiB, first rows: {a.read_bytes} bytes read")
    table = pa.table({"a": list(range(400000)), "b": [f"text {i * 7919}" for i in range(400000)]})
    out = io.BytesIO()
    pq.write_table(table, out, compression="none", use_dictionary=False)
    data = out.getvalue()
    a = v.ask("select sum(a)::bigint from s3object", data, input="parquet")
    v.same("Parquet: a column", (a.text, bytes(a.data)), ("", b"%d\n" % (400000 * 399999 // 2)))
    v.count.check(a.read_bytes < len(data) // 2, f"Parquet, one of two columns: {a.read_bytes} of {len(data)} bytes read")


def run(count, program, _unfiltered):
    decimal.getcontext().prec = 60
    with Zygote(program) as zygote:
        v = Values(count, zygote)
        for part in (inputs, outputs, types, dialects, several, odd_objects, wide, long):
            part(v)
