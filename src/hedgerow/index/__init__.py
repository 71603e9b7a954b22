"""The index: SIDs as flat sorted arrays per level, and how it is built, changed, saved and verified."""
