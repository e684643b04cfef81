"""Published protocols: the numbers of images without which a published name is not to be used."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """The numbers of images of a published protocol.

    Args:
        num_samples: Number of generated images, neither more nor fewer.
        max_real: Number of real images if there are more, otherwise all of them; ``None``: all of them in any case.
        reads_real: Whether real images matter at all.
    """

    num_samples: int
    max_real: int | None = None
    reads_real: bool = True

    def check_generated(self, names: tuple[str, ...], generated: int) -> None:
        """Raise unless the number of generated images is the published one.

        Raises:
            ValueError: It names the metrics.
        """
        violation = self.violation(generated, self.max_real or 0, "real", complete=True)
        if violation is not None:
            raise ValueError(f"{', '.join(names)} is a published protocol, which {violation}.")

    def violation(self, generated: int, real: int, role: str, complete: bool) -> str | None:
        """What is not as published, as the end of a sentence, or ``None``.

        Args:
            generated: Number of generated images.
            real: Number of images of the reference.
            role: ``"real"`` or ``"held_out"``.
            complete: Whether they are all there are.
        """
        if generated != self.num_samples:
            return f"generates {self.num_samples} images, but got {generated}. Set `num_samples={self.num_samples}`"
        if not self.reads_real:
            return None
        if role != "real":
            return "compares with the training images. Set `reference='real'`"
        if self.max_real is None:
            return None if complete else f"takes all real images, but got {real} of them. Set `num_real=None`"
        if real > self.max_real or (real < self.max_real and not complete):
            return f"takes {self.max_real} real images, but got {real}. Set `num_real={self.max_real}`"
        return None
