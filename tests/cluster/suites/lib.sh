# What suites are written in. Sourced before each suite, in a shell with -euo pipefail.
#   $MESH the command, $DIR a folder of the suite's own, $ROOT the project; kubectl and helm are on the PATH.

pass() { echo "ok $SUITE: $1"; echo "passed $SUITE: $1" >>"$RESULTS"; }
skip() { echo "skipped $SUITE: $1"; echo "skipped $SUITE: $1" >>"$RESULTS"; }

# check NAME COMMAND...: the command succeeds.
check() {
  local name=$1 out; shift
  if out=$("$@" 2>&1); then pass "$name"; else record_failure "$name" "$out"; fi
}

# refused NAME PATTERN COMMAND...: the command fails, and says something that matches.
refused() {
  local name=$1 pattern=$2 out; shift 2
  if out=$("$@" 2>&1); then
    record_failure "$name" "it succeeded: $out"
  elif grep -qE "$pattern" <<<"$out"; then
    pass "$name"
  else
    record_failure "$name" "it failed otherwise: $out"
  fi
}

# equal NAME WANT GOT
equal() {
  if [[ $2 == "$3" ]]; then pass "$1"; else record_failure "$1" "want: $2"$'\n'"got:  $3"; fi
}

record_failure() {
  echo "FAILED $SUITE: $1"
  sed 's/^/  /' <<<"$2" | head -40
  echo "failed $SUITE: $1" >>"$RESULTS"
}

# namespace NAME [ANNOTATION=VALUE...]: a fresh namespace of this suite.
namespace() {
  local name=$1; shift
  kubectl delete namespace "$name" --ignore-not-found --wait --timeout=60s >/dev/null
  kubectl create namespace "$name" >/dev/null
  (($# == 0)) || kubectl annotate namespace "$name" "$@" >/dev/null
}

# until_true SECONDS COMMAND...: tries again until it succeeds.
until_true() {
  local deadline=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || { "$@"; return; }
    sleep 0.2
  done
}

# installed: the mesh is on the cluster and its injector is ready.
installed() {
  kubectl -n mesh-system rollout status deployment/mesh-injector --timeout=2s >/dev/null 2>&1 && return
  "$MESH" install | kubectl apply -f - >/dev/null
  kubectl -n mesh-system rollout status deployment/mesh-injector --timeout=60s >/dev/null
}

# gateway_api: Gateway API's definitions, of the version that modules/gateway-api names.
gateway_api() {
  local from
  from=$(go list -C "$ROOT/tests/cluster/modules/gateway-api" -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)
  kubectl apply --server-side --force-conflicts -f "$from/config/crd/standard" >/dev/null
  kubectl wait --for=condition=Established --timeout=20s crd/httproutes.gateway.networking.k8s.io >/dev/null
}
