"""Whoever runs the same Hugging Face model beside the workbench, in another thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

import workbench as wb
from tests.tiny import hf_model, tokenizer

PASSES = 100


@contextmanager
def bystander(hf: torch.nn.Module, ids: torch.Tensor) -> Iterator[list[bool]]:
    """Runs the model itself meanwhile; collects whether each of its passes was right."""
    with torch.no_grad():
        expected = hf(ids).logits
    right: list[bool] = []
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            with torch.no_grad():
                # Its mask may be the one of either attention, hence another rounding.
                right.append(torch.allclose(hf(ids).logits, expected, rtol=0, atol=1e-12))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield right
    finally:
        over.set()
        thread.join()


def test_neither_sees_the_others_passes() -> None:
    hooked = wb.load(hf_model("gpt2"), tokenizer())
    text, other = "The Eiffel Tower", hooked.batch("Rome").ids
    zero = wb.Edit.set(("mlp_out", 2), torch.zeros(hooked.d_model, dtype=torch.float64))
    states = hooked.capture(text, "resid_post").stack("resid_post")
    edited = hooked.intervene(text, [zero]).stack("logits")
    tail = hooked.tail(text, 2, states[2][None]).stack("logits")
    pattern = hooked.capture(text, [("pattern", 2)])["pattern", 2]
    with bystander(hooked.hf, other) as right:
        for _ in range(PASSES):
            assert hooked.capture(text, [("pattern", 2)])["pattern", 2].equal(pattern)
            assert hooked.capture(text, "resid_post").stack("resid_post").equal(states)
            assert hooked.intervene(text, [zero]).stack("logits").equal(edited)
            assert hooked.tail(text, 2, states[2][None]).stack("logits").equal(tail)
    assert right
    assert all(right)
