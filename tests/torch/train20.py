#!/usr/bin/env python3
"""Compares the losses of `alexc train` on models/alexnet-owt.ir with PyTorch's, over twenty steps of SGD.

    train20.py make --dir DIR [--batch B] [--steps S] [--seed N]
        writes DIR/weights.safetensors, DIR/data.safetensors (`images`, `labels`, B*S of them) and
        DIR/recipe.toml (no dropout, no shuffling, no augmentation, constant learning rate)
    train20.py compare --dir DIR --run RUN
        trains in PyTorch on the same batches in the same order and compares each loss with the one in
        RUN/metrics.jsonl: relative error at most 1e-3

tests/torch/train20.sh runs all of it. Exit status: 0 all equal, 1 not, 2 bad input.
"""

import argparse
import json
import tomllib
from pathlib import Path

import numpy
import torch
from safetensors.numpy import save_file

import one_tower
from owt import random_weights

# A rate at which the loss falls steadily. At 1e-3 it jumps up and down, and rounding errors double in every step,
# also between PyTorch's float32 and float64.
RECIPE = """\
[train]
batch = {batch}
dropout = false
[sgd]
lr = 0.0001
momentum = 0.9
weight_decay = 0.0005
bias_lr_factor = 1.0
bias_weight_decay = true
[schedule]
kind = "constant"
[data]
shuffle = false
augment = false
"""


def make(given):
    """Noisy pictures of a few patterns: the loss falls, so that a wrong update shows."""
    given.dir.mkdir(parents=True, exist_ok=True)
    random = numpy.random.default_rng(given.seed)
    patterns = random.standard_normal((4, *one_tower.IMAGE), dtype=numpy.float32)
    kinds = random.integers(0, len(patterns), given.batch * given.steps)
    noise = random.standard_normal((len(kinds), *one_tower.IMAGE), dtype=numpy.float32)
    save_file({
        "images": (patterns[kinds] + noise) / 2,
        "labels": (kinds * 250 + 7).astype(numpy.int64),
    }, given.dir / "data.safetensors")
    # Smaller than what keeps the activations' size: from there these steps would not converge.
    save_file(random_weights(random, gain=1.0), given.dir / "weights.safetensors")
    (given.dir / "recipe.toml").write_text(RECIPE.format(batch=given.batch))
    return 0


def torch_losses(folder, dtype=torch.float64):
    """One loss a step, each before its update."""
    try:
        recipe = tomllib.loads((folder / "recipe.toml").read_text())
    except FileNotFoundError as error:
        raise one_tower.BadFile(f"{error.filename}: no such file; write it with `train20.py make`") from error
    sgd, batch = recipe["sgd"], recipe["train"]["batch"]
    data = one_tower.load(folder / "data.safetensors")
    model = one_tower.network_with(folder / "weights.safetensors", dtype)
    weights = list(model.parameters())
    velocities = [torch.zeros_like(weight) for weight in weights]
    for first in range(0, len(data["labels"]), batch):
        rows = slice(first, first + batch)
        _, loss = one_tower.loss_of(model, data["images"][rows].to(dtype), data["labels"][rows])
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for w, v, gradient in zip(weights, velocities, gradients):
                # The paper's update, in its order; by hand, so that it is not an optimiser's idea of it.
                v.mul_(sgd["momentum"]).sub_(sgd["weight_decay"] * sgd["lr"] * w).sub_(sgd["lr"] * gradient)
                w.add_(v)
        yield loss.item()


def alexc_losses(run):
    """{step: loss}, in the order written."""
    path = run / "metrics.jsonl"
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError as error:
        raise one_tower.BadFile(f"{path}: no such file; is {run} the --out of `alexc train`?") from error
    losses = {}
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise one_tower.BadFile(f"{path}:{number}: not JSON: {error}") from error
        if "loss" in entry:
            losses[entry["step"]] = entry["loss"]
    return losses


def compare(given):
    found = list(alexc_losses(given.run).items())
    report = one_tower.Report()
    for number, expected in enumerate(torch_losses(given.dir)):
        if number == len(found):
            raise one_tower.BadFile(f"{given.run}/metrics.jsonl holds {number} steps and the data is for more")
        step, loss = found[number]
        report.compare(f"step {step}: loss {loss:.6f}, PyTorch {expected:.6f}",
                       abs(loss - expected) / abs(expected), 1e-3)
    return report.finish()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(required=True)
    making = actions.add_parser("make", help="write weights, batches and recipe")
    making.set_defaults(action=make)
    making.add_argument("--batch", type=int, default=8)
    making.add_argument("--steps", type=int, default=20)
    making.add_argument("--seed", type=int, default=0)
    comparing = actions.add_parser("compare", help="compare the losses of a run with PyTorch's")
    comparing.set_defaults(action=compare)
    comparing.add_argument("--run", type=Path, required=True)
    for action in (making, comparing):
        action.add_argument("--dir", type=Path, required=True)
    given = parser.parse_args()
    return given.action(given)


if __name__ == "__main__":
    one_tower.run(main)
