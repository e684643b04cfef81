"""Text encoders: texts to rows in the space of an extractor of images."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lightning_synthqual.extractors.base import FrozenNetwork, Identity

_BATCH = 1024  # texts whose tokens are made at once


class TextEncoder(FrozenNetwork):
    """A frozen network that embeds texts beside images.

    Args:
        network: Module from tokens (N, L) to embeddings (N, D).
        identity: Identity of the network.
        tokenize: Function from texts to tokens (N, L); texts that are too long are cut off. Its ``encode(text)``, if it
            has one, gives the tokens of one text but for its start and end, however many.
    """

    def __init__(self, network: nn.Module, identity: Identity, tokenize: Callable[[list[str]], Tensor]) -> None:
        super().__init__(network, identity)
        self._tokenize = tokenize

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """The embeddings of texts: float32 (N, D), on the CPU; N >= 1."""
        rows: list[Tensor] = []
        for start in range(0, len(texts), _BATCH):
            tokens = self._tokenize(list(texts[start : start + _BATCH])).to(self.device)
            rows += [result.float().cpu() for result in self._in_batches(tokens)]
        return torch.cat(rows)

    def is_truncated(self, text: str) -> bool:
        """Whether a text is longer than what is read of it; ``False`` where the tokens do not tell."""
        encode = getattr(self._tokenize, "encode", None)
        length = getattr(self._tokenize, "context_length", None)
        return encode is not None and length is not None and len(encode(text)) + 2 > length
