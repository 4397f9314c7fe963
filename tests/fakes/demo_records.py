"""Ledgers and trails as a demo finds them at its end, made up."""

from __future__ import annotations

from libs.cli.demo.records import Ledger, Records
from libs.rpc._generated.trefoil.hospital.v1 import access_pb2
from libs.rpc._generated.trefoil.types.v1.types_pb2 import PrivacyCost
from libs.runtime.audit.findings import Report

FREELY = PrivacyCost(epsilon="inf", delta="0")


def made_records() -> Records:
    """Two hospitals: one was learned from and asked about, one has only its budget."""
    entries = (
        access_pb2.LedgerEntry(sequence=1, kind="budget set", cost=FREELY),
        access_pb2.LedgerEntry(
            sequence=2,
            kind="training",
            consumer="spiffe://trefoil.local/client/scientist",
            cost=PrivacyCost(epsilon="0.5", delta="0.00001"),
            approval_id="approval-<1>",
            round=1,
        ),
        access_pb2.LedgerEntry(
            sequence=3, kind="predictions", consumer="spiffe://trefoil.local/client/clinic", count=40
        ),
    )
    spent = access_pb2.Balance(dataset_name="chest", budget=FREELY, spent=PrivacyCost(epsilon="0.5"))
    return Records(
        ledgers={
            "north": Ledger(entries, (spent,)),
            "east": Ledger(entries[:1], (access_pb2.Balance(spent=PrivacyCost(epsilon="0")),)),
        },
        trails={
            name: Report(f"spiffe://trefoil.local/{name}", count, "a" * 64, 1, count, None)
            for name, count in (("coordinator", 12), ("party-0", 7))
        },
    )
