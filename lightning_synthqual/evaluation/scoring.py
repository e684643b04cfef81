"""Features to numbers: every metric that was asked for, with errors, floors and gaps."""

from math import isfinite

from torch import Tensor

from lightning_synthqual.evaluation.checks import check_comparable, names
from lightning_synthqual.evaluation.context import Context
from lightning_synthqual.evaluation.extraction import Extracted
from lightning_synthqual.evaluation.networks import Networks
from lightning_synthqual.evaluation.reference import Reference, compared_rows
from lightning_synthqual.metrics.families import Family, Scores
from lightning_synthqual.metrics.features import check_features
from lightning_synthqual.metrics.names import COMPANIONS, Metric

Found = dict[tuple[str, str], Scores]


class Scoring:
    """Scores generated features against a reference, each process doing its share of the arithmetic.

    Args:
        context: What every part of an evaluation knows.
        networks: The networks.
        reference: What to compare with.
    """

    def __init__(self, context: Context, networks: Networks, reference: Reference) -> None:
        self._context = context
        self._networks = networks
        self._reference = reference

    def score(self, generated: Extracted, known: dict[str, float]) -> tuple[dict[str, float], Found]:
        """The scalars, the same on every process, and all that each (family, extractor) found.

        Args:
            generated: The generated features.
            known: Scalars that are known already.
        """
        context, values, found = self._context, dict(known), Found()
        groups = context.settings.groups
        with context.progress.stage("scoring", len(groups)) as advance:
            for family, extractor, metrics in groups:
                scores = found[family.name, extractor] = self._family(family, extractor, metrics, generated)
                for metric in metrics:
                    for suffix in ("", *COMPANIONS):
                        if metric.entry.value + suffix in scores:
                            values[metric.name + suffix] = float(scores[metric.entry.value + suffix])
                advance(1)
        order = [metric.name + suffix for metric in context.settings.resolved for suffix in ("", *COMPANIONS)]
        undefined = [name for name, value in values.items() if not isfinite(value)]
        if undefined:
            context.warn(f"{', '.join(undefined)} came out undefined and is left out.")
        # Rank 0's digits for everyone: the last of them may differ between kinds of hardware, and decisions hang on it.
        scalars: dict[str, float] = context.ranks.gather_objects(
            {name: values[name] for name in order if name in values and name not in undefined}
        )[0]
        return scalars, found

    def _family(self, family: Family, extractor: str, metrics: list[Metric], generated: Extracted) -> Scores:
        """Everything a family finds in the features of one extractor."""
        context, networks, reference = self._context, self._networks, self._reference
        outputs = generated.features[extractor]
        check_comparable(extractor, networks.extractors[extractor], reference.features[extractor], outputs)
        role, features, other = reference.protocol["role"], reference.features, reference.counterpart
        real = compared_rows(family, extractor, networks, role, features, other)
        fake = check_features(outputs[networks.output(family, extractor)], "generated")
        state, options = reference.states[family.name, extractor], context.settings.options_of(family)
        found = family.score(real, state, fake, options, context.share)
        return found | self._floors_and_gaps(family, extractor, metrics, fake)

    def _floors_and_gaps(self, family: Family, extractor: str, metrics: list[Metric], fake: Tensor) -> Scores:
        """What the other real set says, where there is one."""
        context, reference = self._context, self._reference
        other = reference.counterpart
        if other is None:
            return {}
        options = context.settings.options_of(family)
        real, rows = (
            self._networks.rows(features, family, extractor) for features in (reference.features, other.features)
        )
        state = reference.states[family.name, extractor]
        found: dict[str, Scores | str] = {}
        if family.floor is not None:
            found["_floor"] = other.floor(family, extractor, options, real, state, rows, len(fake), context.share)
        if family.gap:
            found["_gap"] = other.gap(family, extractor, options, real, rows, fake, context.share)
        beside: Scores = {}
        for suffix, values in found.items():
            if isinstance(values, str):
                context.warn(f"{', '.join(metric.name + suffix for metric in metrics)} is left out: {values}.")
            else:
                beside |= {value + suffix: values[value] for value in {metric.entry.value for metric in metrics}}
        return beside


def check_protocols(context: Context, reference: Reference, generated: int) -> None:
    """Raise if the numbers of images are not those of a published protocol whose name was asked for.

    Raises:
        ValueError: It says what the protocol demands.
    """
    if context.settings.trial:
        return
    for family, _, metrics in context.settings.groups:
        if family.protocol is None:
            continue
        fault = family.protocol.fault(generated, reference.count, reference.protocol["role"], reference.complete)
        if fault is not None:
            raise ValueError(f"{names(metrics)} is a published protocol, which {fault}.")
