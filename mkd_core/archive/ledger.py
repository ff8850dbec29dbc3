"""The ledger of an archive: an SQLite file with one row a series, which says what was done and what is left to do.

States of a row::

    waiting -> running -> done
       ^          |-----> failed      (retry makes them wait again)
       '----------'                   (the process that ran it is gone, or its lease has expired)
    aside                             (no volume to segment, with the reason)

A process that runs rows leases them: its name stands in them until a moment that it puts off again and again.  A row
counts for the process that holds its lease and for no other, so a result comes into the ledger once.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import platform
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mkd_core.errors import InputError
from mkd_core.io.atomic import write_output
from mkd_core.measure.messages import finding, refusal

State = Literal["waiting", "running", "done", "failed", "aside"]
STATES: tuple[State, ...] = ("waiting", "running", "done", "failed", "aside")

Decision = Literal["accept", "reject"]
DECISIONS: tuple[Decision, ...] = ("accept", "reject")

LEDGER_NAME = "archive.sqlite"

#: Version of the tables.
_FORMAT = 1

#: How long a process may be silent before others take its rows, seconds.
LEASE_S = 900.0

#: A row whose worker died so often while it ran is given up.
MAX_CRASHES = 3

#: The same for the death of the whole run, which more often has other reasons.
MAX_INTERRUPTIONS = 10

#: File systems on which SQLite's write-ahead log, which needs memory shared by all processes, is not safe.
_SHARED_DISKS = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "fuse", "9p", "afs", "glusterfs", "pvfs")

_BUSY_S = 120.0

#: In the name of a process of which nobody can tell when it began, seconds.
_UNKNOWN = 0.0

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE series (
    number        INTEGER PRIMARY KEY,
    id            TEXT NOT NULL UNIQUE,
    study         TEXT NOT NULL,
    patient       TEXT NOT NULL,
    origin        TEXT NOT NULL,
    source        BLOB NOT NULL,
    modality      TEXT NOT NULL,
    state         TEXT NOT NULL,
    owner         TEXT,
    lease         REAL,
    attempts      INTEGER NOT NULL DEFAULT 0,
    crashes       INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0,
    reason        TEXT,
    reason_text   TEXT,
    detail        TEXT,
    severity      TEXT,
    doubt         REAL,
    summary       TEXT,
    seconds       REAL,
    finished      REAL,
    decision      TEXT,
    note          TEXT,
    decided       TEXT
);
CREATE INDEX series_by_state ON series (state, crashes);
CREATE INDEX series_by_severity ON series (severity) WHERE state = 'done';
CREATE INDEX series_by_reason ON series (state, reason) WHERE reason IS NOT NULL;
CREATE INDEX series_by_decision ON series (decision) WHERE decision IS NOT NULL;
"""


@dataclass(frozen=True)
class Found:
    """A series that an index found.

    Attributes:
        id, study, patient: keyed hashes; the latter two may be empty.
        origin: folder, archive or address in which it was found.
        source: what it takes to read it, plain values.
        modality: "CT", "MR" or what else the files say; empty if they say nothing.
        reason: why it is not to be segmented: code and sentence; None if it is.
    """

    id: str
    study: str
    patient: str
    origin: str
    source: Mapping[str, Any]
    modality: str
    reason: tuple[str, str] | None = None


@dataclass(frozen=True)
class Task:
    """A leased row: what a worker needs to know of it."""

    number: int
    id: str
    source: Mapping[str, Any]
    modality: str
    attempt: int


