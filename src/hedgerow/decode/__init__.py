"""Decoding: the step from one level to the next, the search around it, and the oracle that defines correct results.

Letters name the axes of arrays in every docstring of hedgerow, and nothing else:

    B  batch: requests
    M  beam width; m: beams before the step, 1 before level 0 and M after it
    L  levels; l: one level
    C  codes of a level, its codebook size
    K  branch factor: the largest number of children of one node of a level
    N  items
    S  distinct SIDs, which are the leaves of the trie
    E  nodes of a level
    P  parents of a level, the nodes of the level before; 1 for level 0
    V  tokens of the model's vocabulary
    D  dimensions of an embedding
    R  rows of an argument
    W  words of 32 bits
    X  entries of a list of nodes, such as forks or dead nodes
"""
