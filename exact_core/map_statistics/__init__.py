"""What a finished map says: areas, samples, references and parcels."""
