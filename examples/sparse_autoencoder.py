"""Are an SAE's latents better units than neurons? A top-k SAE of Atlas, fitted here in seconds.

The SAE is fitted on sentences of Atlas' own generator, under another seed, and saved as a folder that
SAELens reads too. Then both are probed for the same features, beside dense probes.

Run it: python examples/sparse_autoencoder.py
"""

from itertools import islice

import workbench as wb
from probes import SparseAutoencoderFit, SparseProbe
from probes.sparse.makers import atlas_facts
from workbench.atlas.corpus import sentences

LAYER = 4
FEATURES = ("relation=language", "entity=landmark")


def main() -> None:
    model = wb.load()
    texts = list(dict.fromkeys(sentence.text for sentence in islice(sentences(seed=7), 600)))

    # So few steps want a larger rate than the authors'.
    fit = SparseAutoencoderFit(
        layer=LAYER, latents=256, k=8, steps=50, tokens=512, rate=1e-2, dead_after=4000
    )
    sae = fit(model, texts)
    sae.save("atlas_sae")  # workbench run sparse_probe --set sae=atlas_sae ...
    print(sae.summary())

    probe = SparseProbe(k=[1, 8], features=FEATURES, sae="atlas_sae", layers=LAYER, dense=True)
    found = probe(model, atlas_facts())
    print(f"{'feature':18} {'units':16} k   F1 (95% interval)      p  dense  strongest")
    for row in sorted(found.rows(), key=lambda row: (row["feature"], row["k"], row["site"])):
        print(
            f"{row['feature']:18} {row['site']:16} {row['k']} {row['f1']:.2f} ({row['f1_low']:.2f} to "
            f"{row['f1_high']:.2f}) {row['p']:8.3f} {row['dense_f1']:6.2f}  {row['units'][:3]}"
        )
    found.plot().write_html("sparse_autoencoder.html")
    print("figure: sparse_autoencoder.html")


if __name__ == "__main__":
    main()
