"""The networks: attention, the TSViT encoder, the tag classifier and the segmenters."""
