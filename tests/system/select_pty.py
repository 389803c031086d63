#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The prompt of kvasir sql at a terminal: select_pty.py URI, with t.csv in it (select.sh)."""
import os
import pty
import re
import select
import sys
import time

pid, fd = pty.fork()
if pid == 0:
    os.execvp("kvasir", ["kvasir", "sql", sys.argv[1]])


left = ""  # read, and after what was expected last


def expect(name, pattern, wait_s=20):
    """Reads until the pattern comes, without looking at what moves the cursor."""
    global left
    end = time.time() + wait_s
    while True:
        plain = re.sub(r"\r(?!\n)", "", re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", left))
        found = re.search(pattern, plain)
        if found:
            print("ok -", name)
            left = plain[found.end():]
            return
        if time.time() > end:
            break
        ready, _, _ = select.select([fd], [], [], 0.1)
        if ready:
            try:
                left += os.read(fd, 65536).decode()
            except OSError:
                break
    print("not ok -", name)
    print("#", repr(left[-500:]))
    sys.exit(1)


def send(text):
    os.write(fd, text.encode())


expect("a prompt", r"kvasir> $")
send("select max(id)\tfrom t.csv;\r")  # a Tab that has nothing to offer changes nothing
expect("an answer", r"\b3\r\n\(1 row\)")
expect("and the prompt again", r"kvasir> $")
send("select max(id) from t.csv;\r")
expect("a statement", r"\(1 row\)[\s\S]*kvasir> $")
send("select id\r")
expect("a second line", r"   \.\.\.> $")
send("from 't.c\t")
expect("Tab completes a key", r"from 't\.csv' $")
send("limit 1;\r")
expect("lines are one statement", r"\(1 row\)[\s\S]*kvasir> $")
send("sel\tna\tfrom t.csv;\r")
expect("Tab completes words and columns", r"select name from t\.csv;[\s\S]*NULL[\s\S]*\(3 rows\)[\s\S]*kvasir> $")
send(".sch\tt.c\t\r")
expect("and commands", r"column \| type[\s\S]*kvasir> $")
send("i\t\t")
expect("Tab twice lists", r"ilike[\s\S]*kvasir> i$")
send("\x15abc\x03")
expect("Ctrl-C drops a line", r"\^C[\s\S]*kvasir> $")
send("selct 1 from t.csv;\r")
expect("a mistake is told", r"selct[\s\S]*kvasir> $")
send("\x1b[A\x1b[A\x1b[A\x1b[B\x1b[B\x1b[B\x12max")
expect("Ctrl-R finds", r"search 'max': select max\(id\)")
send("\r")
expect("and runs", r"\(1 row\)[\s\S]*kvasir> $")
send("select count(*) from t.csv, range(100000) a, range(100000) b, range(10000) c where a.range + b.range + c.range < 0;\r")
time.sleep(1)
start = time.time()
send("\x03")
expect("Ctrl-C ends what runs", r"interrupted[\s\S]*kvasir> $")
print("ok - at once" if time.time() - start < 5 else "not ok - at once")
send("select 'a' || chr(27) || '[2J' x from t.csv limit 1;\r")
expect("what a terminal would obey is shown", r"a\\x1B\[2J")
expect("the prompt", r"kvasir> $")
send(".mode parquet\rselect 1 from t.csv;\r")
expect("no Parquet at a terminal", r"\.output FILE first[\s\S]*kvasir> $")
send("\x04")
try:
    while os.read(fd, 65536):
        pass
except OSError:
    pass
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print("ok - the end" if code == 0 else f"not ok - the end: {code}")
