"""The one way in which a study changes: stored first, then told to hospitals and watchers."""

from __future__ import annotations

from collections.abc import Callable

from libs.core.errors import NotFound
from libs.runtime.logging import get_logger
from services.coordinator import trail_events
from services.coordinator.attachments import Attachments
from services.coordinator.changes import ChangeFeed
from services.coordinator.domain import Study
from services.coordinator.ports import Repository

log = get_logger(__name__)


class Journal:
    """Studies, their storage and everybody who has to hear of a change."""

    def __init__(self, *, repository: Repository, attachments: Attachments, feed: ChangeFeed) -> None:
        self._repository, self._attachments, self.feed = repository, attachments, feed

    def study(self, study_id: str) -> Study:
        """The study. NotFound if there is none."""
        study = self._repository.study(study_id)
        if study is None:
            raise NotFound(f"There is no study {study_id!r}. Check its name in the list of studies.")
        return study

    def hospital_attached(self, hospital: str) -> None:
        """Its stream begins: look again at every study that it is in."""
        self._repository.record(trail_events.hospital_attached(hospital))
        self._look_again(hospital)

    def hospital_detached(self, hospital: str) -> None:
        """Its stream ended: look again at every study that it is in."""
        self._repository.record(trail_events.hospital_detached(hospital))
        self._look_again(hospital)

    def add(self, study: Study) -> None:
        """Store a new study and propose it to its hospitals. AlreadyExists if its id is taken."""
        self._repository.add_study(study)
        log.info("study_created", study_id=study.study_id, hospitals=len(study.members))
        self.announce(study)

    def update(self, study_id: str, change: Callable[[Study], Study]) -> Study:
        """Apply `change` to the study as it is now, unless it has ended. The study afterwards.

        No await lies between reading and writing, so changes of other tasks are never overwritten; and a
        study that was cancelled while a task waited for the parties stays cancelled.
        """
        states = []

        def unless_ended(study: Study) -> Study:
            states.append(study)
            return study if study.ended else change(study)

        after = self._repository.update_study(study_id, unless_ended)
        if after != states[0]:
            if after.state is not states[0].state:
                log.info("study_state_changed", study_id=study_id, state=after.state.value)
            self.announce(after)
        return after

    def announce(self, study: Study) -> None:
        """Tell hospitals what they have to do, and watchers that something changed."""
        self._attachments.deliver(study)
        self.feed.publish(study.study_id)

    def _look_again(self, hospital: str) -> None:
        told = self._repository.studies_with_untold_end(hospital)
        for study in (*self._repository.live_studies(), *told):
            if study.member(hospital) is not None:
                self.announce(study)

    def withdraw_hospital(self, hospital: str, *, reason: str) -> None:
        """The hospital is no longer here: every living study goes on without it, as after a denial."""
        for study in self._repository.live_studies():
            if study.member(hospital) is not None:
                self.update(
                    study.study_id,
                    lambda study: study.with_decision(hospital, approved=False, reason=reason),
                )

    def end_was_told(self, study_id: str, hospital: str) -> None:
        """The hospital's stream has carried the study's end."""
        self._repository.update_study(study_id, lambda study: study.with_end_told(hospital))
