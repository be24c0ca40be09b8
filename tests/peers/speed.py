#!/usr/bin/env python3
"""Times AlexNet in PyTorch, ONNX Runtime and OpenVINO, each in a process of its own.

One JSON line a measurement goes to stdout:

    {"peer", "version", "model", "mode", "batch", "threads", "iters",
     "median_ms", "min_ms", "images_per_s", "peak_rss_mb", "prepare_ms"}

or, for a peer that cannot do the work here, the same work with an "error" in place of the figures.

Every peer gets a fresh process, so that its peak memory and its thread pool are its own: PyTorch is
not even imported where ONNX Runtime or OpenVINO is measured (the ONNX file is exported by yet another
process). Everything runs in float32, and the weights are random: they do not change the time.

    .venv/bin/python tests/peers/speed.py --model owt --mode infer --batch 64
    .venv/bin/python tests/peers/speed.py --model 2012 --mode train --batch 128 --peers torch --iters 3
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMAGE = (3, 224, 224)
CLASSES = 1000


# --- the networks (imported by PyTorch's children and by the exporter only) -------------------------


def torch_network(name):
    """`owt`: torchvision's one-tower AlexNet. `2012`: the paper's network, written out."""
    from torch import nn

    if name == "owt":
        import torchvision

        return torchvision.models.alexnet(weights=None)

    def convolution(inputs, outputs, kernel, groups=1, normalise=False, pool=False, **shape):
        yield nn.Conv2d(inputs, outputs, kernel, groups=groups, **shape)
        yield nn.ReLU()
        if normalise:  # PyTorch divides alpha by the window's size, as the paper's code did
            yield nn.LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, k=2.0)
        if pool:
            yield nn.MaxPool2d(kernel_size=3, stride=2)

    def fully_connected(inputs, outputs):
        yield from (nn.Dropout(0.5), nn.Linear(inputs, outputs), nn.ReLU())

    return nn.Sequential(
        # The paper's 55 x 55 rounds up: three zero pixels more on the right and at the bottom.
        nn.ZeroPad2d((0, 3, 0, 3)),
        *convolution(3, 96, 11, stride=4, normalise=True, pool=True),
        *convolution(96, 256, 5, groups=2, padding=2, normalise=True, pool=True),
        *convolution(256, 384, 3, padding=1),
        *convolution(384, 384, 3, groups=2, padding=1),
        *convolution(384, 256, 3, groups=2, padding=1, pool=True),
        nn.Flatten(),
        *fully_connected(256 * 6 * 6, 4096),
        *fully_connected(4096, 4096),
        nn.Linear(4096, CLASSES),
    )


def export_onnx(name, batch, path):
    """Writes the network in evaluation mode, at a fixed batch size, as an ONNX file."""
    import warnings

    import torch

    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    network = torch_network(name).eval()
    # The TorchScript exporter: the newer one needs a package more and gives the same dozen of nodes.
    torch.onnx.export(network, (torch.randn(batch, *IMAGE),), str(path), dynamo=False, opset_version=17)


# --- one way to run the work for each peer: each returns (version, call) ----------------------------


def torch_peer(work, channels_last=False, compiled=False):
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(work.threads)
    network = torch_network(work.model)
    images = torch.randn(work.batch, *IMAGE)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    if work.mode == "infer":
        network.eval()
        forward = torch.compile(network) if compiled else network

        def infer():
            with torch.inference_mode():
                forward(images)

        return torch.__version__, infer

    network.train()
    forward = torch.compile(network) if compiled else network
    labels = torch.randint(0, CLASSES, (work.batch,))
    # `fused` walks the 244 MB of parameters once; it is the fastest SGD that PyTorch has for a CPU.
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)

    def step():
        optimiser.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(forward(images), labels).backward()
        optimiser.step()

    return torch.__version__, step


def random_images(work):
    import numpy

    return numpy.random.default_rng(0).standard_normal((work.batch, *IMAGE), dtype=numpy.float32)


def onnxruntime_peer(work):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = work.threads
    session = onnxruntime.InferenceSession(work.onnx, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: random_images(work)}
    return onnxruntime.__version__, lambda: session.run(None, feed)


def openvino_peer(work):
    import openvino

    core = openvino.Core()
    settings = {
        # Without this hint a CPU with bf16 instructions would silently compute in bf16.
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": work.threads,
        "NUM_STREAMS": 1,
    }
    if work.batch == 1:
        settings["PERFORMANCE_HINT"] = "LATENCY"
    request = core.compile_model(core.read_model(work.onnx), "CPU", settings).create_infer_request()
    images = random_images(work)
    return openvino.__version__.split("-")[0], lambda: request.infer({0: images})


# peer: (the modes it has, whether it reads an ONNX file, how it is started)
PEERS = {
    "torch": (("infer", "train"), False, torch_peer),
    "torch-channels-last": (("infer", "train"), False, lambda work: torch_peer(work, channels_last=True)),
    "torch-compile": (("infer", "train"), False, lambda work: torch_peer(work, compiled=True)),
    "onnxruntime": (("infer",), True, onnxruntime_peer),
    "openvino": (("infer",), True, openvino_peer),
}


# --- measuring: inside the child ---------------------------------------------------------------------


def peak_rss_mb():
    """The most memory this process ever held. `VmHWM` starts at zero with the program, whereas
    getrusage's figure is inherited from whoever started it."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 1)
    except OSError:
        pass
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def measure(work):
    """Runs one peer in this process and returns its figures."""
    started = time.perf_counter()
    version, call = PEERS[work.peer][2](work)
    for _ in range(max(work.warmup, 1)):
        call()
    prepared = time.perf_counter()
    samples = []
    for _ in range(work.iters):
        before = time.perf_counter()
        call()
        samples.append((time.perf_counter() - before) * 1e3)
    median = statistics.median(samples)
    return {
        "version": version,
        "median_ms": round(median, 3),
        "min_ms": round(min(samples), 3),
        "images_per_s": round(work.batch / median * 1e3, 2),
        "peak_rss_mb": peak_rss_mb(),
        "prepare_ms": round((prepared - started) * 1e3, 1),
    }


