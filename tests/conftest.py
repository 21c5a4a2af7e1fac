"""Settings of every test."""

import torch

# Models here are tiny, and a test machine's cores are shared: threads that wait for each other lose.
torch.set_num_threads(1)
