"""What is measured of a pair, in parts. Each takes a pair and the arguments and returns numbers by name."""

import shutil
import time

from . import load, machine, pki

CONNECTIONS = 32
WARM_UP_SECS = 1
# What is measured at rest is measured so long after the last that happened.
AT_REST_SECS = 3
# Connections of clients that are held open while memory is measured again.
HELD = 1_000
# Requests per second of the open loop.
FIXED_RATE = 5_000
BODIES = ("1k", "64k", "1m")
WIDTHS = (1, 256, 4_000)
GRANTS = (10, 10_000)


def small(pair, args):
    """Small requests over HTTP/1.1, closed and open loop; memory at rest and with connections held; new connections."""
    result = {}
    with machine.Processes() as processes:
        result["ready_ms"] = pair.start(processes)
        pair.check(processes)
        both = [p for p in (processes.get("client"), processes.get("server")) if p]
        time.sleep(AT_REST_SECS)
        result["pss_mib"] = machine.pss_mib(both)
        with load.held(pair.entry("http"), HELD):
            time.sleep(AT_REST_SECS)
            result["pss_held_mib"] = machine.pss_mib(both)
        load.wrk(pair.entry("http"), WARM_UP_SECS, CONNECTIONS)
        result["many"] = load.measured(processes, lambda: load.wrk(pair.entry("http"), args.secs, CONNECTIONS))
        result["one"] = load.measured(processes, lambda: load.wrk(pair.entry("http"), args.secs, 1))
        if load.available():
            result["open"] = load.measured(processes, lambda: load.open_loop(pair.entry("http"), FIXED_RATE, args.secs, CONNECTIONS))
            if pair.mtls_port:
                made = lambda: load.handshakes(pair.mtls_port, args.secs, pair.certs, pki.dns_name("server"), pair.alpn)  # noqa: E731
                result["handshakes"] = load.measured(processes, made)
    return result


def tcp(pair, args):
    """Bytes: one stream each way, and ping-pong."""
    if "tcp" not in pair.kinds or not load.available():
        return {}
    with machine.Processes() as processes:
        pair.start(processes, "tcp")
        time.sleep(WARM_UP_SECS)
        return {
            "up": load.measured(processes, lambda: load.stream(pair.entry("tcp"), args.secs, "up")),
            "down": load.measured(processes, lambda: load.stream(pair.entry("tcp"), args.secs, "down")),
            "echo": load.measured(processes, lambda: load.ping_pong(pair.entry("tcp"), args.secs, CONNECTIONS)),
        }


def bodies(pair, args):
    """Answers of 1 KiB, 64 KiB and 1 MiB."""
    with machine.Processes() as processes:
        pair.start(processes)
        load.wrk(pair.entry("http"), WARM_UP_SECS, CONNECTIONS)
        return {f"body_{size}": load.measured(processes, lambda: load.wrk(pair.entry("http"), args.secs, CONNECTIONS, f"/files/{size}"))
                for size in BODIES}


def widths(pair, args):
    """Small requests over other numbers of connections than 32."""
    with machine.Processes() as processes:
        pair.start(processes)
        load.wrk(pair.entry("http"), WARM_UP_SECS, CONNECTIONS)
        return {f"conns_{count}": load.measured(processes, lambda: load.wrk(pair.entry("http"), args.secs, count)) for count in WIDTHS}


def grpc(pair, args):
    """Calls as gRPC makes them (POST, a message of ten bytes each way, trailers), and messages of 64 KiB up."""
    if "grpc" not in pair.kinds or not shutil.which("h2load") or not shutil.which("nghttpd"):
        return {}
    small_message, large = pair.folder / "www" / "unary", pair.folder / "www" / "64k"
    with machine.Processes() as processes:
        pair.start(processes, "grpc")
        return {"unary": load.measured(processes, lambda: load.h2(pair.entry("grpc"), args.secs, 8, 16, "/unary", small_message)),
                "upload": load.measured(processes, lambda: load.h2(pair.entry("grpc"), args.secs, 8, 4, "/unary", large))}


def grants(pair, args):
    """Small requests with that many grants at the server, of which the last holds. For pairs that can have them."""
    if not hasattr(pair, "policies"):
        return {}
    before, result = pair.policies, {}
    for count in GRANTS:
        pair.policies = count
        try:
            with machine.Processes() as processes:
                pair.start(processes)
                load.wrk(pair.entry("http"), WARM_UP_SECS, CONNECTIONS)
                result[f"grants_{count}"] = load.measured(processes, lambda: load.wrk(pair.entry("http"), args.secs, CONNECTIONS))
        finally:
            pair.policies = before
    return result


ALL = {"small": small, "tcp": tcp, "bodies": bodies, "widths": widths, "grpc": grpc, "grants": grants}
