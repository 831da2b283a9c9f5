"""What every room speaks of: outcomes, events, filters, orders."""
