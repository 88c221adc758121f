"""Published solvers as options of a recipe."""

from __future__ import annotations

CVPR_RATES = {"alexnet": 1e-3, "vgg": 1e-4, "googlenet": 5e-5}
"""By the start of the backbone's name; the paper prints the last as 5^-5."""

PRESETS = {
    "cvpr": "CVPR 2015: 20 images a step, momentum 0.9, the mean of the pixels' losses",
    "heavy": "TPAMI 2016: one image a step, momentum 0.99, the sum of the pixels' losses",
    "normalised": "heavy with the mean of the pixels' losses and rates to match: the same steps",
}


def preset_options(name: str, backbone: str, stages: int, several_tasks: bool = False) -> list[str]:
    """``--key.sub=value`` of everything that the solver decides. Rates fall 100-fold with each stage; of several tasks
    (the published networks for SIFT Flow) only once.

    ``name``: a key of ``PRESETS``, else ``ValueError``.
    """
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    rate = 1e-10
    if name == "cvpr":
        rate = next((rate for start, rate in CVPR_RATES.items() if backbone.startswith(start)), CVPR_RATES["vgg"])
    falls = [min(stage, 1) if several_tasks else stage for stage in range(stages)]
    rates = ",".join(f"{rate * 0.01**fall:.6g}" for fall in falls)
    return [
        "--data.batch_size=1",
        f"--trainer.accumulate={20 if name == 'cvpr' else 1}",
        f"--loss.normalize={str(name != 'heavy').lower()}",
        "--optimizer.name=sgd",
        f"--optimizer.momentum={0.9 if name == 'cvpr' else 0.99}",
        "--optimizer.weight_decay=5e-4",
        "--optimizer.schedule=constant",
        # The authors' solver for AlexNet is of the later kind; the first paper doubles the rates of all biases.
        f"--optimizer.biases={'plain' if backbone == 'alexnet' and name != 'cvpr' else 'doubled'}",
        f"--optimizer.rates_for={'mean' if name == 'cvpr' else 'sum'}",
        f"--stages.lr=[{rates}]",
    ]