@dataclass(frozen=True)
class Outcome:
    """What became of a task; plain values, which travel between processes.

    Attributes:
        id: of the series.
        state: "done" or "failed".
        reason, reason_text: code and sentence without names, of a failure.
        detail: the whole story, which stays in the ledger.
        severity: worst of all warnings: "red", "amber" or "none".
        doubt: points, see :func:`mkd_core.archive.study.doubt`.
        summary: figures and warnings, plain values.
        seconds: wall time.
    """

    id: str
    state: Literal["done", "failed"]
    reason: str | None = None
    reason_text: str | None = None
    detail: str | None = None
    severity: str | None = None
    doubt: float | None = None
    summary: Mapping[str, Any] | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Review:
    """What a person decided on a series: a decision, a note, or both; ``when`` in ISO 8601, UTC."""

    id: str
    decision: Decision | None
    note: str
    when: str


@dataclass(frozen=True)
class Shard:
    """One of several parts of an archive that different processes run, counted from 1."""

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise refusal(finding("archive_shard", index=self.index, count=self.count))


@dataclass(frozen=True)
class Counts:
    """How many series there are.

    Attributes:
        states: by state.
        severities: of those that are done, by their worst warning.
        reasons: (state, code, sentence, number) of those that failed or were set aside, most frequent first.
        decisions: by decision.
    """

    states: dict[State, int]
    severities: dict[str, int]
    reasons: list[tuple[str, str, str, int]]
    decisions: dict[str, int]


def process_name() -> str:
    """Name of this process, which no other process anywhere ever has."""
    try:
        import psutil

        began = psutil.Process().create_time()
    except ImportError:
        began = _UNKNOWN
    return f"{platform.node()}|{os.getpid()}|{began:.2f}|{os.urandom(4).hex()}"


def _is_gone(owner: str) -> bool:
    """Whether a process has ended; False if that cannot be known from here."""
    host, pid, created, _ = owner.split("|")
    if host != platform.node():
        return False
    try:
        import psutil
    except ImportError:
        return _is_gone_without_psutil(int(pid))
    try:
        if float(created) == _UNKNOWN:
            return not psutil.pid_exists(int(pid))
        return abs(psutil.Process(int(pid)).create_time() - float(created)) > 1.0
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _is_gone_without_psutil(pid: int) -> bool:
    """The same by the system's own means, which another process of the same number deceives: its lease tells then."""
    if os.name == "nt":  # there, the signal 0 ends a process
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def rows_seen(folder: Path, most: int) -> list[dict[str, Any]]:
    """The first rows of a ledger that another process may be writing, without ever waiting for that one.

    Args:
        folder: of the run.
        most: so many rows at most.

    Returns:
        number, id, state, modality, reason_text, severity, summary and source of each, in the order in which they were
        found.

    Raises:
        BlockingIOError: the ledger cannot be read just now; it can in a moment.
        InputError: it is none.
    """
    path = (folder / LEDGER_NAME).absolute()
    columns = "number, id, state, modality, reason_text, severity, summary, source"
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", timeout=0.0, uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(
                f"SELECT {columns} FROM series WHERE state != 'aside' ORDER BY number LIMIT ?", (most,)
            ).fetchall()
    except sqlite3.OperationalError as error:  # locked, or made just now and without its tables
        raise BlockingIOError(str(error)) from error
    except sqlite3.Error as error:
        raise unusable(folder, error) from error
    return [
        dict(row)
        | {
            "summary": None if row["summary"] is None else json.loads(row["summary"]),
            "source": _unpacked(row["source"]),
        }
        for row in found
    ]


