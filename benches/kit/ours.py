"""Our pair, from static files; and another build of it."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from . import pki
from .pairs import APPS, ROOT, Pair, template

# What is shipped: `--profile dist` (decision 4).
BUILT = ROOT / "target" / "dist" / "mesh-proxy"
# What a Server says of each kind of traffic.
PROTOCOLS = {"http": "HTTP/1", "grpc": "gRPC", "tcp": "opaque"}


class Mesh(Pair):
    """Ours. `policies`: grants on the server, of which the last by name holds."""

    name, port, mtls_port, alpn = "mesh", 16001, 16443, "mesh.internal/1"

    def __init__(self, folder, certs, command, policies):
        super().__init__(folder, certs)
        self.command, self.policies = _command(command) or [str(BUILT)], policies
        self.may_build = command is None

    def missing(self):
        if self.may_build and not BUILT.exists():
            print("building mesh-proxy as it is shipped; this takes some minutes", file=sys.stderr)
            subprocess.run(["cargo", "build", "--profile", "dist", "-p", "mesh-proxy"], cwd=ROOT)
        return super().missing() or ("" if shutil.which(self.command[0]) else f"{self.command[0]} is not there")

    def argv(self, side, role, kind):
        return [*self.command, "--config", self.write(f"mesh-{side}-{role}.yaml", self._config(side, role, kind))]

    def _config(self, side, role, kind):
        # A folder of its own: the proxy closes that of its socket and its log to others; the application's files stay open.
        own = self.folder / "mesh"
        own.mkdir(exist_ok=True)
        common = template("mesh-common.yaml").format(role=role, side=side, domain=pki.TRUST_DOMAIN, certs=self.certs, own=own)
        if side == "server":
            return common + template("mesh-server.yaml").format(mesh=self.mtls_port, app=APPS[kind], folder=self._policy(kind),
                                                                admin=16090, sockets=own)
        return common + template("mesh-client.yaml").format(port=self.port, mesh=self.mtls_port, server=pki.spiffe_id("server"),
                                                            protocol="opaque" if kind == "tcp" else "detect",
                                                            folder=self._pods("client"), admin=16091, sockets=own)

    def _pods(self, name):
        folder = self.folder / f"mesh-manifests-{name}"
        folder.mkdir(exist_ok=True)
        (folder / "pods.yaml").write_text("---\n".join(template("pod.yaml").format(name=role) for role in pki.ROLES))
        return folder

    def _policy(self, kind):
        folder = self._pods("server")
        grant = template("policy-grant.yaml")
        # The grant that holds comes last by name, so that nobody gains from its place.
        grants = [grant.format(name=f"other-{n:05}", who=f"nobody-{n:05}") for n in range(self.policies - 1)]
        grants.append(grant.format(name="z-client", who="client"))
        (folder / "policy.yaml").write_text("---\n".join([template("policy-server.yaml").format(protocol=PROTOCOLS[kind]), *grants]))
        return folder


class Before(Mesh):
    """Another build of ours."""

    name = "before"

    def __init__(self, folder, certs, command, policies):
        super().__init__(folder, certs, command or "", policies)

    def missing(self):
        return super().missing() if self.command[0] else "no other build named (--before)"


def _command(text):
    if text is None:
        return None
    words = shlex.split(text) or [""]
    if words[0]:
        words[0] = str(Path(words[0]).resolve())
    return words
