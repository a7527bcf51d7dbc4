#!/usr/bin/env python3
"""Fetches an X.509-SVID with the SPIFFE library for Python, unchanged, and checks what came.

    python3 -m venv /tmp/spiffe && /tmp/spiffe/bin/pip install 'spiffe==0.3.1'
    /tmp/spiffe/bin/python tests/interop/fetch_x509.py unix:///ABSOLUTE/PATH/workload-api.sock [EXPECTED_SPIFFE_ID]

The process must be a workload of the mesh: put it into mesh.yaml, or register its user or program with the CA.
Exit codes: 0 all is well, 1 the answer is wrong, 2 usage.
"""

import sys

from cryptography.hazmat.primitives.asymmetric import ec
from spiffe import WorkloadApiClient


def fail(why: str) -> None:
    print(f"wrong: {why}", file=sys.stderr)
    sys.exit(1)


def main() -> None:
    if len(sys.argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    with WorkloadApiClient(sys.argv[1]) as client:
        svid = client.fetch_x509_svid()
        bundles = client.fetch_x509_bundles()
    bundle = bundles.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    if bundle is None:
        fail("no bundle for the SVID's own trust domain")
    leaf, issuer = svid.cert_chain
    (root,) = bundle.x509_authorities
    leaf.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(root)
    if not isinstance(svid.private_key, ec.EllipticCurvePrivateKey):
        fail("the private key is not elliptic")
    if svid.private_key.public_key() != leaf.public_key():
        fail("the private key is not the leaf's")
    if len(sys.argv) == 3 and str(svid.spiffe_id) != sys.argv[2]:
        fail(f"the SPIFFE ID is {svid.spiffe_id}")
    print(f"{svid.spiffe_id} until {leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}, serial {leaf.serial_number:x}")


if __name__ == "__main__":
    main()
