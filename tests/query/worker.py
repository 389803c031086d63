# SPDX-License-Identifier: Apache-2.0
"""Plays the daemon for kvasir-query: what src/virt/query/wire.h says, from the daemon's side.

    with Zygote(path) as zygote:
        answer = zygote.ask("select 1", [b"a\n1\n"])
"""
import array
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import time

CTL = struct.Struct("<IIQQQ224s")
HEAD = struct.Struct("<IIQQII")
READY, SPAWN, SPAWNED, KILL, EXITED, FAILED = range(1, 7)
QUERY, READ, DATA, RESULT, SCHEMA, DONE = range(1, 7)
SLOT_BYTES, SLOTS = 512 << 10, 8
RESULT_BYTES, JSON_BYTES = 256 << 10, 4 << 20
AHEAD_BYTES = 64 << 10  # a single object that is no larger comes with the query


class NoEngine(Exception):
    pass


class Answer:
    """What a query got. `rc` is None when its process ended without saying so."""

    def __init__(self):
        self.data, self.rc, self.text, self.rows, self.schema = bytearray(), None, "", 0, None
        self.status, self.rss_bytes, self.cpu_us, self.read_bytes, self.seconds = 0, 0, 0, 0, 0.0
        self.timed_out = self.too_large = False

    def outcome(self):
        """One word for a table: ok, an errno, or how the process ended."""
        if self.rc is not None:
            return "ok" if self.rc == 0 else f"-{errno_name(-self.rc)}"
        if self.timed_out:
            return "time limit of the daemon"
        if self.too_large:
            return "limit of the answer"
        if os.WIFSIGNALED(self.status):
            return signal.Signals(os.WTERMSIG(self.status)).name
        return f"exit {os.waitstatus_to_exitcode(self.status)}"


def errno_name(n):
    import errno
    return errno.errorcode.get(n, str(n))


class Worker:
    """A process that has been forked and waits for its query."""

    def __init__(self, zygote, sock, window, tag, pid):
        self.zygote, self.sock, self.window, self.tag, self.pid = zygote, sock, window, tag, pid

    def send(self, kind, body=b"", a=0, b=0, slot=0, want=0, length=None):
        self.sock.sendall(HEAD.pack(kind, len(body) if length is None else length, a, b, slot, want) + body)

    def receive(self, n, deadline):
        data = bytearray()
        while len(data) < n:
            self.sock.settimeout(max(0.001, deadline - time.monotonic()))
            piece = self.sock.recv(n - len(data))
            if not piece:
                raise ConnectionResetError
            data += piece
        return bytes(data)

    def read_for(self, data, size, answer, off, want, slot):
        """Bytes of an object, into a slot of the window."""
        assert off < size
        piece = data(off, min(want, size - off)) if callable(data) else data[off:off + want]
        self.window[slot * SLOT_BYTES:slot * SLOT_BYTES + len(piece)] = piece
        answer.read_bytes += len(piece)
        try:
            self.send(DATA, a=len(piece), slot=slot)
        except BrokenPipeError:
            pass  # it has what it wanted; its last words are still to be read

    def serve(self, objects, answer, deadline, answer_max):
        """Answers reads and collects what comes, until it is done or gone. `objects`: bytes, or
        functions (offset, length) -> bytes together with a size."""
        while True:
            kind, length, a, b, slot, want = HEAD.unpack(self.receive(HEAD.size, deadline))
            if kind == READ:
                assert length == 0 and a < len(objects) and slot < SLOTS and 0 < want <= SLOT_BYTES
                self.read_for(*objects[a], answer, b, want, slot)
                continue
            assert length <= (RESULT_BYTES if kind == RESULT else JSON_BYTES), (kind, length)
            body = self.receive(length, deadline)
            if kind == RESULT:
                answer.data += body
                if len(answer.data) > answer_max:
                    answer.too_large = True
                    return
            elif kind == SCHEMA:
                assert answer.schema is None
                answer.schema = json.loads(body)
            elif kind == DONE:
                done = json.loads(body)
                answer.rc, answer.text, answer.rows = done["rc"], done["text"], done["rows"]
                return
            else:
                raise AssertionError(f"the worker says {kind}")

    def end(self, answer):
        self.sock.close()
        if answer.rc is None:
            self.zygote.control(KILL, self.tag)
        kind, tag, value, cpu_us, rss, _ = self.zygote.receive()
        assert (kind, tag) == (EXITED, self.tag), (kind, tag)
        answer.status, answer.cpu_us, answer.rss_bytes = value, cpu_us, rss
        self.window.close()


