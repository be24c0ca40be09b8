#!/usr/bin/env python3
"""Records reference tensors from PyTorch: what every operation computes, and how a small network learns.

    .venv/bin/python tests/torch/record.py            # writes the files beside this script
    .venv/bin/python tests/torch/record.py --check    # records anew and compares with the files

PyTorch computes in float64 on inputs that float32 holds exactly, and the results are rounded to float32
once, so a recorded value is the right one to half a unit in the last place. The seed of a case is made
from its name: a new case leaves the others as they are.

OP.safetensors   for each case of an operation: `CASE.INPUT` for each input, `CASE.out`, `CASE.upstream` (a
                 random gradient of out) and `CASE.grad.INPUT` for each float input
cases.json       the cases in order: op, case, file, inputs in operand order, attributes by their name in
                 the .ir text (all are written out, also where they have their usual value), and, where an
                 operation has more results than one, the names of the others

training.json              a small network of AlexNet's family as a list of layers, its recipe, and its
                           loss in each of 20 steps
training.toml              the same recipe for `alexc train`
training-data.safetensors  `images`, `labels`: step i (from 0) takes rows 4i to 4i+3
training-start.safetensors, training-after-1.safetensors, training-after-20.safetensors
                           parameters LAYER.weight and LAYER.bias before, after one, after 20 steps
training-gradients.safetensors
                           of the first batch: `logits`, `loss`, and `grad.NAME` of each parameter
"""

import argparse
import json
import sys
import zlib
from math import prod, sqrt
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent

# A fresh recording may differ in the last bit where another CPU adds in another order.
TOLERANCE = 1e-6


def exact_in_f32(tensor):
    return tensor.float().double()


def pad_image(x, pad, value=0.0):
    """Our order is top, left, bottom, right; PyTorch's begins with the last dimension."""
    top, left, bottom, right = pad
    return F.pad(x, (left, right, top, bottom), value=value)


class Cases:
    """Collects cases: the tensors by file, and the list that describes them."""

    def __init__(self):
        self.files = {}
        self.described = []

    def add(self, op, case, forward, inputs, attributes=None, more_results=()):
        """`inputs`: {name: shape, or a tensor}; a shape means normal values."""
        torch.manual_seed(zlib.crc32(f"{op} {case}".encode()))
        operands = {}
        for name, given in inputs.items():
            value = given if torch.is_tensor(given) else torch.randn(given)
            operands[name] = exact_in_f32(value).requires_grad_() if value.is_floating_point() else value
        results = forward(*operands.values())
        out, *others = results if isinstance(results, tuple) else (results,)
        upstream = exact_in_f32(torch.randn(out.shape))
        out.backward(upstream)
        tensors = {name: value.detach() for name, value in operands.items()}
        tensors |= {"out": out.detach(), "upstream": upstream}
        tensors |= {name: value.detach() for name, value in zip(more_results, others, strict=True)}
        tensors |= {f"grad.{name}": value.grad for name, value in operands.items() if value.requires_grad}
        file = self.files.setdefault(f"{op}.safetensors", {})
        file.update({f"{case}.{name}": stored(value) for name, value in tensors.items()})
        description = {"op": op, "case": case, "file": f"{op}.safetensors", "inputs": list(operands),
                       "attributes": attributes or {}}
        if more_results:
            description["more_results"] = list(more_results)
        self.described.append(description)


def stored(value):
    value = value.detach()
    return (value.float() if value.is_floating_point() else value).contiguous().clone()


# --- operations ---------------------------------------------------------------------------------------


