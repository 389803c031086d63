# SPDX-License-Identifier: Apache-2.0
"""bench/run query: SELECT over NVMe/TCP beside the engine that is under it, and beside Retrieve.

The engine alone (bench-duckdb) reads files from the page cache; Kvasir serves a mem device. Runs
alternate, medians count. README.md has the rules.
"""
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
import time
import json

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SMALL_SQL = "select s_name, s_address, s_city from {} where s_suppkey = 50"
SMALL_SCHEMA = "s_suppkey INTEGER, s_name VARCHAR, s_address VARCHAR, s_city VARCHAR, s_nation VARCHAR"
COLUMN_SQL = "select count(*), max(c3) from {} where c3 % 1000 = 7"
CSV_SQL = "select count(*), sum(amount) from {} where id % 10 = 3"
CSV_SCHEMA = "id BIGINT, name VARCHAR, amount DOUBLE, day DATE, note VARCHAR"
HEAVY_SQL = "select count(*), sum(length(md5(note || id::varchar))) from {}"
SMALL_PAUSE_MS = 100  # a host asks now and then: caches are cold, in the engine alone as well
SIZES = {"small": [10, 30], "default": [10, 100, 1024], "full": [10, 100, 1024]}  # MiB of Parquet
ROW_BYTES = 8 * 8  # of Parquet: eight columns of random 64-bit numbers do not compress


def say(text=""):
    print(text, flush=True)


class Bench:
    def __init__(self, args):
        self.args = args
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="kvasir-bench-query-", dir=args.dir))
        self.engine = pathlib.Path(os.environ.get("KVASIR_QUERY_ENGINE") or
                                   args.build / "deps/duckdb-1.5.6/libduckdb.so")
        self.bars = []

    def duckdb(self, sql, times=1, threads=1, pause_ms=0):
        """What each run took, ms."""
        argv = [self.args.build / "bench/query/bench-duckdb", self.engine, str(threads), str(times), sql, str(pause_ms)]
        return json.loads(self.out(argv))["ms"]

    def ask(self, uri, key, sql, times=1, threads=1, input="csv", schema=None, pause_ms=0):
        argv = [self.args.build / "bench/query/bench-ask", uri, key, sql, "times", str(times), "threads", str(threads),
                "pause", str(pause_ms), "input", input, *(["schema", schema] if schema else [])]
        return json.loads(self.out(argv))

    @staticmethod
    def out(argv):
        proc = subprocess.run(argv, capture_output=True, text=True)
        if proc.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, argv))}: {proc.stderr.strip()}")
        return proc.stdout

    def kvasir(self, *argv):
        return self.out([self.args.build / "kvasir", *argv])

    def put(self, uri, name):
        self.kvasir("put", uri, name, self.dir / name)

    def bar(self, text, got, wanted, most=True):
        self.bars.append((text, got, wanted, most))


def wire_bytes():
    """What has passed the loopback interface."""
    line = next(x for x in pathlib.Path("/proc/net/dev").read_text().splitlines() if x.strip().startswith("lo:"))
    return int(line.split()[1])


def counted(fn):
    before = wire_bytes()
    result = fn()
    return result, wire_bytes() - before


def ms(v):
    return f"{v:.2f} ms" if v < 100 else f"{v:.0f} ms" if v < 10_000 else f"{v / 1e3:.1f} s"


def size(v):
    return f"{v / KIB:.1f} KiB" if v < MIB else f"{v / MIB:.1f} MiB"


# --- the data ---------------------------------------------------------------------------------------

def make_data(b):
    rows = "\n".join(f"{i},Supplier#{i:09},address {i},CITY{i % 9},UNITED STATES" for i in range(1, 201))
    (b.dir / "small.csv").write_text("s_suppkey,s_name,s_address,s_city,s_nation\n" + rows + "\n")
    columns = ", ".join(f"hash(i * 8 + {c})::ubigint c{c}" for c in range(8))
    for mib in SIZES[b.args.scale]:
        b.duckdb(f"copy (select {columns} from range({mib * MIB // ROW_BYTES}) t(i)) to '{b.dir}/{mib}.parquet'", threads=0)
    for name, mib in (("big.csv", 10 if b.args.scale == "small" else 100), ("heavy.csv", 10)):
        b.duckdb(f"copy (select i id, 'customer ' || (hash(i) % 100000) as name, (hash(i) % 1000000) / 100 as amount, "
                 f"date '2020-01-01' + (i % 2000)::integer as day, 'note ' || md5(i::varchar)[:20] note "
                 f"from range({mib * MIB // 68}) t(i)) to '{b.dir}/{name}' (header)", threads=0)


