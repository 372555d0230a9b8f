"""Load and attacks on the page: does every user get their own results, and does it answer through all of it?

python benchmarks/page.py            # 10 users, 60 jobs, 2,900 paths, 1,100 half-open connections, 300 passwords
"""

from __future__ import annotations

import argparse
import http.client
import io
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from PIL import Image

SIDE = 12
STEPS = ("..", "..%2f", "%2e%2e", "%252e%252e", "..\\", "....//", ".%00.", "/")
TARGETS = ("etc/passwd", "proc/self/environ", "api.py", "work.py", "settings.py", "weights/x4/model_index.json",
    "pyproject.toml", "%2fetc%2fpasswd", "c:/windows/win.ini", "sample.png%00.py")  # fmt: skip
PLACES = ("", "api/", "api/jobs/", "api/jobs/0/", "api/jobs/0/0/", "static/", "docs/", "file=", "api/checkpoints/")
LEAKS = (b"root:", b"import ", b"PATH=", b"[build-system]", b"_class_name", b"Traceback")


@contextmanager
def page(*arguments: str):
    """A page of its own process; its host and port."""
    command = [sys.executable, "-m", "retinashift", "app", "--port", "0", *arguments]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield next(re.search(r"http://([^/]+)/", line)[1] for line in process.stdout if "http://" in line)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def ask(host: str, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    """Status and body; 0 where the connection is closed."""
    connection = http.client.HTTPConnection(host, timeout=600)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in {**headers, "content-length": str(len(body or b""))}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (http.client.HTTPException, OSError, ValueError):
        return 0, b""
    finally:
        connection.close()


def user(host: str, number: int, jobs: int) -> tuple[int, int]:
    """Upscale photographs of one colour, the user's own; how many came back, and how many had another colour."""
    colours = np.array([(20 + 20 * each, 120, 230 - 20 * each) for each in range(12)])
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), tuple(colours[number].tolist())).save(file, "PNG")
    done = foreign = 0
    while done < jobs:
        status, result = ask(host, "POST", f"/api/upscale?name=user{number}.png", file.getvalue())
        if status == 503:  # the queue is full: try again
            time.sleep(0.2)
            continue
        if status != 200:
            raise SystemExit(f"user {number}: status {status}: {result[:200]!r}")
        pixels = np.asarray(Image.open(io.BytesIO(result))).astype(int)
        done += 1
        nearest = int(np.abs(colours - pixels.mean((0, 1))).sum(1).argmin())
        foreign += int(nearest != number or pixels.shape != (4 * SIDE, 4 * SIDE, 3))
    return done, foreign


def paths(count: int) -> list[str]:
    """Addresses that lead out of a folder, in the notations that have opened servers before."""
    parts = itertools.product(PLACES, STEPS, range(1, 6), TARGETS)
    made = (f"/{place}{(step.rstrip('/') + '/') * times}{target}" for place, step, times, target in parts)
    return list(itertools.islice(made, count))


def attack(users: int, jobs: int, probes: int, half_open: int, passwords: int) -> dict[str, int | float]:
    """The outcome of each part; every number that begins with "leaks" or "foreign" must be 0."""
    found: dict[str, int | float] = {}
    with page() as host:
        held = []
        for _ in range(half_open):
            connection = socket.create_connection(host.split(":"))
            connection.sendall(b"POST /api/upscale HTTP/1.1\r\nHost: ")
            held.append(connection)
        began = time.perf_counter()
        found["status beside half-open connections"] = ask(host, "GET", "/")[0]
        found["seconds beside half-open connections"] = round(time.perf_counter() - began, 2)
        with ThreadPoolExecutor(users) as pool:
            outcomes = list(pool.map(lambda number: user(host, number, jobs // users), range(users)))
        found["results"], found["foreign results"] = (sum(column) for column in zip(*outcomes, strict=True))
        for connection in held:
            connection.close()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda path: ask(host, "GET", path), paths(probes)))
        found["paths"] = len(answers)
        found["leaks by path"] = sum(any(leak in body for leak in LEAKS) for _, body in answers)
        found["paths that were served"] = sum(status == 200 for status, _ in answers)
        found["status after all"] = ask(host, "GET", "/")[0]
    with page("--auth", "eye:secret") as host:
        wrong = [b64encode(f"eye:{number}".encode()).decode() for number in range(passwords)]
        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(lambda given: ask(host, "GET", "/", authorization=f"Basic {given}"), wrong))
        found["wrong passwords"] = len(answers)
        found["leaks by password"] = sum(status not in (401, 429) for status, _ in answers)
        right = b64encode(b"eye:secret").decode()
        found["status for the right password"] = ask(host, "GET", "/", authorization=f"Basic {right}")[0]
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("users", 10), ("jobs", 60), ("probes", 2900), ("half-open", 1100), ("passwords", 300)):
        parser.add_argument(f"--{name}", type=int, default=value)
    print(json.dumps(attack(**vars(parser.parse_args())), indent=1))
