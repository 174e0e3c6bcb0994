"""What every stage uses: parameters, files, metadata, errors."""
