#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the commands of a tutorial as they stand and compares what they say: tutorial.py PAGE EXAMPLES.

Lines that begin with "$ " are commands, in one shell one after the other, in the current directory; those below them are
their output. Indented lines above the first of them are commands too, but not those about make and PATH. Times and sizes of
what is made differ and are not compared; port 4420 becomes a free one.
"""
import os
import re
import socket
import subprocess
import sys


def commands(page):
    found = []
    for line in page.splitlines():
        if line.startswith("    $ "):
            found.append((line[6:], []))
        elif line.startswith("    kvasir ") and not line.startswith("    kvasir select: "):
            found.append((line[4:], []))
        elif line.startswith("    ") and found:
            found[-1][1].append(line[4:])
    return found


def plain(line):
    """Without times, and sizes of what the engine makes."""
    line = re.sub(r"^ *\d+  (.*\.parquet)$", r"N  \1", line)
    return re.sub(r"[0-9.]+ (ms|[KM]?i?B)\b", r"N \1", line)


with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = str(s.getsockname()[1])
os.symlink(sys.argv[2], "examples")
todo = commands(open(sys.argv[1]).read().replace("4420", port))
script = ["exec 2>&1", "trap 'kill $(jobs -p)' EXIT"]
for i, (command, _) in enumerate(todo):
    script.append(f"echo @@{i}")
    if command.endswith("&"):
        script.append(command[:-1] + ">serve.log 2>&1 &")
        script.append("for i in $(seq 200); do grep -q ^listening serve.log && break; sleep 0.05; done")
    else:
        script.append(command)
done = subprocess.run(["bash", "-c", "\n".join(script)], capture_output=True, text=True, timeout=55)
outputs = re.split(r"^@@\d+\n", done.stdout, flags=re.M)[1:]
for (command, want), got in zip(todo, outputs, strict=True):
    got = got.rstrip("\n").splitlines()
    same = [plain(line) for line in got] == [plain(line) for line in want]
    print("ok - the tutorial:" if same else "not ok - the tutorial:", command[:70])
    if not same:
        print("# got:", *got, sep="\n#   ")
print("ok - the tutorial's end")
