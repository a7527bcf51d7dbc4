"""Who is compared: pairs of a client's and a server's proxy.

All do the same work: bytes in plain from the client, mutual TLS 1.3 between the two, the client's identity checked on the
server's side. Three kinds of traffic: `http` (HTTP/1.1 on both outer sides), `grpc` (HTTP/2 in plain on both), and `tcp`
(bytes). A pair names the kinds that it can carry."""

import shutil
import subprocess
from pathlib import Path

from . import load, machine, pki

ROOT = Path(__file__).resolve().parent.parent.parent
# Where the application listens for each kind of traffic.
APPS = {"http": 18080, "grpc": 18100, "tcp": 18090}
_TEMPLATES = Path(__file__).resolve().parent / "templates"


def template(name):
    return (_TEMPLATES / name).read_text()


class Pair:
    """Two proxies in front of the application; this one is no proxies at all. Subclasses say how they are started."""

    name, port, mtls_port = "direct", None, None
    kinds = ("http", "grpc", "tcp")
    # What the server's side expects in a handshake.
    alpn = "h2"

    def __init__(self, folder, certs):
        self.folder, self.certs = folder, certs

    def missing(self):
        """What the machine lacks for this pair; empty if nothing."""
        absent = [tool for tool in ("wrk", "nginx", "taskset", "curl") if not shutil.which(tool)]
        return f"{', '.join(absent)} not found (Debian: apt-get install wrk nginx-light)" if absent else ""

    def argv(self, side, role, kind):
        """The command of one side (`client` or `server`) under one role's identity."""
        raise NotImplementedError

    def entry(self, kind):
        """The port at which clients dial."""
        return self.port or APPS[kind]

    def start(self, processes, kind="http"):
        """Starts the application and both proxies. Returns milliseconds until the slower of the two was ready, if there are two."""
        processes.start("backend", self._application(kind), machine.LOAD_CPU, [APPS[kind]], self.folder / f"backend-{kind}.log")
        if not self.mtls_port:
            return None
        server = self._start(processes, "server", "server", kind, [self.mtls_port])
        return max(server, self._start(processes, "client", "client", kind, [self.port]))

    def _application(self, kind):
        if kind == "tcp":
            return [load.TOOL, "sink", APPS[kind]]
        if kind == "grpc":
            return ["nghttpd", "--no-tls", "--trailer", "grpc-status: 0", "-d", self.folder / "www", APPS[kind]]
        path = self.folder / "backend.conf"
        path.write_text(template("nginx-backend.conf").replace("@FOLDER@", str(self.folder)).replace("@PORT@", str(APPS[kind])))
        return ["nginx", "-p", self.folder, "-c", path]

    def _start(self, processes, side, role, kind, ports):
        log = self.folder / f"{self.name}-{side}-{role}-{kind}.log"
        return processes.start(side, self.argv(side, role, kind), machine.PAIR_CPU, ports, log, cwd=self.folder)

    def check(self, processes):
        """The client is let through and an intruder with a certificate of the same root is not. For `http`."""
        if not self.mtls_port:
            return
        processes.stop("client")
        self._start(processes, "client", "intruder", "http", [self.port])
        answer = self._ask()
        processes.stop("client")
        if answer == "200":
            raise machine.Failed("an intruder's request was answered with 200: this pair checks no identity")
        self._start(processes, "client", "client", "http", [self.port])
        answer = self._ask()
        if answer != "200":
            raise machine.Failed(f"the client's request was answered with {answer}, not 200")

    def _ask(self):
        words = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "5", f"http://127.0.0.1:{self.port}/"]
        return subprocess.run(words, capture_output=True, text=True).stdout

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path


def content(folder):
    """The files that the applications serve; nginx's worker, started by root, is somebody else and must reach them."""
    folder.chmod(0o711)
    www = folder / "www"
    www.mkdir(exist_ok=True)
    for name, length in (("1k", 1 << 10), ("64k", 1 << 16), ("1m", 1 << 20)):
        (www / name).write_bytes(b"x" * length)
    # A message of gRPC: not compressed, five bytes.
    (www / "unary").write_bytes(b"\0\0\0\0\5\x0a\3yes")


def spiffe_san_hex(role):
    """The URI name as it stands in a certificate: tag 6 of the list of names, length, bytes."""
    wanted = pki.spiffe_id(role).encode()
    return (bytes([0x86, len(wanted)]) + wanted).hex().upper()
