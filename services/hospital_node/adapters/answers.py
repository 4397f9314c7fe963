"""Answers of calls that change something, kept so that a retry changes nothing a second time.

A caller gives a request an id; the answer commits together with what the request changed. The same request
under the same id gets the same answer again, another one under that id is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from google.protobuf.message import Message
from sqlalchemy import DateTime, LargeBinary, String, delete
from sqlalchemy.orm import Mapped, Session, mapped_column

from libs.core.errors import FailedPrecondition, InvalidInput
from services.hospital_node.adapters.tables import Base
from services.hospital_node.adapters.transactions import Transactions

KEPT = timedelta(days=7)
"""For how long a retry is recognised."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}", re.ASCII)

Answer = TypeVar("Answer", bound=Message)


class _AnsweredCallRow(Base):
    __tablename__ = "answered_calls"
    caller: Mapped[str] = mapped_column(String(500), primary_key=True)
    method: Mapped[str] = mapped_column(String(200), primary_key=True)
    request_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    request_hash: Mapped[str] = mapped_column(String(64))
    answer: Mapped[bytes] = mapped_column(LargeBinary)
    answered_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), index=True)


async def once(
    transactions: Transactions,
    *,
    caller: str,
    request: Any,
    answer_type: type[Answer],
    work: Callable[[Session], Answer],
    now: datetime,
    secret_in_request: Sequence[str] = (),
    secret_in_answer: Sequence[str] = (),
) -> Answer:
    """The answer of `work`, which runs at most once for this caller and this `request.request_id`.

    Where a request names another request, its own id is its `call_id`.

    `caller` is who asks (`current_caller().actor`). A request without an id is worked on each time. Ids are
    recognised for 7 days. Nothing is kept when `work` raises: the retry is a first try.
    The fields named by `secret_in_request` and `secret_in_answer` ("password", "invitation.code") are neither
    stored nor hashed: passwords could be guessed from a hash, and a repeated answer comes without its secret.
    Raises InvalidInput for an id of another form, FailedPrecondition for one that another request had.
    """

    def transaction(session: Session) -> Answer:
        return answered_once(
            session,
            caller=caller,
            request=request,
            answer_type=answer_type,
            work=work,
            now=now,
            secret_in_request=secret_in_request,
            secret_in_answer=secret_in_answer,
        )

    return await transactions.run(transaction)


def answered_once(
    session: Session,
    *,
    caller: str,
    request: Any,
    answer_type: type[Answer],
    work: Callable[[Session], Answer],
    now: datetime,
    secret_in_request: Sequence[str] = (),
    secret_in_answer: Sequence[str] = (),
) -> Answer:
    """The same, within the caller's transaction."""
    request_id = _id_of(request)
    if not request_id:
        return work(session)
    if not _REQUEST_ID.fullmatch(request_id):
        raise InvalidInput("A request id has 8 to 64 letters, digits, dots, dashes or underscores.")
    method = request.DESCRIPTOR.full_name
    request_hash = _hash(_without(request, secret_in_request))
    session.execute(delete(_AnsweredCallRow).where(_AnsweredCallRow.answered_at <= now - KEPT))
    known = session.get(_AnsweredCallRow, (caller, method, request_id))
    if known is not None:
        if known.request_hash != request_hash:
            raise FailedPrecondition(
                "Another request had this request id. Send each request under an id of its own."
            )
        return answer_type.FromString(known.answer)
    answer = work(session)
    session.add(
        _AnsweredCallRow(
            caller=caller,
            method=method,
            request_id=request_id,
            request_hash=request_hash,
            answer=_without(answer, secret_in_answer).SerializeToString(deterministic=True),
            answered_at=now,
        )
    )
    return answer


def _id_of(request: Any) -> str:
    return str(request.call_id if "call_id" in request.DESCRIPTOR.fields_by_name else request.request_id)


def _hash(message: Message) -> str:
    return hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()


def _without(message: Message, fields: Sequence[str]) -> Message:
    """A copy without these fields. ValueError for a field that the message does not have."""
    copy = type(message)()
    copy.CopyFrom(message)
    for path in fields:
        *parents, name = path.split(".")
        holder: Message = copy
        for parent in parents:
            holder = getattr(holder, parent)
        holder.ClearField(name)
    return copy
