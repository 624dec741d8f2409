"""Text -> token ids, defined once; training, batch jobs and HTTP all use this definition through the bundle.

In: a pretrained tokenizer and a `TextSpec`. Out: a tokenizer whose own files say everything (normalizer in
`tokenizer.json`, length limit in `tokenizer_config.json`), and token ids with the length before the cut.
Not here: padding (training/collate.py) and reading CSV (data/rows.py).
"""

import unicodedata

from textcls.recipe import TextSpec


def normalise(text: str, spec: TextSpec) -> str:
    """The text as rows are compared: equal results are duplicates and never straddle two splits.

    Unicode form and case as the tokenizer sees them, and each run of white space as one space, which no
    BERT-family tokenizer tells apart.
    """
    if spec.unicode_form != "none" and not text.isascii():
        text = unicodedata.normalize(spec.unicode_form, text)
    if spec.lowercase:
        text = text.lower()
    return " ".join(text.split())
