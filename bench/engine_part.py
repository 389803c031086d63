# SPDX-License-Identifier: Apache-2.0
"""bench/run engine: Kvasir's engine beside RocksDB, LevelDB and LMDB, and fio beside them all.

Every session is one process of bench-engine in a directory of its own. Engines take turns within a
session, and sessions are repeated, so that what else the machine does meets all of them; medians
count. README.md has the rules (durability, memory) and what the columns mean.
"""
import atexit
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import time

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PEERS = ["rocksdb", "leveldb", "lmdb"]
DEPTH = 32


class Scale:
    """How much of everything. `full` is what docs/roadmap.md holds the engine to."""

    def __init__(self, items, small_items, seconds, mib_items, big_items, big_bytes, reopen_bytes, runs):
        self.items = items              # of 4 KiB
        self.small_items = small_items  # of 100 bytes
        self.seconds = seconds          # of a phase that is limited by time
        self.mib_items = mib_items      # of 1 MiB
        self.big_items = big_items      # of 64 MiB
        self.big_bytes = big_bytes      # or less
        self.reopen_bytes = reopen_bytes
        self.runs = runs

    @property
    def limit(self):
        """Of a phase of bench-engine."""
        return f"/{round(self.seconds * 1000)}ms"

    @property
    def cache(self):
        return max(self.items * 4096 // 4, 4 * MIB)


SCALES = {
    "small": Scale(4000, 10_000, 0.1, 10, 10, 4 * MIB, 16 * MIB, 1),
    "default": Scale(32_000, 100_000, 1, 256, 10, 64 * MIB, 256 * MIB, 3),
    "full": Scale(1_000_000, 2_000_000, 10, 2048, 32, 64 * MIB, 10 * GIB, 3),
}


def say(text=""):
    print(text, flush=True)


# --- memory -----------------------------------------------------------------------------------------

class Cgroup:
    """A limit for what a process and its page cache use: version 2 where it has the memory controller, else 1."""

    def __init__(self, limit):
        self.path = None
        for root, limits in (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
            path = pathlib.Path(root) / f"kvasir-bench-{os.getpid()}"
            if not (pathlib.Path(root) / "cgroup.procs").exists():
                continue
            try:
                path.mkdir(exist_ok=True)
                with open(path / limits, "r+") as f:
                    f.write(str(limit))
                self.path = path
                break
            except OSError:
                remove_dir(path)

    def enter(self):
        if self.path is not None:
            (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def close(self):
        if self.path is not None:
            for _ in range(50):
                if remove_dir(self.path):
                    return
                time.sleep(0.1)


def remove_dir(path):
    try:
        path.rmdir()
        return True
    except OSError:
        return False


def forget(path):
    """Takes files out of the page cache: pages that an earlier process read are charged to nobody any more."""
    os.sync()
    for name in path.iterdir():
        if name.is_file():
            with open(name, "rb") as f:
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# --- running ----------------------------------------------------------------------------------------

def file_bytes(data):
    """Of a file in whose segments `data` bytes have room: a blobstore has 4 KiB of metadata for each cluster, and
    clusters of a small one have 64 KiB; the ends of blocks and segments are lost."""
    size = data * 1.02 * (16 / 15 if data < GIB else 1.01)
    return max(int(size), 64 * MIB) // MIB * MIB


def write_file(path, size):
    """A file whose blocks have all been written once."""
    with open(path, "wb") as f:
        for _ in range(size // MIB):
            f.write(bytes(MIB))
        os.fsync(f.fileno())


class Failed(Exception):
    """An engine could not do what a session asks for: its rows are missing, the others go on."""


class Bench:
    def __init__(self, args, scale):
        self.args, self.scale = args, scale
        self.big_put, self.big_get = (name.format(scale.big_bytes // MIB) for name in (BIG_PUT, BIG_GET))
        self.program = args.build / "bench/engine/bench-engine"
        self.dir = (args.dir or args.build / "bench-engine").resolve() / f"run-{os.getpid()}"
        self.dir.mkdir(parents=True)
        atexit.register(shutil.rmtree, self.dir, ignore_errors=True)
        usage = subprocess.run([self.program], capture_output=True, text=True).stderr
        have = re.search(r"^engines: (.*)", usage, re.M)[1].split()
        self.engines = ["kvasir"] + [e for e in PEERS if e in have]
        for name in PEERS:
            if name not in have:
                say(f"{name} is not here (lib{name}-dev): its column is missing")
        if args.engines:
            self.engines = [e for e in self.engines if e in args.engines]
        self.cgroups = self.try_cgroup()
        self.failures = []
        self.rows = {}  # row: {engine: [line...]}

    @staticmethod
    def try_cgroup():
        group = Cgroup(64 * MIB)
        group.close()
        if group.path is None:
            say("no memory cgroup can be made here (that needs root): LevelDB and LMDB have the whole page cache, and "
                "their reads are of memory")
        return group.path is not None

    def uri(self, path, cache, more=""):
        """Kvasir's device: --uri with {path}, {dir} and {memory} put in."""
        return self.args.uri.format(path=path / "kvasir.img", dir=path, memory=cache) + more

    def engine(self, engine, path, phases, items, value, cache=None, nosync=False, fill=None, more="",
               killed=False, reactors=1):
        """Runs phases on what is in `path`; returns their lines."""
        cache = cache or self.scale.cache
        argv = [self.program, engine, path, "--items", str(items), "--value", str(value), "--cache", str(cache)]
        if engine == "kvasir":
            if fill:
                more += f"&size={file_bytes(items * (value + 48) / fill)}"
            argv += ["--uri", self.uri(path, cache, more + ("&sync=no" if nosync else ""))]
        if nosync:
            argv.append("--nosync")
        if reactors > 1:
            argv += ["--reactors", str(reactors)]
        forget(path)
        # What uses the page cache gets the budget as a cgroup; beside it what the bench itself needs.
        own = 8 * MIB + max(16 * MIB, value + 8 * MIB) + DEPTH * min(value, MIB) + (6 * value if value > MIB else 0)
        group = Cgroup(max(cache, 24 * MIB) + own) if self.cgroups and engine in ("leveldb", "lmdb") else None
        proc = subprocess.run(argv + phases, capture_output=True, text=True, preexec_fn=group.enter if group else None)
        if group:
            group.close()
        if proc.returncode != (-9 if killed else 0):
            raise Failed(f"{' '.join(map(str, argv + phases))}: exit {proc.returncode}\n{proc.stderr.strip()}")
        return [json.loads(line) for line in proc.stdout.splitlines()]

    def fresh(self, engine):
        path = self.dir / engine
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def session(self, name, engine, fn, *args):
        try:
            fn(self, *args)
        except Failed as e:
            self.failures.append(f"{name}, {engine}: {e}")
        shutil.rmtree(self.dir / engine, ignore_errors=True)

    def add(self, row, engine, line):
        self.rows.setdefault(row, {}).setdefault(engine, []).append(line)

    def fio(self, row, rw, bs, depth, size, *more, new=False, once=False, name="fio"):
        """fio on a file that has been written before (for a time, or once through it), or once through one that has nothing
        in it; O_DIRECT, io_uring."""
        path = self.dir / "fio.img"
        base = ["fio", "--name=x", f"--filename={path}", f"--size={size}", "--direct=1", "--ioengine=io_uring",
                "--output-format=json"]
        how = [] if once else ["--time_based", f"--runtime={round(self.scale.seconds * 1000)}ms"]
        try:
            if new:
                path.unlink(missing_ok=True)
                how = ["--fallocate=none"]
            elif not path.exists() or path.stat().st_size < size:
                subprocess.run(base + ["--rw=write", "--bs=1M", "--iodepth=4", "--end_fsync=1"], capture_output=True,
                               check=True)
            proc = subprocess.run(base + [f"--rw={rw}", f"--bs={bs}", f"--iodepth={depth}", *how, *more],
                                  capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as e:
            say(f"fio: {e}: no comparison with the disk")
            return
        job = json.loads(proc.stdout[proc.stdout.index("{"):])["jobs"][0]
        side = job["write" if "write" in rw else "read"]
        at = {k: v / 1e3 for k, v in side["clat_ns"].get("percentile", {}).items()}
        latency = {"p50_us": at.get("50.000000", 0), "p99_us": at.get("99.000000", 0),
                   "p999_us": at.get("99.900000", 0)}
        ops = max(side["total_ios"], 1)
        cpu = (job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] * 1e3 / ops
        self.add(row, name, {"per_s": side["iops"], "cpu_us": cpu, "ops": ops, "bytes": ops * bs, "written": 0,
                              "write" if "write" in rw else "read": latency, "rss": 0})


def last(lines, phase, depth=None):
    return [line for line in lines if line["phase"] == phase and depth in (None, line["depth"])][-1]


# --- sessions ---------------------------------------------------------------------------------------

PUT_DURABLE, PUT_NOSYNC = "put 4 KiB, durable, 32 writers", "put 4 KiB, not synced, 32 writers"
GET_1, GET_32 = "get 4 KiB, depth 1, data 4x the cache", "get 4 KiB, depth 32, data 4x the cache"
MIX, LIST = "half gets half puts 4 KiB, durable, depth 32", "list 1,000 keys under a prefix, depth 1"
SCAN, SCANV = "scan of all keys", "scan of all keys with values"
DELETE = "delete 90 %, durable, depth 32"
WA_UNIFORM, WA_ZIPF = "overwrite at 85 % full, uniform", "overwrite at 85 % full, zipfian 0.99"
SMALL_PUT, SMALL_GET = "put 100 B, durable, 32 writers", "get 100 B, depth 32, cached"
MIB_PUT, MIB_GET = "put 1 MiB, durable, depth 4", "get 1 MiB, depth 4"
BIG_PUT, BIG_GET = "put {} MiB, durable, depth 2", "get {} MiB, depth 2"
WRITTEN, FIO_WRITTEN = "kvasir, written", "fio, written"  # on files that had been written before
SYNCED, SYNCED_WRITTEN = "synced", "synced, written"  # each write followed by fdatasync
RAW = "write 4 KiB + fdatasync, depth 1"


def session_puts(b, engine):
    s = b.scale
    path = b.fresh(engine)
    b.add(PUT_DURABLE, engine, last(b.engine(engine, path, ["fill@32"], s.items, 4096), "fill"))


def session_gets(b, engine):
    """What was put unsynced is read, mixed, listed, scanned and deleted."""
    s = b.scale
    path = b.fresh(engine)
    lines = b.engine(engine, path, ["fill@32", "flush"], s.items, 4096, nosync=True, fill=0.7)
    b.add(PUT_NOSYNC, engine, last(lines, "fill"))
    b.add("disk after filling", engine, last(lines, "flush"))
    t = s.limit
    warm = f"get@32{t}"
    lines = b.engine(engine, path, [warm, "get@1" + t, "get@32" + t, "list" + t, "scan" + t, "scanv" + t], s.items, 4096)
    for row, phase, depth in ((GET_1, "get", 1), (GET_32, "get", 32), (LIST, "list", 1), (SCAN, "scan", 1),
                              (SCANV, "scanv", 1)):
        b.add(row, engine, last(lines, phase, depth))
    lines = b.engine(engine, path, [f"put@32/{s.items // 2}", "mix@32" + t, "delete90@32", "collect", "rest@32"],
                     s.items, 4096)
    b.add(MIX, engine, last(lines, "mix"))
    b.add(DELETE, engine, last(lines, "delete90"))
    b.add("disk after deleting 90 %", engine, last(lines, "collect"))


def session_small(b, engine):
    s = b.scale
    cache = max(s.small_items * 512, 32 * MIB)
    path = b.fresh(engine)
    more = dict(items=s.small_items, value=100, cache=cache)
    b.add(SMALL_PUT, engine, last(b.engine(engine, path, ["fill@32"], **more), "fill"))
    t = s.limit
    lines = b.engine(engine, path, ["scanv", f"get@32/{2 * s.small_items}", "get@32" + t, "scan"], **more)
    b.add(SMALL_GET, engine, last(lines, "get"))


def session_large(b, engine):
    s = b.scale
    for value, items, depth, put, get in ((MIB, s.mib_items, 4, MIB_PUT, MIB_GET),
                                          (s.big_bytes, s.big_items, 2, b.big_put, b.big_get)):
        path = b.fresh(engine)
        more = dict(items=items, value=value, cache=max(s.cache, 64 * MIB))
        b.add(put, engine, last(b.engine(engine, path, [f"fill@{depth}"], **more), "fill"))
        b.add(get, engine, last(b.engine(engine, path, [f"get@{depth}{s.limit}"], **more), "get"))
        if engine == "kvasir":
            path = b.fresh(engine)
            write_file(path / "kvasir.img", items * value * 5 // 4 + 256 * MIB)
            lines = b.engine(engine, path, [f"fill@{depth}"], **more, more="&segment=8M")
            b.add(put, WRITTEN, last(lines, "fill"))


def session_overwrite(b, engine):
    """Steady state: after half of the data has been overwritten, all of it again."""
    s = b.scale
    path = b.fresh(engine)
    n, half = f"/{s.items}", f"/{s.items // 2}"
    lines = b.engine(engine, path, ["fill@32", "flush", "put@32" + half, "put@32" + n, "zipf@32" + half, "zipf@32" + n],
                     s.items, 4096, nosync=True, fill=0.85)
    b.add(WA_UNIFORM, engine, last(lines, "put"))
    b.add(WA_ZIPF, engine, last(lines, "zipf"))


def session_reopen(b, engine):
    items = b.scale.reopen_bytes // 4096
    path = b.fresh(engine)
    b.engine(engine, path, ["fill@32", "kill"], items, 4096, nosync=True, killed=True)
    lines = b.engine(engine, path, ["get/200"], items, 4096)
    b.add(f"reopen after kill -9, {b.scale.reopen_bytes / GIB:.2g} GiB in it", engine, last(lines, "open"))


TCP_STORE, TCP_RETRIEVE = "Store 4 KiB, durable, depth {}", "Retrieve 4 KiB, depth {}"


def kvasir_bench(b, uri, work, depth, prefill, poll="never"):
    argv = [b.args.build / "kvasir", "bench", uri, work, "-b", "4096", "--qd", str(depth), "-t",
            f"{round(b.scale.seconds * 1000)}ms", "--warmup", "300ms", "--keys", str(b.scale.items), "--prefill", prefill, "--poll", poll, "--json"]
    proc = subprocess.run(argv, capture_output=True, text=True)
    if proc.returncode != 0:
        raise Failed(f"{' '.join(map(str, argv))}: exit {proc.returncode}\n{proc.stderr.strip()}")
    result = json.loads(proc.stdout.splitlines()[-1])
    side = "write" if work == "store" else "read"
    return {"per_s": result["iops"], "ops": result[side]["ops"], "bytes": result[side]["ops"] * 4096, side: result[side],
            "cpu_us": result["user_us_per_op"] + result["sys_us_per_op"], "written": 0, "rss": 0}


def session_target(b, server_class):
    """What NVMe/TCP adds: the same device opened by the client, and served to it. CPU is of both processes."""
    for how in ("direct", "NVMe/TCP"):
        path = b.fresh("kvasir")
        uri = b.uri(path, b.scale.cache)
        if how == "direct":
            target_rows(b, how, uri, None)
            continue
        with server_class(poll="never", kv=uri, block="mem:?size=16M") as server:
            target_rows(b, how, server.uri(2), server)


def target_rows(b, how, uri, server):
    kvasir_bench(b, uri, "store", DEPTH, "yes")
    for row, work in ((TCP_STORE, "store"), (TCP_RETRIEVE, "retrieve")):
        for depth in (1, DEPTH):
            before = sum(server.cpu_seconds()) if server else 0
            line = kvasir_bench(b, uri, work, depth, "no")
            if server:  # it was warmed up for as long as kvasir_bench() says
                used = (sum(server.cpu_seconds()) - before) * b.scale.seconds / (b.scale.seconds + 0.3)
                line["cpu_us"] += used / max(line["ops"], 1) * 1e6
            b.add(row.format(depth), how, line)


SETTINGS = ["checkpoint=64M", "checkpoint=256M", "checkpoint=1G", "sync=no"]
SHARDS, REACTORS = (1, 2, 4), (1, 2)
SHARD_MEMORY = 4 * MIB  # the least that each has to have


def settings(b):
    s = b.scale
    for setting in SETTINGS:
        path = b.fresh("kvasir")
        lines = b.engine("kvasir", path, ["fill@32", "put@32/%d" % (s.items // 2)], s.items, 4096, more="&" + setting)
        b.add("settings: overwriting 4 KiB, durable unless sync=no, 32 writers", setting, last(lines, "put"))
    for sync in ("yes", "no"):
        for shards in SHARDS:
            for reactors in REACTORS:
                path = b.fresh("kvasir")
                lines = b.engine("kvasir", path, ["fill@32", "put@32/%d" % (s.items // 2)], s.items, 4096, more=f"&shards={shards}&sync={sync}",
                                 cache=max(s.cache, shards * SHARD_MEMORY), reactors=reactors)
                b.add(f"settings: the same, sync={sync}, shards on 1 or 2 reactors", f"{shards} on {reactors}", last(lines, "put"))


def disk(b):
    """What the disk does, at the sizes that Kvasir was seen to read."""
    s = b.scale
    size = max(s.items * 4096, 64 * MIB)
    for row, depth in ((GET_1, 1), (GET_32, 32)):
        lines = b.rows.get(row, {}).get("kvasir")
        bs = 4096
        if lines and lines[-1]["read_bytes"] > 0:
            reads = max(lines[-1]["ops"] - lines[-1].get("counted", {}).get("cached", 0), 1)
            bs = max(round(lines[-1]["read_bytes"] / reads / 512), 1) * 512
        b.fio(row, "randread", bs, depth, size // bs * bs, "--blockalign=512")
    b.fio(SCANV, "randread", bs, 32, size // bs * bs, "--blockalign=512")  # its values are gets, 32 ahead
    for value, depth, put, get, n in ((MIB, 4, MIB_PUT, MIB_GET, s.mib_items), (s.big_bytes, 2, b.big_put, b.big_get, s.big_items)):
        b.fio(put, "write", value, depth, n * value, "--end_fsync=1", new=True)
        b.fio(put, "write", value, depth, n * value, "--end_fsync=1", once=True, name=FIO_WRITTEN)
        path = b.fresh("raw")
        for name in (SYNCED, SYNCED_WRITTEN):  # the second time its blocks are there
            b.add(put, name, last(b.engine("raw", path, [f"fill@{depth}"], n, value), "fill"))
        b.fio(get, "read", value, depth, n * value)
    (b.dir / "fio.img").unlink(missing_ok=True)
    path = b.fresh("raw")
    lines = b.engine("raw", path, ["fill@4"], s.items, 4096, nosync=True)
    lines = b.engine("raw", path, ["put@1" + s.limit], s.items, 4096)
    b.add(RAW, "raw", last(lines, "put"))


# --- the table --------------------------------------------------------------------------------------

def rate(v):
    if v >= 99_950:
        return f"{v / 1e3:.0f}k"
    return f"{v / 1e3:.1f}k" if v >= 1000 else f"{v:.1f}" if v < 100 else f"{v:.0f}"


def micros(v):
    if v is None:
        return "-"
    return f"{v:.0f}us" if v < 1000 else f"{v / 1e3:.1f}ms" if v < 1e6 else f"{v / 1e6:.1f}s"


class Table:
    """Medians of what was measured."""

    def __init__(self, rows):
        self.rows = rows

    def get(self, row, engine, what):
        lines = self.rows.get(row, {}).get(engine)
        values = [v for v in map(what, lines or []) if v is not None]
        return statistics.median(values) if values else None

    def per_s(self, row, engine):
        return self.get(row, engine, lambda x: x["per_s"])

    def cpu(self, row, engine):
        return self.get(row, engine, lambda x: x["cpu_us"])

    def wa(self, row, engine):
        """Bytes written per byte stored, without those that prepared the file."""
        return self.get(row, engine, lambda x: (x["written"] - prepared(x)) / stored(x) if stored(x) else 0)

    def tail(self, row, engine, side="write"):
        return self.get(row, engine, lambda x: x[side]["p999_us"] / x[side]["p50_us"])

    def best(self, row, what, peers=PEERS):
        values = [v for v in (what(row, e) for e in peers) if v is not None]
        return max(values) if values else None

    def show(self):
        for row, engines in self.rows.items():
            say(f"\n{row}")
            if all("disk" in lines[-1] for lines in engines.values()):
                self.show_once(engines, opened=row.startswith("reopen"))
                continue
            say(f"  {'':15}{'ops/s':>9}{'MiB/s':>9}{'p50':>9}{'p99':>9}{'p99.9':>9}{'CPU us/op':>11}{'written':>9}"
                f"{'read/op':>9}{'RSS MiB':>9}{'spread':>8}")
            for engine in engines:
                self.show_row(row, engine)

    def show_row(self, row, engine):
        lines = self.rows[row][engine]
        side = lines[-1].get("write") or lines[-1].get("read")
        name = "write" if lines[-1].get("write") else "read"
        p50, p99, p999 = (self.get(row, engine, lambda x, k=k: x[name][k]) if side else None
                          for k in ("p50_us", "p99_us", "p999_us"))
        rates = [x["per_s"] for x in lines]
        wa = self.wa(row, engine)
        read = self.get(row, engine, lambda x: x.get("read_bytes", 0) / max(x["ops"], 1))
        mib = self.get(row, engine, lambda x: x["bytes"] / max(x["ops"], 1) * x["per_s"] / MIB)
        counts = row not in (LIST, SCAN, DELETE)
        say(f"  {engine:15}{rate(self.per_s(row, engine)):>9}{rate(mib) if counts else '-':>9}{micros(p50):>9}"
            f"{micros(p99):>9}{micros(p999):>9}{self.cpu(row, engine):>11.1f}"
            f"{f'{wa:.2f}' if wa and name == 'write' and counts else '-':>9}{f'{read / 1024:.1f}K' if read else '-':>9}"
            f"{self.get(row, engine, lambda x: x['rss']) / MIB:>9.0f}"
            f"{(max(rates) - min(rates)) / statistics.median(rates):>8.0%}")

    def show_once(self, engines, opened):
        for engine, lines in engines.items():
            secs = statistics.median(x["seconds"] for x in lines)
            size = statistics.median(x["disk"] for x in lines)
            say(f"  {engine:15}" + (f"{secs:>9.3f} s to open, {size / GIB:.2f} GiB" if opened else
                                    f"{size / MIB:>9.0f} MiB on the disk, after {secs:.1f} s"))


def prepared(line):
    """Zeroes that Kvasir wrote over what a file had never held; they may also fall into another phase."""
    return min(line.get("counted", {}).get("prepared", 0), line["written"])


def stored(line):
    """Bytes that were put: of a mixed load only those of its puts."""
    if "write" in line and "read" in line:
        return line["bytes"] * line["write"]["ops"] / line["ops"]
    return line["bytes"]


class Bar:
    def __init__(self, text, got, wanted, most=False):
        self.text, self.got, self.wanted, self.most = text, got, wanted, most

    def verdict(self):
        if self.got is None:
            return "not measured"
        good = self.got <= self.wanted if self.most else self.got >= self.wanted
        return "reached" if good else "MISSED"


def over(a, b):
    return None if a is None or b is None or b == 0 else a / b


def bars(b):
    t, s, k = Table(b.rows), b.scale, "kvasir"

    def ahead(row, wanted, peers=PEERS, name="the best peer"):
        return Bar(f"{row}: rate / {name}'s", over(t.per_s(row, k), t.best(row, t.per_s, peers)), wanted)

    def cpu(row, wanted):
        return Bar(f"{row}: CPU / RocksDB's", over(t.cpu(row, k), t.cpu(row, "rocksdb")), wanted, most=True)

    def of_disk(row, wanted):
        return Bar(f"{row}: rate / fio's", over(t.per_s(row, k), t.per_s(row, "fio")), wanted)

    def of_disk_written(row, wanted):
        return Bar(f"{row}, in a file written before: rate / fio's",
                   over(t.per_s(row, WRITTEN), t.per_s(row, FIO_WRITTEN)), wanted)

    def of_synced(row, wanted):
        return [Bar(f"{row}{where}: rate / write + fdatasync's", over(t.per_s(row, mine), t.per_s(row, disk)), wanted)
                for where, mine, disk in (("", k, SYNCED), (", in a file written before", WRITTEN, SYNCED_WRITTEN))]

    def written(row, wanted):
        return Bar(f"{row}: bytes written per byte", t.wa(row, k), wanted, most=True)

    rocks = (["rocksdb"], "RocksDB")
    disk_live = t.get("disk after deleting 90 %", k, lambda x: x["disk"])
    live = (s.items - s.items // 10 * 9) * (4096 + 16)
    per_key = t.get(SMALL_GET, k, lambda x: x["counted"]["key_bytes"] / s.small_items if "counted" in x else None)
    reopen = next((r for r in b.rows if r.startswith("reopen")), None)
    return [
        ahead(PUT_DURABLE, 2.0, *rocks), ahead(PUT_DURABLE, 1.5), cpu(PUT_DURABLE, 1 / 3), ahead(PUT_NOSYNC, 1.0),
        of_disk(GET_1, 0.9), of_disk(GET_32, 0.9), cpu(GET_1, 0.25), cpu(GET_32, 0.25),
        ahead(MIX, 3.0, *rocks),
        Bar(f"{MIX}: p99.9/p50 of puts / that of write + fdatasync", over(t.tail(MIX, k), t.tail(RAW, "raw")), 2.0, True),
        ahead(SMALL_PUT, 1.2), written(SMALL_PUT, 3.0), ahead(SMALL_GET, 1.0, ["rocksdb", "leveldb"], "RocksDB's, LevelDB"),
        of_disk(MIB_PUT, 0.9), of_disk_written(MIB_PUT, 0.9), *of_synced(MIB_PUT, 0.9), of_disk(MIB_GET, 0.9), cpu(MIB_PUT, 1 / 3), cpu(MIB_GET, 1 / 3),
        of_disk(b.big_put, 0.9), of_disk_written(b.big_put, 0.9), *of_synced(b.big_put, 0.9), of_disk(b.big_get, 0.9), cpu(b.big_put, 1 / 3), cpu(b.big_get, 1 / 3),
        ahead(SCAN, 1.0), ahead(LIST, 1.0), of_disk(SCANV, 0.9),
        written(PUT_DURABLE, 1.1), written(WA_UNIFORM, 4.5), written(WA_ZIPF, 3.0),
        Bar("disk after deleting 90 % / live bytes", over(disk_live, live), 1.2, most=True),
        Bar(f"{reopen}: seconds", t.get(reopen, k, lambda x: x["seconds"]), 1.0, most=True),
        Bar("memory per key, bytes, with one read per get", per_key, 10, most=True),
    ]


def show_bars(b, results, all_of_them):
    say(f"\n{'what is wanted':82}{'bar':>9}{'got':>9}")
    missed = 0
    for bar in bars(b):
        if bar.got is None and not all_of_them:
            continue
        got = "-" if bar.got is None else f"{bar.got:.2f}"
        say(f"{bar.text:82}{('<=' if bar.most else '>=') + f' {bar.wanted:.2f}':>9}{got:>9}  {bar.verdict()}")
        missed += bar.verdict() == "MISSED"
        results[f"engine: {bar.text}"] = {"got": bar.got, "bar": bar.wanted, "at_most": bar.most,
                                          "verdict": bar.verdict()}
    return missed


SESSIONS = {"puts": session_puts, "gets": session_gets, "small": session_small, "large": session_large}
ONCE = {"overwrite": session_overwrite, "reopen": session_reopen}


def run(args, results, server_class):
    scale = SCALES[args.scale]
    subprocess.run(["ninja", "-C", args.build, "bench/engine/bench-engine"], check=True, stdout=subprocess.DEVNULL)
    b = Bench(args, scale)
    wanted = args.sessions or [*SESSIONS, *ONCE, "target", "settings", "disk"]
    runs = args.runs or scale.runs
    say(f"{scale.items} values of 4 KiB, cache {scale.cache / MIB:.0f} MiB, {scale.small_items} of 100 B, medians of "
        f"{runs}; kvasir on {args.uri}")
    for _ in range(runs):
        for name, session in SESSIONS.items():
            for engine in b.engines if name in wanted else []:
                b.session(name, engine, session, engine)
        if "disk" in wanted:
            b.session("disk", "raw", disk)
    for name, session in ONCE.items():
        for engine in b.engines if name in wanted else []:
            b.session(name, engine, session, engine)
    if "kvasir" in b.engines:
        if "target" in wanted:
            b.session("target", "kvasir", session_target, server_class)
        if "settings" in wanted and args.uri.startswith("blob:"):
            b.session("settings", "kvasir", settings)
    Table(b.rows).show()
    show_bars(b, results, args.sessions is None and args.engines is None)
    results["engine rows"] = b.rows
    for text in b.failures:
        say(f"\nFAILED {text}")
    return not b.failures
