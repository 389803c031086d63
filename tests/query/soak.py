# SPDX-License-Identifier: Apache-2.0
"""A server over NVMe/TCP that is asked at once by several clients, while its workers are killed, and
clients are ended, killed and told to wait for less than it takes. Whatever answers has the right
answer; afterwards no process, descriptor, memory or file is left. KVASIR_QUERIES says how many
queries (200)."""
import os
import pathlib
import random
import re
import signal
import subprocess
import tempfile
import threading
import time

SQL = [("select count(*), sum(n)::bigint from s3object", lambda n: f"{n},{n * (n - 1) // 2}\n"),
       ("select n from s3object where n % 1000 = 7 order by n limit 2", lambda n: "7\n1007\n"),
       ("select max(word) from whatever where n < 10", lambda n: "word 9\n"),
       ("select count(*) from s3object a join s3object b using (n)", lambda n: f"{n}\n")]
BAD = [("select getenv('x')", 2), ("select length(repeat('x', 1000000000)) from s3object", None),
       ("select * from read_text('/etc/passwd')", 2), ("selec", 2)]
ROWS = 20000


def children(pid):
    """Processes below a process."""
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in task.read_text().split():
                found += [int(child), *children(int(child))]
        except OSError:
            pass
    return found


def memory_kib(pid):
    return int(re.search(r"VmRSS:\s*(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Soak:
    def __init__(self, build, count, queries):
        self.kvasir, self.count, self.left = str(build / "kvasir"), count, queries
        self.lock, self.rng = threading.Lock(), random.Random(queries)
        self.did = {}
        self.wrong = []

    def serve(self, dir_):
        self.server = subprocess.Popen([self.kvasir, "serve", "--kv", "a=mem:", "--listen", "127.0.0.1:0", "--query-workers", "4",
                                        "--query-mem", "128M"], stdout=subprocess.PIPE, stderr=open(dir_ / "serve.err", "w"), text=True)
        for line in self.server.stdout:
            if m := re.match(r"listening (\S+) (\S+)", line):
                self.uri = f"nvme+tcp://{m[1]}/{m[2]}"
                break
        threading.Thread(target=self.server.stdout.read, daemon=True).start()

    def put(self, dir_):
        import gzip
        text = "n,word\n" + "".join(f"{n},word {n % 10}\n" for n in range(ROWS))
        (dir_ / "t.csv").write_text(text)
        (dir_ / "t.gz").write_bytes(gzip.compress(text.encode()))
        for key in ["t.csv", "t.gz"]:
            subprocess.run([self.kvasir, "put", self.uri, key, str(dir_ / key)], check=True, capture_output=True)

    def note(self, what):
        with self.lock:
            self.did[what] = self.did.get(what, 0) + 1

    def take(self):
        with self.lock:
            self.left -= 1
            return self.left >= 0, self.rng.random(), self.rng.random(), self.rng.randrange(1 << 30)

    def one(self, chance, moment, number):
        key = ["t.csv", "t.gz"][number % 2]
        if chance < 0.1:
            sql, code = BAD[number % len(BAD)]
            p = subprocess.run([self.kvasir, "select", self.uri, key, sql], capture_output=True, text=True, timeout=120)
            if "worker was killed" in p.stderr:  # by another client of ours
                return self.note("lost its worker")
            self.note("refused")
            if p.returncode == 0 or (code and p.returncode != code) or not p.stderr:
                self.wrong.append(f"{sql}: exit code {p.returncode}: {p.stderr}")
            return
        sql, want = SQL[number % len(SQL)]
        argv = [self.kvasir, "select", self.uri, key, sql, "--no-header-out"]
        if chance < 0.2:
            argv += ["--timeout", f"{1 + int(moment * 30)}ms"]
        p = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if 0.2 <= chance < 0.4:  # cancelled, or the connection is cut
            time.sleep(moment * 0.06)
            p.send_signal(signal.SIGINT if chance < 0.3 else signal.SIGKILL)
        if 0.4 <= chance < 0.55:
            time.sleep(moment * 0.06)
            self.kill_worker(number)
        out, err = p.communicate(timeout=120)
        if p.returncode == 0:
            self.note("answered")
            if out != want(ROWS):
                self.wrong.append(f"{sql}: {out!r}")
        elif p.returncode < 0 or chance < 0.4:
            self.note("ended by its client")
        elif re.search("worker|killed|-EPIPE|ended", err):
            self.note("lost its worker")
        else:
            self.wrong.append(f"{sql}: exit code {p.returncode}: {err}")

    def kill_worker(self, number):
        """Any process of the server's but its first, which makes the others: a worker."""
        below = children(self.server.pid)
        if len(below) > 1:
            try:
                os.kill(below[1 + number % (len(below) - 1)], signal.SIGKILL)
                self.note("workers killed")
            except ProcessLookupError:
                pass

    def client(self):
        while True:
            more, *dice = self.take()
            if not more:
                return
            try:
                self.one(*dice)
            except Exception as e:  # a thread's end has to be counted
                self.wrong.append(f"{type(e).__name__}: {e}")

    def settle(self):
        """What the server has when nothing runs: processes, descriptors, memory."""
        best = None
        for _ in range(60):
            now = (len(children(self.server.pid)), open_files(self.server.pid))
            if now == best:
                break
            best = now
            time.sleep(0.5)
        return *best, memory_kib(self.server.pid)

    def run(self, dir_):
        self.serve(dir_)
        self.put(dir_)
        warm, self.left = self.left, 40
        self.client()
        before, files = self.settle(), sorted(os.listdir(dir_))
        total, self.left = warm, warm
        begin = time.monotonic()
        threads = [threading.Thread(target=self.client) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        seconds = time.monotonic() - begin
        answer = subprocess.run([self.kvasir, "select", self.uri, "t.csv", SQL[0][0], "--no-header-out"], capture_output=True, text=True)
        after = self.settle()
        print(f"{total} queries in {seconds:.0f} s: {self.did}\n"
              f"of the server: processes, descriptors, KiB of memory: before {before}, after {after}")
        for line in self.wrong[:20]:
            print(f"  wrong: {line}")
        self.count.check(not self.wrong, f"{len(self.wrong)} queries went wrong")
        self.count.check(answer.stdout == SQL[0][1](ROWS), f"the next query: {answer.stdout!r} {answer.stderr!r}")
        self.count.check(after[0] <= before[0] + 1, f"processes: {before[0]} before, {after[0]} after")
        self.count.check(after[1] <= before[1] + 3, f"descriptors: {before[1]} before, {after[1]} after")
        self.count.check(after[2] < before[2] + 64 * 1024, f"memory: {before[2]} KiB before, {after[2]} KiB after")
        self.count.check(sorted(os.listdir(dir_)) == files, f"files: {os.listdir(dir_)}")
        below = children(self.server.pid)
        self.server.send_signal(signal.SIGTERM)
        self.count.check(self.server.wait(30) == 0, f"the server ends with {self.server.returncode}")
        time.sleep(0.5)
        left = [p for p in below if pathlib.Path(f"/proc/{p}").exists() and "Z" not in pathlib.Path(f"/proc/{p}/stat").read_text().split(") ")[1][:1]]
        self.count.check(not left, f"processes that outlive the server: {left}")


def run(count, program, _unfiltered):
    with tempfile.TemporaryDirectory(prefix="kvasir-soak-") as tmp:
        soak = Soak(pathlib.Path(program).parent, count, int(os.environ.get("KVASIR_QUERIES", "200")))
        try:
            soak.run(pathlib.Path(tmp))
        finally:
            if getattr(soak, "server", None) and soak.server.poll() is None:
                soak.server.kill()
            print(pathlib.Path(tmp, "serve.err").read_text()[-3000:])
