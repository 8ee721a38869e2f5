"""Times mg_ensemble_depth, both solvers, beside diffusers' ensemble_depth on synthetic ensembles of one size.

    python benchmarks/ensembling.py [--size 576x768] [--members 10,20] [--repeats 3] [--seed 1] [--threads N]

Each side runs in a process of its own, one after the other: in one process their two OpenMP libraries were seen to slow
diffusers down threefold, which would flatter us. Figures are each side's best run, with the error to the known truth
beside them. How often a BFGS evaluates its cost depends on rounding noise: the number of diffusers' evaluations is
printed, and --seed chooses another ensemble. --no-peer leaves diffusers out. The project's targets are printed with the
ratios; nothing fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from ensembles import aligned_rmse, ensemble

Array = NDArray[np.float32]
PEER = "diffusers"
OURS = ("closed-form", "reference")
TARGETS = {("closed-form", 10): 50, ("closed-form", 20): 200, ("reference", 10): 10, ("reference", 20): 10}


def our_solver(solver: str, threads: int) -> Callable[[Array], Array]:
    from marigold_c import _C

    return lambda depth: _C.ensemble_depth(depth[:, 0], solver=solver, num_threads=threads)[0]


def peer(threads: int, evaluations: list[int]) -> Callable[[Array], Array]:
    import scipy.optimize
    import torch
    from diffusers import MarigoldDepthPipeline

    if threads:
        torch.set_num_threads(threads)
    minimize = scipy.optimize.minimize

    def counted(*arguments: Any, **options: Any) -> Any:
        result = minimize(*arguments, **options)
        evaluations.append(int(result.nfev))
        return result

    scipy.optimize.minimize = counted
    return lambda depth: np.asarray(MarigoldDepthPipeline.ensemble_depth(torch.from_numpy(depth))[0].numpy()[0, 0])


def work(side: str, members: int, h: int, w: int, args: argparse.Namespace) -> None:
    """Prints {"seconds": [...], "error": ..., "evaluations": [...]}; the first run is not counted but for the peer."""
    evaluations: list[int] = []
    function = peer(args.threads, evaluations) if side == PEER else our_solver(side, args.threads)
    depth, truth = ensemble("plain", members, args.seed, h, w)
    seconds = []
    for _ in range(args.repeats + (side != PEER)):
        begin = time.perf_counter()
        result = function(depth)
        seconds.append(time.perf_counter() - begin)
    print(json.dumps({"seconds": seconds, "error": aligned_rmse(result, truth), "evaluations": evaluations}))


def run_side(side: str, members: int) -> dict[str, Any]:
    command = [sys.executable, __file__, *sys.argv[1:], "--members", str(members), "--side", side]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def compare(members: int, args: argparse.Namespace) -> None:
    sides = OURS if args.no_peer else (PEER, *OURS)
    results = {side: run_side(side, members) for side in sides}
    for side, result in results.items():
        best = min(result["seconds"])
        line = f"{members:4d} members {args.size}  {side:12s} {best:9.4f} s  error {result['error']:.4f}"
        if side == PEER:
            line += f"  {result['evaluations']} evaluations"
        elif PEER in results:
            line += f"  1/{min(results[PEER]['seconds']) / best:.0f} of {PEER}"
            line += f" (target 1/{TARGETS[side, members]})" if (side, members) in TARGETS else ""
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="576x768")
    parser.add_argument("--members", default="10,20")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="0: all processors allowed to this process")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    args = parser.parse_args()
    h, w = (int(side) for side in args.size.split("x"))
    for members in args.members.split(","):
        if args.side:
            work(args.side, int(members), h, w, args)
        else:
            compare(int(members), args)


if __name__ == "__main__":
    main()
