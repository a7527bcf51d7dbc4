# Paths and small helpers that the scripts of this folder share; sourced, never run.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${CLUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/test-cluster}
state=${CLUSTER_STATE:-/run/test-cluster}
bin=$cache/bin

die() { echo "cluster: $*" >&2; exit 1; }

# lacking: what keeps a cluster from running here, in words; nothing if it can.
lacking() {
  [[ $(uname -s)-$(uname -m) == Linux-x86_64 ]] || { echo "needs Linux on x86_64"; return; }
  [[ $(id -u) == 0 ]] || { echo "needs root: nodes are network namespaces"; return; }
  local tool
  for tool in go gcc python3; do
    command -v "$tool" >/dev/null || { echo "needs $tool"; return; }
  done
  ip netns list >/dev/null 2>&1 || command -v apt-get >/dev/null || echo "needs iproute2"
}

# background NAME LOG COMMAND...: starts COMMAND, detached; its pid is kept in $dir/pids/NAME.
background() {
  local name=$1 log=$2; shift 2
  mkdir -p "$dir/pids"
  setsid nohup "$@" >"$log" 2>&1 </dev/null &
  echo $! >"$dir/pids/$name"
}

# await SECONDS WHAT COMMAND...: tries COMMAND again until it succeeds.
await() {
  local deadline=$((SECONDS + $1)) what=$2; shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || die "$what did not come up in time; see the logs in $dir/logs"
    sleep 0.2
  done
}
