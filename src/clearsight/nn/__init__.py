"""Layers: normalisation, convolution blocks, activations, initialisation, input normalisation, process averages."""