# --- measuring: from outside, also used by bench.py --------------------------------------------------


def here():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def last_words(text):
    """The line of a failed child's stderr that says what happened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"


def spawn(python, arguments, timeout):
    """Runs this script in a child; returns (stdout, None) or (None, what went wrong)."""
    try:
        child = subprocess.run([str(python), __file__, *map(str, arguments)], capture_output=True,
                               text=True, timeout=timeout, check=False)
    except FileNotFoundError:
        return None, f"no Python at {python}: run `make peers`"
    except subprocess.TimeoutExpired:
        return None, f"took longer than {timeout} s"
    if child.returncode != 0:
        return None, f"exit {child.returncode}: {last_words(child.stderr)}"
    return child.stdout, None


def measure_apart(python, peer, model, mode, batch, threads, iters, warmup, scratch, timeout=1800):
    """Measures one peer in a process of its own; `scratch` keeps the exported ONNX files.

    Returns the JSON object that the module's documentation describes.
    """
    work = {"peer": peer, "model": model, "mode": mode, "batch": batch, "threads": threads, "iters": iters}
    modes, reads_onnx, _ = PEERS[peer]
    if mode not in modes:
        return {**work, "error": f"{peer} has no mode {mode}"}
    common = ["--model", model, "--mode", mode, "--batch", batch, "--threads", threads]
    onnx = Path(scratch) / f"{model}-{batch}.onnx"
    if reads_onnx and not onnx.exists():
        _, problem = spawn(python, ["--export", onnx, *common], timeout)
        if problem:
            onnx.unlink(missing_ok=True)
            return {**work, "error": f"exporting to ONNX: {problem}"}
    output, problem = spawn(
        python,
        ["--child", peer, *common, "--iters", iters, "--warmup", warmup, "--onnx", onnx],
        timeout,
    )
    if problem:
        return {**work, "error": problem}
    return {**work, **json.loads(output.splitlines()[-1])}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="owt", choices=["owt", "2012"])
    parser.add_argument("--mode", default="infer", choices=["infer", "train"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=here())
    parser.add_argument("--iters", type=int, default=5, help="timed iterations")
    parser.add_argument("--warmup", type=int, default=2, help="iterations before, not timed")
    parser.add_argument("--peers", default="", help=f"comma-separated, from {', '.join(PEERS)}; default all")
    for internal in ("--child", "--export", "--onnx"):
        parser.add_argument(internal, help=argparse.SUPPRESS)
    given = parser.parse_args()
    for name in ("batch", "threads", "iters"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return parser, given


def main():
    parser, given = arguments()
    if given.export:
        export_onnx(given.model, given.batch, given.export)
        return 0
    if given.child:
        given.peer = given.child
        print(json.dumps(measure(given)))
        return 0
    peers = [peer for peer in given.peers.split(",") if peer] or \
        [peer for peer, (modes, *_) in PEERS.items() if given.mode in modes]
    for peer in peers:
        if peer not in PEERS:
            parser.error(f"unknown peer {peer!r}: the peers are {', '.join(PEERS)}")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="alexc-peers-") as scratch:
        for peer in peers:
            result = measure_apart(sys.executable, peer, given.model, given.mode, given.batch, given.threads,
                                   given.iters, given.warmup, scratch)
            failed += "error" in result
            print(json.dumps(result), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
