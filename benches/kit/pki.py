"""Certificates for one run: a root, and P-256 leaves with one SPIFFE ID each, made by the openssl command."""

import subprocess
from pathlib import Path

TRUST_DOMAIN = "bench.mesh"
ROLES = ("client", "server", "intruder")


def spiffe_id(role):
    return f"spiffe://{TRUST_DOMAIN}/ns/bench/sa/{role}"


def dns_name(role):
    """For peers that cannot check URI names of the server."""
    return f"{role}.bench.{TRUST_DOMAIN}"


def make(folder):
    """Writes ca.pem, and ROLE.pem, ROLE.key, ROLE.both.pem for each role. Returns the folder."""
    out = Path(folder) / "certs"
    out.mkdir()
    _key(out / "ca.key")
    _openssl("req", "-x509", "-new", "-key", out / "ca.key", "-sha256", "-days", "2", "-subj", "/CN=bench root",
             "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
             "-addext", f"subjectAltName=URI:spiffe://{TRUST_DOMAIN}", "-out", out / "ca.pem")
    for role in ROLES:
        _leaf(out, role)
    return out


def _leaf(out, role):
    key, request, extensions, leaf = (out / f"{role}{end}" for end in (".key", ".csr", ".ext", ".pem"))
    _key(key)
    _openssl("req", "-new", "-key", key, "-subj", f"/CN={role}", "-out", request)
    extensions.write_text("basicConstraints=critical,CA:FALSE\n"
                          "keyUsage=critical,digitalSignature\n"
                          "extendedKeyUsage=serverAuth,clientAuth\n"
                          f"subjectAltName=URI:{spiffe_id(role)},DNS:{dns_name(role)}\n")
    _openssl("x509", "-req", "-in", request, "-CA", out / "ca.pem", "-CAkey", out / "ca.key", "-CAcreateserial",
             "-days", "1", "-sha256", "-extfile", extensions, "-out", leaf)
    (out / f"{role}.both.pem").write_text(leaf.read_text() + key.read_text())


def _key(path):
    _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path)
    path.chmod(0o600)


def _openssl(*words):
    subprocess.run(["openssl", *map(str, words)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
