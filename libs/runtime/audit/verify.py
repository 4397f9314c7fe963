"""Whether an exported trail is whole, and if it is not, the first place where it is not.

The chain alone shows a single change. A rewritten chain, whose hashes all fit again, contradicts the signed
checkpoints. A cut tail looks like a younger trail: it takes a checkpoint from elsewhere to see that.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from libs.core.errors import InvalidInput
from libs.runtime.audit.checkpoint import Checkpoint
from libs.runtime.audit.entry import GENESIS
from libs.runtime.audit.findings import Finding, Problem, Report
from libs.runtime.audit.lines import CheckpointLine, EntryLine, Line, UnreadableLine, parse_lines

CheckSignature = Callable[[Checkpoint], None]
"""Raises InvalidInput unless the trail's own service signed the checkpoint."""


def verify_trail(
    lines: Iterable[str],
    *,
    check_signature: CheckSignature,
    trail: str | None = None,
    known_head: str | None = None,
    known_checkpoint: Checkpoint | None = None,
) -> Report:
    """What is known of an export, and the first thing that is wrong with it, if any.

    `trail` is whose it must be; without it, the one that most lines name. `known_head` (a hash) and
    `known_checkpoint` come from an earlier export: the trail must still hold that entry.
    """
    parsed = parse_lines(lines)
    names = Counter(line.trail for line in parsed if line.trail)
    expected = trail or (names.most_common(1)[0][0] if names else "")
    walk = _Walk(parsed, expected, check_signature)
    finding = walk.first_problem()
    if finding is None:
        finding = walk.problem_at_the_end(known_head, known_checkpoint)
    return Report(expected, walk.sequence, walk.head, walk.checkpoints, walk.signed, finding)


