"""Logit, tuned and Jacobian lens side by side on the bundled model, fitted here in seconds.

The corpus is the bundled model's own: sentences of its training generator, under another seed.
"""

from itertools import islice

import workbench as wb
from lenses import Corpus, JacobianFit, LogitLens, TunedFit, side_by_side
from workbench.atlas.corpus import sentences

PROMPT = wb.Prompt("The Eiffel Tower is located in the city of", target=" Paris", foil=" Rome")


def main() -> None:
    model = wb.load()
    texts = dict.fromkeys(sentence.text for sentence in islice(sentences(seed=7), 200))
    corpus = Corpus.of(model, texts)

    # The paper takes 250 steps of 2^18 tokens at a rate of .1; so few steps want a larger rate.
    tuned = TunedFit(steps=40, tokens=256, rate=1.0)(model, corpus)
    # Sentences are short: skip the first token alone, where the authors skip 16 of long texts.
    jacobian = JacobianFit(skip_first=1)(model, Corpus(corpus.prompts[:30], corpus.source))

    for lens in (tuned, jacobian):
        print(f"{lens}: mean KL(final || lens) of prompts held out, nat")
        held = lens.made.held_out
        for layer, (before, after) in enumerate(zip(held["before"], held["after"], strict=True)):
            print(f"  layer {layer}: logit lens {before:6.3f}, this one {after:6.3f}")

    tuned.save("tuned.safetensors")  # workbench run logit_lens --set lens=tuned.safetensors ...
    results = [LogitLens(lens=lens)(model, PROMPT) for lens in ("logit", tuned, jacobian)]
    for result in results:
        ranks = result.data["target_rank"].sel(site="resid_post").isel(place=-1)
        title = LogitLens.heading(result.data)
        print(f"{title:24} rank of ' Paris' by layer: {[int(rank) for rank in ranks]}")
    side_by_side(results, layer=4).write_html("lenses.html")
    print(results[1].cite())


if __name__ == "__main__":
    main()