class Ledger:
    """The ledger in a folder.  In one that may only be read it can be looked at, and every change is refused.

    Args:
        folder: of the run.
        create: make folder and ledger if they are not there.

    Raises:
        InputError: there is no ledger, it cannot be opened, or another version made it.
    """

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        self.folder = folder
        self._is_read_only = False
        path = folder / LEDGER_NAME
        if not create and not path.is_file():
            raise refusal(finding("archive_missing", file=str(folder)))
        try:
            if create and not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # holds paths: for this user alone
            self._is_read_only = not (os.access(folder, os.W_OK) and os.access(path, os.W_OK))
            self._connection = sqlite3.connect(
                _read_only_address(path) if self._is_read_only else path,
                timeout=_BUSY_S,
                isolation_level=None,
                uri=self._is_read_only,
            )
            self._connection.row_factory = sqlite3.Row
            if not self._is_read_only:
                self._prepare(path)
            if self.get("format") != _FORMAT:
                raise refusal(finding("archive_other_version", file=str(path)))
        except sqlite3.Error as error:
            raise unusable(folder, error) from error
        except OSError as error:
            raise refusal(finding("archive_unusable", file=str(path), reason=str(error.strerror or error))) from error

    def _prepare(self, path: Path) -> None:
        self._connection.execute(f"PRAGMA journal_mode = {'DELETE' if _is_shared(path) else 'WAL'}")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        with self._writing():
            empty = not self._connection.execute("SELECT 1 FROM sqlite_master").fetchone()
            if empty:
                for statement in _TABLES.split(";"):
                    self._connection.execute(statement)
                self._put("format", _FORMAT)
                self._put("run", os.urandom(8).hex())

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction: all of it or nothing.

        Raises:
            InputError: the disk is full, or may not be written.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite has not taken it back itself
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise unusable(self.folder, error) from error

    # ---- what holds for the whole run ----

    def get(self, name: str) -> Any:
        """A plain value that was put under a name; None if none was."""
        row = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put_once(self, name: str, value: Any) -> Any:
        """The value that is there; if there is none, this one is from now on."""
        with self._writing():
            present = self.get(name)
            if present is None:
                self._put(name, value)
                return value
        return present

    def _put(self, name: str, value: Any) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, json.dumps(value)))

    def write_output(self, path: Path, write: Callable[[Path], object], *, overwrite: bool = False) -> None:
        """Write a file of the whole run for a user, and remember it: the next one may replace it.

        Raises:
            InputError: it cannot be written, or it would replace the ledger or, without ``overwrite``, a file that this
                run did not make.
        """
        place = f"wrote {path.resolve()}"
        digest = write_output(
            path, write, inputs=[self.folder / LEDGER_NAME], overwrite=overwrite, earlier=self.get(place)
        )
        if not self._is_read_only:
            with self._writing():
                self._put(place, digest)

    # ---- indexing ----

    def add(self, found: Iterable[Found]) -> int:
        """Add rows for series that are new; rows that are there stay as they are.

        Returns:
            How many were new.
        """
        before = self._connection.total_changes
        with self._writing():
            self._connection.executemany(
                "INSERT INTO series (id, study, patient, origin, source, modality, state, reason, reason_text) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                map(_values_of, found),
            )
        return self._connection.total_changes - before

    def replace_source(self, found: Found) -> None:
        """Read a series from elsewhere from now on; its state stays unless it was set aside or waits."""
        *_, origin, source, modality, state, reason, text = _values_of(found)
        with self._writing():
            self._connection.execute(
                "UPDATE series SET origin = ?, source = ?, modality = ? WHERE id = ?",
                (origin, source, modality, found.id),
            )
            self._connection.execute(
                "UPDATE series SET state = ?, reason = ?, reason_text = ? "
                "WHERE id = ? AND state IN ('waiting', 'aside')",
                (state, reason, text, found.id),
            )

    def origin_of(self, identifier: str) -> str | None:
        """Where a series was found; None if it is not in the ledger."""
        row = self._connection.execute("SELECT origin FROM series WHERE id = ?", (identifier,)).fetchone()
        return None if row is None else os.fsdecode(row[0])

    def studies_of_several(self) -> Iterator[list[Found]]:
        """For every study of which several series are to be segmented, or were, these series; one of them waits."""
        rows = self._connection.execute(
            "SELECT id, study, patient, origin, source, modality FROM series WHERE study IN ("
            "SELECT study FROM series WHERE state != 'aside' AND study != '' "
            "GROUP BY study HAVING COUNT(*) > 1 AND SUM(state = 'waiting') > 0"
            ") AND state != 'aside' ORDER BY study, number"
        ).fetchall()
        for _, group in itertools.groupby(rows, lambda row: row["study"]):
            yield [
                Found(
                    row["id"],
                    row["study"],
                    row["patient"],
                    os.fsdecode(row["origin"]),
                    _unpacked(row["source"]),
                    row["modality"],
                )
                for row in group
            ]

    def set_aside(self, reasons: Iterable[tuple[str, tuple[str, str]]]) -> None:
        """Let no process run what waits, for a reason: id, and its code and sentence."""
        with self._writing():
            self._connection.executemany(
                "UPDATE series SET state = 'aside', reason = ?, reason_text = ? WHERE id = ? AND state = 'waiting'",
                [(code, text, identifier) for identifier, (code, text) in reasons],
            )

    # ---- running ----

    def claim(self, owner: str, count: int, shard: Shard | None = None) -> list[Task]:
        """Lease up to so many waiting rows; rows whose workers died come last."""
        shard = shard or Shard()
        with self._writing():
            rows = self._connection.execute(
                "SELECT number, id, source, modality, attempts FROM series "
                "WHERE state = 'waiting' AND number % ? = ? ORDER BY crashes, number LIMIT ?",
                (shard.count, shard.index - 1, count),
            ).fetchall()
            self._connection.executemany(
                "UPDATE series SET state = 'running', owner = ?, lease = ?, attempts = attempts + 1 WHERE number = ?",
                [(owner, time.time() + LEASE_S, row["number"]) for row in rows],
            )
        return [
            Task(row["number"], row["id"], _unpacked(row["source"]), row["modality"], row["attempts"] + 1)
            for row in rows
        ]

    def renew(self, owner: str) -> None:
        """Put off the end of all leases of a process."""
        with self._writing():
            self._connection.execute(
                "UPDATE series SET lease = ? WHERE state = 'running' AND owner = ?", (time.time() + LEASE_S, owner)
            )

    def commit(self, owner: str, outcomes: Sequence[Outcome]) -> int:
        """Enter what became of rows that a process holds the lease of.

        Returns:
            How many were entered; another process has taken the others over.
        """
        before = self._connection.total_changes
        with self._writing():
            self._connection.executemany(
                "UPDATE series SET state = ?, reason = ?, reason_text = ?, detail = ?, severity = ?, doubt = ?, "
                "summary = ?, seconds = ?, finished = ?, owner = NULL, lease = NULL "
                "WHERE id = ? AND state = 'running' AND owner = ?",
                [
                    (
                        one.state,
                        one.reason,
                        storable(one.reason_text),
                        storable(one.detail),
                        one.severity,
                        one.doubt,
                        None if one.summary is None else json.dumps(one.summary, separators=(",", ":")),
                        one.seconds,
                        time.time(),
                        one.id,
                        owner,
                    )
                    for one in outcomes
                ],
            )
        return self._connection.total_changes - before

    def release(self, owner: str, ids: Sequence[str] | None = None) -> None:
        """Let rows wait again, as if they had never been leased.

        Args:
            owner: who holds the lease.
            ids: of the series; None for all that this process holds.
        """
        again = "UPDATE series SET state = 'waiting', owner = NULL, lease = NULL WHERE state = 'running' AND owner = ?"
        with self._writing():
            if ids is None:
                self._connection.execute(again, (owner,))
            else:
                self._connection.executemany(f"{again} AND id = ?", [(owner, one) for one in ids])

    def count_crash(self, owner: str, identifier: str) -> None:
        """A worker died while it ran this series: let it wait again, behind all others, or give it up."""
        with self._writing():
            self._connection.execute(
                "UPDATE series SET crashes = crashes + 1 WHERE id = ? AND state = 'running' AND owner = ?",
                (identifier, owner),
            )
            self._let_go(owner, identifier)

    def abandoned(self) -> list[tuple[str, str]]:
        """Id and owner of running rows whose process is gone, or has been silent for too long."""
        owners = self._connection.execute(
            "SELECT owner, MIN(lease) FROM series WHERE state = 'running' GROUP BY owner"
        ).fetchall()
        gone = [owner for owner, lease in owners if lease < time.time() or _is_gone(owner)]
        return [(identifier, owner) for owner in gone for identifier in self.leased(owner)]

    def leased(self, owner: str) -> list[str]:
        """Ids of the rows that a process holds, in the order in which they were found."""
        rows = self._connection.execute(
            "SELECT id FROM series WHERE state = 'running' AND owner = ? ORDER BY number", (owner,)
        )
        return [row[0] for row in rows.fetchall()]

    def take_over(self, identifier: str, owner: str, *, was_started: bool) -> None:
        """Let an abandoned row wait again, or give it up if it was started too often and never came to an end."""
        with self._writing():
            self._connection.execute(
                "UPDATE series SET interruptions = interruptions + ? WHERE id = ? AND state = 'running' AND owner = ?",
                (int(was_started), identifier, owner),
            )
            self._let_go(owner, identifier)

    def _let_go(self, owner: str, identifier: str) -> None:
        """Let a running row wait, or fail if it has had all its chances."""
        self._connection.execute(
            "UPDATE series SET state = 'failed', finished = ?, reason = 'worker_died', reason_text = ? "
            "WHERE id = ? AND state = 'running' AND owner = ? AND (crashes >= ? OR interruptions >= ?)",
            (
                time.time(),
                "The process that segmented it died every time, for want of memory or by a fault in a library.",
                identifier,
                owner,
                MAX_CRASHES,
                MAX_INTERRUPTIONS,
            ),
        )
        self._connection.execute(
            "UPDATE series SET state = 'waiting' WHERE id = ? AND state = 'running' AND owner = ?", (identifier, owner)
        )
        self._connection.execute(
            "UPDATE series SET owner = NULL, lease = NULL WHERE id = ? AND owner = ?", (identifier, owner)
        )

    def retry(self, reason: str | None = None) -> int:
        """Let failed rows wait again, with all chances; returns how many.

        Args:
            reason: only those that failed for it.
        """
        with self._writing():
            return self._connection.execute(
                "UPDATE series SET state = 'waiting', crashes = 0, interruptions = 0, "
                "reason = NULL, reason_text = NULL, detail = NULL WHERE state = 'failed' AND (? IS NULL OR reason = ?)",
                (reason, reason),
            ).rowcount

    # ---- looking ----

    def state_counts(self, shard: Shard | None = None) -> dict[State, int]:
        """How many rows there are, by state."""
        where = ""
        values: tuple[int, ...] = ()
        if shard is not None and shard.count > 1:
            where, values = "WHERE number % ? = ?", (shard.count, shard.index - 1)
        found = dict(
            self._connection.execute(f"SELECT state, COUNT(*) FROM series {where} GROUP BY state", values).fetchall()
        )
        return {state: found.get(state, 0) for state in STATES}

    def counts(self) -> Counts:
        """All that ``mkd archive status`` shows."""
        query = self._connection.execute
        reasons = query(
            "SELECT state, reason, COUNT(*), MIN(number) FROM series WHERE reason IS NOT NULL GROUP BY state, reason "
            "ORDER BY COUNT(*) DESC, reason"
        ).fetchall()
        sentences = [
            query("SELECT reason_text FROM series WHERE number = ?", (row[3],)).fetchone()[0] for row in reasons
        ]
        return Counts(
            self.state_counts(),
            dict(query("SELECT severity, COUNT(*) FROM series WHERE state = 'done' GROUP BY severity").fetchall()),
            [(row[0], row[1], text or "", row[2]) for row, text in zip(reasons, sentences)],
            dict(
                query("SELECT decision, COUNT(*) FROM series WHERE decision IS NOT NULL GROUP BY decision").fetchall()
            ),
        )

    def rows(self, *, with_origin: bool = False, states: Sequence[State] = STATES) -> Iterator[dict[str, Any]]:
        """All rows in the order in which they were found, with ``summary`` as plain values.

        Args:
            with_origin: with the place where each was found and the details of a failure, which may name a patient.
            states: only rows in one of these.
        """
        columns = "number, id, study, patient, modality, state, attempts, crashes, reason, reason_text, severity, doubt"
        columns += ", summary, seconds, finished, decision, note, decided"
        columns += ", detail, origin, source" if with_origin else ""
        marks = ", ".join("?" * len(states))
        cursor = self._connection.execute(
            f"SELECT {columns} FROM series WHERE state IN ({marks}) ORDER BY number", tuple(states)
        )
        for row in cursor:
            values = dict(row)
            if values["summary"] is not None:
                values["summary"] = json.loads(values["summary"])
            if with_origin:
                values["origin"], values["source"] = os.fsdecode(values["origin"]), _unpacked(values["source"])
            yield values

    # ---- reviewing ----

    def review(self, reviews: Iterable[Review]) -> tuple[int, list[str]]:
        """Enter what people decided; of two decisions on a series the later one holds.

        Returns:
            How many rows have changed, and the ids that are not in the ledger.
        """
        changed, unknown = 0, []
        with self._writing():
            for one in reviews:
                row = self._connection.execute("SELECT decided FROM series WHERE id = ?", (one.id,)).fetchone()
                if row is None:
                    unknown.append(one.id)
                elif row["decided"] is None or row["decided"] < one.when:
                    self._connection.execute(
                        "UPDATE series SET decision = ?, note = ?, decided = ? WHERE id = ?",
                        (one.decision, storable(one.note) or None, one.when, one.id),
                    )
                    changed += 1
        return changed, unknown