class _Walk:
    """Goes along the lines as long as each fits to those before."""

    def __init__(self, lines: Sequence[Line], trail: str, check_signature: CheckSignature) -> None:
        self._lines, self._trail, self._check_signature = lines, trail, check_signature
        self.sequence, self.head, self.checkpoints, self.signed = 0, GENESIS, 0, 0
        self._accepted: dict[str, EntryLine] = {}
        whole = [line for line in lines if isinstance(line, EntryLine) and line.whole]
        signed = [line.checkpoint for line in lines if isinstance(line, CheckpointLine)]
        self._hashes = {line.hash for line in whole}
        # What another line vouches for: the entry after it, or a checkpoint.
        self._confirmed = {line.previous_hash for line in whole} | {point.head_hash for point in signed}
        self._at_place: defaultdict[tuple[int, str], list[EntryLine]] = defaultdict(list)
        for line in whole:
            self._at_place[line.sequence, line.previous_hash].append(line)
        self._checkpoint_lines = {
            line.checkpoint.number: line.number for line in lines if isinstance(line, CheckpointLine)
        }

    def first_problem(self) -> Finding | None:
        """The first line that does not fit; None when all do."""
        for line in self._lines:
            finding = self._problem_of(line)
            if finding is not None:
                return finding
        return None

    def problem_at_the_end(self, known_head: str | None, known: Checkpoint | None) -> Finding | None:
        """What every line hides by being good: that lines are no longer there."""
        if not self._accepted:
            return Finding(Problem.EMPTY, 0, 0, "The file holds no entries.")
        if known is not None:
            finding = self._contradicts(known)
            if finding is not None:
                return finding
        if known_head is not None and known_head not in self._accepted:
            text = (
                f"No entry has the known hash {known_head[:16]}…: the trail was cut off after entry "
                f"{self.sequence}, or rewritten before it."
            )
            return Finding(Problem.CUT_OFF, self.sequence + 1, 0, text)
        if self.checkpoints == 0:
            text = (
                "Nothing in the file is signed. Export the trail again; every export ends with a signature."
            )
            return Finding(Problem.UNSIGNED, 1, 0, text)
        return None

    def _contradicts(self, known: Checkpoint) -> Finding | None:
        if known.trail != self._trail:
            text = f"The known checkpoint is of the trail {known.trail}. Compare it with that one."
            return Finding(Problem.OTHER_TRAIL, known.sequence, 0, text)
        try:
            self._check_signature(known)
        except InvalidInput as error:
            return Finding(Problem.BAD_SIGNATURE, known.sequence, 0, f"The known checkpoint: {error}")
        if known.sequence > self.sequence:
            text = (
                f"The trail was cut off: it ends with entry {self.sequence}, and the known checkpoint says "
                f"that there were {known.sequence}."
            )
            return Finding(Problem.CUT_OFF, self.sequence + 1, 0, text)
        line = self._accepted.get(known.head_hash)
        if line is None or line.sequence != known.sequence:
            text = f"Entry {known.sequence}, or one before it, is not what the known checkpoint signed."
            return Finding(Problem.ALTERED, known.sequence, 0, text)
        return None

    def _problem_of(self, line: Line) -> Finding | None:
        if isinstance(line, UnreadableLine):
            return self._not_whole(line, line.why)
        if line.trail != self._trail and not (isinstance(line, EntryLine) and not line.whole):
            text = f"Line {line.number} belongs to the trail of {line.trail}, not of {self._trail}."
            return Finding(Problem.OTHER_TRAIL, self.sequence + 1, line.number, text)
        if isinstance(line, CheckpointLine):
            return self._problem_of_checkpoint(line.checkpoint, line.number)
        return self._problem_of_entry(line)

    # ------------------------------------------------------------ entries

    def _problem_of_entry(self, line: EntryLine) -> Finding | None:
        if not line.whole:
            return self._not_whole(line, "its hash is not the hash of what it says")
        if (line.sequence, line.previous_hash) != (self.sequence + 1, self.head):
            return self._out_of_place(line)
        rivals = [other for other in self._at_place[line.sequence, line.previous_hash] if other != line]
        if line.hash not in self._confirmed and any(other.hash in self._confirmed for other in rivals):
            return self._inserted(line)
        self._accepted[line.hash] = line
        self.sequence, self.head = line.sequence, line.hash
        return None

    def _not_whole(self, line: EntryLine | UnreadableLine, why: str) -> Finding:
        """An entry that was altered, unless the one that belongs here still exists: then it was put in."""
        due = self.sequence + 1
        if isinstance(line, EntryLine) and self._at_place.get((due, self.head)):
            text = f"Line {line.number} was put in before entry {due}: {why}."
            return Finding(Problem.INSERTED, due, line.number, text)
        text = f"Line {line.number}, where entry {due} or a checkpoint belongs, was altered: {why}."
        return Finding(Problem.ALTERED, due, line.number, text)

    def _out_of_place(self, line: EntryLine) -> Finding:
        due, found = self.sequence + 1, line.sequence
        if line.hash in self._accepted:
            first = self._accepted[line.hash].number
            text = f"Line {line.number} repeats entry {found} of line {first}."
            return Finding(Problem.DUPLICATED, found, line.number, text)
        rightful = self._at_place.get((due, self.head))
        if rightful:
            if found > due and line.previous_hash in self._hashes:
                text = (
                    f"Line {line.number} holds entry {found}, where entry {due} belongs; that one is on line "
                    f"{rightful[0].number}. The order was changed."
                )
                return Finding(Problem.REORDERED, due, line.number, text)
            return self._inserted(line)
        if found > due:
            return self._missing(due, found - 1, line.number)
        if found < due:
            return self._inserted(line)
        return self._broken_link(line)

    def _broken_link(self, line: EntryLine) -> Finding:
        """Two whole entries in a row, and the second does not name the first's hash: one was rewritten."""
        before = self._accepted.get(self.head)
        last = line.number == self._lines[-1].number
        if before is None or (line.hash not in self._confirmed and not last):
            altered, number = line.sequence, line.number
        else:
            altered, number = before.sequence, before.number
        text = (
            f"Entry {altered} on line {number} was altered and given a new hash: entry {line.sequence} does "
            "not follow the one before it."
        )
        return Finding(Problem.ALTERED, altered, number, text)

    def _inserted(self, line: EntryLine) -> Finding:
        text = f"Line {line.number} was put in: another entry than this has the number {line.sequence}."
        return Finding(Problem.INSERTED, line.sequence, line.number, text)

    def _missing(self, first: int, last: int, number: int) -> Finding:
        which = f"Entry {first} is" if first == last else f"The entries {first} to {last} are"
        return Finding(Problem.MISSING, first, number, f"{which} missing before line {number}.")

    # ------------------------------------------------------------ checkpoints

    def _problem_of_checkpoint(self, point: Checkpoint, number: int) -> Finding | None:
        try:
            self._check_signature(point)
        except InvalidInput as error:
            text = f"The checkpoint on line {number} does not count: {error}"
            return Finding(Problem.BAD_SIGNATURE, point.sequence, number, text)
        if point.number != self.checkpoints + 1:
            return self._checkpoint_out_of_place(point, number)
        if point.sequence != self.sequence:
            return self._checkpoint_at_wrong_entry(point, number)
        if point.head_hash != self.head:
            first = self.signed + 1
            which = f"Entry {first}" if first == point.sequence else f"One of {first} to {point.sequence}"
            text = (
                f"{which} was altered, with new hashes since: the checkpoint on line {number} signed others."
            )
            return Finding(Problem.ALTERED, first, number, text)
        self.checkpoints, self.signed = point.number, point.sequence
        return None

    def _checkpoint_out_of_place(self, point: Checkpoint, number: int) -> Finding:
        due = self.checkpoints + 1
        if point.number < due:
            text = f"Line {number} repeats checkpoint {point.number}."
            return Finding(Problem.DUPLICATED, point.sequence, number, text)
        if self._checkpoint_lines.get(due, 0) > number:
            text = f"Line {number} holds checkpoint {point.number}, where checkpoint {due} belongs."
            return Finding(Problem.REORDERED, point.sequence, number, text)
        text = f"Checkpoint {due} is missing before line {number}."
        return Finding(Problem.MISSING, self.sequence, number, text)

    def _checkpoint_at_wrong_entry(self, point: Checkpoint, number: int) -> Finding:
        if point.sequence > self.sequence and not self._at_place.get((self.sequence + 1, self.head)):
            return self._missing(self.sequence + 1, point.sequence, number)
        text = (
            f"The checkpoint on line {number} stands after entry {self.sequence}, and belongs after entry "
            f"{point.sequence}. The order was changed."
        )
        return Finding(Problem.REORDERED, point.sequence, number, text)
