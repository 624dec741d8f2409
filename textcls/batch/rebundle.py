"""Bundle + other settings of use + labelled CSV files -> a bundle of the same model, with metrics of its own.

In: a verified bundle, its text settings with a change that needs no training, an --out. Out: OUT/bundle, and the report
and the account of rows as an evaluation writes them. Not here: which settings may change (settings.py), scoring the
rows (evaluate.py).

Temperature and thresholds stay those that were fitted with the old setting.
"""

import tempfile
from collections.abc import Callable

from textcls import storage
from textcls.batch.evaluate import EVALUATION, measured, write_report
from textcls.batch.settings import EvaluateSpec
from textcls.bundle import MANIFEST, Bundle, make_linked_bundle, stated_metrics
from textcls.data.input_files import expand
from textcls.data.masked_messages import masked_messages
from textcls.directories import put_directory
from textcls.encryption import NO_KEYS, Keys
from textcls.manifest import Origin
from textcls.output.claim import OutKind, claim
from textcls.output.lock import locked
from textcls.reporting.report import Report, ScoredBundle
from textcls.settings.recipe import TextSpec

Say = Callable[[str], None]

# An upload that was interrupted leaves a bundle without a manifest.
_REBUNDLING = OutKind(
    name="bundle",
    finished_name="a finished bundle",
    last_file=f"bundle/{MANIFEST}",
    replaceable=EVALUATION.replaceable | {EVALUATION.last_file, "bundle"},
)


def rebundle(
    bundle: Bundle,
    text: TextSpec,
    spec: EvaluateSpec,
    out: str,
    *,
    keys: Keys = NO_KEYS,
    say: Say,
    verbose: bool = False,
) -> Report:
    """Writes the bundle with other text settings to OUT/bundle; returns the report of its evaluation.

    Args:
        bundle: a verified bundle.
        text: from `changed_text`.
        spec: from `evaluate_settings`.
        out: URI of a new directory.
        keys: the recipients, if files that hold texts are to be encrypted; the bundle stays plain.
        say: shows the user one line.
        verbose: show Ray's own log lines as well.

    Raises:
        TextclsError: see `evaluate`; no bundle is left behind.
    """
    files, used = expand(spec.data.csv), bundle.manifest.text
    changed = {
        f"text.{name}": value
        for name, value in used.model_dump(mode="json").items()
        if value != text.model_dump(mode="json")[name]
    }
    new = bundle.with_text(text)
    places = [out, bundle.uri, *(file.uri for file in files)]
    with masked_messages(text, say, places) as say, locked(out) as uri:
        claim(uri, _REBUNDLING)
        scores, report = measured(new, spec, files, uri, keys, say, verbose=verbose)
        origin = Origin(digest=bundle.digest, changed=changed, files=report.files)
        with tempfile.TemporaryDirectory(prefix="textcls-bundle-") as directory:
            digest = make_linked_bundle(new, directory, metrics=stated_metrics(scores), origin=origin)
            place = storage.join(uri, "bundle")
            report = report.model_copy(update={"bundle": ScoredBundle(uri=place, digest=digest)})
            write_report(report, uri, keys, say)
            # The last file: an --out with a bundle is finished.
            put_directory(directory, place, last=MANIFEST)
    return report
