"""Images of a STAC API, fetched into a season folder."""
