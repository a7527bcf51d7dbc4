"""A mesh on one machine whose servers are programs of others, and the means to ask for what may not be there."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from suite import check, eventually, finish, interrupt, run, skip  # noqa: E402, F401

MESH = ROOT / "target/release/mesh"
BUILT = ROOT / "target/clients"
NS = "clients"


def program(*names):
    """The first of `names` that is there, also where Debian keeps what root alone has in its path."""
    for name in names:
        found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/lib/postgresql/15/bin:/usr/lib/postgresql/17/bin")
        if found:
            return found
    return None


class Missing(Exception):
    """What a suite needs and cannot have."""


def need(*names):
    found = program(*names)
    if not found:
        raise Missing(f"there is no {names[0]}")
    return found


def once(what):
    """Builds or fetches something once a run, and remembers also that it cannot be."""
    def built():
        if what not in once.done:
            try:
                once.done[what] = what()
            except Missing as missing:
                once.done[what] = missing
        if isinstance(once.done[what], Missing):
            raise once.done[what]
        return once.done[what]
    return built


once.done = {}


class Server:
    """One program, in one or several copies, each behind a proxy of its own."""

    def __init__(self, name, protocol, command, more="", copies=1):
        self.name, self.protocol, self.command, self.more = name, protocol, command, more
        self.workloads = [name] if copies == 1 else [f"{name}-{number}" for number in range(copies)]


def manifests(servers):
    """What Kubernetes would be told of the servers; `client` may call each, and nobody else unless a server says so."""
    yield f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NS}}}\n"
    for server in servers:
        opaque = "config.linkerd.io/opaque-ports: '8000'" if server.protocol == "opaque" else ""
        for workload in server.workloads:
            yield f"""apiVersion: apps/v1
kind: Deployment
metadata: {{name: {workload}, namespace: {NS}}}
spec:
  selector: {{matchLabels: {{app: {server.name}}}}}
  template:
    metadata: {{labels: {{app: {server.name}}}, annotations: {{{opaque}}}}}
    spec:
      containers: [{{name: app, image: app, ports: [{{name: main, containerPort: 8000}}]}}]
"""
        yield f"""apiVersion: v1
kind: Service
metadata: {{name: {server.name}, namespace: {NS}, annotations: {{{opaque}}}}}
spec: {{selector: {{app: {server.name}}}, ports: [{{name: main, port: 8000}}]}}
"""
        yield f"""apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {{name: {server.name}, namespace: {NS}}}
spec: {{podSelector: {{matchLabels: {{app: {server.name}}}}}, port: main, proxyProtocol: {server.protocol}{", " + server.more if server.more else ""}}}
"""
        yield f"""apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {{name: {server.name}, namespace: {NS}}}
spec:
  targetRef: {{group: policy.linkerd.io, kind: Server, name: {server.name}}}
  requiredAuthenticationRefs: [{{kind: ServiceAccount, name: client}}]
"""


class Mesh:
    """A running `mesh up` of all servers that can run here: `client` may call each, `stranger`, which has an SVID too, and
    `outsider`, which has no proxy, none."""

    def __init__(self, servers):
        self.folder = Path(tempfile.mkdtemp(prefix="mesh-clients-"))
        self.folder.chmod(0o755)
        (self.folder / "www").mkdir()
        (self.folder / "www/index.html").write_text("hello\n")
        (self.folder / "www/large").write_bytes(os.urandom(3 << 20))
        self.lacks, running, workloads = {}, [], []
        for server in servers:
            try:
                for workload in server.workloads:
                    own = self.folder / workload
                    own.mkdir()
                    workloads.append({"name": workload, "namespace": NS, "ports": [{"name": "main", "port": 8000}],
                                      "command": [str(word) for word in server.command(own)]})
            except Missing as missing:
                self.lacks[server.name] = str(missing)
                continue
            running.append(server)
        upstreams = [{"service": f"{NS}/{server.name}", "port": 8000} for server in running]
        for name in ("client", "stranger", "outsider"):
            workloads.append({"name": name, "namespace": NS, "command": ["sleep", "100000"], "upstreams": upstreams,
                              "meshed": name != "outsider"})
        (self.folder / "manifests.yaml").write_text("---\n".join(manifests(running)))
        (self.folder / "mesh.yaml").write_text(json.dumps({
            "apiVersion": "mesh.internal/v1alpha1", "kind": "LocalMesh", "metadata": {"name": "clients"},
            "spec": {"manifests": ["manifests.yaml"], "workloads": workloads}}))
        self.state = self.folder / "state"
        self.log = open(self.folder / "up.log", "w+")
        self.process = subprocess.Popen([str(MESH), "up", "-f", str(self.folder / "mesh.yaml"), "--state", str(self.state)],
                                        stdout=self.log, stderr=subprocess.STDOUT)
        eventually(lambda: "is up:" in self.output() or self.process.poll() is not None, 30)
        if self.process.poll() is not None or "is up:" not in self.output():
            raise SystemExit(f"mesh up did not start:\n{self.output()}")

    def output(self):
        return (self.folder / "up.log").read_text()

    def running(self):
        return json.loads((self.state / "run/mesh.json").read_text())

    def workload(self, name):
        return next(w for w in self.running()["workloads"] if w["name"] == name)

    def to(self, server, client="client"):
        """Where `client` finds a server: `host:port` of its own proxy, or of the server's if it has none."""
        if server in self.lacks:
            raise Missing(self.lacks[server])
        workload = self.workload(client)
        if not workload["proxy"]:
            # Whoever has no proxy is told where the pod itself is.
            pid = eventually(lambda: self.workload(client)["appPid"], 10)
            told = Path(f"/proc/{pid}/environ").read_text().split("\0")
            name = f"MESH_PLAIN_{server.upper().replace('-', '_')}="
            return next(line.removeprefix(name) for line in told if line.startswith(name))
        name = f"{NS}/{server}:"
        return next(address for service, address in workload["proxy"]["upstreams"]
                    if service.startswith(name) or service.startswith(f"{server}.{NS}") or service.startswith(f"{server}:"))

    def stop(self):
        interrupt(self.process)
        shutil.rmtree(self.folder, ignore_errors=True)
