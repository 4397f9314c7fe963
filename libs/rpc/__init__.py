"""gRPC between the services: mutual TLS 1.3 with identities, one access policy, one error catalogue.

gRPC's Python API has no setting for the lowest TLS version. It has one for the cipher suites of TLS 1.2
(those of TLS 1.3 are fixed and always on), so the list is narrowed to a suite that needs an RSA certificate.
Trefoil's certificates are all ECDSA, so no TLS 1.2 handshake can succeed in either direction, and 1.0 and 1.1
have no such suite at all. The variable is read when the first credentials are made, hence here, and it is
overwritten rather than defaulted: an inherited environment must not weaken it.
"""

from __future__ import annotations

import os

os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES128-GCM-SHA256"