class Zygote:
    def __init__(self, program, *args, env=None):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock, self.tag = ours, 0
        self.proc = subprocess.Popen([program, *args], pass_fds=(3,), env=env,
                                     preexec_fn=lambda: os.dup2(theirs.fileno(), 3))
        theirs.close()
        kind, _, value, _, _, text = self.receive()
        if kind != READY:
            self.close()
            raise NoEngine(text)
        assert value == 2, f"version {value}"

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.sock.close()
        self.proc.wait(20)

    def receive(self):
        self.sock.settimeout(60)
        data = self.sock.recv(4096)
        assert len(data) == CTL.size, f"the zygote sent {len(data)} bytes"
        kind, tag, value, cpu, rss, text = CTL.unpack(data)
        return kind, tag, value, cpu, rss, text.split(b"\0")[0].decode()

    def control(self, kind, tag, fds=(), value=0, cpu_us=0):
        data = CTL.pack(kind, tag, value, cpu_us, 0, b"")
        more = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([data], more)

    def spawn(self, mem_bytes=256 << 20, cpu_seconds=20):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        fd = os.memfd_create("window", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, SLOT_BYTES * SLOTS)
        window = mmap.mmap(fd, SLOT_BYTES * SLOTS)
        self.tag += 1
        self.control(SPAWN, self.tag, (theirs.fileno(), fd), mem_bytes, cpu_seconds * 1000000)
        theirs.close()
        os.close(fd)
        kind, tag, value, _, _, _ = self.receive()
        assert (kind, tag) == (SPAWNED, self.tag)
        assert value < 1 << 63, f"fork: {value - (1 << 64)}"
        return Worker(self, ours, window, tag, value)

    def ask(self, sql, objects, seconds=30, answer_max=1 << 40, mem_bytes=256 << 20, cpu_seconds=20, **more):
        """One query over objects: bytes, or (function, size)."""
        objects = [(o, len(o)) if isinstance(o, (bytes, bytearray, memoryview)) else o for o in objects]
        query = {"sql": sql, "input": "csv", "output": "csv", "header": "auto", "header_out": False,
                 "delim": "", "quote": "", "escape": "", "schema": "", "known": None,
                 "objects": [{"name": f"object{i}", "size": size} for i, (_, size) in enumerate(objects)]}
        query.update(more)
        ahead = None
        if not isinstance(sql, bytes) and len(objects) == 1 and 0 < objects[0][1] <= AHEAD_BYTES:
            query["ahead"] = objects[0][1]
            ahead = objects[0]
        raw = sql if isinstance(sql, bytes) else json.dumps(query).encode()
        return self.ask_raw(raw, objects, seconds, answer_max, mem_bytes, cpu_seconds, ahead)

    def ask_raw(self, raw, objects, seconds=30, answer_max=1 << 40, mem_bytes=256 << 20, cpu_seconds=20, ahead=None):
        answer, begin = Answer(), time.monotonic()
        worker = self.spawn(mem_bytes, cpu_seconds)
        try:
            worker.send(QUERY, raw)
            if ahead:
                worker.read_for(*ahead, answer, 0, ahead[1], 0)
            worker.serve(objects, answer, begin + seconds, answer_max)
        except TimeoutError:
            answer.timed_out = True
        except (ConnectionResetError, BrokenPipeError):
            pass
        answer.seconds = time.monotonic() - begin
        worker.end(answer)
        return answer