def convolutions(cases):
    def conv2d(case, x, w, stride=(1, 1), pad=(0, 0, 0, 0), dilation=(1, 1), groups=1):
        cases.add("conv2d", case,
                  lambda x, w: F.conv2d(pad_image(x, pad), w, None, stride, 0, dilation, groups),
                  {"x": x, "w": w},
                  {"stride": list(stride), "pad": list(pad), "dilation": list(dilation), "groups": groups})

    conv2d("plain", (2, 3, 6, 7), (4, 3, 3, 3))
    conv2d("padded", (2, 3, 5, 5), (4, 3, 3, 3), pad=(1, 1, 1, 1))
    # The first layer of the 2012 network in small: its output size rounds up.
    conv2d("rounds_up", (1, 3, 20, 20), (4, 3, 11, 11), stride=(4, 4), pad=(0, 0, 3, 3))
    conv2d("all_pads_differ", (2, 2, 5, 6), (3, 2, 3, 2), stride=(2, 1), pad=(0, 1, 2, 3))
    conv2d("grouped", (2, 6, 5, 5), (4, 3, 5, 5), pad=(2, 2, 2, 2), groups=2)
    conv2d("depthwise", (2, 4, 5, 5), (8, 1, 3, 3), stride=(2, 2), pad=(1, 1, 1, 1), groups=4)
    conv2d("dilated", (1, 2, 9, 8), (3, 2, 3, 3), pad=(1, 2, 1, 2), dilation=(2, 3))
    conv2d("strided_dilated_grouped", (2, 4, 10, 11), (6, 2, 3, 2), stride=(3, 2), pad=(2, 1, 0, 1),
           dilation=(2, 2), groups=2)
    conv2d("one_by_one", (3, 5, 4, 4), (7, 5, 1, 1))
    conv2d("stride_skips_input", (1, 2, 8, 8), (3, 2, 2, 2), stride=(3, 4))
    conv2d("many_channels", (2, 33, 5, 5), (17, 33, 3, 3), pad=(1, 1, 1, 1))


def products(cases):
    cases.add("bias", "image", lambda x, b: x + b.view(-1, 1, 1), {"x": (2, 5, 3, 4), "b": (5,)})
    cases.add("bias", "vector", lambda x, b: x + b, {"x": (3, 7), "b": (7,)})
    cases.add("fully_connected", "small", F.linear, {"x": (3, 5), "w": (4, 5)})
    cases.add("fully_connected", "one_row", F.linear, {"x": (1, 37), "w": (19, 37)})
    cases.add("fully_connected", "wide", F.linear, {"x": (9, 130), "w": (33, 130)})
    cases.add("matmul", "small", torch.matmul, {"a": (3, 5), "b": (5, 4)})
    cases.add("matmul", "odd", torch.matmul, {"a": (17, 33), "b": (33, 19)})


def elementwise(cases):
    shape = (2, 3, 4, 5)
    cases.add("relu", "image", F.relu, {"x": shape})
    # A gradient that must be chosen: PyTorch's is 0 where x is 0.
    cases.add("relu", "zeros", F.relu, {"x": torch.tensor([[-1.0, 0.0, 2.0], [0.0, 3.0, -0.5]])})
    cases.add("tanh", "image", torch.tanh, {"x": shape})
    cases.add("tanh", "saturated", torch.tanh,
              {"x": torch.tensor([[-30.0, -9.0, -1e-4, 0.0, 1e-4, 9.0, 30.0]])})
    cases.add("add", "image", torch.add, {"a": shape, "b": shape})
    cases.add("multiply", "image", torch.mul, {"a": shape, "b": shape})


