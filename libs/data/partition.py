"""Dividing images between hospitals, or into two sides of a split. A patient is never divided."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from libs.core.errors import InvalidInput
from libs.data.imageset import CLASS_NAMES, ImageSet, require_both_classes

GUARANTEED_PATIENTS = 4
"""Patients of each class that every hospital gets before a skewed division: it can train and validate."""


def split_by_patient(imageset: ImageSet, *, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """(rest, held out): about `fraction` of each class's patients held out, at least one, at most all but
    one.

    Depends on the seed and on who the patients are, not on the order of images. Raises InvalidInput when a
    class has fewer than two patients.
    """
    if not 0 < fraction < 1:
        raise InvalidInput("The fraction to hold out lies between 0 and 1.")
    rng = np.random.default_rng(seed)
    held: set[str] = set()
    for label, patients in enumerate(_patients_by_class(imageset)):
        if len(patients) < 2:
            raise InvalidInput(
                f"Class {CLASS_NAMES[label]} has {len(patients)} patient(s); a split by patient needs two."
            )
        count = min(max(1, round(fraction * len(patients))), len(patients) - 1)
        held.update(rng.permutation(patients)[:count].tolist())
    return _without(imageset, held), _only(imageset, held)


def split_each_patient(imageset: ImageSet, *, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """(rest, held out): each patient held out or not by a hash of the seed and the patient alone.

    About `fraction` of the patients are held out, and nobody changes sides because somebody else comes or
    goes: what differential privacy counts on. Either side may be empty.
    """
    if not 0 < fraction < 1:
        raise InvalidInput("The fraction to hold out lies between 0 and 1.")
    border = int(fraction * 2**64)
    held = {
        patient
        for patient in set(imageset.patients)
        if int.from_bytes(hashlib.sha256(f"{seed}/{patient}".encode()).digest()[:8], "big") < border
    }
    return _without(imageset, held), _only(imageset, held)


def partition_patients(
    imageset: ImageSet, *, hospitals: int, skew: float | None = None, seed: int
) -> list[ImageSet]:
    """The images of each hospital: disjoint by patient, together everything, each with both classes.

    Without `skew`, all get about the same number of patients of each class. With it, each class is divided in
    proportions drawn from a symmetric Dirichlet distribution of that concentration (Hsu et al., 2019;
    small is uneven), after every hospital got GUARANTEED_PATIENTS of each class (fewer when there are
    too few). Raises InvalidInput when a class has fewer patients than there are hospitals.
    """
    if not 1 <= hospitals <= 1000:
        raise InvalidInput("There are 1 to 1000 hospitals.")
    if skew is not None and not 0 < skew <= 1e6:
        raise InvalidInput(
            "The skew is a Dirichlet concentration above 0: 0.5 is strongly uneven, 100 nearly."
        )
    require_both_classes(imageset)
    rng = np.random.default_rng(seed)
    shares: list[set[str]] = [set() for _ in range(hospitals)]
    for label, patients in enumerate(_patients_by_class(imageset)):
        if len(patients) < hospitals:
            raise InvalidInput(
                f"Class {CLASS_NAMES[label]} has {len(patients)} patients, too few for {hospitals} parts. "
                "Use fewer hospitals or more data."
            )
        counts = (
            _even(len(patients), hospitals) if skew is None else _skewed(len(patients), hospitals, skew, rng)
        )
        order = rng.permutation(patients).tolist()
        for share, end, count in zip(shares, np.cumsum(counts), counts, strict=True):
            share.update(order[end - count : end])
    return [_only(imageset, share) for share in shares]


def _even(patients: int, hospitals: int) -> npt.NDArray[np.int64]:
    return np.array([(patients + i) // hospitals for i in range(hospitals)], np.int64)


def _skewed(patients: int, hospitals: int, skew: float, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    guaranteed = min(GUARANTEED_PATIENTS, patients // hospitals)
    free = patients - guaranteed * hospitals
    borders = np.rint(np.cumsum(rng.dirichlet([skew] * hospitals)) * free).astype(np.int64)
    borders[-1] = free
    return guaranteed + np.diff(borders, prepend=0)


def _patients_by_class(imageset: ImageSet) -> list[list[str]]:
    """Sorted patients of each class. Who has images of both counts by the highest label: nobody is in two."""
    label_of: dict[str, int] = {}
    for patient, label in zip(imageset.patients, imageset.labels.tolist(), strict=True):
        label_of[patient] = max(label, label_of.get(patient, 0))
    return [
        sorted(patient for patient, own in label_of.items() if own == label)
        for label in range(len(CLASS_NAMES))
    ]


def _only(imageset: ImageSet, patients: set[str]) -> ImageSet:
    return imageset.select([i for i, patient in enumerate(imageset.patients) if patient in patients])


def _without(imageset: ImageSet, patients: set[str]) -> ImageSet:
    return imageset.select([i for i, patient in enumerate(imageset.patients) if patient not in patients])
