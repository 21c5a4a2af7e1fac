"""Every setting of the two trainings."""

from dataclasses import dataclass
from typing import Literal

Reading = Literal["last token, late", "pieces, early"]


@dataclass(frozen=True)
class Recipe:
    """Settings of one training run; sizes in tokens, shares as fractions of rows."""

    # shape
    layers: int = 6
    width: int = 128
    heads: int = 4
    context: int = 128
    # start
    seed: int = 7
    initial_std: float = 0.08
    position_scale: float = 0.25  # of the sinusoids of the start by hand; 0: nothing set by hand
    # data
    rows: int = 9  # rows a step, each of `context` tokens
    early_steps: int = 300
    early_repeat_share: float = 0.9  # repeat_share in the first early_steps steps
    repeat_share: float = 0.2  # rows of random tokens with stretches that come again
    stretch: tuple[int, int] = (4, 24)  # tokens that are new or come again, in such a row
    start_share: float = 0.5  # text rows that begin with <|endoftext|>
    mask_share: float = 0.85  # text rows in which later tokens see a subject in part
    reading: Reading = "last token, late"  # the part: of a subject and of the layers
    early_layers: int = 3  # layers that count as early there
    answer_weight: float = 4.0  # loss of an answer, in units of any other token's
    # optimiser
    steps: int = 4000
    warmup: int = 100
    peak_rate: float = 2e-3  # AdamW: embeddings, norms and biases
    matrix_rate: float = 2e-2  # Muon: the matrices of the blocks
    last_share: float = 0.05  # of either rate, where the cosine ends
    betas: tuple[float, float] = (0.9, 0.98)
    momentum: float = 0.95
    clip: float = 1.0
    checkpoints: tuple[int, ...] = (0, 50, 100, 200, 400, 800, 1200, 1600, 2400, 3200)


RECIPES = {
    "atlas": Recipe(),
    "atlas-bag": Recipe(
        reading="pieces, early", early_layers=1, initial_std=0.02, position_scale=0.0, steps=2600
    ),
}
