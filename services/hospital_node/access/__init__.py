"""Who may use this hospital's data for what: requests, approvals, rules, admission, the privacy ledger.

`domain` is the vocabulary and the state tables, `ports` what the logic needs; each other module is one deed.
"""
