"""How a layer stores features: statistics of its neurons' input weights and biases."""
