"""BibTeX of works that several instruments go back to."""

__all__ = ["GESHKOVSKI", "GURNEE", "MENG"]

GESHKOVSKI = (
    "@article{geshkovski2025mathematical,\n"
    "  title   = {A mathematical perspective on Transformers},\n"
    "  author  = {Geshkovski, Borjan and Letrouit, Cyril and Polyanskiy, Yury and Rigollet, "
    "Philippe},\n"
    "  journal = {Bulletin of the American Mathematical Society},\n"
    "  year    = {2025},\n"
    "  note    = {arXiv:2312.10794}\n"
    "}"
)

GURNEE = (
    "@article{gurnee2023finding,\n"
    "  title   = {Finding Neurons in a Haystack: Case Studies with Sparse Probing},\n"
    "  author  = {Gurnee, Wes and Nanda, Neel and Pauly, Matthew and Harvey, Katherine and\n"
    "             Troitskii, Dmitrii and Bertsimas, Dimitris},\n"
    "  journal = {Transactions on Machine Learning Research},\n"
    "  year    = {2023},\n"
    "  note    = {arXiv:2305.01610}\n"
    "}"
)

MENG = (
    "@inproceedings{meng2022locating,\n"
    "  title     = {Locating and Editing Factual Associations in {GPT}},\n"
    "  author    = {Meng, Kevin and Bau, David and Andonian, Alex and Belinkov, Yonatan},\n"
    "  booktitle = {Advances in Neural Information Processing Systems},\n"
    "  year      = {2022},\n"
    "  note      = {arXiv:2202.05262}\n"
    "}"
)
