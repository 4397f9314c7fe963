"""How one issuer's tokens are checked: by a secret, a public key, a set of keys at a URL, or by asking.

`gate.TokenGate` picks by issuer; every way ends in `claims.accepted`, so what a token must say is written
once.
"""