def pooling(cases):
    def max_pool(case, x, kernel, stride, pad=(0, 0, 0, 0), ceil=False):
        cases.add("max_pool", case,
                  lambda x: F.max_pool2d(pad_image(x, pad, -torch.inf), kernel, stride, 0, 1, ceil),
                  {"x": x},
                  {"kernel": list(kernel), "stride": list(stride), "pad": list(pad), "ceil": ceil})

    def avg_pool(case, x, kernel, stride, pad=(0, 0, 0, 0), ceil=False, count_pad=True):
        if len(set(pad)) == 1:
            def forward(x):
                return F.avg_pool2d(x, kernel, stride, pad[0], ceil, count_pad)
        else:
            # PyTorch's own padding is symmetric. Uneven: pad, sum, and divide by the elements counted.
            def forward(x):
                def total(image):
                    return F.avg_pool2d(pad_image(image, pad), kernel, stride, divisor_override=1)
                ones = torch.ones_like(x)
                counted = kernel[0] * kernel[1] if count_pad else total(ones)
                return total(x) / counted
        cases.add("avg_pool", case, forward, {"x": x},
                  {"kernel": list(kernel), "stride": list(stride), "pad": list(pad), "ceil": ceil,
                   "count_pad": count_pad})

    max_pool("overlapping", (2, 3, 7, 7), (3, 3), (2, 2))
    max_pool("separate", (2, 3, 6, 6), (2, 2), (2, 2))
    max_pool("negative_padded", -torch.rand(2, 2, 5, 5, generator=torch.Generator().manual_seed(1)) - 1,
             (3, 3), (2, 2), pad=(1, 1, 1, 1))
    max_pool("all_pads_differ", (2, 2, 6, 7), (3, 4), (2, 1), pad=(0, 1, 2, 3))
    max_pool("rounds_down", (1, 2, 8, 8), (3, 3), (2, 2))
    max_pool("rounds_up", (1, 2, 8, 8), (3, 3), (2, 2), ceil=True)
    # Rounding up would give a second window that starts past the edge; it is dropped.
    max_pool("rounds_up_but_not_past_the_edge", (1, 2, 3, 3), (2, 2), (3, 3), ceil=True)
    # Of equal elements the first in row-major order gets the gradient.
    max_pool("ties", torch.ones(1, 1, 5, 5), (3, 3), (2, 2))

    avg_pool("overlapping", (2, 3, 7, 7), (3, 3), (2, 2))
    avg_pool("pad_counted", (2, 2, 5, 5), (3, 3), (2, 2), pad=(1, 1, 1, 1))
    avg_pool("pad_not_counted", (2, 2, 5, 5), (3, 3), (2, 2), pad=(1, 1, 1, 1), count_pad=False)
    avg_pool("all_pads_differ_counted", (2, 2, 6, 7), (3, 4), (2, 1), pad=(0, 1, 2, 3))
    avg_pool("all_pads_differ_not_counted", (2, 2, 6, 7), (3, 4), (2, 1), pad=(0, 1, 2, 3), count_pad=False)
    # What a last, partial window lacks beyond the padding is counted in neither way.
    avg_pool("rounds_up", (1, 2, 8, 8), (3, 3), (2, 2), ceil=True)
    avg_pool("rounds_up_pad_counted", (1, 2, 7, 7), (3, 3), (3, 3), pad=(1, 1, 1, 1), ceil=True)
    avg_pool("rounds_up_pad_not_counted", (1, 2, 7, 7), (3, 3), (3, 3), pad=(1, 1, 1, 1), ceil=True,
             count_pad=False)

    cases.add("global_avg_pool", "image", lambda x: F.adaptive_avg_pool2d(x, 1), {"x": (2, 3, 4, 5)})


def normalisation(cases):
    def lrn(case, x, size, alpha, beta, k, divide=True, groups=1):
        per_square = alpha if divide else alpha * size  # PyTorch divides by the window's size
        cases.add("lrn", case,
                  lambda x: torch.cat([F.local_response_norm(part, size, per_square, beta, k)
                                       for part in x.chunk(groups, dim=1)], dim=1),
                  {"x": x},
                  {"size": size, "alpha": alpha, "beta": beta, "k": k, "divide": divide, "groups": groups})

    # alpha is far from the paper's 1e-4, at which a wrong window would hardly show; `paper` has it.
    lrn("divided", (2, 8, 3, 3), 5, 0.5, 0.75, 2.0)
    lrn("undivided", (2, 8, 3, 3), 5, 0.3, 0.75, 2.0, divide=False)
    lrn("in_two_halves", (2, 8, 3, 3), 5, 0.5, 0.75, 2.0, groups=2)
    lrn("three_wide_k1", (2, 5, 2, 3), 3, 1.0, 0.5, 1.0)
    lrn("window_past_all_channels", (1, 3, 2, 2), 7, 0.5, 0.75, 1.0)
    lrn("paper", 30 * torch.randn(2, 12, 3, 3, generator=torch.Generator().manual_seed(2)),
        5, 1e-4, 0.75, 2.0)

    def batch_norm(case, shape, epsilon):
        channels = (shape[1],)
        generator = torch.Generator().manual_seed(zlib.crc32(case.encode()))
        moments = {"mean": channels, "variance": torch.rand(channels, generator=generator) + 0.5}

        def inference(x, *channel_values):
            # Written out: PyTorch's own has no gradient for the two moments.
            scale, shift, mean, variance = (
                value.view(-1, *[1] * (x.dim() - 2)) for value in channel_values)
            out = scale * (x - mean) / torch.sqrt(variance + epsilon) + shift
            same = F.batch_norm(x, *(value.detach().flatten() for value in (mean, variance, scale, shift)),
                                training=False, eps=epsilon)
            if not torch.allclose(out, same, rtol=1e-12):
                raise AssertionError("batch normalisation written out differs from PyTorch's")
            return out

        cases.add("batch_norm", f"{case}_inference", inference,
                  {"x": shape, "scale": channels, "shift": channels, **moments},
                  {"epsilon": epsilon, "training": False})

        def training(x, scale, shift):
            axes = [axis for axis in range(x.dim()) if axis != 1]
            # Normalised by the biased variance, as PyTorch does.
            return (F.batch_norm(x, None, None, scale, shift, training=True, eps=epsilon),
                    x.mean(axes), x.var(axes, correction=0))

        cases.add("batch_norm", f"{case}_training", training,
                  {"x": shape, "scale": channels, "shift": channels},
                  {"epsilon": epsilon, "training": True}, more_results=("mean", "variance"))

    batch_norm("image", (3, 4, 3, 5), 1e-5)
    batch_norm("vector", (6, 5), 1e-3)


