"""A mesh with more policy than anybody writes by hand, for suites and benchmarks."""


def large_policy(workloads=1000, grants=10_000):
    """Grants from one service account to one Server each, none to `payments` and none from `dev`."""
    place = lambda n: (f"team{n % 10}", f"app{n}")
    server = ("apiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {{name: {1}, namespace: {0}}}\n"
              "spec: {{podSelector: {{matchLabels: {{app: {1}}}}}, port: http, proxyProtocol: HTTP/1}}\n")
    pod = ("apiVersion: v1\nkind: Pod\nmetadata: {{name: {1}, namespace: {0}, labels: {{app: {1}}}}}\n"
           "spec: {{serviceAccountName: {1}, containers: [{{name: app, ports: [{{containerPort: 8080, name: http}}]}}]}}\n")
    parts = [server.format("payments", "ledger")]
    for n in range(workloads):
        parts += [pod.format(*place(n)), server.format(*place(n))]
    for n in range(grants):
        parts.append(seeded_grant(f"g{n}", place(n % workloads), place((n * 7 + n // workloads + 1) % workloads)))
    return "---\n".join(parts)


def seeded_grant(name, to, client):
    return (f"apiVersion: policy.linkerd.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: {to[0]}}}\n"
            f"spec:\n  targetRef: {{group: policy.linkerd.io, kind: Server, name: {to[1]}}}\n"
            f"  requiredAuthenticationRefs: [{{kind: ServiceAccount, namespace: {client[0]}, name: {client[1]}}}]\n")
