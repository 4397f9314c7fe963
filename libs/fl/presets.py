"""Training plans that are known to work, so that a scientist names a model and nothing else."""

from __future__ import annotations

from libs.fl.training_plan import Augmentation, TrainingPlan

_AUGMENTATION = Augmentation(shift=0.08, rotation_degrees=8.0, zoom=0.1, brightness=0.1, contrast=0.2)


def default_plan(*, model: str, image_size: int, images: int, rounds: int | None = None) -> TrainingPlan:
    """The plan that `make demo` starts from: `images` is how many there are in all hospitals together."""
    return TrainingPlan(
        model=model,
        image_size=image_size,
        rounds=rounds or 8,
        local_epochs=2,
        batch_size=64 if images > 3000 else 32,
        learning_rate=0.03,
        weight_decay=5e-4,
        label_smoothing=0.05,
        balance_classes=True,
        augmentation=_AUGMENTATION,
    )