def rearrangement(cases):
    cases.add("concat", "channels", lambda *parts: torch.cat(parts, dim=1),
              {"a": (2, 3, 4, 5), "b": (2, 1, 4, 5), "c": (2, 2, 4, 5)}, {"axis": 1})
    cases.add("concat", "rows", lambda *parts: torch.cat(parts, dim=0), {"a": (2, 3), "b": (4, 3)}, {"axis": 0})
    cases.add("slice", "channels", lambda x: x[:, 2:5], {"x": (2, 6, 3, 4)}, {"axis": 1, "start": 2, "end": 5})
    cases.add("slice", "columns", lambda x: x[..., 1:], {"x": (3, 5)}, {"axis": 1, "start": 1, "end": 5})
    cases.add("reshape", "flatten", lambda x: x.reshape(2, 60), {"x": (2, 3, 4, 5)}, {"shape": [2, 60]})
    cases.add("reshape", "unflatten", lambda x: x.reshape(2, 3, 4, 5), {"x": (2, 60)}, {"shape": [2, 3, 4, 5]})
    cases.add("pad", "all_differ", lambda x: pad_image(x, (0, 1, 2, 3)), {"x": (2, 2, 3, 4)},
              {"pad": [0, 1, 2, 3], "value": 0.0})
    cases.add("pad", "with_a_value", lambda x: pad_image(x, (1, 1, 1, 1), -1.5), {"x": (1, 2, 3, 3)},
              {"pad": [1, 1, 1, 1], "value": -1.5})


def losses(cases):
    # The last row would overflow without the usual shift by the maximum.
    extreme = torch.tensor([[0.0, 1.0, -2.0, 0.5], [30.0, -30.0, 29.0, 0.0], [1000.0, 999.0, -1000.0, 998.0]])
    cases.add("softmax", "rows", lambda x: F.softmax(x, dim=1), {"x": (4, 7)})
    cases.add("softmax", "extreme", lambda x: F.softmax(x, dim=1), {"x": extreme})
    cases.add("softmax_cross_entropy", "rows", F.cross_entropy,
              {"x": (4, 7), "labels": torch.tensor([0, 6, 3, 3])})
    cases.add("softmax_cross_entropy", "one_row", F.cross_entropy, {"x": (1, 10), "labels": torch.tensor([9])})
    cases.add("softmax_cross_entropy", "extreme", F.cross_entropy,
              {"x": extreme, "labels": torch.tensor([1, 1, 0])})


# --- a small network that learns ----------------------------------------------------------------------

STEPS = 20
BATCH = 4
SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.0005}

