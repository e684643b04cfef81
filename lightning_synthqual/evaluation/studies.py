"""What looks at pictures beside numbers: neighbours, pairs, and where the sets lie in feature space."""

from lightning_synthqual.evaluation import exhibits, pairs
from lightning_synthqual.evaluation.context import Context
from lightning_synthqual.evaluation.exhibits import Exhibits
from lightning_synthqual.evaluation.extraction import Extracted
from lightning_synthqual.evaluation.networks import Networks
from lightning_synthqual.evaluation.pictures import Pictures
from lightning_synthqual.evaluation.reference import Reference
from lightning_synthqual.evaluation.scoring import Found
from lightning_synthqual.metrics.names import Metric


class Studies:
    """The studies that were asked for, with what they need of the reference prepared once.

    Args:
        context: What every part of an evaluation knows.
        networks: The networks; those that compare pictures are loaded.
        reference: The real sets.

    Raises:
        FileNotFoundError: If weights are missing.
    """

    def __init__(self, context: Context, networks: Networks, reference: Reference) -> None:
        self._context = context
        self._networks = networks
        self._reference = reference
        self._pairs = {
            metric.name: self._of_pairs(metric) for metric in context.settings.studies if metric.entry.value == "pairs"
        }

    def check_sizes(self, real: list[int] | None, generated: list[int]) -> None:
        """Raise where pictures of these (height, width) cannot be compared.

        Raises:
            ValueError: It says what to do.
        """
        for study in self._pairs.values():
            study.check_sizes(real, generated)

    def exhibit(self, generated: Extracted, images: Pictures, found: Found) -> Exhibits:
        """Pictures and tables, which rank 0 draws, and the scalars of the study of pairs.

        Args:
            generated: Features of the generated images.
            images: The generated images.
            found: What the metric families found.
        """
        context, networks = self._context, self._networks
        options, draws, shown = context.settings.all_options, context.ranks.rank == 0, Exhibits()
        for (family, extractor), scores in found.items():
            if family == "memorization":
                sets = (images, *self._reference.pictures(context))
                ending = "" if extractor == "dreamsim" else f"_{extractor}"
                shown |= exhibits.neighbors(scores, options[family], *sets, ending=ending, draws=draws)
        for metric in context.settings.studies:
            extractor = str(metric.extractor)
            fake = {name: rows[networks.extractors[name].embedding] for name, rows in generated.features.items()}
            if metric.name in self._pairs:
                study = self._pairs[metric.name]
                shown |= study.compare(pairs.Side(images, fake), name=metric.name, draws=draws)
            elif draws:
                train, held_out = self._reference.embeddings(extractor, networks)
                rows = {"training": train, "held-out": held_out, "generated": fake[extractor]}
                shown |= exhibits.feature_space(rows, options["feature_space"], extractor, metric.name)
        return shown

    def _of_pairs(self, metric: Metric) -> pairs.Study:
        """The study of pairs whose neighbours are sought in one extractor's features."""
        context, networks = self._context, self._networks
        options = context.settings.options_of(metric.entry.family)
        similarities: dict[str, pairs.Similarity | None] = {
            name: None if name in networks.extractors else networks.similarity(name) for name in options["metrics"]
        }
        extractors = [name for name, similarity in similarities.items() if similarity is None] + [str(metric.extractor)]
        both = {name: self._reference.embeddings(name, networks) for name in extractors}
        train, held_out = (
            pairs.Side(pictures, {name: rows[place] for name, rows in both.items()})
            for place, pictures in enumerate(self._reference.pictures(context))
        )
        extractor = str(metric.extractor)
        return pairs.Study(train, held_out, extractor, similarities, options, context.ranks, context.device)
