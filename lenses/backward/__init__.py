"""The backward lens: gradients of linear maps, read in the vocabulary."""
