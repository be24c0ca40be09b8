#!/usr/bin/env python3
"""alexc beside PyTorch, ONNX Runtime and OpenVINO: the same work, the same machine, the same run.

Prints a markdown table on stdout and progress on stderr. Clocks and neighbours vary, so all that is
compared is measured in rounds: in each round everyone does the work once, in a process of their own, and
each round begins with another one. The figure of a contender is the median over the rounds of its
median within a round.

Whatever is missing (alexc, the peers' Python, one peer, one mode) is said in the table.

    make bench
    python3 tests/peers/bench.py --works owt-infer-64,2012-train-128 --rounds 5 --json runs/bench.json

Needs nothing but Python itself; the peers run in the Python that `make peers` set up (--python).
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

sys.dont_write_bytecode = True
import speed  # noqa: E402  (the script beside this one, also run as the peers' process)

ROOT = Path(__file__).resolve().parents[2]
ALEXC = "alexc"

# iters and warmup are what one round takes; a training step of the 2012 network takes seconds.
Work = namedtuple("Work", "model mode batch iters warmup")
WORKS = [
    Work("owt", "infer", 64, 5, 2),
    Work("owt", "infer", 1, 40, 5),
    Work("owt", "train", 128, 3, 1),
    Work("2012", "train", 128, 3, 1),
    Work("2012", "infer", 64, 5, 2),
]
MODEL_FILES = {"owt": "models/alexnet-owt.ir", "2012": "models/alexnet.ir"}


def name_of(work):
    return f"{work.model}-{work.mode}-{work.batch}"


def can_do(contender, work):
    return contender == ALEXC or work.mode in speed.PEERS[contender][0]


def say(text):
    print(text, file=sys.stderr, flush=True)


def measure_alexc(program, work, threads, timeout=1800):
    """`alexc bench`, whose JSON has the same field names as a peer's."""
    devices = "cpu" if threads == speed.here() else ("cpu:0" if threads == 1 else f"cpu:0-{threads - 1}")
    command = [program, "bench", MODEL_FILES[work.model], "--mode", work.mode, "--batch", work.batch,
               "--iters", work.iters, "--devices", devices, "--json"]
    try:
        child = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True,
                               timeout=timeout, check=False)
        if child.returncode != 0:
            return {"error": f"exit {child.returncode}: {speed.last_words(child.stderr)}"}
        return json.loads(child.stdout)
    except FileNotFoundError:
        return {"error": f"no program at {program}: run `make build`"}
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {timeout} s"}
    except json.JSONDecodeError as error:
        return {"error": f"`alexc bench --json` did not print one JSON object: {error}"}


def measure_all(works, contenders, given):
    """{(work, contender): [a result a round]}"""
    results = {}
    with tempfile.TemporaryDirectory(prefix="alexc-bench-") as scratch:
        for work in works:
            for turn in range(given.rounds):
                first = turn % len(contenders)
                for contender in contenders[first:] + contenders[:first]:
                    if not can_do(contender, work):
                        continue
                    earlier = results.setdefault((work, contender), [])
                    if earlier and "error" in earlier[-1]:
                        continue  # what cannot run here is tried once
                    if contender == ALEXC:
                        result = measure_alexc(given.alexc, work, given.threads)
                    else:
                        result = speed.measure_apart(given.python, contender, work.model, work.mode,
                                                     work.batch, given.threads, work.iters, work.warmup,
                                                     scratch)
                    earlier.append(result)
                    outcome = result.get("error") or f"{result['median_ms']:.1f} ms"
                    say(f"{name_of(work)}, round {turn + 1} of {given.rounds}, {contender}: {outcome}")
    return results


def summary(rounds):
    """The median of the rounds' medians, and the most memory; None when there is no figure."""
    good = [result for result in rounds if "error" not in result]
    if len(good) < len(rounds) or not good:
        return None
    return {
        "median_ms": statistics.median(result["median_ms"] for result in good),
        "peak_rss_mb": max(result["peak_rss_mb"] for result in good),
    }


