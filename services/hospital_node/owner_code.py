"""`trefoil hospital owner-code`: a new one-time code for the node's owner, written to a private file.

It works on the node's database, whether the node runs or not: who may read its settings and keys owns it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from libs.core.clock import SystemClock
from libs.core.errors import TrefoilError
from libs.rpc.audit_service import own_trail
from libs.rpc.identity import Identity, Kind
from libs.runtime.logging import configure_logging
from libs.runtime.private_files import PRIVATE_UMASK
from libs.runtime.settings import load_settings
from services.hospital_node.account_wiring import node_accounts
from services.hospital_node.adapters.tables import AUDIT
from services.hospital_node.adapters.transactions import Transactions
from services.hospital_node.settings import HospitalSettings


def main() -> None:
    """Write the code and say where it is."""
    os.umask(PRIVATE_UMASK)
    parser = argparse.ArgumentParser(prog="trefoil hospital owner-code", description="A code for the owner.")
    parser.add_argument("--config", type=Path, required=True, help="the node's settings, a TOML file")
    try:
        settings = load_settings(HospitalSettings, parser.parse_args().config)
        configure_logging(service=f"hospital-{settings.name}", level="error")
        path, owner = asyncio.run(run(settings))
    except TrefoilError as error:
        sys.exit(f"trefoil: {error}")
    use = "trefoil user claim" if owner is None else "trefoil user accept"
    whose = "the node's owner, who has none yet" if owner is None else f"the owner {owner}"
    print(f"A code for {whose} is in {path}, good for a day and once. Use it with: {use} --code-file {path}")


async def run(settings: HospitalSettings) -> tuple[Path, str | None]:
    """(the file with the code, the owner that the node has)."""
    transactions, clock = Transactions(settings.database), SystemClock()
    try:
        me = Identity(Kind.HOSPITAL, settings.name)
        trail = own_trail(me=me, tables=AUDIT, tls=settings.tls.files, clock=clock)
        made = node_accounts(settings, transactions=transactions, trail=trail, clock=clock)
        path = await made.accounts.invitations.write_owner_code()
        owner = await made.accounts.invitations.owner()
        made.close()
    finally:
        transactions.close()
    return path, owner


if __name__ == "__main__":
    main()
