#!/usr/bin/env python3
"""PyTorch's time for the work of tests/gpu/run.sh, at its best: eager, channels last, compiled, as a CUDA graph, in tf32
and in bf16. Prints one line a piece of work and precision, with the fastest way.

With --prepare it only has everything compiled, which later runs find in PyTorch's cache: that may go on beside work that
is not timed."""

import multiprocessing
import statistics
import sys
import time

import torch
from torch import nn

CLASSES = 1000
RUNS = 20
WORK = [("owt", "train", 128), ("2012", "train", 128), ("owt", "infer", 64), ("owt", "infer", 1)]
PRECISIONS = ("tf32", "bf16")


def network(name):
    """`owt`: the one-tower AlexNet of 2014. `2012`: the paper's."""

    def convolution(inputs, outputs, kernel, groups=1, normalise=False, pool=False, **shape):
        yield nn.Conv2d(inputs, outputs, kernel, groups=groups, **shape)
        yield nn.ReLU()
        if normalise:
            yield nn.LocalResponseNorm(size=5, alpha=1e-4, beta=0.75, k=2.0)
        if pool:
            yield nn.MaxPool2d(kernel_size=3, stride=2)

    def fully_connected(inputs, outputs):
        yield from (nn.Dropout(0.5), nn.Linear(inputs, outputs), nn.ReLU())

    if name == "owt":
        body = [
            *convolution(3, 64, 11, stride=4, padding=2, pool=True),
            *convolution(64, 192, 5, padding=2, pool=True),
            *convolution(192, 384, 3, padding=1),
            *convolution(384, 256, 3, padding=1),
            *convolution(256, 256, 3, padding=1, pool=True),
        ]
    else:
        body = [
            nn.ZeroPad2d((0, 3, 0, 3)),
            *convolution(3, 96, 11, stride=4, normalise=True, pool=True),
            *convolution(96, 256, 5, groups=2, padding=2, normalise=True, pool=True),
            *convolution(256, 384, 3, padding=1),
            *convolution(384, 384, 3, groups=2, padding=1),
            *convolution(384, 256, 3, groups=2, padding=1, pool=True),
        ]
    head = [nn.Flatten(), *fully_connected(256 * 36, 4096), *fully_connected(4096, 4096), nn.Linear(4096, CLASSES)]
    return nn.Sequential(*body, *head)


def work(name, mode, batch, precision, channels_last, compiled):
    """A function that does one step or one inference."""
    torch.manual_seed(1)
    model = network(name).cuda()
    images = torch.randn(batch, 3, 224, 224, device="cuda")
    labels = torch.randint(CLASSES, (batch,), device="cuda")
    if channels_last:
        model, images = (x.to(memory_format=torch.channels_last) for x in (model, images))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    cast = torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == "bf16")
    run = torch.compile(model) if compiled else model
    if mode == "infer":
        model.eval()

        def infer():
            with torch.no_grad(), cast:
                return run(images)

        return infer
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with cast:
            loss = nn.functional.cross_entropy(run(images), labels)
        loss.backward()
        optimizer.step()

    return step


def as_graph(function):
    """The function recorded as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay


def milliseconds(function):
    for _ in range(5):
        function()
    torch.cuda.synchronize()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def prepare():
    """Compiles everything, in as many processes as there are pieces of work."""
    pieces = [(*piece, precision) for piece in WORK for precision in PRECISIONS]
    with multiprocessing.get_context("spawn").Pool(len(pieces)) as pool:
        pool.map(prepare_piece, pieces)


def prepare_piece(piece):
    for channels_last in (False, True):
        work(*piece, channels_last, compiled=True)()
    torch.cuda.synchronize()


def main():
    if sys.argv[1:] == ["--prepare"]:
        return prepare()
    print(f"PyTorch {torch.__version__} on {torch.cuda.get_device_name()}")
    for name, mode, batch in WORK:
        for precision in PRECISIONS:
            found = {}
            for channels_last in (False, True):
                for compiled in (False, True):
                    # What is compiled is faster as a graph.
                    for graph in (True,) if compiled else (False, True):
                        ways = [("channels-last", channels_last), ("compiled", compiled), ("graph", graph)]
                        way = "+".join(label for label, on in ways if on) or "eager"
                        try:
                            torch.compiler.reset()
                            function = work(name, mode, batch, precision, channels_last, compiled)
                            found[way] = milliseconds(as_graph(function) if graph else function)
                        except Exception as error:  # A way that PyTorch cannot go is left out, and said.
                            print(f"  {way}: {str(error).splitlines()[0][:100]}", file=sys.stderr)
            best = min(found, key=found.get)
            eager = found.get("eager", float("nan"))
            print(f"{name} {mode} {batch} {precision}: {found[best]:.3f} ms ({best}); eager {eager:.3f} ms", flush=True)


if __name__ == "__main__":
    main()
