"""Programs that we did not write: how they are fetched or found, and how each serves at the address that the mesh gives it."""

import os
import shutil
import sys
from pathlib import Path

from mesh import BUILT, Missing, need, once, run

HERE = Path(__file__).resolve().parent


@once
def go():
    """The folder of the programs in Go."""
    need("go")
    done = run("go", "build", "-o", f"{BUILT}/bin/", "./grpc-server", "./spdy", "google.golang.org/grpc/interop/client",
               "github.com/summerwind/h2spec/cmd/h2spec", cwd=HERE / "go", timeout=900)
    if done.returncode:
        raise Missing(f"the programs in Go cannot be built: {done.stderr.strip().splitlines()[-1]}")
    return BUILT / "bin"


@once
def node():
    """The folder of the programs for Node, with what they need."""
    need("node")
    shutil.copytree(HERE / "node", BUILT / "node", dirs_exist_ok=True)
    done = run("npm", "ci", "--no-audit", "--no-fund", cwd=BUILT / "node", timeout=300)
    if done.returncode:
        raise Missing(f"npm cannot fetch `ws`: {done.stderr.strip().splitlines()[-1]}")
    return BUILT / "node"


@once
def python():
    """A Python with `websockets`."""
    venv = BUILT / "venv"
    made = run(sys.executable, "-m", "venv", venv)
    done = made if made.returncode else run(venv / "bin/pip", "install", "-q", "websockets==15.0.1", timeout=300)
    if done.returncode:
        raise Missing(f"pip cannot install `websockets`: {done.stderr.strip().splitlines()[-1]}")
    return venv / "bin/python"


def nginx(folder):
    (folder / "nginx.conf").write_text(f"""
daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 1; events {{ }}
http {{
  access_log off; root {folder.parent}/www; client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2;
  fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen ADDRESS; keepalive_requests 1000000; }}
}}""")
    return ["sh", "-c", f"sed s/ADDRESS/$MESH_APP_ADDR/ {folder}/nginx.conf > {folder}/own.conf && exec {need('nginx')} -c {folder}/own.conf"]


def redis(folder):
    need("redis-benchmark")
    return ["sh", "-c", f"exec {need('redis-server')} --bind ${{MESH_APP_ADDR%:*}} --port ${{MESH_APP_ADDR#*:}} --save '' --dir {folder} --protected-mode no"]


def postgres(folder):
    need("pgbench")
    initdb, server = need("initdb"), need("postgres")
    data, sockets = folder / "data", folder
    who = [] if os.geteuid() else ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if who:
        need("setpriv")
        shutil.chown(folder, 65534, 65534)
    done = run(*who, initdb, "-D", data, "-U", "mesh", "--auth=trust", "--no-sync", "-E", "UTF8", env={**os.environ, "LC_ALL": "C"})
    if done.returncode:
        raise Missing(f"initdb: {done.stderr.strip()}")
    prefix = " ".join(who)
    return ["sh", "-c", f"exec {prefix} {server} -D {data} -k {sockets} -h ${{MESH_APP_ADDR%:*}} -p ${{MESH_APP_ADDR#*:}} -F"]


def ssh(folder):
    need("ssh-keyscan")
    server = need("sshd")
    if run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key").returncode:
        raise Missing("ssh-keygen makes no key")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    return ["sh", "-c", f"exec {server} -D -e -f /dev/null -h {folder}/key -o ListenAddress=${{MESH_APP_ADDR%:*}} -o Port=${{MESH_APP_ADDR#*:}} -o PidFile=none -o UsePAM=no"]


def nghttpd(folder):
    return ["sh", "-c", f"exec {need('nghttpd')} --no-tls -a ${{MESH_APP_ADDR%:*}} -d {folder.parent}/www ${{MESH_APP_ADDR#*:}}"]
