"""The demo: a small language model that recommends real films. Data and weights ship beside this file."""
