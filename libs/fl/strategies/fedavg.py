"""Federated averaging (McMahan et al., AISTATS 2017): each image counts the same, wherever it lies."""

from __future__ import annotations

from libs.fl.strategies.strategy import Averaging


class FedAvg(Averaging):
    """The mean over hospitals of their updates, by number of images; plain local training."""