def table(works, contenders, results):
    """Two markdown tables (time with ratio, memory) and the reasons for what is missing."""
    reasons = {}
    times, memory = [], []
    for work in works:
        found = {contender: summary(results.get((work, contender), [])) for contender in contenders}
        cells = []
        for contender in contenders:
            if found[contender]:
                cells.append(f"{found[contender]['median_ms']:.1f}")
            elif can_do(contender, work):
                cells.append("**missing**")
                reason = results[work, contender][-1]["error"]
                reasons.setdefault((contender, reason), []).append(name_of(work))
            else:
                cells.append("–")
        peers = [contender for contender in contenders if contender != ALEXC and found[contender]]
        ratio = "no peer"
        if peers:
            fastest = min(peers, key=lambda peer: found[peer]["median_ms"])
            ratio = f"no alexc; fastest is {fastest}"
            if found.get(ALEXC):
                ratio = f"{found[ALEXC]['median_ms'] / found[fastest]['median_ms']:.2f} of {fastest}"
        times.append([name_of(work), *cells, ratio])
        memory.append([name_of(work), *(f"{found[contender]['peak_rss_mb']:.0f}" if found[contender] else "–"
                                        for contender in contenders)])
    lines = ["Time of one iteration, ms (last column: alexc's time over the fastest peer's; below 1, alexc "
             "is faster)", ""]
    lines += markdown(["work", *contenders, "alexc / fastest"], times)
    lines += ["", "Peak resident memory of the process, MB", "", *markdown(["work", *contenders], memory)]
    if reasons:
        lines += ["", "Missing:"]
        lines += [f"- {contender} ({', '.join(which)}): {reason}"
                  for (contender, reason), which in reasons.items()]
    return lines


def markdown(header, rows):
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    align = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return ["| " + " | ".join(cell.ljust(width) if column == 0 else cell.rjust(width)
                              for column, (cell, width) in enumerate(zip(row, widths))) + " |"
            for row in [header, align, *rows]]


def machine(threads):
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return f"{platform.node()}: {model}, {threads} of {os.cpu_count()} cores, {memory:.0f} GiB{load}"


def versions(program, results):
    """Name and version of all that took part."""
    found = {}
    for (_, contender), rounds in results.items():
        for result in rounds:
            if "version" in result:
                found[contender.split("-")[0]] = result["version"]
    try:
        answer = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False)
        found[ALEXC] = answer.stdout.strip().removeprefix("alexc ") or "of no version"
    except FileNotFoundError:
        found[ALEXC] = "not built"
    revision = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True,
                              text=True, check=False).stdout.strip()
    if revision:
        found[ALEXC] += f" at {revision}"
    return ", ".join(f"{name} {version}" for name, version in sorted(found.items()))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alexc", default=ROOT / "target/release/alexc", type=Path, help="the program")
    parser.add_argument("--python", default=ROOT / ".venv/bin/python", type=Path, help="the peers' Python")
    parser.add_argument("--works", default="", help=f"from {', '.join(map(name_of, WORKS))}; default all")
    parser.add_argument("--peers", default="", help=f"from {', '.join(speed.PEERS)}; default all")
    parser.add_argument("--threads", type=int, default=speed.here())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write every single result to this file")
    given = parser.parse_args()
    if given.rounds < 1 or given.threads < 1:
        parser.error("--rounds and --threads must be at least 1")

    def chosen(text, known, what):
        names = [name for name in text.split(",") if name] or list(known)
        for name in names:
            if name not in known:
                parser.error(f"unknown {what} {name!r}: choose from {', '.join(known)}")
        return [known[name] for name in names]

    works = chosen(given.works, {name_of(work): work for work in WORKS}, "work")
    peers = chosen(given.peers, {peer: peer for peer in speed.PEERS}, "peer")
    # Relative paths are the caller's; alexc itself is run from the repository's root.
    given.alexc, given.python = given.alexc.absolute(), given.python.absolute()
    return given, works, [ALEXC, *peers]


def main():
    given, works, contenders = arguments()
    where = machine(given.threads)
    results = measure_all(works, contenders, given)
    print("\n".join(table(works, contenders, results)))
    today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    print(f"\n{where}; {today}; float32, {given.rounds} rounds\n{versions(given.alexc, results)}")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        partial = given.json.with_name(given.json.name + ".part")
        rows = [{"work": name_of(work), "contender": contender, **result}
                for (work, contender), rounds in results.items() for result in rounds]
        partial.write_text(json.dumps({"machine": where, "date": today, "results": rows}, indent=1) + "\n")
        partial.replace(given.json)
    # A peer that is not here is a gap in the table; alexc that is not here is a failure.
    return 0 if all(summary(results[work, ALEXC]) for work in works) else 1


if __name__ == "__main__":
    sys.exit(main())
