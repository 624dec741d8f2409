"""Which kinds of personal data a text holds, found while it is normalized anyway.

In: text settings; texts. Out: normalized texts, and the kinds whose placeholders are in them. Not here: masking
(mask_steps.py), counting rows (data/rows.py).
"""

from textcls.settings.recipe import TextSpec
from textcls.text.masks import mask_kinds
from textcls.text.normalizer import normalizer_of


class HeldKinds:
    """Callable: as `normalizer_of` gives it; keeps the kinds that were masked until they are taken.

    A placeholder that was in the text before counts as well: it stands for what was masked earlier.

    Args:
        spec: text settings.
    """

    def __init__(self, spec: TextSpec) -> None:
        self._normalize = normalizer_of(spec)
        self._kinds = [(kind.name, self._normalize(kind.placeholder)) for kind in mask_kinds(spec)]
        self._held: set[str] = set()

    def __call__(self, text: str) -> str:
        """The normalized text."""
        normalized = self._normalize(text)
        if self._kinds and "[" in normalized:
            self._held.update(name for name, placeholder in self._kinds if placeholder in normalized)
        return normalized

    def taken(self) -> set[str]:
        """The kinds in all texts since the last call."""
        held, self._held = self._held, set()
        return held
