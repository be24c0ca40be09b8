"""torchvision's one-tower AlexNet under the parameter names of models/alexnet-owt.ir."""

import sys
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.nn import functional as F

# Our layer, and its place in torchvision's two nn.Sequential.
LAYERS = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "fc6": "classifier.1",
    "fc7": "classifier.4",
    "fc8": "classifier.6",
}
NAMES = {f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in LAYERS.items() for kind in ("weight", "bias")}
IMAGE = (3, 224, 224)
CLASSES = 1000


class BadFile(Exception):
    """A file that does not hold what it should; the message says what it should hold."""


def load(path):
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise BadFile(f"{path}: no such file") from error
    except SafetensorError as error:
        raise BadFile(f"{path}: not a safetensors file ({error})") from error


def network():
    import torchvision

    return torchvision.models.alexnet(weights=None)


def shapes():
    """{our name: shape} of every parameter."""
    theirs = network().state_dict()
    return {ours: tuple(theirs[name].shape) for ours, name in NAMES.items()}


def network_with(path, dtype):
    """The network with the parameters of a file, without dropout."""
    tensors = load(path)
    model = network()
    expected = {ours: model.get_parameter(theirs).shape for ours, theirs in NAMES.items()}
    wrong = [f"{name}: {tuple(tensors[name].shape) if name in tensors else 'missing'}, not {tuple(shape)}"
             for name, shape in expected.items() if name not in tensors or tensors[name].shape != shape]
    if wrong:
        raise BadFile(f"{path} does not hold the parameters of alexnet-owt: {'; '.join(wrong)}")
    model.load_state_dict({theirs: tensors[ours] for ours, theirs in NAMES.items()})
    # Evaluation mode turns dropout off and changes nothing else in this network.
    return model.to(dtype).eval()


def loss_of(model, images, labels):
    logits = model(images)
    return logits, F.cross_entropy(logits, labels)


def parameters(model):
    """{our name: parameter}"""
    return {ours: model.get_parameter(theirs) for ours, theirs in NAMES.items()}


class Report:
    """A line for each comparison, and whether all of them held."""

    def __init__(self):
        self.passed = self.failed = 0

    def compare(self, what, error, limit):
        holds = error <= limit  # false for a NaN
        self.passed, self.failed = self.passed + holds, self.failed + (not holds)
        print(f"{'ok    ' if holds else 'FAILED'} {what}: relative error {error:.2e}, at most {limit:.0e}")

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed or not self.passed else 0


def distance(found, expected):
    """||found - expected|| / ||expected||"""
    found, expected = torch.as_tensor(found).double(), torch.as_tensor(expected).double()
    if found.shape != expected.shape:
        raise BadFile(f"a tensor of shape {tuple(found.shape)} where {tuple(expected.shape)} was expected")
    return ((found - expected).norm() / expected.norm().clamp_min(1e-30)).item()


def run(main):
    """Runs a script's main, with bad input as a message and exit status 2."""
    try:
        sys.exit(main())
    except BadFile as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)