def _values_of(found: Found) -> tuple[Any, ...]:
    code, text = found.reason or (None, None)
    state = "waiting" if found.reason is None else "aside"
    return (
        found.id,
        found.study,
        found.patient,
        found.origin if _is_storable(found.origin) else os.fsencode(found.origin),
        _packed(found.source),
        found.modality,
        state,
        code,
        text,
    )


def _is_storable(text: str) -> bool:
    """Whether a text has characters only; names of files may hold bytes that are none."""
    return text.isascii() or storable(text) == text


def storable(text: str | None) -> str | None:
    """A text in which bytes that are no characters stand as ``\\udcfc``."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _packed(source: Mapping[str, Any]) -> bytes:
    """Plain values as bytes; a list of 300 names of files takes a tenth."""
    return zlib.compress(json.dumps(source, separators=(",", ":")).encode("utf-8"), 6)


def _unpacked(content: bytes) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(zlib.decompress(content))
    return values


def _read_only_address(path: Path) -> str:
    """Address of a ledger on a disk that cannot be written.  SQLite wants to write beside it even to read, unless it is
    told that nobody else can either; a log that was left there must be read all the same.
    """
    has_log = path.with_name(f"{path.name}-wal").exists()
    return f"{path.absolute().as_uri()}?mode=ro" + ("" if has_log else "&immutable=1")


def _is_shared(path: Path) -> bool:
    """Whether a file lies on a disk that several computers may share."""
    if os.name == "nt":
        return str(path.resolve()).startswith("\\\\")
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return False
    mounts = [(line.split()[1].replace("\\040", " "), line.split()[2]) for line in lines if len(line.split()) > 2]
    place = path.resolve()
    _, kind = max((mount for mount in mounts if place.is_relative_to(mount[0])), key=lambda mount: len(mount[0]))
    return kind.startswith(_SHARED_DISKS)


def unusable(folder: Path, error: sqlite3.Error) -> InputError:
    """The error of a ledger in a folder that SQLite cannot use."""
    return refusal(finding("archive_unusable", file=str(folder / LEDGER_NAME), reason=str(error)))
