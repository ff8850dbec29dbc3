"""One table of all series, a row each: what was measured, what is doubtful, what people decided."""

from __future__ import annotations

import csv
import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkd_core.archive.ledger import Ledger, storable
from mkd_core.errors import InputError
from mkd_core.measure.study_table import no_formula
from mkd_core.structures import BY_KEY

if TYPE_CHECKING:
    import pyarrow

#: Rows of a table that are in memory together.
_BATCH = 20_000

#: Columns before and after those of the structures, with the type of their values.
_FIRST: dict[str, type] = {
    "id": str,
    "study": str,
    "patient": str,
    "modality": str,
    "state": str,
    "reason": str,
    "reason_text": str,
    "decision": str,
    "note": str,
    "decided": str,
    "severity": str,
    "doubt": float,
    "warnings": str,
    "joint_agreement": float,
}
_LAST: dict[str, type] = {
    "size_x": int,
    "size_y": int,
    "size_z": int,
    "spacing_x_mm": float,
    "spacing_y_mm": float,
    "spacing_z_mm": float,
    "weights": str,
    "version": str,
    "attempts": int,
    "seconds": float,
    "finished": str,
}

#: Figures of a structure; its key stands before them in the names of their columns.
_FIGURES = ("volume_ml", "mass_g", "mean_intensity", "agreement")


def columns(ledger: Ledger, *, with_paths: bool = False) -> dict[str, type]:
    """Names of all columns with the type of their values."""
    done = next(ledger.rows(states=("done",)), None)
    structures = [] if done is None else list(done["summary"]["structures"])
    figures = {
        f"{key}_{name}": float
        for key in structures
        for name in _FIGURES
        if name != "mass_g" or not BY_KEY[key].is_blood
    }
    return _FIRST | figures | _LAST | ({"origin": str, "series": str, "detail": str} if with_paths else {})


def table(ledger: Ledger, *, with_paths: bool = False) -> Iterator[dict[str, Any]]:
    """All rows as plain values by column; columns without a value are left out.

    Args:
        ledger: of the run.
        with_paths: with the place of each series, the identifier under which it is known there, and the details of a
            failure.
    """
    for row in ledger.rows(with_origin=with_paths):
        summary: Mapping[str, Any] | None = row["summary"]
        values = {name: row[name] for name in (*_FIRST, *_LAST) if row.get(name) is not None}
        if row["finished"] is not None:
            moment = datetime.datetime.fromtimestamp(row["finished"], datetime.UTC)
            values["finished"] = moment.isoformat(timespec="seconds")
        if summary is not None:
            values |= _flat(summary)
        if with_paths:
            source = row["source"]
            values["origin"] = storable(source.get("path", row["origin"]))
            values["series"] = storable(source.get("series", {}).get("uid", source.get("member", "")))
            if row["detail"] is not None:
                values["detail"] = row["detail"]
        yield values


def _flat(summary: Mapping[str, Any]) -> dict[str, Any]:
    warnings = [one for one in summary["warnings"] if one["severity"] != "info"]
    codes = [one["code"] if one["structure"] is None else f"{one['code']}:{one['structure']}" for one in warnings]
    values: dict[str, Any] = {
        "modality": summary["modality"],
        "warnings": ";".join(codes),
        "joint_agreement": summary["joint_agreement"],
        "weights": summary["weights"],
        "version": summary["version"],
    }
    for axis, size, spacing in zip("xyz", summary["size"], summary["spacing_mm"]):
        values[f"size_{axis}"], values[f"spacing_{axis}_mm"] = size, spacing
    for key, figures in summary["structures"].items():
        values |= {f"{key}_{name}": figures[name] for name in _FIGURES if name in figures}
    return values


def write_csv(ledger: Ledger, path: Path, *, with_paths: bool = False, overwrite: bool = False) -> int:
    """Write the table as comma-separated values, UTF-8, with a header; returns the number of rows.

    Raises:
        InputError: it cannot be written, or would replace a file that the run did not make, which only ``overwrite``
            allows.
    """
    count = 0

    def write(draft: Path) -> None:
        nonlocal count
        with draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(columns(ledger, with_paths=with_paths)), restval="")
            writer.writeheader()
            for row in table(ledger, with_paths=with_paths):
                writer.writerow({k: no_formula(v) if isinstance(v, str) else v for k, v in row.items()})
                count += 1

    ledger.write_output(path, write, overwrite=overwrite)
    return count


def write_parquet(ledger: Ledger, path: Path, *, with_paths: bool = False, overwrite: bool = False) -> int:
    """Write the table as Parquet; returns the number of rows.

    Raises:
        InputError: pyarrow is missing, or what :func:`write_csv` raises.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            "Parquet needs pyarrow, which is not installed.", "Install it with: pip install 'mkd-core[archive]'"
        ) from error
    types = {str: pyarrow.string(), float: pyarrow.float64(), int: pyarrow.int64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns(ledger, with_paths=with_paths).items()])
    count = 0

    def write(draft: Path) -> None:
        nonlocal count
        with pyarrow.parquet.ParquetWriter(draft, schema, compression="zstd") as writer:
            for rows in _batches(table(ledger, with_paths=with_paths)):
                writer.write_table(_arrow_table(rows, schema))
                count += len(rows)

    ledger.write_output(path, write, overwrite=overwrite)
    return count


def _arrow_table(rows: list[dict[str, Any]], schema: pyarrow.Schema) -> pyarrow.Table:
    import pyarrow

    return pyarrow.table({field.name: [row.get(field.name) for row in rows] for field in schema}, schema=schema)


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
