"""Which plan a new study gets: one from a file, or the default with what was chosen by options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from libs.core.errors import InvalidInput
from libs.fl.presets import default_plan
from libs.fl.training_plan import TrainingPlan
from libs.models.registry import architecture_of

PlanFor = Callable[[int], TrainingPlan]
"""The plan for data sets of so many images. Nothing about it can be wrong any more."""


@dataclass(frozen=True)
class PlanChoices:
    """What options said. None: nothing."""

    model: str | None = None
    image_size: int | None = None
    rounds: int | None = None
    seed: int | None = None

    def plan_in(self, path: Path) -> PlanFor:
        """The plan in a file. InvalidInput if it is not valid, or if options say part of it again."""
        doubled = [f"--{name.replace('_', '-')}" for name, value in asdict(self).items() if value is not None]
        if doubled:
            raise InvalidInput(f"The plan in {path} decides that; leave {', '.join(doubled)} out.")
        plan = TrainingPlan.from_json(path.read_bytes())
        architecture_of(plan.model, size=plan.image_size)
        return lambda _images: plan

    def default_plan(self, tags: Sequence[str]) -> PlanFor:
        """The default plan with these choices. InvalidInput if one of them cannot be."""

        def plan_for(images: int) -> TrainingPlan:
            return default_plan(
                model=self.model or "small_cnn",
                image_size=self.image_size or 28,
                images=images,
                rounds=self.rounds,
                seed=self.seed or 0,
                dataset_tags=tags,
            )

        plan = plan_for(1)
        architecture_of(plan.model, size=plan.image_size)
        return plan_for
