"""Tokens as interacting particles on a sphere: a simulator, and the closed forms it is held to.

The model: attention as the law of motion of unit vectors, depth as time (Geshkovski, Letrouit,
Polyanskiy, Rigollet, "A mathematical perspective on Transformers", arXiv 2312.10794). Nothing here
knows a language model; `overlay` takes arrays of measured curves.

What the theory does *not* say:

- Noise-free attention of identical tokens has no critical coupling. There is a crossover in depth,
  t*(beta), and metastability; true transitions need noise, different natural frequencies, or a
  beta that grows as gamma log n.
- The clustering theorem is of a fixed number of tokens as t goes to infinity. It says nothing of
  the depth at which a network of a few dozen layers stands.
- A larger K in softmax(S / K) is a *higher* temperature, not a stronger coupling.
- With identity values the interaction energy rises from every start; the mean cosine does from a common
  cosine, and so by the law that `overlay` fits: a model whose mean cosine falls is outside of it. From
  other starts it can fall for a while, where two tokens meet away from the rest.
- Strang's and Macaron's order of substeps is of order 2 only where the substeps are exact or of
  order 2 themselves; with Euler's substeps, as in the Macaron network, it is of order 1.
"""
