"""Load: wrk for rates (its percentiles are of a closed loop), our open-loop tool for latency at a fixed rate."""

import contextlib
import json
import os
import re
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

from . import machine

_SOURCE = Path(__file__).resolve().parent.parent / "load"
TOOL = _SOURCE / "target" / "release" / "mesh-bench-load"


def available():
    """Whether our tool is there; builds it the first time."""
    if not TOOL.exists() and not _tried:
        _tried.append(True)
        print("building the load tool", file=sys.stderr)
        subprocess.run(["cargo", "build", "--release", "--manifest-path", _SOURCE / "Cargo.toml",
                        "--target-dir", _SOURCE / "target"])
    return TOOL.exists()


_tried = []


def _run(argv, secs):
    argv = ["taskset", "-c", str(machine.LOAD_CPU)] + [str(word) for word in argv]
    return subprocess.run(argv, capture_output=True, text=True, timeout=secs + 30)


def wrk(port, secs, connections, path="/"):
    """Closed loop: as many requests as come back."""
    text = _run(["wrk", "-t1", f"-c{connections}", f"-d{secs}s", "--latency", f"http://127.0.0.1:{port}{path}"], secs).stdout
    rate, count = re.search(r"Requests/sec:\s+([\d.]+)", text), re.search(r"(\d+) requests in", text)
    if not rate or not count:
        raise machine.Failed(f"wrk said: {text[-300:]}")
    if "Non-2xx" in text or "Socket errors" in text:
        raise machine.Failed(f"not all requests were answered with 200: {text[-300:]}")
    return {"requests_per_sec": float(rate[1]), "requests": int(count[1]),
            "p50_us": _micros(re.search(r"(?m)^\s+50%\s+(\S+)", text)[1]),
            "p99_us": _micros(re.search(r"(?m)^\s+99%\s+(\S+)", text)[1])}


def _micros(text):
    number, unit = re.match(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


@contextlib.contextmanager
def held(port, connections):
    """So many clients, each of which was answered once and holds its connection."""
    with contextlib.ExitStack() as clients:
        for _ in range(connections):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            client.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
            if not client.recv(4096).startswith(b"HTTP/1.1 200"):
                raise machine.Failed("a client that was to hold its connection was not answered with 200")
        yield


def h2(port, secs, connections, streams, path, sent=None):
    """HTTP/2 in plain by h2load, closed loop: GET, or POST of the file `sent` as gRPC does."""
    words = ["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{secs}", "--warm-up-time=1"]
    words += ["-d", sent, "-H", "content-type: application/grpc", "-H", "te: trailers"] if sent else []
    text = _run([*words, f"http://127.0.0.1:{port}{path}"], secs).stdout
    rate, count = re.search(r"finished in .*?, ([\d.]+) req/s", text), re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", text)
    if not rate or not count or int(count[2]) or int(count[3]) or not re.search(r"status codes: [1-9]\d* 2xx, 0 3xx, 0 4xx, 0 5xx", text):
        raise machine.Failed(f"h2load said: {text[-400:]}")
    return {"requests_per_sec": float(rate[1]), "requests": int(count[1])}


def open_loop(port, rate, secs, connections):
    """A fixed rate, whatever comes back; latency counts from the time at which a request was due."""
    result = _ours("rate", port, rate, secs, connections, secs=secs)
    if result["errors"] or result["not_200"]:
        raise machine.Failed(f"open loop: {result['errors']} errors, {result['not_200']} answers other than 200")
    return result


def stream(port, secs, way):
    """One TCP connection in bulk, `up` or `down`: Gbit/s."""
    return _ours("tput", port, way, secs, 1, secs=secs)


def ping_pong(port, secs, connections):
    """64 bytes there and back on each connection, one at a time."""
    return _ours("echo", port, secs, connections, secs=secs)


def handshakes(port, secs, certs, name, alpn):
    """Full handshakes of mutual TLS one after another."""
    return _ours("handshakes", port, secs, certs, name, alpn, secs=secs)


def _ours(*words, secs):
    done = _run([TOOL, *words], secs)
    if done.returncode != 0:
        raise machine.Failed(f"{words[0]}: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout)


def measured(processes, run):
    """Runs a load and adds each process's CPU per request (or gigabyte), and the share of the machine that others took."""
    roles = {role: processes.get(role) for role in processes.by_role}
    before = {role: machine.cpu_secs(pid) for role, pid in roles.items()}
    busy, own, begun = machine.busy_secs(), _children_secs(), time.monotonic()
    result = run()
    took = time.monotonic() - begun
    used = {role: machine.cpu_secs(pid) - before[role] for role, pid in roles.items()}
    foreign = machine.busy_secs() - busy - sum(used.values()) - (_children_secs() - own)
    # Of a stream: processor time per gigabyte; else per request.
    if result.get("bytes"):
        result["cpu_secs_per_gb"] = {role: secs * 1e9 / result["bytes"] for role, secs in used.items()}
    else:
        result["cpu_us"] = {role: secs * 1e6 / max(1, result["requests"]) for role, secs in used.items()}
    result["foreign_percent"] = max(0.0, 100 * foreign / (took * os.cpu_count()))
    return result


def _children_secs():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
