"""How well generated images fit the texts that they were made of: CLIPScore."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.nn.functional import cosine_similarity

from lightning_synthqual.metrics.base import Influence, Metric, Score
from lightning_synthqual.metrics.figures import ImageRef, ImageSheet, SheetCell, SheetRow
from lightning_synthqual.metrics.views import Generated, SetView

_SHOWN = 4  # images that fit best, and worst
_LETTERS = 28  # of a text below an image


def clip_scores(images: Tensor, texts: Tensor) -> Tensor:
    """CLIPScore of each image with its text (Hessel et al. 2021, arXiv:2104.08718), scaled to at most 100.

    100 times the cosine of the two embeddings, and 0 where that is negative. The mean over a set agrees with
    torchmetrics', which takes the mean first, unless some cosines are negative.

    Args:
        images: Embeddings of images (N, D).
        texts: Embeddings of their texts (N, D).

    Returns:
        float64 tensor (N,).

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import torch
        >>> clip_scores(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[3.0, 4.0], [-1.0, 0.0]])).tolist()
        [60.0, 0.0]
    """
    if images.shape != texts.shape or images.ndim != 2:
        raise ValueError(
            f"Embeddings of images and of texts must have the same shape (N, D), but got {tuple(images.shape)} and "
            f"{tuple(texts.shape)}."
        )
    return 100 * cosine_similarity(images.double(), texts.double().to(images.device)).clamp(min=0)


class ClipScore(Metric):
    """The mean CLIPScore of generated images and their texts, with the images that fit theirs best and worst."""

    family = "clip_score"
    direction = "max"
    reads_real = False
    reads_texts = True
    generated_images = "all"  # those that are shown

    def describe(self, generated: SetView) -> dict[str, Any]:
        """How many texts were longer than the network reads."""
        texts = getattr(generated, "texts", None)
        truncated = 0 if texts is None else texts.truncated(str(self.extractor))
        return {**super().describe(generated), "truncated_texts": truncated}

    def try_out(self, generated: Generated, real_size: tuple[int, int] | None) -> Iterator[str]:
        """Embed the texts, and say how many are too long."""
        self._values(generated)
        assert generated.texts is not None
        truncated = generated.texts.truncated(str(self.extractor))
        if truncated:
            yield (
                f"{self.name}: {truncated} of the texts of `inputs` are longer than the text network of "
                f"{self.extractor!r} reads, and are cut off there, as open_clip does it."
            )

    def score_set(self, state: Any, generated: Generated) -> Score:
        """The mean over generated images."""
        values = self._values(generated).cpu()
        mean = values.mean()
        influence = Influence(mean, values - mean, mean.new_zeros(0))
        return Score(mean, influence=influence, figures={f"{self.name}_texts": self._sheet(values, generated)})

    def _values(self, generated: Generated) -> Tensor:
        assert generated.texts is not None
        rows = self.rows(generated)
        return clip_scores(rows, generated.texts.features(str(self.extractor))[: len(rows)])

    def _sheet(self, values: Tensor, generated: Generated) -> ImageSheet:
        """The images that fit their texts best and worst."""
        assert generated.texts is not None
        order = values.argsort(descending=True, stable=True).tolist()
        count = min(_SHOWN, len(order) // 2)
        rows = []
        for label, places in {"best": order[:count], "worst": order[-count:]}.items():
            words = generated.texts.pick(places)
            cells = (
                SheetCell((ImageRef("generated", place),), f"{_shortened(text)}: {values[place]:.3g}")
                for place, text in zip(places, words, strict=True)
            )
            rows.append(SheetRow(label, tuple(cells)))
        return ImageSheet(tuple(rows), title=self.name)


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"
