"""Which architectures train with differential privacy. Needs no torch: plans are checked everywhere."""

from __future__ import annotations

TRAIN_PRIVATELY = frozenset({"small_cnn_private", "squeezenet1_1"})
"""Those in which no layer mixes the images of a batch, so that each image has a gradient of its own. A test
compares this with what Opacus finds in the architectures themselves."""
