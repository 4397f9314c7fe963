"""The table of strategies in libs/fl/DECISIONS.md: whole studies in one process, on skewed hospitals.

`python tools/compare_strategies.py ../shared/data/pneumoniamnist.npz [--rounds 6] [--seeds 0 1]`
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from libs.data.dataset import load_train_and_test
from libs.data.imageset import ImageSet
from libs.data.partition import partition_patients
from libs.fl.evaluation import evaluate, predict_probabilities
from libs.fl.presets import default_plan
from libs.fl.simulate import simulate
from libs.fl.training_plan import TrainingPlan

STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "fedavg": {},
    "fedprox, mu 0.01": {"strategy": "fedprox", "proximal": {"mu": 0.01}},
    "fedprox, mu 0.1": {"strategy": "fedprox", "proximal": {"mu": 0.1}},
    "fedadam, rate 0.003": {"strategy": "fedadam", "server_optimizer": {"learning_rate": 0.003}},
    "fedadam, rate 0.01": {"strategy": "fedadam", "server_optimizer": {}},
    "fedyogi, rate 0.01": {"strategy": "fedyogi", "server_optimizer": {}},
    "fedbn": {"strategy": "fedbn"},
    "fedavg, plain SGD at 0.1": {"momentum": 0.0, "learning_rate": 0.1},
    "scaffold, plain SGD at 0.1": {"strategy": "scaffold", "momentum": 0.0, "learning_rate": 0.1},
}


def main() -> None:
    """Print one line a strategy: mean test AUC and accuracy at 0.5 over the seeds, and seconds of CPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--skew", type=float, default=0.5)
    parser.add_argument("--only", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| strategy | AUC | accuracy | AUC by seed | CPU s |\n| --- | --- | --- | --- | --- |")
    for name in options.only:
        changes = STRATEGIES[name]
        began = time.process_time()
        found = [_figures(options, seed, changes) for seed in options.seeds]
        auc, accuracy = np.mean(found, axis=0)
        by_seed = ", ".join(f"{of_seed[0]:.3f}" for of_seed in found)
        spent = time.process_time() - began
        print(f"| {name} | {auc:.3f} | {accuracy:.3f} | {by_seed} | {spent:.0f} |", flush=True)


def _figures(options: argparse.Namespace, seed: int, changes: Mapping[str, Any]) -> tuple[float, float]:
    train, test = load_train_and_test(options.data, size=28, test_fraction=0.2, seed=seed)
    parts = partition_patients(train, hospitals=3, skew=options.skew, seed=seed)
    hospitals: dict[str, ImageSet] = {f"hospital-{i}": part for i, part in enumerate(parts)}
    base = default_plan(model="small_cnn", image_size=28, images=len(train), rounds=options.rounds, seed=seed)
    # Scaffold does not go with a check; without one all of them have the same chances.
    plan = TrainingPlan.checked({**base.model_dump(), "contribution_check": None, **changes})
    module = simulate(plan, hospitals).module()
    result = evaluate(predict_probabilities(module, test.images), test.labels, threshold=0.5)
    return result.auc, result.accuracy


if __name__ == "__main__":
    main()
