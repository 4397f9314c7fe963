"""Which rows a table has, and which steps each of them needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from libs.cli.evaluate.code import services_code, training_code
from libs.cli.evaluate.material import Division, Material, divide_between
from libs.cli.evaluate.options import EvaluateOptions, RowKind
from libs.cli.evaluate.plans import plan_for
from libs.cli.evaluate.store import StepKey
from libs.cli.evaluate.training import Recipe, TrainingJob
from libs.fl.training_plan import TrainingPlan


@dataclass(frozen=True)
class Study:
    """A federated study over real services."""

    plan: TrainingPlan
    division: Division


@dataclass(frozen=True)
class Asking:
    """Every test image asked under encryption, of the model that step `of` trained."""

    of: Step


@dataclass(frozen=True)
class Step:
    """One piece of work of one seed, stored under its key."""

    key: StepKey
    work: TrainingJob | Study | Asking = field(repr=False)


@dataclass(frozen=True)
class Row:
    """A line of the table: a step for each seed."""

    id: str
    kind: RowKind
    title: str
    steps: tuple[Step, ...]
    epsilon: float | None = None
    """The target."""


class _Keys:
    """Names and inputs of steps of one evaluation."""

    def __init__(self, material: Material) -> None:
        self._data = {"train": material.train.content_hash, "test": material.test.content_hash}

    def training(self, name: str, job: TrainingJob) -> Step:
        inputs = {
            **self._data,
            "code": training_code(),
            "recipe": job.recipe.value,
            "plan": job.plan.model_dump(mode="json"),
            "division": _digest(job.division),
        }
        return Step(StepKey(f"{name}, seed {job.plan.seed}", inputs), job)

    def study(self, study: Study) -> Step:
        inputs = {
            **self._data,
            "code": services_code(),
            "plan": study.plan.model_dump(mode="json"),
            "division": _digest(study.division),
        }
        return Step(StepKey(f"secure, seed {study.plan.seed}", inputs), study)

    def asking(self, step: Step) -> Step:
        inputs = {"test": self._data["test"], "code": services_code(), "model": step.key.hash}
        return Step(StepKey(f"encrypted: {step.key.name}", inputs), Asking(step))


def rows_of(options: EvaluateOptions, material: Material, hospitals: tuple[str, ...]) -> list[Row]:
    """The rows that were asked for, in order. Raises InvalidInput for options that fit no plan."""
    return list(_Builder(options, material, hospitals).rows())


class _Builder:
    def __init__(self, options: EvaluateOptions, material: Material, hospitals: tuple[str, ...]) -> None:
        self._options, self._material, self._hospitals = options, material, hospitals
        self._keys = _Keys(material)
        self._even = {seed: self._divide(None, seed) for seed in options.seeds}

    def rows(self) -> Iterator[Row]:
        options, wanted = self._options, self._options.rows
        if RowKind.ALONE in wanted:
            yield from (self._alone(hospital) for hospital in self._hospitals)
        if RowKind.CENTRALISED in wanted:
            yield self._centralised()
        federated = self._federated("federated", RowKind.FEDERATED, "federated, even", self._even)
        if RowKind.FEDERATED in wanted:
            yield federated
        if RowKind.SKEWED in wanted:
            for skew in options.skews:
                divisions = {seed: self._divide(skew, seed) for seed in options.seeds}
                title = f"federated, Dirichlet {skew:g}"
                yield self._federated(f"skewed-{skew:g}", RowKind.SKEWED, title, divisions)
        secure = self._secure()
        if RowKind.SECURE in wanted:
            yield secure
        private = [self._private(epsilon) for epsilon in options.targets if RowKind.PRIVATE in wanted]
        yield from private
        if RowKind.ENCRYPTED in wanted:
            yield self._encrypted(secure if RowKind.SECURE in wanted else federated)
            yield from (self._encrypted(row) for row in private[-1:])

    def _divide(self, skew: float | None, seed: int) -> Division:
        return divide_between(self._material.train, self._hospitals, skew=skew, seed=seed)

    def _plan(self, seed: int, epsilon: float | None = None) -> TrainingPlan:
        return plan_for(self._options, images=len(self._material.train), seed=seed, epsilon=epsilon)

    def _alone(self, hospital: str) -> Row:
        steps = tuple(
            self._keys.training(
                f"{hospital} alone",
                TrainingJob(Recipe.ONE_OWNER, self._plan(seed), {hospital: self._even[seed][hospital]}),
            )
            for seed in self._options.seeds
        )
        return Row(f"alone-{hospital}", RowKind.ALONE, f"{hospital} alone", steps)

    def _centralised(self) -> Row:
        # Not the hospitals' parts joined: this row is the same whatever they hold.
        labels = self._material.train.labels
        everything = {"centralised": tuple(labels.argsort(kind="stable").tolist())}
        steps = tuple(
            self._keys.training(
                "centralised", TrainingJob(Recipe.ONE_OWNER, self._plan(seed), everything, moved=True)
            )
            for seed in self._options.seeds
        )
        return Row("centralised", RowKind.CENTRALISED, "all data in one place", steps)

    def _federated(
        self,
        name: str,
        kind: RowKind,
        title: str,
        divisions: dict[int, Division],
        epsilon: float | None = None,
    ) -> Row:
        steps = tuple(
            self._keys.training(title, TrainingJob(Recipe.FEDERATED, self._plan(seed, epsilon), division))
            for seed, division in divisions.items()
        )
        return Row(name, kind, title, steps, epsilon=epsilon)

    def _private(self, epsilon: float) -> Row:
        name, title = f"private-{epsilon:g}", f"+ differential privacy, epsilon {epsilon:g}"
        return self._federated(name, RowKind.PRIVATE, title, self._even, epsilon)

    def _secure(self) -> Row:
        steps = tuple(
            self._keys.study(Study(self._plan(seed), self._even[seed])) for seed in self._options.seeds
        )
        return Row("secure", RowKind.SECURE, "+ secure aggregation", steps)

    def _encrypted(self, row: Row) -> Row:
        steps = tuple(self._keys.asking(step) for step in row.steps)
        private = f" (epsilon {row.epsilon:g})" if row.epsilon is not None else ""
        name = f"encrypted-{row.id}"
        return Row(name, RowKind.ENCRYPTED, f"+ encrypted prediction{private}", steps, epsilon=row.epsilon)


def _digest(division: Division) -> str:
    return hashlib.sha256(json.dumps(division).encode()).hexdigest()
