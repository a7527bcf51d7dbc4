"""The shop of examples/shop, running for a suite."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from suite import interrupt, run, timed

ROOT = Path(__file__).resolve().parent.parent
MESH = ROOT / "target/release/mesh"


class Mesh:
    """A running `mesh up` over a copy of the shop, ended when it is left."""

    def __init__(self, *flags, change=None):
        self.folder = Path(tempfile.mkdtemp(prefix="mesh-acc-"))
        self.shop = self.folder / "shop"
        shutil.copytree(ROOT / "examples/shop", self.shop)
        if change:
            change(self.shop, self.folder)
        self.state = self.folder / "state"
        self.log = open(self.folder / "up.log", "w+")
        self.process = subprocess.Popen(
            [str(MESH), "up", "-f", str(self.shop / "mesh.yaml"), "--state", str(self.state), *flags],
            stdout=self.log, stderr=subprocess.STDOUT)
        up, self.took = timed(lambda: "is up:" in self.output() or self.process.poll() is not None, 30)
        if self.process.poll() is not None or not up:
            raise SystemExit(f"mesh up did not start:\n{self.output()}")

    def output(self):
        return (self.folder / "up.log").read_text()

    @property
    def running(self):
        return json.loads((self.state / "run/mesh.json").read_text())

    def workload(self, name):
        return next(w for w in self.running["workloads"] if w["name"] == name)

    def upstream(self, workload, service):
        return next(a for s, a in self.workload(workload)["proxy"]["upstreams"] if s.startswith(service + ":"))

    def mesh(self, *args, **kw):
        return run(MESH, *args, cwd=self.folder, env={**os.environ, "MESH_STATE": str(self.state)}, **kw)

    def pids(self):
        r = self.running
        named = {"ca": r["ca"]["pid"], "controller": r["controller"]["pid"]}
        for w in r["workloads"]:
            named[f"app {w['name']}"] = w["appPid"]
            if w["proxy"]:
                named[f"proxy {w['name']}"] = w["proxy"]["pid"]
        return named

    def stop(self):
        interrupt(self.process)
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def make_foreign_svid(folder, uri, name):
    """An SVID with this ID, `leaf.pem` and `leaf.key` in `folder`, of an authority `name` that nobody trusts."""
    def openssl(*args):
        r = run("openssl", *args, cwd=folder)
        if r.returncode:
            raise SystemExit(r.stderr)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out",
            "ca.pem", "-subj", f"/CN={name}", "-days", "1", "-addext", "keyUsage=critical,keyCertSign")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=x")
    (Path(folder) / "ext").write_text(
        f"subjectAltName=critical,URI:{uri}\nkeyUsage=critical,digitalSignature\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n")
    openssl("x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "leaf.pem", "-days", "1", "-extfile", "ext")
