"""The demo: a small language model that recommends films. Its data and weights are in the folder `data`."""
