"""All parties of a computation in one thread: deterministic, for tests, vectors and simulations."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from libs.core.errors import PeerViolation
from libs.core.ids import PartyId
from libs.mpc.program import Message, Program, Round, check_message


@dataclass(frozen=True)
class Sent:
    """One message of a transcript."""

    sender: PartyId
    receiver: PartyId
    label: str
    message: Message

    @property
    def size_bytes(self) -> int:
        """Bytes of its arrays."""
        return sum(array.nbytes for array in self.message.values())


@dataclass
class Transcript:
    """Who sent what to whom, in order: the protocol as data."""

    messages: list[Sent] = field(default_factory=list)
    rounds: dict[PartyId, int] = field(default_factory=dict)
    """How often each party waited for somebody; parts of one exchange count once."""

    def bytes_sent(self, sender: PartyId, receiver: PartyId) -> int:
        """Bytes of arrays over one directed link."""
        return sum(s.size_bytes for s in self.messages if (s.sender, s.receiver) == (sender, receiver))


Tamper = Callable[[Sent], Message]


def run_lockstep(
    programs: Mapping[PartyId, Program[Any]] | Sequence[Program[Any]],
    *,
    tamper: Tamper = lambda sent: sent.message,
) -> tuple[dict[PartyId, Any], Transcript]:
    """Run all programs to their end. Returns results by party and the transcript.

    Raises what a program raises, and `PeerViolation` when a message does not fit the awaited specs
    or when everybody waits for a message that nobody sent.
    """
    if not isinstance(programs, Mapping):
        programs = {PartyId(i): program for i, program in enumerate(programs)}
    links: dict[tuple[PartyId, PartyId], deque[Sent]] = {}
    waiting: dict[PartyId, Round] = {}
    results: dict[PartyId, Any] = {}
    transcript = Transcript(rounds=dict.fromkeys(programs, 0))

    def advance(party: PartyId, inbox: Mapping[PartyId, Message] | None) -> None:
        try:
            step = programs[party].send(inbox)  # type: ignore[arg-type]
        except StopIteration as done:
            waiting.pop(party, None)
            results[party] = done.value
            return
        waiting[party] = step
        transcript.rounds[party] += step.counts
        for receiver, message in step.sends.items():
            copied = {name: np.array(array, copy=True) for name, array in message.items()}
            sent = Sent(party, receiver, step.label, copied)
            transcript.messages.append(sent)
            delivered = Sent(party, receiver, step.label, tamper(sent))
            links.setdefault((party, receiver), deque()).append(delivered)

    for party in programs:
        advance(party, None)
    while waiting:
        ready = [p for p, step in waiting.items() if all(links.get((s, p)) for s in step.awaits)]
        if not ready:
            stuck = {int(p): step.label for p, step in waiting.items()}
            raise PeerViolation(computation="lockstep", sender="?", rule=f"nobody sent what {stuck} await")
        for party in ready:
            step = waiting[party]
            inbox: dict[PartyId, Message] = {}
            for sender, specs in step.awaits.items():
                sent = links[sender, party].popleft()
                if sent.label != step.label:
                    raise PeerViolation(
                        computation="lockstep",
                        sender=int(sender),
                        rule=f"{sent.label} instead of {step.label}",
                    )
                check_message(
                    sent.message, specs, computation="lockstep", sender=int(sender), label=step.label
                )
                inbox[sender] = sent.message
            advance(party, inbox)
    left_over = [s for queue in links.values() for s in queue]
    if left_over:
        raise PeerViolation(
            computation="lockstep", sender=int(left_over[0].sender), rule=f"{left_over[0].label}: not awaited"
        )
    return results, transcript