# Each layer feeds the next. A convolution and a fully connected layer have a weight (of this shape) and a
# bias; `fully_connected` flattens an image first, in the order channel, row, column.
LAYERS = [
    {"layer": "conv1", "op": "conv2d", "weight": [8, 3, 5, 5],
     "attributes": {"stride": [2, 2], "pad": [1, 1, 2, 2], "dilation": [1, 1], "groups": 1}},
    {"layer": "relu1", "op": "relu", "attributes": {}},
    {"layer": "lrn1", "op": "lrn",
     "attributes": {"size": 5, "alpha": 0.05, "beta": 0.75, "k": 2.0, "divide": True, "groups": 1}},
    {"layer": "pool1", "op": "max_pool",
     "attributes": {"kernel": [3, 3], "stride": [2, 2], "pad": [0, 0, 0, 0], "ceil": False}},
    {"layer": "conv2", "op": "conv2d", "weight": [16, 4, 3, 3],
     "attributes": {"stride": [1, 1], "pad": [1, 1, 1, 1], "dilation": [1, 1], "groups": 2}},
    {"layer": "relu2", "op": "relu", "attributes": {}},
    {"layer": "pool2", "op": "max_pool",
     "attributes": {"kernel": [3, 3], "stride": [2, 2], "pad": [0, 0, 0, 0], "ceil": False}},
    {"layer": "fc3", "op": "fully_connected", "weight": [32, 144], "attributes": {}},
    {"layer": "relu3", "op": "relu", "attributes": {}},
    {"layer": "fc4", "op": "fully_connected", "weight": [10, 32], "attributes": {}},
]
IMAGE = [3, 35, 35]


def run_layer(layer, x, parameters):
    attributes = layer["attributes"]
    if layer["op"] == "relu":
        return F.relu(x)
    if layer["op"] == "lrn":
        return F.local_response_norm(x, *(attributes[name] for name in ("size", "alpha", "beta", "k")))
    if layer["op"] == "max_pool":
        return F.max_pool2d(x, attributes["kernel"], attributes["stride"])
    weight, bias = (parameters[f"{layer['layer']}.{kind}"] for kind in ("weight", "bias"))
    if layer["op"] == "conv2d":
        return F.conv2d(pad_image(x, attributes["pad"]), weight, bias, attributes["stride"], 0,
                        attributes["dilation"], attributes["groups"])
    return F.linear(x.flatten(1), weight, bias)


def loss_and_gradients(parameters, images, labels):
    leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    x = images
    for layer in LAYERS:
        x = run_layer(layer, x, leaves)
    loss = F.cross_entropy(x, labels)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return x.detach(), loss.detach(), dict(zip(leaves, gradients))


def check_against_torch_optim(start, gradients_of, after):
    """The paper's update, with a constant learning rate, is the one of torch.optim.SGD."""
    parameters = {name: value.clone().requires_grad_() for name, value in start.items()}
    optimiser = torch.optim.SGD(parameters.values(), **SGD)
    for step in range(STEPS):
        for name, gradient in gradients_of(parameters, step).items():
            parameters[name].grad = gradient
        optimiser.step()
    for name, value in parameters.items():
        if not torch.allclose(value, after[name], rtol=1e-9, atol=1e-12):
            raise AssertionError(f"the update written out differs from torch.optim.SGD in {name}")


