"""Texts to rows in the space of an extractor of images: the networks, and the texts of inputs on all processes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_synthqual.distributed import Ranks
from lightning_synthqual.extractors.base import FrozenNetwork, Identity
from lightning_synthqual.images.inputs import Inputs

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


class InputTexts:
    """The texts of inputs, and their embeddings, which are made once in a run: they do not change.

    Args:
        inputs: The inputs.
        ranks: The processes.
        load: Function from the name of an extractor to its text network.
        once: Function ``(key, compute) -> result`` that computes what has not been computed before.
    """

    def __init__(
        self,
        inputs: Inputs,
        ranks: Ranks,
        load: Callable[[str], TextEncoder],
        once: Callable[[Any, Callable[[], Any]], Any],
    ) -> None:
        self._inputs = inputs
        self._ranks = ranks
        self._load = load
        self._once = once

    def pick(self, indices: Sequence[int]) -> list[str]:
        """Any texts."""
        texts = self._inputs.texts()
        return [texts[index] for index in indices]

    def features(self, extractor: str) -> Tensor:
        """Embeddings (M, D) of all texts, on the CPU; every process calls this."""
        return self._embedded(extractor)[0]

    def truncated(self, extractor: str) -> int:
        """How many texts are longer than the extractor's text network reads."""
        return self._embedded(extractor)[1]

    def _embedded(self, extractor: str) -> tuple[Tensor, int]:
        found: tuple[Tensor, int] = self._once(("texts", extractor), lambda: self._embed(extractor))
        return found

    def _embed(self, extractor: str) -> tuple[Tensor, int]:
        """Embed each text once, on the process whose turn it is; the network is gone afterwards."""
        ranks, encoder, texts = self._ranks, self._load(extractor), self._inputs.texts()
        unique = list(dict.fromkeys(texts))
        own = list(range(ranks.rank, len(unique), ranks.world_size))
        rows = encoder([unique[place] for place in own]) if own else None
        rows = ranks.gather_rows(rows, own, len(unique), torch.device("cpu"))
        places = {text: place for place, text in enumerate(unique)}
        long = {text for text in unique if encoder.is_truncated(text)}
        return rows[[places[text] for text in texts]], sum(text in long for text in texts)
