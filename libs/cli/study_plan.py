"""Which plan a new study gets: one from a file, or the default with what was chosen by options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from libs.core.errors import InvalidInput
from libs.fl.presets import default_plan
from libs.fl.privacy_parameters import PrivacyParameters
from libs.fl.training_plan import Download, ModelAccess, TrainingPlan
from libs.models.registry import architecture_of

DEFAULT_DELTA = 1e-5

PlanFor = Callable[[int], TrainingPlan]
"""The plan for data sets of so many images. Nothing about it can be wrong any more."""


@dataclass(frozen=True)
class PlanChoices:
    """What options said. None: nothing."""

    model: str | None = None
    image_size: int | None = None
    rounds: int | None = None
    seed: int | None = None
    epsilon: float | None = None
    delta: float | None = None
    max_grad_norm: float | None = None
    ask: tuple[str, ...] | None = None
    ask_anyone: bool | None = None
    no_download: bool | None = None

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

        privacy, model_access = self._privacy(), self._model_access()

        def plan_for(images: int) -> TrainingPlan:
            return default_plan(
                model=self.model or ("small_cnn" if privacy is None else "small_cnn_private"),
                image_size=self.image_size or 28,
                images=images,
                rounds=self.rounds,
                seed=self.seed or 0,
                dataset_tags=tags,
                privacy=privacy,
                model_access=model_access,
            )

        plan = plan_for(1)
        architecture_of(plan.model, size=plan.image_size)
        return plan_for

    def _privacy(self) -> PrivacyParameters | None:
        if self.epsilon is None:
            if self.delta is not None or self.max_grad_norm is not None:
                raise InvalidInput(
                    "--delta and --max-grad-norm belong to private training; give --epsilon too."
                )
            return None
        values = {
            "target_epsilon": self.epsilon,
            "delta": DEFAULT_DELTA if self.delta is None else self.delta,
        }
        if self.max_grad_norm is not None:
            values["max_grad_norm"] = self.max_grad_norm
        return PrivacyParameters.checked(values)

    def _model_access(self) -> ModelAccess:
        return ModelAccess.checked(
            {
                "download": Download.NOBODY if self.no_download else Download.READERS,
                "ask": self.ask or (),
                "ask_anyone": bool(self.ask_anyone),
            }
        )
