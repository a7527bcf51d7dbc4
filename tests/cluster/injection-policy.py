"""Holds the admission policies of `injector.by: policy` against the webhook, on a real API server.

    injection-policy.py ADDRESS    ADDRESS: an injector's; kubectl's configuration says where the API server is
    injection-policy.py --cases    prints the cases as JSON

Each pod goes both ways: to the API server, which answers what it would store (dry run), and to the injector's webhook, whose
patch is applied to the pod and stored as far in a namespace that neither covers. Both pods must be the same, up to the order
of volumes; or both ways refuse it, with the same code. Prints a line for each case that differs, and a count.
"""

import base64
import copy
import json
import re
import ssl
import subprocess
import sys
import tempfile
from http.client import HTTPSConnection

M, L = "mesh.internal/", "config.linkerd.io/"
ON = {M + "inject": "enabled"}


def pod(annotations=None, spec=None, labels=None, containers=None):
    metadata = {"name": "p"}
    if annotations is not None:
        metadata["annotations"] = annotations
    if labels is not None:
        metadata["labels"] = labels
    app = [{"name": "app", "image": "localhost/busybox:1"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {"containers": containers or app, **(spec or {})}}


def one(**fields):
    return [{"name": "app", "image": "x", **fields}]


def capabilities(*names):
    return one(securityContext={"capabilities": {"add": list(names)}})


def ours(restart="Always"):
    return [{"name": "mesh-capture", "image": "x"}, {"name": "mesh-proxy", "image": "x", **({"restartPolicy": restart} if restart else {})}]


def cases():
    """Name, pod, annotations and labels of its namespace, and what the policy alone refuses (a code), if anything."""
    out = []

    def add(name, pod, namespace=None, labels=None, stricter=None):
        out.append({"name": name, "pod": pod, "namespace": namespace or {}, "labels": labels or {}, "stricter": stricter})

    # The switch.
    for own, outer in [(None, None), ("enabled", None), ("disabled", None), (None, "enabled"), (None, "disabled"),
                       ("enabled", "disabled"), ("disabled", "enabled"), ("disabled", "maybe"), ("enabled", "maybe")]:
        for key in (M + "inject", "linkerd.io/inject"):
            add(f"{key}: pod {own}, namespace {outer}", pod({key: own} if own else {}), {key: outer} if outer else {})
    add("ours before Linkerd's", pod({M + "inject": "disabled", "linkerd.io/inject": "enabled"}))
    add("ours before Linkerd's, of the namespace", pod(), {M + "inject": "enabled", "linkerd.io/inject": "disabled"})
    add("Linkerd's of the pod before ours of the namespace", pod({"linkerd.io/inject": "disabled"}), ON)
    add("Linkerd's ingress", pod({"linkerd.io/inject": "ingress"}))
    add("no annotations at all", pod(None), ON)
    for value in ("true", "Enabled", "", "ingress", " enabled", "enabled\n", 'a"b\\c', "$(POD_NAME)", "${x}", "{{ .Values }}", "é\u2028", "x" * 6000):
        add(f"switch {value[:20]!r}", pod({M + "inject": value}))
    add("switch of the namespace", pod(), {"linkerd.io/inject": "yes"})
    add("a label in its place", pod(labels={M + "inject": "enabled"}))
    add("a label of Linkerd in its place", pod(labels={"linkerd.io/inject": "enabled"}))
    add("a label of the namespace in its place", pod(), {}, {M + "inject": "enabled"})

    # Settings: by the pod and by its namespace, with either prefix.
    good = {
        "proxy-uid": ["1", "2102", "2147483647", " 77 ", "+5", "007"],
        "proxy-log-level": ["info", "info,mesh_proxy=debug", " warn "],
        "proxy-cpu-request": ["1", "0.5", "500m", ""], "proxy-cpu-limit": ["2", "1500m"],
        "proxy-memory-request": ["64Mi", "1.5Gi", "", "1000000"], "proxy-memory-limit": ["1G", "128Mi"],
        "skip-inbound-ports": ["22", "25, 80 ,9000-9010", "", ",,", "080", "+81", "7-7", "9 - 10"],
        "skip-outbound-ports": ["25,3306", "1-65535"], "skip-udp-ports": ["53", "5000-5010,53"],
        "skip-subnets": ["10.0.0.0/8", " 10.0.0.1 , fd00::/8,", "::1", "1.2.3.4/+8", "10.0.0.1/8", ""],
    }
    for name, values in good.items():
        for value in values:
            add(f"{name}: {value!r} of the pod", pod({**ON, M + name: value}))
        add(f"{name} of the namespace", pod(), {**ON, L + name: values[0]})
        add(f"{name} of pod and namespace", pod({L + name: values[0]}), {**ON, M + name: values[1]})
        add(f"{name} with both prefixes", pod({**ON, L + name: values[0], M + name: values[1]}))
    bad = {
        "proxy-uid": ["0", "-1", "x", "", "2147483648", "99999999999999999999", "1 2", "1\n2", "0x5", "1e3", "٣"],
        "proxy-log-level": ["", "INFO", "a b", "a=", "=a", "a,,b", "a=b=c", "info\n- evil", 'x"y', "$(POD_NAME)", "info\\"],
        "proxy-cpu-request": ["1x", ".5", "5.", "-1", "1Mi", "m", '1", "x": "'],
        "proxy-cpu-limit": ["1k"], "proxy-memory-request": ["1Ti", "64 Mi", "x", "-5"], "proxy-memory-limit": ["1m"],
        "skip-inbound-ports": ["http", "0", "65536", "10-9", "1-2-3", "-", "80-", "80;81", "15008", "15000-15010", "15020", "1-65535", "8\n9", "99999999999999999999", "$(X)"],
        "skip-outbound-ports": ["x", "70000"], "skip-udp-ports": ["dns", "0-5"],
        "skip-subnets": ["10.0.0.0/33", "10.0.0", "fd00::/129", "x", "10.0.0.0/8/8", "10.0.0.0/", "/8", "10.0.0.0/-1", "fe80::1%eth0", "010.0.0.1", "1.2.3.4\n--evil"],
    }
    for name, values in bad.items():
        for value in values:
            add(f"{name}: {value[:30]!r} is refused", pod({**ON, M + name: value}))
        add(f"{name} of the namespace is refused", pod(), {**ON, L + name: values[0]})
        add(f"{name} of the namespace is overruled", pod({M + name: good[name][0]}), {**ON, M + name: values[0]})
        add(f"{name} of who is not asked", pod({M + name: values[0]}))
    add("more text than a policy reads", pod({**ON, M + "skip-outbound-ports": ",".join(["1000"] * 250)}), stricter="MESH-0741")
    add("far more text than a policy reads", pod({**ON, M + "skip-subnets": "10.0.0.0/8," * 18000}), stricter="MESH-0741")
    add("as much text as a policy reads", pod({**ON, M + "skip-outbound-ports": ",".join(["1000"] * 204)}))
    add("IPv4 in IPv6", pod({**ON, M + "skip-subnets": "::ffff:10.0.0.1"}), stricter="MESH-0741")
    add("all at once", pod({**ON, **{M + name: values[1] for name, values in good.items()}}))
    add("annotations that nobody reads", pod({**ON, M + "skip-inbound-port": "80", L + "proxy-version": "x", "other": 'a"b\n$(X)\\'}))
    add("annotations of policy", pod({**ON, L + "opaque-ports": "25", M + "default-inbound-policy": "deny"}))

    # What is in the pod already.
    add("init containers, volumes, labels", pod(ON, {"initContainers": [{"name": "first", "image": "x"}, {"name": "second", "image": "y"}],
        "volumes": [{"name": "data", "emptyDir": {}}]}, {"app": "shop", "a": "b"}))
    for labels in ({"app": "web"}, {"app.kubernetes.io/name": "web", "app": "x"}, {"app.kubernetes.io/name": "", "app": "x"}, {}):
        add(f"labels {labels}", pod(ON, labels=labels))
    add("an own list of volumes that may be evicted", pod({**ON, "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes": "mine"}))
    add("marks that somebody wrote", pod({**ON, M + "injected-by": "9.9"}, labels={M + "meshed": "false"}))
    add("many containers", pod(ON, containers=[{"name": f"c{i}", "image": "x", "ports": [{"containerPort": 8000 + i}]} for i in range(60)]))
    add("no token of its own", pod(ON, {"automountServiceAccountToken": False}))

    # Refusals.
    add("the node's network", pod(ON, {"hostNetwork": True}))
    add("the node's network, of the namespace", pod({}, {"hostNetwork": True}), ON)
    add("the node's network, outside", pod({}, {"hostNetwork": True}))
    add("Windows", pod(ON, {"os": {"name": "windows"}}))
    add("Linux", pod(ON, {"os": {"name": "linux"}}))
    add("the proxy's user", pod(ON, {"securityContext": {"runAsUser": 15014}}))
    add("the proxy's user in a container", pod(ON, containers=one(securityContext={"runAsUser": 15014})))
    add("the proxy's user in an init container", pod(ON, {"initContainers": [{"name": "i", "image": "x", "securityContext": {"runAsUser": 15014}}]}))
    add("another user of the proxy", pod({**ON, M + "proxy-uid": "2102"}, {"securityContext": {"runAsUser": 15014}}))
    add("the pod's user as the proxy's", pod({**ON, M + "proxy-uid": "2102"}, {"securityContext": {"runAsUser": 2102}}))
    add("privileged", pod(ON, containers=one(securityContext={"privileged": True})))
    add("privileged init container", pod(ON, {"initContainers": [{"name": "i", "image": "x", "securityContext": {"privileged": True}}]}))
    add("not privileged", pod(ON, containers=one(securityContext={"privileged": False})))
    for name in ("NET_ADMIN", "CAP_NET_ADMIN", "net_admin", "CAP_CAP_NET_ADMIN", "ALL", "all", "SYS_ADMIN", "CAP_SYS_ADMIN"):
        add(f"capability {name}", pod(ON, containers=capabilities("CHOWN", name)))
    for name in ("NET_RAW", "cap_net_admin", "NET_ADMINS", "SYS_TIME", "X_ALL"):
        add(f"capability {name} is let", pod(ON, containers=capabilities(name)))
    for name in ("linkerd-proxy", "linkerd-init", "istio-proxy", "istio-init"):
        add(f"another mesh's {name}", pod(ON, containers=[{"name": name, "image": "x"}]))
    for name in ("mesh-proxy", "mesh-capture"):
        add(f"an own {name}", pod(ON, containers=[{"name": name, "image": "x"}]))
        add(f"an own init container {name}", pod(ON, {"initContainers": [{"name": name, "image": "x"}]}))
    add("half of an injection", pod(ON, {"initContainers": ours(None)}))
    add("an injection", pod(ON, {"initContainers": ours()}))
    add("an injection on the node's network", pod(ON, {"initContainers": ours(), "hostNetwork": True}), stricter="MESH-0742")
    add("an injection beside a right", pod(ON, {"initContainers": ours()}, containers=capabilities("NET_ADMIN")), stricter="MESH-0744")
    for name in ("mesh-run", "mesh-log", "mesh-token", "mesh-trust"):
        add(f"an own volume {name}", pod(ON, {"volumes": [{"name": name, "emptyDir": {}}]}))
    for port in (15001, 15006, 15008, 15020, 15010):
        add(f"port {port}", pod(ON, containers=one(ports=[{"containerPort": 80}, {"containerPort": port}])))
    return out


class Server:
    """The API server and the injector."""

    def __init__(self, injector):
        config = json.loads(subprocess.run(["kubectl", "config", "view", "--raw", "-o", "json"], check=True, capture_output=True).stdout)
        user, cluster = config["users"][0]["user"], config["clusters"][0]["cluster"]
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile() as pem:
            pem.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
            pem.flush()
            context.load_cert_chain(pem.name)
        self.api = HTTPSConnection(cluster["server"].removeprefix("https://"), context=context, timeout=20)
        unknown = ssl._create_unverified_context()  # Only its answers are compared, and nobody else is at that address.
        self.injector = HTTPSConnection(injector, 8443, context=unknown, timeout=20)

    def call(self, method, path, body):
        self.api.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        answer = self.api.getresponse()
        return answer.status, json.loads(answer.read()), " ".join(answer.headers.get_all("Warning") or [])

    def namespace(self, name, annotations, labels):
        status, said, _ = self.call("POST", "/api/v1/namespaces", {"metadata": {"name": name, "annotations": annotations, "labels": labels}})
        assert status in (201, 409), said

    def try_create(self, namespace, pod):
        return self.call("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)

    def webhook(self, namespace, pod):
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                  "request": {"uid": "u", "namespace": namespace, "operation": "CREATE", "object": pod}}
        self.injector.request("POST", "/inject", json.dumps(review), {"Content-Type": "application/json"})
        return json.loads(self.injector.getresponse().read())["response"]


def patched(pod, patch):
    """RFC 6902, of which webhooks use `add`."""
    pod = copy.deepcopy(pod)
    for step in patch:
        assert step["op"] == "add", step
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
        at = pod
        for parent in parents:
            at = at[parent]
        if isinstance(at, dict):
            at[last] = step["value"]
        elif last == "-":
            at.append(step["value"])
        else:
            at.insert(int(last), step["value"])
    return pod


def essence(pod):
    """What both ways must agree on."""
    text = re.sub(r"kube-api-access-\w+", "kube-api-access", json.dumps(pod))
    pod = json.loads(text)
    metadata = {key: pod["metadata"].get(key) for key in ("annotations", "labels")}
    pod["spec"]["volumes"] = sorted(pod["spec"].get("volumes", []), key=lambda v: v["name"])
    for container in pod["spec"]["containers"] + pod["spec"].get("initContainers", []):
        container.get("volumeMounts", []).sort(key=lambda m: m["mountPath"])
    return {"metadata": metadata, "spec": pod["spec"]}


def codes(text):
    return sorted(set(re.findall(r"MESH-\d{4}", text)))


def difference(a, b, path=""):
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            if a.get(key) != b.get(key):
                return difference(a.get(key), b.get(key), f"{path}/{key}")
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (x, y) in enumerate(zip(a, b)):
            if x != y:
                return difference(x, y, f"{path}/{index}")
    return f"{path}: policy {json.dumps(a)[:400]}, webhook {json.dumps(b)[:400]}"


def compare(server, case, namespace):
    """What differs; nothing if both ways agree."""
    status, made, warned = server.try_create(namespace, case["pod"])
    said = "" if status == 201 else made.get("message", "")
    answer = server.webhook(namespace, case["pod"])
    if case["stricter"]:
        assert answer["allowed"], f"the webhook refuses it too: {answer}"
        return None if case["stricter"] in codes(said) else f"not refused with {case['stricter']}: {status} {said[:300]}"
    if not answer["allowed"]:
        want = answer["status"]["message"]
        if status == 201 or not codes(said) or codes(said)[0] != codes(want)[0]:
            return f"webhook: {want[:300]!r}; policy: {status} {said[:300]!r}"
        return None
    patch = json.loads(base64.b64decode(answer["patch"])) if "patch" in answer else []
    base_status, base, base_warned = server.try_create("ip-outside", patched(case["pod"], patch))
    if base_status != 201:
        # The API server itself refuses such a pod, whoever added what.
        return None if status != 201 else f"only the webhook's is refused: {base}"
    if status != 201:
        return f"only the policy refuses: {said[:600]!r}"
    if essence(made) != essence(base):
        return difference(essence(made), essence(base))
    want = codes(" ".join(answer.get("warnings", [])))
    if codes(warned) != want:
        return f"warnings: policy {codes(warned)}, webhook {want}"
    return None


def main():
    if sys.argv[1:] == ["--cases"]:
        print(json.dumps(cases()))
        return 0
    server = Server(sys.argv[1])
    server.namespace("ip-outside", {}, {"mesh.internal/admission": "disabled"})
    names = {}
    everything = cases()
    for case in everything:
        key = json.dumps([case["namespace"], case["labels"]], sort_keys=True)
        if key not in names:
            names[key] = f"ip-{len(names)}"
            server.namespace(names[key], case["namespace"], case["labels"])
        case["in"] = names[key]
    # The service account of each, and the API server's own copy of them.
    subprocess.run(["kubectl", "wait", "--for=create", "serviceaccount/default", "-n", [*names.values()][-1], "--timeout=20s"], check=True, capture_output=True)
    subprocess.run(["sleep", "2"], check=True)
    wrong = 0
    for case in everything:
        differs = compare(server, case, case["in"])
        if differs:
            wrong += 1
            print(f"{case['name']}: {differs}")
    print(f"{len(everything)} pods, {wrong} differ")
    return 1 if wrong else 0


sys.exit(main())