def csv_file(b, name, schema):
    """The table function that reads the file with columns that are known."""
    columns = ", ".join("'{}': '{}'".format(*c.split()) for c in schema.split(", "))
    return f"read_csv('{b.dir}/{name}', columns = {{{columns}}}, header = true, auto_detect = false)"


# --- rows -------------------------------------------------------------------------------------------

def small_query(b, uri):
    b.put(uri, "small.csv")
    for pause_ms, when in ((0, "back to back"), (SMALL_PAUSE_MS, f"after {SMALL_PAUSE_MS} ms")):
        ours, alone = [], []
        for _ in range(b.args.runs):
            ours += b.ask(uri, "small.csv", SMALL_SQL.format("s3object"), times=20, schema=SMALL_SCHEMA,
                          pause_ms=pause_ms)["ms"][2:]
            alone += b.duckdb(SMALL_SQL.format(csv_file(b, "small.csv", SMALL_SCHEMA)), times=20, pause_ms=pause_ms)[2:]
        ours, alone = statistics.median(ours), statistics.median(alone)
        say(f"small query, 200 lines of CSV, {when}: {ms(ours)} over NVMe/TCP, {ms(alone)} in the engine alone")
        b.bar(f"small query over NVMe/TCP, {when}: ms", ours, 2.0)
        b.bar(f"small query over NVMe/TCP, {when}: time / the engine's own", ours / alone, 2.0)


def worker_start(b, server):
    """From the log: how long the zygote took to make each worker."""
    server.proc.send_signal(signal.SIGUSR1)
    time.sleep(0.5)
    server.log.seek(0)
    found = re.findall(r"workers made in p50 (\d+) us, p99 (\d+) us", server.log.read())
    if found:
        say(f"start of a worker: p50 {int(found[-1][0])} us, p99 {int(found[-1][1])} us")
        b.bar("start of a worker: ms", int(found[-1][0]) / 1e3, 2.0)


def parquet(b, uri):
    say(f"\n{'filter on one of 8 columns, Parquet':38}{'SELECT':>12}{'on the wire':>14}{'Retrieve + engine':>20}{'on the wire':>14}")
    for mib in SIZES[b.args.scale]:
        name = f"{mib}.parquet"
        b.put(uri, name)
        select, whole, select_wire, whole_wire = [], [], [], []
        for _ in range(b.args.runs if mib < 1000 else min(b.args.runs, 3)):
            result, wire = counted(lambda: b.ask(uri, name, COLUMN_SQL.format("s3object"), input="parquet"))
            select.append(result["ms"][0])
            select_wire.append(wire)
            copy = b.dir / "copy"
            began = time.monotonic()
            _, wire = counted(lambda: b.kvasir("get", uri, name, "-o", copy))
            whole.append((time.monotonic() - began) * 1e3 + b.duckdb(COLUMN_SQL.format(f"read_parquet('{copy}')"), threads=0)[0])
            whole_wire.append(wire)
            copy.unlink()
        a, w = statistics.median(select), statistics.median(whole)
        aw, ww = statistics.median(select_wire), statistics.median(whole_wire)
        say(f"{mib:>8} MiB{'':26}{ms(a):>12}{size(aw):>14}{ms(w):>20}{size(ww):>14}")
        b.bar(f"one column of {mib} MiB of Parquet: time / Retrieve + engine", a / w, 1.0)
        b.bar(f"one column of {mib} MiB of Parquet: bytes on the wire / Retrieve", aw / ww, 1.0)


def csv(b, uri):
    b.put(uri, "big.csv")
    ours, alone, both = [], [], []
    table = csv_file(b, "big.csv", CSV_SCHEMA)
    for _ in range(b.args.runs):
        ours += b.ask(uri, "big.csv", CSV_SQL.format("s3object"), schema=CSV_SCHEMA)["ms"]
        alone += b.duckdb(CSV_SQL.format(table))
        both += b.duckdb(CSV_SQL.format(table), threads=0)
    ours, alone, both = (statistics.median(x) for x in (ours, alone, both))
    say(f"\nCSV {size((b.dir / 'big.csv').stat().st_size)}, known schema: {ms(ours)} over NVMe/TCP; the engine on a local "
        f"file: {ms(alone)} with one thread, as a query has, {ms(both)} with one for each processor")
    b.bar("CSV with a known schema: time / the engine's on a local file, one thread", ours / alone, 1.2)


# --- several at once --------------------------------------------------------------------------------

