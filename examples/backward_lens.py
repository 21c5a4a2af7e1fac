"""What would one gradient step write into Atlas, and what of that is Atlas' own?

Prints, by layer, where the target stands in the shift of the MLPs' last maps at the last position, over
200 facts: as it is, without the skip path, and the same of a random target and of a twin that was
never trained.
"""

import numpy as np

import workbench as wb
from lenses import BackwardLens
from workbench.atlas import prompts_path

model = wb.load()
prompt = wb.Prompt("The Eiffel Tower is located in the city of", target=" Paris")
one = BackwardLens(positions="last")(model, prompt)
for row in reversed(one.rows()):
    kind = "imprint" if row["imprint"] else "shift"
    tokens = ", ".join(token for token, _ in row[kind][:4])
    print(f"layer {row['layer']} {row['map']}: {kind} {tokens}")

facts = wb.PromptSet.read(prompts_path("facts")).subset(range(200))
many = BackwardLens(maps=["ff2"], positions="last")(model, facts)
variants = many.data["variant"].values.tolist()
print("\nmedian rank of the target (of 2,176)")
print("layer " + "".join(f"{f'{v}: {w}':>22}" for w in ("shift", "rest") for v in variants))
for layer in many.data["layer"].values[::-1]:
    at = many.data.sel(map="ff2", layer=layer)
    cells = [
        "" if np.isnan(ranks).all() else f"{np.nanmedian(ranks):.0f}"
        for name in ("target_rank", "rest_rank")
        for ranks in at[name].values
    ]
    print(f"{layer:5} " + "".join(f"{cell:>22}" for cell in cells))
print(
    "\nThe shift puts the target first at every layer, but so it does for a random target and in a model "
    "that\nwas never trained: that is the skip path. In the rest, the target stands far above its controls "
    "in the\nlate layers alone."
)
