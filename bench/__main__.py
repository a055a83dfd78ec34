"""`make bench`: run each row on Muster and on its peers, interleaved, and print one table."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import rows
from bench.processes import CORES


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # mosquitto drops root and must still find its files
        yield directory


def _machine() -> dict[str, Any]:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {"cpu": model, "cores": len(CORES), "python": platform.python_version()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rows", default="all", help=f"comma-separated: {', '.join(rows.ROWS)}")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds a row")
    parser.add_argument("--seconds", type=float, default=3.0, help="measured seconds a round")
    parser.add_argument("--no-peers", action="store_true", help="Muster alone")
    parser.add_argument("--output", type=Path, default=Path("bench/results"))
    arguments = parser.parse_args()
    chosen = list(rows.ROWS) if arguments.rows == "all" else arguments.rows.split(",")
    unknown = [name for name in chosen if name not in rows.ROWS]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}")
    results = []
    with _scratch() as directory:
        for name in chosen:
            row = rows.ROWS[name]
            sys.stderr.write(f"{name} …\n")
            results.append(_run(row, directory / name, arguments))
    _print(results)
    arguments.output.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    file = arguments.output / f"{stamp}.json"
    file.write_text(json.dumps({"machine": _machine(), "rows": results}, indent=1))
    sys.stderr.write(f"written to {file}\n")
    return 0 if all("muster" in result["medians"] for result in results) else 1


def _run(row: rows.Row, directory: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure *row* in interleaved rounds; a subject that fails says why and drops out."""
    subjects = row.subjects(peers=not arguments.no_peers)
    figures: dict[str, list[float]] = {name: [] for name in subjects}
    notes: dict[str, str] = {}
    for turn in range(arguments.rounds):
        for name, subject in subjects.items():
            if name in notes and not figures[name]:
                continue
            place = directory / f"{name}-{turn}"
            place.mkdir(parents=True)
            try:
                figure, note = subject(place, arguments.seconds)
            except Exception as error:  # noqa: BLE001 - the table says which subject failed and how
                notes[name] = f"failed: {error}"[:300]
                continue
            figures[name].append(figure)
            if note:
                notes[name] = note
    medians = {name: statistics.median(values) for name, values in figures.items() if values}
    return {
        "row": row.name,
        "unit": row.unit,
        "setting": row.setting,
        "floor": row.floor,
        "goal": row.goal,
        "figures": figures,
        "medians": medians,
        "notes": notes,
        "at": time.time(),
    }


def _print(results: list[dict[str, Any]]) -> None:
    machine = _machine()
    table = Table(
        title=f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}; medians"
    )
    for column in ("what", "unit", "muster", "peers (muster : peer)", "floor", "goal", "notes"):
        table.add_column(column, overflow="fold")
    for result in results:
        ours = result["medians"].get("muster")
        peers = [
            f"{name} {_figure(value)}" + (f" ({ours / value:.2f})" if ours else "")
            for name, value in result["medians"].items()
            if name != "muster"
        ]
        notes = "; ".join(f"{name}: {note}" for name, note in result["notes"].items())
        table.add_row(
            f"{result['row']}: {result['setting']}",
            result["unit"],
            _figure(ours) if ours else "-",
            "\n".join(peers),
            result["floor"],
            result["goal"],
            notes,
        )
    Console(width=160).print(table)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
