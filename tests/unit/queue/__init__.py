"""What every store promises, asked of each store there is."""
