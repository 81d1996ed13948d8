"""A page that shows data before it is trained on."""
