"""Inputs -> embeddings: one vector for each input, near to each other where the inputs say similar things.

In: a bundle or a pretrained model, and inputs. Out: float32 [N, E], the mean of the encoder's output over the tokens of
each input (Reimers and Gurevych 2019, "mean pooling"). Not here: scores (classifier.py), what embeddings are compared
for (audit/, batch/).

Shapes: N inputs, W windows of all of them, E hidden size.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch

from textcls.bundle import Bundle
from textcls.errors import ModelError
from textcls.inference.classifier import PaddedModel
from textcls.inference.encoding import InputEncoder
from textcls.modeling.build import build_model
from textcls.modeling.cpu_scoring import RaggedMeans
from textcls.modeling.precision import uses_bf16
from textcls.modeling.pretrained import has_token_types, most_tokens, read_config
from textcls.settings.recipe import ModelSpec, TextSpec
from textcls.text.text_input import TextInput
from textcls.text.tokenizer_files import TokenizerFiles, prepare_tokenizer, read_tokenizer_config
from textcls.text.windows import mean_over_windows


class Embedder:
    """An encoder, loaded and ready: `embedder(inputs)` gives float32 [N, E]. Thread-safe.

    An input has the same embedding alone and in any batch (1e-5 in fp32). `Embedder.of_bundle(load_bundle(uri))` is the
    fine-tuned encoder, `Embedder.of_pretrained(find_model(recipe.model).directory, recipe.text, pairs=...)` the
    pretrained one of a recipe, before any training.

    Attributes:
        device: "cpu" or "cuda:0".
        width: E.
    """

    def __init__(self, model: RaggedMeans | PaddedModel, encoder: InputEncoder, device: torch.device) -> None:
        self.device = str(device)
        self._model, self._encoder = model, encoder
        self.width: int = self._means([encoder.tokenizer.sample(encoder.max_tokens)], None).shape[1]

    @classmethod
    def of_bundle(
        cls, bundle: Bundle, *, device: str = "auto", precision: str = "fp32", threads: int | None = None
    ) -> Self:
        """The encoder of a verified bundle; arguments as of `Classifier.of`.

        Raises:
            ModelError: transformers cannot load its model.
        """
        manifest = bundle.manifest
        return cls._of(
            bundle.directory,
            manifest.labels,
            TokenizerFiles.load(bundle.directory),
            manifest.text.on_long,
            name=bundle.uri,
            pairs=manifest.pairs,
            device=device,
            precision=precision,
            threads=threads,
        )

    @classmethod
    def of_pretrained(
        cls,
        directory: str,
        text: TextSpec,
        *,
        pairs: bool,
        device: str = "auto",
        precision: str = "fp32",
        threads: int | None = None,
    ) -> Self:
        """The encoder of a pretrained model, which reads inputs as training with these settings would.

        Args:
            directory: the model's local directory, from `find_model`.
            text: text settings. Where `on_long` is `error` a longer text is truncated, as in training.
            pairs: whether inputs are pairs of texts (`data.pair`).
            device: as of `Classifier.of`.
            precision: of the matrix products: "fp32", "bf16", or "auto" for bf16 where the hardware multiplies it.
            threads: as of `Classifier.of`.

        Raises:
            ModelError: transformers cannot load the model, or it does not take `text.max_tokens` tokens.
        """
        config = read_config(directory)
        tokenizer = prepare_tokenizer(directory, text, token_types=pairs and has_token_types(config))
        return cls._of(
            directory,
            ("a", "b"),  # of a head that is not used
            tokenizer,
            "windows" if text.on_long == "windows" else "truncate",
            name=directory,
            pairs=pairs,
            device=device,
            precision=precision,
            threads=threads,
        )

    @classmethod
    def _of(
        cls,
        directory: str,
        labels: Sequence[str],
        tokenizer: TokenizerFiles,
        on_long: str,
        *,
        name: str,
        pairs: bool,
        device: str,
        precision: str,
        threads: int | None,
    ) -> Self:
        if threads is not None:
            torch.set_num_threads(threads)
        where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        bf16 = uses_bf16(precision, where)
        model = build_model(
            directory,
            labels,
            ModelSpec(pretrained=name),
            problem_type=None,
            pad_id=tokenizer.pad_id,
            seed=0,
            new_ids=tokenizer.new_ids,
        ).eval()
        ragged = RaggedMeans.of(model, bf16=bf16) if where.type == "cpu" else None
        fastest = ragged or PaddedModel(model.to(where), tokenizer.pad_id, where, bf16=bf16)
        try:
            return cls(fastest, InputEncoder(tokenizer, on_long=on_long, pairs=pairs), where)
        except (IndexError, RuntimeError) as error:
            asked, most = tokenizer.max_tokens, most_tokens(read_config(directory), read_tokenizer_config(directory))
            raise ModelError(
                f"{name}: it cannot embed a text of {asked} tokens: {error}",
                expected="text.max_tokens within the positions of the model",
                todo=f"--set text.max_tokens={most if most and most < asked else asked // 2}",
            ) from error

    def __call__(self, inputs: Sequence[TextInput | str]) -> np.ndarray:
        """float32 [N, E], in the order given; a row of NaN for an input that has no word or cannot be read.

        The embedding of a long text in windows is the mean over the tokens of all windows.

        Args:
            inputs: a plain string stands for the `TextInput` of one text.
        """
        encoded = self._encoder(inputs)
        windows = [ids for one in encoded for ids in one.windows]
        seconds = [one.second for one in encoded if one.windows and one.second is not None]
        lengths_W = np.fromiter(map(len, windows), np.int64, len(windows))
        windows_N = np.fromiter((len(one.windows) for one in encoded), np.int64, len(encoded))
        means_WE = self._means(windows, np.array(seconds) if seconds else None)
        return mean_over_windows(means_WE, lengths_W, windows_N).astype(np.float32)

    def _means(self, windows: Sequence[Sequence[int]], seconds_W: np.ndarray | None) -> np.ndarray:
        if not windows:
            return np.empty((0, self.width), np.float32)
        with torch.inference_mode():
            means_WE: np.ndarray = self._model.means(windows, seconds_W).cpu().numpy()
        return means_WE
