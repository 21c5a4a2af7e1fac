"""Do Atlas' tokens cluster with depth? Order parameters beside untrained twins and shuffled tokens.

Run it: python examples/particles.py
"""

import workbench as wb
from probes import Particles
from workbench.atlas import prompts_path
from workbench.report.tables import frame

SHOWN = ("raw", "centred", "random_centred", "shuffled_centred")
COLUMNS = (
    "mean_cosine",
    "order_parameter",
    "participation_ratio",
    "vendi",
    "concentration",
    "step",
)


def main(prompts: int = 40) -> None:
    """Print means over prompts, and what differs from the controls."""
    model = wb.load()
    facts = wb.PromptSet.read(prompts_path("facts"))
    found = Particles()(model, facts.subset(range(prompts)))
    section = Particles.section(frame(found.rows()).lazy())
    print(f"{'view':18}{'layer':>6}" + "".join(f"{name:>21}" for name in COLUMNS))
    for row in section.listings[0].table.iter_rows(named=True):
        if row["view"] in SHOWN:
            numbers = ("-" if row[name] is None else f"{row[name]:.3f}" for name in COLUMNS)
            print(f"{row['view']:18}{row['layer']:6}" + "".join(f"{one:>21}" for one in numbers))
    print(*section.remarks[1:], *found.provenance["remarks"], sep="\n")
    found.plot().write_html("particles.html")
    print("figure: particles.html")


if __name__ == "__main__":
    main()
