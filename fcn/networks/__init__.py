"""Networks: a classifier as a list of layers, its geometry, a head that makes coarse scores of its maps."""
