"""How good a detector is, and the threshold at which it decides, chosen without the test images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from libs.core.errors import InvalidInput
from libs.data.imageset import POSITIVE
from libs.data.transforms import to_model_input
from libs.fl.metrics import SCORE_BINS, RoundMetrics

Probabilities = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Evaluation:
    """Figures of one detector on one set. Positive is pneumonia, predicted at probability >= threshold."""

    auc: float
    accuracy: float
    sensitivity: float
    specificity: float
    mcc: float
    threshold: float


def predict_logits(
    module: nn.Module, images: npt.NDArray[np.uint8], *, batch_size: int = 256
) -> torch.Tensor:
    """Logits (N, classes) of images (N, H, W), in evaluation mode. The module's mode is left as it was."""
    was_training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            batches = [
                module(to_model_input(images[start : start + batch_size]))
                for start in range(0, len(images), batch_size)
            ]
    finally:
        module.train(was_training)
    return torch.cat(batches)


def predict_probabilities(module: nn.Module, images: npt.NDArray[np.uint8]) -> Probabilities:
    """Probability of pneumonia of each image (N, H, W). Shape (N,)."""
    return probabilities_of(predict_logits(module, images).numpy())


def probabilities_of(logits: npt.NDArray[np.floating]) -> Probabilities:
    """Probability of pneumonia from logits (N, classes). Shape (N,)."""
    probabilities = torch.softmax(torch.from_numpy(np.asarray(logits, np.float64)), dim=1)
    return probabilities[:, POSITIVE].numpy()


def evaluate(probabilities: Probabilities, labels: Labels, *, threshold: float) -> Evaluation:
    """All figures at a threshold. Raises InvalidInput unless both classes occur."""
    positive = require_scores(probabilities, labels)
    predicted = probabilities >= threshold
    tp, fp = int((predicted & positive).sum()), int((predicted & ~positive).sum())
    fn, tn = int((~predicted & positive).sum()), int((~predicted & ~positive).sum())
    margins = float(tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return Evaluation(
        auc=auc(probabilities, labels),
        accuracy=(tp + tn) / len(labels),
        sensitivity=tp / (tp + fn),
        specificity=tn / (tn + fp),
        # 0 by convention when every image gets the same label.
        mcc=(tp * tn - fp * fn) / margins**0.5 if margins else 0.0,
        threshold=threshold,
    )


def auc(probabilities: Probabilities, labels: Labels) -> float:
    """Chance that a random positive scores above a random negative, ties half (Mann-Whitney)."""
    positive = require_scores(probabilities, labels)
    _, place, counts = np.unique(probabilities, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # mean rank of equal scores
    n, m = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def threshold_from_metrics(metrics: RoundMetrics) -> float | None:
    """A threshold with nearly the largest sensitivity + specificity over all hospitals' validation images.

    From summed score histograms: no image, nor one hospital's scores, is seen. That sum (Youden, 1950) does
    not depend on how common pneumonia is among them, so the choice carries over to a clinic with another
    mix. See `_nearest_half` for "nearly". A multiple of 1 / SCORE_BINS; None while a class has no score.
    """
    positives, negatives = np.array(metrics.positive_scores), np.array(metrics.negative_scores)
    if not positives.sum() or not negatives.sum():
        return None
    missed = np.concatenate([[0], np.cumsum(positives)])
    cleared = np.concatenate([[0], np.cumsum(negatives)])
    borders = np.arange(SCORE_BINS + 1) / SCORE_BINS
    return _nearest_half(borders, missed, cleared, int(positives.sum()), int(negatives.sum()))


def _nearest_half(
    borders: npt.NDArray[np.float64],
    missed: npt.NDArray[np.int64],
    cleared: npt.NDArray[np.int64],
    positives: int,
    negatives: int,
) -> float:
    """The border nearest to 0.5 whose sensitivity + specificity is within one standard error of the best.

    `missed` positives and `cleared` negatives lie below each border. The best border of a few hundred
    images is mostly chance; thresholds that these images cannot tell apart are decided by what training
    aims at, which is 0.5 when classes weigh the same in the loss.
    """
    sensitivity, specificity = 1 - missed / positives, cleared / negatives
    quality = sensitivity + specificity
    best = int(np.argmax(quality))
    # Laplace's estimate keeps the error above zero when the best border makes no mistake.
    p = (positives - missed[best] + 1) / (positives + 2)
    q = (cleared[best] + 1) / (negatives + 2)
    error = float(np.sqrt(p * (1 - p) / positives + q * (1 - q) / negatives))
    good = borders[quality >= quality[best] - error]
    return float(good[np.argmin(np.abs(good - 0.5))])


def require_scores(probabilities: Probabilities, labels: Labels) -> npt.NDArray[np.bool_]:
    """Which images have pneumonia (N,). Raises InvalidInput unless there is a finite probability for each
    label, and both classes occur.
    """
    if probabilities.shape != labels.shape or probabilities.ndim != 1:
        raise InvalidInput("There must be one probability per label.")
    if not np.isfinite(probabilities).all():
        raise InvalidInput("Some probabilities are not numbers. The model's weights are probably broken.")
    positive: npt.NDArray[np.bool_] = labels == POSITIVE
    if positive.all() or not positive.any():
        raise InvalidInput("Figures need images of both classes.")
    return positive
