"""What Atlas starts from before training, beyond random weights.

Three things are set by hand; training is free to undo any of them.

1. The position table holds sinusoids in the first half of its coordinates, nothing elsewhere.
2. Every head copies what it attends to.
3. Head 0 of layer 1 attends to the previous token and writes it down; head 0 of layer 2 looks
   for positions where the token written down is its own: an induction circuit.
"""

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

FASTEST, SLOWEST = 2.0, 0.05  # radians a position
COPY = 0.2  # W_O of a head, in units of W_V transposed
PREVIOUS = 2.0  # query and key weights of the previous-token head
WRITTEN = 1.0  # how strongly it writes the previous token down
FOUND = 8.0  # how strongly the induction head copies what it finds
MATCH = 3.0  # query and key weights of the induction head


def start_by_hand(model: GPT2LMHeadModel, position_scale: float) -> None:
    """Set all three, in place."""
    start_positions(model, position_scale)
    start_copying(model)
    start_previous_token_head(model)
    start_induction_head(model)


def sinusoid_rates(count: int) -> Tensor:
    """[count]: radians a position, from the fastest down in a geometric row."""
    return FASTEST * (SLOWEST / FASTEST) ** (torch.arange(count) / count)


def start_positions(model: GPT2LMHeadModel, scale: float) -> None:
    """Sines in the first quarter of the coordinates, cosines in the second, then zeros."""
    table = model.transformer.wpe.weight
    quarter = table.shape[1] // 4
    angles = torch.arange(table.shape[0])[:, None] * sinusoid_rates(quarter)
    table.data.zero_()
    table.data[:, : 2 * quarter] = scale * torch.cat([angles.sin(), angles.cos()], dim=1)


def start_copying(model: GPT2LMHeadModel) -> None:
    """W_O of every head is its W_V transposed, up to scale."""
    width = model.config.n_embd
    for block in model.transformer.h:
        values = block.attn.c_attn.weight.data[:, 2 * width :]
        block.attn.c_proj.weight.data.copy_(COPY * values.T)


def start_previous_token_head(model: GPT2LMHeadModel) -> None:
    """Layer 1, head 0: look one position back, write the third quarter into the fourth.

    Keys read (sin, cos) of a position at half of the rates, queries the same turned back by
    one position: their product is largest one position back. Nothing else in layer 1 writes
    to the second half of the coordinates.
    """
    width, quarter = model.config.n_embd, model.config.n_embd // 4
    attention = model.transformer.h[0].attn
    weight = attention.c_attn.weight.data
    for first in (0, width, 2 * width):
        weight[:, first : first + quarter] = 0
    rates = sinusoid_rates(quarter)
    for pair, index in enumerate(range(0, quarter, 2)):
        sine, cosine, query, key = index, quarter + index, 2 * pair, width + 2 * pair
        turn_sin, turn_cos = PREVIOUS * rates[index].sin(), PREVIOUS * rates[index].cos()
        weight[sine, key] = weight[cosine, key + 1] = PREVIOUS
        weight[sine, query] = weight[cosine, query + 1] = turn_cos
        weight[cosine, query], weight[sine, query + 1] = -turn_sin, turn_sin
    third, fourth = slice(2 * quarter, 3 * quarter), slice(3 * quarter, 4 * quarter)
    weight[third, 2 * width : 2 * width + quarter] = torch.eye(quarter)
    attention.c_proj.weight.data[:, 2 * quarter :] = 0
    attention.c_proj.weight.data[:quarter] = 0
    model.transformer.h[0].mlp.c_proj.weight.data[:, 2 * quarter :] = 0
    attention.c_proj.weight.data[:quarter, fourth] = WRITTEN * torch.eye(quarter)


def start_induction_head(model: GPT2LMHeadModel) -> None:
    """Layer 2, head 0: match the own token (third quarter) with those written down (fourth).

    It copies the third quarter of what it finds.
    """
    width, quarter = model.config.n_embd, model.config.n_embd // 4
    attention = model.transformer.h[1].attn
    weight = attention.c_attn.weight.data
    third, fourth = slice(2 * quarter, 3 * quarter), slice(3 * quarter, 4 * quarter)
    for first, source, scale in ((0, third, MATCH), (width, fourth, MATCH), (2 * width, third, 1)):
        weight[:, first : first + quarter] = 0
        weight[source, first : first + quarter] = scale * torch.eye(quarter)
    attention.c_proj.weight.data[:quarter] = 0
    attention.c_proj.weight.data[:quarter, third] = FOUND * torch.eye(quarter)
