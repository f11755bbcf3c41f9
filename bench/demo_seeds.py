"""Whether the distilled student beats the student alone: the demo over several seeds.

    python bench/demo_seeds.py [--seeds 5] [--save]

One teacher is trained for each seed. Prints every run, then mean and standard deviation, and the
paired difference with its standard error.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from datetime import UTC, datetime
from pathlib import Path

from kdnet.runtime.demo import Result, run_demo

RESULTS = Path(__file__).parent / "results"


def row(name: str, values: list[float]) -> str:
    """Mean and spread of one net's accuracies."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{name:18} {statistics.mean(values):.4f} ± {spread:.4f}   " + " ".join(
        f"{value:.4f}" for value in values
    )


def main() -> None:
    """Run the demo once a seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="write bench/results/demo_seeds.json")
    options = parser.parse_args()
    runs: list[list[Result]] = []
    for seed in range(options.seeds):
        print(f"seed {seed}", flush=True)
        out = Path("runs") / "demo_seeds" / str(seed)
        runs.append(run_demo(out, seed=seed, tell=lambda _text: None))
    by_name = {runs[0][index].name: [run[index].accuracy for run in runs] for index in range(3)}
    for name, values in by_name.items():
        print(row(name, values))
    pairs = zip(by_name["distilled student"], by_name["student alone"], strict=True)
    gains = [distilled - alone for distilled, alone in pairs]
    error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    print(f"gain               {statistics.mean(gains):+.4f} (standard error {error:.4f})")
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        record = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "accuracy": by_name,
            "gain_mean": statistics.mean(gains),
            "gain_standard_error": error,
        }
        (RESULTS / "demo_seeds.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
