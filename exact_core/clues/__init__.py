"""The paper's idea: spatial clues (prototypes), temporal clues (affinity), and the masks made with them."""