def training():
    """({file: tensors}, the description, the recipe)"""
    torch.manual_seed(2012)
    # Two of the ten classes, 2 and 7, so that twenty small steps are enough to learn something.
    labels = 5 * torch.randint(0, 2, (STEPS * BATCH,)) + 2
    # A pattern for each class, and noise. Sixteenths, so that the file compresses.
    patterns = torch.randn(10, *IMAGE)
    noise = 0.25 * torch.randn(STEPS * BATCH, *IMAGE)
    images = ((patterns[labels] + noise) * 16).round().div(16).double()
    start = {}
    for layer in LAYERS:
        if "weight" in layer:
            outputs, *inputs = layer["weight"]
            weight = torch.randn(outputs, *inputs) / sqrt(prod(inputs))
            start[f"{layer['layer']}.weight"] = exact_in_f32(weight)
            start[f"{layer['layer']}.bias"] = exact_in_f32(0.1 * torch.rand(outputs))

    def batch(step):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        return images[rows], labels[rows]

    w, v = dict(start), {name: torch.zeros_like(value) for name, value in start.items()}
    losses_by_step, snapshots = [], {}
    for step in range(STEPS):
        logits, loss, gradients = loss_and_gradients(w, *batch(step))
        if step == 0:
            first = {"logits": logits, "loss": loss} | {f"grad.{name}": g for name, g in gradients.items()}
        losses_by_step.append(loss.item())
        for name in w:
            v[name] = SGD["momentum"] * v[name] - SGD["weight_decay"] * SGD["lr"] * w[name] \
                - SGD["lr"] * gradients[name]
            w[name] = w[name] + v[name]
        snapshots[step + 1] = dict(w)
    check_against_torch_optim(start, lambda p, step: loss_and_gradients(p, *batch(step))[2], w)

    files = {
        "training-data.safetensors": {"images": images, "labels": labels},
        "training-start.safetensors": start,
        "training-gradients.safetensors": first,
        "training-after-1.safetensors": snapshots[1],
        "training-after-20.safetensors": snapshots[STEPS],
    }
    files = {file: {name: stored(value) for name, value in tensors.items()} for file, tensors in files.items()}
    description = {
        "input": [BATCH, *IMAGE],
        "layers": LAYERS,
        "loss": "softmax_cross_entropy, mean over the batch",
        "update": "v <- momentum*v - weight_decay*lr*w - lr*g; w <- w + v; v starts at 0; biases alike",
        "sgd": SGD,
        "batch": BATCH,
        "losses": [float(f"{loss:.9g}") for loss in losses_by_step],
    }
    recipe = f"""\
# The recipe of the recorded training run; written by record.py.
[train]
batch = {BATCH}
dropout = false
[sgd]
lr = {SGD['lr']}
momentum = {SGD['momentum']}
weight_decay = {SGD['weight_decay']}
bias_lr_factor = 1.0
bias_weight_decay = true
[schedule]
kind = "constant"
[data]
shuffle = false
augment = false
"""
    return files, description, recipe


# --- writing and checking -----------------------------------------------------------------------------


def record():
    """({file: tensors}, {file: text})"""
    cases = Cases()
    for group in (convolutions, products, elementwise, pooling, normalisation, rearrangement, losses):
        group(cases)
    training_files, description, recipe = training()
    texts = {
        # One case a line: a change of one is a diff of one line.
        "cases.json": "[\n" + ",\n".join(json.dumps(case) for case in cases.described) + "\n]\n",
        "training.json": json.dumps(description, indent=1) + "\n",
        "training.toml": recipe,
    }
    return cases.files | training_files, texts


def differences(tensors, texts):
    for file, fresh in tensors.items():
        kept = load_file(HERE / file) if (HERE / file).exists() else {}
        for name in sorted(fresh.keys() | kept.keys()):
            if name not in kept or name not in fresh:
                yield f"{file}: {name} is only {'in the file' if name in kept else 'in the recording'}"
            elif kept[name].dtype != fresh[name].dtype or kept[name].shape != fresh[name].shape:
                yield f"{file}: {name} has another type or shape"
            elif not torch.allclose(kept[name].double(), fresh[name].double(), rtol=TOLERANCE, atol=TOLERANCE):
                yield f"{file}: {name} has other values"
    for file, text in texts.items():
        kept = (HERE / file).read_text() if (HERE / file).exists() else ""
        if file == "training.json" and kept:  # holds losses, which may differ in their last digit
            kept, text = json.loads(kept), json.loads(text)
            if all(abs(a - b) < 1e-6 for a, b in zip(kept.pop("losses"), text.pop("losses"), strict=True)) \
                    and kept == text:
                continue
        if kept != text:
            yield f"{file}: differs"
    for path in HERE.glob("*.safetensors"):
        if path.name not in tensors:
            yield f"{path.name}: nothing records it any more"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the files and write nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    tensors, texts = record()
    if given.check:
        found = list(differences(tensors, texts))
        print("\n".join(found) or f"all {sum(map(len, tensors.values()))} tensors are as recorded")
        return 1 if found else 0
    for file, content in tensors.items():
        save_file(content, HERE / f"{file}.part")
        (HERE / f"{file}.part").chmod(0o644)
        (HERE / f"{file}.part").replace(HERE / file)
    for file, content in texts.items():
        (HERE / f"{file}.part").write_text(content)
        (HERE / f"{file}.part").replace(HERE / file)
    size = sum((HERE / file).stat().st_size for file in tensors)
    print(f"recorded {len(tensors)} files, {size / 1e6:.2f} MB", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
