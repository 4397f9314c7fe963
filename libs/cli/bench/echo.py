"""A service that only answers: what a message between two parties costs before anything is computed.

It stands in for party 1, behind the same server, certificates and access policy, and answers each frame with
an empty one. `python -m libs.cli.bench.echo --config FILE`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from libs.core.errors import NotFound
from libs.rpc._generated.trefoil.party.v1 import party_pb2, party_pb2_grpc
from libs.rpc.settings import RpcSettings
from libs.runtime.logging import configure_logging
from libs.runtime.settings import load_settings


class EchoService(party_pb2_grpc.PeerServiceServicer):
    """Answers every frame at once, without its payload."""

    async def Exchange(  # noqa: N802 - the proto's name
        self, request_iterator: AsyncIterator[party_pb2.PeerFrame], context: Any
    ) -> AsyncIterator[party_pb2.PeerFrame]:
        """An empty frame for each."""
        async for _ in request_iterator:
            yield party_pb2.PeerFrame(data=party_pb2.PeerData())

    async def FetchModel(  # noqa: N802 - the proto's name
        self, request: party_pb2.FetchModelRequest, context: Any
    ) -> AsyncIterator[party_pb2.FetchModelResponse]:
        """There is none."""
        raise NotFound("This server only echoes.")
        yield party_pb2.FetchModelResponse()

    async def UseModel(  # noqa: N802 - the proto's name
        self, request: party_pb2.UseModelRequest, context: Any
    ) -> party_pb2.UseModelResponse:
        """There is none."""
        raise NotFound("This server only echoes.")


async def serve(config: Path) -> None:
    """Until it is told to stop."""
    settings = load_settings(RpcSettings, config)
    configure_logging(service="echo", level=settings.log_level)
    server = settings.server(name="echo", recorder=None)
    name = party_pb2.DESCRIPTOR.services_by_name["PeerService"].full_name
    server.add(party_pb2_grpc.add_PeerServiceServicer_to_server, EchoService(), name)
    server.stop_on_signals()
    await server.start()
    await server.serve_until_stopped()


def main(arguments: Sequence[str]) -> None:
    """`--config FILE`."""
    parser = argparse.ArgumentParser(prog="echo", description="Answers each frame with an empty one.")
    parser.add_argument("--config", type=Path, required=True, help="settings file (TOML)")
    asyncio.run(serve(parser.parse_args(arguments).config))


if __name__ == "__main__":
    main(sys.argv[1:])