def busy_seconds():
    fields = [int(x) for x in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def workers_of(pid):
    """Resident bytes of the queries of a server: the processes under its zygote."""
    parents, rss = {}, {}
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        me = int(re.search(r"^Pid:\s+(\d+)", text, re.M)[1])
        parents[me] = int(re.search(r"^PPid:\s+(\d+)", text, re.M)[1])
        anon = re.search(r"^RssAnon:\s+(\d+)", text, re.M)
        rss[me] = int(anon[1]) * KIB if anon else 0
    return [rss[p] for p, parent in parents.items() if parents.get(parent) == pid]


def eight(b, server, uri):
    b.put(uri, "heavy.csv")
    most, stop = [0], threading.Event()

    def watch():
        while not stop.wait(0.05):
            most[0] = max([most[0], *workers_of(server.proc.pid)])

    watcher = threading.Thread(target=watch)
    watcher.start()
    busy, began = busy_seconds(), time.monotonic()
    b.ask(uri, "heavy.csv", HEAVY_SQL.format("s3object"), times=4, threads=8, schema=CSV_SCHEMA)
    took = time.monotonic() - began
    cores = (busy_seconds() - busy) / took
    stop.set()
    watcher.join()
    say(f"\n8 queries at once, four times: {took:.1f} s, {cores:.2f} cores used, at most {size(most[0])} of memory in one")
    b.bar("8 queries at once: share of all cores used", cores / len(os.sched_getaffinity(0)), 0.9, most=False)
    b.bar("8 queries at once: memory of the largest / the limit of 256 MiB", most[0] / (256 * MIB), 1.0)


def at_once(args):
    """Before a client: elsewhere it has a machine of its own, so it does not wait for a processor here. Needs root."""
    os.sched_setaffinity(0, args.client_cpu)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        pass


def retrieve(b, server):
    argv = server.argv(2, "retrieve", 4096, 1, b.args.seconds, "--keys", "1000", poll="never")
    proc = subprocess.run(argv, capture_output=True, text=True, preexec_fn=lambda: at_once(b.args), check=True)
    return json.loads(proc.stdout.strip().splitlines()[-1])["read"]["p99_us"]


def retrieve_p99(b, server_class):
    """Reactor alone on its core; client and queries share the others."""
    core = min(b.args.server_cpu)
    with server_class(kv="mem:?size=1G", block="mem:?size=16M",
                      extra=["--cores", f"{core}-{core}", "--query-workers", "8"]) as server:
        uri = server.uri(2)
        b.put(uri, "heavy.csv")
        b.ask(uri, "heavy.csv", "select count(*) from s3object", schema=CSV_SCHEMA)
        alone, beside = [], []
        for _ in range(b.args.runs):
            alone.append(retrieve(b, server))
            load = subprocess.Popen([b.args.build / "bench/query/bench-ask", uri, "heavy.csv", HEAVY_SQL.format("s3object"),
                                     "times", "1000", "threads", "8", "schema", CSV_SCHEMA], stdout=subprocess.DEVNULL,
                                    stderr=subprocess.DEVNULL)
            time.sleep(0.5)
            beside.append(retrieve(b, server))
            load.kill()
            load.wait()
            time.sleep(0.5)
    alone, beside = statistics.median(alone), statistics.median(beside)
    say(f"4 KiB Retrieve, depth 1, p99: {alone:.0f} us alone, {beside:.0f} us beside 8 queries")
    b.bar("4 KiB Retrieve p99 beside 8 queries / alone", beside / alone, 2.0)


def show_bars(b, results):
    say(f"\n{'what is wanted':78}{'bar':>9}{'got':>9}")
    for text, got, wanted, most in b.bars:
        good = got <= wanted if most else got >= wanted
        verdict = "reached" if good else "MISSED"
        say(f"{text:78}{('<=' if most else '>=') + f' {wanted:.2f}':>9}{got:>9.2f}  {verdict}")
        results[f"query: {text}"] = {"got": got, "bar": wanted, "at_most": most, "verdict": verdict}


def run(args, results, server_class):
    targets = ["bench/query/bench-ask", "bench/query/bench-duckdb", "kvasir", "kvasir-query"]
    subprocess.run(["ninja", "-C", args.build, *targets], check=True, stdout=subprocess.DEVNULL)
    b = Bench(args)
    if not b.engine.exists():
        say("skipped: no engine (make deps)")
        shutil.rmtree(b.dir)
        return True
    args.runs = args.runs or 5
    try:
        make_data(b)
        # Queries take all cores, as on a machine that does nothing else: the reactor sleeps when it is idle.
        with server_class(poll="never", kv="mem:?size=4G", block="mem:?size=16M", cpus=os.sched_getaffinity(0),
                          extra=["--query-workers", "8", "-v"]) as server:
            uri = server.uri(2)
            small_query(b, uri)
            worker_start(b, server)
            parquet(b, uri)
            csv(b, uri)
            eight(b, server, uri)
        retrieve_p99(b, server_class)
    finally:
        shutil.rmtree(b.dir, ignore_errors=True)
    show_bars(b, results)
    return True
