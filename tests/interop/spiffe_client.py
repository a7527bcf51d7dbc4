#!/usr/bin/env python3
"""Follows X.509-SVIDs, tokens and bundles with the SPIFFE library for Python, unchanged, and checks what comes.

    python3 -m venv /tmp/spiffe && /tmp/spiffe/bin/pip install 'spiffe==0.3.1'
    /tmp/spiffe/bin/python tests/interop/spiffe_client.py unix:///ABSOLUTE/PATH/api.sock EXPECTED_SPIFFE_ID RENEWALS

The process must be a workload of the mesh: put it into mesh.yaml, or register its user or program with the CA.
Exit codes: 0 all is well, 1 the answer is wrong, 2 usage.
"""

import sys
import time

from cryptography.hazmat.primitives.asymmetric import ec
from spiffe import JwtSource, WorkloadApiClient, X509Source


def fail(why: str) -> None:
    print(f"wrong: {why}", file=sys.stderr)
    sys.exit(1)


def check(svid, bundle, expected: str) -> int:
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
    if str(svid.spiffe_id) != expected:
        fail(f"the SPIFFE ID is {svid.spiffe_id}")
    return leaf.serial_number


def main() -> None:
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    socket, expected, renewals = sys.argv[1], sys.argv[2], int(sys.argv[3])
    serials = set()
    with X509Source(socket_path=socket) as source:
        end = time.monotonic() + 20 + 9 * renewals
        while len(serials) <= renewals:
            if time.monotonic() > end:
                fail(f"{len(serials)} SVIDs in time, not {renewals + 1}")
            svid = source.svid
            bundle = source.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
            serials.add(check(svid, bundle, expected))
            time.sleep(0.2)
    with WorkloadApiClient(socket) as client:
        token = client.fetch_jwt_svid(audience={"interop"})
        validated = client.validate_jwt_svid(token.token, "interop")
        if str(validated.spiffe_id) != expected:
            fail(f"the token is of {validated.spiffe_id}")
        try:
            client.validate_jwt_svid(token.token, "another")
            fail("a token was taken for another audience")
        except Exception as refusal:  # each version of the library has its own type
            print(f"refused as it should be: {refusal}")
    with JwtSource(socket_path=socket) as source:
        again = source.fetch_svid(audience={"interop"})
        if source.get_bundle_for_trust_domain(again.spiffe_id.trust_domain) is None:
            fail("no keys for the token's own trust domain")
    print(f"{expected}: {len(serials)} SVIDs, tokens, bundles")


if __name__ == "__main__":
    main()
