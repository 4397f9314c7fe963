"""The audit trail of a service: what was done, by whom, under which approval, in a chain that shows changes.

`entry` is the chain itself, `tables` and `trail` keep it in a service's database, `verify` checks an export.
"""
