"""The audit of labels from end to end: recipe and CSV in, the rows whose labels are worth a look out.

In: a recipe and an --out. Out: audit.csv, audit.parquet and audit.json in OUT. Not here: training (training/run.py),
the verdicts on single rows (held_out.py), decisions read back (data/decisions.py).

    OUT/settings.json   what is audited, and how; written first
    OUT/folds/K/        an ordinary run with `split.fold: K/N`: its test split is the fold (not in the quick mode)
    OUT/audit.parquet   every row that was audited, without its text
    OUT/audit.csv       the rows most worth a look, with an empty column `decision`; with recipients audit.csv.age
    OUT/audit.json      counts; written last: an audit that has it is finished

As many runs train side by side as the cluster has room for (side_by_side.py); each resumes where it was interrupted.
What a run learns does not depend on the others. Where there is room for one, the runs train in this process, one after
another.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from textcls import encryption, storage
from textcls.audit.evidence import Copies, nearly_same, sheet_rows
from textcls.audit.held_out import (
    HeldOut,
    ScoredRows,
    embedded,
    held_out,
    judged,
    scored_by_bundle,
    text_bytes,
)
from textcls.audit.memory import memory_bytes, refuse_too_large
from textcls.audit.ranking import AuditedRows, agreement, confused_pairs, ranked, suspect
from textcls.audit.sheet import NUMBERS, sheet
from textcls.audit.side_by_side import TrainFold, run_side_by_side
from textcls.audit.value import row_values
from textcls.bundle import MANIFEST, load_bundle
from textcls.data import messages
from textcls.data.decisions import read_decisions, refuse_unmet, rows_decided
from textcls.data.exclusion_files import read_exclusion
from textcls.data.input_files import expand
from textcls.data.masked_messages import masked_messages
from textcls.data.prepared_rows import PreparedData
from textcls.data.read import ReadRows, read_rows
from textcls.data.row_tables import file_and_line
from textcls.data.split_blocks import split_rows
from textcls.encryption import NO_KEYS, Keys
from textcls.errors import InputError, RunDirError
from textcls.inference.embeddings import Embedder
from textcls.modeling.pretrained import find_model, read_config
from textcls.on_ray.session import own_address, ray_session
from textcls.output.claim import OutKind, claim, difference
from textcls.output.json_files import read_json, write_json
from textcls.output.lock import locked
from textcls.settings.recipe import OF_NO_LEARNING, Recipe
from textcls.tasks.registry import task_of
from textcls.training.run import train
from textcls.training.run_dir import IDENTITY
from textcls.training.scaling import runs_at_once

Say = Callable[[str], None]

SETTINGS = "settings.json"
FOLDS = "folds"
SHEET = "audit.csv"
SUMMARY = "audit.json"
_FORMAT = 1
_AUDIT = OutKind(name="audit", finished_name="a finished audit", last_file=SUMMARY, first_file=SETTINGS)
# Rows of audit.csv if no number is asked for: a tenth of all, within these bounds.
_ROWS_SHARE, _FEWEST_ROWS, _MOST_ROWS = 0.1, 100, 5_000

# What the process of a run side by side takes: torch, Ray, a pretrained model and the rows of the TF-IDF baseline. The
# rest of the memory is for Ray's object store and workers.
_PROCESS_BYTES, _SHARE_OF_PROCESSES = 2 * 10**9, 0.5

# Numbers of an embedding of a model that does not tell.
_WIDEST = 1_024


@dataclass(frozen=True)
class AuditOptions:
    """How to audit.

    Attributes:
        folds: their number.
        quick: embeddings of the pretrained encoder and a regression, in place of a training run for each fold.
        rows: of audit.csv; None: a tenth of all, 100 to 5,000.
        encoding: of audit.csv: `utf-8`, or `utf-8-sig` for Excel.
        keys: the recipients, if audit.csv and the rejects of the runs are to be encrypted, and where the identity for
            decisions is.
    """

    folds: int = 5
    quick: bool = False
    rows: int | None = None
    encoding: str = "utf-8"
    keys: Keys = NO_KEYS


def audit(
    recipe: Recipe,
    out: str,
    options: AuditOptions,
    *,
    resume: bool,
    say: Say,
    verbose: bool = False,
) -> dict[str, Any]:
    """Ranks the labelled rows of a recipe by the loss of their labels; returns the content of audit.json.

    It may start processes: a script that calls it begins with `if __name__ == "__main__":`, as `multiprocessing` asks.

    Args:
        recipe: the resolved recipe.
        out: URI of a new directory, or of an interrupted audit's with `resume`.
        options: how to audit.
        resume: continue an interrupted audit; folds whose run is finished are not trained again.
        say: shows one line to the user.
        verbose: show Ray's own log lines as well.

    Raises:
        InputError: recipe, rows, model or directory cannot be used.
        TextclsError: see `training.run.train`; with `resume` the audit continues.
    """
    with masked_messages(recipe.text, say, [out, *recipe.data.csv]) as say, locked(out) as uri:
        _claim(uri, recipe, options, resume=resume)
        try:
            with ray_session(verbose=verbose):
                if not options.quick:
                    scale, at_once = runs_at_once(recipe.scale, options.folds)
                    _read(recipe, options, say)  # what is to be refused is refused before the runs, not after them
                    of_a_run = recipe.model_copy(update={"scale": scale})
                    train_folds(of_a_run, uri, options, min(at_once, _processes()), say=say, verbose=verbose)
                return _judged(recipe, uri, options, say)
        except InputError:
            if not resume and not storage.exists(storage.join(uri, FOLDS)):
                storage.delete_file(storage.join(uri, SETTINGS))  # the next audit may begin here
            raise


def _claim(uri: str, recipe: Recipe, options: AuditOptions, *, resume: bool) -> None:
    """Claims the directory of a new audit, or checks that the one that began there is the same.

    Raises:
        RunDirError: the directory holds something else, or another audit.
    """
    claimed = claim(uri, _AUDIT)
    # Where runs train, what their reports show and how many rows are listed may change.
    settings = {
        "format": _FORMAT,
        "folds": options.folds,
        "quick": options.quick,
        "recipe": recipe.model_dump(mode="json", exclude=OF_NO_LEARNING),
        # Left out without recipients: audits that began before there were any have no such key.
        **({"encrypt_to": list(options.keys.recipients)} if options.keys.recipients else {}),
    }
    if not claimed.is_begun:
        if resume:
            raise RunDirError(f"{uri} holds no audit to resume", todo="check --out, or leave --resume out")
        write_json(uri, SETTINGS, settings)
        return
    if not resume:
        raise RunDirError(
            f"{uri} holds an audit that was interrupted", todo="--resume continues it; or name a new --out"
        )
    if (begun := read_json(uri, SETTINGS)) != settings:
        raise RunDirError(
            f"{uri} holds another audit: {difference(begun, settings)}",
            todo="--resume with the same arguments continues it; or name a new --out",
        )


def of_fold(recipe: Recipe, number: int, folds: int) -> Recipe:
    """The recipe of the run that holds a fold out, from 1."""
    return recipe.model_copy(update={"split": recipe.split.model_copy(update={"fold": f"{number}/{folds}"})})


def train_folds(recipe: Recipe, uri: str, options: AuditOptions, at_once: int, *, say: Say, verbose: bool) -> None:
    """Trains a run for each fold, except those that are finished.

    Args:
        recipe: the resolved recipe, with the `scale` of one run.
        uri: of the claimed directory.
        options: how to audit.
        at_once: how many runs train side by side.
        say: shows one line to the user.
        verbose: show Ray's own log lines as well.
    """
    recipes = {number: of_fold(recipe, number, options.folds) for number in range(1, options.folds + 1)}
    directories = {number: fold_directory(uri, number) for number in recipes}
    waiting = [n for n in recipes if not storage.exists(storage.join(directories[n], "bundle", MANIFEST))]
    for number in [n for n in recipes if n not in waiting]:
        say(f"fold {number} of {options.folds}: finished before")
    if at_once > 1 and len(waiting) > 1:
        say(f"training {min(at_once, len(waiting))} of {options.folds} folds at once")
        work = TrainFold(own_address(), recipes, directories, options.keys, verbose)
        run_side_by_side(work, waiting, at_once, say, verbose=verbose)
        return
    for number in waiting:
        say(f"fold {number} of {options.folds}")
        begun = storage.exists(storage.join(directories[number], IDENTITY))
        train(recipes[number], directories[number], resume=begun, say=say, verbose=verbose, keys=options.keys)


def _processes() -> int:
    """How many processes of runs the memory of this machine may be divided among."""
    return max(1, int(_SHARE_OF_PROCESSES * memory_bytes()) // _PROCESS_BYTES)


def fold_directory(uri: str, number: int) -> str:
    """URI of the run of a fold, from 1."""
    return storage.join(uri, FOLDS, str(number))


def _read(recipe: Recipe, options: AuditOptions, say: Say) -> ReadRows:
    """The rows of a recipe.

    Raises:
        InputError: they cannot be used, or are too many for the memory of this machine.
    """
    task, files = task_of(recipe.data), expand(recipe.data.csv)
    decisions = read_decisions(recipe.data, task, options.keys)
    exclusion, group_by = read_exclusion(recipe.data, recipe.text), recipe.split.group_by
    read = read_rows(
        files, recipe.data, recipe.text, task=task, group_by=group_by, decisions=decisions, exclusion=exclusion
    )
    decided = rows_decided(decisions, read.summary.decided)
    for line in (*messages.read_lines(read), *messages.decision_lines(decided)):
        say(line)
    messages.check_rows(read, listed=False)
    refuse_unmet(decisions, read.summary.decided, read.summary.labels, read.data, task)
    config = read_config(find_model(recipe.model).directory)
    width = int(config.get("hidden_size") or config.get("dim") or _WIDEST)
    refuse_too_large(read.summary.rows, text_bytes(read), width, len(read.labels), memory_bytes())
    return read


def _judged(recipe: Recipe, uri: str, options: AuditOptions, say: Say) -> dict[str, Any]:
    read = _read(recipe, options, say)
    folds = [held_out(read, of_fold(recipe, n, options.folds), n) for n in range(1, options.folds + 1)]
    embedder = Embedder.of_pretrained(
        find_model(recipe.model).directory, recipe.text, pairs=recipe.data.pair is not None
    )
    near = embedded(folds, embedder, say)
    scored = None if options.quick else [one for fold in folds for one in _by_bundle(fold, uri, read, recipe, say)]
    rows = judged(near, scored, read.task, read.labels, recipe.text, say)
    say("  comparing embeddings")
    worth = row_values(near.row_id, near.embeddings, read.task.baseline_targets(near.targets), near.fold)
    rows = ranked(rows.with_values(near.row_id, worth.value))
    listed = rows.take(np.arange(min(len(rows), options.rows or _rows_listed(len(rows)))))
    say("  comparing texts")
    split = split_rows(read, recipe.split, max_tokens=recipe.text.max_tokens)
    in_test = [row for table in split.blocks["test"] for row in ray.get(table)["row_id"].to_pylist()]
    copies = nearly_same(near, rows, recipe.text, in_test)
    found = sheet_rows(listed, rows, near, copies, split.conflict_tables, read, recipe.text)
    names = read.data.pair or ("text",)
    content = sheet(found, encoding=options.encoding, inputs=names)
    encryption.write_bytes(storage.join(uri, options.keys.name(SHEET)), content, options.keys.recipients)
    across = copies.across
    _write_rows(uri, rows, read, across)
    summary = _summary(rows, folds, split, options) | {
        "near_duplicates": _counted(copies) | {"test_rows": len(in_test), "test_rows_outside_test": len(across)},
        "values": worth.summary(),
        "listed": len(listed),
        "files": read.files,
    }
    write_json(uri, SUMMARY, summary)
    return summary


def _by_bundle(fold: HeldOut, uri: str, read: ReadRows, recipe: Recipe, say: Say) -> list[ScoredRows]:
    bundle = load_bundle(storage.join(fold_directory(uri, fold.number), "bundle"))
    if bundle.manifest.data_fingerprint != read.fingerprint:
        raise RunDirError(
            f"the CSV files, or those of data.exclude, are not those of {fold_directory(uri, fold.number)}",
            todo="restore them and --resume, or name a new --out",
        )
    return scored_by_bundle(fold, bundle, recipe.scale, say)


def _rows_listed(rows: int) -> int:
    return max(_FEWEST_ROWS, min(int(rows * _ROWS_SHARE), _MOST_ROWS))


def _write_rows(uri: str, rows: AuditedRows, read: ReadRows, across: Mapping[int, int]) -> None:
    """Writes audit.parquet: every audited row by rank, without its text; `across` is that of `Copies`."""
    outside = [read.location(across[row]) if row in across else None for row in rows.row_id.tolist()]
    places = [file_and_line(row_id) for row_id in rows.row_id.tolist()]
    table = pa.table(
        {
            "rank": pa.array(np.arange(1, len(rows) + 1)),
            "file": [read.files[file] for file, _ in places],
            "line": [line for _, line in places],
            "label": pa.array(rows.label.tolist(), pa.string()),
            "suggested": pa.array(rows.suggested.tolist(), pa.string()),
            **{name: getattr(rows, name) for name in NUMBERS},
            "suspect": suspect(rows),
            "fold": rows.fold,
            "nearly_same_outside_test": pa.array(outside, pa.string()),
        }
    )
    with storage.written_whole(storage.join(uri, "audit.parquet")) as file, pq.ParquetWriter(file, table.schema) as out:
        out.write_table(table)


def _counted(copies: Copies) -> dict[str, int]:
    """How many rows have a near-duplicate, and how many have one with another label."""
    return {
        "rows": int((copies.number > 0).sum()),
        "with_another_label": int(copies.with_another_label.sum()),
    }


def _summary(rows: AuditedRows, folds: list[HeldOut], split: PreparedData, options: AuditOptions) -> dict[str, Any]:
    """The content of audit.json that the verdicts and the split give."""
    account = split.account
    duplicates, rejects = account.outcomes["duplicates"], account.outcomes["rejects"]
    suspects, audited = int(suspect(rows).sum()), len(rows)
    return {
        "format": _FORMAT,
        "quick": options.quick,
        "folds": [fold.account.outcomes["test"] for fold in folds],
        "rows": {
            "read": account.read,
            "audited": audited,
            # Their label has no other row, or the model could not read them.
            "not_audited": account.read - audited - duplicates - rejects,
            "duplicates": duplicates,
            "rejects": rejects,
        },
        "suggested_differs": int(rows.differs.sum()),
        "agreement": agreement(rows),
        "suspect": {"rows": suspects, "share": suspects / max(audited, 1)},
        "texts_with_several_labels": split.conflicts[0],
        "confused_labels": confused_pairs(rows, split.task),
    }
